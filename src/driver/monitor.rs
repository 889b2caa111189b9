//! Alerts about the operation of a partition, such as its lag, fencing, repeated publication, late events or
//! its stop.
//!
//! Intuition: these alerts do not follow from the log, so a replay would not produce them. They therefore use no
//! numbers of the partition's transitions, but have numbers of their own on the transition log. Invariant: the next
//! owner of the partition reads the newest alert of each rule and continues from there, so each published alert gets
//! its end. Rejected: control records (a partition that lags would report its lag only after it has caught up), and
//! numbers of the partition's transitions (a replay would assign other numbers).

use super::metrics::OwnerMetrics;
use super::outage::{LOG, STORE};
use super::port_error::chain;
use super::ports::{Clock, OutOfBandAlert, OutOfBandAlerts, PortError};
use crate::core::alert::self_alerts::SelfAlert;
use crate::core::alert::transition::{State, Transition};
use crate::core::refusals::Silenced;
use crate::core::vocab::key::Key;
use crate::core::vocab::partition::Partition;
use crate::core::vocab::severity::Severity;
use crate::core::{Engine, Span, Timestamp};
use crate::wire::alert;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Time between two observations.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Number of observations kept. Counters are compared over this period: 60 × 10 s = ten minutes.
const LOOKS_KEPT: usize = 60;

/// Maximum tolerated lag. A larger lag in `LAG_LOOKS` observations in a row (one minute) shows that the partition
/// does not catch up by itself.
const LAG_MAX: Span = Span::from_secs(60);
const LAG_LOOKS: usize = 6;

/// Fenced commits within ten minutes from which on an alert fires. A single one means that the worker was paused;
/// three mean that workers compete for the partition.
const FENCED_MAX: u64 = 3;

/// Transitions published again within ten minutes from which on an alert fires. The outbox that is published again
/// after one crash holds fewer.
const REPEATED_MAX: u64 = 1_000;

/// An alert fires if both the number of late events within ten minutes and their percentage of all events reach these
/// limits.
const LATE_MAX: u64 = 1_000;
const LATE_PERCENT_MAX: u64 = 20;

/// Rule that fires if the log of the partition is not the one that was read before.
const REWIND: &str = "_sg_rewind";

/// All rules of the monitor.
pub(crate) const RULES: [&str; 9] = [
    REWIND,
    "_sg_lag",
    "_sg_fenced",
    "_sg_repeated",
    "_sg_late",
    "_sg_clock",
    "_sg_unwritten",
    "_sg_snapshot",
    "_sg_refused",
];

/// Maximum tolerated lead of the log's clock over this machine's clock. Correctly set clocks of two machines differ
/// by less.
const AHEAD_MAX: Span = Span::from_mins(5);

/// Maximum tolerated age of the newest snapshot. Snapshots are normally written about every ten seconds. A restart
/// applies all records since the snapshot again, so an older snapshot means a longer restart.
const SNAPSHOT_AGE_MAX: Span = Span::from_mins(15);

/// Minimum refused events of a source, and minimum time between the first and the last, for an alert.
const SILENCED_MIN: u64 = 20;
const SILENCED_FOR: Span = Span::from_secs(60);

/// One observation. Counters are totals since the process began.
#[derive(Debug, Clone, Default)]
pub(super) struct PartitionStatus {
    pub(super) lag: Span,
    pub(super) fenced: u64,
    pub(super) repeated: u64,
    pub(super) late: u64,
    pub(super) received: u64,
    /// Lead of the log's clock over this machine's clock.
    pub(super) ahead: Span,
    /// The error of the log or the store, while it cannot be written.
    pub(super) unwritten: Option<String>,
    /// Age of the newest snapshot.
    pub(super) snapshot_age: Span,
    /// Sources whose events are all refused.
    pub(super) silenced: Vec<Silenced>,
}

