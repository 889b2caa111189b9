//! Ports of the owner of a partition: a log, a store, a clock and the outlets for effects.
//!
//! There are exactly two sets of implementations: the embedded one (production code, one redb file) and the one over
//! servers. `tests/contract` checks both for the same behaviour. A call returns when its effect is durable, or
//! returns an error if it is not.

use super::continuity::Continuity;
pub use super::port_error::{EVENT_STREAM, PortError};
pub use super::record::{Entry, Extent, Logged, REQUESTS_KEPT, REQUESTS_MAX, RequestId};
use crate::core::Timestamp;
use crate::core::effect::RejectReason;
use crate::core::measure::pane::{Pane, Shape};
use crate::core::measure::window::WindowSize;
use crate::core::vocab::series_info::SeriesInfo;
use crate::core::vocab::severity::Severity;
use crate::core::vocab::unit::Unit;
pub use crate::wire::asked::Asked;
use crate::wire::row::Row;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// A transition with its number, kept in the store until it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// From 1, without gaps.
    pub number: u64,
    /// The highest severity of the episode so far.
    pub severity: Severity,
    pub rule: Arc<str>,
    pub json: String,
    /// Actions that the transition requests, each with its own number.
    #[serde(default)]
    pub actions: Vec<(u64, Arc<str>)>,
}

/// A message to the aggregate partition with its number, kept in the store until it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartialsMessage {
    /// From 1, without gaps.
    pub number: u64,
    pub bytes: Vec<u8>,
}

/// Numbers of the newest transition, action, message to the aggregate partition and shadow transition; 0
/// before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    pub alerts: u64,
    pub actions: u64,
    pub partials: u64,
    pub shadows: u64,
}

impl Numbers {
    pub fn max(self, other: Numbers) -> Numbers {
        Numbers {
            alerts: self.alerts.max(other.alerts),
            actions: self.actions.max(other.actions),
            partials: self.partials.max(other.partials),
            shadows: self.shadows.max(other.shadows),
        }
    }
}

/// A stored window.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WindowRow {
    pub pane: Pane,
    pub revision: u32,
    /// Whether records of the log were lost within the time of this window.
    #[serde(default)]
    pub is_incomplete: bool,
}

/// A series as the store's catalog holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogRow {
    pub series: Arc<SeriesInfo>,
    pub unit: Option<Unit>,
    pub shape: Shape,
}

/// Key of a stored window: size, start, series id. Windows of one size and start are neighbours in the store, so
/// expired ones are removed as one range.
pub type WindowAt = (WindowSize, Timestamp, u64);

/// All effects up to one record, written in one transaction or not at all.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// All effects up to this record are in this commit or an earlier one.
    pub applied: u64,
    pub windows: Vec<(WindowAt, WindowRow)>,
    pub catalog: Vec<CatalogRow>,
    /// Transitions in the order of their numbers.
    pub transitions: Vec<OutboxEntry>,
    /// The newest numbers so far, in this commit or an earlier one.
    pub numbered: Numbers,
    /// Messages to the aggregate partition, in the order of their numbers.
    pub partials: Vec<PartialsMessage>,
    /// Transitions of `shadow: true` rules, in the order of their numbers.
    pub shadows: Vec<OutboxEntry>,
    /// Transitions, messages to the aggregate partition and shadows up to these numbers are published, so the
    /// store's outbox need not keep them. Actions leave the outbox with their transitions.
    pub published: Numbers,
    /// All active alerts as (id, JSON), if they may have changed; for readers of the views only.
    pub active: Option<Vec<(String, String)>>,
    /// Each pipeline's summary as (name, JSON), if the summaries are refreshed; for readers of the views
    /// only.
    pub pipelines: Option<Vec<(String, String)>>,
    /// Dead letters: refused events with their record, index, reason and message.
    pub dead: Vec<DeadEvent>,
    /// Windows sealed or corrected since the last commit, to be published to subscribers; the store ignores
    /// them.
    pub rollups: Vec<Rollup>,
    /// Snapshot of the engine's state at `applied`.
    pub snapshot: Option<Vec<u8>>,
    /// Identity of the log to which `applied` refers.
    pub anchor: Anchor,
    /// Whether alerts of an earlier owner still have to be ended as lost, because the log lost records.
    pub is_losing: bool,
    /// Poison records skipped since the last commit, because they kill the worker that reads them.
    pub poison: Vec<u64>,
}

