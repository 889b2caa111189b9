//! The loop that owns an engine: append, apply, commit, publish.
//!
//! The order is fixed: a payload is acknowledged after its append is durable; a transition is published after
//! the commit that holds it; a snapshot and the position it belongs to are written in one transaction. If the
//! process is killed between any two lines, the next process continues from what is durable, with the same
//! effects.

use super::applier::Applier;
use super::metrics::OwnerMetrics;
use super::monitor::{PartitionMonitor, PartitionStatus};
use super::port_error::chain;
use super::ports::{Clock, Entry, Intake, Log, OutOfBandAlerts, OwnStore, PortError, Reply, RequestId};
use crate::core::alert::Transition;
use crate::core::record::Control;
use crate::core::rule::RuleSet;
use crate::core::vocab::limits::Limits;
use crate::core::{Engine, Span, Timestamp};
use crate::wire::snapshot;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Commands that may wait for the worker: 1,024 payloads of a few KiB. Beyond that, callers block.
const COMMANDS_WAITING: usize = 1_024;

/// Payloads appended in one transaction, and applied before the next ones are taken.
pub(super) const GROUP_MAX: usize = 512;

/// Records read in one call while catching up.
const CATCH_UP_RECORDS: usize = 4_096;

/// Effects wait this long for a commit, unless a transition is among them.
pub(super) const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// Minimum time between snapshots. A second minimum is a multiple of the time that the last snapshot took, so
/// that snapshots cost at most a twentieth of the time.
pub const SNAPSHOT_EVERY: Duration = Duration::from_secs(10);
pub(super) const SNAPSHOT_COST_MULTIPLE: u32 = 20;

/// Records are kept this long for export. Records after the newest snapshot are kept in any case.
const LOG_KEPT: Span = Span::from_hours(24 * 7);

/// Time budget for questions in one round of the loop.
const ASKS_WITHIN: Duration = Duration::from_millis(5);

/// Time between two removals of windows and records that are past their retention.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);

/// Names of the log and the store among outages.
const LOG: &str = "log";
const STORE: &str = "store";

/// Minimum time between two ticks behind a jump of the clock.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// Longest wait of the loop while nothing happens.
const IDLE_MAX: Duration = Duration::from_millis(500);

/// Commands to the worker.
pub enum Command {
    /// Appends a record; the reply comes when the record is durable.
    Append(Entry, Option<RequestId>, Reply<u64>),
    /// Puts these rules in force if they differ, now and whenever this process takes over the log. The reply
    /// is 0 if they do not differ.
    Rules(Box<RuleSet>, Reply<u64>),
    /// Reads from the engine, between two records.
    Ask(Question),
    /// Commits, writes a snapshot and ends the worker.
    Stop,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

/// Callback for each transition once it is durable.
pub type Publish = Box<dyn FnMut(&Transition) + Send>;

/// Sender of commands to a running worker.
pub type Sender = SyncSender<Command>;

/// The intake into the log of a worker in the same process. It blocks while the command queue is full.
impl Intake for Sender {
    fn append(&self, _partition: u32, entry: Entry, request: Option<RequestId>, reply: Reply<u64>) {
        // A failed send means that the worker has ended. The dropped reply then informs the caller.
        let _ = self.send(Command::Append(entry, request, reply));
    }
}

/// A worker: an engine with its log, store, clock and command queue.
pub struct Worker<P, C> {
    port: P,
    clock: C,
    applier: Applier,
    commands: Receiver<Command>,
    publish: Publish,
    newest_stamp: Timestamp,
    committed_at: Instant,
    snapshot_at: Instant,
    snapshot_took: Duration,
    expired_at: Instant,
    is_failing: bool,
    /// Questions that wait to be answered.
    asks: VecDeque<Question>,
    owner_metrics: Arc<OwnerMetrics>,
    ticked_at: Instant,
    /// The monitor that reports when the log is not kept as it should be, and where it publishes its alerts.
    watch: Option<(PartitionMonitor, Box<dyn OutOfBandAlerts + Send>)>,
}

/// A read of the engine.
type Question = Box<dyn FnOnce(&mut Engine) + Send>;

impl<P, C> std::fmt::Debug for Worker<P, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("applied", &self.applier.applied).finish_non_exhaustive()
    }
}

/// Reasons why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Snapshot(#[from] snapshot::RestoreError),
}

