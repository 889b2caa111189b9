//! Pipelines, their runs, and what is derived from stage, run and gate events.
//!
//! Intuition: events of a run arrive twice, late and in any order, so a run is kept as a set of
//! facts (this attempt was queued then, started then, ended so), and every derived value is made
//! at the moment its second fact arrives, stamped with the time of the interval's end.
//! Invariant: the same facts in another order give the same derived values; a repeated fact
//! changes nothing; the first terminal status of an attempt stays.
//! Rejected: a state machine per run that expects `queued → started → ended` and calls the rest
//! an error: real CI systems retry, skip and reorder.

pub mod course;
mod ledger;

use super::counters::{Outcome, Refusal};
use super::detect::learned::Durations;
use super::event::{GateEvent, RunEvent, RunStatus, StageEvent};
use super::identity::Labels;
use super::interruption::Interruptions;
use super::limits::RUNS_PER_PIPELINE_MAX;
use super::rule::PipelineSpec;
use super::time::{Span, Timestamp};
use ledger::Run;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A value derived from events; its series has the pipeline as source.
#[derive(Debug, Clone, PartialEq)]
pub struct Derived {
    pub pipeline: Arc<str>,
    pub name: &'static str,
    pub labels: Labels,
    pub value: f64,
    pub time: Timestamp,
}

/// All pipelines of this log.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tracker {
    pipelines: BTreeMap<Arc<str>, Pipeline>,
    /// Minute → runs that may have to be forgotten there.
    reviews: BTreeMap<Timestamp, Vec<(Arc<str>, Arc<str>)>>,
    is_dirty: bool,
    /// Finished runs let go early to make room.
    evicted: u64,
}

/// One pipeline's runs, and what is going on in it right now.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Pipeline {
    runs: BTreeMap<Arc<str>, Run>,
    whole: Place,
    stages: BTreeMap<Arc<str>, Place>,
    /// Whether any run event was ever seen: then only those end a run.
    has_run_events: bool,
    declared: Vec<Arc<str>>,
    /// Finished runs by end time, for room and for the summary.
    finished: BTreeSet<(Timestamp, Arc<str>)>,
    is_dirty: bool,
}

/// What is in flight at one place: the whole pipeline, or one stage of it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Place {
    /// Runs in flight here with the time of their first event here.
    in_flight: BTreeSet<(Timestamp, Arc<str>)>,
    /// Ingest time of the newest accepted stage or run event here.
    newest: Option<Timestamp>,
    active: u32,
    waiting: u32,
    /// The last run in flight was abandoned: nobody knows what goes on here.
    is_lost: bool,
    /// Times without an event while something was in flight.
    gaps: Durations,
    /// How old runs were when they left, by the log's clock.
    ages: Durations,
    /// How long they were here, by their events.
    times: Durations,
}

/// A run leaves a place: when that was read, and when it was.
#[derive(Debug, Clone, Copy)]
struct Left {
    now: Timestamp,
    at: Timestamp,
}

/// When something happens, and what of the time before it counts.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    pub now: Timestamp,
    pub interruptions: &'a Interruptions,
}

/// What a run function sees of a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sight {
    /// The last run in flight was abandoned.
    Lost,
    Idle,
    Busy {
        newest: Timestamp,
        oldest: Timestamp,
        in_flight: usize,
    },
}

