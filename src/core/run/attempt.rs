//! One attempt of a stage: when it was queued, started and ended.
//!
//! Intuition: a matrix build runs one stage in parallel legs, for example one per operating system. If the
//! legs share stage and attempt, only their labels differ. An interval from the start of one leg to the end of
//! another means nothing, so only the first leg is kept.
//! Invariant: the first event of a status stays, a repeat changes nothing, and the same facts in another order
//! give the same intervals.

use super::super::event::{StageEvent, StageStatus};
use super::Derived;
use crate::core::vocab::counters::{Outcome, Refusal};
use crate::core::vocab::identity::Labels;
use crate::core::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Attempt {
    queued: Option<Fact>,
    started: Option<Fact>,
    ended: Option<(Fact, StageStatus)>,
    progress: Vec<Timestamp>, // ascending, the newest PROGRESS_MAX
    /// Whether events of another leg arrived, too.
    is_mixed: bool,
}

/// Progress times kept per attempt to recognise repeats: 64 × 8 B.
const PROGRESS_MAX: usize = 64;

/// The time of a status, and the matrix leg that reported it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Fact {
    time: Timestamp,
    /// Digest of the labels of the event that reported the status; `None` if an event of another status
    /// stated the time.
    leg: Option<u64>,
}

/// The facts that an event added.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Added {
    pub queued: bool,
    pub started: bool,
    pub ended: bool,
}

impl Attempt {
    /// Restores an attempt whose legs are not known.
    pub(super) fn restored(
        queued: Option<Timestamp>,
        started: Option<Timestamp>,
        ended: Option<(Timestamp, StageStatus)>,
        progress: Vec<Timestamp>,
    ) -> Attempt {
        let fact = |time| Fact { time, leg: None };
        Attempt {
            queued: queued.map(fact),
            started: started.map(fact),
            ended: ended.map(|(time, status)| (fact(time), status)),
            progress,
            is_mixed: false,
        }
    }

    /// Adds the facts of an event; returns the outcome as an error if the event adds nothing.
    pub(super) fn add(&mut self, event: &StageEvent) -> Result<Added, Outcome> {
        let leg = leg_of(&event.labels);
        if event.status == StageStatus::Progress {
            self.add_progress(event.time)?;
        } else if let Some((first, status)) = self.first(event.status) {
            return Err(self.repeated(first, status == event.status, leg));
        } else if self.is_mixed && !self.has_leg(leg) {
            return Err(Outcome::OtherLeg);
        }
        Ok(self.fill(event, leg))
    }

    /// Returns the fact that an event of this status would repeat, and the status of that fact.
    fn first(&self, status: StageStatus) -> Option<(Fact, StageStatus)> {
        match status {
            StageStatus::Queued => self.queued.map(|fact| (fact, status)),
            StageStatus::Started => self.started.map(|fact| (fact, status)),
            StageStatus::Progress => None,
            _ => self.ended,
        }
    }

    fn repeated(&mut self, first: Fact, is_same: bool, leg: u64) -> Outcome {
        if first.leg.is_some_and(|known| known != leg) {
            self.is_mixed = true;
            return Outcome::OtherLeg;
        }
        if is_same { Outcome::Duplicate } else { Outcome::Refused(Refusal::Conflict) }
    }

    fn has_leg(&self, leg: u64) -> bool {
        let ended = self.ended.map(|(fact, _)| fact);
        [self.queued, self.started, ended].into_iter().flatten().any(|fact| fact.leg == Some(leg))
    }

    fn fill(&mut self, event: &StageEvent, leg: u64) -> Added {
        let fact = |time, status| Fact { time, leg: (event.status == status).then_some(leg) };
        let mut added = Added::default();
        if let (None, Some(time)) = (self.queued, event.queued()) {
            (self.queued, added.queued) = (Some(fact(time, StageStatus::Queued)), true);
        }
        if let (None, Some(time)) = (self.started, event.started()) {
            (self.started, added.started) = (Some(fact(time, StageStatus::Started)), true);
        }
        if let (None, Some(time)) = (self.ended, event.ended()) {
            (self.ended, added.ended) = (Some((fact(time, event.status), event.status)), true);
        }
        added
    }

