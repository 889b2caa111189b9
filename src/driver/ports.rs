//! What the worker needs of the outside: a log, a store, a clock.
//!
//! Two implementations each and no third: the embedded ones (production code, one redb file) and
//! those over servers. A call returns when it is durable, or says that it is not.

use crate::core::Timestamp;
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
    /// Transitions as JSON, numbered without holes.
    pub transitions: Vec<(u64, String)>,
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

/// The time that a log stamps its records with.
pub trait Clock: Send {
    fn now(&self) -> Timestamp;
    /// How long to wait, by a wall clock, until `at`.
    fn until(&self, at: Timestamp) -> Duration;
}