impl Tracker {
    /// Takes what the rule set says of pipelines.
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
        let pipeline = self.pipelines.entry(event.pipeline.clone()).or_default();
        let is_new = !pipeline.runs.contains_key(&event.run);
        let run = pipeline.runs.entry(event.run.clone()).or_insert_with(|| Run::new(event.time));
        let outcome = run.stage(event, derived);
        if outcome != Outcome::Recorded {
            if is_new {
                pipeline.runs.remove(&event.run);
            }
            return outcome;
        }
        let now = moment.now;
        run.last_seen = now;
        let ends_run = !pipeline.has_run_events
            && event.status.is_terminal()
            && pipeline.declared.last() == Some(&event.stage);
        if ends_run {
            let status = match event.status {
                super::event::StageStatus::Failed => RunStatus::Failed,
                super::event::StageStatus::Cancelled => RunStatus::Cancelled,
                _ => RunStatus::Succeeded,
            };
            run.end(event.time, status, &event.pipeline, derived);
        }
        self.evicted += pipeline.touch(&event.run, Some(&event.stage), moment);
        self.is_dirty = true;
        self.review(&event.pipeline, &event.run, is_new, now, abandon_after);
        outcome
    }

    pub fn run(
        &mut self,
        event: &RunEvent,
        moment: Moment<'_>,
        abandon_after: Span,
        derived: &mut Vec<Derived>,
    ) -> Outcome {
        let pipeline = self.pipelines.entry(event.pipeline.clone()).or_default();
        pipeline.has_run_events = true;
        let is_new = !pipeline.runs.contains_key(&event.run);
        let run = pipeline.runs.entry(event.run.clone()).or_insert_with(|| Run::new(event.time));
        if event.status.is_terminal() {
            if run.ended.is_some_and(|(_, status)| status != event.status) {
                return Outcome::Refused(Refusal::Conflict);
            }
            run.end(event.time, event.status, &event.pipeline, derived);
        } else {
            run.first = run.first.min(event.time);
        }
        let now = moment.now;
        run.last_seen = now;
        self.evicted += pipeline.touch(&event.run, None, moment);
        self.is_dirty = true;
        self.review(&event.pipeline, &event.run, is_new, now, abandon_after);
        Outcome::Recorded
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

    fn review(&mut self, pipeline: &Arc<str>, run: &Arc<str>, is_new: bool, now: Timestamp, after: Span) {
        if is_new {
            let at = (now + after).next(Span::from_mins(1));
            self.reviews.entry(at).or_default().push((pipeline.clone(), run.clone()));
        }
    }

    /// When a run may have to be forgotten next.
    pub fn next_review(&self) -> Option<Timestamp> {
        self.reviews.first_key_value().map(|(at, _)| *at)
    }

    /// Forgets the runs without an event for `abandon_after`; returns how many were in flight.
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
        let Some(last_seen) = found.runs.get(run).map(|run| run.last_seen) else { return 0 };
        if last_seen + after >= now {
            let at = (last_seen + after).next(Span::from_mins(1));
            self.reviews.entry(at).or_default().push((pipeline.clone(), run.clone()));
            return 0;
        }
        self.is_dirty = true;
        found.abandon(run)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Pipeline)> {
        self.pipelines.iter().filter(|(_, pipeline)| pipeline.is_seen())
    }

    /// Those behind one in the order of their names; without one, all.
    pub fn iter_after(&self, after: Option<&str>) -> impl Iterator<Item = (&Arc<str>, &Pipeline)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        self.pipelines.range::<str, _>(range).filter(|(_, pipeline)| pipeline.is_seen())
    }

    pub fn get(&self, pipeline: &str) -> Option<&Pipeline> {
        self.pipelines.get(pipeline).filter(|pipeline| pipeline.is_seen())
    }

    /// Pipelines with an accepted event since the last call.
    pub fn take_dirty(&mut self) -> Vec<Arc<str>> {
        self.is_dirty = false;
        let dirty = self.pipelines.iter_mut().filter(|(_, pipeline)| pipeline.is_dirty);
        dirty
            .map(|(name, pipeline)| {
                pipeline.is_dirty = false;
                name.clone()
            })
            .collect()
    }

    pub fn has_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Finished runs let go early to make room, since the log began.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

impl Pipeline {
    fn is_seen(&self) -> bool {
        self.whole.newest.is_some()
    }

    /// What a run function sees: the whole pipeline, or one stage.
    pub fn sight(&self, stage: Option<&str>) -> Option<Sight> {
        match stage {
            None => Some(self.whole.sight()),
            Some(stage) => self.stages.get(stage).map(Place::sight),
        }
    }

