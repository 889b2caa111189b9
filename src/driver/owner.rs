//! The owner of one partition of a log that others write to: read, apply, commit, publish.
//!
//! Intuition: the embedded worker with the log and the store far away. Whoever has the lease reads
//! on from where the store's checkpoint stands; everything that follows from the records is
//! committed in one conditional write, and only what is committed is published, at its own number.
//! Invariant: an owner that lost its lease finds out at the next commit, which is refused whole;
//! it then forgets everything and stands by like a new process. Rejected: trusting the lease alone
//! (a process may sleep through its end), and publishing first (a crash would publish twice).

use super::applier::Applier;
use super::ports::{Board, Clock, Entry, Feed, Lease, Numbered, PortError, Store};
use super::worker::{Command, GROUP_MAX, Publish, SNAPSHOT_COST_MULTIPLE, Sender, StartError};
use crate::core::Engine;
use crate::core::event::Control;
use crate::core::limits::Limits;
use crate::core::rule::RuleSet;
use crate::core::window::WindowSize;
use crate::wire::{alert, snapshot};
use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// Effects wait this long for a commit, unless a transition is among them.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// Open 5m and 1h windows and the active alerts are shown anew this often.
const COARSE_EVERY: Duration = Duration::from_secs(10);

/// Windows in one commit at most: about 300 B each with its histogram, 6 MB.
const COMMIT_WINDOWS_MAX: usize = 20_000;

/// The longest wait for records, after which commands are looked at.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// Time between two attempts to take the lease, and between two ticks.
const ACQUIRE_EVERY: Duration = Duration::from_millis(250);
const TICK_EVERY: Duration = Duration::from_millis(100);

/// The way to an owner, made before there is one: the door is open while servers are waited for.
pub fn commands() -> (Sender, Receiver<Command>) {
    sync_channel(GROUP_MAX)
}

/// What an owner is made of.
#[derive(Debug)]
pub struct Parts<F, S, C> {
    pub feed: F,
    pub store: S,
    pub clock: C,
    pub limits: Limits,
    /// The rules to put in force where they differ; `None`: whatever is in force stays.
    pub rules: Option<RuleSet>,
    pub lease: Duration,
    /// The engine's whole state is written this often at most.
    pub snapshot_every: Duration,
}

/// A process that owns the partition, or waits to.
pub struct Owner<F, S, C> {
    parts: Parts<F, S, C>,
    commands: Receiver<Command>,
    publish: Publish,
}

impl<F, S, C> std::fmt::Debug for Owner<F, S, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner").finish_non_exhaustive()
    }
}

/// Why owning ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Stopped,
    /// Somebody else has the partition.
    Fenced,
}

impl<F: Feed + Board, S: Store + Lease, C: Clock> Owner<F, S, C> {
    pub fn new(parts: Parts<F, S, C>, commands: Receiver<Command>, publish: Publish) -> Owner<F, S, C> {
        Owner { parts, commands, publish }
    }

