//! The beginning of a session: it restores the state from the store, and checks that the log is the one that produced
//! it.

use super::{OwnerSession, SessionParts, Wanted};
use crate::core::alert::Transition;
use crate::core::{Engine, Span};
use crate::driver::applier::Applier;
use crate::driver::command::StartError;
use crate::driver::continuity::Continuity;
use crate::driver::decode_ahead::DecodeAhead;
use crate::driver::monitor::PartitionMonitor;
use crate::driver::mutant::{self, Mutant};
use crate::driver::poison::PoisonGuard;
use crate::driver::ports::{
    Anchor, Checkpoint, Clock, EVENT_STREAM, Extent, Feed, Fence, Numbers, Outlet, OwnerStore, PortError,
    TransitionLog,
};
use crate::driver::quota::Permit;
use crate::wire::snapshot;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

impl OwnerSession {
    /// Restores the state from the store, checks that the log is the one it was read from, and resumes
    /// reading.
    pub(in crate::driver) fn begin<F: Feed + TransitionLog + Outlet, S: OwnerStore, C: Clock>(
        parts: &mut SessionParts<F, S, C>,
        fence: Fence,
        permit: Permit,
    ) -> Result<OwnerSession, StartError> {
        let checkpoint = parts.store.checkpoint()?;
        let extent = extent(&mut parts.feed, &checkpoint.anchor)?;
        let (engine, mut begun_at) = restored(&checkpoint, parts)?;
        begun_at -= u64::from(mutant::is(Mutant::SnapshotLate)).min(begun_at);
        let from = if mutant::is(Mutant::SkipTail) { checkpoint.applied } else { begun_at } + 1;
        let known = (checkpoint.applied > 0).then_some((checkpoint.applied, checkpoint.anchor.fingerprint));
        let continuity = Continuity::new(EVENT_STREAM, &checkpoint.anchor.stream, from, known);
        continuity.clone().begin(&extent)?;
        parts.feed.seek(continuity)?;
        let on_board = parts.feed.newest()?;
        let mut numbered = checkpoint.numbered;
        // Missing records are a loss only if an earlier owner had read them or had published their effects.
        let is_ahead = on_board.alerts > numbered.alerts || on_board.partials > numbered.partials;
        let is_gone = extent.first > from && (checkpoint.applied > begun_at || is_ahead);
        let is_anew = is_begun_anew(&mut parts.feed, checkpoint.applied, on_board)?;
        let is_lossy = is_gone || is_anew || checkpoint.is_losing;
        if is_lossy || mutant::is(Mutant::NumberFromBoard) {
            numbered = numbered.max(on_board);
        }
        let outbox = if mutant::is(Mutant::ForgetOutbox) { Vec::new() } else { checkpoint.outbox };
        let (now, is_local) = (parts.clock.running(), parts.feed.is_local());
        // An emptied log keeps its numbering, so its `last` is the number of a removed record.
        let last = if extent.last >= extent.first { extent.last } else { 0 };
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
            caught_up_at: last,
            questions: VecDeque::new(),
            appended: if is_local { last } else { 0 },
            is_failing: false,
            // A published message to the aggregate partition may have expired from that log. It still counts as
            // published, so it is not sent again.
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
            expired_at: now,
            ticked_at: (!is_local).then_some(now),
        };
        session.publish(parts, true)?;
        if is_lossy {
            session.lose(checkpoint.applied.max(extent.first), parts)?;
        }
        Ok(session)
    }

    /// Handles the loss of records that an earlier owner applied: its alerts end as lost.
    fn lose<F: TransitionLog, S, C>(
        &mut self,
        seq: u64,
        parts: &mut SessionParts<F, S, C>,
    ) -> Result<(), PortError> {
        let told = last_told(parts.feed.told()?);
        let alerts = told.len();
        tracing::warn!(
            seq,
            alerts,
            "the log lost records that an earlier owner applied; its alerts end as lost"
        );
        self.applier.lose(seq, told);
        Ok(())
    }
}

/// Returns the engine of the newest snapshot, and the record after which it was taken.
fn restored<F, S: OwnerStore, C>(
    checkpoint: &Checkpoint,
    parts: &SessionParts<F, S, C>,
) -> Result<(Engine, u64), StartError> {
    let (mut engine, at) = match &checkpoint.snapshot {
        Some((at, bytes)) => (snapshot::decode(bytes, parts.limits.clone())?, *at),
        None => (Engine::new(parts.limits.clone()), 0),
    };
    if parts.store.is_read_elsewhere() {
        engine.track_changes();
    }
    Ok((engine, at))
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

/// Whether this log replaces an earlier one of the same name: nothing was read of it yet, and the earlier log's
/// transitions are on the transition log. The numbers of those transitions must not be used again.
fn is_begun_anew(feed: &mut impl TransitionLog, applied: u64, on_board: Numbers) -> Result<bool, PortError> {
    Ok(applied == 0 && on_board != Numbers::default() && feed.is_older_than_log()?)
}

/// Returns the newest published transition of each alert.
fn last_told(texts: Vec<String>) -> Vec<Transition> {
    let mut last: BTreeMap<String, Transition> = BTreeMap::new();
    for told in texts.iter().filter_map(|text| serde_json::from_str::<Transition>(text).ok()) {
        last.insert(told.id.clone(), told);
    }
    last.into_values().collect()
}
