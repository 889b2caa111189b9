//! What the engine asks for. The core never holds a sender: it fills these lists, the driver acts.
//!
//! Invariant: everything in an [`Effects`] is a function of the log up to the record being
//! handled, in an order that does not depend on threads, hashing or the machine.

use super::alert::Transition;
use super::counters::Refusal;
use super::partial::Partials;
use super::time::Timestamp;
use super::window::{Correction, Sealed};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The effects of some records, each list in the order they happened.
#[derive(Debug, Default)]
pub struct Effects {
    pub windows: Vec<WindowEffect>,
    pub transitions: Vec<Transition>,
    /// Those of `shadow: true` rules.
    pub shadows: Vec<Transition>,
    /// For the rules that span partitions.
    pub partials: Vec<Partials>,
    /// Values of `record:` series, for whoever asked to see them.
    pub recorded: Vec<Recorded>,
    /// Events that were refused or are kept aside, with their place.
    pub refused: Vec<Refused>,
}

/// A window leaves for the first time, or what came late for one.
#[derive(Debug)]
pub enum WindowEffect {
    Sealed(Sealed),
    Correction(Correction),
}

/// One value of a `record:` series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    pub name: Arc<str>,
    pub key: Arc<super::key::Key>,
    pub time: Timestamp,
    pub value: f64,
}

/// Why an event is not in any window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aside {
    Refused(Refusal),
    /// It was late, and the policy is to keep such events aside; they count as dropped.
    Late,
    /// The whole record killed whoever read it.
    Poison,
}

impl Aside {
    pub fn name(self) -> &'static str {
        match self {
            Aside::Refused(refusal) => refusal.name(),
            Aside::Late => "late",
            Aside::Poison => "poison",
        }
    }
}

/// One event that was not taken: which, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub seq: u64,
    pub index: u32, // place in the record's payload
    pub reason: Aside,
    pub time: Timestamp, // the event's own time
    /// The remedy; empty where there is nothing to say.
    pub hint: &'static str,
}

impl Refused {
    /// As people read it; `now`: the log's time at which it was refused.
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

    /// Empties the lists, keeping their memory.
    pub fn clear(&mut self) {
        self.windows.clear();
        self.transitions.clear();
        self.shadows.clear();
        self.partials.clear();
        self.recorded.clear();
        self.refused.clear();
    }
}
