//! Reasons: why an alert is in its state, in words.
//!
//! Intuition: the reason of a transition states what changed; the reason of an active alert states
//! what holds now.
//! Invariant: each text is true for the state that it describes. The text of an ended alert does not claim that
//! the limit is still passed. An unknown condition is not reported as known. A condition of several parts is not
//! described by a comparison that does not hold.
//! Rejected: one sentence for all states, because it reports that an ended condition continues.

use crate::core::alert::display::clock;
use crate::core::alert::{Change, Display, Firing, Instance, StaleCause, Unknown};
use crate::core::rule::{OnUnknown, Rule};
use crate::core::vocab::time::Timestamp;

/// The alert that a reason describes.
pub(super) struct ReasonInput<'a> {
    pub(super) rule: &'a Rule,
    pub(super) firing: &'a Firing,
    pub(super) value: Option<f64>,
    pub(super) display: &'a Display,
    pub(super) no_data_since: Option<Timestamp>,
    pub(super) at: Timestamp,
}

impl ReasonInput<'_> {
    /// Describes why the alert changed; `before`: its firing state before the change.
    pub(super) fn changed(&self, change: Change, before: Option<&Firing>) -> String {
        match change {
            Change::Firing => self.met_for(),
            Change::Rise => format!("{}: {}", self.met(), self.moved(before)),
            Change::Fall => format!("{}: {}", self.fallen(before), self.moved(before)),
            Change::Acknowledged => self.acknowledged(),
            Change::Unacknowledged => match before.and_then(|before| before.ack.as_ref()) {
                Some(ack) => format!("the acknowledgement by {} is over", ack.by),
                None => "the acknowledgement is over".into(),
            },
            Change::Escalated => self.escalated(),
            Change::Suppressed => match &self.firing.suppressed {
                Some(cause) => format!("suppressed by {} {}", cause.kind, cause.id),
                None => "suppressed".into(),
            },
            Change::Unsuppressed => "nothing suppresses it any more".into(),
            Change::Resolved => self.resolved(),
            Change::Stale(cause) => self.stale(cause),
        }
    }

    /// Describes what holds now for a firing alert.
    pub(super) fn standing(&self, instance: &Instance) -> String {
        let said = self.firing.ack.as_ref().map_or(String::new(), |_| format!("{}; ", self.acknowledged()));
        let level = self.firing.level;
        let now = match instance.unknown {
            Some((reason, _)) => self.unknown_now(reason),
            None if !self.firing.is_held() => {
                format!("{}; it ends when that has been so for {}", self.not_met(), self.rule.keep_firing_for)
            }
            None if !instance.met.has(level) => {
                format!("{}, but not past the limit at which the level is left", self.not_met())
            }
            None => self.met(),
        };
        format!("{said}{now}")
    }

    /// Describes what a pending alert waits for.
    pub(super) fn pending(&self, instance: &Instance) -> String {
        let since = format!("pending since {}", instance.started_at);
        let needs = self.rule.levels[self.firing.level].pending_for;
        match (instance.unknown, instance.cooldown_until.filter(|until| *until > instance.seen_at)) {
            (Some((reason, _)), _) => format!("{since}: {}", self.cause(reason)),
            (None, Some(until)) => {
                format!("{since}: {}; nothing fires before {until}, the cooldown", self.met())
            }
            (None, None) => format!("{since}: {}; it fires when that has been so for {needs}", self.met()),
        }
    }

    fn expr(&self) -> String {
        format!("`{}`", self.rule.text)
    }

    fn value(&self) -> String {
        format!("value {}", self.display.value)
    }

    /// States that the condition is met. The text shows the value and its threshold, unless comparing them gives
    /// false.
    fn met(&self) -> String {
        let threshold = &self.display.threshold;
        match (self.value, self.display.holds()) {
            (None, _) if self.rule.on_unknown == OnUnknown::Fire => {
                "nobody knows the value, which `on_unknown: fire` counts as met".into()
            }
            (None, _) => format!("{} is met", self.expr()),
            (Some(_), Some(false)) => format!("{} is met, {}", self.expr(), self.value()),
            (Some(_), _) => format!("{} is {threshold}", self.value()),
        }
    }

    fn met_for(&self) -> String {
        let needed = self.rule.levels[self.firing.level].pending_for;
        let lasted =
            if needed.is_positive() { format!(", and has been for {needed}") } else { String::new() };
        format!("{}{lasted}", self.met())
    }

    /// States that the condition is no longer met.
    fn not_met(&self) -> String {
        let threshold = &self.display.threshold;
        match (self.value, self.display.holds()) {
            (None, _) => format!("{} is no longer met", self.expr()),
            (Some(_), Some(true)) => format!("{} is no longer met, {}", self.expr(), self.value()),
            // With `on_unknown: fire` an unknown value counts as met. So the value may never have been past its
            // threshold, and "no longer" could be false.
            (Some(_), _) if self.rule.on_unknown == OnUnknown::Fire => {
                format!("{} is not {threshold}", self.value())
            }
            (Some(_), _) => format!("{} is no longer {threshold}", self.value()),
        }
    }

    fn resolved(&self) -> String {
        let kept = self.rule.keep_firing_for;
        let lasted =
            if kept.is_positive() { format!(", and has not been for {kept}") } else { String::new() };
        format!("{}{lasted}", self.not_met())
    }

    /// States that the condition of the previous level is no longer met.
    fn fallen(&self, before: Option<&Firing>) -> String {
        let Some(level) = before.map(|before| before.level) else { return self.value() };
        let (rule, unit) = (self.rule, self.rule.unit.as_ref());
        let display = Display::new(self.value, unit, &rule.levels[level].threshold, rule.limit(level));
        let ReasonInput { firing, value, no_data_since, at, .. } = *self;
        ReasonInput { rule, firing, value, display: &display, no_data_since, at }.not_met()
    }

    fn moved(&self, before: Option<&Firing>) -> String {
        let severity = |firing: &Firing| self.rule.levels[firing.level].severity.name();
        let was = before.map_or(String::new(), |before| format!(", {} before", severity(before)));
        format!("{} now{was}", severity(self.firing))
    }

    fn acknowledged(&self) -> String {
        let Some(ack) = &self.firing.ack else { return "acknowledged".into() };
        let until = ack.until.map_or(String::new(), |until| format!(" until {until}"));
        let why = if ack.why.is_empty() { String::new() } else { format!(": {}", ack.why) };
        format!("acknowledged by {}{until}{why}", ack.by)
    }

    fn escalated(&self) -> String {
        let Some(policy) = &self.rule.escalation else { return "escalated".into() };
        let (taken, all, name) = (self.firing.steps, policy.steps.len(), &policy.name);
        let step = policy.current(taken);
        let to = step.and_then(|step| step.escalate_to.as_ref());
        let to = to.map_or(String::new(), |to| format!(" to {to}"));
        let which = match taken > all {
            true => format!("the last step of {name}, taken {} times", taken - all + 1),
            false => format!("step {taken} of {name}"),
        };
        format!("nobody took care of it for {}: {which}{to}", self.firing.unattended)
    }

    fn unknown_now(&self, reason: Unknown) -> String {
        let end = match (self.rule.on_unknown, reason) {
            // The text announces no end as stale, because suspended or interrupted time does not count towards it.
            (_, Unknown::Suspended | Unknown::LogInterrupted) => String::new(),
            (OnUnknown::ClearAfter(span), _) => {
                format!("; it ends as stale when that has been so for {span}")
            }
            (OnUnknown::Hold | OnUnknown::Fire, _) => String::new(),
        };
        let known = self.value.map_or(String::new(), |_| format!(", the last known {}", self.value()));
        format!("{}{known}{end}", self.cause(reason))
    }

    fn stale(&self, cause: StaleCause) -> String {
        let what = match (cause, self.rule.on_unknown) {
            (StaleCause::RuleChanged, _) => {
                return "its rule was removed or judges something else now".into();
            }
            (StaleCause::Forgotten, _) => "no data for so long that its series or run is forgotten".into(),
            (StaleCause::UnknownTooLong(reason), OnUnknown::ClearAfter(span)) => {
                format!("{}, for longer than {span}", self.cause(reason))
            }
            (StaleCause::UnknownTooLong(reason), _) => self.cause(reason),
        };
        format!("{what}: nobody knows whether it still holds")
    }

    /// Describes why there is no value.
    fn cause(&self, reason: Unknown) -> String {
        match (reason, self.no_data_since) {
            (Unknown::NoData | Unknown::Unseen, Some(since)) => {
                format!("no data since {}", clock(since, self.at))
            }
            (Unknown::NoData | Unknown::Unseen, None) => "no data".into(),
            (Unknown::MinCount, _) => {
                format!("fewer observations than min_count, which is {}", self.rule.min_count)
            }
            (Unknown::NoBaseline, _) => "nothing that it can be compared with".into(),
            (Unknown::DivisionByZero, _) => "a division by zero has no value".into(),
            (Unknown::LogInterrupted, _) => "the log was interrupted".into(),
            (Unknown::Gap, _) => "records of the log were lost".into(),
            (Unknown::Suspended, _) => "maintenance with `mode: suspend`, it is not judged".into(),
        }
    }
}

#[cfg(test)]
mod tests;
