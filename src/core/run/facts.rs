//! The facts of one run, and the values that follow from them.

use super::super::event::{RunEvent, RunStatus, StageEvent, StageStatus};
use super::Derived;
use super::attempt::{Added, Attempt};
use super::beginning::Beginning;
use super::gone::Remains;
use super::transitions::Transitions;
use crate::core::vocab::counters::{Outcome, Refusal};
use crate::core::vocab::identity::Labels;
use crate::core::vocab::limits::ATTEMPTS_PER_RUN_MAX;
use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is known of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Run {
    pub beginning: Beginning,
    /// Ingest time of its newest accepted event.
    pub last_seen: Option<Timestamp>,
    pub ended: Option<(Timestamp, RunStatus)>,
    /// Time and status with which its last declared stage ended; this ends the run if its pipeline sends no
    /// run events.
    pub closing: Option<(Timestamp, RunStatus)>,
    /// Whether its duration was already derived.
    pub is_timed: bool,
    pub stages: BTreeMap<Arc<str>, StageFacts>,
    /// The key under which the pipeline lists the run as in flight: the time of its first event.
    pub listed: Option<Timestamp>,
    pub attempts_count: usize, // over all stages, at most ATTEMPTS_PER_RUN_MAX
    pub transitions: Transitions,
}

/// What is known of one stage of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct StageFacts {
    pub beginning: Beginning,
    pub listed: Option<Timestamp>,
    pub is_active: bool,
    pub is_waiting: bool,
    /// Whether the time that the run spent in this stage was already added to the stage's usual times.
    pub is_timed: bool,
    pub attempts: BTreeMap<u32, Box<Attempt>>, // boxed: a B-tree node reserves eleven slots, most have one
}

impl Run {
    /// Restores a forgotten run of which another event arrived.
    pub(super) fn back(Remains { beginning, ended, is_timed }: Remains) -> Run {
        Run { beginning, ended, is_timed, ..Run::default() }
    }

    pub(super) fn remains(&self) -> Remains {
        Remains { beginning: self.beginning, ended: self.ended, is_timed: self.is_timed }
    }

    /// Adds the facts of a stage event and derives the values that they complete. The flags state whether the
    /// stage is the first declared one, and whether it is the last declared one.
    pub(super) fn stage(
        &mut self,
        event: &StageEvent,
        (is_first, is_last): (bool, bool),
        derived: &mut Vec<Derived>,
    ) -> Outcome {
        let known = self.stages.get(&event.stage);
        let is_known = known.is_some_and(|stage| stage.attempts.contains_key(&event.attempt));
        if !is_known && self.attempts_count >= ATTEMPTS_PER_RUN_MAX {
            self.refuse_stage(event);
            return Outcome::Refused(Refusal::Cardinality);
        }
        self.attempts_count += usize::from(!is_known);
        let stage = self.stages.entry(event.stage.clone()).or_default();
        let attempt = stage.attempts.entry(event.attempt).or_default();
        let added = match attempt.add(event) {
            Ok(added) => added,
            Err(outcome) => {
                if outcome == Outcome::OtherLeg {
                    self.refuse_stage(event);
                }
                return outcome;
            }
        };
        attempt.derive(event, added, derived);
        stage.note(event, added, self.ended.is_none());
        self.note_stage(event, added, is_first);
        if let Some(time) = event.ended().filter(|_| is_last && added.ended) {
            self.closing = self.closing.or(Some((time, status_of(event.status))));
        }
        Outcome::Recorded
    }

    fn note_stage(&mut self, event: &StageEvent, added: Added, is_first: bool) {
        self.beginning.note(event.earliest());
        if let Some(opened) = opened(event) {
            self.beginning.open(opened, is_first);
        }
        if let Some(time) = event.started().filter(|_| added.started) {
            self.transitions.start(&event.stage, event.attempt, time);
        }
        if let Some(time) = event.ended().filter(|_| added.ended && event.status != StageStatus::Skipped) {
            self.transitions.end(&event.stage, event.attempt, time);
        }
    }

    /// Records that a stage event was refused, so that the run is not completely known.
    pub(super) fn refuse_stage(&mut self, event: &StageEvent) {
        self.beginning.refuse(event.earliest());
        if event.started().is_some() || event.ended().is_some() {
            self.transitions.tear();
        }
    }

    /// Records a gap in the log; the lost records may have contained events of this run.
    pub(super) fn lose(&mut self) {
        self.transitions.lose();
    }

