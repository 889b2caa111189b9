//! The baseline of one statistic: the centre of some past windows, and the spread between them.
//!
//! Intuition: a change must exceed the spread from window to window. A few windows may lie close together by
//! chance, so the observed spread is mixed with a usual one: 1 % of the centre, with the weight of four
//! windows. No window is known better than its own sampling error, which is therefore the minimum spread.
//! Formula: s² = max(v², (4 (0.01 m)² + (B − 1) v²) / (B + 3), SE²) with v = max(1.4826 MAD, sd of the
//! values clamped to ten spreads around m);
//! T = (x − m) / √(s² (1 + 1/B) + max(0, SE_x² − SE²)).
//! Rejected: a bare MAD (zero for steady metrics, and 40 % off with eight windows), half the standard
//! deviation as minimum (twice as many false alarms in simulated unchanged deployments), and the sampling
//! error alone (it reports a quarter of all unchanged windows as changed).
//! Cost: one pass over B sorted values.

use super::MAD_TO_SIGMA;
use super::sorted::{Number, Sorted};
use serde::{Deserialize, Serialize};

/// The usual spread as a share of the centre, and its weight in windows.
const USUAL_SPREAD: f64 = 0.01;
const USUAL_WINDOWS: f64 = 4.0;

/// Distances from the centre are clamped to this many spreads. Otherwise one window that is thirty times as
/// slow would inflate the spread and hide the next one.
pub(super) const REACH: f64 = 10.0;

/// Centre and spread of one statistic.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Level {
    pub center: f64,
    pub spread: f64,
    /// The usual sampling error of one window; 0 if unknown.
    pub error: f64,
    pub windows: usize,
}

impl Level {
    /// Learns from the values of past windows; `error`: see [`Level::error`]. `None` without any window.
    pub fn learn<T: Number>(values: &Sorted<T>, error: f64) -> Option<Level> {
        let windows = values.len();
        if windows == 0 {
            return None;
        }
        let center = values.median();
        let (robust, usual) = (values.median_distance(center) * MAD_TO_SIGMA, USUAL_SPREAD * center.abs());
        let reach = REACH * robust.max(usual).max(error);
        let reach = if reach > 0.0 { reach } else { f64::INFINITY };
        let seen = robust.max(values.mean_and_deviation(center, reach).1);
        let freedom = windows as f64 - 1.0;
        let mixed = (USUAL_WINDOWS * usual * usual + freedom * seen * seen) / (USUAL_WINDOWS + freedom);
        Some(Level { center, spread: mixed.sqrt().max(seen).max(error), error, windows })
    }

    /// Returns the distance of a window above the centre, in spreads; `error`: the sampling error of the
    /// window.
    pub fn distance(&self, value: f64, error: f64) -> f64 {
        self.distance_in(value, error, 0.0)
    }

    /// Like [`Self::distance`], with a spread of at least `least`.
    pub fn distance_in(&self, value: f64, error: f64, least: f64) -> f64 {
        let worse = (error * error - self.error * self.error).max(0.0);
        let variance = (self.variance() + worse).max(least * least);
        if variance > 0.0 { (value - self.center) / variance.sqrt() } else { 0.0 }
    }

    /// Returns the variance of the distance between the centre and one more window.
    pub fn variance(&self) -> f64 {
        self.spread * self.spread * (1.0 + 1.0 / self.windows as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::super::tails::student_limit;
    use super::*;

    fn learn(values: &[f64]) -> Option<Level> {
        Level::learn(&Sorted::of(values.to_vec()), 0.0)
    }

    #[test]
    fn order_and_unit_of_windows_do_not_matter_and_one_outlier_hardly() {
        let values = [10.0, 11.0, 9.0, 10.5, 9.5, 10.2, 9.8, 10.1, 9.9, 10.0];
        let level = learn(&values).expect("windows");
        let mut turned = values;
        turned.reverse();
        assert_eq!(learn(&turned).map(|other| other.center), Some(level.center));
        let scaled = learn(&values.map(|value| value * 1_000.0)).expect("windows");
        assert!((scaled.distance(12_000.0, 0.0) - level.distance(12.0, 0.0)).abs() < 1e-9);
        let mut spoiled = values;
        spoiled[3] = 1e6;
        let spoiled = learn(&spoiled).expect("windows");
        assert!((9.8..=10.2).contains(&spoiled.center) && spoiled.spread < 3.0 * level.spread);
    }

    /// Anchor: the false positive rate is at most 1.2 alpha for every length of the baseline.
    #[test]
    fn unchanged_windows_pass_the_limit_no_more_often_than_stated() {
        let (alpha, nulls) = (1e-2, 40_000);
        for windows in [8usize, 12, 24, 48, 200] {
            let (mut dice, mut passed) = (Dice(windows as u64), 0);
            let limit = student_limit(alpha, windows as f64 - 1.0);
            for _ in 0..nulls {
                let past: Vec<f64> = (0..windows).map(|_| 100.0 + 5.0 * dice.normal()).collect();
                let level = learn(&past).expect("windows");
                passed += u32::from(level.distance(100.0 + 5.0 * dice.normal(), 0.0) > limit);
            }
            let share = f64::from(passed) / f64::from(nulls);
            assert!(share <= 1.2 * alpha, "{windows} windows: {share}, limit {limit}");
        }
    }
}