impl<P: Log + OwnStore, C: Clock> Worker<P, C> {
    /// Restores the engine and applies the records that follow the snapshot. `wanted` receives the rules in
    /// force and returns the rules to put in force where they differ (`None` keeps the rules in force).
    pub fn start(
        port: P,
        clock: C,
        limits: Limits,
        wanted: impl FnOnce(&RuleSet) -> Option<RuleSet>,
        publish: Publish,
        owner_metrics: Arc<OwnerMetrics>,
    ) -> Result<(Worker<P, C>, Sender), StartError> {
        let checkpoint = port.checkpoint()?;
        let (engine, snapshot_at) = match &checkpoint.snapshot {
            Some((at, bytes)) => (snapshot::decode(bytes, limits)?, *at),
            None => (Engine::new(limits), 0),
        };
        let applier = Applier::new(engine, snapshot_at, checkpoint.applied, checkpoint.numbered);
        let (sender, commands) = sync_channel(COMMANDS_WAITING);
        let newest_stamp = port.newest()?.map_or(Timestamp::MIN, |(_, stamp)| stamp);
        let mut worker = Worker {
            port,
            clock,
            applier,
            commands,
            publish,
            newest_stamp,
            committed_at: Instant::now(),
            snapshot_at: Instant::now(),
            snapshot_took: Duration::ZERO,
            expired_at: Instant::now(),
            is_failing: false,
            asks: VecDeque::new(),
            owner_metrics,
            ticked_at: Instant::now(),
            watch: None,
        };
        worker.catch_up()?;
        let wanted = wanted(worker.applier.engine.rules());
        if let Some(rules) = wanted.filter(|rules| rules != worker.applier.engine.rules()) {
            worker.append(&[(Entry::control(&Control::Rules(Box::new(rules))), None)])?;
            worker.catch_up()?;
        }
        // An empty log gets its first stamp before anybody can send to it.
        worker.tick();
        Ok((worker, sender))
    }

    /// Returns the log time, without a jump that is not confirmed.
    pub fn log_time(&self) -> Timestamp {
        self.applier.engine.now()
    }

    /// Adds a monitor that publishes to `told` when the log is not kept as it should be.
    pub fn watched(mut self, mut told: Box<dyn OutOfBandAlerts + Send>) -> Result<Worker<P, C>, PortError> {
        let partition = self.applier.engine.limits().partition;
        self.watch = Some((PartitionMonitor::begin(&mut *told, partition)?, told));
        Ok(self)
    }

    fn look_around(&mut self) {
        let now = self.clock.now();
        let Some((monitor, told)) = &mut self.watch else { return };
        if !monitor.is_due(self.clock.running()) {
            return;
        }
        let seen = PartitionStatus {
            snapshot_age: Span::from_ms(self.snapshot_at.elapsed().as_millis() as i64),
            ..PartitionStatus::around(&self.owner_metrics, now, &self.applier.engine)
        };
        monitor.look(seen, &mut **told, now);
        self.owner_metrics.remark(self.applier.engine.limits().partition, monitor.remarks());
    }

