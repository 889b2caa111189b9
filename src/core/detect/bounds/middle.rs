//! Bounds on the median of some values, and on their spread.

use super::super::MAD_TO_SIGMA;
use super::{LIMIT_MIN, ROUNDING, Side, Turn};

/// One in this many values may be added or removed on one side before the bounds are computed anew. A
/// smaller margin is exhausted every few windows; a larger margin makes the bounds too wide.
const MARGIN_SHARE: usize = 32;

/// Bounds: the median is between `low` and `high`, and half of the distances from it are at least `reach`.
/// They are valid while each of the counts below, except `all`, is at most half of all values.
#[derive(Debug, Clone)]
pub(super) struct Middle {
    low: f64,
    high: f64,
    reach: f64,
    /// Number of values below `low`, above `high`, and between `low - reach` and `high + reach`.
    below: i32,
    above: i32,
    inside: i32,
    all: i32,
}

impl Middle {
    pub(super) fn of(mut values: Vec<f64>) -> Middle {
        let none = Middle { low: 0.0, high: 0.0, reach: 0.0, below: 0, above: 0, inside: 0, all: 0 };
        let Some(last) = values.len().checked_sub(1) else { return none };
        let margin = (values.len() / MARGIN_SHARE).max(1);
        let (lower, upper) = ((last / 2).saturating_sub(margin), (values.len() / 2 + margin).min(last));
        let high = *values.select_nth_unstable_by(upper, f64::total_cmp).1;
        let low = *values[..=upper].select_nth_unstable_by(lower, f64::total_cmp).1;
        let mut outside: Vec<f64> =
            values.iter().map(|value| (low - value).max(value - high).max(0.0)).collect();
        let reach = *outside.select_nth_unstable_by((last / 2).saturating_sub(margin), f64::total_cmp).1;
        let mut middle = Middle { low, high, reach, ..none };
        values.iter().for_each(|value| middle.count(*value, Turn::Comes));
        middle
    }

    pub(super) fn count(&mut self, value: f64, turn: Turn) {
        let is_inside = value > self.low - self.reach && value < self.high + self.reach;
        self.below += turn.by() * i32::from(value < self.low);
        self.above += turn.by() * i32::from(value > self.high);
        self.inside += turn.by() * i32::from(is_inside);
        self.all += turn.by();
    }

    pub(super) fn len(&self) -> usize {
        self.all as usize
    }

    pub(super) fn holds(&self) -> bool {
        let half = (self.all - 1) / 2;
        (self.below <= half && self.above <= half && self.inside <= half && self.reach.is_finite())
            || self.all == 0
    }

    /// Returns bounds on the median.
    pub(super) fn median(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    /// Returns a lower bound on the median distance from the median, times [`MAD_TO_SIGMA`].
    pub(super) fn spread(&self) -> f64 {
        let doubt = f64::EPSILON * 4.0 * (self.low.abs() + self.high.abs() + self.reach);
        (self.reach - doubt).max(0.0) * MAD_TO_SIGMA * (1.0 - ROUNDING)
    }

    /// Whether a value certainly is within the limit of `regression`; `least`: another lower bound on the
    /// spread.
    pub(super) fn is_near(&self, value: f64, side: Side, least: f64) -> bool {
        let limit = LIMIT_MIN * self.spread().max(least);
        match side {
            Side::Above => value - self.low <= limit,
            Side::Below => self.high - value <= limit,
        }
    }

    /// Sets all counts to zero; the bounds stay.
    #[cfg(test)]
    pub(super) fn empty(&mut self) {
        (self.below, self.above, self.inside, self.all) = (0, 0, 0, 0);
    }
}
