//! Alerts: the state machine of one rule and one key.
//!
//! Intuition: each evaluation gives an observation: met (at which levels), not met, or unknown. The
//! observation holds until the next one, and timers count the time it held, not the number of evaluations.
//! Invariant: a step is a pure function. From the instance, the observation, the grid point and the time
//! counted since the last step it gives the changes to publish and the time of the next evaluation. Unknown
//! never counts as recovery. An episode that fired ends with exactly one `resolved` or `stale`.
//! Rejected: restoring `for` from a query after a restart, because the state is in the snapshot; a boolean
//! "is firing" per level, because the levels of one rule are one alert.

pub(crate) mod display;
pub(crate) mod flap;
mod relevel;
pub(crate) mod self_alerts;
mod step;
pub mod transition;

use self::transition::ChangeName;
use super::mute::Suppressed;
use super::rule::{OnUnknown, Rule};
use crate::core::vocab::severity::LEVELS_MAX;
use crate::core::vocab::time::{Span, Timestamp};
pub use display::Display;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
pub use transition::Transition;

/// Why an observation is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unknown {
    NoData,
    MinCount,
    NoBaseline,
    DivisionByZero,
    LogInterrupted,
    Gap,
    Suspended,
    /// The key has no series in the view: it never had one, or the series was forgotten.
    Unseen,
}

impl Unknown {
    pub fn name(self) -> &'static str {
        match self {
            Unknown::NoData => "no data",
            Unknown::MinCount => "min_count",
            Unknown::NoBaseline => "no baseline",
            Unknown::DivisionByZero => "division by zero",
            Unknown::LogInterrupted => "log interrupted",
            Unknown::Gap => "gap",
            Unknown::Suspended => "suspended",
            Unknown::Unseen => "no series",
        }
    }

    /// Returns the reason for a whole observation. A missing series differs from missing data only beside
    /// another operand, so here both are reported as missing data.
    pub(in crate::core) fn alone(self) -> Unknown {
        match self {
            Unknown::Unseen => Unknown::NoData,
            other => other,
        }
    }

    /// Returns whether the reason is a lack of data.
    pub(in crate::core) fn is_want_of_data(self) -> bool {
        matches!(self, Unknown::NoData | Unknown::Unseen)
    }

    /// Returns whether `on_unknown: fire` applies to this reason.
    fn may_fire(self) -> bool {
        !matches!(self, Unknown::LogInterrupted | Unknown::Suspended)
    }
}

/// The result of one evaluation of a rule for a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Observation {
    Known {
        value: f64,
        /// Bit n is set if level n is met. A met level implies all lower ones.
        met: Levels,
        /// Bit n is set if level n may be left.
        reset: Levels,
    },
    Unknown(Unknown),
    /// The key was forgotten, or its value can never be known again.
    Gone,
}

/// A set of levels, bit n for level n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Levels(u8);

impl Levels {
    pub const NONE: Levels = Levels(0);

    pub fn with(self, level: usize) -> Levels {
        Levels(self.0 | 1 << level)
    }
    pub fn without(self, level: usize) -> Levels {
        Levels(self.0 & !(1 << level))
    }
    /// Returns levels 0 to `level`.
    pub fn up_to(level: usize) -> Levels {
        Levels((2u8 << level) - 1)
    }
    pub fn has(self, level: usize) -> bool {
        self.0 & 1 << level != 0
    }
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    pub fn highest(self) -> Option<usize> {
        (self.0 != 0).then(|| 7 - self.0.leading_zeros() as usize)
    }
}

/// The alert of one rule and one key, from pending to the end of its cooldown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub phase: Phase,
    /// First grid point at which the condition of this episode was met; part of the alert's id.
    pub started_at: Timestamp,
    /// Grid point of the last evaluation. The timers include the time up to it.
    pub seen_at: Timestamp,
    /// The levels met at the last known observation; they hold until the next one.
    pub met: Levels,
    pub unknown: Option<(Unknown, Timestamp)>,
    /// How long each level's condition has been met without a not-met observation in between.
    met_for: [Span; LEVELS_MAX],
    /// How long the condition has been unknown, without suspended or interrupted time.
    unknown_for: Span,
    pub value: f64,
    pub cooldown_until: Option<Timestamp>,
    /// The last value at which the condition was met. The summary uses it once the condition is no longer
    /// met.
    #[serde(default)]
    pub met_value: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// Neither pending nor firing; the instance only holds the cooldown.
    Inactive,
    Pending,
    Firing(Firing),
}

/// The state that only a firing alert has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Firing {
    pub level: usize,
    /// Highest level of the episode.
    pub highest: usize,
    /// Levels at or below the current one that were met and have not been reset since (hysteresis).
    held: Levels,
    not_met_for: Span,
    /// Sequence number of the next transition.
    pub seq: u32,
    pub fired_at: Timestamp,
    pub ack: Option<Acknowledged>,
    /// Number of escalation steps that were taken.
    pub steps: usize,
    /// Time since the alert began to fire, without the time in which it was acknowledged.
    pub unattended: Span,
    /// The cause that suppresses its notification, as decided last.
    pub suppressed: Option<Suppressed>,
    /// Whether the alert has been suppressed since its beginning, so it was never notified.
    pub is_unheard: bool,
    /// The change of its last transition.
    #[serde(default = "first_change")]
    pub last_change: ChangeName,
}

