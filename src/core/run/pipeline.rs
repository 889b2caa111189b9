//! One pipeline: its runs and its current state.

use super::super::event::{RunEvent, StageEvent};
use super::facts::{Run, StageFacts};
use super::gone::Gone;
use super::place::Place;
use super::{Derived, Moment, Outcome, Sight};
use crate::core::vocab::identity::Labels;
use crate::core::vocab::limits::{RUNS_GRANTED, RUNS_PER_PIPELINE_MAX, STAGES_PER_PIPELINE_MAX};
use crate::core::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One pipeline's runs and its current state.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Pipeline {
    /// Boxed: a B-tree node reserves eleven slots, and most pipelines have few runs.
    pub(super) runs: BTreeMap<Arc<str>, Box<Run>>,
    pub(super) whole: Place,
    pub(super) stages: BTreeMap<Arc<str>, Box<Place>>,
    /// Whether a run event was ever seen; from then on only run events end a run.
    pub(super) has_run_events: bool,
    /// Whether a run event ever stated a beginning. From then on, a beginning is certain only if a run event
    /// states it.
    pub(super) has_run_starts: bool,
    pub(super) declared: Vec<Arc<str>>,
    /// Finished runs by end time, for eviction and for the summary.
    pub(super) finished: BTreeSet<(Timestamp, Arc<str>)>,
    /// The facts kept of forgotten runs.
    pub(super) gone: Gone,
    pub(super) is_dirty: bool,
    #[serde(skip)]
    pub(super) touched: Touched,
}

/// The stages whose gauges may have changed since the last call of `take_touched`.
///
/// The cost of an event depends on the stages it touches, not on how many stages its pipeline has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Touched {
    /// The changed stages are unknown, as after a restart.
    #[default]
    All,
    Only(BTreeSet<Arc<str>>),
}

impl Touched {
    fn add(&mut self, stage: &Arc<str>) {
        if let Touched::Only(stages) = self
            && !stages.contains(stage)
        {
            stages.insert(stage.clone());
        }
    }
}

/// The stages of a run that an event affects.
enum Affected<'a> {
    All,
    Stage(&'a Arc<str>),
    None,
}

impl Pipeline {
    pub(super) fn is_seen(&self) -> bool {
        self.whole.newest().is_some()
    }

    /// Returns the state of the whole pipeline, or of one stage, as a run function of a rule reads it.
    pub fn sight(&self, stage: Option<&str>) -> Option<Sight> {
        match stage {
            None => Some(self.whole.sight()),
            Some(stage) => self.stages.get(stage).map(|place| place.sight()),
        }
    }

