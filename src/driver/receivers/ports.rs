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
    /// Set if the stream was recreated, or restored from an older copy that ends before the requested number. Reading
    /// then continues after this number.
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
    /// Extends the lease to at least this time, because nothing is written while a message is sent.
    fn hold(&mut self, time: Duration) -> Result<Written, PortError>;
    fn release(&mut self);
}

/// Passes alerts that are not in the alert stream to the other receivers.
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

/// Delivers messages to a target: a person or a program. Its error texts contain no secret.
pub trait Channel: Send {
    fn send(&mut self, message: &Message) -> Result<(), Failure>;
    /// Returns the maximum duration of an attempt, even if the target does not answer. The lease must last longer.
    /// Otherwise the outcome could not be written, and the same message would be sent again and again.
    fn attempt_max(&self) -> Duration;
    /// Returns the name that the target gave to the last message, if it gives one; later messages carry it in
    /// [`Message::answers`].
    fn named(&self) -> Option<&str> {
        None
    }
}