impl PartitionStatus {
    /// Returns what the process itself observes: the clock, outages and refused sources.
    pub(super) fn around(owner_metrics: &OwnerMetrics, now: Timestamp, engine: &Engine) -> PartitionStatus {
        let written = [LOG, STORE];
        let unwritten = owner_metrics.outages.all().into_iter().find(|outage| written.contains(&outage.what));
        PartitionStatus {
            ahead: (engine.now() - now).max(Span::ZERO),
            unwritten: unwritten.map(|outage| format!("{}: {}", outage.place, outage.error)),
            silenced: engine.silenced_sources((SILENCED_MIN, SILENCED_FOR)),
            ..PartitionStatus::default()
        }
    }
}

/// The monitor of one partition: its newest observations, and the newest alert of each rule with its number.
#[derive(Debug)]
pub(super) struct PartitionMonitor {
    partition: Partition,
    seen: VecDeque<PartitionStatus>,
    told: BTreeMap<&'static str, (u64, Transition)>,
    due: Duration,
}

impl PartitionMonitor {
    /// Continues from the alerts that an earlier owner published.
    pub(super) fn begin(
        transition_log: &mut (impl OutOfBandAlerts + ?Sized),
        partition: Partition,
    ) -> Result<PartitionMonitor, PortError> {
        let mut told = BTreeMap::new();
        for rule in RULES {
            let newest = transition_log.newest_out_of_band(rule)?;
            let newest = newest.and_then(|(n, json)| Some((n, serde_json::from_str(&json).ok()?)));
            told.extend(newest.map(|newest| (rule, newest)));
        }
        Ok(PartitionMonitor { partition, seen: VecDeque::new(), told, due: Duration::ZERO })
    }

    pub(super) fn is_due(&mut self, running: Duration) -> bool {
        let is_due = running >= self.due;
        if is_due {
            self.due = running + LOOK_EVERY;
        }
        is_due
    }

    /// Publishes the alerts that have begun or ended since the last observation.
    pub(super) fn look(
        &mut self,
        seen: PartitionStatus,
        transition_log: &mut (impl OutOfBandAlerts + ?Sized),
        at: Timestamp,
    ) {
        self.seen.push_back(seen);
        while self.seen.len() > LOOKS_KEPT {
            self.seen.pop_front();
        }
        for rule in RULES {
            let active = self.told.get(rule).filter(|(_, told)| told.is_active());
            let next = match (self.judge(rule), active) {
                (Some(said), None) => Some(said.transition(State::Firing, 0, at, at)),
                (None, Some((_, told))) => Some(told.clone().over(ended(rule), at)),
                _ => None,
            };
            if let Some(next) = next {
                self.tell(rule, next, transition_log);
            }
        }
    }

    /// Returns the active alerts, one line each: rule and summary.
    pub(super) fn remarks(&self) -> Vec<String> {
        let active = self.told.iter().filter(|(_, (_, told))| told.is_active());
        active.map(|(rule, (_, told))| format!("{rule}: {}", told.summary)).collect()
    }

    /// Publishes the alert that the partition has stopped and needs an operator, unless this alert is already active.
    pub(super) fn stop(
        transition_log: &mut (impl OutOfBandAlerts + ?Sized),
        partition: Partition,
        error: &PortError,
        clock: &impl Clock,
    ) {
        let Ok(mut monitor) = PartitionMonitor::begin(transition_log, partition) else { return };
        if monitor.told.get(REWIND).is_some_and(|(_, told)| told.is_active()) {
            return;
        }
        let text = chain(error);
        let summary = format!("partition {partition} has stopped: {text}");
        let what = ("logs that do not match the checkpoint", 1.0);
        let said = monitor.said(REWIND, Severity::Critical, what, "> 0");
        let said = SelfAlert { reason: text, summary, ..said };
        let at = clock.now();
        monitor.tell(REWIND, said.transition(State::Firing, 0, at, at), transition_log);
    }