    fn add_progress(&mut self, time: Timestamp) -> Result<(), Outcome> {
        let Err(at) = self.progress.binary_search(&time) else { return Err(Outcome::Duplicate) };
        self.progress.insert(at, time);
        if self.progress.len() > PROGRESS_MAX {
            self.progress.remove(0);
        }
        Ok(())
    }

    /// Returns when the attempt started.
    pub(super) fn started(&self) -> Option<Timestamp> {
        self.started.map(|fact| fact.time)
    }

    /// Returns when the attempt ended.
    pub(super) fn ended(&self) -> Option<Timestamp> {
        self.ended.map(|(fact, _)| fact.time)
    }

    /// Returns whether the attempt is known to have been queued.
    pub(super) fn is_queued(&self) -> bool {
        self.queued.is_some()
    }

    /// Derives the intervals that the added facts complete.
    pub(super) fn derive(&self, event: &StageEvent, added: Added, derived: &mut Vec<Derived>) {
        let mut interval = |name, labels, from: Timestamp, to: Timestamp| {
            // Hosts have different clocks: an interval that ends before it begins carries no information.
            if to >= from {
                let value = (to - from).secs_f64();
                derived.push(Derived { pipeline: event.pipeline.clone(), name, labels, value, time: to });
            }
        };
        if let (Some(queued), Some(started)) = (self.queued, self.started)
            && (added.queued || added.started)
        {
            let labels = Labels::of([("stage", &event.stage)]);
            interval("stage_queue_seconds", labels, queued.time, started.time);
        }
        if let (Some(started), Some((ended, status))) = (self.started, self.ended)
            && (added.started || added.ended)
        {
            let labels = Labels::of([("stage", &event.stage), ("outcome", status.name())]);
            interval("stage_duration_seconds", labels, started.time, ended.time);
        }
    }
}

/// Returns a digest that tells the legs of a matrix apart. Labels are serialised in order, so equal labels
/// have equal digests.
fn leg_of(labels: &Labels) -> u64 {
    if labels.is_empty() {
        return 0;
    }
    // Strings and arrays of strings always serialise.
    xxhash_rust::xxh3::xxh3_64(serde_json::to_string(labels).unwrap_or_default().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::tests::stage;
    use super::*;

    /// An event of one leg of a matrix over operating systems.
    fn of(os: &str, status: StageStatus, secs: i64) -> StageEvent {
        StageEvent { labels: Labels::of([("os", os)]), ..stage("r", "test", status, secs) }
    }

    #[test]
    fn legs_of_a_matrix_are_not_measured_against_each_other() {
        use StageStatus::*;
        let (mut attempt, mut derived) = (Attempt::default(), Vec::new());
        let mut send = |event: StageEvent| -> Result<Outcome, Outcome> {
            let added = attempt.add(&event)?;
            attempt.derive(&event, added, &mut derived);
            Ok(Outcome::Recorded)
        };
        assert_eq!(send(of("linux", Started, 0)), Ok(Outcome::Recorded));
        assert_eq!(send(of("linux", Started, 0)), Err(Outcome::Duplicate));
        assert_eq!(send(of("mac", Started, 1)), Err(Outcome::OtherLeg));
        assert_eq!(send(of("mac", Succeeded, 8)), Err(Outcome::OtherLeg), "it did not start here");
        assert_eq!(send(of("linux", Succeeded, 10)), Ok(Outcome::Recorded));
        assert_eq!(send(of("linux", Succeeded, 11)), Err(Outcome::Duplicate));
        assert_eq!(send(of("linux", Failed, 12)), Err(Outcome::Refused(Refusal::Conflict)));
        assert_eq!(derived.iter().map(|one| one.value).collect::<Vec<_>>(), [10.0]);
        assert_eq!(Outcome::OtherLeg.refusal(), Some(Refusal::Conflict));
        assert!(Outcome::OtherLeg.hint().contains("`attempt`"));
    }

    #[test]
    fn labels_may_come_with_any_status_of_one_leg() {
        use StageStatus::*;
        let mut attempt = Attempt::default();
        for event in [stage("r", "test", Queued, 0), of("linux", Started, 1), stage("r", "test", Failed, 2)] {
            assert!(attempt.add(&event).is_ok(), "{event:?}");
        }
    }
}
