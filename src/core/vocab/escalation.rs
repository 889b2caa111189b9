//! Escalation: step by step, further receivers are notified while nobody acknowledges an alert.
//!
//! Intuition: a policy is a list of steps, each with a time after the alert began to fire. The clock stops
//! while the alert is acknowledged. A step may be limited to some times of the day: outside of them it waits,
//! and later steps overtake it. The last step may repeat. Invariant: the number of steps taken only grows;
//! steps that are overdue together are taken as one. Rejected: a timer per step (an outage would make all of
//! them fire at once).

use super::calendar::Plan;
use super::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// An escalation policy; its steps ascend in time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Escalation {
    pub name: Arc<str>,
    pub steps: Vec<Step>,
}

/// One step of an escalation policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Time since the alert began to fire, without the time in which it was acknowledged.
    pub after: Span,
    /// The receivers to notify.
    pub notify: Vec<Arc<str>>,
    /// The person or team that the alert is handed to, in words.
    pub escalate_to: Option<Arc<str>>,
    /// Times at which the step may be taken; `None`: always.
    #[serde(default)]
    pub when: Option<Plan>,
    /// The last step only: the interval at which it repeats.
    #[serde(default)]
    pub repeat: Option<Span>,
}

/// The number of repetitions of the last step that are due.
fn repeats(last: &Step, elapsed: Span) -> usize {
    last.repeat.map_or(0, |every| ((elapsed - last.after).ms() / every.ms().max(1)).max(0) as usize)
}

/// Lateness of a step above which the lateness is reported.
const LATE_MAX: Span = Span::from_mins(1);

impl Step {
    fn holds(&self, at: Timestamp) -> bool {
        self.when.as_ref().is_none_or(|when| when.at(at).is_in_force)
    }

    /// Time until `when` may next allow the step; one minute if that time is not known.
    fn waits(&self, at: Timestamp) -> Span {
        let until = self.when.as_ref().and_then(|when| when.at(at).until);
        until.map_or(Span::from_mins(1), |until| until - at)
    }
}

impl Escalation {
    /// The number of steps that are taken in total at `at`, when the alert has fired for `elapsed`. `taken` is
    /// the number taken before; the result is never lower.
    pub fn due(&self, elapsed: Span, at: Timestamp, taken: usize) -> usize {
        let is_due = |step: &Step| step.after <= elapsed && step.holds(at);
        let due = self.steps.iter().rposition(is_due).map_or(0, |place| place + 1).max(taken);
        let all = self.steps.len();
        match self.steps.last() {
            Some(last) if due >= all && is_due(last) => due.max(all + repeats(last, elapsed)),
            _ => due,
        }
    }

    /// Time until another step may be due.
    pub fn next(&self, taken: usize, elapsed: Span, at: Timestamp) -> Option<Span> {
        let wait = |step: &Step, after: Span| if after > elapsed { after - elapsed } else { step.waits(at) };
        if let Some(later) = self.steps.get(taken..).filter(|later| !later.is_empty()) {
            return later.iter().map(|step| wait(step, step.after)).min();
        }
        let last = self.steps.last()?;
        let again = last.repeat? * (taken - self.steps.len() + 1) as i64;
        Some(wait(last, last.after + again))
    }

    /// The lateness of the step after `taken`, if it exceeds `LATE_MAX`; `None` for a step with times of the
    /// day.
    pub fn overdue(&self, taken: usize, elapsed: Span) -> Option<Span> {
        let step = self.steps.get(taken).filter(|step| step.when.is_none())?;
        Some(elapsed - step.after).filter(|late| *late > LATE_MAX)
    }

    /// The last of the first `taken` steps; `None` if none was taken.
    pub fn current(&self, taken: usize) -> Option<&Step> {
        self.steps.get(taken.min(self.steps.len()).checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::calendar::Interval;
    use super::*;

    fn step(mins: i64) -> Step {
        let (notify, escalate_to) = (Vec::new(), None);
        Step { after: Span::from_mins(mins), notify, escalate_to, when: None, repeat: None }
    }

    const NOON: Timestamp = Timestamp::clamped(1_793_534_400_000); // 2026-11-01T12:00:00Z

    #[test]
    fn steps_are_due_one_after_the_other() {
        let policy = Escalation { name: "p".into(), steps: vec![step(0), step(15), step(30)] };
        assert_eq!([0, 14, 15, 45].map(|mins| policy.due(Span::from_mins(mins), NOON, 0)), [1, 1, 2, 3]);
        assert_eq!(policy.next(1, Span::from_mins(5), NOON), Some(Span::from_mins(10)));
        assert_eq!((policy.next(3, Span::ZERO, NOON), policy.current(0)), (None, None));
        assert_eq!(policy.current(2).map(|step| step.after), Some(Span::from_mins(15)));
        assert_eq!(policy.overdue(1, Span::from_mins(15)), None);
        assert_eq!(policy.overdue(1, Span::from_mins(40)), Some(Span::from_mins(25)));
    }

    #[test]
    fn a_step_waits_for_its_time_of_the_day_and_later_ones_pass_it_by() {
        let evening = Interval { times: vec![(13 * 60, 14 * 60)], ..Interval::default() };
        let evening = Some(Plan::Intervals(vec![evening]));
        let steps = vec![step(0), Step { when: evening, ..step(5) }, step(120)];
        let policy = Escalation { name: "p".into(), steps };
        let mins = Span::from_mins;
        assert_eq!(policy.due(mins(10), NOON + mins(10), 1), 1);
        assert_eq!(policy.next(1, mins(10), NOON + mins(10)), Some(mins(1)));
        assert_eq!(policy.due(mins(60), NOON + mins(60), 1), 2);
        assert_eq!(policy.due(mins(125), NOON + mins(125), 1), 3);
        assert_eq!(policy.due(mins(125), NOON + mins(65), 3), 3, "it only grows");
    }

    #[test]
    fn the_last_step_is_taken_again() {
        let last = Step { repeat: Some(Span::from_mins(20)), ..step(10) };
        let policy = Escalation { name: "p".into(), steps: vec![step(0), last] };
        assert_eq!(
            [9, 10, 29, 30, 51].map(|mins| policy.due(Span::from_mins(mins), NOON, 1)),
            [1, 2, 2, 3, 4]
        );
        assert_eq!(policy.next(2, Span::from_mins(10), NOON), Some(Span::from_mins(20)));
        assert_eq!(policy.next(3, Span::from_mins(30), NOON), Some(Span::from_mins(20)));
        assert_eq!(policy.current(7).map(|step| step.after), Some(Span::from_mins(10)));
    }
}
