//! Applies records of a log to the engine and gathers the effects for the next commit.
//!
//! Invariant: the engine's snapshot is never newer than the last commit. After a restart, the engine applies the
//! records between the two again, and the applier discards their effects, because an earlier process committed them.
//! So each correction is merged into its stored window exactly once.

use super::mutant::{self, Mutant};
use super::ports::{
    self, CatalogRow, Commit, DeadEvent, Logged, Numbers, OutboxEntry, PartialsMessage, PortError, Rollup,
    Store, WindowAt, WindowRow,
};
use crate::core::alert::Transition;
use crate::core::effect::{RejectReason, WindowEffect};
use crate::core::log_clock::{Jump, Verdict};
use crate::core::measure::pane::Shape;
use crate::core::measure::window::{Correction, Sealed, WindowKey, WindowSize};
use crate::core::record::{Body, Control, Record};
use crate::core::vocab::counters::Refusal;
use crate::core::vocab::identity::{Identity, IdentityTable};
use crate::core::{Effects, Engine, Timestamp};
use crate::wire::control::{self, ControlError};
use crate::wire::event::{Decoded, Decoder};
use crate::wire::window::WindowView;
use crate::wire::{alert, partial};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An engine, together with its decoder, its table of identities and the commit that is being gathered.
#[derive(Debug)]
pub struct Applier {
    pub engine: Engine,
    decoder: Decoder,
    directory: IdentityTable,
    effects: Effects,
    /// Number of the last record whose effects are committed, possibly by an earlier process.
    committed: u64,
    /// Number of the newest applied record.
    pub applied: u64,
    numbered: Numbers,
    windows: BTreeMap<WindowAt, WindowRow>,
    /// Bytes of memory that the panes in `windows` use.
    window_bytes: usize,
    catalogued: BTreeSet<u64>,
    pending: Commit,
    published: Vec<Transition>,
    losing: Option<Losing>,
    /// Numbers of the poison records, which are skipped because they crash the process.
    poison: BTreeSet<u64>,
    /// Records that are held back until a jump of the log's clock is confirmed or refuted.
    jump: Jump<Logged>,
    /// Whether each window is published when it is sealed and when it is corrected.
    pub is_rolling_up: bool,
    has_lost: bool,
}

/// Maximum dead letters kept per record. The last one counts the further refused events in `more`.
const DEAD_PER_RECORD_MAX: usize = 100;

/// Maximum dead letters kept per commit. They are published before the commit, and the lease must not expire
/// meanwhile: at 20,000 messages a second, 10,000 dead letters take half a second.
const DEAD_PER_COMMIT_MAX: usize = 10_000;

/// Maximum characters of the error message about a control record that cannot be decoded.
const MESSAGE_CHARS_MAX: usize = 300;

/// Maximum windows read from the store in one request: 256 × at most 64 KiB = 16 MiB.
const WINDOWS_AT_ONCE: usize = 256;

/// Alerts that an earlier owner published and whose outcome is unknown, because the log lost records. `told` holds
/// the newest transition of each alert. The alerts end as lost once record `seq` is applied and the log's clock has
/// reached `until`.
#[derive(Debug)]
struct Losing {
    seq: u64,
    until: Timestamp,
    told: Vec<Transition>,
}

impl Applier {
    /// Creates an applier. `committed` and `numbered` come from the store's checkpoint; `applied` is the
    /// record after which the engine's snapshot was taken.
    pub fn new(engine: Engine, applied: u64, committed: u64, numbered: Numbers) -> Applier {
        Applier {
            engine,
            decoder: Decoder::new(0),
            directory: IdentityTable::default(),
            effects: Effects::default(),
            committed,
            applied,
            numbered,
            windows: BTreeMap::new(),
            window_bytes: 0,
            catalogued: BTreeSet::new(),
            is_rolling_up: false,
            pending: Commit::default(),
            published: Vec::new(),
            losing: None,
            poison: BTreeSet::new(),
            jump: Jump::default(),
            has_lost: false,
        }
    }

