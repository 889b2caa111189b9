//! Gaps: spans of the log whose records were lost before the owner read them.
//!
//! Intuition: the lost records may have held anything, so no result that covers a gap is reliable. Windows
//! that overlap a gap are marked as incomplete, and rules that read them are unknown. A gap differs from an
//! interruption: in a gap records were written and are missing, during an interruption nobody wrote to the
//! log.

use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// The gaps that a window may still reach back to, ascending.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Gaps {
    spans: Vec<(Timestamp, Timestamp)>,
}

/// Time for which gaps are remembered: the longest window of a rule (90 days) and two days of lateness.
const KEPT: Span = Span::from_hours(24 * 92);

/// Maximum number of remembered gaps; the oldest are forgotten first. A log with more gaps in three months is
/// too incomplete for rules in any case.
const SPANS_MAX: usize = 1_000;

impl Gaps {
    pub(crate) fn add(&mut self, from: Timestamp, to: Timestamp) {
        self.spans.retain(|(_, end)| *end + KEPT > to);
        if self.spans.len() >= SPANS_MAX {
            self.spans.remove(0);
        }
        self.spans.push((from, to));
    }

    /// Whether a gap, including its last instant, overlaps `[start, end)`.
    #[inline]
    pub(crate) fn touch(&self, start: Timestamp, end: Timestamp) -> bool {
        !self.spans.is_empty() && self.spans.iter().any(|(from, to)| *from < end && start <= *to)
    }

    /// The end of the newest gap that overlaps the time from `start` to `at`.
    pub(crate) fn covered_until(&self, start: Timestamp, at: Timestamp) -> Option<Timestamp> {
        let covered = self.spans.iter().filter(|(from, to)| *from < at && start <= *to);
        covered.map(|(_, to)| *to).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_over_a_gap_is_incomplete() {
        let at = |secs: i64| Timestamp::clamped(secs * 1_000);
        let mut gaps = Gaps::default();
        assert!(!gaps.touch(at(0), at(1_000)));
        gaps.add(at(100), at(130));
        assert!(gaps.touch(at(60), at(120)) && gaps.touch(at(120), at(180)));
        assert!(!gaps.touch(at(0), at(60)) && !gaps.touch(at(180), at(240)));
        assert_eq!(gaps.covered_until(at(90), at(150)), Some(at(130)));
        assert_eq!(gaps.covered_until(at(131), at(200)), None);
    }
}
