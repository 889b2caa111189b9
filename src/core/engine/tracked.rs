//! Stage, run and gate events: they update runs, and the engine derives values from them.
//!
//! Intuition: a window rejects values that are too late, but a run has happened even if it is reported too late.
//! So a stage or run event always updates its run, however late it is. The values derived from the event may
//! still be too late for their windows.
//! Invariant: values that depend on all events of one instant are derived before time advances.

use super::Engine;
use crate::core::arrival::Arrival;
use crate::core::event::{GateEvent, RunEvent, StageEvent};
use crate::core::run::{Derived, Moment};
use crate::core::vocab::counters::{Outcome, Refusal};
use crate::core::vocab::identity::Identity;
use crate::core::vocab::limits::{Backfill, LatePolicy};
use crate::core::vocab::time::Timestamp;
use crate::core::vocab::unit::Unit;

impl Engine {
    pub(super) fn stage(&mut self, event: &StageEvent, limit: Timestamp) -> Outcome {
        if event.latest() > limit {
            self.runs.refuse_stage(event, self.timeline.now());
            return Outcome::Refused(Refusal::Future);
        }
        let arrival = self.arrival(event.time, limit);
        let mut derived = Vec::new();
        let moment = Moment { now: self.timeline.now(), interruptions: self.timeline.interruptions() };
        let outcome = self.runs.stage(event, moment, self.limits.abandon_after, &mut derived);
        self.tracked(outcome, arrival, derived)
    }

    pub(super) fn run_event(&mut self, event: &RunEvent, limit: Timestamp) -> Outcome {
        if event.latest() > limit {
            self.runs.refuse_run(event, self.timeline.now());
            return Outcome::Refused(Refusal::Future);
        }
        let arrival = self.arrival(event.time, limit);
        let mut derived = Vec::new();
        let moment = Moment { now: self.timeline.now(), interruptions: self.timeline.interruptions() };
        let outcome = self.runs.run(event, moment, self.limits.abandon_after, &mut derived);
        self.tracked(outcome, arrival, derived)
    }

    /// Applies a gate event. A gate is itself a value, so, unlike a stage or run event, it can be too late.
    pub(super) fn gate(&mut self, event: &GateEvent, limit: Timestamp) -> Outcome {
        let arrival = self.arrival(event.time, limit);
        if let Some(outcome) = self.limits.turned_away(arrival) {
            return outcome;
        }
        let mut derived = Vec::new();
        self.runs.gate(event, &mut derived);
        self.tracked(Outcome::Recorded, arrival, derived)
    }

    /// Records the values derived from an event, and returns the outcome of the event itself.
    fn tracked(&mut self, outcome: Outcome, arrival: Arrival, derived: Vec<Derived>) -> Outcome {
        self.timeline.wake();
        derived.into_iter().for_each(|value| self.derived(value));
        let corrects = self.limits.late_policy == LatePolicy::Correct;
        match (outcome, arrival) {
            (Outcome::Recorded, Arrival::Late) if corrects => Outcome::Late,
            (Outcome::Recorded, Arrival::Late | Arrival::TooLate) => Outcome::LateState,
            (other, _) => other,
        }
    }

    /// Derives the values that depend on all events of the instant that has just ended.
    pub(super) fn settle_runs(&mut self) {
        if !self.runs.is_unsettled() {
            return;
        }
        let mut derived = Vec::new();
        self.runs.settle(self.timeline.now(), &mut derived);
        derived.into_iter().for_each(|value| self.derived(value));
    }

    /// Records a value derived from events. The counters of accepted and refused events do not include it.
    fn derived(&mut self, derived: Derived) {
        let arrival = self.arrival(derived.time, Timestamp::MAX);
        let is_backfilled =
            self.limits.backfill == Backfill::Now && self.limits.turned_away(arrival).is_some();
        let time = if is_backfilled { self.timeline.now() } else { derived.time };
        let identity = Identity {
            unit: Unit::from_suffix(derived.name),
            source: derived.pipeline,
            name: derived.name.into(),
            labels: derived.labels,
        };
        self.observe_own(&identity, time, derived.value);
    }
}
