//! A session is the time of one ownership of a partition: read, apply, commit, publish. Nothing in its memory
//! survives its end.

mod lease;
mod parts;
mod posting;
mod showing;

use self::lease::{RenewingStore, renewed};
pub use self::parts::SessionParts;
use super::applier::Applier;
use super::continuity::Continuity;
use super::decode_ahead::{self, DecodeAhead};
use super::monitor::{PartitionMonitor, PartitionStatus};
use super::mutant::{self, Mutant};
use super::poison::{DEATHS_MAX, PoisonGuard};
use super::port_error::chain;
use super::ports::{
    Anchor, Answer, Clock, DeadEvent, DeadLetter, EVENT_STREAM, Entry, Extent, Feed, Fence, Logged, Numbers,
    OutboxEntry, Outlet, PartialsMessage, PortError, Reply, SharedStore, TransitionLog,
};
use super::quota::Permit;
use super::worker::{COMMIT_EVERY, Command, GROUP_MAX, Publish, SNAPSHOT_COST_MULTIPLE, StartError};
use crate::core::alert::Transition;
use crate::core::record::Control;
use crate::core::rule::RuleSet;
use crate::core::vocab::counters::Refusal;
use crate::core::{Engine, Span};
use crate::wire::event::Decoded;
use crate::wire::pipeline::Portion;
use crate::wire::{alert, pipeline, snapshot};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Interval after which a commit also writes the open 5m and 1h windows, the active alerts and the pipeline
/// summaries.
const COARSE_EVERY: Duration = Duration::from_secs(10);

/// Memory of the pending windows at which a commit is due. The limit is small because Redis does nothing else
/// while it runs a script.
const COMMIT_BYTES_MAX: usize = 4 << 20;

/// Longest wait for records before commands are handled.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// Minimum time between two ticks.
const TICK_EVERY: Duration = Duration::from_millis(100);

/// Minimum time between two ticks behind a jump of the log's clock, and while a server is away.
const TICK_EVERY_WAITING: Duration = Duration::from_secs(1);

/// Time between two attempts of a request that a server did not answer.
const RETRY_EVERY: Duration = Duration::from_millis(50);

/// Outcome of one step of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    On,
    Stopped,
    /// The process held more partitions than its share.
    GivenUp,
}

/// Rules to be put in force, and the caller that waits for the result.
struct Wanted {
    rules: RuleSet,
    reply: Option<Reply<u64>>,
}

/// The state of a session. Times are those of [`Clock::running`].
pub(super) struct OwnerSession {
    fence: Fence,
    permit: Permit,
    applier: Applier,
    ahead: DecodeAhead,
    poison_guard: PoisonGuard,
    monitor: PartitionMonitor,
    /// How far the newest applied record was behind the clock; zero when there was no record to read.
    lag: Span,
    anchor: Anchor,
    /// Rules to put in force once every record of the log is applied.
    rules: Option<Wanted>,
    caught_up_at: u64,
    outbox: Vec<OutboxEntry>,
    partials: Vec<PartialsMessage>,
    shadows: Vec<OutboxEntry>,
    published: Numbers,
    /// The change counter of silences and maintenance windows when they were last written.
    asked_shown: Option<u32>,
    touched: BTreeSet<u32>, // series whose 5m and 1h windows changed since they were last written
    committed_at: Duration,
    coarse_at: Duration,
    snapshot_at: Duration,
    snapshot_took: Duration,
    renew_at: Duration,
    ticked_at: Duration,
}

