//! Bounds on the outer quantiles and on the median of some values.

use super::super::anomaly;
use super::{ROUNDING, Turn, least_magnitude};

/// Three bounds: the lower outer quantile is at most `low`, the upper one is at least `high`, and the median
/// is within `middle`. They are valid as long as [`Ends::holds`] is true and there are enough values.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    low: f64,
    high: f64,
    middle: (f64, f64),
    /// Number of values up to `low`, below `high`, below the lower bound of `middle`, and above the upper
    /// one.
    up_to_low: i32,
    below_high: i32,
    below: i32,
    above: i32,
    all: i32,
}

/// One in this many values may be added or removed beyond an end before the bounds are computed anew.
/// Consecutive means are similar, so many of them cross an end in a row; their margin is larger. A value
/// slightly outside of the ends is still usual, so the margin rarely forces the baseline to be learned.
pub(super) const MARGIN_SHARE: usize = 128;
pub(super) const MARGIN_SHARE_OF_MEANS: usize = 48;

/// When the bounds are computed, one in this many values lies between the median and each of its bounds. The
/// margin is wide for two reasons: the score of a value near an end hardly depends on the median, and the
/// median of neighbouring means moves far.
const MIDDLE_SHARE: usize = 8;

impl Ends {
    pub(super) fn of(mut values: Vec<f64>, margin_share: usize) -> Ends {
        let (none, all) = ((0.0, 0.0), values.len());
        let mut ends = Ends {
            low: 0.0,
            high: 0.0,
            middle: none,
            up_to_low: 0,
            below_high: 0,
            below: 0,
            above: 0,
            all: 0,
        };
        if all >= anomaly::WINDOWS_MIN {
            let ((low, high), margin) = (ranks(all), 1 + all / margin_share);
            let mut rank = |rank: usize| *values.select_nth_unstable_by(rank, f64::total_cmp).1;
            (ends.low, ends.high) = (rank(low + margin), rank(high - margin));
            let margin = all / MIDDLE_SHARE;
            ends.middle = (rank((all - 1) / 2 - margin), rank(all / 2 + margin));
        }
        values.iter().for_each(|value| ends.count(*value, Turn::Comes));
        ends
    }

    pub(super) fn count(&mut self, value: f64, turn: Turn) {
        self.up_to_low += turn.by() * i32::from(value <= self.low);
        self.below_high += turn.by() * i32::from(value < self.high);
        self.below += turn.by() * i32::from(value < self.middle.0);
        self.above += turn.by() * i32::from(value > self.middle.1);
        self.all += turn.by();
    }

    /// Whether there are too few values for `anomaly`.
    pub(super) fn are_few(&self) -> bool {
        (self.all as usize) < anomaly::WINDOWS_MIN
    }

    pub(super) fn holds(&self) -> bool {
        let ((low, high), half) = (ranks(self.all as usize), (self.all - 1) / 2);
        let are_true = self.up_to_low > low as i32 && self.below_high <= high as i32;
        self.are_few() || (are_true && self.below <= half && self.above <= half)
    }

    /// Whether the score of a value, times a `weight` of at most 1, is certainly within the limit. With too
    /// few values there is no score, so every value is usual.
    pub(super) fn is_usual(&self, value: f64, weight: f64) -> bool {
        let is_inside = self.low <= value && value <= self.high;
        self.are_few() || is_inside || self.score_max(value) * weight <= 1.0 - ROUNDING
    }

    /// Returns an upper bound on the score of a value outside of the ends. The score is monotonic in the
    /// median, so its maximum is at one of the median's bounds.
    fn score_max(&self, value: f64) -> f64 {
        let (low, high) = self.middle;
        let room = anomaly::room(self.high - self.low, least_magnitude(self.middle));
        let limit = anomaly::limit(self.all as usize);
        let score = |median: f64| {
            let length = if value > self.high { self.high - median } else { median - self.low };
            (value - median).abs() / (length + room) / limit
        };
        score(low).max(score(high))
    }

    /// Keeps the bounds and resets the counts to those of no values.
    #[cfg(test)]
    pub(super) fn empty(&mut self) {
        (self.up_to_low, self.below_high) = (0, 0);
        (self.below, self.above, self.all) = (0, 0, 0);
    }
}

/// Returns the ranks of the outer quantiles, from 0; see [`super::super::sorted::Sorted::quantile`].
fn ranks(all: usize) -> (usize, usize) {
    let rank = |q: f64| ((q * all as f64).ceil() as usize).clamp(1, all.max(1)) - 1;
    (rank(1.0 - anomaly::outer(all)), rank(anomaly::outer(all)))
}
