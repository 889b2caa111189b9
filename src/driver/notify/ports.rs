//! What delivering needs of the outside: the alert stream, a ledger, a channel.

use crate::core::alert::Transition;
use crate::core::notify::Message;
use crate::core::notify::inbox::Rows;
use crate::driver::ports::PortError;
use std::time::Duration;

/// Transitions with their numbers in the stream.
#[derive(Debug, Default)]
pub struct Batch {
    pub alerts: Vec<(u64, String)>,
    /// Nothing younger was there when it was read.
    pub is_end: bool,
    /// The alerts are those of another log, or of an older copy, which ends before what was asked for: they are read
    /// from behind this number on.
    pub restart: Option<u64>,
}

/// The alert stream, in order.
pub trait AlertFeed {
    /// What comes after a number; an empty batch if nothing came within `wait`.
    fn next(&mut self, after: u64, wait: Duration) -> Result<Batch, PortError>;
    /// Everything that was given out is written down.
    fn done(&mut self);
}

/// What became of rows that were to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Done,
    /// Somebody else delivers now.
    Fenced,
}

/// What a receiver's inbox is kept in; one process at a time.
pub trait Ledger {
    /// Takes the lease if nobody has it.
    fn acquire(&mut self) -> Result<bool, PortError>;
    fn load(&mut self) -> Result<Vec<(String, Vec<u8>)>, PortError>;
    /// Writes all rows or none, and keeps the lease; with none it only keeps it.
    fn write(&mut self, rows: &Rows) -> Result<Written, PortError>;
    fn release(&mut self);
}

/// The way to the other receivers, for what stands in no log.
pub trait Others: Send {
    /// One attempt; told twice, it is known once.
    fn tell(&mut self, alert: &Transition) -> Result<(), PortError>;
}

/// Why a message did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It may arrive later, not before `after`.
    #[error("{why}")]
    Again { why: String, after: Option<Duration> },
    /// It never will.
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

/// A way to a person or a program. What it says of failures names no secret.
pub trait Channel: Send {
    fn send(&mut self, message: &Message) -> Result<(), Failure>;
    /// How the target calls what was sent last, where it says so: [`Message::answers`] of what follows.
    fn named(&self) -> Option<&str> {
        None
    }
}
