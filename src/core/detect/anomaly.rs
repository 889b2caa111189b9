//! `anomaly`: how far is one window outside what the past ever did?
//!
//! Intuition: metrics have heavy tails and quiet middles, so the yardstick is the past's own tail, not its
//! middle: a window counts when it lies beyond the tail by a good part of the tail's length.
//! Formula: a = (x − med) / (q₉₉.₅ − med + e) above and mirrored below, e = 0.05 (q₉₉.₅ − q₀.₅) + 0.001 |med|,
//! limit 1.2; with fewer than a thousand windows q₉₉ and q₁, limit 1.4. The same, times 0.9, for the mean
//! of 24 windows, which sees what is small and lasts. The value is the larger, divided by its limit.
//! What follows a peak is measured by the peak: unless it is a tenth higher, the value is divided by 1.1 times
//! the greatest of the last 150 windows, so one anomaly is told once.
//! Rejected: a z-score over MAD (zero for mostly constant metrics: 2 points of 100 on the Numenta
//! benchmark, where this has about 60), seasonal residuals before there are many weeks (worse).
//! Cost: O(1) once a closed window whose values are sorted, unless one of them was unusual; O(1) an evaluation.

use super::sorted::Sorted;
use serde::{Deserialize, Serialize};

/// Fewer past windows than this are no baseline.
pub const WINDOWS_MIN: usize = 100;

/// From so many windows on the outer half percent is known.
const WINDOWS_MANY: usize = 1_000;

/// Windows of the slow mean, and what it counts.
pub const SLOW_WINDOWS: usize = 24;
pub(super) const SLOW_WEIGHT: f64 = 0.9;

/// A later peak counts from this much above the one before: a drift is not told at each of its maxima.
const HIGHER: f64 = 1.1;

/// Windows for which a peak is remembered.
pub const PEAK_WINDOWS: usize = 150;

/// Windows that such a peak is looked for in.
const PEAK_REACH: usize = PEAK_WINDOWS + SLOW_WINDOWS - 1;

/// What is normal for single windows and for means of 24.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    single: Tails,
    slow: Option<Tails>,
    /// Sum of the newest 23 windows.
    newest_sum: f64,
    pub windows: usize,
}

/// Middle and ends of the past.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Tails {
    median: f64,
    low: f64,
    high: f64,
    limit: f64,
    /// The quantile that `high` is.
    outer: f64,
}

impl Reference {
    /// From the past windows and the means of each [`SLOW_WINDOWS`] of them; `newest_sum`: that of
    /// the newest windows, one less than a mean has. `None` with too few.
    pub fn learn(past: &Sorted<f64>, means: &Sorted<f64>, newest_sum: f64) -> Option<Reference> {
        let single = Tails::learn(past)?;
        Some(Reference { single, slow: Tails::learn(means), newest_sum, windows: past.len() })
    }

    /// Whether any window, or any mean, was unusual; without, [`Self::peak`] is below 1.
    pub fn has_peak(&self, past: &Sorted<f64>, means: &Sorted<f64>) -> bool {
        let is_above = |tails: &Tails, values: &Sorted<f64>, weight: f64| {
            values
                .extremes()
                .is_some_and(|(low, high)| tails.score(low).max(tails.score(high)) * weight > 1.0)
        };
        is_above(&self.single, past, 1.0)
            || self.slow.is_some_and(|tails| is_above(&tails, means, SLOW_WEIGHT))
    }

    /// The greatest score among the newest [`PEAK_WINDOWS`] of the past windows.
    pub fn peak(&self, past: &[f64]) -> f64 {
        let late = &past[past.len().saturating_sub(PEAK_WINDOWS)..];
        let slow = &past[past.len().saturating_sub(PEAK_REACH)..];
        let single = late.iter().map(|value| self.single.score(*value)).fold(0.0, f64::max);
        let slow = self
            .slow
            .map_or(0.0, |tails| means(slow).map(|mean| tails.score(mean) * SLOW_WEIGHT).fold(0.0, f64::max));
        single.max(slow)
    }

    /// Distance of a window from the past's tail, divided by the limit: above 1 is unusual.
    ///
    /// `believed`: a smaller chance than the limit's that is demanded.
    pub fn score(&self, value: f64, believed: Option<f64>) -> f64 {
        let wanted = believed.map_or(1.0, |chance| score_of(chance, self.single.outer, self.single.limit));
        self.plain_score(value) / wanted.max(1.0)
    }

    /// How often an unchanged window scores as much; 1 where it is not unusual at all.
    pub fn chance(&self, value: f64) -> f64 {
        let (score, tails) = (self.plain_score(value), &self.single);
        if score > 1.0 { libm::pow(1.0 - tails.outer, score * tails.limit) } else { 1.0 }
    }

    fn plain_score(&self, value: f64) -> f64 {
        let mean = (self.newest_sum + value) / SLOW_WINDOWS as f64;
        let slow = self.slow.map_or(0.0, |tails| tails.score(mean) * SLOW_WEIGHT);
        self.single.score(value).max(slow)
    }
}

/// The score that a chance belongs to, where tails fall off as an exponential's do: no faster than most.
fn score_of(chance: f64, outer: f64, limit: f64) -> f64 {
    libm::log(chance) / libm::log(1.0 - outer) / limit
}

/// What is left of a score after a peak within the last [`PEAK_WINDOWS`].
pub fn after_peak(score: f64, peak: f64) -> f64 {
    let higher = peak * HIGHER;
    if peak > 1.0 && score <= higher { score / higher } else { score }
}

/// The means of all runs of 24 windows, oldest first.
pub fn means(past: &[f64]) -> impl Iterator<Item = f64> + '_ {
    past.windows(SLOW_WINDOWS).map(|run| run.iter().sum::<f64>() / SLOW_WINDOWS as f64)
}

/// The quantile that is the past's tail.
pub(super) fn outer(windows: usize) -> f64 {
    if windows < WINDOWS_MANY { 0.99 } else { 0.995 }
}

/// The scores of the tail that are usual.
pub(super) fn limit(windows: usize) -> f64 {
    if windows < WINDOWS_MANY { 1.4 } else { 1.2 }
}

/// What is added to the length of a tail: of all that lies between the tails, and of the median.
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
            // A past of nothing but zeros: any other value is beyond all measure.
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

    /// Independent windows of a normal distribution pass the limit about once in 40,000.
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