    /// Adds the identities that a decoder found. The call must precede the records of that decoder, because they
    /// refer to identities by number. `is_anew` tells that the decoder has restarted its numbering.
    pub fn learn(&mut self, decoder: usize, is_anew: bool, found: Vec<Arc<Identity>>) {
        if is_anew {
            self.directory.forget(decoder);
            self.engine.forget_decoder(decoder);
        }
        self.directory.learn(decoder, found);
    }

    /// Applies one record, unless it has to wait behind a jump of the log's clock. Returns how many values were
    /// applied.
    pub fn apply(&mut self, record: &Logged, store: &impl Store) -> Result<u64, PortError> {
        match self.judge(record, store)? {
            Some(values) => Ok(values + self.decode_and_apply(record, record.stamp, store)?),
            None => Ok(0),
        }
    }

    /// Judges the record's stamp. Returns `None` if the record has to wait behind a jump of the clock.
    /// Otherwise applies the waiting records, if any, and returns how many values they had.
    #[inline]
    fn judge(&mut self, record: &Logged, store: &impl Store) -> Result<Option<u64>, PortError> {
        let now = Some(self.engine.now()).filter(|now| *now > Timestamp::MIN);
        let verdict = self.jump.judge(now, record.stamp, self.engine.limits().max_skew);
        if verdict == Verdict::Fine {
            return Ok(Some(0));
        }
        if verdict == Verdict::Wait {
            if self.jump.to().is_none() {
                let now = self.engine.now();
                tracing::warn!(
                    seq = record.seq,
                    to = %record.stamp,
                    %now,
                    "the log's clock has jumped; records wait until later stamps confirm or refute the jump"
                );
            }
            self.jump.wait(record.clone(), record.stamp, record.entry.bytes());
            return Ok(None);
        }
        let mut values = 0;
        let is_wrong = verdict == Verdict::Wrong;
        tracing::warn!(is_wrong, seq = record.seq, "the worker settles the jump of the log's clock");
        for (waiting, stamp) in self.jump.take() {
            let stamp = if is_wrong { self.engine.now() } else { stamp };
            values += self.decode_and_apply(&waiting, stamp, store)?;
        }
        Ok(Some(values))
    }

    /// Returns the number of the newest record received, whether it is applied or waits behind a clock jump.
    pub fn taken(&self) -> u64 {
        self.jump.newest().map_or(self.applied, |waiting| waiting.seq)
    }

    /// Returns the time at which the owner appends a tick, unless a record arrives before; `None` means never. An
    /// empty log gets a tick at once. The first stamp of a log is accepted unchecked, and with the tick before it the
    /// stamp of the first event is checked.
    pub fn tick_due(&self) -> Option<Timestamp> {
        let is_empty = self.engine.now() == Timestamp::MIN && self.taken() == 0;
        match is_empty && !self.engine.limits().partition.is_aggregate() {
            true => Some(Timestamp::MIN),
            false => self.engine.next_wake(),
        }
    }

    /// Returns the time to which the log's clock has jumped, while the jump is not confirmed.
    pub fn jump(&self) -> Option<Timestamp> {
        self.jump.to()
    }

    fn decode_and_apply(
        &mut self,
        record: &Logged,
        stamp: Timestamp,
        store: &impl Store,
    ) -> Result<u64, PortError> {
        let mut decoded = Decoded::default();
        if let ports::Entry::Events(codec, payload) = &record.entry
            && !self.poison.contains(&record.seq)
        {
            mutant::die_of(payload);
            if self.decoder.trim() {
                self.learn(0, true, Vec::new());
            }
            self.decoder.payload(*codec, payload, &mut decoded);
            self.directory.learn(0, self.decoder.take_found());
        }
        self.apply_at(record, stamp, decoded, store)
    }

