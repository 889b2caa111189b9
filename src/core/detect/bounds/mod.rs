//! Bounds on the baseline that would be learned from past windows, without learning it again.
//!
//! Intuition: nearly every window is far from every limit, and one window more or less changes the baseline
//! only a little. If the median lies between two bounds, they remain valid as long as at most half of the
//! windows lie below the lower bound and at most half above the upper one. Counts of the windows that are
//! added and removed verify this. So a few numbers usually suffice to decide that a rule is not met. The
//! baseline is learned only if the bounds do not decide.
//! Invariant: a baseline learned from the current windows lies within these bounds, rounding included, as
//! long as [`Bounds::holds`] is true. After that, the bounds are computed anew.
//! Formula: the median of n values is at least l while at most (n − 1)/2 values are below l. If it is between
//! l and h, half of the distances from it are at least s while at most (n − 1)/2 values are between l − s and
//! h + s. Quantiles are bounded in the same way. Bounds on mean and deviation follow from sums.
//! Rejected: lists that are kept sorted (each window moves all of them, and a key takes three times as much
//! memory), learning only at each eighth window (the baseline would lack the windows just before the judged
//! one), and bounds from the quantiles of a normal distribution (metrics are not normal).
//! Cost: O(1) per window and per evaluation; a few passes over B values every few dozen windows.

mod ends;
mod middle;
mod sums;

use super::anomaly::{self, SLOW_WEIGHT, SLOW_WINDOWS};
use super::regression::{self, Window};
use super::zscore;
use crate::core::vocab::comparison::Side;
use ends::Ends;
use middle::Middle;
use sums::{Moments, Tails};

/// Lower bound of every limit of `regression`: the value that a standard normal variable exceeds once in a
/// thousand.
const LIMIT_MIN: f64 = 3.09;

/// Relative difference that the order of addition may cause between sums: thousands of roundings of 1e-16.
const ROUNDING: f64 = 1e-11;

/// Maximum number of windows for which capacity is reserved in advance; most periods have fewer.
const ROOM_MAX: usize = 1_440;

/// Bounds for the windows of a period.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    values: Middle,
    moments: Moments,
    /// Number of windows whose value is no share: it is below 0 or above 1.
    no_shares: i32,
    /// For `anomaly`: bounds for single windows and for means.
    ends: Ends,
    slow: Ends,
    /// For `regression`: bounds for the median, the mean logarithm and the share in the tail.
    p50: Middle,
    log: Middle,
    tails: Tails,
}

/// Whether a window is added or removed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Turn {
    Comes,
    Goes,
}

impl Turn {
    fn by(self) -> i32 {
        match self {
            Turn::Comes => 1,
            Turn::Goes => -1,
        }
    }
}

impl Bounds {
    /// Computes bounds from windows in the order of time. `has_means`: whether to bound the means of
    /// [`SLOW_WINDOWS`] consecutive windows, too.
    pub(crate) fn of(windows: impl Iterator<Item = Window>, has_means: bool) -> Bounds {
        let room = windows.size_hint().1.unwrap_or(0).min(ROOM_MAX);
        let (mut values, mut p50, mut log) = (Vec::with_capacity(room), Vec::new(), Vec::new());
        let (mut tails, mut no_shares) = (Tails::default(), 0);
        for window in windows {
            values.push(window.value);
            no_shares += i32::from(is_no_share(window.value));
            let Some(profile) = window.profile else { continue };
            p50.push(profile.p50);
            log.extend(profile.log.map(|(mean, _)| mean));
            tails.count(window.count as f64, profile.tail, Turn::Comes);
        }
        let means = if has_means { anomaly::means(&values).collect() } else { Vec::new() };
        Bounds {
            moments: Moments::around(&values),
            ends: Ends::of(values.clone(), ends::MARGIN_SHARE),
            values: Middle::of(values),
            no_shares,
            slow: Ends::of(means, ends::MARGIN_SHARE_OF_MEANS),
            p50: Middle::of(p50),
            log: Middle::of(log),
            tails,
        }
    }

    /// Adds or removes one window.
    pub(crate) fn count(&mut self, window: &Window, turn: Turn) {
        self.values.count(window.value, turn);
        self.ends.count(window.value, turn);
        self.moments.count(window.value, turn);
        if let Some(profile) = window.profile {
            self.tails.count(window.count as f64, profile.tail, turn);
            self.p50.count(profile.p50, turn);
            if let Some((log, _)) = profile.log {
                self.log.count(log, turn);
            }
        }
        self.no_shares += turn.by() * i32::from(is_no_share(window.value));
    }

    /// Adds or removes the mean of [`SLOW_WINDOWS`] consecutive windows.
    pub(crate) fn count_mean(&mut self, mean: f64, turn: Turn) {
        self.slow.count(mean, turn);
    }

