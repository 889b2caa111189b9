//! Counters of the conservation law: each received value is recorded, late, late state, duplicate, dropped or
//! refused.

use serde::{Deserialize, Serialize};

/// The reason for which an event is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    BadPayload,
    BadEvent,
    TooLarge,
    TooLate,
    Future,
    Conflict,
    Unit,
    Cardinality,
    WrongPartition,
}

impl Refusal {
    pub const ALL: [Refusal; 9] = [
        Refusal::BadPayload,
        Refusal::BadEvent,
        Refusal::TooLarge,
        Refusal::TooLate,
        Refusal::Future,
        Refusal::Conflict,
        Refusal::Unit,
        Refusal::Cardinality,
        Refusal::WrongPartition,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Refusal::BadPayload => "bad_payload",
            Refusal::BadEvent => "bad_event",
            Refusal::TooLarge => "too_large",
            Refusal::TooLate => "too_late",
            Refusal::Future => "future",
            Refusal::Conflict => "conflict",
            Refusal::Unit => "unit",
            Refusal::Cardinality => "cardinality",
            Refusal::WrongPartition => "wrong_partition",
        }
    }
}

/// The result for one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Recorded,
    /// Merged into windows that were sealed already.
    Late,
    /// A stage or run event that is too late for every window; its run is still updated.
    LateState,
    Duplicate,
    /// Late, and kept out of its windows by `late_policy`.
    Dropped,
    Refused(Refusal),
    /// A conflict: the first event of this stage, attempt and status has other labels.
    OtherLeg,
}

impl Outcome {
    /// The reason of a refusal; `None` for any other outcome.
    pub fn refusal(self) -> Option<Refusal> {
        match self {
            Outcome::Refused(refusal) => Some(refusal),
            Outcome::OtherLeg => Some(Refusal::Conflict),
            _ => None,
        }
    }

    /// The name of the outcome in counters, answers and files.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Recorded => "recorded",
            Outcome::Late => "late",
            Outcome::LateState => "late_state",
            Outcome::Duplicate => "duplicate",
            Outcome::Dropped => "dropped",
            Outcome::Refused(refusal) => refusal.name(),
            Outcome::OtherLeg => Refusal::Conflict.name(),
        }
    }

    /// Advice for the producer, if there is more to state than the reason; empty otherwise.
    pub fn hint(self) -> &'static str {
        match self {
            Outcome::OtherLeg => {
                "an earlier event of this stage, attempt and status has other labels: put the leg of a \
                 matrix into the stage's name, or into `attempt`"
            }
            Outcome::Refused(Refusal::Conflict) => {
                "an earlier event ended the stage or run with another status, which stays"
            }
            Outcome::Refused(Refusal::Cardinality) => {
                "the limit on series, pipelines, stages, runs or attempts is reached: put what differs in \
                 each event into the value or the log, not into a name or label"
            }
            Outcome::Refused(Refusal::Unit) => {
                "the unit has another dimension than the unit of this metric: send one unit, or another name"
            }
            _ => "",
        }
    }
}

/// Totals since the log began; part of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    pub received: u64,
    pub recorded: u64,
    pub late: u64,
    /// Stage and run events that were too late for a window but updated their run.
    pub late_state: u64,
    pub duplicate: u64,
    pub dropped: u64,
    refused: [u64; Refusal::ALL.len()],
    /// Values whose magnitude exceeded the range of a histogram and was saturated.
    pub overflow: u64,
    /// Derived values that were not recorded, as a rule because they were too late for their windows.
    pub derived_dropped: u64,
    pub runs_abandoned: u64,
    pub series_forgotten: u64,
    pub interruptions: u64,
    /// (rule, key) pairs evaluated.
    pub evaluations: u64,
    pub transitions: u64,
    /// New alerts that were not opened because their rule had too many.
    pub alerts_capped: u64,
    /// Gaps in the log, and the records lost in them.
    pub gaps: u64,
    pub records_lost: u64,
    /// In the aggregate partition: messages received again, and partials that no rule there reads.
    pub partials_repeated: u64,
    pub partials_unread: u64,
    /// In the aggregate partition: messages that were lost, and advances of log time that did not wait for a
    /// late partition.
    pub partials_missing: u64,
    pub partials_overdue: u64,
}

impl Counters {
    pub fn refused_for(&self, reason: Refusal) -> u64 {
        self.refused[reason as usize]
    }