impl OwnerSession {
    /// Restores the state from the store, checks that the log is the one it was read from, and resumes
    /// reading.
    pub(super) fn begin<F: Feed + TransitionLog + Outlet, S: SharedStore, C: Clock>(
        parts: &mut SessionParts<F, S, C>,
        fence: Fence,
        permit: Permit,
    ) -> Result<OwnerSession, StartError> {
        let checkpoint = parts.store.checkpoint()?;
        let extent = extent(&mut parts.feed, &checkpoint.anchor)?;
        let (mut engine, mut begun_at) = match &checkpoint.snapshot {
            Some((at, bytes)) => (snapshot::decode(bytes, parts.limits.clone())?, *at),
            None => (Engine::new(parts.limits.clone()), 0),
        };
        engine.track_changes();
        begun_at -= u64::from(mutant::is(Mutant::SnapshotLate)).min(begun_at);
        let from = if mutant::is(Mutant::SkipTail) { checkpoint.applied } else { begun_at } + 1;
        let known = (checkpoint.applied > 0).then_some((checkpoint.applied, checkpoint.anchor.fingerprint));
        let continuity = Continuity::new(EVENT_STREAM, &checkpoint.anchor.stream, from, known);
        continuity.clone().begin(&extent)?;
        parts.feed.seek(continuity)?;
        let on_board = parts.feed.newest()?;
        let mut numbered = checkpoint.numbered;
        // An earlier owner had read the records that are gone now, or had published their effects.
        let is_ahead = on_board.alerts > numbered.alerts || on_board.partials > numbered.partials;
        let is_gone = extent.first > from && (checkpoint.applied > begun_at || is_ahead);
        let is_anew = is_begun_anew(&mut parts.feed, checkpoint.applied, on_board)?;
        let is_lossy = is_gone || is_anew || checkpoint.is_losing;
        if is_lossy || mutant::is(Mutant::NumberFromBoard) {
            numbered = numbered.max(on_board);
        }
        let outbox = if mutant::is(Mutant::ForgetOutbox) { Vec::new() } else { checkpoint.outbox };
        let now = parts.clock.running();
        let mut applier = Applier::new(engine, begun_at, checkpoint.applied, numbered);
        applier.is_rolling_up = parts.is_rolling_up;
        applier.leave_out(&checkpoint.poison);
        let mut session = OwnerSession {
            fence,
            permit,
            applier,
            ahead: DecodeAhead::default(),
            poison_guard: PoisonGuard::new(checkpoint.tries, now),
            monitor: PartitionMonitor::begin(&mut parts.feed, parts.limits.partition)?,
            lag: Span::ZERO,
            anchor: Anchor { stream: extent.stream, ..checkpoint.anchor },
            rules: parts.rules.clone().map(|rules| Wanted { rules, reply: None }),
            // An emptied log keeps its numbering, so its `last` names no record that can be applied.
            caught_up_at: if extent.last >= extent.first { extent.last } else { 0 },
            // A message to the aggregate partition may have expired from its log. It is not sent again.
            published: Numbers { alerts: on_board.alerts.min(numbered.alerts), ..on_board },
            outbox,
            partials: if mutant::is(Mutant::ForgetPartials) { Vec::new() } else { checkpoint.partials },
            shadows: checkpoint.shadows,
            asked_shown: None,
            touched: BTreeSet::new(),
            committed_at: now,
            coarse_at: now,
            snapshot_at: now,
            snapshot_took: Duration::ZERO,
            renew_at: now + parts.lease / 3,
            ticked_at: now,
        };
        session.publish(parts, true)?;
        if is_lossy {
            let told = last_told(parts.feed.told()?);
            tracing::warn!(
                first = extent.first,
                alerts = told.len(),
                "the log lost records that an earlier owner applied; its alerts end as lost"
            );
            session.applier.lose(checkpoint.applied.max(extent.first), told);
        }
        Ok(session)
    }