    /// Reads a word of each part to prefetch it, and returns a token; see [`crate::core::view::prefetch`].
    pub(crate) fn prefetch(&self) -> u64 {
        let middles = self.values.len() ^ self.p50.len() ^ self.log.len();
        let ends = self.ends.are_few() ^ self.slow.are_few();
        middles as u64 ^ u64::from(ends) ^ self.moments.prefetch()
    }

    /// Returns the number of windows.
    pub(crate) fn windows(&self) -> usize {
        self.values.len()
    }

    /// Whether all bounds are valid.
    pub(crate) fn holds(&self) -> bool {
        self.values.holds()
            && self.moments.holds(self.windows())
            && self.ends.holds()
            && self.slow.holds()
            && self.p50.holds()
            && self.log.holds()
    }

    /// Returns bounds on the `zscore` of a value; `None` if they are unknown.
    pub(crate) fn z(&self, value: f64) -> Option<(f64, f64)> {
        let (mean, deviation) = self.moments.bounds(self.windows());
        quotient(value, mean, deviation.0)
    }

    /// Returns bounds on the `robust_z` of a value; `None` if they are unknown.
    pub(crate) fn robust_z(&self, value: f64) -> Option<(f64, f64)> {
        let (median, (_, deviation)) = (self.values.median(), self.moments.bounds(self.windows()));
        let least = zscore::SCALE_MIN * least_magnitude(median);
        let scale = self.values.spread().max(deviation.0 / 2.0).max(least);
        quotient(value, median, scale)
    }

    /// Returns bounds on the mean plus `k` standard deviations.
    pub(crate) fn bound(&self, k: f64) -> (f64, f64) {
        let (mean, deviation) = self.moments.bounds(self.windows());
        let (a, b) = (k * deviation.0, k * deviation.1);
        (mean.0 + a.min(b), mean.1 + a.max(b))
    }

    /// Whether a window certainly is within the usual range of the past. `newest_sum`: see
    /// [`super::anomaly::Reference::learn`].
    pub(crate) fn is_usual(&self, value: f64, newest_sum: f64) -> bool {
        let mean = (newest_sum + value) / SLOW_WINDOWS as f64;
        self.ends.is_usual(value, 1.0) && self.slow.is_usual(mean, SLOW_WEIGHT)
    }

    /// Whether a window certainly is no regression and has a p-value of 1.
    pub(crate) fn is_unchanged(&self, window: &Window, side: Side) -> bool {
        let is_asked = self.values.is_near(window.value, side, self.moments.spread_within(&self.values));
        let Some(profile) = window.profile.filter(|_| is_asked) else { return is_asked };
        let is_one = |middle: &Middle, value: f64| {
            middle.len() < regression::WINDOWS_MIN || middle.is_near(value, side, 0.0)
        };
        let has_tail = self.p50.len() >= regression::WINDOWS_MIN;
        is_one(&self.p50, profile.p50)
            && profile.log.is_none_or(|(mean, _)| is_one(&self.log, mean))
            && (!has_tail || self.tails.is_near(profile.tail, window.count as f64, side))
    }

    /// Like [`Self::is_unchanged`], for averages. Averages that may be shares of hits are tested exactly, so
    /// the bounds do not apply to them.
    pub(crate) fn is_unchanged_average(&self, window: &Window, side: Side) -> bool {
        self.no_shares > 0 && self.is_unchanged(window, side)
    }

    /// Like [`Self::is_unchanged`], for counts. Small counts are tested exactly. The p-value of a count that
    /// is no worse than the mean is always above one in a thousand.
    pub(crate) fn is_unchanged_count(&self, value: f64, side: Side) -> bool {
        let (median, (mean, _)) = (self.values.median(), self.moments.bounds(self.windows()));
        match side {
            Side::Above => value <= median.0 && value <= mean.0 * (1.0 + 1e-9),
            Side::Below => value >= median.1 && value >= mean.1 * (1.0 - 1e-9),
        }
    }
}

/// Returns the smallest possible magnitude of a number between two bounds.
pub(crate) fn least_magnitude((low, high): (f64, f64)) -> f64 {
    if low <= 0.0 && high >= 0.0 { 0.0 } else { low.abs().min(high.abs()) }
}

fn is_no_share(value: f64) -> bool {
    !(0.0..=1.0).contains(&value)
}

/// Returns bounds on the quotient of a distance and a unit; `None` if `least` is 0. The distance is that of
/// `value` from a number between the bounds `low` and `high`; the unit is at least `least`.
fn quotient(value: f64, (low, high): (f64, f64), least: f64) -> Option<(f64, f64)> {
    let (below, above) = ((value - high).min(0.0), (value - low).max(0.0));
    (least > 0.0).then(|| (below / least, above / least))
}

#[cfg(test)]
pub(crate) mod tests;
