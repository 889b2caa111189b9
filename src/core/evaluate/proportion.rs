//! How long and how often a condition held: the memory of `sustained` and `occurrences`.

use crate::core::vocab::key::KeyId;
use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// The histories of one rule's conditions.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Shares {
    histories: BTreeMap<(u32, KeyId), History>,
}

/// The spans in which a condition held, ascending.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct History {
    /// (from, to); `to` is MAX while the condition still holds.
    spans: VecDeque<(Timestamp, Timestamp)>,
}

/// Spans remembered; enough for a condition that changes each second for half an hour.
const SPANS_MAX: usize = 1_024;

impl Shares {
    pub(crate) fn history(&mut self, place: u32, key: KeyId) -> &mut History {
        self.histories.entry((place, key)).or_default()
    }

    pub(crate) fn known(&self, place: u32, key: KeyId) -> Option<&History> {
        self.histories.get(&(place, key))
    }

    pub(crate) fn forget(&mut self, key: KeyId) {
        self.histories.retain(|(_, owner), _| *owner != key);
    }
}

impl History {
    /// Notes whether the condition holds from `at` on; drops the spans that ended before the period.
    pub(crate) fn observe(&mut self, holds: bool, at: Timestamp, period: Span) {
        while self.spans.front().is_some_and(|(_, to)| *to <= at - period) || self.spans.len() > SPANS_MAX {
            self.spans.pop_front();
        }
        match self.spans.back_mut() {
            Some((_, to)) if *to == Timestamp::MAX && !holds => *to = at,
            Some((_, to)) if *to == Timestamp::MAX => {}
            _ if holds => self.spans.push_back((at, Timestamp::MAX)),
            _ => {}
        }
    }

    /// Returns the time the condition held within the period that ends at `at`, and how often it began to
    /// hold in it.
    pub(crate) fn share(&self, at: Timestamp, period: Span) -> (Span, usize) {
        let begin = at - period;
        let held = self.spans.iter().map(|(from, to)| (*to).min(at) - (*from).max(begin));
        let held = held.fold(Span::ZERO, |sum, span| sum + span.max(Span::ZERO));
        (held, self.spans.iter().filter(|(from, _)| *from > begin).count())
    }

    /// Whether no span is remembered, so that the passage of time alone changes no result.
    pub(crate) fn is_quiet(&self) -> bool {
        self.spans.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_the_time_held_within_the_period() {
        let at = |secs: i64| Timestamp::clamped(secs * 1_000);
        let (mut history, period) = (History::default(), Span::from_secs(60));
        for (secs, holds) in [(0, true), (10, false), (30, true), (30, true), (40, false), (50, true)] {
            history.observe(holds, at(secs), period);
        }
        assert_eq!(history.share(at(60), period), (Span::from_secs(30), 2));
        assert_eq!(history.share(at(65), period), (Span::from_secs(30), 2));
        history.observe(false, at(65), period);
        history.observe(false, at(200), period);
        assert!(history.is_quiet());
    }
}
