//! Alerts: the small state machine of one rule and one key.
//!
//! Intuition: each evaluation says met (at which levels), not met, or unknown; that observation
//! holds until the next one, and timers count the time it held, not the number of evaluations.
//! Invariant: a pure step: (instance, observation, grid point, time counted since the last) gives
//! the changes to publish and when to look again. Unknown never counts as recovery; an episode
//! that fired ends with exactly one `resolved` or `stale`.
//! Rejected: restoring `for` from a query after a restart (the state is in the snapshot), and a
//! boolean "is firing" per level (levels of one rule are one alert).

pub mod display;
pub mod flap;
pub mod own;
mod relevel;
mod step;
pub mod transition;

use self::transition::ChangeName;
use super::rule::{LEVELS_MAX, OnUnknown, Rule};
use super::time::{Span, Timestamp};
pub use display::Display;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
pub use transition::{Suppressed, Transition};

/// How bad it is; ascending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    pub const ALL: [Severity; LEVELS_MAX] = [Severity::Info, Severity::Warning, Severity::Critical];

    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }

    pub fn from_name(name: &str) -> Option<Severity> {
        Severity::ALL.into_iter().find(|severity| severity.name() == name)
    }
}

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
    /// The key has no series there: it never had one, or it is forgotten.
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

    /// What it is where there is nothing beside it: no data.
    pub(in crate::core) fn alone(self) -> Unknown {
        match self {
            Unknown::Unseen => Unknown::NoData,
            other => other,
        }
    }

    /// Whether nothing came that could be judged.
    pub(in crate::core) fn is_want_of_data(self) -> bool {
        matches!(self, Unknown::NoData | Unknown::Unseen)
    }

    /// Whether `on_unknown: fire` applies to it.
    fn may_fire(self) -> bool {
        !matches!(self, Unknown::LogInterrupted | Unknown::Suspended)
    }
}

/// What an evaluation of one rule for one key found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Observation {
    Known {
        value: f64,
        /// Level n is met: bit n. A met level implies all lower ones.
        met: Levels,
        /// Level n may be left: bit n.
        reset: Levels,
    },
    Unknown(Unknown),
    /// The key is forgotten, or nobody can know any more.
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
    /// Levels 0 to `level`.
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
    /// First grid point at which this episode was met; names the episode.
    pub started_at: Timestamp,
    /// Grid point of the last evaluation; until then all timers are counted.
    pub seen_at: Timestamp,
    /// What that evaluation found; it holds until the next.
    pub met: Levels,
    pub unknown: Option<(Unknown, Timestamp)>,
    /// Time each level's condition was met without a not-met in between.
    met_for: [Span; LEVELS_MAX],
    /// Unknown time since `unknown` began.
    unknown_for: Span,
    pub value: f64,
    pub cooldown_until: Option<Timestamp>,
    /// The last value that was met: what its summary is about once it is met no more.
    #[serde(default)]
    pub met_value: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// Only here to remember the cooldown.
    Inactive,
    Pending,
    Firing(Firing),
}

/// What only a firing alert has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Firing {
    pub level: usize,
    /// Highest level of the episode.
    pub highest: usize,
    /// Levels at or below the current one that are not reset.
    held: Levels,
    not_met_for: Span,
    /// Sequence number of the next transition.
    pub seq: u32,
    pub fired_at: Timestamp,
    pub ack: Option<Acknowledged>,
    /// Steps of the escalation that were taken.
    pub steps: usize,
    /// Time since it began to fire, without that in which it was acknowledged.
    pub unattended: Span,
    /// What keeps it from being notified, as it was decided last.
    pub suppressed: Option<Suppressed>,
    /// Whether it was suppressed from its beginning on: nobody heard of it.
    pub is_unheard: bool,
    /// What its last transition said.
    #[serde(default = "first_change")]
    pub last_change: ChangeName,
}

fn first_change() -> ChangeName {
    ChangeName::Firing
}

impl Firing {
    /// An alert that begins to fire.
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

    /// Whether any level is met, or held by its reset.
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// With the sequence number of the last transition instead of the next.
    pub fn as_published(&self) -> Firing {
        Firing { seq: self.seq.saturating_sub(1), ..self.clone() }
    }

    /// What a pending alert would fire as, for views.
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
    /// To a higher level.
    Rise,
    /// To a lower level that is still held.
    Fall,
    Acknowledged,
    Unacknowledged,
    /// One or more steps of the escalation.
    Escalated,
    Suppressed,
    Unsuppressed,
    Resolved,
    Stale(StaleCause),
}

/// Why nobody can say any more whether it fires.
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

    /// Whether nothing needs to be remembered any more.
    pub fn is_over(&self, at: Timestamp) -> bool {
        self.phase == Phase::Inactive && self.cooldown_until.is_none_or(|until| until <= at)
    }

    /// Whether it is pending or firing.
    pub fn is_active(&self) -> bool {
        self.phase != Phase::Inactive
    }

    /// What suppresses it from this grid point on; `is_new`: it began to fire here.
    pub fn mark(&mut self, cause: Option<Suppressed>, is_new: bool) {
        if let Phase::Firing(firing) = &mut self.phase {
            firing.is_unheard = cause.is_some() && (is_new || firing.is_unheard);
            firing.suppressed = cause;
        }
    }

    /// What it reads of one of several operands is forgotten. If it waits for data, that will not come.
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

    /// How long the condition of a level was met until `at`, without a not-met in between.
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

/// How long a pending alert may be unknown, at least.
const PENDING_UNKNOWN_MIN: Span = Span::from_mins(5);

/// The longest a pending alert of this rule may stay unknown.
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
