//! What the worker needs of the outside: a log, a store, a clock.
//!
//! Two implementations each and no third: the embedded ones (production code, one redb file) and
//! those over servers. A call returns when it is durable, or says that it is not.

use super::continuity::Continuity;
use super::sentinel::Aside as ToldAside;
use crate::core::alert::Severity;
use crate::core::effect::Aside;
use crate::core::event::Control;
use crate::core::pane::{Pane, Shape};
use crate::core::series::SeriesInfo;
use crate::core::unit::Unit;
use crate::core::window::WindowSize;
use crate::core::{Span, Timestamp};
pub use crate::wire::asked::Asked;
use crate::wire::event::Codec;
use crate::wire::row::Row;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

/// What a record of the log holds, as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    Events(Codec, Vec<u8>),
    Tick,
    /// JSON of a [`Control`].
    Control(Vec<u8>),
    /// What a partition tells the aggregate.
    Partials {
        from: u32,
        number: u64,
        bytes: Vec<u8>,
    },
}

impl Entry {
    /// Bytes of what it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Entry::Events(_, bytes) | Entry::Control(bytes) | Entry::Partials { bytes, .. } => bytes.len(),
            Entry::Tick => 0,
        }
    }

    pub fn control(control: &Control) -> Entry {
        // Controls are plain data and always serialise.
        Entry::Control(serde_json::to_vec(control).unwrap_or_default())
    }
}

/// The request that a record came with, where its sender named it: sent again, it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    /// The `Idempotency-Key` as it was sent.
    pub key: Arc<[u8]>,
    /// Digest of the body.
    pub body: u128,
    /// The time of the log at which it was answered.
    pub at: Timestamp,
}

impl RequestId {
    pub fn new(key: &[u8], body: &[u8], at: Timestamp) -> RequestId {
        RequestId { key: key.into(), body: xxh3_128(body), at }
    }

    /// The name by which a broker knows this request's record in one partition.
    pub fn in_partition(&self, partition: u32) -> String {
        format!("http-{:032x}-{partition}", xxh3_128(&[&self.body.to_le_bytes(), &*self.key].concat()))
    }
}

/// Requests are remembered for so long (contract).
pub const REQUESTS_KEPT: Span = Span::from_mins(10);

/// Requests remembered: 500,000 × about 150 B = 75 MB; at more than 833 a second the oldest go early, and are counted.
pub const REQUESTS_MAX: usize = 500_000;

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    pub seq: u64, // from 1, without holes
    pub stamp: Timestamp,
    pub entry: Entry,
}

/// Why the log or the store could not do what was asked; nothing of it happened, or all.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("cannot write to {place}; is the disk full, or the directory read-only?")]
    Write { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot write to {place}")]
    Lost { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("cannot read from {place}")]
    Read { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{place} is in use by another process; stop that one, or take another --data-dir")]
    Locked { place: String },
    #[error("another worker owns {place} now; nothing of this one counts any more")]
    Fenced { place: String },
    #[error("{place} is not what it was: {found}; {hint}")]
    Changed { place: String, found: String, hint: &'static str },
    #[error(
        "{place} is gone; restore it, or remove the partition's keys from Redis to begin anew: it is made again then"
    )]
    Gone { place: String },
    #[error("{place} is not as it was asked for: {found}; {hint}")]
    OtherSettings { place: String, found: String, hint: &'static str },
    #[error("`{place}` does not hold what this program writes; mend or delete that key")]
    Unreadable { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("records that were read before went from the log while it was read again")]
    Overtaken,
    #[error("the process is stopping, and does not wait for {place} any longer")]
    Stopping { place: String },
    #[error("{place} cannot be reached")]
    Away { place: String, source: Box<dyn std::error::Error + Send + Sync> },
}

impl PortError {
    /// Why the key of the alerts' signatures could not be read.
    pub fn of_alert_key(source: Box<dyn std::error::Error + Send + Sync>) -> PortError {
        match source.downcast::<PortError>() {
            Ok(error) => *error,
            Err(source) => PortError::Away { place: "the key of the alerts".into(), source },
        }
    }
}

/// A transition with its position, kept until it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// From 1, without holes.
    pub number: u64,
    /// Highest of its episode.
    pub severity: Severity,
    pub rule: Arc<str>,
    pub json: String,
    /// Actions it asks for, each with a number of its own.
    #[serde(default)]
    pub actions: Vec<(u64, Arc<str>)>,
}

/// A message to the aggregate with its position, kept until it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// From 1, without holes.
    pub number: u64,
    pub bytes: Vec<u8>,
}

/// Numbers of the newest transition, action, shadow, and message to the aggregate; 0 before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    pub alerts: u64,
    pub actions: u64,
    pub parcels: u64,
    pub shadows: u64,
}

