//! Commits: everything since the last commit in one conditional write, then its publication.
//!
//! Invariant: nothing is published that is not committed. A commit whose outcome is unknown is sent again with the
//! same bytes; one that failed for certain is undone, and its effects are in the next one.

use super::lease::renewed;
use super::{COMMIT_EVERY, OwnerSession, RETRY_EVERY, SessionParts, showing};
use crate::core::Inspect;
use crate::driver::command::Publish;
use crate::driver::mutant::{self, Mutant};
use crate::driver::ports::{
    Answer, Clock, Commit, DeadEvent, DeadLetter, Feed, Fence, Outlet, OwnerStore, PortError, TransitionLog,
};
use crate::wire::pipeline::Portion;
use crate::wire::{alert, pipeline, snapshot};
use serde_json::Value;
use std::time::Duration;

/// Interval after which a commit also writes the open 5m and 1h windows, the active alerts and the pipeline
/// summaries.
const COARSE_EVERY: Duration = Duration::from_secs(10);

/// Minimum time between snapshots, as a multiple of the duration of the last snapshot.
const SNAPSHOT_COST_MULTIPLE: u32 = 20;

impl OwnerSession {
    pub(super) fn is_commit_due<F, S, C: Clock>(&self, parts: &SessionParts<F, S, C>) -> bool {
        self.applier.is_urgent() && !self.is_failing
            || self.applier.is_dirty()
                && parts.clock.running().saturating_sub(self.committed_at) >= COMMIT_EVERY
    }

    /// Makes one conditional write with everything since the last commit, then publishes its transitions.
    pub(super) fn commit<F: TransitionLog + Outlet, S: OwnerStore, C: Clock>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
        publish: &mut Publish,
    ) -> Result<(), PortError> {
        let begun = parts.clock.running();
        self.committed_at = begun;
        let every = parts.snapshot_every.max(self.snapshot_took * SNAPSHOT_COST_MULTIPLE);
        let with_snapshot = self.applier.has_lost() || begun.saturating_sub(self.snapshot_at) >= every;
        self.commit_now(parts, publish, with_snapshot)?;
        if self.is_failing {
            return Ok(());
        }
        if with_snapshot {
            self.applier.forget_loss();
            (self.snapshot_at, self.snapshot_took) = (begun, parts.clock.running() - begun);
        }
        self.show_asked(parts);
        self.publish(parts, true)
    }

    fn commit_now<F: Outlet, S: OwnerStore, C: Clock>(
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
        let (active, pipelines) = match parts.store.is_read_elsewhere() {
            true => (self.shown_alerts(is_coarse), self.shown_pipelines(is_coarse)),
            false => (None, None),
        };
        let snapshot = with_snapshot.then(|| snapshot::encode(&self.applier.engine).ok()).flatten();
        let anchor = self.anchor.clone();
        let commit = self.applier.commit();
        tell_asides(&mut parts.feed, commit)?;
        (commit.snapshot, commit.active, commit.pipelines) = (snapshot, active, pipelines);
        (commit.published, commit.anchor) = (self.published, anchor);
        if let (true, Some(newest)) = (mutant::is(Mutant::TrimFirst), commit.transitions.last()) {
            commit.published.alerts = newest.number;
        }
        let sent_at = parts.clock.running();
        if sent_at - now >= parts.lease / 3 {
            self.renew_at = renewed(&mut parts.store, &parts.clock, &self.fence, parts.lease)?;
        }
        showing::sealed(parts, &self.fence, commit)?;
        self.is_failing = !send(parts, &self.fence, commit)?;
        if self.is_failing {
            if !mutant::is(Mutant::NoUndo) {
                self.applier.undo_commit();
            }
            return Ok(());
        }
        self.fence.version += 1;
        parts.owner_metrics.commits.add(1);
        parts.owner_metrics.commit_times.add(parts.clock.running() - sent_at);
        self.outbox.append(&mut commit.transitions);
        self.partials.append(&mut commit.partials);
        self.shadows.append(&mut commit.shadows);
        self.applier.finish_commit().iter().for_each(publish);
        self.show_open(parts, &touched, is_coarse)
    }

    /// Returns the active alerts as (id, JSON) if this commit writes them. While alerts of an earlier owner still
    /// have to be ended as lost, only the store's view shows them, so it is not overwritten.
    fn shown_alerts(&mut self, is_coarse: bool) -> Option<Vec<(String, String)>> {
        let is_shown = (is_coarse || self.applier.is_urgent()) && !self.applier.is_losing();
        is_shown.then(|| {
            let active = Inspect::new(&mut self.applier.engine).active_alerts();
            active.iter().map(|one| (one.id.clone(), alert::line(one))).collect()
        })
    }

    /// Returns the summary of each pipeline as (name, JSON) if this commit writes them.
    fn shown_pipelines(&self, is_coarse: bool) -> Option<Vec<(String, String)>> {
        let named = |one: Value| (one["pipeline"].as_str().unwrap_or("").to_string(), one.to_string());
        let summaries = || pipeline::summaries(&self.applier.engine, None, Portion::ALL).0;
        is_coarse.then(|| summaries().into_iter().map(named).collect())
    }

    /// Ends the session so that the next owner can resume at once.
    pub(super) fn end<F: Feed + TransitionLog + Outlet, S: OwnerStore, C: Clock>(
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
    pub(in crate::driver) fn give_back<F, S: OwnerStore, C>(
        &self,
        parts: &mut SessionParts<F, S, C>,
    ) -> Result<(), PortError> {
        match parts.store.release(&self.fence) {
            // The store is unreachable. The lease expires by itself.
            Err(PortError::Away { .. }) => Ok(()),
            other => other,
        }
    }
}

/// Publishes the dead letters and the windows of a commit before the commit itself, so that each is published at
/// least once.
fn tell_asides(outlet: &mut impl Outlet, commit: &mut Commit) -> Result<(), PortError> {
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

/// Number of windows from which a commit takes long to prepare. The lease is then renewed before and after the
/// preparation.
const WINDOWS_MANY: usize = 4_096;

/// Sends the same bytes again until the outcome is known. An earlier attempt may take effect late, and other bytes
/// sent in its place would then be lost or be applied in addition. Returns whether the store holds the commit; if
/// not, it never will.
fn send<F, S: OwnerStore, C: Clock>(
    parts: &mut SessionParts<F, S, C>,
    fence: &Fence,
    commit: &Commit,
) -> Result<bool, PortError> {
    let is_long = commit.windows.len() >= WINDOWS_MANY;
    if is_long {
        renewed(&mut parts.store, &parts.clock, fence, parts.lease)?;
    }
    let fewer = Commit { applied: commit.applied, ..Commit::default() };
    let mut prepared = parts.store.prepare(fence, commit)?;
    if is_long {
        renewed(&mut parts.store, &parts.clock, fence, parts.lease)?;
    }
    loop {
        match parts.store.send(&prepared)? {
            Answer::Done => return Ok(true),
            Answer::Failed => return Ok(false),
            Answer::Fenced if mutant::is(Mutant::IgnoreFence) => return Ok(true),
            Answer::Fenced => return Err(PortError::Fenced { place: "the store".into() }),
            Answer::Unknown => parts.owner_metrics.commit_retries.add(1),
        }
        // The commit may still take effect. The next owner of the partition detects that by the version of the store.
        if parts.owner_metrics.outages.is_giving_up() {
            return Err(PortError::Stopping { place: "the store".into() });
        }
        parts.clock.pause(RETRY_EVERY);
        if mutant::is(Mutant::NewBytes) {
            prepared = parts.store.prepare(fence, &fewer)?;
        }
    }
}
