//! Escalation: who is told next when nobody takes care.
//!
//! Intuition: a list of steps, each so long after the alert began to fire; the clock stops while somebody
//! has it. Invariant: steps are taken in order, none twice; steps that are overdue together are one.

use super::time::Span;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A policy; its steps ascend in time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Escalation {
    pub name: Arc<str>,
    pub steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Since the alert began to fire, without the time in which it was acknowledged.
    pub after: Span,
    /// Receivers.
    pub notify: Vec<Arc<str>>,
    /// Whom it is handed to, in words.
    pub escalate_to: Option<Arc<str>>,
}

impl Escalation {
    /// How many steps are due after so long.
    pub fn due(&self, elapsed: Span) -> usize {
        self.steps.iter().take_while(|step| step.after <= elapsed).count()
    }

    /// Time until the step after these is due.
    pub fn next(&self, taken: usize, elapsed: Span) -> Option<Span> {
        self.steps.get(taken).map(|step| step.after - elapsed)
    }

    /// The step that is in force when so many are taken.
    pub fn current(&self, taken: usize) -> Option<&Step> {
        self.steps.get(taken.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_due_one_after_the_other() {
        let step = |mins| Step { after: Span::from_mins(mins), notify: Vec::new(), escalate_to: None };
        let policy = Escalation { name: "p".into(), steps: vec![step(0), step(15), step(30)] };
        assert_eq!([0, 14, 15, 45].map(|mins| policy.due(Span::from_mins(mins))), [1, 1, 2, 3]);
        assert_eq!(policy.next(1, Span::from_mins(5)), Some(Span::from_mins(10)));
        assert_eq!((policy.next(3, Span::ZERO), policy.current(0)), (None, None));
        assert_eq!(policy.current(2).map(|step| step.after), Some(Span::from_mins(15)));
    }
}