impl Numbers {
    pub fn max(self, other: Numbers) -> Numbers {
        Numbers {
            alerts: self.alerts.max(other.alerts),
            actions: self.actions.max(other.actions),
            parcels: self.parcels.max(other.parcels),
            shadows: self.shadows.max(other.shadows),
        }
    }
}

/// An ordered, durable list of records.
pub trait Log {
    /// Appends all entries with this stamp, durably, and remembers the requests that they came with; the first one's
    /// sequence number.
    fn append(&mut self, stamp: Timestamp, entries: &[(Entry, Option<RequestId>)]) -> Result<u64, PortError>;

    /// Up to `max` records from `from` on, in order.
    fn read(&self, from: u64, max: usize) -> Result<Vec<Logged>, PortError>;

    /// Sequence number and stamp of the newest record.
    fn newest(&self) -> Result<Option<(u64, Timestamp)>, PortError>;

    /// Lets records up to `seq` go that are older than `before`.
    fn trim(&mut self, seq: u64, before: Timestamp) -> Result<(), PortError>;
}

/// A stored window.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WindowRow {
    pub pane: Pane,
    pub revision: u32,
    /// Part of its time was lost with records of the log.
    #[serde(default)]
    pub is_incomplete: bool,
}

/// A series as the store's catalog knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogRow {
    pub series: Arc<SeriesInfo>,
    pub unit: Option<Unit>,
    pub shape: Shape,
}

/// Size, start, series id: windows of one size and start are neighbours, so old ones go in one go.
pub type WindowAt = (WindowSize, Timestamp, u64);

/// Everything that happened up to one record, written in one transaction or not at all.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The record up to which all effects are in this commit or earlier ones.
    pub applied: u64,
    pub windows: Vec<(WindowAt, WindowRow)>,
    pub catalog: Vec<CatalogRow>,
    /// In the order of their numbers.
    pub transitions: Vec<Numbered>,
    /// The newest so far, in this commit or before.
    pub numbered: Numbers,
    /// Messages to the aggregate, in the order of their numbers.
    pub parcels: Vec<Parcel>,
    /// Transitions of `shadow: true` rules, in the order of their numbers.
    pub shadows: Vec<Numbered>,
    /// Transitions and parcels up to these numbers are published: they need not be kept for that any
    /// more. Actions go with their transitions.
    pub published: Numbers,
    /// All active alerts as (id, JSON), where they may have changed; only for those who read.
    pub active: Option<Vec<(String, String)>>,
    /// Each pipeline's summary as (name, JSON), where they are shown anew; only for those who read.
    pub pipelines: Option<Vec<(String, String)>>,
    /// (record it was refused in, index, reason, message): kept aside for whoever looks.
    pub dead: Vec<DeadEvent>,
    /// Windows that left since, for those who want them; not for the store.
    pub rollups: Vec<Rollup>,
    /// State of the engine at `applied`.
    pub snapshot: Option<Vec<u8>>,
    /// Which log `applied` counts in.
    pub anchor: Anchor,
    /// Alerts of an earlier owner are still to be ended as lost.
    pub is_losing: bool,
    /// Records left out since the last commit, as they kill whoever reads them.
    pub poison: Vec<u64>,
}

/// What tells a log from another one of the same name, or from itself before it was cut back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anchor {
    /// When the log was made; empty where there is only one.
    pub stream: String,
    /// Of the record that was applied last; 0 if that is not known.
    pub fingerprint: u64,
}

impl Logged {
    /// A number that no other record at this place has; never 0.
    pub fn fingerprint(&self) -> u64 {
        let (kind, payload): (u8, &[u8]) = match &self.entry {
            Entry::Events(_, payload) => (1, payload),
            Entry::Tick => (2, &[]),
            Entry::Control(payload) => (3, payload),
            Entry::Partials { bytes, .. } => (4, bytes),
        };
        xxh3_64_with_seed(payload, (self.stamp.ms() as u64) << 3 | u64::from(kind)).max(1)
    }
}

/// An event that was refused, kept for people to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadEvent {
    pub seq: u64,
    pub index: u32,
    pub reason: Aside,
    pub message: String,
    /// How many more were refused behind it that are not kept.
    #[serde(default)]
    pub more: u32,
}

/// Where a worker begins.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    pub applied: u64,
    /// The newest snapshot and the record after which it was taken.
    pub snapshot: Option<(u64, Vec<u8>)>,
    /// Of the newest transition and action.
    pub numbered: Numbers,
    /// Transitions that may not be published yet, in order.
    pub outbox: Vec<Numbered>,
    /// Messages to the aggregate that may not be published yet, in order.
    pub parcels: Vec<Parcel>,
    /// Shadows that may not be published yet, in order.
    pub shadows: Vec<Numbered>,
    /// Which log `applied` counts in.
    pub anchor: Anchor,
    /// Alerts of an earlier owner are still to be ended as lost.
    pub is_losing: bool,
    /// Records that are left out.
    pub poison: Vec<u64>,
    /// Take-overs in a row of which nobody said that all is well, the last one included.
    pub tries: u32,
}