    /// Publishes an alert and remembers it only if the transition log has stored it. Otherwise the next observation
    /// publishes it.
    fn tell(
        &mut self,
        rule: &'static str,
        transition: Transition,
        transition_log: &mut (impl OutOfBandAlerts + ?Sized),
    ) {
        let number = self.told.get(rule).map_or(0, |(number, _)| *number) + 1;
        let json = alert::line(&transition);
        match transition_log.put_out_of_band(&OutOfBandAlert {
            rule,
            severity: transition.severity,
            number,
            json,
        }) {
            Ok(()) => {
                let (state, reason) = (transition.state.name(), &transition.reason);
                tracing::warn!(rule, state, %reason, "an alert about the partition is published");
                self.told.insert(rule, (number, transition));
            }
            Err(error) => {
                tracing::warn!(rule, error = %chain(&error), "cannot publish an alert about the partition");
            }
        }
    }

    /// Returns the alert of a rule if its condition holds.
    fn judge(&self, rule: &'static str) -> Option<SelfAlert> {
        match rule {
            "_sg_lag" => self.lag(),
            "_sg_fenced" => {
                let times = self.since(|seen| seen.fenced);
                (times >= FENCED_MAX).then(|| {
                    self.counted(
                        rule,
                        times,
                        FENCED_MAX,
                        "commits refused because this worker's fencing token was stale",
                    )
                })
            }
            "_sg_repeated" => {
                let times = self.since(|seen| seen.repeated);
                (times >= REPEATED_MAX)
                    .then(|| self.counted(rule, times, REPEATED_MAX, "transitions published again"))
            }
            "_sg_late" => {
                let (late, received) = (self.since(|seen| seen.late), self.since(|seen| seen.received));
                let is_much = late >= LATE_MAX && late * 100 >= received * LATE_PERCENT_MAX;
                is_much.then(|| self.counted(rule, late, LATE_MAX, "events that came late or too late"))
            }
            _ => self.seen.back().and_then(|seen| self.of_state(rule, seen)),
        }
    }

    /// Evaluates a rule about the current state on the newest observation. The alert lasts as long as the state.
    fn of_state(&self, rule: &'static str, seen: &PartitionStatus) -> Option<SelfAlert> {
        match rule {
            "_sg_clock" if seen.ahead > AHEAD_MAX => {
                let reason = format!("the log's clock is {} ahead of this machine's", seen.ahead);
                let what = ("seconds ahead of the clock", seen.ahead.secs_f64());
                Some(self.state(rule, what, "> 300 s", reason))
            }
            "_sg_unwritten" => {
                let why = seen.unwritten.as_ref()?;
                let reason = format!("the process cannot write to {why}");
                Some(self.state(rule, ("outages of the disk", 1.0), "> 0", reason))
            }
            "_sg_snapshot" if seen.snapshot_age > SNAPSHOT_AGE_MAX => {
                let reason =
                    format!("the newest snapshot is {} old, and a restart takes as long", seen.snapshot_age);
                let what = ("seconds since the snapshot", seen.snapshot_age.secs_f64());
                Some(self.state(rule, what, "> 900 s", reason))
            }
            "_sg_refused" => {
                let Silenced { source, count, since, reason } = seen.silenced.first()?;
                let others = match seen.silenced.len() - 1 {
                    0 => String::new(),
                    more => format!(", and of {more} more sources"),
                };
                let said = format!(
                    "every event of source {source}{others} has been refused since {since}: {count} as {}",
                    reason.name()
                );
                Some(self.state(rule, ("sources", seen.silenced.len() as f64), "> 0", said))
            }
            _ => None,
        }
    }

    fn state(&self, rule: &str, what: (&str, f64), threshold: &str, reason: String) -> SelfAlert {
        let said = self.said(rule, Severity::Warning, what, threshold);
        let summary = format!("partition {}: {reason}", self.partition);
        SelfAlert { reason, summary, ..said }
    }