/// Identifies a log. It distinguishes the log from another one of the same name, and from itself before it
/// was truncated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anchor {
    /// Creation time of the log; empty for the embedded log, because there is only one.
    pub stream: String,
    /// Fingerprint of the record applied last; 0 if it is not known.
    pub fingerprint: u64,
}

/// A refused event, kept for operators to inspect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadEvent {
    pub seq: u64,
    pub index: u32,
    pub reason: RejectReason,
    pub message: String,
    /// Number of further refused events for which no dead letter is kept.
    #[serde(default)]
    pub more: u32,
}

/// The state from which a worker starts.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    pub applied: u64,
    /// The newest snapshot and the number of the record after which it was taken.
    pub snapshot: Option<(u64, Vec<u8>)>,
    /// Numbers of the newest transition, action, message and shadow.
    pub numbered: Numbers,
    /// Transitions whose publication is not confirmed, in order.
    pub outbox: Vec<OutboxEntry>,
    /// Messages to the aggregate partition whose publication is not confirmed, in order.
    pub partials: Vec<PartialsMessage>,
    /// Shadows whose publication is not confirmed, in order.
    pub shadows: Vec<OutboxEntry>,
    /// Identity of the log to which `applied` refers.
    pub anchor: Anchor,
    /// Whether alerts of an earlier owner still have to be ended as lost, because the log lost records.
    pub is_losing: bool,
    /// Poison records to skip.
    pub poison: Vec<u64>,
    /// Consecutive take-overs, this one included, since an owner last called [`OwnerStore::calm`] or gave
    /// the lease back.
    pub tries: u32,
}

/// The part of a store from which an owner resumes.
pub trait Store {
    fn checkpoint(&self) -> Result<Checkpoint, PortError>;
    /// Reads sealed windows in the given order; each key comes with the shape of its series. The caller limits the
    /// number of windows, so that the result takes a few megabytes.
    fn windows(&self, wanted: &[(WindowAt, Shape)]) -> Result<Vec<Option<WindowRow>>, PortError>;
}

/// The committed effects, as readers see them.
pub trait Views {
    /// Returns the number of the last record whose effects are committed.
    fn applied(&self) -> Result<u64, PortError>;
    /// Returns about `max` series of the catalog after a cursor (0 at first), and the cursor of the next page
    /// if there is one.
    fn catalog_page(&self, after: u64, max: usize) -> Result<(Vec<CatalogRow>, Option<u64>), PortError>;
    /// Returns up to `max` transitions from number `from` on, ascending, as JSON.
    fn transitions(&self, from: u64, max: usize) -> Result<Vec<(u64, String)>, PortError>;
    /// Returns up to `max` transitions with numbers below `before`, descending, as JSON.
    fn transitions_before(&self, before: u64, max: usize) -> Result<Vec<(u64, String)>, PortError>;
    fn dead(&self, max: usize) -> Result<Vec<DeadEvent>, PortError>;
    /// Returns up to `max` windows of a series, as they were last written, whose start is at or after
    /// `range.0` and before `range.1`. The work depends on the stored windows, not on the length of the
    /// range.
    fn shown(
        &self,
        series: &CatalogRow,
        size: WindowSize,
        range: (Timestamp, Timestamp),
        max: usize,
    ) -> Result<Vec<(Timestamp, Row)>, PortError>;
    /// Returns the silences or maintenance windows as (id, JSON), as they were last written. The embedded
    /// store holds none: the engine in the same process answers instead, and the call fails.
    fn asked(&self, kind: Asked) -> Result<Vec<(String, String)>, PortError>;
    /// Returns the active alerts as JSON, as they were last written.
    fn active(&self) -> Result<Vec<String>, PortError>;
}

/// The fencing token of a session. The store accepts a commit only if its own epoch, nonce and version equal those of
/// the token: no other worker has taken over since, and no other commit was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fence {
    pub epoch: u64,
    pub nonce: String,
    /// Number of commits so far.
    pub version: u64,
}

/// Outcome of a commit attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The commit is in the store, by this attempt or an earlier one.
    Done,
    /// Another worker owns the partition, so the store refused the commit.
    Fenced,
    /// The store cannot write now, and this attempt takes no effect later. A later commit that includes the same
    /// effects may be sent in its place.
    Failed,
    /// The commit may be in the store, or may arrive there later. Only the same bytes may be sent again.
    Unknown,
}

/// Windows to write for readers, and the series among them that are new.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    pub catalog: &'a [CatalogRow],
    pub windows: &'a [(WindowAt, WindowRow)],
    pub is_open: bool,
}

