//! A session is one period of ownership of a partition: it reads, applies, commits and publishes. Nothing in its
//! memory survives its end.

mod beginning;
mod commands;
mod committing;
mod lease;
mod parts;
mod posting;
mod showing;

use self::lease::{RenewingStore, renewed};
pub use self::parts::SessionParts;
use super::applier::Applier;
use super::command::{Command, Publish, Question, StartError};
use super::decode_ahead::{self, DecodeAhead};
use super::monitor::{PartitionMonitor, PartitionStatus};
use super::mutant::{self, Mutant};
use super::poison::{DEATHS_MAX, PoisonGuard};
use super::port_error::chain;
use super::ports::{
    Anchor, Clock, EXPIRE_EVERY, Feed, Fence, Logged, Numbers, OutboxEntry, Outlet, OwnerStore,
    PartialsMessage, PortError, Reply, TransitionLog,
};
use super::quota::Permit;
use crate::core::Span;
use crate::core::rule::RuleSet;
use crate::core::vocab::counters::Refusal;
use crate::wire::event::Decoded;
use std::collections::{BTreeSet, VecDeque};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Time that effects wait for a commit. Transitions and messages to the aggregate partition are committed at once.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// Bytes of pending windows in memory at which a commit is due. The limit is small because Redis serves no other
/// request while it runs the script of a commit.
const COMMIT_BYTES_MAX: usize = 4 << 20;

/// Minimum time between snapshots. A further minimum is 20 times the duration of the last snapshot, so that snapshots
/// take at most a twentieth of the time.
pub const SNAPSHOT_EVERY: Duration = Duration::from_secs(10);

/// Longest wait for records before commands are handled.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// Minimum time between two ticks.
const TICK_EVERY: Duration = Duration::from_millis(100);

/// Minimum time between two ticks while a jump of the log's clock is unconfirmed, or a server is unreachable.
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
    /// Questions that wait to be answered.
    questions: VecDeque<Question>,
    /// The newest record appended by this session, if only this process appends to the log.
    appended: u64,
    /// Whether the store could not write the newest commit.
    is_failing: bool,
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
    expired_at: Duration,
    /// Time of the newest tick. If others append to the log, it begins as the start of the session: no tick is
    /// appended at once, because records of others may be on the way.
    ticked_at: Option<Duration>,
}

impl OwnerSession {
    pub(super) fn step<F: Feed + TransitionLog + Outlet, S: OwnerStore, C: Clock>(
        &mut self,
        parts: &mut SessionParts<F, S, C>,
        commands: &Receiver<Command>,
        publish: &mut Publish,
    ) -> Result<Next, StartError> {
        let heard = self.hear(parts, commands);
        let is_told = self.obey(heard, parts);
        let records = parts.feed.next(self.wait_for_records(parts))?;
        let is_idle = records.is_empty() && !self.ahead.is_busy();
        let is_present = records.last().is_some_and(|newest| newest.seq > self.caught_up_at);
        if records.is_empty() {
            // The appended records cannot be read now. Without this assignment the next step would read again without
            // a wait.
            self.appended = self.applier.taken();
        }
        self.apply(records, parts, publish)?;
        parts.owner_metrics.reach(self.applier.engine.now());
        if is_present && !parts.feed.is_local() {
            parts.owner_metrics.hear(self.applier.engine.now());
        }
        parts.owner_metrics.jump(self.applier.jump());
        self.answer(parts);
        self.want_rules(parts);
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
        self.expire(parts);
        Ok(Next::On)
    }

    /// Passes the state of the partition to the monitor, which publishes alerts about its operation.
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

    /// Lets the store remove data that is past its retention.
    fn expire<F, S: OwnerStore, C: Clock>(&mut self, parts: &mut SessionParts<F, S, C>) {
        let now = parts.clock.running();
        if now.saturating_sub(self.expired_at) < EXPIRE_EVERY {
            return;
        }
        self.expired_at = now;
        if let Err(error) = parts.store.expire(self.applier.engine.now()) {
            tracing::warn!(error = %chain(&error), "cannot remove what is past its retention");
        }
    }

    /// Returns the record that was applied last.
    pub(super) fn applied(&self) -> u64 {
        self.applier.applied
    }

    /// Whether a record after `record` was applied, or `record` itself was applied and committed.
    pub(super) fn is_beyond(&self, record: u64) -> bool {
        self.applier.applied > record || self.applier.applied == record && !self.applier.is_dirty()
    }

    /// Returns the records applied since the last commit, as `from-to`, or `none`.
    pub(super) fn uncommitted(&self) -> String {
        let (from, to) = self.applier.uncommitted();
        if from > to { "none".into() } else { format!("{from}-{to}") }
    }

    /// Returns the next records to apply. A large batch goes to the decoding thread, and a later call returns it
    /// decoded. Other records are returned undecoded.
    fn decoded(&mut self, records: Vec<Logged>, is_local: bool) -> Option<Vec<(Logged, Option<Decoded>)>> {
        let ready = self.ahead.take();
        // A local log is never decoded ahead, because a question must see every acknowledged record applied. The
        // answer must not change within a session: a batch that is ready is lost if the next one is not given.
        let is_fast = self.poison_guard.is_fast() && !is_local;
        if !records.is_empty() && is_fast && (ready.is_some() || DecodeAhead::is_worth(&records)) {
            self.ahead.give(records);
        } else if !records.is_empty() {
            return Some(records.into_iter().map(|record| (record, None)).collect());
        }
        let batch = ready?;
        self.applier.learn(decode_ahead::DECODER, batch.is_anew, batch.found);
        Some(batch.records)
    }

    fn apply<F: Feed + TransitionLog + Outlet, S: OwnerStore, C: Clock>(
        &mut self,
        records: Vec<Logged>,
        parts: &mut SessionParts<F, S, C>,
        publish: &mut Publish,
    ) -> Result<(), StartError> {
        let Some(batch) = self.decoded(records, parts.feed.is_local()) else { return Ok(()) };
        let (last, begun) = (batch.len().saturating_sub(1), parts.clock.running());
        self.lag = batch.last().map_or(self.lag, |(newest, _)| parts.clock.now() - newest.stamp);
        for (place, (mut record, decoded)) in batch.into_iter().enumerate() {
            if mutant::is(Mutant::WallTime) {
                record.stamp = parts.clock.now();
            }
            let is_named = record.seq > self.applier.committed() && self.poison_guard.names_next();
            if is_named && parts.store.attempt(&self.fence, record.seq)? >= DEATHS_MAX {
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
            let is_full = self.applier.pending_bytes() >= COMMIT_BYTES_MAX && !self.is_failing
                || self.poison_guard.is_step_over() && self.applier.is_dirty();
            if self.applier.applied != record.seq {
                // The record waits behind a clock jump, so the fingerprint of the record applied last is not known
                // here.
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

    /// Stores that no record is being applied, so that a later crash is not attributed to a record.
    fn name_nothing<F, S: OwnerStore, C>(&self, parts: &mut SessionParts<F, S, C>) -> Result<(), StartError> {
        if self.poison_guard.is_naming() {
            parts.store.attempt(&self.fence, 0)?;
        }
        Ok(())
    }

    /// Renews the lease if its renewal is due. An unreachable store is no error, because it may still hold the lease
    /// later.
    fn keep_lease<F, S: OwnerStore, C: Clock>(
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
}