    fn lag(&self) -> Option<SelfAlert> {
        let newest = self.seen.iter().rev().take(LAG_LOOKS);
        let least = newest.map(|seen| seen.lag).min().filter(|_| self.seen.len() >= LAG_LOOKS)?;
        if least <= LAG_MAX {
            return None;
        }
        let said =
            self.said("_sg_lag", Severity::Warning, ("seconds behind the log", least.secs_f64()), "> 60 s");
        let partition = self.partition;
        Some(SelfAlert {
            reason: format!("the newest record applied was {least} old or older for a minute"),
            summary: format!("partition {partition} is {least} behind its log: windows and alerts are late"),
            ..said
        })
    }

    fn counted(&self, rule: &'static str, times: u64, limit: u64, what: &str) -> SelfAlert {
        let threshold = format!(">= {limit}");
        let said = self.said(rule, Severity::Warning, (what, times as f64), &threshold);
        let partition = self.partition;
        SelfAlert {
            reason: format!("{times} {what} within ten minutes"),
            summary: format!("partition {partition}: {times} {what} within ten minutes"),
            ..said
        }
    }

    fn said(
        &self,
        rule: &str,
        severity: Severity,
        (input, value): (&str, f64),
        threshold: &str,
    ) -> SelfAlert {
        SelfAlert {
            rule: rule.into(),
            severity,
            key: Key::new(vec![("partition".into(), self.partition.to_string().into())]),
            input: input.into(),
            value,
            threshold: threshold.into(),
            reason: String::new(),
            summary: String::new(),
        }
    }

    /// Returns how much a counter has grown from the oldest to the newest observation that is kept.
    fn since(&self, total: impl Fn(&PartitionStatus) -> u64) -> u64 {
        let ends = self.seen.front().zip(self.seen.back());
        ends.map_or(0, |(first, last)| total(last).saturating_sub(total(first)))
    }
}