    /// Counts `values` values with one outcome.
    #[inline]
    pub fn count(&mut self, outcome: Outcome, values: u64) {
        self.received += values;
        match outcome {
            Outcome::Recorded => self.recorded += values,
            Outcome::Late => self.late += values,
            Outcome::LateState => self.late_state += values,
            Outcome::Duplicate => self.duplicate += values,
            Outcome::Dropped => self.dropped += values,
            Outcome::Refused(reason) => self.refused[reason as usize] += values,
            Outcome::OtherLeg => self.refused[Refusal::Conflict as usize] += values,
        }
    }

    /// Counts events that could not be decoded.
    pub fn refuse(&mut self, bad: &[Refusal]) {
        bad.iter().for_each(|reason| self.count(Outcome::Refused(*reason), 1));
    }

    /// Counts a gap in the log, from its first to its last record.
    pub fn lose(&mut self, from: u64, to: u64) {
        self.gaps += 1;
        self.records_lost = self.records_lost.saturating_add(records_between(from, to));
    }

    /// The number of refusals for each reason, including reasons without any.
    pub fn refused(&self) -> impl Iterator<Item = (Refusal, u64)> + '_ {
        Refusal::ALL.into_iter().map(|reason| (reason, self.refused[reason as usize]))
    }

    pub fn refused_total(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// Adds the counters of another log.
    pub fn add(&mut self, other: &Counters) {
        let Counters { refused, .. } = other;
        self.refused.iter_mut().zip(refused).for_each(|(sum, more)| *sum += more);
        let sums = [
            (&mut self.received, other.received),
            (&mut self.recorded, other.recorded),
            (&mut self.late, other.late),
            (&mut self.late_state, other.late_state),
            (&mut self.duplicate, other.duplicate),
            (&mut self.dropped, other.dropped),
            (&mut self.overflow, other.overflow),
            (&mut self.derived_dropped, other.derived_dropped),
            (&mut self.runs_abandoned, other.runs_abandoned),
            (&mut self.series_forgotten, other.series_forgotten),
            (&mut self.interruptions, other.interruptions),
            (&mut self.evaluations, other.evaluations),
            (&mut self.transitions, other.transitions),
            (&mut self.alerts_capped, other.alerts_capped),
            (&mut self.gaps, other.gaps),
            (&mut self.records_lost, other.records_lost),
            (&mut self.partials_repeated, other.partials_repeated),
            (&mut self.partials_unread, other.partials_unread),
            (&mut self.partials_missing, other.partials_missing),
            (&mut self.partials_overdue, other.partials_overdue),
        ];
        sums.into_iter().for_each(|(sum, more)| *sum = sum.saturating_add(more));
    }

    /// Whether the conservation law holds.
    pub fn is_conserved(&self) -> bool {
        let rest = self.late + self.late_state + self.duplicate + self.dropped + self.refused_total();
        self.received == self.recorded + rest
    }
}

/// The number of records in a gap. It saturates, because the stated bounds may be any numbers.
pub fn records_between(from: u64, to: u64) -> u64 {
    to.saturating_sub(from).saturating_add(1)
}

/// The counters in the shape of snapshots of version 19.
#[derive(Debug, Deserialize)]
pub struct CountersV19 {
    received: u64,
    recorded: u64,
    late: u64,
    duplicate: u64,
    dropped: u64,
    refused: [u64; Refusal::ALL.len()],
    overflow: u64,
    derived_dropped: u64,
    runs_abandoned: u64,
    series_forgotten: u64,
    interruptions: u64,
    evaluations: u64,
    transitions: u64,
    alerts_capped: u64,
    gaps: u64,
    records_lost: u64,
    partials_repeated: u64,
    partials_unread: u64,
    partials_missing: u64,
    partials_overdue: u64,
}

impl From<CountersV19> for Counters {
    fn from(old: CountersV19) -> Counters {
        Counters {
            late_state: 0,
            received: old.received,
            recorded: old.recorded,
            late: old.late,
            duplicate: old.duplicate,
            dropped: old.dropped,
            refused: old.refused,
            overflow: old.overflow,
            derived_dropped: old.derived_dropped,
            runs_abandoned: old.runs_abandoned,
            series_forgotten: old.series_forgotten,
            interruptions: old.interruptions,
            evaluations: old.evaluations,
            transitions: old.transitions,
            alerts_capped: old.alerts_capped,
            gaps: old.gaps,
            records_lost: old.records_lost,
            partials_repeated: old.partials_repeated,
            partials_unread: old.partials_unread,
            partials_missing: old.partials_missing,
            partials_overdue: old.partials_overdue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_may_have_any_size() {
        let mut counters = Counters::default();
        counters.lose(3, 5);
        assert_eq!((counters.gaps, counters.records_lost), (1, 3));
        counters.lose(0, u64::MAX);
        counters.lose(0, u64::MAX);
        counters.add(&counters.clone());
        assert_eq!(counters.records_lost, u64::MAX);
    }
}
