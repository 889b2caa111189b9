//! Pipelines, their runs, and the values derived from stage, run and gate events.
//!
//! Intuition: the events of a run may arrive twice, late and in any order. The tracker therefore keeps a run
//! as a set of facts (an attempt was queued, started or ended at a given time). A duration is derived when
//! the later of its two facts arrives, and the value is recorded at the end of the measured interval. Run
//! durations and stage transitions depend on all facts of a run, so they are computed once per instant of log
//! time.
//! Invariant: the same facts in another order give the same derived values; a repeated fact changes nothing;
//! the first terminal status of an attempt stays; a derived duration is either correct or absent.
//! Rejected: a state machine per run that expects `queued → started → ended` and treats any other order as an
//! error, because real CI systems retry, skip and reorder.

mod attempt;
mod beginning;
pub(crate) mod course;
mod facts;
mod gone;
mod pipeline;
mod place;
mod transitions;
pub(in crate::core) mod v19;

use super::event::{GateEvent, RunEvent, StageEvent};
use super::interruption::Interruptions;
use crate::core::vocab::counters::{Outcome, Refusal};
use crate::core::vocab::identity::Labels;
use crate::core::vocab::limits::{PIPELINES_MAX, RUNS_MAX};
use crate::core::vocab::pipeline::PipelineSpec;
use crate::core::vocab::time::{Span, Timestamp};
pub(crate) use pipeline::{Pipeline, Touched};
pub(crate) use place::Place;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A value derived from events; the source of its series is the pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Derived {
    pub pipeline: Arc<str>,
    pub name: &'static str,
    pub labels: Labels,
    pub value: f64,
    pub time: Timestamp,
}

/// All pipelines of one log.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tracker {
    pipelines: BTreeMap<Arc<str>, Pipeline>,
    /// Minute → runs to check for abandonment at that minute.
    reviews: BTreeMap<Timestamp, Vec<(Arc<str>, Arc<str>)>>,
    /// Runs, by pipeline and run id, with events at the current instant of log time. The value is the number
    /// of the newest event of the run within this instant.
    unsettled: BTreeMap<(Arc<str>, Arc<str>), u64>,
    /// Number of events accepted at the current instant.
    noted: u64,
    /// Ingest time of the first record after the newest gap in the log.
    lost_at: Option<Timestamp>,
    is_dirty: bool,
    /// Number of finished runs evicted early to make room.
    evicted: u64,
    /// Number of runs over all pipelines; `None` after a restart, until the runs are counted again.
    #[serde(skip)]
    runs: Option<usize>,
}

/// The log time of an event, and the interruptions that elapsed time must exclude.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    pub now: Timestamp,
    pub interruptions: &'a Interruptions,
}

/// The state of a pipeline or stage, as the rule functions `idle`, `age` and `in_flight` read it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sight {
    /// Unknown: the last run in flight was abandoned, because it had no event for `abandon_after`.
    Lost,
    Idle,
    Busy {
        newest: Timestamp,
        oldest: Timestamp,
        in_flight: usize,
    },
}

/// The outcome when there is no room for another pipeline, stage or run.
const FULL: Outcome = Outcome::Refused(Refusal::Cardinality);

impl Tracker {
    /// Takes over the stages that the rule set declares for each pipeline.
    pub fn declare(&mut self, specs: &BTreeMap<Arc<str>, PipelineSpec>) {
        for (name, spec) in specs {
            self.pipelines.entry(name.clone()).or_default().declared = spec.stages.clone();
        }
    }

    pub fn stage(
        &mut self,
        event: &StageEvent,
        moment: Moment<'_>,
        abandon_after: Span,
        derived: &mut Vec<Derived>,
    ) -> Outcome {
        let is_doubtful = self.is_doubtful(moment.now, abandon_after);
        let of = (&event.pipeline, &event.run, Some(&event.stage));
        self.take(of, moment.now, abandon_after, derived, |pipeline, derived| {
            pipeline.stage(event, moment, is_doubtful, derived)
        })
    }

