//! Gaps: spans of the log whose records are gone before anybody read them.
//!
//! Intuition: what was lost may have been anything, so nothing that covers that time is the truth any
//! more: its windows say so, and rules that read them know nothing. Unlike an interruption, in which
//! nobody wrote, a gap is something that was written and is missing.

use super::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// The gaps that some window may still reach back to, ascending.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Gaps {
    spans: Vec<(Timestamp, Timestamp)>,
}

/// As long as windows are kept at most.
const KEPT: Span = Span::from_hours(24 * 31);

/// Gaps remembered; older ones are forgotten first. A log that is torn more often than that within a
/// month is not worth a rule.
const SPANS_MAX: usize = 1_000;

impl Gaps {
    pub fn add(&mut self, from: Timestamp, to: Timestamp) {
        self.spans.retain(|(_, end)| *end + KEPT > to);
        if self.spans.len() >= SPANS_MAX {
            self.spans.remove(0);
        }
        self.spans.push((from, to));
    }

    /// Whether a part of `[start, end)` is missing.
    #[inline]
    pub fn touch(&self, start: Timestamp, end: Timestamp) -> bool {
        !self.spans.is_empty() && self.spans.iter().any(|(from, to)| *from < end && start <= *to)
    }

    /// The end of the newest gap that a window of this length still covers at `at`.
    pub fn covered_until(&self, start: Timestamp, at: Timestamp) -> Option<Timestamp> {
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