    pub fn stage_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.stages.keys()
    }

    /// The whole pipeline, or one stage.
    pub fn place(&self, stage: Option<&str>) -> Option<&Place> {
        stage.map_or(Some(&self.whole), |stage| self.stages.get(stage))
    }

    pub fn stage_place(&self, stage: &str) -> Option<&Place> {
        self.stages.get(stage)
    }

    pub fn whole(&self) -> &Place {
        &self.whole
    }

    /// Runs that ended after `since`.
    pub fn finished_since(&self, since: Timestamp) -> usize {
        self.finished.iter().rev().take_while(|(ended, _)| *ended > since).count()
    }

    /// The live gauges as they are: name, labels, value.
    pub fn gauges(&self) -> Vec<(&'static str, Labels, f64)> {
        let mut gauges = vec![("pipeline_in_flight", Labels::default(), self.whole.in_flight.len() as f64)];
        for (stage, place) in &self.stages {
            let labels = Labels::of([("stage", stage)]);
            gauges.push(("stage_active", labels.clone(), f64::from(place.active)));
            gauges.push(("stage_waiting", labels, f64::from(place.waiting)));
        }
        gauges
    }

    /// Brings the places up to date with a run that just had an event; finished runs let go for it.
    fn touch(&mut self, run_id: &Arc<str>, stage: Option<&Arc<str>>, moment: Moment<'_>) -> u64 {
        self.is_dirty = true;
        self.whole.hear(moment);
        if let Some(stage) = stage {
            self.stages.entry(stage.clone()).or_default().hear(moment);
        }
        let now = moment.now;
        let Some(run) = self.runs.get_mut(run_id) else { return 0 };
        let listed = run.ended.is_none().then_some(run.first);
        let ended = run.ended.map(|(at, _)| at);
        self.whole.relist(run_id, &mut run.listed, listed, ended.map(|at| Left { now, at }));
        let is_over = run.ended.is_some();
        if let Some((ended, _)) = run.ended {
            self.finished.insert((ended, run_id.clone()));
        }
        for (stage, facts) in &mut run.stages {
            let Some(place) = self.stages.get_mut(stage) else { continue };
            let (is_active, is_waiting) = if is_over { (false, false) } else { facts.progress() };
            let listed = (is_active || is_waiting).then_some(facts.first);
            let left = facts.ended().or(ended).map(|at| Left { now, at });
            place.relist(run_id, &mut facts.listed, listed, left);
            place.active = place.active + u32::from(is_active) - u32::from(facts.is_active);
            place.waiting = place.waiting + u32::from(is_waiting) - u32::from(facts.is_waiting);
            (facts.is_active, facts.is_waiting) = (is_active, is_waiting);
        }
        self.evict()
    }

    /// Takes a run out of everything; 1 if it was in flight.
    fn abandon(&mut self, run_id: &Arc<str>) -> u64 {
        let Some(mut run) = self.runs.remove(run_id) else { return 0 };
        self.is_dirty = true;
        if let Some((ended, _)) = run.ended {
            self.finished.remove(&(ended, run_id.clone()));
            return 0;
        }
        self.whole.relist(run_id, &mut run.listed, None, None);
        self.whole.is_lost = self.whole.in_flight.is_empty();
        for (stage, facts) in &mut run.stages {
            let Some(place) = self.stages.get_mut(stage) else { continue };
            if facts.listed.is_some() {
                place.relist(run_id, &mut facts.listed, None, None);
                place.is_lost = place.in_flight.is_empty();
            }
            place.active -= u32::from(facts.is_active);
            place.waiting -= u32::from(facts.is_waiting);
        }
        1
    }

    /// Lets the oldest finished runs go when there are too many.
    fn evict(&mut self) -> u64 {
        let mut evicted = 0;
        while self.runs.len() > RUNS_PER_PIPELINE_MAX
            && let Some((_, run)) = self.finished.pop_first()
        {
            self.runs.remove(&run);
            evicted += 1;
        }
        evicted
    }
}

impl Place {
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    fn sight(&self) -> Sight {
        if self.is_lost {
            return Sight::Lost;
        }
        match (self.in_flight.first(), self.newest) {
            (Some((oldest, _)), Some(newest)) => {
                Sight::Busy { newest, oldest: *oldest, in_flight: self.in_flight.len() }
            }
            _ => Sight::Idle,
        }
    }

    /// Something happened here.
    fn hear(&mut self, Moment { now, interruptions }: Moment<'_>) {
        if let (false, Some(newest)) = (self.in_flight.is_empty(), self.newest) {
            self.gaps.add_gap(interruptions.counted(newest, now).ms());
        }
        self.newest = Some(now);
        self.is_lost = false;
    }

    /// The longest time without an event that is usual while something is in flight, and the greatest usual
    /// age, in seconds; `None` until enough is known.
    pub fn usual_gap_secs(&self) -> Option<f64> {
        self.gaps.gap_limit_ms().map(|ms| ms / 1e3)
    }

    pub fn usual_age_secs(&self) -> Option<f64> {
        self.ages.age_limit_ms().map(|ms| ms / 1e3)
    }

    /// `left`: where it was seen to leave.
    fn relist(
        &mut self,
        run: &Arc<str>,
        listed: &mut Option<Timestamp>,
        wanted: Option<Timestamp>,
        left: Option<Left>,
    ) {
        if *listed == wanted {
            return;
        }
        if let Some(first) = listed.take() {
            self.in_flight.remove(&(first, run.clone()));
            if let (None, Some(left)) = (wanted, left) {
                self.ages.add((left.now - first).ms());
                self.times.add((left.at - first).ms());
            }
        }
        if let Some(first) = wanted {
            self.in_flight.insert((first, run.clone()));
        }
        *listed = wanted;
    }
}

#[cfg(test)]
mod tests;
