//! Lateness of events: whether an event is in time for its 1m window, and its outcome if it is not.
//!
//! Intuition: lateness is judged once, on the 1m window, and the result holds for all resolutions. The HTTP
//! interface makes the same judgement when it accepts an event, so that it can report a loss to the producer
//! at once. Invariant: [`Limits::doubt`] predicts a loss from the event and the current log time alone. The
//! engine may judge differently, because log time may have advanced by then.

use super::event::{Event, StageStatus};
use crate::core::measure::window::WindowSize;
use crate::core::vocab::counters::{Outcome, Refusal};
use crate::core::vocab::limits::{Backfill, LatePolicy, Limits};
use crate::core::vocab::time::Timestamp;

/// The arrival of an event, relative to its 1m window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    OnTime,
    Late,
    TooLate,
    Future,
}

/// A predicted loss: because of its time, an event or a value of it will not be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// `Dropped`, `LateState` or a refusal.
    pub outcome: Outcome,
    /// The time that causes the loss.
    pub time: Timestamp,
}

impl Limits {
    /// The arrival at the log time `now` of an event whose 1m window ends at `end`.
    #[inline]
    pub fn arrival(&self, end: Timestamp, now: Timestamp) -> Arrival {
        if now <= end + self.allowed_lateness {
            Arrival::OnTime
        } else if now <= end + self.max_lateness {
            Arrival::Late
        } else {
            Arrival::TooLate
        }
    }

    /// The outcome of an event that is discarded because of its arrival; `None` if the event is accepted.
    #[inline]
    pub fn turned_away(&self, arrival: Arrival) -> Option<Outcome> {
        match arrival {
            Arrival::OnTime => None,
            Arrival::Late if self.late_policy == LatePolicy::Correct => None,
            Arrival::Late => Some(Outcome::Dropped),
            Arrival::TooLate => Some(Outcome::Refused(Refusal::TooLate)),
            Arrival::Future => Some(Outcome::Refused(Refusal::Future)),
        }
    }

    /// Predicts whether an event is lost at the log time `now`. For samples, the first lost value is reported.
    pub fn doubt(&self, event: &Event, now: Timestamp) -> Option<Doubt> {
        match event {
            Event::Samples(samples) => samples.columns.iter().find_map(|(time, _)| self.doubt_of(*time, now)),
            Event::Stage(stage) => {
                // The queueing time is recorded at the start of the stage, the duration at its end.
                let queue = stage.started().filter(|_| stage.queued().is_some());
                let duration = stage.ended().filter(|_| stage.status != StageStatus::Skipped);
                self.doubt_of_state(stage.latest(), [queue, duration], now)
            }
            Event::Run(run) => self.doubt_of_state(run.latest(), [run.ended(), None], now),
            other => self.doubt_of(other.time_max()?, now),
        }
    }

    fn doubt_of(&self, time: Timestamp, now: Timestamp) -> Option<Doubt> {
        let minute = WindowSize::Minute.span();
        let arrival = match time > now + self.max_skew {
            true => Arrival::Future,
            false => self.arrival(time.floor(minute) + minute, now),
        };
        self.turned_away(arrival).map(|outcome| Doubt { outcome, time })
    }

    /// A stage or run event updates its run even if it is late. The values derived from it are recorded at the
    /// times in `valued`. They are lost if the windows of these times accept no more values.
    fn doubt_of_state(
        &self,
        latest: Timestamp,
        valued: [Option<Timestamp>; 2],
        now: Timestamp,
    ) -> Option<Doubt> {
        let is_future = |doubt: &Doubt| doubt.outcome == Outcome::Refused(Refusal::Future);
        let without_window = || {
            let mut lost = valued.into_iter().flatten().filter(|_| self.backfill == Backfill::Never);
            lost.find_map(|time| self.doubt_of(time, now))
                .map(|doubt| Doubt { outcome: Outcome::LateState, ..doubt })
        };
        self.doubt_of(latest, now).filter(is_future).or_else(without_window)
    }
}

impl Doubt {
    /// The predicted outcome as text for the producer.
    pub fn message(&self, now: Timestamp) -> String {
        let Doubt { outcome, time } = self;
        match outcome {
            Outcome::LateState => format!(
                "event time {time} is too late for windows at log time {now}: the run is updated, and its \
                 derived values are not recorded (`limits: {{ backfill: now }}` records them)"
            ),
            Outcome::Dropped => {
                format!("event time {time} is late at log time {now}: `late_policy` drops the event")
            }
            refused => format!("event time {time} is refused as {} at log time {now}", refused.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Span;
    use crate::core::event::{RunEvent, RunStatus, Times};

    const NOW: Timestamp = Timestamp::clamped(1_793_491_200_000);

    fn run(status: RunStatus, time: Timestamp) -> Event {
        let times =
            Times { queued_at: None, started_at: Some(time - Span::from_hours(1)), finished_at: None };
        Event::Run(Box::new(RunEvent {
            time,
            pipeline: "p".into(),
            run: "1".into(),
            status,
            times,
            id: None,
        }))
    }

    fn doubt(limits: &Limits, event: &Event) -> Option<&'static str> {
        limits.doubt(event, NOW).map(|doubt| doubt.outcome.name())
    }

    #[test]
    fn a_late_end_of_a_run_keeps_its_state_and_loses_its_values() {
        let (old, ahead) = (NOW - Span::from_hours(3), NOW + Span::from_hours(1));
        let never = Limits::default();
        assert_eq!(doubt(&never, &run(RunStatus::Succeeded, old)), Some("late_state"));
        assert_eq!(doubt(&never, &run(RunStatus::Started, old)), None, "no value follows from a beginning");
        assert_eq!(doubt(&never, &run(RunStatus::Succeeded, NOW)), None);
        assert_eq!(doubt(&never, &run(RunStatus::Succeeded, ahead)), Some("future"));
        let backfilled = Limits { backfill: Backfill::Now, ..Limits::default() };
        assert_eq!(doubt(&backfilled, &run(RunStatus::Succeeded, old)), None);
        assert_eq!(doubt(&backfilled, &run(RunStatus::Succeeded, ahead)), Some("future"));
    }

    #[test]
    fn what_the_policy_lets_go_is_in_doubt() {
        let late = NOW - Span::from_mins(10);
        for (policy, wanted) in [
            (LatePolicy::Correct, None),
            (LatePolicy::Drop, Some("dropped")),
            (LatePolicy::Dead, Some("dropped")),
        ] {
            let limits = Limits { late_policy: policy, ..Limits::default() };
            let found = limits.doubt_of(late, NOW).map(|doubt| doubt.outcome.name());
            assert_eq!(found, wanted, "{policy:?}");
            let of_run = wanted.map(|_| "late_state");
            assert_eq!(doubt(&limits, &run(RunStatus::Failed, late)), of_run, "{policy:?}");
        }
    }
}