    pub(super) fn step<F: Feed + TransitionLog + Outlet, S: SharedStore, C: Clock>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
        commands: &Receiver<Command>,
        publish: &mut Publish,
    ) -> Result<Next, StartError> {
        let wait = if self.ahead.is_busy() { Duration::ZERO } else { self.patience(parts) };
        let records = parts.feed.next(wait)?;
        let is_idle = records.is_empty() && !self.ahead.is_busy();
        let is_present = records.last().is_some_and(|newest| newest.seq > self.caught_up_at);
        self.apply(records, parts, publish)?;
        parts.owner_metrics.reach(self.applier.engine.now());
        if is_present {
            parts.owner_metrics.hear(self.applier.engine.now());
        }
        parts.owner_metrics.jump(self.applier.jump());
        let is_told = self.obey(parts, commands);
        if is_told || self.permit.give_up_surplus() {
            self.end(parts, publish)?;
            return Ok(if is_told { Next::Stopped } else { Next::GivenUp });
        }
        if is_idle {
            self.lag = Span::ZERO;
            self.tick(parts);
        }
        self.look_around(parts);
        if self.poison_guard.is_calm(parts.clock.running()) {
            parts.store.calm(&self.fence);
        }
        self.keep_lease(parts)?;
        if self.is_commit_due(parts) {
            self.commit(parts, publish)?;
        }
        Ok(Next::On)
    }

    /// Lets the monitor report when the partition is not kept as it should be.
    fn look_around<F: TransitionLog, S, C: Clock>(&mut self, parts: &mut SessionParts<F, S, C>) {
        parts.owner_metrics.lag_ms.set(self.lag.ms().max(0) as u64);
        let (running, now) = (parts.clock.running(), parts.clock.now());
        if !self.monitor.is_due(running) {
            return;
        }
        let counters = self.applier.engine.counters();
        let seen = PartitionStatus {
            lag: self.lag,
            fenced: parts.owner_metrics.fenced.get(),
            repeated: parts.owner_metrics.suppressed.get(),
            late: counters.late
                + counters.late_state
                + counters.dropped
                + counters.refused_for(Refusal::TooLate),
            received: counters.received,
            snapshot_age: Span::from_ms(running.saturating_sub(self.snapshot_at).as_millis() as i64),
            ..PartitionStatus::around(&parts.owner_metrics, now, &self.applier.engine)
        };
        self.monitor.look(seen, &mut parts.feed, now);
        parts.owner_metrics.remark(self.applier.engine.limits().partition, self.monitor.remarks());
    }

    /// Returns the record that was applied last.
    pub(super) fn applied(&self) -> u64 {
        self.applier.applied
    }

    /// Whether a later record was applied, or this one was applied and committed.
    pub(super) fn is_beyond(&self, record: u64) -> bool {
        self.applier.applied > record || self.applier.applied == record && !self.applier.is_dirty()
    }

    /// Returns the records applied since the last commit, as `from-to`, or `none`.
    pub(super) fn uncommitted(&self) -> String {
        let (from, to) = self.applier.uncommitted();
        if from > to { "none".into() } else { format!("{from}-{to}") }
    }

    /// Returns how long to wait for records: until the engine's wake-up, but at most `WAIT_MAX`.
    fn patience<F, S, C: Clock>(&self, parts: &SessionParts<F, S, C>) -> Duration {
        let wake = self.applier.tick_due().map_or(WAIT_MAX, |wake| parts.clock.until(wake));
        wake.clamp(Duration::from_millis(1), WAIT_MAX)
    }

    /// Returns the next records to apply. They are decoded ahead where that is worth it, and undecoded
    /// otherwise.
    fn decoded(&mut self, records: Vec<Logged>) -> Option<Vec<(Logged, Option<Decoded>)>> {
        let ready = self.ahead.take();
        let is_fast = self.poison_guard.is_fast();
        if !records.is_empty() && is_fast && (ready.is_some() || DecodeAhead::is_worth(&records)) {
            self.ahead.give(records);
        } else if !records.is_empty() {
            return Some(records.into_iter().map(|record| (record, None)).collect());
        }
        let batch = ready?;
        self.applier.learn(decode_ahead::DECODER, batch.is_anew, batch.found);
        Some(batch.records)
    }

    fn apply<F: Feed + TransitionLog + Outlet, S: SharedStore, C: Clock>(
        &mut self,
        records: Vec<Logged>,
        parts: &mut SessionParts<F, S, C>,
        publish: &mut Publish,
    ) -> Result<(), StartError> {
        let Some(batch) = self.decoded(records) else { return Ok(()) };
        let (last, begun) = (batch.len().saturating_sub(1), parts.clock.running());
        self.lag = batch.last().map_or(self.lag, |(newest, _)| parts.clock.now() - newest.stamp);
        for (place, (mut record, decoded)) in batch.into_iter().enumerate() {
            if mutant::is(Mutant::WallTime) {
                record.stamp = parts.clock.now();
            }
            if self.poison_guard.names_next() && parts.store.attempt(&self.fence, record.seq)? >= DEATHS_MAX {
                tracing::error!(
                    seq = record.seq,
                    "several owners in a row died at this record; the worker skips it"
                );
                parts.owner_metrics.left_out.add(1);
                self.applier.leave_out_one(record.seq);
            }
            let times = (parts.lease, self.renew_at);
            let kept = RenewingStore::new(&mut parts.store, &parts.clock, &self.fence, times);
            match decoded {
                Some(decoded) => self.applier.apply_decoded(&record, decoded, &kept)?,
                None => self.applier.apply(&record, &kept)?,
            };
            let is_full = self.applier.pending_bytes() >= COMMIT_BYTES_MAX
                || self.poison_guard.is_step_over() && self.applier.is_dirty();
            if self.applier.applied != record.seq {
                // The record waits behind a jump of the clock, so the record applied last is not at hand.
                self.anchor.fingerprint = 0;
            } else if is_full || place == last {
                self.anchor.fingerprint = record.fingerprint();
            }
            if is_full {
                self.name_nothing(parts)?;
                self.commit(parts, publish)?;
            }
            // Between batches `step` renews the lease.
            if place < last && parts.clock.running() - begun >= parts.lease / 3 {
                self.keep_lease(parts)?;
            }
        }
        self.name_nothing(parts)
    }

    /// Notes that no record is being applied: from here on a crash is not attributed to a record.
    fn name_nothing<F, S: SharedStore, C>(
        &self,
        parts: &mut SessionParts<F, S, C>,
    ) -> Result<(), StartError> {
        if self.poison_guard.is_naming() {
            parts.store.attempt(&self.fence, 0)?;
        }
        Ok(())
    }

    /// Carries out the pending commands. Returns true to stop.
    fn obey<F: Feed, S, C>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
        commands: &Receiver<Command>,
    ) -> bool {
        let (mut entries, mut replies, mut is_stop) = (Vec::new(), Vec::new(), false);
        self.want_rules(parts);
        for command in commands.try_iter().take(GROUP_MAX) {
            match command {
                Command::Append(entry, _, reply) => {
                    entries.push(entry);
                    replies.push(reply);
                }
                Command::Rules(rules, reply) => {
                    parts.rules = Some((*rules).clone());
                    self.rules = Some(Wanted { rules: *rules, reply: Some(reply) });
                }
                Command::Ask(ask) => ask(&mut self.applier.engine),
                Command::Stop => is_stop = true,
            }
        }
        if !entries.is_empty() {
            for (result, reply) in parts.feed.append(entries).into_iter().zip(replies) {
                reply(result.map_err(|error| chain(&error)));
            }
        }
        is_stop
    }

    /// Appends the wanted rules to the log if they differ from those in force, once every record of the log
    /// is applied.
    fn want_rules<F: Feed, S, C>(&mut self, parts: &mut SessionParts<F, S, C>) {
        let Some(wanted) = self.rules.take_if(|_| self.applier.applied >= self.caught_up_at) else { return };
        let mut appended = Ok(0);
        if wanted.rules != *self.applier.engine.rules() {
            let entry = Entry::control(&Control::Rules(Box::new(wanted.rules.clone())));
            appended = parts.feed.append(vec![entry]).pop().unwrap_or(Ok(0));
        }
        match appended {
            Ok(seq) => {
                // The next wanted rules are compared with these, so these must be applied first.
                self.caught_up_at = self.caught_up_at.max(seq);
                wanted.reply.map(|reply| reply(Ok(seq))).unwrap_or_default();
            }
            Err(error) => {
                // The broker may be away. The rules are tried again, because a session without rules raises no
                // alerts.
                tracing::debug!(error = %chain(&error), "cannot append the rules yet");
                self.rules = Some(wanted);
            }
        }
    }

    /// Appends a tick if the engine's wake-up is due and no record arrived.
    fn tick<F: Feed, S, C: Clock>(&mut self, parts: &mut SessionParts<F, S, C>) {
        let wake = self.applier.tick_due();
        let is_due = wake.is_some_and(|wake| wake <= parts.clock.now());
        let now = parts.clock.running();
        let is_slow = self.applier.jump().is_some() || parts.owner_metrics.outages.is_any();
        let every = if is_slow { TICK_EVERY_WAITING } else { TICK_EVERY };
        if !is_due || now.saturating_sub(self.ticked_at) < every {
            return;
        }
        self.ticked_at = now;
        parts.owner_metrics.ticks.add(1);
        for error in parts.feed.append(vec![Entry::Tick]).into_iter().filter_map(Result::err) {
            // The feed logs the outage.
            tracing::debug!(error = %chain(&error), "cannot append a tick");
        }
    }

    /// Renews the lease in time. A store that is away may still hold the lease when it is back.
    fn keep_lease<F, S: SharedStore, C: Clock>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
    ) -> Result<(), PortError> {
        let now = parts.clock.running();
        if now < self.renew_at {
            return Ok(());
        }
        self.renew_at = renewed(&mut parts.store, &parts.clock, &self.fence, parts.lease)?;
        Ok(())
    }

    fn is_commit_due<F, S, C: Clock>(&self, parts: &SessionParts<F, S, C>) -> bool {
        self.applier.is_urgent()
            || self.applier.is_dirty()
                && parts.clock.running().saturating_sub(self.committed_at) >= COMMIT_EVERY
    }

    /// Makes one conditional write with everything since the last commit, then publishes its transitions.
    fn commit<F: TransitionLog + Outlet, S: SharedStore, C: Clock>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
        publish: &mut Publish,
    ) -> Result<(), PortError> {
        let begun = parts.clock.running();
        self.committed_at = begun;
        let every = parts.snapshot_every.max(self.snapshot_took * SNAPSHOT_COST_MULTIPLE);
        let with_snapshot = self.applier.take_lost() || begun.saturating_sub(self.snapshot_at) >= every;
        self.commit_now(parts, publish, with_snapshot)?;
        if with_snapshot {
            (self.snapshot_at, self.snapshot_took) = (begun, parts.clock.running() - begun);
        }
        self.show_asked(parts);
        self.publish(parts, true)
    }

    fn commit_now<F: Outlet, S: SharedStore, C: Clock>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
        publish: &mut Publish,
        with_snapshot: bool,
    ) -> Result<(), PortError> {
        let now = parts.clock.running();
        let is_coarse = with_snapshot || now.saturating_sub(self.coarse_at) >= COARSE_EVERY;
        let touched = self.applier.engine.take_touched();
        self.touched.extend(touched.iter().copied());
        self.applier.catalogue_slots(&touched);
        if is_coarse {
            self.coarse_at = now;
        }
        // Until lost alerts are ended, the store's view is all that is known of them, so it is not
        // overwritten.
        let is_shown = (is_coarse || self.applier.is_urgent()) && !self.applier.is_losing();
        let active = is_shown.then(|| {
            let active = self.applier.engine.active_alerts();
            active.iter().map(|one| (one.id.clone(), alert::line(one))).collect()
        });
        let pipelines = is_coarse.then(|| {
            let named = |one: Value| (one["pipeline"].as_str().unwrap_or("").to_string(), one.to_string());
            pipeline::summaries(&self.applier.engine, None, Portion::ALL).0.into_iter().map(named).collect()
        });
        let snapshot = with_snapshot.then(|| snapshot::encode(&self.applier.engine).ok()).flatten();
        let anchor = self.anchor.clone();
        let commit = self.applier.commit();
        tell_asides(&mut parts.feed, commit)?;
        (commit.snapshot, commit.active) = (snapshot, active);
        commit.pipelines = pipelines;
        (commit.published, commit.anchor) = (self.published, anchor);
        if let (true, Some(newest)) = (mutant::is(Mutant::TrimFirst), commit.transitions.last()) {
            commit.published.alerts = newest.number;
        }
        let sent_at = parts.clock.running();
        if sent_at - now >= parts.lease / 3 {
            self.renew_at = renewed(&mut parts.store, &parts.clock, &self.fence, parts.lease)?;
        }
        showing::sealed(parts, &self.fence, commit)?;
        send(parts, &self.fence, commit)?;
        self.fence.version += 1;
        parts.owner_metrics.commits.add(1);
        parts.owner_metrics.commit_times.add(parts.clock.running() - sent_at);
        self.outbox.append(&mut commit.transitions);
        self.partials.append(&mut commit.partials);
        self.shadows.append(&mut commit.shadows);
        self.applier.finish_commit().iter().for_each(publish);
        self.show_open(parts, &touched, is_coarse)
    }

    /// Ends the session so that the next owner can resume at once.
    fn end<F: Feed + TransitionLog + Outlet, S: SharedStore, C: Clock>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
        publish: &mut Publish,
    ) -> Result<(), PortError> {
        // While this owner has not caught up with an earlier one, the state in the store is newer.
        if self.applier.has_caught_up() || mutant::is(Mutant::EndEarly) {
            self.commit_now(parts, publish, true)?;
        }
        // The outbox in the store keeps what is not published now, and the next owner publishes it.
        self.publish(parts, false)?;
        self.give_back(parts)
    }

    /// Gives the lease back.
    pub(super) fn give_back<F, S: SharedStore, C>(
        &self,
        parts: &mut SessionParts<F, S, C>,
    ) -> Result<(), PortError> {
        match parts.store.release(&self.fence) {
            // The lease expires by itself in a moment.
            Err(PortError::Away { .. }) => Ok(()),
            other => other,
        }
    }
}

