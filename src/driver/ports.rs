//! What the worker needs of the outside: a log, a store, a clock.
//!
//! Two implementations each and no third: the embedded ones (production code, one redb file) and
//! those over servers. A call returns when it is durable, or says that it is not.

use crate::core::Timestamp;
use crate::core::alert::Severity;
use crate::core::effect::Aside;
use crate::core::pane::{Pane, Shape};
use crate::core::series::SeriesInfo;
use crate::core::unit::Unit;
use crate::core::window::WindowSize;
use crate::wire::event::Codec;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// What a record of the log holds, as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    Events(Codec, Vec<u8>),
    Tick,
    /// JSON of a [`Control`](crate::core::event::Control).
    Control(Vec<u8>),
}

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
    #[error("cannot read from {place}")]
    Read { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{place} is in use by another process; stop that one, or take another --data-dir")]
    Locked { place: String },
    #[error("another worker owns {place} now; nothing of this one counts any more")]
    Fenced { place: String },
    #[error("{place} is not what it was: {found}; {hint}")]
    Changed { place: String, found: String, hint: &'static str },
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
}

/// An ordered, durable list of records.
pub trait Log {
    /// Appends all entries with one stamp each, durably; the first one's sequence number.
    fn append(&mut self, entries: &[(Timestamp, Entry)]) -> Result<u64, PortError>;

    /// Up to `max` records from `from` on, in order.
    fn read(&self, from: u64, max: usize) -> Result<Vec<Logged>, PortError>;

    /// Sequence number and stamp of the newest record.
    fn newest(&self) -> Result<Option<(u64, Timestamp)>, PortError>;

    /// Lets records up to `seq` go that are older than `before`.
    fn trim(&mut self, seq: u64, before: Timestamp) -> Result<(), PortError>;
}

/// A stored window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowRow {
    pub pane: Pane,
    pub revision: u32,
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
#[derive(Debug, Default)]
pub struct Commit {
    /// The record up to which all effects are in this commit or earlier ones.
    pub applied: u64,
    pub windows: Vec<(WindowAt, WindowRow)>,
    pub catalog: Vec<CatalogRow>,
    /// In the order of their numbers.
    pub transitions: Vec<Numbered>,
    /// Transitions up to this number are published: they need not be kept for that any more.
    pub published: u64,
    /// Windows that are still open, as they are; only for those who read the store.
    pub open: Vec<(WindowAt, Pane)>,
    /// All active alerts as (id, JSON), where they may have changed; only for those who read.
    pub active: Option<Vec<(String, String)>>,
    /// (record it was refused in, index, reason, message): kept aside for whoever looks.
    pub dead: Vec<DeadEvent>,
    /// State of the engine at `applied`.
    pub snapshot: Option<Vec<u8>>,
}

/// An event that was refused, kept for people to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadEvent {
    pub seq: u64,
    pub index: u32,
    pub reason: Aside,
    pub message: String,
}

/// Where a worker begins.
#[derive(Debug, Default)]
pub struct Checkpoint {
    pub applied: u64,
    /// The newest snapshot and the record after which it was taken.
    pub snapshot: Option<(u64, Vec<u8>)>,
    /// Number of the newest transition; 0 before the first.
    pub transitions: u64,
    /// Transitions that may not be published yet, in order.
    pub outbox: Vec<Numbered>,
    /// Which log `applied` counts in; empty where there is only one.
    pub anchor: String,
}

/// What survives of the effects.
pub trait Store {
    fn checkpoint(&self) -> Result<Checkpoint, PortError>;
    fn commit(&mut self, commit: &Commit) -> Result<(), PortError>;
    fn window(&self, at: WindowAt) -> Result<Option<WindowRow>, PortError>;
    fn catalog(&self) -> Result<Vec<CatalogRow>, PortError>;
    /// Transitions from number `from` on, newest last, as JSON.
    fn transitions(&self, from: u64, max: usize) -> Result<Vec<String>, PortError>;
    fn dead(&self, max: usize) -> Result<Vec<DeadEvent>, PortError>;
    /// Lets windows go that are older than their retention.
    fn expire(&mut self, now: Timestamp) -> Result<(), PortError>;
}

/// The right to be the one who commits, for as long as it is renewed.
pub trait Lease {
    /// Takes the lease if nobody has it; says whether it is ours now.
    fn acquire(&mut self) -> Result<bool, PortError>;
    /// Keeps it; false if somebody else has it.
    fn renew(&mut self) -> Result<bool, PortError>;
    /// Gives it back, so that another one need not wait.
    fn release(&mut self) -> Result<(), PortError>;
    /// The name of the log that `applied` counts in, kept with every commit.
    fn anchor(&mut self, anchor: String);
}

/// A log that others write to, read as it grows.
pub trait Feed {
    /// What tells this log from another one of the same name, and the numbers it still holds.
    fn extent(&mut self) -> Result<Extent, PortError>;
    /// From here on, [`Self::next`] gives the records from number `from` on.
    fn seek(&mut self, from: u64) -> Result<(), PortError>;
    /// The next records in order; none if none came within `wait`.
    fn next(&mut self, wait: Duration) -> Result<Vec<Logged>, PortError>;
    /// Appends, durably: the number of each, or why it is not known to be there.
    fn append(&mut self, entries: Vec<Entry>) -> Vec<Result<u64, PortError>>;
}

/// What a log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    pub anchor: String,
    pub first: u64,
    pub last: u64, // first - 1 when it is empty
}

/// Where transitions go: each is stored once at its number, however often it is sent.
pub trait Board {
    /// Number of the newest one that is there; 0 before the first.
    fn newest(&mut self) -> Result<u64, PortError>;
    /// Publishes; how many were there already.
    fn publish(&mut self, transitions: &[Numbered]) -> Result<u64, PortError>;
}

/// The time that a log stamps its records with.
pub trait Clock: Send {
    fn now(&self) -> Timestamp;
    /// How long to wait, by a wall clock, until `at`.
    fn until(&self, at: Timestamp) -> Duration;
}
