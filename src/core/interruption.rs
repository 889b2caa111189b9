//! Interruptions: spans of the log in which no owner appended a tick.
//!
//! Intuition: silence in a log that nobody wrote to indicates nothing about the services. So no timer counts
//! this time, and rules about silence stay unknown until the producers have had time to send again.

use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// The interruptions that a timer may still reach back to, ascending and disjoint.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Interruptions {
    spans: Vec<(Timestamp, Timestamp)>,
}

/// Time for which interruptions are remembered; `idle`, `age` and `silent` look back this far.
const KEPT: Span = Span::from_hours(24 * 31);

impl Interruptions {
    pub fn add(&mut self, from: Timestamp, to: Timestamp) {
        self.spans.retain(|(_, end)| *end + KEPT > to);
        self.spans.push((from, to));
    }

    /// The uninterrupted time between two instants; negative if they are swapped.
    pub fn counted(&self, from: Timestamp, to: Timestamp) -> Span {
        let lost = self.spans.iter().map(|(start, end)| {
            let (start, end) = ((*start).max(from), (*end).min(to));
            if end > start { end - start } else { Span::ZERO }
        });
        (to - from) - lost.fold(Span::ZERO, |sum, span| sum + span)
    }

    /// The time from which rules about silence are reliable again: `grace` after the newest interruption.
    /// `None` if `at` is not within the interruption or the grace period.
    pub fn unsettled_until(&self, at: Timestamp, grace: Span) -> Option<Timestamp> {
        let (start, end) = self.spans.last()?;
        (at > *start && at < *end + grace).then_some(*end + grace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_time_does_not_count() {
        let at = |secs: i64| Timestamp::clamped(secs * 1_000);
        let mut spans = Interruptions::default();
        spans.add(at(100), at(150));
        spans.add(at(200), at(210));
        assert_eq!(spans.counted(at(0), at(120)), Span::from_secs(100));
        assert_eq!(spans.counted(at(90), at(300)), Span::from_secs(150));
        assert_eq!(spans.unsettled_until(at(205), Span::from_secs(60)), Some(at(270)));
        assert_eq!(spans.unsettled_until(at(270), Span::from_secs(60)), None);
    }
}