/// A store to which only the newest holder of the lease may write. A store inside the process has one possible
/// holder, so its lease is free whenever it is asked for.
pub trait OwnerStore: Store {
    /// A commit in the store's own format. It is sent again unchanged until its outcome is known. If [`Self::show`]
    /// writes sealed windows before the commit, the commit contains only the corrected ones.
    type Prepared<'c>;
    /// Whether other processes read the data that [`Self::show`] and [`Self::show_asked`] write. If not, these calls
    /// write nothing, and the engine in this process answers readers.
    fn is_read_elsewhere(&self) -> bool {
        true
    }
    /// Writes windows outside of a commit: open ones, and those just sealed. No commit needs to contain them, because
    /// a worker that applies the log again writes the same bytes again before it reads them. Makes one attempt.
    fn show(&mut self, fence: &Fence, shown: &Shown<'_>) -> Result<Answer, PortError>;
    fn prepare<'c>(&mut self, fence: &Fence, commit: &'c Commit) -> Result<Self::Prepared<'c>, PortError>;
    /// Makes one attempt to send the commit.
    fn send(&mut self, prepared: &Self::Prepared<'_>) -> Result<Answer, PortError>;
    /// Makes one attempt to take the lease, which succeeds if no worker holds it.
    fn acquire(&mut self) -> Result<Option<Fence>, PortError>;
    /// Makes one attempt to renew the lease. Returns false if another worker holds it, or if the store went
    /// back to an earlier state.
    fn renew(&mut self, fence: &Fence) -> Result<bool, PortError>;
    /// Stores the number of the record that is about to be applied; 0 means that no record is being applied. Returns
    /// how many owners in a row died at this record.
    fn attempt(&mut self, fence: &Fence, seq: u64) -> Result<u32, PortError>;
    /// Reports that this owner runs well, which resets [`Checkpoint::tries`]. Makes one attempt. If it fails, the
    /// next owner makes extra commits without need.
    fn calm(&mut self, fence: &Fence);
    /// Replaces all silences or maintenance windows, given as (id, JSON). Makes one attempt outside of the commits,
    /// because the data only repeats the content of control records.
    fn show_asked(&mut self, kind: Asked, all: &[(String, String)]) -> Result<(), PortError>;
    /// Gives the lease back, so that another worker need not wait until it expires.
    fn release(&mut self, fence: &Fence) -> Result<(), PortError>;
    /// Removes data that is past its retention at this log time, if the store does not do that by itself. The owner
    /// calls this every [`EXPIRE_EVERY`].
    fn expire(&mut self, _now: Timestamp) -> Result<(), PortError> {
        Ok(())
    }
}

/// Time between two calls of [`OwnerStore::expire`].
pub const EXPIRE_EVERY: Duration = Duration::from_secs(600);

/// A log, read as it grows.
pub trait Feed {
    /// Whether only the owner appends to the log, through [`Self::append`]. Such an owner waits for commands instead
    /// of records, and each of its answers reflects every record appended before.
    fn is_local(&self) -> bool {
        false
    }
    /// Returns the identity of this log and the range of records that it holds; `None` if there is no log.
    fn extent(&mut self) -> Result<Option<Extent>, PortError>;
    /// Creates the missing parts of the log, empty.
    fn create(&mut self) -> Result<(), PortError>;
    /// Positions the feed. From here on [`Self::next`] returns the records that `continuity` expects.
    fn seek(&mut self, continuity: Continuity) -> Result<(), PortError>;
    /// Returns the next records in order; none if none arrived within `wait`.
    fn next(&mut self, wait: Duration) -> Result<Vec<Logged>, PortError>;
    /// Appends entries durably, and stores their request ids. Returns for each entry its number, or the reason why it
    /// may not be in the log. If this process stamps the log, the stamp is its clock's time, but never earlier than
    /// the log time `confirmed`.
    fn append(
        &mut self,
        entries: Vec<(Entry, Option<RequestId>)>,
        confirmed: Timestamp,
    ) -> Vec<Result<u64, PortError>>;
}

/// Outcome of publishing a transition under its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishOutcome {
    New,
    /// A message was stored under this number before; this is its text.
    There(String),
    Unknown,
}

/// An alert that does not follow from the log, such as one about the log itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfBandAlert {
    pub rule: &'static str,
    pub severity: Severity,
    /// Counts from 1 for each rule of the partition.
    pub number: u64,
    pub json: String,
}