    pub fn stage_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.stages.keys()
    }

    /// Returns the place of the whole pipeline, or of one stage.
    pub fn place(&self, stage: Option<&str>) -> Option<&Place> {
        stage.map_or(Some(&self.whole), |stage| self.stages.get(stage).map(|place| &**place))
    }

    pub fn stage_place(&self, stage: &str) -> Option<&Place> {
        self.stages.get(stage).map(|place| &**place)
    }

    pub fn whole(&self) -> &Place {
        &self.whole
    }

    /// Counts the runs that ended after `since`.
    pub fn finished_since(&self, since: Timestamp) -> usize {
        self.finished.iter().rev().take_while(|(ended, _)| *ended > since).count()
    }

    /// Returns the live gauges of the whole pipeline and of the touched stages: name, labels, value.
    pub fn gauges(&self, touched: &Touched) -> Vec<(&'static str, Labels, f64)> {
        let mut gauges = vec![("pipeline_in_flight", Labels::default(), self.whole.in_flight.len() as f64)];
        let mut add = |stage: &Arc<str>, place: &Place| {
            let labels = Labels::of([("stage", stage)]);
            gauges.push(("stage_active", labels.clone(), f64::from(place.active)));
            gauges.push(("stage_waiting", labels, f64::from(place.waiting)));
        };
        match touched {
            Touched::All => self.stages.iter().for_each(|(stage, place)| add(stage, place)),
            Touched::Only(stages) => {
                let found = stages.iter().filter_map(|stage| self.stages.get_key_value(stage));
                found.for_each(|(stage, place)| add(stage, place));
            }
        }
        gauges
    }

    /// Returns the stages whose gauges may have changed since the last call.
    pub(super) fn take_touched(&mut self) -> Touched {
        std::mem::replace(&mut self.touched, Touched::Only(BTreeSet::new()))
    }

    /// Adds a stage event; returns the outcome and whether its run is new. `is_doubtful`: records were lost
    /// shortly before.
    pub(super) fn stage(
        &mut self,
        event: &StageEvent,
        moment: Moment<'_>,
        is_doubtful: bool,
        derived: &mut Vec<Derived>,
    ) -> (Outcome, bool) {
        let is_first = !self.has_run_starts && self.declared.first() == Some(&event.stage);
        let is_last = !self.has_run_events && self.declared.last() == Some(&event.stage);
        let (run, is_new) = self.open(&event.run, is_doubtful);
        let outcome = run.stage(event, (is_first, is_last), derived);
        self.finish(&event.run, Affected::Stage(&event.stage), outcome, is_new, moment);
        (outcome, is_new)
    }

    /// Adds a run event; parameters and result are those of [`Self::stage`].
    pub(super) fn run(
        &mut self,
        event: &RunEvent,
        moment: Moment<'_>,
        is_doubtful: bool,
        derived: &mut Vec<Derived>,
    ) -> (Outcome, bool) {
        self.has_run_events = true;
        self.has_run_starts |= event.begun().is_some();
        let (run, is_new) = self.open(&event.run, is_doubtful);
        let was_ended = run.ended.is_some();
        let outcome = run.run(event, derived);
        let scope = if run.ended.is_some() == was_ended { Affected::None } else { Affected::All };
        self.finish(&event.run, scope, outcome, is_new, moment);
        (outcome, is_new)
    }

    /// Returns whether the run and the stage are known here or may be added. `is_crowded`: all pipelines
    /// together hold the maximum number of runs.
    pub(super) fn has_room(&self, run: &Arc<str>, stage: Option<&Arc<str>>, is_crowded: bool) -> bool {
        let is_full = self.is_full(is_crowded) || is_crowded && self.runs.len() == RUNS_GRANTED;
        let has_run = self.runs.contains_key(run) || !is_full || !self.finished.is_empty();
        let is_known =
            |stage: &Arc<str>| self.stages.contains_key(stage) || self.stages.len() < STAGES_PER_PIPELINE_MAX;
        has_run && stage.is_none_or(is_known)
    }

    /// Returns the run of an id (a tracked, a restored or a new one) and whether it was added just now.
    fn open(&mut self, id: &Arc<str>, is_doubtful: bool) -> (&mut Run, bool) {
        let is_new = !self.runs.contains_key(id);
        let gone = &mut self.gone;
        let back = || Box::new(gone.take(id).map_or_else(Run::default, Run::back));
        let run = self.runs.entry(id.clone()).or_insert_with(back);
        if is_new && is_doubtful {
            run.beginning.doubt();
        }
        (run, is_new)
    }

    /// Completes an event of a run: updates the places if the event was recorded; otherwise forgets a run
    /// that only this event would have added.
    fn finish(
        &mut self,
        id: &Arc<str>,
        scope: Affected<'_>,
        outcome: Outcome,
        is_new: bool,
        moment: Moment<'_>,
    ) {
        if outcome == Outcome::Recorded {
            return self.touch(id, scope, moment);
        }
        if is_new && let Some(run) = self.runs.remove(id) {
            self.gone.keep(id.clone(), run.remains(), moment.now);
        }
    }

    /// Updates the state of the pipeline, of the stage in `scope` and of the run after an accepted event of that
    /// run.
    fn touch(&mut self, id: &Arc<str>, scope: Affected<'_>, moment: Moment<'_>) {
        self.whole.hear(moment);
        if let Affected::Stage(stage) = scope {
            self.stages.entry(stage.clone()).or_default().hear(moment);
        }
        if let Some(run) = self.runs.get_mut(id) {
            run.last_seen = Some(moment.now);
        }
        self.relist(id, scope, moment.now);
    }

    /// Updates the lists of runs in flight of the pipeline and of the stages in `scope`. The other stages need
    /// no update, because neither their facts nor the end of the run have changed.
    fn relist(&mut self, id: &Arc<str>, scope: Affected<'_>, now: Timestamp) {
        self.is_dirty = true;
        let Some(run) = self.runs.get_mut(id) else { return };
        let listed = run.ended.is_none().then_some(run.beginning.first);
        let left = run.beginning.certain(self.has_run_starts).map(|_| now);
        self.whole.relist(id, &mut run.listed, listed, left);
        let ended = run.ended.map(|(at, _)| at);
        if let Some(ended) = ended {
            self.finished.insert((ended, id.clone()));
        }
        let mut list = |stage: &Arc<str>, facts: &mut StageFacts| {
            if let Some(place) = self.stages.get_mut(stage) {
                place.list(id, facts, ended, now);
                self.touched.add(stage);
            }
        };
        match scope {
            Affected::All => run.stages.iter_mut().for_each(|(stage, facts)| list(stage, facts)),
            Affected::Stage(stage) => {
                run.stages.get_mut(stage).into_iter().for_each(|facts| list(stage, facts))
            }
            Affected::None => {}
        }
    }

    /// Derives the values that depend on all events of a run at one instant.
    pub(super) fn settle(
        &mut self,
        name: &Arc<str>,
        id: &Arc<str>,
        now: Timestamp,
        derived: &mut Vec<Derived>,
    ) {
        let Some(run) = self.runs.get_mut(id) else { return };
        let was_ended = run.ended.is_some();
        run.close(self.has_run_events, name, derived);
        if let Some(duration) = run.settle(self.has_run_starts, name, derived) {
            self.whole.learn(duration);
        }
        if run.ended.is_some() != was_ended {
            self.relist(id, Affected::All, now);
        }
    }

    /// Records that a stage event was refused because of its time.
    pub(super) fn refuse_stage(&mut self, event: &StageEvent, now: Timestamp) {
        match self.runs.get_mut(&event.run) {
            Some(run) => run.refuse_stage(event),
            None => self.gone.refuse(&event.run, event.earliest(), now),
        }
    }

    /// Records that a run event was refused because of its time.
    pub(super) fn refuse_run(&mut self, event: &RunEvent, now: Timestamp) {
        match self.runs.get_mut(&event.run) {
            Some(run) => run.beginning.refuse(event.earliest()),
            None => self.gone.refuse(&event.run, event.earliest(), now),
        }
    }

    /// Records a gap in the log; the lost records may have contained events of these runs.
    pub(super) fn lose(&mut self) {
        self.runs.values_mut().for_each(|run| run.lose());
    }

    /// Forgets a run: removes it from the pipeline and its stages. Returns 1 if it was in flight.
    pub(super) fn abandon(&mut self, id: &Arc<str>, now: Timestamp) -> u64 {
        let Some(mut run) = self.runs.remove(id) else { return 0 };
        self.is_dirty = true;
        self.gone.keep(id.clone(), run.remains(), now);
        if let Some((ended, _)) = run.ended {
            self.finished.remove(&(ended, id.clone()));
            return 0;
        }
        self.whole.abandon(id, &mut run.listed);
        for (stage, facts) in &mut run.stages {
            let Some(place) = self.stages.get_mut(stage) else { continue };
            if facts.listed.is_some() {
                place.abandon(id, &mut facts.listed);
            }
            place.active -= u32::from(facts.is_active);
            place.waiting -= u32::from(facts.is_waiting);
            self.touched.add(stage);
        }
        1
    }

    /// Returns the number of tracked runs.
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    /// Returns whether there are more runs than may be tracked.
    pub(super) fn is_full(&self, is_crowded: bool) -> bool {
        let most = if is_crowded { RUNS_GRANTED } else { RUNS_PER_PIPELINE_MAX };
        self.runs.len() > most
    }

    /// Evicts the oldest finished runs while this pipeline has too many runs, or all pipelines together have
    /// `excess` too many; returns how many.
    pub(super) fn evict(&mut self, now: Timestamp, excess: usize) -> usize {
        let mut evicted = 0;
        while self.is_full(evicted < excess)
            && let Some((_, id)) = self.finished.pop_first()
        {
            if let Some(run) = self.runs.remove(&id) {
                self.gone.keep(id, run.remains(), now);
            }
            evicted += 1;
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tracker;
    use super::super::tests::{at, moment, run, stage};
    use super::*;
    use crate::core::event::{RunStatus, StageStatus};
    use proptest::prelude::*;

    const DAY: crate::core::vocab::time::Span = crate::core::vocab::time::Span::from_hours(24);

    fn named(gauges: Vec<(&'static str, Labels, f64)>) -> BTreeMap<String, f64> {
        gauges.into_iter().map(|(name, labels, value)| (format!("{name}{labels:?}"), value)).collect()
    }

    /// Goal: the cost of an event depends on the stages it touches. Method: count the stages to look at after
    /// an event.
    #[test]
    fn an_event_touches_its_own_stage_of_a_thousand() {
        let (mut tracker, mut derived) = (Tracker::default(), Vec::new());
        for number in 0..STAGES_PER_PIPELINE_MAX {
            let event = stage("r", &format!("s{number}"), StageStatus::Started, 1);
            assert_eq!(tracker.stage(&event, moment(at(1)), DAY, &mut derived), Outcome::Recorded);
        }
        tracker.take_dirty();
        let event = stage("r", "s7", StageStatus::Progress, 2);
        tracker.stage(&event, moment(at(2)), DAY, &mut derived);
        let (_, touched) = tracker.take_dirty().pop_first().expect("it had an event");
        assert_eq!(touched, Touched::Only(BTreeSet::from(["s7".into()])));
        assert_eq!(tracker.get("p").map(|pipeline| pipeline.gauges(&touched).len()), Some(3));
        // A run event that ends nothing touches no stage; one that ends the run touches all of them.
        for (status, count) in [(RunStatus::Started, 0), (RunStatus::Succeeded, STAGES_PER_PIPELINE_MAX)] {
            tracker.run(&run("r", status, 3), moment(at(3)), DAY, &mut derived);
            let (_, touched) = tracker.take_dirty().pop_first().expect("it had an event");
            assert!(matches!(&touched, Touched::Only(stages) if stages.len() == count), "{status:?}");
        }
    }

    proptest! {
        /// Goal: gauges updated stage by stage equal the gauges of all stages.
        /// Method: random events of four runs with three stages, up to 89 minutes apart; some runs are
        /// abandoned.
        #[test]
        fn touched_gauges_add_up_to_all(events in prop::collection::vec((0..4u8, 0..4u8, 0..7u8, 0..90i64), 1..60)) {
            use StageStatus::*;
            let (mut tracker, mut derived) = (Tracker::default(), Vec::new());
            let (mut known, mut now) = (BTreeMap::new(), 0);
            for (id, name, status, minutes) in events {
                now += minutes * 60;
                tracker.forget(at(now), crate::core::vocab::time::Span::from_hours(1));
                let id = format!("r{id}");
                if name == 3 {
                    let status = if status < 5 { RunStatus::Started } else { RunStatus::Succeeded };
                    tracker.run(&run(&id, status, now), moment(at(now)), DAY, &mut derived);
                } else {
                    let status = [Queued, Started, Progress, Succeeded, Failed, Cancelled, Skipped][usize::from(status)];
                    tracker.stage(&stage(&id, &format!("s{name}"), status, now), moment(at(now)), DAY, &mut derived);
                }
                tracker.settle(at(now), &mut derived);
                for (_, touched) in tracker.take_dirty() {
                    let pipeline = tracker.get("p").expect("it had an event");
                    known.extend(named(pipeline.gauges(&touched)));
                }
                let count: usize = tracker.pipelines.values().map(Pipeline::len).sum();
                prop_assert!(tracker.runs.is_none_or(|runs| runs == count));
                if let Some(pipeline) = tracker.get("p") {
                    prop_assert_eq!(&known, &named(pipeline.gauges(&Touched::All)));
                }
            }
        }
    }
}