    /// Stands by, owns, stands by again, until it is told to stop.
    pub fn run(mut self) -> Result<(), StartError> {
        while self.stand_by()? {
            tracing::info!("this worker owns the partition now");
            match self.own() {
                Ok(Ended::Stopped) => return Ok(()),
                Ok(Ended::Fenced) | Err(StartError::Port(PortError::Fenced { .. })) => {
                    tracing::warn!("another worker owns the partition now; standing by");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for the lease; false when told to stop.
    fn stand_by(&mut self) -> Result<bool, PortError> {
        loop {
            if self.parts.store.acquire()? {
                return Ok(true);
            }
            match self.commands.recv_timeout(ACQUIRE_EVERY) {
                // Whoever asks is answered by the owner, not here: dropping the question says so.
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(false),
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn own(&mut self) -> Result<Ended, StartError> {
        let mut term = Term::begin(&mut self.parts)?;
        loop {
            let wait = term.patience(&self.parts);
            let records = self.parts.feed.next(wait)?;
            let is_idle = records.is_empty();
            for record in &records {
                term.applier.apply(record, &self.parts.store)?;
                if term.applier.pending_windows() >= COMMIT_WINDOWS_MAX {
                    term.commit(&mut self.parts, &mut self.publish)?;
                }
            }
            if term.obey(&mut self.parts, &self.commands) {
                term.end(&mut self.parts, &mut self.publish)?;
                return Ok(Ended::Stopped);
            }
            if is_idle {
                term.tick(&mut self.parts);
            }
            if term.renewed_at.elapsed() >= self.parts.lease / 3 {
                term.renewed_at = Instant::now();
                if !self.parts.store.renew()? {
                    return Ok(Ended::Fenced);
                }
            }
            if term.is_commit_due() {
                term.commit(&mut self.parts, &mut self.publish)?;
            }
        }
    }
}

/// One time of owning the partition; nothing of it survives its end.
struct Term {
    applier: Applier,
    /// Rules to put in force once everything that is in the log is applied.
    rules: Option<RuleSet>,
    caught_up_at: u64,
    outbox: Vec<Numbered>,
    published: u64,
    touched: BTreeSet<u32>, // series whose 5m and 1h windows were not shown since they changed
    committed_at: Instant,
    coarse_at: Instant,
    snapshot_at: Instant,
    snapshot_took: Duration,
    renewed_at: Instant,
    ticked_at: Instant,
}

impl Term {
    /// Restores what the store knows, checks that the log is the one it was read from, reads on.
    fn begin<F: Feed + Board, S: Store + Lease, C>(parts: &mut Parts<F, S, C>) -> Result<Term, StartError> {
        let checkpoint = parts.store.checkpoint()?;
        let extent = parts.feed.extent()?;
        let changed = |found: String| PortError::Changed {
            place: "the event stream".into(),
            found,
            hint: "the log has gone back; restore the stream, or remove the partition's keys from Redis to begin anew",
        };
        if !checkpoint.anchor.is_empty() && checkpoint.anchor != extent.anchor {
            return Err(
                changed(format!("it was made at {}, not {}", extent.anchor, checkpoint.anchor)).into()
            );
        }
        if extent.last < checkpoint.applied {
            let (last, applied) = (extent.last, checkpoint.applied);
            return Err(changed(format!("it ends at {last}, but {applied} was applied")).into());
        }
        parts.store.anchor(extent.anchor);
        let (mut engine, begun_at) = match &checkpoint.snapshot {
            Some((at, bytes)) => (snapshot::decode(bytes, parts.limits.clone())?, *at),
            None => (Engine::new(parts.limits.clone()), 0),
        };
        engine.track_changes();
        if extent.first > begun_at + 1 && begun_at > 0 {
            tracing::warn!(from = begun_at + 1, to = extent.first - 1, "these records are gone from the log");
        }
        parts.feed.seek((begun_at + 1).max(extent.first))?;
        let published = parts.feed.newest()?;
        let now = Instant::now();
        let mut term = Term {
            applier: Applier::new(engine, begun_at, checkpoint.applied, checkpoint.transitions),
            rules: parts.rules.clone(),
            caught_up_at: extent.last,
            outbox: checkpoint.outbox.into_iter().filter(|waiting| waiting.number > published).collect(),
            published: published.min(checkpoint.transitions),
            touched: BTreeSet::new(),
            committed_at: now,
            coarse_at: now,
            snapshot_at: now,
            snapshot_took: Duration::ZERO,
            renewed_at: now,
            ticked_at: now,
        };
        term.publish(parts)?;
        Ok(term)
    }

    /// How long nothing may happen.
    fn patience<F, S, C: Clock>(&self, parts: &Parts<F, S, C>) -> Duration {
        let wake = self.applier.engine.next_wake().map_or(WAIT_MAX, |wake| parts.clock.until(wake));
        wake.clamp(Duration::from_millis(1), WAIT_MAX)
    }

    /// Carries out what others asked for; true to stop.
    fn obey<F: Feed, S, C>(&mut self, parts: &mut Parts<F, S, C>, commands: &Receiver<Command>) -> bool {
        let (mut entries, mut replies, mut is_stop) = (Vec::new(), Vec::new(), false);
        let due = self.rules.take_if(|_| self.applier.applied >= self.caught_up_at);
        let mut due = due.filter(|rules| rules != self.applier.engine.rules());
        if let Some(rules) = &due {
            entries.push(control(&Control::Rules(Box::new(rules.clone()))));
            replies.push(None);
        }
        for command in commands.try_iter().take(GROUP_MAX) {
            match command {
                Command::Append(codec, payload, reply) => {
                    entries.push(Entry::Events(codec, payload));
                    replies.push(Some(reply));
                }
                Command::Control(control_, reply) => {
                    entries.push(control(&control_));
                    replies.push(Some(reply));
                }
                Command::Ask(ask) => ask(&mut self.applier.engine),
                Command::Stop => is_stop = true,
            }
        }
        if !entries.is_empty() {
            for (result, reply) in parts.feed.append(entries).into_iter().zip(replies) {
                let result = result.map_err(|error| super::worker::chain(&error));
                match reply {
                    Some(reply) => reply(result),
                    // The broker may be away: they are tried again, for a term without rules is blind.
                    None if result.is_err() => self.rules = due.take(),
                    None => {}
                }
            }
        }
        is_stop
    }

    /// Appends a tick when the engine should have woken up and nothing else came.
    fn tick<F: Feed, S, C: Clock>(&mut self, parts: &mut Parts<F, S, C>) {
        let wake = self.applier.engine.next_wake();
        let is_due = wake.is_some_and(|wake| wake <= parts.clock.now());
        if !is_due || self.ticked_at.elapsed() < TICK_EVERY {
            return;
        }
        self.ticked_at = Instant::now();
        for error in parts.feed.append(vec![Entry::Tick]).into_iter().filter_map(Result::err) {
            tracing::warn!(error = %super::worker::chain(&error), "cannot append a tick");
        }
    }

    fn is_commit_due(&self) -> bool {
        self.applier.is_urgent()
            || self.applier.is_dirty() && self.committed_at.elapsed() >= COMMIT_EVERY
            || self.applier.pending_windows() >= COMMIT_WINDOWS_MAX
    }

    /// One conditional write with everything since the last; then its transitions are published.
    fn commit<F: Board, S: Store, C>(
        &mut self,
        parts: &mut Parts<F, S, C>,
        publish: &mut Publish,
    ) -> Result<(), PortError> {
        let begun = Instant::now();
        self.committed_at = begun;
        let every = parts.snapshot_every.max(self.snapshot_took * SNAPSHOT_COST_MULTIPLE);
        let with_snapshot = self.snapshot_at.elapsed() >= every;
        self.commit_now(parts, publish, with_snapshot)?;
        if with_snapshot {
            (self.snapshot_at, self.snapshot_took) = (begun, begun.elapsed());
        }
        self.publish(parts)
    }

    fn commit_now<F, S: Store, C>(
        &mut self,
        parts: &mut Parts<F, S, C>,
        publish: &mut Publish,
        with_snapshot: bool,
    ) -> Result<(), PortError> {
        let is_coarse = with_snapshot || self.coarse_at.elapsed() >= COARSE_EVERY;
        let touched = self.applier.engine.take_touched();
        self.touched.extend(touched.iter().copied());
        let mut open = self.applier.open_windows(touched.iter().copied(), &[WindowSize::Minute]);
        if is_coarse {
            self.coarse_at = Instant::now();
            let sizes = [WindowSize::FiveMinutes, WindowSize::Hour];
            open.extend(self.applier.open_windows(std::mem::take(&mut self.touched).into_iter(), &sizes));
        }
        let active = (is_coarse || self.applier.is_urgent()).then(|| {
            let active = self.applier.engine.active_alerts();
            active.iter().map(|one| (one.id.clone(), alert::line(one))).collect()
        });
        let snapshot = with_snapshot.then(|| snapshot::encode(&self.applier.engine).ok()).flatten();
        let commit = self.applier.commit();
        (commit.snapshot, commit.open, commit.active, commit.published) =
            (snapshot, open, active, self.published);
        parts.store.commit(commit)?;
        self.outbox.append(&mut commit.transitions);
        self.applier.committed().iter().for_each(publish);
        Ok(())
    }

    /// Publishes what is committed and not published yet.
    fn publish<F: Board, S, C>(&mut self, parts: &mut Parts<F, S, C>) -> Result<(), PortError> {
        let Some(newest) = self.outbox.last().map(|transition| transition.number) else { return Ok(()) };
        let known = parts.feed.publish(&self.outbox)?;
        if known > 0 {
            tracing::info!(known, "transitions that were published before");
        }
        self.published = newest;
        self.outbox.clear();
        Ok(())
    }

    /// Leaves everything so that the next owner goes on at once.
    fn end<F: Board, S: Store + Lease, C>(
        &mut self,
        parts: &mut Parts<F, S, C>,
        publish: &mut Publish,
    ) -> Result<(), PortError> {
        self.commit_now(parts, publish, true)?;
        self.publish(parts)?;
        parts.store.release()
    }
}

fn control(control: &Control) -> Entry {
    // Controls are plain data and always serialise.
    Entry::Control(serde_json::to_vec(control).unwrap_or_default())
}