/// The place where alerts that do not follow from the log are published.
pub trait OutOfBandAlerts {
    /// Returns the number and the JSON of the newest out-of-band alert of this rule and partition.
    fn newest_out_of_band(&mut self, rule: &str) -> Result<Option<(u64, String)>, PortError>;
    /// Publishes an alert that does not follow from the log. Makes one attempt.
    fn put_out_of_band(&mut self, aside: &OutOfBandAlert) -> Result<(), PortError>;
}

/// The place where transitions are published. Each is stored once under its number, however often it is sent.
pub trait TransitionLog: OutOfBandAlerts {
    /// Returns the newest published number of each kind; 0 if none is published.
    fn newest(&mut self) -> Result<Numbers, PortError>;
    /// Whether all published messages are older than the current log, so that they came from an earlier log.
    fn is_older_than_log(&mut self) -> Result<bool, PortError> {
        Ok(false)
    }
    /// Returns the texts of all published transitions, in the order of their numbers.
    fn told(&mut self) -> Result<Vec<String>, PortError>;
    /// Makes one attempt to publish each transition under its number, and each of its actions under its own.
    fn publish(&mut self, transitions: &[OutboxEntry]) -> Result<Vec<PublishOutcome>, PortError>;
    /// Publishes messages to the aggregate partition one after the other. Returns how many of them are stored
    /// now.
    fn post(&mut self, partials: &[PartialsMessage]) -> Result<usize, PortError>;
    /// Publishes transitions of `shadow: true` rules. Returns how many of them are stored now.
    fn shadow(&mut self, shadows: &[OutboxEntry]) -> Result<usize, PortError>;
}

/// A dead letter: a refused event with its record, its index in the payload, and the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetter {
    pub seq: u64,
    pub index: u32,
    pub reason: RejectReason,
    /// Number of further refused events that have no dead letter. If there are any, this dead letter carries the
    /// whole payload.
    pub more: u32,
}

/// A window in the form in which it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollup {
    pub size: WindowSize,
    pub start: Timestamp,
    pub revision: u32,
    pub series: u64,
    pub source: Arc<str>,
    pub name: Arc<str>,
    pub json: String,
}

/// Publishes refused events and windows, each at least once.
pub trait Outlet {
    fn dead(&mut self, letters: &[DeadLetter]) -> Result<(), PortError>;
    fn rollups(&mut self, rollups: &[Rollup]) -> Result<(), PortError>;
}

/// Entry point for events and control records that clients send to this process instead of to the log.
pub trait Intake: Send + Sync {
    /// Appends to the log of one partition; `reply` receives the record's number once it is durable. A broker
    /// discards a repeat of `request`. The embedded log stores `request`, so that the process recognises a repeat
    /// even after a restart.
    fn append(&self, partition: u32, entry: Entry, request: Option<RequestId>, reply: Reply<u64>);

    /// Maximum bytes of a record that the log accepts; `None` if there is no limit, or before the connection.
    fn record_bytes_max(&self) -> Option<usize> {
        None
    }

    /// Whether another machine stamps the records of the log.
    fn is_stamped_elsewhere(&self) -> bool {
        false
    }

    /// Reads the stamp that a broker gave to a record. If this process stamps the log itself, there is nothing to
    /// read, and `reply` is dropped.
    fn read_stamp(&self, partition: u32, seq: u64, reply: Reply<Timestamp>) {
        drop((partition, seq, reply));
    }
}

/// Callback that receives the result of a request, or the text of its error.
pub type Reply<T> = Box<dyn FnOnce(Result<T, String>) + Send>;

/// The workers of a deployment.
pub trait Fleet {
    /// Reports that this worker lives. Returns how many workers live.
    fn beat(&mut self) -> Result<usize, PortError>;
    /// Removes this worker.
    fn leave(&mut self) -> Result<(), PortError>;
}

/// The time with which a log stamps its records, and a monotonic clock.
pub trait Clock {
    fn now(&self) -> Timestamp;
    /// Returns the real time to wait until this clock shows `at`.
    fn until(&self, at: Timestamp) -> Duration {
        Duration::from_millis((at - self.now()).ms().max(0) as u64) / self.speed()
    }
    /// Returns the monotonic time since an arbitrary origin.
    fn running(&self) -> Duration;
    /// Waits for this long.
    fn pause(&self, time: Duration);
    /// Waits for a message, at most this long.
    fn receive<T>(&self, messages: &Receiver<T>, time: Duration) -> Result<T, RecvTimeoutError> {
        messages.recv_timeout(time)
    }
    /// Speed of [`Self::now`] as a multiple of real time.
    fn speed(&self) -> u32 {
        1
    }
}