/// What an owner goes on from.
pub trait Store {
    fn checkpoint(&self) -> Result<Checkpoint, PortError>;
    /// Sealed windows, in this order, with the shapes of their series: as many as a few megabytes hold.
    fn windows(&self, wanted: &[(WindowAt, Shape)]) -> Result<Vec<Option<WindowRow>>, PortError>;
}

/// What survives of the effects, for those who read it.
pub trait Views {
    /// The record up to which everything is committed.
    fn applied(&self) -> Result<u64, PortError>;
    /// About `max` series of the catalog behind a cursor, 0 at first, and the cursor behind which there are more.
    fn catalog_page(&self, after: u64, max: usize) -> Result<(Vec<CatalogRow>, Option<u64>), PortError>;
    /// Up to `max` transitions from number `from` on, ascending, as JSON.
    fn transitions(&self, from: u64, max: usize) -> Result<Vec<(u64, String)>, PortError>;
    /// Up to `max` transitions with numbers below `before`, descending, as JSON.
    fn transitions_before(&self, before: u64, max: usize) -> Result<Vec<(u64, String)>, PortError>;
    fn dead(&self, max: usize) -> Result<Vec<DeadEvent>, PortError>;
    /// Up to `max` windows of a series that start from `range.0` on and before `range.1`, as they were shown last.
    /// The work follows from what is stored, not from the range.
    fn shown(
        &self,
        series: &CatalogRow,
        size: WindowSize,
        range: (Timestamp, Timestamp),
        max: usize,
    ) -> Result<Vec<(Timestamp, Row)>, PortError>;
    /// What people asked for, id and JSON, as it was shown last; nothing where the only owner is here.
    fn asked(&self, kind: Asked) -> Result<Vec<(String, String)>, PortError>;
    /// Active alerts as JSON, as they were shown last.
    fn active(&self) -> Result<Vec<String>, PortError>;
}

/// A store that nobody else writes to.
pub trait OwnStore: Store {
    fn commit(&mut self, commit: &Commit) -> Result<(), PortError>;
    /// Lets windows go that are older than their retention.
    fn expire(&mut self, now: Timestamp) -> Result<(), PortError>;
}

/// What a commit must find unchanged: who took the lease last, and how much they committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fence {
    pub epoch: u64,
    pub nonce: String,
    /// Commits so far.
    pub version: u64,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is there, by this attempt or an earlier one.
    Done,
    /// Somebody else commits now.
    Fenced,
    /// It may be there, or come to be there later: only the same bytes may be sent again.
    Unknown,
}

/// Windows to be shown, and the series among them that are new.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    pub catalog: &'a [CatalogRow],
    pub windows: &'a [(WindowAt, WindowRow)],
    pub is_open: bool,
}

/// A store that several would write to, and one may: whoever took the lease last.
pub trait SharedStore: Store {
    /// A commit in the store's own form, sent again unchanged until the answer is known. Of the windows, those
    /// that were sealed and not corrected since are shown before it.
    type Prepared;
    /// Shows windows that no commit has to hold: open ones, and those just sealed. Whoever applies the log
    /// again seals them again, with the same bytes, before anything reads them. One attempt.
    fn show(&mut self, fence: &Fence, shown: &Shown<'_>) -> Result<Answer, PortError>;
    fn prepare(&mut self, fence: &Fence, commit: &Commit) -> Result<Self::Prepared, PortError>;
    /// One attempt.
    fn send(&mut self, prepared: &Self::Prepared) -> Result<Answer, PortError>;
    /// Takes the lease if nobody has it. One attempt, as are the next two.
    fn acquire(&mut self) -> Result<Option<Fence>, PortError>;
    /// Keeps it; false if somebody else has it, or if the store has gone back.
    fn renew(&mut self, fence: &Fence) -> Result<bool, PortError>;
    /// Notes that a record is about to be applied, or, for 0, that none is; how many owners in a row
    /// died at it.
    fn attempt(&mut self, fence: &Fence, seq: u64) -> Result<u32, PortError>;
    /// Says that all is well: [`Checkpoint::tries`] begin anew. One attempt; if it fails, the next owner is
    /// careful without need.
    fn calm(&mut self, fence: &Fence);
    /// Shows what people asked for, id and JSON, all of it. One attempt, beside the commits: it says again
    /// what control records said.
    fn show_asked(&mut self, kind: Asked, all: &[(String, String)]) -> Result<(), PortError>;
    /// Gives it back, so that another one need not wait.
    fn release(&mut self, fence: &Fence) -> Result<(), PortError>;
}

/// A log that others write to, read as it grows.
pub trait Feed {
    /// What tells this log from another one of the same name, and the numbers it still holds; none where there is no
    /// log.
    fn extent(&mut self) -> Result<Option<Extent>, PortError>;
    /// Makes what is missing of the log, empty.
    fn create(&mut self) -> Result<(), PortError>;
    /// From here on, [`Self::next`] gives the records that `continuity` wants.
    fn seek(&mut self, continuity: Continuity) -> Result<(), PortError>;
    /// The next records in order; none if none came within `wait`.
    fn next(&mut self, wait: Duration) -> Result<Vec<Logged>, PortError>;
    /// Appends, durably: the number of each, or why it is not known to be there.
    fn append(&mut self, entries: Vec<Entry>) -> Vec<Result<u64, PortError>>;
}

/// What a log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// When the log was made.
    pub stream: String,
    pub first: u64,
    pub last: u64, // first - 1 when it is empty
}