    /// Applies a record whose payload is already decoded. If the record has to wait, `decoded` is dropped, and the
    /// payload is decoded again when the record is applied.
    pub fn apply_decoded(
        &mut self,
        record: &Logged,
        decoded: Decoded,
        store: &impl Store,
    ) -> Result<u64, PortError> {
        match self.judge(record, store)? {
            Some(values) => Ok(values + self.apply_at(record, record.stamp, decoded, store)?),
            None => Ok(0),
        }
    }

    fn apply_at(
        &mut self,
        record: &Logged,
        stamp: Timestamp,
        mut decoded: Decoded,
        store: &impl Store,
    ) -> Result<u64, PortError> {
        if record.seq > self.applied + 1 {
            self.gap(record, stamp, store)?;
        }
        let control = match &record.entry {
            ports::Entry::Control(json) => self.control(record.seq, json)?,
            _ => None,
        };
        let partials = match &record.entry {
            ports::Entry::Partials { bytes, .. } => partial::decode(bytes).ok(),
            _ => None,
        };
        let bad: Vec<Refusal> = decoded.bad.iter().map(|bad| bad.reason).collect();
        let is_poison = self.poison.contains(&record.seq);
        let body = match (&record.entry, &control, &partials) {
            _ if is_poison => Body::Poison,
            (ports::Entry::Events(..), ..) => Body::Events(&decoded.events),
            (ports::Entry::Control(_), Some(control), _) => Body::Control(control),
            (ports::Entry::Partials { from, number, .. }, _, Some(partials)) => {
                Body::Partials { from: *from, number: *number, partials }
            }
            _ => Body::Tick,
        };
        let core = Record { seq: record.seq, stamp, limit: None, bad: &bad, body };
        self.engine.handle(&core, &self.directory, &mut self.effects);
        self.applied = record.seq;
        if record.seq > self.committed || mutant::is(Mutant::EffectsTwice) {
            let places: Vec<u32> = decoded.bad.iter().map(|bad| bad.index as u32).collect();
            for bad in std::mem::take(&mut decoded.bad) {
                let (index, reason, message) =
                    (bad.index as u32, RejectReason::Refused(bad.reason), bad.message);
                self.keep_dead_letter(DeadEvent { seq: record.seq, index, reason, message, more: 0 });
            }
            if is_poison {
                let (reason, message) = (RejectReason::Poison, "several owners died at this record".into());
                self.keep_dead_letter(DeadEvent { seq: record.seq, index: 0, reason, message, more: 0 });
            }
            self.gather(&places, store)?;
        }
        self.effects.clear();
        let now = self.engine.now();
        if let Some(losing) = self.losing.take_if(|losing| losing.seq <= record.seq && losing.until <= now) {
            self.has_lost = true;
            self.engine.lose_alerts(&losing.told, &mut self.effects);
            self.gather(&[], store)?;
        }
        Ok(decoded.events.iter().map(|event| event.values()).sum())
    }

    /// Decodes a control record. A control record of a newer version is an error that stops the partition, because
    /// its rules or acknowledgements would be missing from here on. Bytes that are no control record become a dead
    /// letter, because otherwise any client that may append to the log could stop the partition.
    fn control(&mut self, seq: u64, json: &[u8]) -> Result<Option<Control>, PortError> {
        let error = match control::decode(json) {
            Ok(control) => return Ok(Some(control)),
            Err(ControlError::Newer { found }) => {
                return Err(PortError::Newer { seq, found, known: control::VERSION });
            }
            Err(error) => error,
        };
        // The error may quote the record, so its length is limited.
        let message: String = error.to_string().chars().take(MESSAGE_CHARS_MAX).collect();
        tracing::error!(seq, error = message, "the control record cannot be put in force; it is skipped");
        if seq > self.committed {
            let reason = RejectReason::Refused(Refusal::BadPayload);
            self.keep_dead_letter(DeadEvent { seq, index: 0, reason, message, more: 0 });
        }
        Ok(None)
    }

