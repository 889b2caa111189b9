//! Runs in the shape of snapshots of version 19, and their conversion.
//!
//! Intuition: a snapshot of version 19 holds the time of a run's first event, but not its kind. The stage
//! attempts state when they were queued and started. If the first event is earlier than all stages, it was a
//! run event that stated the beginning. Invariant: a duration that version 19 derived is not derived again.

use super::super::event::{RunStatus, StageStatus};
use super::attempt::Attempt;
use super::beginning::Beginning;
use super::facts::{Run, StageFacts};
use super::transitions::{Edge, Transitions};
use super::{Pipeline, Place, Tracker};
use crate::core::vocab::time::Timestamp;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Deserialize)]
pub struct TrackerV19 {
    pipelines: BTreeMap<Arc<str>, PipelineV19>,
    reviews: BTreeMap<Timestamp, Vec<(Arc<str>, Arc<str>)>>,
    is_dirty: bool,
    evicted: u64,
}

#[derive(Debug, Deserialize)]
struct PipelineV19 {
    runs: BTreeMap<Arc<str>, RunV19>,
    whole: Place,
    stages: BTreeMap<Arc<str>, Box<Place>>,
    has_run_events: bool,
    declared: Vec<Arc<str>>,
    finished: BTreeSet<(Timestamp, Arc<str>)>,
    is_dirty: bool,
}

#[derive(Debug, Deserialize)]
struct RunV19 {
    first: Timestamp,
    last_seen: Timestamp,
    ended: Option<(Timestamp, RunStatus)>,
    stages: BTreeMap<Arc<str>, StageV19>,
    listed: Option<Timestamp>,
    attempts_count: usize,
    starts: Vec<Edge>,
    ends: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct StageV19 {
    first: Timestamp,
    listed: Option<Timestamp>,
    is_active: bool,
    is_waiting: bool,
    attempts: BTreeMap<u32, AttemptV19>,
}

#[derive(Debug, Deserialize)]
struct AttemptV19 {
    queued: Option<Timestamp>,
    started: Option<Timestamp>,
    ended: Option<(Timestamp, StageStatus)>,
    progress: Vec<Timestamp>,
}

impl From<TrackerV19> for Tracker {
    fn from(old: TrackerV19) -> Tracker {
        Tracker {
            pipelines: old.pipelines.into_iter().map(|(name, one)| (name, one.into())).collect(),
            reviews: old.reviews,
            is_dirty: old.is_dirty,
            evicted: old.evicted,
            ..Tracker::default()
        }
    }
}

impl From<PipelineV19> for Pipeline {
    fn from(old: PipelineV19) -> Pipeline {
        let has_run_starts = old.runs.values().any(|run| run.stated().is_some());
        Pipeline {
            runs: old.runs.into_iter().map(|(id, run)| (id, Box::new(run.into()))).collect(),
            whole: old.whole,
            stages: old.stages,
            declared: old.declared,
            finished: old.finished,
            is_dirty: old.is_dirty,
            has_run_events: old.has_run_events,
            has_run_starts,
            ..Pipeline::default()
        }
    }
}

impl RunV19 {
    /// Returns the beginning that a run event stated: the first event, if it is earlier than everything known
    /// of the stages and is not the run's end.
    fn stated(&self) -> Option<Timestamp> {
        let is_of_stage = self.stages.values().any(|stage| stage.first <= self.first);
        let is_end = self.ended.is_some_and(|(end, _)| end == self.first);
        (!is_of_stage && !is_end).then_some(self.first)
    }
}

impl From<RunV19> for Run {
    fn from(old: RunV19) -> Run {
        let begun = old.stages.values().filter_map(StageV19::begun).min();
        Run {
            beginning: Beginning::restored(old.first, old.stated(), begun),
            last_seen: Some(old.last_seen),
            ended: old.ended,
            is_timed: old.ended.is_some(),
            stages: old.stages.into_iter().map(|(name, stage)| (name, stage.into())).collect(),
            listed: old.listed,
            attempts_count: old.attempts_count,
            transitions: Transitions::restored(old.starts, old.ends),
            ..Run::default()
        }
    }
}

impl StageV19 {
    fn begun(&self) -> Option<Timestamp> {
        self.attempts.values().filter_map(AttemptV19::begun).min()
    }
}

impl From<StageV19> for StageFacts {
    fn from(old: StageV19) -> StageFacts {
        let opened = old.attempts.values().filter_map(AttemptV19::opened).min();
        StageFacts {
            beginning: Beginning::restored(old.first, None, opened),
            listed: old.listed,
            is_active: old.is_active,
            is_waiting: old.is_waiting,
            is_timed: old.listed.is_none(),
            attempts: old.attempts.into_iter().map(|(number, one)| (number, Box::new(one.into()))).collect(),
        }
    }
}

impl AttemptV19 {
    /// Returns when the attempt was queued or started.
    fn opened(&self) -> Option<Timestamp> {
        self.queued.into_iter().chain(self.started).min()
    }

    /// Returns when the attempt was queued, started or skipped.
    fn begun(&self) -> Option<Timestamp> {
        let skipped = self.ended.filter(|(_, status)| *status == StageStatus::Skipped);
        self.opened().into_iter().chain(skipped.map(|(at, _)| at)).min()
    }
}

impl From<AttemptV19> for Attempt {
    fn from(old: AttemptV19) -> Attempt {
        Attempt::restored(old.queued, old.started, old.ended, old.progress)
    }
}