    /// Adds the facts of a run event.
    pub(super) fn run(&mut self, event: &RunEvent, derived: &mut Vec<Derived>) -> Outcome {
        let ended = event.ended().map(|time| (time, event.status));
        if let (Some((_, known)), Some((_, status))) = (self.ended, ended)
            && known != status
        {
            return Outcome::Refused(Refusal::Conflict);
        }
        self.beginning.note(event.earliest());
        if let Some(begun) = event.begun() {
            self.beginning.state(begun);
        }
        if let Some((time, status)) = ended {
            self.end(time, status, &event.pipeline, derived);
        }
        Outcome::Recorded
    }

    /// Ends the run; a second end changes nothing.
    fn end(&mut self, time: Timestamp, status: RunStatus, pipeline: &Arc<str>, derived: &mut Vec<Derived>) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some((time, status));
        let labels = Labels::of([("outcome", status.name())]);
        let pipeline = pipeline.clone();
        derived.push(Derived { pipeline, name: "cards_processed", labels, value: 1.0, time });
    }

    /// Ends the run with its last declared stage if its pipeline sends no run events.
    pub(super) fn close(&mut self, has_run_events: bool, pipeline: &Arc<str>, derived: &mut Vec<Derived>) {
        if let Some((time, status)) = self.closing.take()
            && !has_run_events
        {
            self.end(time, status, pipeline, derived);
        }
    }

    /// Derives the values that depend on all events of one instant; returns the run's duration when it is
    /// derived.
    pub(super) fn settle(
        &mut self,
        needs_stated: bool,
        pipeline: &Arc<str>,
        derived: &mut Vec<Derived>,
    ) -> Option<Span> {
        self.transitions.settle(pipeline, derived);
        let (time, status) = self.ended.filter(|_| !self.is_timed)?;
        // Hosts have different clocks: the duration of a run that ends before it begins is unknown.
        let Some(begun) = self.beginning.certain(needs_stated).filter(|begun| *begun <= time) else {
            // Events arrive out of order: a stage first reported after the end need not be the run's first.
            self.beginning.distrust();
            return None;
        };
        self.is_timed = true;
        let labels = Labels::of([("outcome", status.name())]);
        let (pipeline, value) = (pipeline.clone(), (time - begun).secs_f64());
        derived.push(Derived { pipeline, name: "run_duration_seconds", labels, value, time });
        Some(time - begun)
    }
}

impl StageFacts {
    fn note(&mut self, event: &StageEvent, added: Added, is_running: bool) {
        self.beginning.note(event.earliest());
        if let Some(opened) = event.queued().or(event.started()) {
            self.beginning.open(opened, false);
        }
        // If a further attempt is first reported by its end, it lengthens the time in this stage. This time is
        // then learned again.
        self.is_timed &= !(added.ended && is_running);
    }

    /// Returns the time of the run's first event in this stage.
    pub(super) fn first(&self) -> Timestamp {
        self.beginning.first
    }

    /// Returns when the run entered this stage, if that is certain.
    pub(super) fn begun(&self) -> Option<Timestamp> {
        self.beginning.certain(false)
    }

    /// Returns the latest end among the attempts that have ended.
    pub(super) fn ended(&self) -> Option<Timestamp> {
        self.attempts.values().filter_map(|attempt| attempt.ended()).max()
    }

    /// Returns whether an attempt is running, and whether one waits to start.
    pub(super) fn progress(&self) -> (bool, bool) {
        let open = || self.attempts.values().filter(|attempt| attempt.ended().is_none());
        let is_active = open().any(|attempt| attempt.started().is_some() || !attempt.is_queued());
        (is_active, open().any(|attempt| attempt.started().is_none() && attempt.is_queued()))
    }
}

/// Returns when the stage was queued, started or skipped; `None` for any other event, which implies an earlier
/// one.
fn opened(event: &StageEvent) -> Option<Timestamp> {
    let skipped = event.ended().filter(|_| event.status == StageStatus::Skipped);
    event.queued().or(event.started()).or(skipped)
}

/// Returns the status of a run that ends with its last declared stage.
fn status_of(status: StageStatus) -> RunStatus {
    match status {
        StageStatus::Failed => RunStatus::Failed,
        StageStatus::Cancelled => RunStatus::Cancelled,
        _ => RunStatus::Succeeded,
    }
}