    /// Handles a gap: the records between the newest applied one and `record` are missing from the log.
    fn gap(&mut self, record: &Logged, stamp: Timestamp, store: &impl Store) -> Result<(), PortError> {
        if self.applied < self.committed && self.losing.is_none() {
            // An earlier owner committed the effects of missing records, so the engine cannot reproduce the committed
            // state. The owner begins a new session, which ends the alerts of the earlier owner as lost.
            return Err(PortError::Overtaken);
        }
        let body = Body::Gap(self.applied + 1, record.seq - 1);
        let gap = Record { seq: record.seq, stamp, limit: None, bad: &[], body };
        self.engine.handle(&gap, &self.directory, &mut self.effects);
        if record.seq > self.committed {
            self.gather(&[], store)?;
        }
        self.effects.clear();
        Ok(())
    }

    /// Handles the loss of records that an earlier owner had read. `told` holds the newest published transition of
    /// each of its alerts. These alerts end as lost once record `seq` and the time of the newest transition in `told`
    /// are reached, and the rules start with empty state there. Until then no transition is published, because the
    /// earlier owner may have published it already.
    pub fn lose(&mut self, seq: u64, told: Vec<Transition>) {
        self.engine.lose_alerts(&[], &mut self.effects);
        let until = told.iter().map(|transition| transition.at).max().unwrap_or(Timestamp::MIN);
        self.losing = Some(Losing { seq, until, told });
    }

    /// Skips these poison records, which earlier owners identified.
    pub fn leave_out(&mut self, poison: &[u64]) {
        self.poison.extend(poison);
    }

    /// Skips this poison record from now on, in this session and in later ones.
    pub fn leave_out_one(&mut self, seq: u64) {
        self.poison.insert(seq);
        self.pending.poison.push(seq);
    }

    /// Whether alerts of an earlier owner still have to be ended as lost.
    pub fn is_losing(&self) -> bool {
        self.losing.is_some()
    }

    /// Whether the state cannot be produced again from the log, so that a snapshot is needed.
    pub fn has_lost(&self) -> bool {
        self.has_lost
    }

    /// Resets [`Self::has_lost`], because a durable snapshot now holds the state.
    pub fn forget_loss(&mut self) {
        self.has_lost = false;
    }

    /// Adds the effects of a record to the next commit. `bad` holds the payload indexes of the events that could not
    /// be decoded.
    fn gather(&mut self, bad: &[u32], store: &impl Store) -> Result<(), PortError> {
        let mut effects = std::mem::take(&mut self.effects);
        if self.losing.is_some() {
            effects.transitions.clear();
            effects.shadows.clear();
            effects.partials.clear();
        }
        for partials in &effects.partials {
            self.numbered.partials += 1;
            let (number, bytes) = (self.numbered.partials, partial::encode(partials));
            self.pending.partials.push(PartialsMessage { number, bytes });
        }
        self.gather_windows(&effects.windows, store)?;
        for transition in &effects.transitions {
            self.numbered.alerts += 1;
            let actions = transition.actions.iter().map(|action| {
                self.numbered.actions += 1;
                (self.numbered.actions, action.clone())
            });
            let actions = actions.collect();
            self.pending.transitions.push(OutboxEntry {
                actions,
                number: self.numbered.alerts,
                severity: transition.severity_highest,
                rule: transition.rule.clone(),
                json: alert::line(transition),
            });
        }
        for shadow in &effects.shadows {
            self.numbered.shadows += 1;
            self.pending.shadows.push(OutboxEntry {
                actions: Vec::new(),
                number: self.numbered.shadows,
                severity: shadow.severity_highest,
                rule: shadow.rule.clone(),
                json: alert::line(shadow),
            });
        }
        self.published.extend(effects.transitions);
        let now = self.engine.now();
        for refused in &effects.refused {
            let (seq, reason) = (refused.seq, refused.reason);
            let index = place_among(bad, refused.index);
            let message = refused.message(now);
            self.keep_dead_letter(DeadEvent { seq, index, reason, message, more: 0 });
        }
        Ok(())
    }

