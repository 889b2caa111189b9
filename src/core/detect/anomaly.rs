//! `anomaly`: measures how far one window lies outside the range of its past.
//!
//! Intuition: metrics have heavy tails and quiet middles. So the unit of distance is the length of the past's
//! own tail, from the median to an outer quantile, and not the spread of its middle. A window is unusual if
//! its distance from the median is more than about 1.2 of these lengths.
//! Formula: a = (x − med) / (q₉₉.₅ − med + e) above and mirrored below, with e = 0.05 (q₉₉.₅ − q₀.₅) + 0.001
//! |med| and limit 1.2. With fewer than a thousand windows, q₉₉ and q₁ are used with limit 1.4. The mean of
//! 24 windows is scored in the same way, times 0.9; it detects small changes that last. The result is the
//! larger score, divided by its limit.
//! A peak is the greatest score of the last 150 windows, if it is above the limit. A window after a peak must
//! score a tenth higher than the peak; otherwise its score is divided by 1.1 times the peak. So one anomaly
//! is reported once.
//! Rejected: a z-score over MAD (zero for mostly constant metrics: 2 points of 100 on the Numenta benchmark,
//! where this method has about 60), seasonal residuals before many weeks of data exist (worse).
//! Cost: with sorted values, O(1) per closed window, unless a past window was unusual; O(1) per evaluation.

use super::sorted::Sorted;
use serde::{Deserialize, Serialize};

/// Minimum number of past windows for a baseline.
pub(crate) const WINDOWS_MIN: usize = 100;

/// Minimum number of windows for the outer quantiles at 99.5 % and 0.5 %; with fewer, those at 99 % and 1 %
/// are used.
const WINDOWS_MANY: usize = 1_000;

/// Number of windows in the slow mean, and the weight of its score.
pub(crate) const SLOW_WINDOWS: usize = 24;
pub(super) const SLOW_WEIGHT: f64 = 0.9;

/// Factor by which a later peak must exceed the one before; otherwise each maximum of a drift would be
/// reported.
const HIGHER: f64 = 1.1;

/// Number of windows after which a peak no longer counts.
pub(crate) const PEAK_WINDOWS: usize = 150;

/// Number of windows that the search for a peak reads. The oldest slow mean begins 23 windows before the
/// oldest single window.
const PEAK_REACH: usize = PEAK_WINDOWS + SLOW_WINDOWS - 1;

/// The baseline for single windows and for means of 24.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reference {
    single: Tails,
    slow: Option<Tails>,
    /// Sum of the newest 23 windows, to which the judged window is added for the slow mean.
    newest_sum: f64,
    pub windows: usize,
}

/// Median and outer quantiles of the past.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Tails {
    median: f64,
    low: f64,
    high: f64,
    limit: f64,
    /// The quantile level of `high`; that of `low` is `1 - outer`.
    outer: f64,
}

impl Reference {
    /// Learns from the past windows and from the means of every [`SLOW_WINDOWS`] consecutive ones.
    /// `newest_sum`: the sum of the newest `SLOW_WINDOWS - 1` windows. `None` with too few windows.
    pub(crate) fn learn(past: &Sorted<f64>, means: &Sorted<f64>, newest_sum: f64) -> Option<Reference> {
        let single = Tails::learn(past)?;
        Some(Reference { single, slow: Tails::learn(means), newest_sum, windows: past.len() })
    }

    /// Whether any past window or mean was unusual. If none was, there is no peak and [`Self::peak`] need not
    /// be computed.
    pub(crate) fn has_peak(&self, past: &Sorted<f64>, means: &Sorted<f64>) -> bool {
        let is_above = |tails: &Tails, values: &Sorted<f64>, weight: f64| {
            values
                .extremes()
                .is_some_and(|(low, high)| tails.score(low).max(tails.score(high)) * weight > 1.0)
        };
        is_above(&self.single, past, 1.0)
            || self.slow.is_some_and(|tails| is_above(&tails, means, SLOW_WEIGHT))
    }

    /// Returns the greatest score among the newest [`PEAK_WINDOWS`] of the past windows.
    pub(crate) fn peak(&self, past: &[f64]) -> f64 {
        let late = &past[past.len().saturating_sub(PEAK_WINDOWS)..];
        let slow = &past[past.len().saturating_sub(PEAK_REACH)..];
        let single = late.iter().map(|value| self.single.score(*value)).fold(0.0, f64::max);
        let slow = self
            .slow
            .map_or(0.0, |tails| means(slow).map(|mean| tails.score(mean) * SLOW_WEIGHT).fold(0.0, f64::max));
        single.max(slow)
    }

    /// Returns the distance of a window from the past's median in lengths of the tail, divided by the limit.
    /// A score above 1 is unusual.
    ///
    /// `believed`: the p-value threshold of the false discovery rate; it replaces the limit if it is
    /// stricter.
    pub(crate) fn score(&self, value: f64, believed: Option<f64>) -> f64 {
        let wanted = believed.map_or(1.0, |chance| score_of(chance, self.single.outer, self.single.limit));
        self.plain_score(value) / wanted.max(1.0)
    }

    /// Returns the p-value: the probability that an unchanged window has at least this score. 1 if the window
    /// is not unusual.
    pub(crate) fn p_value(&self, value: f64) -> f64 {
        let (score, tails) = (self.plain_score(value), &self.single);
        if score > 1.0 { libm::pow(1.0 - tails.outer, score * tails.limit) } else { 1.0 }
    }

