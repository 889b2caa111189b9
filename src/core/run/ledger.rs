//! The facts of one run, and the values that follow from each pair of them.

use super::super::counters::{Outcome, Refusal};
use super::super::event::{RunStatus, StageEvent, StageStatus};
use super::super::identity::Labels;
use super::super::limits::ATTEMPTS_PER_RUN_MAX;
use super::super::time::Timestamp;
use super::Derived;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is known of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    /// Time of its earliest stage or run event.
    pub first: Timestamp,
    /// Ingest time of its newest accepted event.
    pub last_seen: Timestamp,
    pub ended: Option<(Timestamp, RunStatus)>,
    pub stages: BTreeMap<Arc<str>, StageFacts>,
    /// First-event time under which the pipeline lists it as in flight.
    pub listed: Option<Timestamp>,
    attempts_count: usize, // over all stages, at most ATTEMPTS_PER_RUN_MAX
    starts: Vec<Edge>,
    ends: Vec<Edge>,
}

/// What is known of one stage of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StageFacts {
    pub first: Timestamp,
    pub listed: Option<Timestamp>,
    pub is_active: bool,
    pub is_waiting: bool,
    attempts: BTreeMap<u32, Attempt>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Attempt {
    queued: Option<Timestamp>,
    started: Option<Timestamp>,
    ended: Option<(Timestamp, StageStatus)>,
    progress: Vec<Timestamp>, // ascending, the newest PROGRESS_MAX
}

/// Progress reports remembered per attempt, by which repeats are recognised: 64 × 8 B.
const PROGRESS_MAX: usize = 64;

/// The start or end of an attempt, waiting to be paired into a transition.
#[derive(Debug, Serialize, Deserialize)]
struct Edge {
    time: Timestamp,
    stage: Arc<str>,
    attempt: u32,
    is_paired: bool,
}

impl Run {
    pub fn new(first: Timestamp) -> Run {
        Run {
            first,
            last_seen: first,
            ended: None,
            stages: BTreeMap::new(),
            listed: None,
            attempts_count: 0,
            starts: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// Adds the fact of a stage event, and derives what it completes.
    pub fn stage(&mut self, event: &StageEvent, derived: &mut Vec<Derived>) -> Outcome {
        let stage = self.stages.entry(event.stage.clone()).or_insert_with(|| StageFacts {
            first: event.time,
            listed: None,
            is_active: false,
            is_waiting: false,
            attempts: BTreeMap::new(),
        });
        if !stage.attempts.contains_key(&event.attempt) {
            if self.attempts_count >= ATTEMPTS_PER_RUN_MAX {
                return Outcome::Refused(Refusal::Cardinality);
            }
            self.attempts_count += 1;
        }
        let attempt = stage.attempts.entry(event.attempt).or_default();
        let outcome = attempt.add(event);
        if outcome != Outcome::Recorded {
            return outcome;
        }
        stage.first = stage.first.min(event.time);
        self.first = self.first.min(event.time);
        attempt.derive(event, derived);
        self.pair(event, derived);
        outcome
    }

    /// Ends the run, once.
    pub fn end(
        &mut self,
        time: Timestamp,
        status: RunStatus,
        pipeline: &Arc<str>,
        derived: &mut Vec<Derived>,
    ) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some((time, status));
        let labels = Labels::of([("outcome", status.name())]);
        let value =
            |name, value| Derived { pipeline: pipeline.clone(), name, labels: labels.clone(), value, time };
        if time >= self.first {
            derived.push(value("run_duration_seconds", (time - self.first).secs_f64()));
        }
        derived.push(value("cards_processed", 1.0));
    }

    /// Makes a transition of the end of a stage and the run's next start, when both are known.
    fn pair(&mut self, event: &StageEvent, derived: &mut Vec<Derived>) {
        let edge = |time| Edge { time, stage: event.stage.clone(), attempt: event.attempt, is_paired: false };
        let found = match event.status {
            StageStatus::Started => {
                self.starts.push(edge(event.time));
                let start = self.starts.len() - 1;
                self.end_before(start).filter(|end| self.start_after(*end) == Some(start)).map(|e| (e, start))
            }
            status if status.is_terminal() && status != StageStatus::Skipped => {
                self.ends.push(edge(event.time));
                let end = self.ends.len() - 1;
                self.start_after(end).filter(|start| self.end_before(*start) == Some(end)).map(|s| (end, s))
            }
            _ => None,
        };
        let Some((end, start)) = found else { return };
        (self.ends[end].is_paired, self.starts[start].is_paired) = (true, true);
        let (end, start) = (&self.ends[end], &self.starts[start]);
        derived.push(Derived {
            pipeline: event.pipeline.clone(),
            name: "stage_transition_seconds",
            labels: Labels::of([("from", &end.stage), ("to", &start.stage)]),
            value: (start.time - end.time).secs_f64(),
            time: start.time,
        });
    }

    /// The latest unpaired end at or before a start; of equal times the later in the log.
    fn end_before(&self, start: usize) -> Option<usize> {
        let start = &self.starts[start];
        let ends = self.ends.iter().enumerate();
        let before = ends.filter(|(_, end)| !end.is_paired && end.time <= start.time && !end.is_of(start));
        before.max_by_key(|(at, end)| (end.time, *at)).map(|(at, _)| at)
    }

    /// The earliest unpaired start at or after an end; of equal times the earlier in the log.
    fn start_after(&self, end: usize) -> Option<usize> {
        let end = &self.ends[end];
        let starts = self.starts.iter().enumerate();
        let after =
            starts.filter(|(_, start)| !start.is_paired && start.time >= end.time && !start.is_of(end));
        after.min_by_key(|(at, start)| (start.time, *at)).map(|(at, _)| at)
    }
}

impl Edge {
    fn is_of(&self, other: &Edge) -> bool {
        self.stage == other.stage && self.attempt == other.attempt
    }
}

impl StageFacts {
    /// When its last attempt that has ended did so.
    pub fn ended(&self) -> Option<Timestamp> {
        self.attempts.values().filter_map(|attempt| attempt.ended).map(|(at, _)| at).max()
    }

