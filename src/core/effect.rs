//! Effects: the output of the engine. The core never holds a sender; it fills these lists, and the driver
//! acts on them.
//!
//! Invariant: everything in an [`Effects`] is a function of the log up to the record being handled, in an
//! order that does not depend on threads, hashing or the machine.

use super::alert::Transition;
use crate::core::measure::partial::Partials;
use crate::core::measure::window::{Correction, Sealed};
use crate::core::vocab::counters::Refusal;
use crate::core::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The effects of some records, each list in the order in which they happened.
#[derive(Debug, Default)]
pub struct Effects {
    pub windows: Vec<WindowEffect>,
    pub transitions: Vec<Transition>,
    /// Transitions of `shadow: true` rules.
    pub shadows: Vec<Transition>,
    /// Partial aggregates for the aggregate partition, which runs the rules that span partitions.
    pub partials: Vec<Partials>,
    /// Values of `record:` series; a replay can write them to a file.
    pub recorded: Vec<Recorded>,
    /// Events that were refused or are stored as dead letters, with their position in the log.
    pub refused: Vec<Refused>,
}

/// A window that has just been sealed, or a correction of a sealed window by late observations.
#[derive(Debug)]
pub enum WindowEffect {
    Sealed(Sealed),
    Correction(Correction),
}

/// One value of a `record:` series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    pub name: Arc<str>,
    pub key: Arc<crate::core::vocab::key::Key>,
    pub time: Timestamp,
    pub value: f64,
}

/// The reason for which an event is in no window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RejectReason {
    Refused(Refusal),
    /// The event was late, and `late_policy` stores late events as dead letters. It is counted as dropped.
    Late,
    /// A whole poison record, because processing it crashed a worker.
    Poison,
}

impl RejectReason {
    pub fn name(self) -> &'static str {
        match self {
            RejectReason::Refused(refusal) => refusal.name(),
            RejectReason::Late => "late",
            RejectReason::Poison => "poison",
        }
    }
}

/// One event that was not accepted, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub seq: u64,
    pub index: u32, // position in the record's payload
    pub reason: RejectReason,
    pub time: Timestamp, // the event's own time
    /// Advice for the producer; empty if there is none.
    pub hint: &'static str,
}

impl Refused {
    /// The refusal as text for people. `now` is the log time at which the event was refused.
    pub fn message(&self, now: Timestamp) -> String {
        let gap = if self.hint.is_empty() { "" } else { ": " };
        format!("event time {} at log time {now}{gap}{}", self.time, self.hint)
    }
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
            && self.transitions.is_empty()
            && self.shadows.is_empty()
            && self.partials.is_empty()
            && self.recorded.is_empty()
            && self.refused.is_empty()
    }

    /// Empties the lists but keeps their allocations.
    pub fn clear(&mut self) {
        self.windows.clear();
        self.transitions.clear();
        self.shadows.clear();
        self.partials.clear();
        self.recorded.clear();
        self.refused.clear();
    }
}
