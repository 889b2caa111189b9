//! The loop that owns an engine: append, apply, commit, publish.
//!
//! Order is sacred: a payload is acknowledged after its append is durable; a transition is
//! published after the commit that holds it; a snapshot and the position it belongs to are one
//! transaction. Kill the process between any two lines and the next one continues from what is
//! durable, with the same effects.

use super::applier::Applier;
use super::ports::{Asides, Clock, Entry, Intake, Log, OwnStore, PortError, Reply, RequestId};
use super::sentinel::{Seen, Sentinel};
use super::tally::Tally;
use crate::core::alert::Transition;
use crate::core::event::Control;
use crate::core::limits::Limits;
use crate::core::rule::RuleSet;
use crate::core::{Engine, Span, Timestamp};
use crate::wire::snapshot;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Commands that may wait for the worker: 1,024 payloads of a few KiB; then callers wait.
const COMMANDS_WAITING: usize = 1_024;

/// Payloads appended in one transaction, and applied before the next is looked at.
pub(super) const GROUP_MAX: usize = 512;

/// Records read at once while catching up.
const CATCH_UP_RECORDS: usize = 4_096;

/// Effects wait this long for a commit, unless a transition is among them.
pub(super) const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// Time between snapshots, at least; and as a multiple of what the last one took, so that they
/// cost at most a twentieth of the time.
pub const SNAPSHOT_EVERY: Duration = Duration::from_secs(10);
pub(super) const SNAPSHOT_COST_MULTIPLE: u32 = 20;

/// Records are kept this long for export, and until a snapshot is newer than they are.
const LOG_KEPT: Span = Span::from_hours(24 * 7);

/// Time for questions between two looks at what else there is to do.
const ASKS_WITHIN: Duration = Duration::from_millis(5);

/// Time between two looks for what is past its retention.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);

/// Names of log and store among outages.
const LOG: &str = "log";
const STORE: &str = "store";

/// Time between two ticks behind a jump of the clock.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// While nothing happens the worker looks around this often.
const IDLE_MAX: Duration = Duration::from_millis(500);

/// What others ask of the worker.
pub enum Command {
    /// Append a record; the answer comes when it is durable.
    Append(Entry, Option<RequestId>, Reply<u64>),
    /// Put these rules in force where they differ, now and whenever this process takes the log over; the
    /// answer is 0 where they do not.
    Rules(Box<RuleSet>, Reply<u64>),
    /// Read something of the engine, between two records.
    Ask(Question),
    /// Commit, snapshot, end.
    Stop,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

/// Told of each transition once it is durable.
pub type Publish = Box<dyn FnMut(&Transition) + Send>;

/// A running worker, for those who send to it.
pub type Sender = SyncSender<Command>;

/// The way into the log of a worker in the same process: it waits for room.
impl Intake for Sender {
    fn append(&self, _partition: u32, entry: Entry, request: Option<RequestId>, reply: Reply<u64>) {
        // The worker is gone if it takes nothing; then whoever waits is told by the reply being dropped.
        let _ = self.send(Command::Append(entry, request, reply));
    }
}

/// Everything a worker is made of.
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
    /// Questions that wait for their turn.
    asks: VecDeque<Question>,
    tally: Arc<Tally>,
    ticked_at: Instant,
    /// Tells people when the log is not kept as it should be, and where.
    watch: Option<(Sentinel, Box<dyn Asides + Send>)>,
}

/// Something read of the engine.
type Question = Box<dyn FnOnce(&mut Engine) + Send>;

impl<P, C> std::fmt::Debug for Worker<P, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("applied", &self.applier.applied).finish_non_exhaustive()
    }
}

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Snapshot(#[from] snapshot::RestoreError),
}

