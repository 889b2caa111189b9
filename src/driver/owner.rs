//! A process that owns one partition of a log that others write to, or stands by for it.
//!
//! Intuition: the holder of the lease resumes at the store's checkpoint. An embedded process is a special case: no
//! other process uses its log and store, so its lease is always free, and its transition log is part of the store.
//! All effects of the records since the last commit are written in one conditional write. Only committed transitions
//! are published, each under its own number. Invariant: an owner that lost its lease finds out at the next commit,
//! which the store refuses as a whole. The owner then discards its state and stands by like a new process. Rejected:
//! relying on the lease alone (a process may sleep past its end), and publishing before the commit (a crash would
//! publish twice).

use super::command::{Command, Publish, StartError};
use super::monitor::PartitionMonitor;
use super::outage::{self, Outage};
use super::port_error::chain;
use super::ports::{Clock, Feed, Outlet, OwnerStore, PortError, TransitionLog};
use super::session::{Next, OwnerSession};
pub use super::session::{SNAPSHOT_EVERY, SessionParts};
use crate::core::Inspect;
use crate::core::rule::RuleSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

/// Time between two attempts to take the lease.
const ACQUIRE_EVERY: Duration = Duration::from_millis(250);

/// Time until unreadable data is read again. It doubles with each failure up to the maximum, because an
/// operator has to repair the data.
const REREAD_AFTER: Duration = Duration::from_secs(1);
const REREAD_AFTER_MAX: Duration = Duration::from_secs(30);

/// If another process holds the partition for this long, the fault that stopped this process counts as repaired. A
/// process that meets the same fault releases the lease at once.
const KEPT_ELSEWHERE: Duration = Duration::from_secs(5);

/// Names under which the outages of a partition are recorded. `DATA`: its data in the store cannot be read.
/// `CONTROL`: its log holds a control record of a newer version. `LOG`: its log is gone, or is not the one that was
/// read before.
const DATA: &str = "data in the store";
const CONTROL: &str = "control record";
const LOG: &str = "log of a partition";

/// The fault for which a partition waits until an operator has repaired it.
#[derive(Debug)]
struct Stuck {
    what: &'static str,
    /// The time until the next attempt.
    wait: Duration,
    /// Number of the record that was applied last, if a session had begun.
    applied: Option<u64>,
    /// Start of the newest session, on the monotonic clock.
    begun: Option<Duration>,
    /// Monotonic time since which this process has failed to get the lease, because another one holds it. A process
    /// that meets the same fault releases the lease at once.
    elsewhere: Option<Duration>,
}

impl Stuck {
    /// Whether the fault of the previous session is over: this session has passed the record at which that one
    /// failed, or has run for twice `REREAD_AFTER_MAX`.
    fn is_over(&self, session: &OwnerSession, running: Duration) -> bool {
        let lasted = self.begun.map_or(Duration::ZERO, |begun| running.saturating_sub(begun));
        lasted >= 2 * REREAD_AFTER_MAX || self.applied.is_some_and(|record| session.is_beyond(record))
    }
}

/// A process that owns the partition or stands by.
pub struct Owner<F, S, C> {
    parts: SessionParts<F, S, C>,
    commands: Receiver<Command>,
    publish: Publish,
    session: Option<OwnerSession>,
    stuck: Option<Stuck>,
    /// Whether [`Self::catch_up`] is running. The process serves no client yet, so unreadable data is an error
    /// instead of a reason to wait.
    is_starting: bool,
}

impl<F, S, C> std::fmt::Debug for Owner<F, S, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner").field("is_owning", &self.session.is_some()).finish_non_exhaustive()
    }
}

/// Outcome of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Working,
    /// Nothing is left to do for this long.
    Waiting(Duration),
    Stopped,
}

impl<F: Feed + TransitionLog + Outlet, S: OwnerStore, C: Clock> Owner<F, S, C> {
    pub fn new(
        parts: SessionParts<F, S, C>,
        commands: Receiver<Command>,
        publish: Publish,
    ) -> Owner<F, S, C> {
        Owner { parts, commands, publish, session: None, stuck: None, is_starting: false }
    }

    /// Becomes the owner and applies every record of the log, in a process that alone uses its log. It returns once
    /// the wanted rules are in force as well, and a tick that is due has been tried.
    pub fn catch_up(&mut self) -> Result<(), StartError> {
        self.is_starting = true;
        while self.session.as_ref().is_none_or(|session| !session.is_idle(&self.parts)) {
            match self.step()? {
                Step::Working => {}
                Step::Stopped => break,
                Step::Waiting(time) => self.parts.clock.pause(time),
            }
            self.check_start()?;
        }
        self.is_starting = false;
        Ok(())
    }