/// Returns the extent of the log. A missing log is created if nothing was read of it before. Otherwise the
/// call fails, because an operator may restore the log.
fn extent(feed: &mut impl Feed, anchor: &Anchor) -> Result<Extent, PortError> {
    if let Some(found) = feed.extent()? {
        return Ok(found);
    }
    if !anchor.stream.is_empty() {
        return Err(PortError::NO_LOG);
    }
    feed.create()?;
    feed.extent()?.ok_or(PortError::NO_LOG)
}

/// Whether this log replaces an earlier one of the same name: nothing was read of it yet, and the earlier
/// log's transitions are on the transition log. Their numbers are taken.
fn is_begun_anew(feed: &mut impl TransitionLog, applied: u64, on_board: Numbers) -> Result<bool, PortError> {
    Ok(applied == 0 && on_board != Numbers::default() && feed.is_older_than_log()?)
}

/// Publishes refused events and windows before the commit that counts them, so that each is published at
/// least once.
fn tell_asides(outlet: &mut impl Outlet, commit: &mut super::ports::Commit) -> Result<(), PortError> {
    let letter = |dead: &DeadEvent| {
        let DeadEvent { seq, index, reason, more, .. } = *dead;
        DeadLetter { seq, index, reason, more }
    };
    let letters: Vec<DeadLetter> = commit.dead.iter().map(letter).collect();
    if !letters.is_empty() {
        outlet.dead(&letters)?;
    }
    if !commit.rollups.is_empty() {
        outlet.rollups(&std::mem::take(&mut commit.rollups))?;
    }
    Ok(())
}