    /// Keeps a refused event as a dead letter. Only the first `DEAD_PER_RECORD_MAX` of a record are kept, so that one
    /// sender cannot use up the limit of the whole commit.
    fn keep_dead_letter(&mut self, dead: DeadEvent) {
        let of_record = self.pending.dead.iter().rev().take_while(|known| known.seq == dead.seq);
        let is_full = of_record.take(DEAD_PER_RECORD_MAX).count() == DEAD_PER_RECORD_MAX
            || self.pending.dead.len() >= DEAD_PER_COMMIT_MAX;
        match self.pending.dead.last_mut() {
            Some(last) if is_full => last.more += 1,
            _ => self.pending.dead.push(dead),
        }
    }

    fn gather_windows(&mut self, windows: &[WindowEffect], store: &impl Store) -> Result<(), PortError> {
        for some in windows.chunks(WINDOWS_AT_ONCE) {
            self.fetch_corrected(some, store)?;
            for window in some {
                match window {
                    WindowEffect::Sealed(sealed) => self.seal(sealed),
                    WindowEffect::Correction(correction) => self.correct(correction),
                }
            }
        }
        Ok(())
    }

    /// Reads the stored windows that `windows` corrects and that are not in memory, in one request.
    fn fetch_corrected(&mut self, windows: &[WindowEffect], store: &impl Store) -> Result<(), PortError> {
        let mut wanted: Vec<(WindowAt, Shape)> = Vec::new();
        for window in windows {
            if let WindowEffect::Correction(Correction { key, .. }) = window
                && !self.windows.contains_key(&at(key))
            {
                wanted.push((at(key), key.shape));
            }
        }
        wanted.sort_unstable_by_key(|(at, _)| *at);
        wanted.dedup_by_key(|(at, _)| *at);
        if wanted.is_empty() {
            return Ok(());
        }
        for ((at, _), row) in wanted.iter().zip(store.windows(&wanted)?) {
            let row = row.unwrap_or_default();
            self.window_bytes += row.pane.memory_bytes();
            self.windows.insert(*at, row);
        }
        Ok(())
    }

    fn seal(&mut self, sealed: &Sealed) {
        self.catalogue(&sealed.key);
        let is_incomplete = sealed.key.is_incomplete;
        self.window_bytes += sealed.pane.memory_bytes();
        let row = WindowRow { pane: sealed.pane.clone(), revision: 0, is_incomplete };
        if self.is_rolling_up {
            self.pending.rollups.push(rollup(&sealed.key, &row));
        }
        self.windows.insert(at(&sealed.key), row);
    }

    fn correct(&mut self, correction: &Correction) {
        self.catalogue(&correction.key);
        let row = self.windows.entry(at(&correction.key)).or_default();
        let before = row.pane.memory_bytes();
        row.pane.merge(&correction.part);
        self.window_bytes += row.pane.memory_bytes().saturating_sub(before);
        row.revision += 1;
        row.is_incomplete |= correction.key.is_incomplete;
        if self.is_rolling_up {
            self.pending.rollups.push(rollup(&correction.key, row));
        }
    }

    fn catalogue(&mut self, key: &WindowKey) {
        if self.catalogued.insert(key.series.id) {
            let row = CatalogRow { series: key.series.clone(), unit: key.unit.clone(), shape: key.shape };
            self.pending.catalog.push(row);
        }
    }

    /// Whether a transition or a message to the aggregate partition waits for the next commit. Both are published
    /// only after that commit, so it should not be delayed.
    pub fn is_urgent(&self) -> bool {
        !self.pending.transitions.is_empty() || !self.pending.partials.is_empty()
    }

