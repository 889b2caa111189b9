//! The exact test for counts that are too small for a t-test.
//!
//! Formula: P(X ≥ x) of a Poisson distribution with the past's mean for a rise, P(X ≤ x) for a fall. If the
//! past's counts are overdispersed, count and mean are divided by the overdispersion (quasi-Poisson).
//! Rejected: the t-test alone (with a mean of one it reports a count of three). Cost: tens of terms of a
//! series.

use super::sorted::Sorted;
use super::tails::poisson_at_least;
use crate::core::vocab::comparison::Side;
use serde::{Deserialize, Serialize};

/// The baseline of a count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    mean: f64,
    /// Factor from the queried value to a count: the seconds of a window for a rate, 1 for a count.
    scale: f64,
    /// Overdispersion: variance divided by mean, at least 1.
    width: f64,
}

impl Counts {
    /// Learns from past values; `None` if all counts are zero.
    pub(crate) fn learn(past: &Sorted<f64>, scale: f64) -> Option<Counts> {
        let (mean, deviation) = past.mean_and_deviation(0.0, f64::INFINITY);
        let (mean, deviation) = (mean * scale, deviation * scale);
        (mean > 0.0).then(|| Counts { mean, scale, width: (deviation * deviation / mean).max(1.0) })
    }

    /// Returns the mean count per window.
    pub(crate) fn mean(&self) -> f64 {
        self.mean
    }

    /// Returns the mean of the queried value.
    pub(crate) fn usual(&self) -> f64 {
        self.mean / self.scale
    }

    /// Returns the p-value of a value, for a rise or a fall according to `side`.
    pub(crate) fn p_value(&self, value: f64, side: Side) -> f64 {
        let (mean, count) = (self.mean / self.width, value * self.scale / self.width);
        match side {
            Side::Above => poisson_at_least(count.ceil().max(0.0) as u64, mean),
            Side::Below => 1.0 - poisson_at_least(count.floor().max(0.0) as u64 + 1, mean),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(counts: &[f64]) -> Option<Counts> {
        Counts::learn(&Sorted::of(counts.to_vec()), 1.0)
    }

    #[test]
    fn small_counts_are_judged_exactly() {
        let past = [1.0, 0.0, 2.0, 1.0, 1.0, 0.0, 2.0, 1.0];
        let counts = learn(&past).expect("a mean");
        let exact = 1.0 - libm::exp(-1.0) * (1.0 + 1.0 + 0.5);
        assert!((counts.p_value(3.0, Side::Above) - exact).abs() < 1e-12);
        assert!((counts.p_value(0.0, Side::Below) - libm::exp(-1.0)).abs() < 1e-12);
        assert_eq!(learn(&[0.0; 9]), None);
        let wide = learn(&[0.0, 0.0, 0.0, 20.0, 0.0, 0.0, 0.0, 20.0]).expect("a mean");
        assert!(wide.p_value(20.0, Side::Above) > 0.02, "bursts are usual here");
    }
}
