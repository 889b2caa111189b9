//! The canary: an event each minute that must become an alert, and the alert a message.
//!
//! Intuition: the absence of alerts does not show whether alerting works. A canary event therefore takes the path of
//! all other events, through log, window and rule, in each partition. A rule in the files makes an alert of it, and a
//! `heartbeat` receiver reports to an outside service that it arrived. That service raises the alarm when the report
//! is missing.
//! Invariant: one event per minute and partition, however many processes send it, because all give it the same id.
//! Rejected: an alert made in the notifier (it proves only the last step), and a rule that always fires (an
//! alert that everyone must ignore, and that says nothing about the last minutes).

use crate::core::vocab::partition::partition_of;
use crate::core::{Span, Timestamp};
use crate::driver::ports::{Clock, Entry, Intake};
use crate::wire::event::Codec;
use serde_json::json;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

/// The name of the series, for rules.
pub(crate) const METRIC: &str = "streamgauge_canary";

/// The period of the canary events, and the offset of the event within each period. The offset is the middle of the
/// first ten-second pane of the minute.
const EVERY: Span = Span::from_mins(1);
const PLACE: Span = Span::from_secs(5);

/// The origin of a canary event: its source names the partition and the number of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub partition: u32,
    pub of: u32,
}

impl Origin {
    /// Returns a source name that belongs to the partition. Names are tried until one does, which takes about
    /// `of` attempts.
    pub(crate) fn source(&self) -> String {
        let named = |salt: u32| format!("canary-{}-of-{}-{salt}", self.partition + 1, self.of);
        let is_there = |name: &String| partition_of(name, self.of) == self.partition;
        (0..).map(named).find(is_there).unwrap_or_default()
    }

    /// Parses the source name of a canary event.
    pub(crate) fn of_source(source: &str) -> Option<Origin> {
        let mut parts = source.strip_prefix("canary-")?.split('-');
        let partition = parts.next()?.parse::<u32>().ok()?.checked_sub(1)?;
        let of = parts.next().filter(|word| *word == "of").and(parts.next())?.parse().ok()?;
        (partition < of).then_some(Origin { partition, of })
    }
}

/// Sends one event a minute to each partition, until `stop` is dropped.
pub(crate) fn keep(intake: &Arc<dyn Intake>, partitions: u32, clock: &impl Clock, stop: &Receiver<()>) {
    let origins: Vec<String> =
        (0..partitions).map(|partition| Origin { partition, of: partitions }.source()).collect();
    loop {
        let due = next(clock.now());
        if !matches!(stop.recv_timeout(clock.until(due)), Err(RecvTimeoutError::Timeout)) {
            return;
        }
        for (partition, source) in (0..).zip(&origins) {
            let reply = |answer: Result<u64, String>| {
                if let Err(error) = answer {
                    tracing::warn!(%error, "cannot append the canary event to the log");
                }
            };
            let event = Entry::Events(Codec::Json, event(source, due, clock.now()));
            intake.append(partition, event, None, Box::new(reply));
        }
    }
}

fn next(now: Timestamp) -> Timestamp {
    (now - PLACE).next(EVERY) + PLACE
}

/// The id depends only on source and minute, so the event of a second process is a duplicate.
fn event(source: &str, due: Timestamp, now: Timestamp) -> Vec<u8> {
    let id = format!("canary-{}", due.ms());
    json!({"type": "metric", "time": now.ms(), "source": source, "name": METRIC, "value": 1, "id": id})
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vocab::partition::Partition;

    #[test]
    fn a_canary_goes_into_each_partition_and_says_so() {
        for of in [1, 2, 8, 256] {
            for partition in 0..of {
                let origin = Origin { partition, of };
                let source = origin.source();
                assert!(Partition { index: partition, count: of }.holds(&source), "{source}");
                assert_eq!(Origin::of_source(&source), Some(origin));
            }
        }
        for other in ["checkout", "canary-", "canary-0-of-1-0", "canary-3-of-2-0", "canary-1-to-2-0"] {
            assert_eq!(Origin::of_source(other), None, "{other}");
        }
    }

    #[test]
    fn it_sings_once_a_minute() {
        let at = |secs: i64| Timestamp::clamped(secs * 1_000);
        assert_eq!([0, 4, 5, 6, 64, 65].map(|secs| next(at(secs))), [5, 5, 65, 65, 65, 125].map(at));
    }
}