    /// Returns the bytes of memory that the windows of the next commit use. Their stored form is smaller.
    pub fn pending_bytes(&self) -> usize {
        self.window_bytes
    }

    /// Adds the series in these slots to the catalog of the next commit, unless this applier has added them before.
    pub fn catalogue_slots(&mut self, slots: &[u32]) {
        let table = self.engine.series();
        for series in slots.iter().filter_map(|slot| table.get(*slot)) {
            if self.catalogued.insert(series.info.id) {
                let metric = table.metric_of(series);
                let (series, unit, shape) = (series.info.clone(), metric.unit.clone(), metric.shape);
                self.pending.catalog.push(CatalogRow { series, unit, shape });
            }
        }
    }

    /// Returns the current state of the open windows of the series in these slots.
    pub fn open_windows(&self, slots: &[u32], sizes: &[WindowSize]) -> Vec<(WindowAt, WindowRow)> {
        let mut open = Vec::new();
        for slot in slots {
            for (key, pane) in self.engine.open_windows_of(*slot, sizes) {
                let is_incomplete = key.is_incomplete;
                open.push((at(&key), WindowRow { pane, revision: 0, is_incomplete }));
            }
        }
        open
    }

    /// Whether every record whose effects an earlier owner committed is applied again.
    pub fn has_caught_up(&self) -> bool {
        self.applied >= self.committed
    }

    /// Returns the numbers of the first and the last record that are applied but not committed.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    pub fn uncommitted(&self) -> (u64, u64) {
        (self.committed + 1, self.applied)
    }

    /// Whether there is anything to commit.
    pub fn is_dirty(&self) -> bool {
        self.applied > self.committed
    }

    /// Returns the next commit. Call [`Self::finish_commit`] once it is durable, or [`Self::undo_commit`] if it
    /// failed. After a failure its effects are part of the following commit.
    pub fn commit(&mut self) -> &mut Commit {
        self.pending.applied = self.applied;
        self.pending.numbered = self.numbered;
        self.pending.is_losing = self.losing.is_some();
        self.pending.windows = std::mem::take(&mut self.windows).into_iter().collect();
        self.window_bytes = 0;
        &mut self.pending
    }

    /// Puts the windows of a failed commit back, because later corrections must find them.
    pub fn undo_commit(&mut self) {
        self.windows = self.pending.windows.drain(..).collect();
        self.window_bytes = self.windows.values().map(|row| row.pane.memory_bytes()).sum();
    }

    /// Marks the commit as durable and returns its transitions, which may now be published.
    pub fn finish_commit(&mut self) -> Vec<Transition> {
        self.committed = self.pending.applied;
        self.pending = Commit::default();
        std::mem::take(&mut self.published)
    }
}

/// Converts an index among the good events, as the engine counts them, into an index in the payload; `bad`
/// holds the indexes of the bad events in ascending order.
fn place_among(bad: &[u32], good: u32) -> u32 {
    bad.iter().fold(good, |place, bad| place + u32::from(*bad <= place))
}

/// Returns a window in its published form, with the fields that form the name of its subject.
fn rollup(key: &WindowKey, row: &WindowRow) -> Rollup {
    let view = WindowView::new(key, &row.pane, row.revision, false);
    Rollup {
        size: key.size,
        start: key.start,
        revision: row.revision,
        series: key.series.id,
        source: key.series.source.clone(),
        name: key.series.name.clone(),
        // Numbers and texts always serialise.
        json: serde_json::to_string(&view).unwrap_or_default(),
    }
}

fn at(key: &WindowKey) -> WindowAt {
    (key.size, key.start, key.series.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_event_has_its_place_among_all() {
        let places = |bad: &[u32]| (0..3).map(|good| place_among(bad, good)).collect::<Vec<_>>();
        assert_eq!(places(&[]), [0, 1, 2]);
        assert_eq!(places(&[0, 1]), [2, 3, 4]);
        assert_eq!(places(&[1, 3]), [0, 2, 4]);
    }
}