    fn plain_score(&self, value: f64) -> f64 {
        let mean = (self.newest_sum + value) / SLOW_WINDOWS as f64;
        let slow = self.slow.map_or(0.0, |tails| tails.score(mean) * SLOW_WEIGHT);
        self.single.score(value).max(slow)
    }
}

/// Returns the score that has this p-value. It assumes exponential tails, which fall off no faster than those
/// of most metrics.
fn score_of(chance: f64, outer: f64, limit: f64) -> f64 {
    libm::log(chance) / libm::log(1.0 - outer) / limit
}

/// Reduces a score after a peak within the last [`PEAK_WINDOWS`], unless it clearly exceeds the peak.
pub(crate) fn after_peak(score: f64, peak: f64) -> f64 {
    let higher = peak * HIGHER;
    if peak > 1.0 && score <= higher { score / higher } else { score }
}

/// Returns the means of all runs of 24 consecutive windows, oldest first.
pub(crate) fn means(past: &[f64]) -> impl Iterator<Item = f64> + '_ {
    past.windows(SLOW_WINDOWS).map(|run| run.iter().sum::<f64>() / SLOW_WINDOWS as f64)
}

/// Returns the quantile level at which the past's tail begins.
pub(super) fn outer(windows: usize) -> f64 {
    if windows < WINDOWS_MANY { 0.99 } else { 0.995 }
}

/// Returns the largest usual distance from the median, in lengths of the tail.
pub(super) fn limit(windows: usize) -> f64 {
    if windows < WINDOWS_MANY { 1.4 } else { 1.2 }
}

/// Returns the margin that is added to the length of a tail: a share of the distance between both tails, and
/// of the median.
pub(super) fn room(between: f64, median: f64) -> f64 {
    0.05 * between + 1e-3 * median.abs()
}

impl Tails {
    fn learn(past: &Sorted<f64>) -> Option<Tails> {
        if past.len() < WINDOWS_MIN {
            return None;
        }
        let outer = outer(past.len());
        let q = |q: f64| past.quantile(q);
        let limit = limit(past.len());
        Some(Tails { median: q(0.5), low: q(1.0 - outer), high: q(outer), limit, outer })
    }

    fn score(&self, value: f64) -> f64 {
        let room = room(self.high - self.low, self.median);
        let (distance, length) = match value >= self.median {
            true => (value - self.median, self.high - self.median + room),
            false => (self.median - value, self.median - self.low + room),
        };
        match length > 0.0 {
            true => distance / length / self.limit,
            // All quantiles of the past are zero, so its tail has no length. Any other value gets a huge but
            // finite score.
            false if distance > 0.0 => f64::MAX.sqrt(),
            false => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::*;

    fn learn(past: &[f64]) -> Option<Reference> {
        let sorted = (Sorted::of(past.to_vec()), Sorted::of(means(past).collect()));
        let newest = past.len().saturating_sub(SLOW_WINDOWS - 1);
        Reference::learn(&sorted.0, &sorted.1, past[newest..].iter().sum())
    }

    #[test]
    fn a_constant_series_is_never_unusual_and_a_jump_is() {
        let reference = learn(&[5.0; 200]).expect("enough windows");
        assert_eq!(reference.score(5.0, None), 0.0);
        assert!(reference.score(6.0, None) > 1.0 && reference.score(4.0, None) > 1.0);
        assert_eq!(learn(&[5.0; 99]), None);
        let nothing = learn(&[0.0; 100]).expect("enough windows");
        assert!(
            nothing.score(0.0, None) == 0.0
                && nothing.score(1e-9, None).is_finite()
                && nothing.score(1e-9, None) > 1.0
        );
    }

    #[test]
    fn distances_are_those_of_the_formula_on_both_sides() {
        let past: Vec<f64> = (0..1_000).map(f64::from).collect();
        let tails = Tails::learn(&Sorted::of(past)).expect("enough windows");
        assert_eq!((tails.median, tails.low, tails.high, tails.limit), (499.0, 5.0, 994.0, 1.2));
        let room = 0.05 * 989.0 + 0.499;
        assert!((tails.score(1_200.0) - 701.0 / (495.0 + room) / 1.2).abs() < 1e-12);
        assert!((tails.score(-100.0) - 599.0 / (494.0 + room) / 1.2).abs() < 1e-12);
    }

    #[test]
    fn what_is_small_and_lasts_is_seen_by_the_slow_mean() {
        let mut dice = Dice(5);
        let mut past: Vec<f64> = (0..2_000).map(|_| dice.normal()).collect();
        let before = learn(&past).expect("enough windows").score(2.0, None);
        past.extend((0..SLOW_WINDOWS - 1).map(|_| 2.0));
        let after = learn(&past).expect("enough windows").score(2.0, None);
        assert!(before < 1.0 && after > 1.0, "{before} {after}");
    }

    #[test]
    fn after_a_peak_only_a_higher_one_counts() {
        assert_eq!(after_peak(3.0, 0.8), 3.0);
        assert_eq!((after_peak(2.2, 4.0), after_peak(5.0, 4.0)), (0.5, 5.0));
        assert!(after_peak(4.3, 4.0) < 1.0);
    }

    /// Goal: independent windows of a normal distribution rarely exceed the limit: at most 60 of 20,000.
    #[test]
    fn what_is_usual_is_not_unusual() {
        let (mut dice, mut passed) = (Dice(9), 0);
        for _ in 0..40 {
            let past: Vec<f64> = (0..1_500).map(|_| dice.normal()).collect();
            let reference = learn(&past).expect("enough windows");
            passed += (0..500).filter(|_| reference.score(dice.normal(), None) > 1.0).count();
        }
        assert!(passed <= 60, "{passed} of 20,000");
    }
}
