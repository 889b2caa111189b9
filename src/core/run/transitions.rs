//! Stage transitions: the time from the end of a stage to the start of the run's next stage.
//!
//! Intuition: an end and a start belong together when each is the nearest to the other. Pairs are formed once
//! for all events of the same instant of log time, in the order of the events' own times.
//! Invariant: each end and each start is paired at most once; no pair spans events of the run that are known
//! to be missing.

use super::Derived;
use crate::core::vocab::identity::Labels;
use crate::core::vocab::limits::ATTEMPTS_PER_RUN_MAX;
use crate::core::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The starts and ends of a run's attempts.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Transitions {
    starts: Vec<Edge>, // at most ATTEMPTS_PER_RUN_MAX, as ends
    ends: Vec<Edge>,
    /// The numbers of starts and of ends that [`Self::settle`] has examined.
    settled: (usize, usize),
    /// Whether a start or an end was refused. Nothing is paired from then on, because the refused edge may be
    /// the nearest one.
    is_torn: bool,
}

/// The start or end of an attempt, waiting to be paired.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Edge {
    time: Timestamp,
    stage: Arc<str>,
    attempt: u32,
    is_paired: bool,
}

impl Edge {
    fn is_of(&self, other: &Edge) -> bool {
        self.stage == other.stage && self.attempt == other.attempt
    }
}

/// The list that an edge is in, and its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    End(usize),
    Start(usize),
}

impl Transitions {
    /// Restores the edges of a snapshot; all of them count as examined.
    pub(super) fn restored(starts: Vec<Edge>, ends: Vec<Edge>) -> Transitions {
        Transitions { settled: (starts.len(), ends.len()), starts, ends, is_torn: false }
    }

    pub(super) fn start(&mut self, stage: &Arc<str>, attempt: u32, time: Timestamp) {
        push(&mut self.starts, stage, attempt, time);
    }

    pub(super) fn end(&mut self, stage: &Arc<str>, attempt: u32, time: Timestamp) {
        push(&mut self.ends, stage, attempt, time);
    }

    /// Stops pairing for good, because a start or an end was refused.
    pub(super) fn tear(&mut self) {
        self.is_torn = true;
    }

    /// Excludes all ends so far from pairing, because the start that followed one of them may be among lost
    /// records.
    pub(super) fn lose(&mut self) {
        self.ends.iter_mut().for_each(|end| end.is_paired = true);
    }

    /// Pairs the edges that arrived since the last call.
    pub(super) fn settle(&mut self, pipeline: &Arc<str>, derived: &mut Vec<Derived>) {
        let (starts, ends) = std::mem::replace(&mut self.settled, (self.starts.len(), self.ends.len()));
        if self.is_torn {
            return;
        }
        let ends = (ends..self.ends.len()).map(|end| (self.ends[end].time, At::End(end)));
        let starts = (starts..self.starts.len()).map(|start| (self.starts[start].time, At::Start(start)));
        let mut fresh: Vec<(Timestamp, At)> = ends.chain(starts).collect();
        fresh.sort_unstable();
        for (_, at) in fresh {
            if let Some((end, start)) = self.partner(at) {
                derived.push(self.pair(end, start, pipeline));
            }
        }
    }

    /// Returns the pair of an unpaired edge and its nearest counterpart, if each is the nearest to the other.
    fn partner(&self, at: At) -> Option<(usize, usize)> {
        match at {
            At::End(end) if self.ends[end].is_paired => None,
            At::Start(start) if self.starts[start].is_paired => None,
            At::End(end) => {
                let start = self.start_after(end)?;
                (self.end_before(start) == Some(end)).then_some((end, start))
            }
            At::Start(start) => {
                let end = self.end_before(start)?;
                (self.start_after(end) == Some(start)).then_some((end, start))
            }
        }
    }

    fn pair(&mut self, end: usize, start: usize, pipeline: &Arc<str>) -> Derived {
        (self.ends[end].is_paired, self.starts[start].is_paired) = (true, true);
        let (end, start) = (&self.ends[end], &self.starts[start]);
        Derived {
            pipeline: pipeline.clone(),
            name: "stage_transition_seconds",
            labels: Labels::of([("from", &end.stage), ("to", &start.stage)]),
            value: (start.time - end.time).secs_f64(),
            time: start.time,
        }
    }

    /// Returns the latest unpaired end at or before a start; of equal times, the one later in the log.
    fn end_before(&self, start: usize) -> Option<usize> {
        let start = &self.starts[start];
        let ends = self.ends.iter().enumerate();
        let before = ends.filter(|(_, end)| !end.is_paired && end.time <= start.time && !end.is_of(start));
        before.max_by_key(|(at, end)| (end.time, *at)).map(|(at, _)| at)
    }

    /// Returns the earliest unpaired start at or after an end; of equal times, the one earlier in the log.
    fn start_after(&self, end: usize) -> Option<usize> {
        let end = &self.ends[end];
        let starts = self.starts.iter().enumerate();
        let after =
            starts.filter(|(_, start)| !start.is_paired && start.time >= end.time && !start.is_of(end));
        after.min_by_key(|(at, start)| (start.time, *at)).map(|(at, _)| at)
    }
}

fn push(edges: &mut Vec<Edge>, stage: &Arc<str>, attempt: u32, time: Timestamp) {
    debug_assert!(edges.len() < ATTEMPTS_PER_RUN_MAX);
    edges.push(Edge { time, stage: stage.clone(), attempt, is_paired: false });
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    /// Goal: neighbours are paired in the order of their times. Method: three stages that arrive at one
    /// instant, the middle one last.
    #[test]
    fn what_comes_together_is_paired_in_the_order_of_its_times() {
        let mut transitions = Transitions::default();
        transitions.end(&"a".into(), 1, at(10));
        transitions.start(&"c".into(), 1, at(22));
        transitions.start(&"b".into(), 1, at(12));
        transitions.end(&"b".into(), 1, at(20));
        let mut derived = Vec::new();
        transitions.settle(&"p".into(), &mut derived);
        let values: Vec<_> = derived.iter().map(|one| (one.value, one.time)).collect();
        assert_eq!(values, [(2.0, at(12)), (2.0, at(22))]);
    }

    #[test]
    fn nothing_is_paired_over_what_is_missing() {
        for lose in [Transitions::tear, Transitions::lose] {
            let (mut transitions, mut derived) = (Transitions::default(), Vec::new());
            transitions.end(&"a".into(), 1, at(10));
            transitions.settle(&"p".into(), &mut derived);
            lose(&mut transitions);
            transitions.start(&"c".into(), 1, at(22));
            transitions.settle(&"p".into(), &mut derived);
            assert!(derived.is_empty(), "{derived:?}");
        }
    }
}