    /// Works until a stop command arrives or every sender is dropped.
    pub fn run(mut self) {
        loop {
            let mut group = Vec::new();
            match self.commands.recv_timeout(self.patience()) {
                Ok(command) => group.push(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            group.extend(self.commands.try_iter().take(GROUP_MAX - 1));
            if self.group(group) {
                break;
            }
            self.tick();
            self.look_around();
            self.commit_when_due();
        }
        self.commit(true);
    }

    /// Returns how long to wait for commands: until the engine's wake-up or the next commit, whichever is
    /// earlier.
    fn patience(&self) -> Duration {
        if !self.asks.is_empty() {
            return Duration::ZERO;
        }
        // An empty log whose first tick could not be appended is tried again after `IDLE_MAX`.
        let wake = self.applier.engine.next_wake().map_or(IDLE_MAX, |wake| self.clock.until(wake));
        let wake = if self.applier.jump().is_some() { wake.max(IDLE_MAX) } else { wake };
        let commit = match self.applier.is_dirty() {
            true => COMMIT_EVERY.saturating_sub(self.committed_at.elapsed()),
            false => IDLE_MAX,
        };
        wake.min(commit).min(IDLE_MAX)
    }

    /// Appends all payloads of a group in one transaction and replies. Returns true to stop.
    fn group(&mut self, group: Vec<Command>) -> bool {
        let (mut entries, mut replies, mut is_stop) = (Vec::new(), Vec::new(), false);
        for command in group {
            match command {
                Command::Append(entry, request, reply) => {
                    entries.push((entry, request));
                    replies.push(reply);
                }
                Command::Rules(rules, reply) if *rules == *self.applier.engine.rules() => reply(Ok(0)),
                Command::Rules(rules, reply) => {
                    entries.push((Entry::control(&Control::Rules(rules)), None));
                    replies.push(reply);
                }
                Command::Ask(ask) => self.asks.push_back(ask),
                Command::Stop => is_stop = true,
            }
        }
        if !entries.is_empty() {
            let appended = self.append(&entries);
            for (place, reply) in replies.into_iter().enumerate() {
                reply(appended.as_ref().map(|first| first + place as u64).map_err(|error| chain(error)));
            }
            if let Err(error) = self.catch_up() {
                tracing::error!(error = %chain(&error), "cannot read the log");
            }
        }
        self.answer();
        is_stop
    }

    /// Answers questions within a time budget, so that events, ticks and commits come in between.
    fn answer(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < ASKS_WITHIN
            && let Some(ask) = self.asks.pop_front()
        {
            ask(&mut self.applier.engine);
        }
    }

    /// Appends with the clock's time, which never goes back behind the confirmed log time.
    fn append(&mut self, entries: &[(Entry, Option<RequestId>)]) -> Result<u64, PortError> {
        // If the clock jumped and came back, the log must show that, because the waiting records are judged
        // by it. So the newest stamp is no lower bound during a jump.
        let believed = match self.applier.jump() {
            Some(_) => self.applier.engine.now(),
            None => self.newest_stamp,
        };
        let stamp = self.clock.now().max(believed);
        let appended = self.port.append(stamp, entries);
        self.note(LOG, &appended);
        let first = appended?;
        self.newest_stamp = stamp;
        Ok(first)
    }

    /// Records a failed write as an outage, which lasts until a write succeeds.
    fn note<T>(&self, what: &'static str, result: &Result<T, PortError>) {
        match result {
            Ok(_) => self.owner_metrics.outages.end(what),
            Err(error) => self.owner_metrics.outages.begin(what, "the data dir", &chain(error)),
        }
    }

    /// Applies every record of the log that was not taken before.
    fn catch_up(&mut self) -> Result<(), PortError> {
        loop {
            let records = self.port.read(self.applier.taken() + 1, CATCH_UP_RECORDS)?;
            for record in &records {
                self.applier.apply(record, &self.port)?;
            }
            self.owner_metrics.reach(self.applier.engine.now());
            self.owner_metrics.jump(self.applier.jump());
            if records.len() < CATCH_UP_RECORDS {
                return Ok(());
            }
        }
    }

    /// Appends a tick if the engine's wake-up is due.
    fn tick(&mut self) {
        let is_due = |worker: &Self| {
            let wake = worker.applier.tick_due();
            wake.is_some_and(|wake| wake <= worker.clock.now())
        };
        // Behind a jump of the clock the engine's time stands still, so its wake-up stays due. One tick a
        // second is enough to show that time passes.
        let is_waiting = self.applier.jump().is_some();
        if !is_due(self) || is_waiting && self.ticked_at.elapsed() < TICK_EVERY {
            return;
        }
        self.ticked_at = Instant::now();
        let ticked = self.append(&[(Entry::Tick, None)]).and_then(|_| self.catch_up());
        // `append` records its failure as an outage, which is logged there.
        let _ = ticked.inspect_err(|error| tracing::debug!(error = %chain(error), "cannot append a tick"));
    }

    fn commit_when_due(&mut self) {
        let is_due = self.applier.is_dirty() && self.committed_at.elapsed() >= COMMIT_EVERY;
        if self.applier.is_urgent() && !self.is_failing || is_due {
            let every = SNAPSHOT_EVERY.max(self.snapshot_took * SNAPSHOT_COST_MULTIPLE);
            self.commit(self.snapshot_at.elapsed() >= every);
        }
        if self.expired_at.elapsed() >= EXPIRE_EVERY {
            self.expire();
        }
    }

    /// Writes all pending effects in one transaction, then publishes the transitions in it.
    fn commit(&mut self, with_snapshot: bool) {
        let begun = Instant::now();
        self.committed_at = begun;
        let snapshot = if with_snapshot { snapshot::encode(&self.applier.engine).ok() } else { None };
        let commit = self.applier.commit();
        commit.snapshot = snapshot;
        let committed = self.port.commit(commit);
        self.note(STORE, &committed);
        match committed {
            Ok(()) => {
                self.is_failing = false;
                if with_snapshot {
                    (self.snapshot_at, self.snapshot_took) = (begun, begun.elapsed());
                }
                for transition in self.applier.finish_commit() {
                    (self.publish)(&transition);
                }
            }
            Err(error) => {
                self.is_failing = true;
                self.applier.undo_commit();
                tracing::debug!(error = %chain(&error), "cannot commit; trying again");
            }
        }
    }

    fn expire(&mut self) {
        self.expired_at = Instant::now();
        let now = self.applier.engine.now();
        let applied = self.port.checkpoint().ok().and_then(|c| c.snapshot).map_or(0, |(at, _)| at);
        let result = self.port.expire(now).and_then(|()| self.port.trim(applied, now - LOG_KEPT));
        if let Err(error) = result {
            tracing::warn!(error = %chain(&error), "cannot delete expired windows and records");
        }
    }
}