    pub fn run(
        &mut self,
        event: &RunEvent,
        moment: Moment<'_>,
        abandon_after: Span,
        derived: &mut Vec<Derived>,
    ) -> Outcome {
        let is_doubtful = self.is_doubtful(moment.now, abandon_after);
        let of = (&event.pipeline, &event.run, None);
        self.take(of, moment.now, abandon_after, derived, |pipeline, derived| {
            pipeline.run(event, moment, is_doubtful, derived)
        })
    }

    /// Applies an event of a run, and of a stage if one is named, provided there is room. `apply` returns the
    /// outcome and whether the run is new.
    fn take(
        &mut self,
        (name, run, stage): (&Arc<str>, &Arc<str>, Option<&Arc<str>>),
        now: Timestamp,
        abandon_after: Span,
        derived: &mut Vec<Derived>,
        apply: impl FnOnce(&mut Pipeline, &mut Vec<Derived>) -> (Outcome, bool),
    ) -> Outcome {
        let is_crowded = self.is_crowded();
        let Some(pipeline) = self.open(name) else { return FULL };
        if !pipeline.has_room(run, stage, is_crowded) {
            return FULL;
        }
        let (outcome, is_new) = apply(pipeline, derived);
        if outcome == Outcome::Recorded {
            let is_full = pipeline.is_full(is_crowded);
            self.note(name, run, is_new.then(|| now + abandon_after));
            if is_full {
                self.settle(now, derived);
            }
        }
        outcome
    }

    /// Returns whether all pipelines together hold the maximum number of runs. In that state only a pipeline
    /// with few runs may add another one.
    fn is_crowded(&mut self) -> bool {
        self.count_runs() >= RUNS_MAX
    }

    fn count_runs(&mut self) -> usize {
        *self.runs.get_or_insert_with(|| self.pipelines.values().map(Pipeline::len).sum())
    }

    pub fn gate(&mut self, event: &GateEvent, derived: &mut Vec<Derived>) {
        derived.push(Derived {
            pipeline: event.pipeline.clone(),
            name: "gate_pass",
            labels: Labels::of([("gate", &event.gate)]),
            value: if event.is_passed { 1.0 } else { 0.0 },
            time: event.time,
        });
    }

    /// Returns the pipeline of this name, creating it if there is room for one more.
    fn open(&mut self, name: &Arc<str>) -> Option<&mut Pipeline> {
        if !self.pipelines.contains_key(name) && self.pipelines.len() >= PIPELINES_MAX {
            return None;
        }
        Some(self.pipelines.entry(name.clone()).or_default())
    }

    /// Returns whether the first event of a run that is first seen at `now` may be among lost records.
    fn is_doubtful(&self, now: Timestamp, abandon_after: Span) -> bool {
        self.lost_at.is_some_and(|lost| now <= lost + abandon_after)
    }

    /// Notes that an event of a run was accepted. `due` is set for a new run only. It is the time of the first
    /// check whether the run is abandoned.
    fn note(&mut self, pipeline: &Arc<str>, run: &Arc<str>, due: Option<Timestamp>) {
        self.is_dirty = true;
        self.noted += 1;
        self.unsettled.insert((pipeline.clone(), run.clone()), self.noted);
        if let Some(due) = due {
            self.runs = self.runs.map(|all| all + 1);
            self.review(pipeline, run, due);
        }
    }

    fn review(&mut self, pipeline: &Arc<str>, run: &Arc<str>, due: Timestamp) {
        let at = due.next(Span::from_mins(1));
        self.reviews.entry(at).or_default().push((pipeline.clone(), run.clone()));
    }

    /// Records that a stage event was refused because of its time.
    pub fn refuse_stage(&mut self, event: &StageEvent, now: Timestamp) {
        if let Some(pipeline) = self.open(&event.pipeline) {
            pipeline.refuse_stage(event, now);
        }
    }

