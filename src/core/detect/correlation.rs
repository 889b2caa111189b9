//! `correlation`: tests whether two aggregates rise and fall together.
//!
//! Intuition: ranks replace values, so neither outliers nor units matter.
//! Formula: Spearman's ρ with mean ranks for ties. The significance is that of Fisher's z with n_eff = n (1 −
//! r₁ r₂) / (1 + r₁ r₂), where r₁ and r₂ are the lag-1 autocorrelations of the series: two autocorrelated
//! series often move together by chance.
//! Rejected: Pearson's coefficient (one common spike makes it 1). Cost: O(n log n) per closed window.

use super::mean_and_deviation;
use super::tails::normal_above;
use libm::log;
use serde::{Deserialize, Serialize};

/// Minimum number of windows that both series have.
pub(crate) const WINDOWS_MIN: usize = 8;

/// The rank correlation of two series of windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Correlation {
    /// Spearman's ρ, between −1 and 1.
    pub rho: f64,
    /// Two-sided p-value.
    pub p: f64,
    pub windows: usize,
}

impl Correlation {
    /// Learns from the pairs of values of common windows, oldest first. `None` with too few pairs, or if one
    /// series is constant.
    pub(crate) fn learn(pairs: &[(f64, f64)]) -> Option<Correlation> {
        if pairs.len() < WINDOWS_MIN {
            return None;
        }
        let a = ranks(&pairs.iter().map(|pair| pair.0).collect::<Vec<f64>>());
        let b = ranks(&pairs.iter().map(|pair| pair.1).collect::<Vec<f64>>());
        let rho = pearson(&a, &b)?;
        let neighbours = lag(&a) * lag(&b);
        let effective = pairs.len() as f64 * (1.0 - neighbours) / (1.0 + neighbours);
        let bounded = rho.clamp(-0.999_999_9, 0.999_999_9);
        let z = 0.5 * log((1.0 + bounded) / (1.0 - bounded)) * (effective - 3.0).max(0.0).sqrt();
        Some(Correlation { rho, p: 2.0 * normal_above(z.abs()), windows: pairs.len() })
    }
}

/// Returns ranks from 1; equal values share the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut begin = 0;
    for tied in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = begin as f64 + (tied.len() as f64 + 1.0) / 2.0;
        tied.iter().for_each(|at| ranks[*at] = rank);
        begin += tied.len();
    }
    ranks
}

fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let ((mean_a, _), (mean_b, _)) = (mean_and_deviation(a), mean_and_deviation(b));
    let sum =
        |of: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| of(a - mean_a, b - mean_b)).sum::<f64>();
    let scale = (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt();
    (scale > 0.0).then(|| (sum(&|a, b| a * b) / scale).clamp(-1.0, 1.0))
}

/// Returns the lag-1 autocorrelation, within ±0.9; 0 if it is undefined.
fn lag(values: &[f64]) -> f64 {
    pearson(&values[1..], &values[..values.len() - 1]).unwrap_or(0.0).clamp(-0.9, 0.9)
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::*;

    #[test]
    fn copies_agree_opposites_disagree_and_constants_say_nothing() {
        let of = |f: fn(f64) -> f64| {
            Correlation::learn(&(0..20).map(|n| (f64::from(n), f(f64::from(n)))).collect::<Vec<_>>())
        };
        assert_eq!(of(|x| x * x).map(|found| found.rho), Some(1.0));
        assert_eq!(of(|x| -x).map(|found| found.rho), Some(-1.0));
        assert_eq!(of(|_| 3.0), None);
        assert_eq!(ranks(&[10.0, 20.0, 10.0, 30.0]), [1.5, 3.0, 1.5, 4.0]);
    }

    /// Anchor: at a significance level of 1 %, at most 1.6 % of independent pairs with an autocorrelation of
    /// 0.6 are significant.
    #[test]
    fn slow_series_do_not_correlate_by_chance() {
        let (mut dice, mut passed, rounds) = (Dice(23), 0, 8_000);
        for _ in 0..rounds {
            let (a, b) = (dice.correlated(60, 0.6), dice.correlated(60, 0.6));
            let pairs: Vec<(f64, f64)> = a.into_iter().zip(b).collect();
            passed += u32::from(Correlation::learn(&pairs).is_some_and(|found| found.p < 0.01));
        }
        let share = f64::from(passed) / f64::from(rounds);
        assert!(share <= 0.016, "{share}");
    }
}
