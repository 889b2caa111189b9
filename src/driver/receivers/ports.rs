//! The ports of delivery: the alert stream, a notification log, a channel.

use crate::core::alert::Transition;
use crate::core::notify::Message;
use crate::core::notify::inbox::Rows;
use crate::driver::ports::PortError;
use std::time::Duration;

/// Transitions with their numbers in the stream.
#[derive(Debug, Default)]
pub struct Batch {
    pub alerts: Vec<(u64, String)>,
    /// Whether the read reached the end of the stream.
    pub is_end: bool,
    /// Set if the alerts are those of another log, or of an older copy that ends before the requested number.
    /// They are then read from after this number on.
    pub restart: Option<u64>,
}

/// The alert stream, in order.
pub trait AlertFeed {
    /// Returns the transitions after a number; the batch is empty if none arrived within `wait`.
    fn next(&mut self, after: u64, wait: Duration) -> Result<Batch, PortError>;
    /// Acknowledges that all returned transitions are persisted.
    fn done(&mut self);
}

/// The outcome of writing rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Done,
    /// Another process has the lease now.
    Fenced,
}

/// The storage of a receiver's inbox; one process owns it at a time.
pub trait NotificationLog {
    /// Acquires the lease if it is free; returns whether this process has it.
    fn acquire(&mut self) -> Result<bool, PortError>;
    fn load(&mut self) -> Result<Vec<(String, Vec<u8>)>, PortError>;
    /// Writes all rows or none, and renews the lease; without rows it only renews the lease.
    fn write(&mut self, rows: &Rows) -> Result<Written, PortError>;
    /// Keeps the lease for at least this time, in which nothing is written.
    fn hold(&mut self, time: Duration) -> Result<Written, PortError>;
    fn release(&mut self);
}

/// The way to the other receivers, for alerts that are in no log.
pub trait Others: Send {
    /// Makes one attempt; a repeated alert counts once.
    fn tell(&mut self, alert: &Transition) -> Result<(), PortError>;
}

/// Why a message was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A retry may succeed, not before `after`.
    #[error("{why}")]
    Again { why: String, after: Option<Duration> },
    /// No retry will succeed.
    #[error("{why}")]
    Final { why: String },
}

impl Failure {
    pub fn again(why: impl Into<String>) -> Failure {
        Failure::Again { why: why.into(), after: None }
    }

    pub fn never(why: impl Into<String>) -> Failure {
        Failure::Final { why: why.into() }
    }
}

/// A way to a person or a program. Its error texts contain no secret.
pub trait Channel: Send {
    fn send(&mut self, message: &Message) -> Result<(), Failure>;
    /// Returns the time after which an attempt has ended, whatever the target does. The lease outlasts it;
    /// otherwise the outcome could not be written, and the same message would be sent for ever.
    fn attempt_max(&self) -> Duration;
    /// Returns the name that the target gave to the last message, if it gives one; later messages carry it in
    /// [`Message::answers`].
    fn named(&self) -> Option<&str> {
        None
    }
}