    /// Fails if the wanted rules cannot be appended. Nobody is served yet who could be told to wait.
    fn check_start(&self) -> Result<(), StartError> {
        let is_wanting = self.session.as_ref().is_some_and(OwnerSession::is_wanting_rules);
        let outages = self.parts.owner_metrics.outages.all();
        match outages.into_iter().find(|outage| is_wanting && outage.what == outage::LOG) {
            Some(Outage { place, error, .. }) => Err(PortError::Lost { place, source: error.into() }.into()),
            None => Ok(()),
        }
    }

    /// Returns the engine for reading, if this process owns the partition.
    pub fn inspect(&mut self) -> Option<Inspect<'_>> {
        self.session.as_mut().map(OwnerSession::inspect)
    }

    /// Puts these rules in force if they differ from those in force, now and whenever this process takes over the
    /// log.
    pub fn want(&mut self, rules: RuleSet) {
        if let Some(session) = &mut self.session {
            session.want(rules.clone());
        }
        self.parts.rules = Some(rules);
    }

    /// Runs until a stop command arrives, alternating between standby and ownership of the partition.
    pub fn run(mut self) -> Result<(), StartError> {
        loop {
            let step = match self.step() {
                Err(error) if self.goes_on_without(&error) => self.wait_for(LOG, &error)?,
                step => step?,
            };
            match step {
                Step::Working => {}
                Step::Stopped => return Ok(()),
                Step::Waiting(time) => {
                    let heard = self.commands.recv_timeout(time);
                    if matches!(heard, Err(RecvTimeoutError::Disconnected))
                        || heard.is_ok_and(|heard| self.heed(heard))
                    {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Runs one round: a batch of records, or one attempt to become the owner.
    pub fn step(&mut self) -> Result<Step, StartError> {
        let Some(session) = &mut self.session else { return self.stand_by() };
        match session.step(&mut self.parts, &self.commands, &mut self.publish) {
            Ok(Next::On) => {
                let running = self.parts.clock.running();
                if self.stuck.as_ref().is_some_and(|stuck| stuck.is_over(session, running)) {
                    self.recover();
                }
                Ok(Step::Working)
            }
            Ok(Next::Stopped) => Ok(Step::Stopped),
            Ok(Next::GivenUp) => {
                self.end_term();
                tracing::info!("this worker releases the partition, because it held more than its share");
                Ok(Step::Working)
            }
            Err(StartError::Port(PortError::Fenced { .. })) => {
                let term_range = session.uncommitted();
                self.end_term();
                self.parts.owner_metrics.fenced.add(1);
                tracing::warn!(
                    records = %term_range,
                    "this worker no longer owns the partition: its lease expired, or another process changed \
                     lease or checkpoint; uncommitted effects are discarded; standing by"
                );
                Ok(Step::Working)
            }
            Err(StartError::Port(PortError::Overtaken)) => {
                tracing::warn!("the log lost records that are needed; this worker resumes at the oldest one");
                session.give_back(&mut self.parts)?;
                self.end_term();
                Ok(Step::Working)
            }
            Err(error) => match self.repairable(&error) {
                Some(what) => self.wait_for(what, &error),
                None => Err(self.counted(error)),
            },
        }
    }

    /// Returns the name of the outage if an operator can repair its cause while the partition waits.
    fn repairable(&self, error: &StartError) -> Option<&'static str> {
        let what = match error {
            StartError::Port(PortError::Unreadable { .. }) | StartError::Snapshot(_) => DATA,
            StartError::Port(PortError::Newer { .. }) => CONTROL,
            StartError::Port(_) => return None,
        };
        (!self.is_starting).then_some(what)
    }

    /// Whether the process keeps running despite the error. A missing log may be restored. A log that is not the one
    /// that was read before stops only its own partition, if there are several partitions.
    fn goes_on_without(&self, error: &StartError) -> bool {
        match error {
            StartError::Port(PortError::Gone { .. }) => true,
            StartError::Port(PortError::Changed { .. }) => self.parts.limits.partition.count > 1,
            _ => false,
        }
    }

    /// Ends the session and waits until an operator has repaired the fault. This process does not hold the lease
    /// meanwhile.
    fn wait_for(&mut self, what: &'static str, error: &StartError) -> Result<Step, StartError> {
        let applied = self.session.as_ref().map(OwnerSession::applied);
        if let Some(session) = &self.session {
            session.give_back(&mut self.parts)?;
            self.end_term();
        }
        let partition = self.parts.limits.partition;
        let place = format!("partition {partition}");
        self.parts.owner_metrics.outages.begin_of((what, partition.index), &place, &chain(error));
        let before = self.stuck.take();
        let wait = before.as_ref().map_or(REREAD_AFTER, |stuck| (stuck.wait * 2).min(REREAD_AFTER_MAX));
        let applied = applied.max(before.and_then(|stuck| stuck.applied));
        self.stuck = Some(Stuck { what, wait, applied, begun: None, elsewhere: None });
        Ok(Step::Waiting(wait))
    }

    /// Clears the fault once another process has held the partition for `KEPT_ELSEWHERE`, because the fault evidently
    /// does not stop that process.
    fn note_another_owner(&mut self) {
        let running = self.parts.clock.running();
        let Some(stuck) = &mut self.stuck else { return };
        let since = *stuck.elsewhere.get_or_insert(running);
        if running.saturating_sub(since) >= KEPT_ELSEWHERE {
            self.recover();
        }
    }

    /// Ends the outage, because the fault is repaired.
    fn recover(&mut self) {
        let partition = self.parts.limits.partition;
        if let Some(stuck) = self.stuck.take() {
            self.parts.owner_metrics.outages.end_of((stuck.what, partition.index));
        }
    }

    /// Ends the session and clears its remarks, because the next owner of the partition reports its own.
    fn end_term(&mut self) {
        self.session = None;
        self.parts.owner_metrics.remark(self.parts.limits.partition, Vec::new());
    }

    /// Makes one attempt to take the lease.
    fn stand_by(&mut self) -> Result<Step, StartError> {
        let heard = self.commands.try_recv();
        if matches!(heard, Err(TryRecvError::Disconnected)) || heard.is_ok_and(|heard| self.heed(heard)) {
            return Ok(Step::Stopped);
        }
        let (share, store) = (&self.parts.share, &mut self.parts.store);
        let (fence, permit) = match share.take(|| store.acquire()) {
            Ok(Some(taken)) => taken,
            Ok(None) => {
                self.note_another_owner();
                return Ok(Step::Waiting(ACQUIRE_EVERY));
            }
            Err(PortError::Away { .. }) => return Ok(Step::Waiting(ACQUIRE_EVERY)),
            Err(error) => return Err(error.into()),
        };
        if self.stuck.is_none() {
            tracing::info!("this worker owns the partition now");
        }
        self.parts.owner_metrics.take_overs.add(1);
        match OwnerSession::begin(&mut self.parts, fence.clone(), permit) {
            Ok(session) => {
                self.session = Some(session);
                if let Some(stuck) = &mut self.stuck {
                    (stuck.begun, stuck.elsewhere) = (Some(self.parts.clock.running()), None);
                    // The session has checked the log at its start, so a fault of the log is over. A fault that an
                    // earlier session met at a record may occur again.
                    if stuck.what == LOG || stuck.applied.is_none() {
                        self.recover();
                    }
                }
            }
            Err(StartError::Port(PortError::Fenced { .. })) => self.parts.owner_metrics.fenced.add(1),
            Err(error) => {
                // A lease that cannot be given back expires by itself.
                let _ = self.parts.store.release(&fence);
                return match self.repairable(&error) {
                    Some(what) => self.wait_for(what, &error),
                    None => Err(self.counted(error)),
                };
            }
        }
        Ok(Step::Working)
    }

    /// Handles a command while standing by. Returns whether to stop. Only an owner answers appends and questions, so
    /// these are dropped here, which informs their callers.
    fn heed(&mut self, command: Command) -> bool {
        match command {
            Command::Stop => return true,
            Command::Rules(rules, _) => self.parts.rules = Some(*rules),
            Command::Append(..) | Command::Ask(_) => {}
        }
        false
    }

    /// Returns the error. If it says that the log is not the one that was read before, the log is counted and an
    /// alert about it is published.
    fn counted(&mut self, error: StartError) -> StartError {
        if let StartError::Port(changed @ PortError::Changed { .. }) = &error {
            let parts = &mut self.parts;
            let partition = parts.limits.partition;
            parts.owner_metrics.rewinds.add(1);
            PartitionMonitor::stop(&mut parts.feed, partition, changed, &parts.clock);
        }
        error
    }
}