/// What became of a transition that was sent to its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    New,
    /// Something was there before: its text.
    There(String),
    Unknown,
}

/// Where is told what does not follow from the log.
pub trait Asides {
    /// Number and text of what was told last beside the log, under this rule about this partition.
    fn newest_aside(&mut self, rule: &str) -> Result<Option<(u64, String)>, PortError>;
    /// Tells something that does not follow from the log. One attempt.
    fn put_aside(&mut self, aside: &ToldAside) -> Result<(), PortError>;
}

/// Where transitions go: each is stored once at its number, however often it is sent.
pub trait Board: Asides {
    /// Of the newest that are there.
    fn newest(&mut self) -> Result<Numbers, PortError>;
    /// Whether all that is there was put there before the log was made that is read now: another log has told it.
    fn is_older_than_log(&mut self) -> Result<bool, PortError> {
        Ok(false)
    }
    /// The texts of all that are there, in the order of their numbers.
    fn told(&mut self) -> Result<Vec<String>, PortError>;
    /// One attempt to put each in its place, and the actions that it asks for in theirs.
    fn publish(&mut self, transitions: &[Numbered]) -> Result<Vec<Placed>, PortError>;
    /// Puts messages to the aggregate in their places, one after the other; how many of them are there now.
    fn post(&mut self, parcels: &[Parcel]) -> Result<usize, PortError>;
    /// Puts shadows in their places; how many of them are there now.
    fn shadow(&mut self, shadows: &[Numbered]) -> Result<usize, PortError>;
}

/// An event that was refused: its record, its place in the payload, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letter {
    pub seq: u64,
    pub index: u32,
    pub reason: Aside,
    /// How many more were refused behind it: it goes with the whole payload then.
    pub more: u32,
}

/// A window as it leaves for others.
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

/// What else is told to others, at least once each.
pub trait Outlet {
    fn dead(&mut self, letters: &[Letter]) -> Result<(), PortError>;
    fn rollups(&mut self, rollups: &[Rollup]) -> Result<(), PortError>;
}

/// Where events and decisions enter that do not come through the log itself.
pub trait Intake: Send + Sync {
    /// Appends to the log of one partition; `reply` has the record's number once it is durable. A log that others
    /// write to recognises a repeat of `request`; one of this process alone gives it back after a restart.
    fn append(&self, partition: u32, entry: Entry, request: Option<RequestId>, reply: Reply<u64>);

    /// Whether the log's records have the time of another machine.
    fn is_stamped_elsewhere(&self) -> bool {
        false
    }

    /// Reads the time with which a log that others stamp has stamped a record; a log that is stamped here is not asked.
    fn read_stamp(&self, partition: u32, seq: u64, reply: Reply<Timestamp>) {
        drop((partition, seq, reply));
    }
}

/// Called with the answer.
pub type Reply<T> = Box<dyn FnOnce(Result<T, String>) + Send>;

/// Who works for a deployment.
pub trait Roster {
    /// Says that this worker lives, and how many do.
    fn beat(&mut self) -> Result<usize, PortError>;
    /// This worker goes.
    fn leave(&mut self) -> Result<(), PortError>;
}

/// The time that a log stamps its records with, and one that only runs.
pub trait Clock {
    fn now(&self) -> Timestamp;
    /// How long to wait, by a wall clock, until `at`.
    fn until(&self, at: Timestamp) -> Duration;
    /// Since some beginning; never goes back.
    fn running(&self) -> Duration;
    /// Lets time pass.
    fn pause(&self, time: Duration);
}