impl<P: Log + OwnStore, C: Clock> Worker<P, C> {
    /// Restores the engine, applies what the log holds beyond the snapshot, and puts `rules` in
    /// force what is wanted, given what is in force, where it differs (`None`: that stays).
    pub fn start(
        port: P,
        clock: C,
        limits: Limits,
        wanted: impl FnOnce(&RuleSet) -> Option<RuleSet>,
        publish: Publish,
        tally: Arc<Tally>,
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
            tally,
            ticked_at: Instant::now(),
            watch: None,
        };
        worker.catch_up()?;
        let wanted = wanted(worker.applier.engine.rules());
        if let Some(rules) = wanted.filter(|rules| rules != worker.applier.engine.rules()) {
            worker.append(&[(Entry::control(&Control::Rules(Box::new(rules))), None)])?;
            worker.catch_up()?;
        }
        Ok((worker, sender))
    }

    /// The time of the log, without a jump that is not believed.
    pub fn log_time(&self) -> Timestamp {
        self.applier.engine.now()
    }

    /// With somebody who is told when the log is not kept as it should be.
    pub fn watched(mut self, mut told: Box<dyn Asides + Send>) -> Result<Worker<P, C>, PortError> {
        let partition = self.applier.engine.limits().partition;
        self.watch = Some((Sentinel::begin(&mut *told, partition)?, told));
        Ok(self)
    }

    fn look_around(&mut self) {
        let now = self.clock.now();
        let Some((sentinel, told)) = &mut self.watch else { return };
        if !sentinel.is_due(self.clock.running()) {
            return;
        }
        let seen = Seen {
            snapshot_age: Span::from_ms(self.snapshot_at.elapsed().as_millis() as i64),
            ..Seen::around(&self.tally, now, &self.applier.engine)
        };
        sentinel.look(seen, &mut **told, now);
        self.tally.remark(self.applier.engine.limits().partition, sentinel.remarks());
    }

    /// Works until it is told to stop.
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

    /// How long nothing may happen: until the engine's wake-up, or the next commit.
    fn patience(&self) -> Duration {
        if !self.asks.is_empty() {
            return Duration::ZERO;
        }
        let wake = self.applier.engine.next_wake().map_or(IDLE_MAX, |wake| self.clock.until(wake));
        let wake = if self.applier.jump().is_some() { wake.max(IDLE_MAX) } else { wake };
        let commit = match self.applier.is_dirty() {
            true => COMMIT_EVERY.saturating_sub(self.committed_at.elapsed()),
            false => IDLE_MAX,
        };
        wake.min(commit).min(IDLE_MAX)
    }

    /// Appends all payloads of a group in one transaction and answers; true to stop.
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

    /// Answers questions for a while: events, ticks and commits come between two of those.
    fn answer(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < ASKS_WITHIN
            && let Some(ask) = self.asks.pop_front()
        {
            ask(&mut self.applier.engine);
        }
    }

    /// Appends with the clock's time, which never goes back behind what is believed.
    fn append(&mut self, entries: &[(Entry, Option<RequestId>)]) -> Result<u64, PortError> {
        // A clock that jumped and came back shows that in the log: those that wait are judged by it.
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

    /// What cannot be written is an outage, too: everybody is told until it can.
    fn note<T>(&self, what: &'static str, result: &Result<T, PortError>) {
        match result {
            Ok(_) => self.tally.outages.end(what),
            Err(error) => self.tally.outages.begin(what, "the data dir", &chain(error)),
        }
    }

    /// Applies everything the log holds beyond what was applied.
    fn catch_up(&mut self) -> Result<(), PortError> {
        loop {
            let records = self.port.read(self.applier.taken() + 1, CATCH_UP_RECORDS)?;
            for record in &records {
                self.applier.apply(record, &self.port)?;
            }
            self.tally.reach(self.applier.engine.now());
            self.tally.jump(self.applier.jump());
            if records.len() < CATCH_UP_RECORDS {
                return Ok(());
            }
        }
    }

    /// Appends a tick when the engine should have woken up and nothing else came.
    fn tick(&mut self) {
        let is_due = |worker: &Self| {
            let wake = worker.applier.engine.next_wake();
            wake.is_some_and(|wake| wake <= worker.clock.now())
        };
        // Behind a jump of the clock nothing wakes up: one tick a second says that time passes.
        let is_waiting = self.applier.jump().is_some();
        if !is_due(self) || is_waiting && self.ticked_at.elapsed() < TICK_EVERY {
            return;
        }
        self.ticked_at = Instant::now();
        let ticked = self.append(&[(Entry::Tick, None)]).and_then(|_| self.catch_up());
        // An outage is told by whoever notes it.
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

    /// Writes all pending effects in one transaction, then tells of the transitions in it.
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
                for transition in self.applier.committed() {
                    (self.publish)(&transition);
                }
            }
            Err(error) => {
                self.is_failing = true;
                self.applier.failed();
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
            tracing::warn!(error = %chain(&error), "cannot let old windows and records go");
        }
    }
}

/// An error with everything that caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Some errors say their cause themselves.
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