    /// Whether some attempt is running, and whether one waits to start.
    pub fn progress(&self) -> (bool, bool) {
        let open = || self.attempts.values().filter(|attempt| attempt.ended.is_none());
        let is_active = open().any(|attempt| attempt.started.is_some() || attempt.queued.is_none());
        (is_active, open().any(|attempt| attempt.started.is_none() && attempt.queued.is_some()))
    }
}

impl Attempt {
    fn add(&mut self, event: &StageEvent) -> Outcome {
        let slot = match event.status {
            StageStatus::Queued => &mut self.queued,
            StageStatus::Started => &mut self.started,
            StageStatus::Progress => return self.add_progress(event.time),
            status => return self.add_end(event.time, status),
        };
        if slot.is_some() {
            return Outcome::Duplicate;
        }
        *slot = Some(event.time);
        Outcome::Recorded
    }

    fn add_end(&mut self, time: Timestamp, status: StageStatus) -> Outcome {
        match self.ended {
            Some((_, ended)) if ended == status => Outcome::Duplicate,
            Some(_) => Outcome::Refused(Refusal::Conflict),
            None => {
                self.ended = Some((time, status));
                Outcome::Recorded
            }
        }
    }

    fn add_progress(&mut self, time: Timestamp) -> Outcome {
        match self.progress.binary_search(&time) {
            Ok(_) => Outcome::Duplicate,
            Err(at) => {
                self.progress.insert(at, time);
                if self.progress.len() > PROGRESS_MAX {
                    self.progress.remove(0);
                }
                Outcome::Recorded
            }
        }
    }

    /// The intervals that the newest fact completes.
    fn derive(&self, event: &StageEvent, derived: &mut Vec<Derived>) {
        let mut interval = |name, labels, from: Timestamp, to: Timestamp| {
            // Clocks of different hosts: an interval that ends before it begins says nothing.
            if to >= from {
                let value = (to - from).secs_f64();
                derived.push(Derived { pipeline: event.pipeline.clone(), name, labels, value, time: to });
            }
        };
        let is_start = event.status == StageStatus::Started;
        if let (Some(queued), Some(started)) = (self.queued, self.started)
            && (is_start || event.status == StageStatus::Queued)
        {
            interval("stage_queue_seconds", Labels::of([("stage", &event.stage)]), queued, started);
        }
        if let (Some(started), Some((ended, status))) = (self.started, self.ended)
            && (is_start || event.status.is_terminal())
        {
            let labels = Labels::of([("stage", &event.stage), ("outcome", status.name())]);
            interval("stage_duration_seconds", labels, started, ended);
        }
    }
}