fn first_change() -> ChangeName {
    ChangeName::Firing
}

impl Firing {
    /// Creates the firing state of an alert that begins to fire.
    fn begin(level: usize, at: Timestamp, steps: usize) -> Firing {
        Firing {
            level,
            highest: level,
            held: Levels::up_to(level),
            not_met_for: Span::ZERO,
            seq: 0,
            fired_at: at,
            ack: None,
            steps,
            unattended: Span::ZERO,
            suppressed: None,
            is_unheard: false,
            last_change: first_change(),
        }
    }

    /// Returns whether any level is met, or held because its reset condition is not met.
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Returns a copy with the sequence number of the last transition instead of the next.
    pub fn as_published(&self) -> Firing {
        Firing { seq: self.seq.saturating_sub(1), ..self.clone() }
    }

    /// Returns the firing state that a pending alert would have, for the list of active alerts.
    pub fn pending(instance: &Instance) -> Firing {
        Firing::begin(instance.met.highest().unwrap_or(0), instance.seen_at, 0)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Acknowledged {
    pub by: Arc<str>,
    pub why: Arc<str>,
    pub until: Option<Timestamp>,
    pub level: usize,
}

/// A change that is published as a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Firing,
    /// The level rose.
    Rise,
    /// The level fell, but a lower level's condition is still met.
    Fall,
    Acknowledged,
    Unacknowledged,
    /// One or more escalation steps were taken.
    Escalated,
    Suppressed,
    Unsuppressed,
    Resolved,
    Stale(StaleCause),
}

/// Why it can no longer be known whether an alert fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaleCause {
    UnknownTooLong(Unknown),
    Forgotten,
    RuleChanged,
}

impl Instance {
    pub fn new(at: Timestamp) -> Instance {
        Instance {
            phase: Phase::Inactive,
            started_at: at,
            seen_at: at,
            met: Levels::NONE,
            unknown: None,
            met_for: [Span::ZERO; LEVELS_MAX],
            unknown_for: Span::ZERO,
            value: 0.0,
            cooldown_until: None,
            met_value: 0.0,
        }
    }

    /// Returns whether nothing needs to be remembered any more.
    pub fn is_over(&self, at: Timestamp) -> bool {
        self.phase == Phase::Inactive && self.cooldown_until.is_none_or(|until| until <= at)
    }

    /// Returns whether the alert is pending or firing.
    pub fn is_active(&self) -> bool {
        self.phase != Phase::Inactive
    }

    /// Sets the cause that suppresses the alert from this grid point on; `is_new`: the alert began
    /// to fire here.
    pub fn mark(&mut self, cause: Option<Suppressed>, is_new: bool) {
        if let Phase::Firing(firing) = &mut self.phase {
            firing.is_unheard = cause.is_some() && (is_new || firing.is_unheard);
            firing.suppressed = cause;
        }
    }

    /// Notes that the series of one of several operands was forgotten. If a firing alert waits for data, that
    /// data cannot arrive any more, so its reason becomes [`Unknown::Unseen`].
    pub fn lose_operand(&mut self) {
        if let (Phase::Firing(_), Some((Unknown::NoData, since))) = (&self.phase, self.unknown) {
            self.unknown = Some((Unknown::Unseen, since));
        }
    }

    /// Counts a transition that was published.
    pub fn count_transition(&mut self, change: ChangeName) {
        if let Phase::Firing(firing) = &mut self.phase {
            firing.seq += 1;
            firing.last_change = change;
        }
    }

    /// Returns how long the condition of a level was met until `at`, without a not-met observation
    /// in between.
    pub fn met_for(&self, level: usize, at: Timestamp) -> Span {
        let since =
            if self.met.has(level) && self.unknown.is_none() { at - self.seen_at } else { Span::ZERO };
        self.met_for[level] + since.max(Span::ZERO)
    }

    pub fn firing(&self) -> Option<&Firing> {
        match &self.phase {
            Phase::Firing(firing) => Some(firing),
            _ => None,
        }
    }
}

/// The least time for which a pending alert may stay unknown.
const PENDING_UNKNOWN_MIN: Span = Span::from_mins(5);

/// Returns the longest time for which a pending alert of this rule may stay unknown.
fn pending_unknown_max(rule: &Rule) -> Span {
    let longest = rule.levels.iter().map(|level| level.pending_for).max().unwrap_or_default();
    longest.max(PENDING_UNKNOWN_MIN)
}

fn clear_after(rule: &Rule) -> Option<Span> {
    match rule.on_unknown {
        OnUnknown::ClearAfter(span) => Some(span),
        OnUnknown::Hold | OnUnknown::Fire => None,
    }
}

#[cfg(test)]
mod tests;