    /// Records that a run event was refused because of its time.
    pub fn refuse_run(&mut self, event: &RunEvent, now: Timestamp) {
        if let Some(pipeline) = self.open(&event.pipeline) {
            pipeline.refuse_run(event, now);
        }
    }

    /// Records a gap in the log; `at` is the ingest time of the first record after it.
    pub fn lose(&mut self, at: Timestamp) {
        self.lost_at = Some(at);
        self.pipelines.values_mut().for_each(Pipeline::lose);
    }

    pub fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// Derives the values that depend on all events of the completed instant. Runs are processed in the order
    /// of their last events.
    pub fn settle(&mut self, now: Timestamp, derived: &mut Vec<Derived>) {
        self.noted = 0;
        let mut runs: Vec<_> = std::mem::take(&mut self.unsettled).into_iter().collect();
        runs.sort_unstable_by_key(|(_, number)| *number);
        for ((name, run), _) in &runs {
            if let Some(pipeline) = self.pipelines.get_mut(name) {
                pipeline.settle(name, run, now, derived);
            }
        }
        for ((name, _), _) in &runs {
            let excess = self.count_runs().saturating_sub(RUNS_MAX);
            let evicted = self.pipelines.get_mut(name).map_or(0, |pipeline| pipeline.evict(now, excess));
            self.evicted += evicted as u64;
            self.runs = self.runs.map(|all| all - evicted);
        }
    }

    /// Returns when the next check for runs to forget is due.
    pub fn next_review(&self) -> Option<Timestamp> {
        self.reviews.first_key_value().map(|(at, _)| *at)
    }

    /// Forgets runs that had no event for `abandon_after`; returns how many of them were in flight.
    pub fn forget(&mut self, now: Timestamp, abandon_after: Span) -> u64 {
        let mut abandoned = 0;
        while let Some(entry) = self.reviews.first_entry()
            && *entry.key() <= now
        {
            for (pipeline, run) in entry.remove() {
                abandoned += self.forget_run(&pipeline, &run, now, abandon_after);
            }
        }
        abandoned
    }

    fn forget_run(&mut self, pipeline: &Arc<str>, run: &Arc<str>, now: Timestamp, after: Span) -> u64 {
        let Some(found) = self.pipelines.get_mut(pipeline) else { return 0 };
        let Some(last_seen) = found.runs.get(run).and_then(|run| run.last_seen) else { return 0 };
        if last_seen + after >= now {
            self.review(pipeline, run, last_seen + after);
            return 0;
        }
        self.is_dirty = true;
        self.runs = self.runs.map(|all| all - 1);
        found.abandon(run, now)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Pipeline)> {
        self.pipelines.iter().filter(|(_, pipeline)| pipeline.is_seen())
    }

    /// Iterates over the pipelines whose names sort after `after`; over all pipelines if it is `None`.
    pub fn iter_after(&self, after: Option<&str>) -> impl Iterator<Item = (&Arc<str>, &Pipeline)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        self.pipelines.range::<str, _>(range).filter(|(_, pipeline)| pipeline.is_seen())
    }

    pub fn get(&self, pipeline: &str) -> Option<&Pipeline> {
        self.pipelines.get(pipeline).filter(|pipeline| pipeline.is_seen())
    }

    /// Returns the pipelines with an accepted event since the last call, and the stages that those events
    /// touched.
    pub fn take_dirty(&mut self) -> BTreeMap<Arc<str>, Touched> {
        self.is_dirty = false;
        let dirty = self.pipelines.iter_mut().filter(|(_, pipeline)| pipeline.is_dirty);
        dirty
            .map(|(name, pipeline)| {
                pipeline.is_dirty = false;
                (name.clone(), pipeline.take_touched())
            })
            .collect()
    }

    pub fn has_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Returns the number of finished runs evicted early to make room since the log began.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests;