/// Returns the reason for which an alert of a rule has ended.
fn ended(rule: &str) -> String {
    match rule {
        "_sg_lag" => "the partition has caught up with its log".into(),
        "_sg_fenced" => format!("fewer than {FENCED_MAX} commits were refused within ten minutes"),
        "_sg_repeated" => {
            format!("fewer than {REPEATED_MAX} transitions were published again within ten minutes")
        }
        "_sg_late" => "few events came late within ten minutes".into(),
        "_sg_clock" => "the log's clock is at most 300 s ahead of this machine's".into(),
        "_sg_unwritten" => "the disk takes writes again".into(),
        "_sg_snapshot" => "the worker writes snapshots again".into(),
        "_sg_refused" => "events of the source are accepted again, or the source sends none".into(),
        _ => "the worker reads the log of the partition again".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vocab::counters::Refusal;

    /// A transition log that stores the alerts of the monitor.
    #[derive(Default)]
    struct Wall(Vec<OutOfBandAlert>);

    impl OutOfBandAlerts for Wall {
        fn newest_out_of_band(&mut self, rule: &str) -> Result<Option<(u64, String)>, PortError> {
            let newest = self.0.iter().rev().find(|aside| aside.rule == rule);
            Ok(newest.map(|aside| (aside.number, aside.json.clone())))
        }

        fn put_out_of_band(&mut self, aside: &OutOfBandAlert) -> Result<(), PortError> {
            self.0.push(aside.clone());
            Ok(())
        }
    }

    fn states(wall: &Wall) -> Vec<(&str, u64, String)> {
        let state = |aside: &OutOfBandAlert| {
            let told: Transition = serde_json::from_str(&aside.json).expect("an alert");
            (aside.rule, aside.number, format!("{:?} {}", told.state, told.seq))
        };
        wall.0.iter().map(state).collect()
    }

    #[test]
    fn a_lag_that_lasts_is_told_once_and_its_end_by_whoever_owns_next() {
        let (mut wall, at) = (Wall::default(), Timestamp::clamped(1_793_491_200_000));
        let mut monitor = PartitionMonitor::begin(&mut wall, Partition::default()).expect("a transition log");
        let behind = |secs| PartitionStatus { lag: Span::from_secs(secs), ..PartitionStatus::default() };
        for secs in [70, 80, 90, 20, 61, 70, 80, 90, 90] {
            monitor.look(behind(secs), &mut wall, at);
        }
        assert!(wall.0.is_empty(), "it caught up in between");
        monitor.look(behind(95), &mut wall, at);
        monitor.look(behind(95), &mut wall, at);
        assert_eq!(states(&wall), [("_sg_lag", 1, "Firing 0".into())]);
        let mut next = PartitionMonitor::begin(&mut wall, Partition::default()).expect("a transition log");
        next.look(behind(1), &mut wall, at + Span::from_secs(60));
        next.look(behind(1), &mut wall, at + Span::from_secs(70));
        assert_eq!(states(&wall)[1..], [("_sg_lag", 2, "Resolved 1".into())]);
        let end: Transition = serde_json::from_str(&wall.0[1].json).expect("an alert");
        assert_eq!((end.reason.as_str(), end.value), ("the partition has caught up with its log", None));
        assert_eq!(end.judged(), "no longer > 60 s");
    }

    #[test]
    fn what_happens_once_is_no_news_and_what_happens_again_and_again_is() {
        let (mut wall, at) = (Wall::default(), Timestamp::clamped(0));
        let mut monitor = PartitionMonitor::begin(&mut wall, Partition::default()).expect("a transition log");
        for total in [0, 1, 2] {
            let seen = PartitionStatus {
                fenced: total,
                repeated: total * 400,
                late: total,
                ..PartitionStatus::default()
            };
            monitor.look(seen, &mut wall, at);
        }
        assert!(wall.0.is_empty());
        let seen = PartitionStatus {
            fenced: 3,
            repeated: 1_000,
            late: 1_000,
            received: 5_001,
            ..PartitionStatus::default()
        };
        monitor.look(seen.clone(), &mut wall, at);
        let rules: Vec<&str> = wall.0.iter().map(|aside| aside.rule).collect();
        assert_eq!(rules, ["_sg_fenced", "_sg_repeated"]);
        for _ in 0..LOOKS_KEPT {
            monitor.look(seen.clone(), &mut wall, at);
        }
        assert_eq!(wall.0.len(), 4, "ten quiet minutes end both");
    }

    #[test]
    fn a_state_that_lasts_is_told_and_ends_when_it_does() {
        let (mut wall, at) = (Wall::default(), Timestamp::clamped(1_793_491_200_000));
        let mut monitor = PartitionMonitor::begin(&mut wall, Partition::default()).expect("a transition log");
        let silenced = Silenced { source: "shop".into(), count: 500, since: at, reason: Refusal::TooLate };
        let bad = PartitionStatus {
            ahead: Span::from_hours(2),
            unwritten: Some("no space left".into()),
            snapshot_age: Span::from_hours(1),
            silenced: vec![silenced],
            ..PartitionStatus::default()
        };
        monitor.look(bad.clone(), &mut wall, at);
        monitor.look(bad, &mut wall, at);
        let rules: Vec<&str> = wall.0.iter().map(|aside| aside.rule).collect();
        assert_eq!(rules, ["_sg_clock", "_sg_unwritten", "_sg_snapshot", "_sg_refused"]);
        assert!(wall.0.iter().all(|aside| !aside.json.contains("{:?}")) && wall.0[3].json.contains("shop"));
        monitor.look(PartitionStatus::default(), &mut wall, at + Span::from_secs(10));
        let ended = wall.0[4..].iter().filter(|aside| aside.json.contains("\"state\":\"resolved\""));
        assert_eq!(ended.count(), 4);
    }
}