/// Returns the newest published transition of each alert.
fn last_told(texts: Vec<String>) -> Vec<Transition> {
    let mut last: BTreeMap<String, Transition> = BTreeMap::new();
    for told in texts.iter().filter_map(|text| serde_json::from_str::<Transition>(text).ok()) {
        last.insert(told.id.clone(), told);
    }
    last.into_values().collect()
}

/// Number of windows from which a commit takes long to prepare. The lease is then renewed before and after
/// that.
const WINDOWS_MANY: usize = 4_096;

/// Sends the same bytes again until the answer is known. A commit may take effect long after it was sent, and
/// a different one in its place would then be lost or applied on top.
fn send<F, S: SharedStore, C: Clock>(
    parts: &mut SessionParts<F, S, C>,
    fence: &Fence,
    commit: &super::ports::Commit,
) -> Result<(), PortError> {
    let is_long = commit.windows.len() >= WINDOWS_MANY;
    if is_long {
        renewed(&mut parts.store, &parts.clock, fence, parts.lease)?;
    }
    let mut prepared = parts.store.prepare(fence, commit)?;
    if is_long {
        renewed(&mut parts.store, &parts.clock, fence, parts.lease)?;
    }
    loop {
        match parts.store.send(&prepared)? {
            Answer::Done => return Ok(()),
            Answer::Fenced if mutant::is(Mutant::IgnoreFence) => return Ok(()),
            Answer::Fenced => return Err(PortError::Fenced { place: "the store".into() }),
            Answer::Unknown => parts.owner_metrics.commit_retries.add(1),
        }
        // The bytes may still arrive. The next owner of the partition detects that by the version.
        if parts.owner_metrics.outages.is_giving_up() {
            return Err(PortError::Stopping { place: "the store".into() });
        }
        parts.clock.pause(RETRY_EVERY);
        if mutant::is(Mutant::NewBytes) {
            let fewer = super::ports::Commit { applied: commit.applied, ..Default::default() };
            prepared = parts.store.prepare(fence, &fewer)?;
        }
    }
}
