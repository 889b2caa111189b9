//! Detectors: statistical methods that decide whether a window is unusual, by how much, and whether chance
//! alone explains it.
//!
//! Intuition: the unit of replication is the window, not the request. A detector compares one window with
//! the windows before it and derives from their spread what is normal.
//! Invariant: a result is a pure function of numbers. It depends on no clock and on no hidden state, so
//! equal windows give equal results.
//! Each file holds one method. Its module doc states the formula, the cost and the rejected alternatives.
//! Elementary functions come from `libm`, because the implementations of different platforms differ in the
//! last bit.

pub(crate) mod anomaly;
pub(crate) mod baseline;
pub(crate) mod bounds;
pub(crate) mod changepoint;
pub(crate) mod correlation;
pub(crate) mod counts;
pub(crate) mod cusum;
pub(crate) mod fdr;
pub(crate) mod learned;
pub mod regression;
pub(crate) mod shares;
pub(crate) mod slopes;
pub(crate) mod sorted;
pub(crate) mod tails;
pub(crate) mod trend;
pub(crate) mod zscore;

/// Factor from the median absolute deviation (MAD) to the standard deviation of a normal distribution.
pub const MAD_TO_SIGMA: f64 = 1.482_602_218_505_602;

/// Returns the median; for an even number of values, the mean of the two middle ones; 0 for no values.
/// Reorders the values; O(n).
pub fn median(values: &mut [f64]) -> f64 {
    match values.len() {
        0 => 0.0,
        len => middle(ranked(values, (len - 1) / 2, len / 2)),
    }
}

/// Returns the order statistics of ranks `lower` and `upper`, counted from 0; `lower` is `upper` or `upper` −
/// 1. Reorders the values; O(n).
fn ranked(values: &mut [f64], lower: usize, upper: usize) -> (f64, f64) {
    let (below, found, _) = values.select_nth_unstable_by(upper, f64::total_cmp);
    let found = *found;
    (if lower == upper { found } else { below.iter().copied().fold(f64::NEG_INFINITY, f64::max) }, found)
}

/// Returns the mean of the two middle values. It is exact if they are equal.
fn middle((lower, upper): (f64, f64)) -> f64 {
    if lower == upper { upper } else { (lower + upper) / 2.0 }
}

/// Returns the median distance from `center`, times [`MAD_TO_SIGMA`]: a robust estimate of the standard
/// deviation.
pub fn robust_spread(values: &[f64], center: f64) -> f64 {
    let mut distances: Vec<f64> = values.iter().map(|value| (value - center).abs()).collect();
    median(&mut distances) * MAD_TO_SIGMA
}

/// Returns mean and standard deviation with denominator n − 1; the deviation is 0 for fewer than two values.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (mean, if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}

/// Returns the value of rank `ceil(q × n)` in ascending values; 0 for no values.
pub fn quantile_of_sorted(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// Returns the lag-1 autocorrelation; 0 if the values do not vary.
pub fn lag_one(values: &[f64]) -> f64 {
    let (mean, _) = mean_and_deviation(values);
    let product = |pair: &[f64]| (pair[0] - mean) * (pair[1] - mean);
    let variance: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    if variance > 0.0 { values.windows(2).map(product).sum::<f64>() / variance } else { 0.0 }
}

/// Returns the factor by which autocorrelation inflates the variance of a mean: (1 + r) / (1 − r) with the
/// lag-1 autocorrelation r. The estimate is corrected for its bias, r + (1 + 3r) / n, and kept within 0 and
/// 0.9.
pub fn long_run_factor(values: &[f64]) -> f64 {
    let raw = lag_one(values);
    if raw == 0.0 {
        return 1.0;
    }
    let r = (raw + (1.0 + 3.0 * raw) / values.len() as f64).clamp(0.0, 0.9);
    (1.0 + r) / (1.0 - r)
}

/// A seeded random number generator for simulations in tests.
#[cfg(test)]
pub(crate) mod dice {
    /// The SplitMix64 generator with its state.
    pub(crate) struct Dice(pub u64);

    impl Dice {
        pub(crate) fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        }

        /// Returns a standard normal value by the method of Box and Muller.
        pub(crate) fn normal(&mut self) -> f64 {
            let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
            radius * (std::f64::consts::TAU * self.uniform()).cos()
        }

        pub(crate) fn exponential(&mut self) -> f64 {
            -(1.0 - self.uniform()).ln()
        }

        /// Returns `n` values with lag-1 autocorrelation `r` and standard deviation 1.
        pub(crate) fn correlated(&mut self, n: usize, r: f64) -> Vec<f64> {
            let mut value = self.normal();
            let step = |dice: &mut Dice, value: &mut f64| {
                *value = r * *value + (1.0 - r * r).sqrt() * dice.normal();
                *value
            };
            (0..n).map(|_| step(self, &mut value)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads_are_those_of_sorted_values() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
        assert!((robust_spread(&[1.0, 2.0, 3.0, 4.0, 100.0], 3.0) - MAD_TO_SIGMA).abs() < 1e-12);
        let (mean, deviation) = mean_and_deviation(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert!((mean - 5.0).abs() < 1e-12 && (deviation - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn correlated_neighbours_widen_the_mean() {
        let mut dice = dice::Dice(1);
        let (white, red) = (dice.correlated(5_000, 0.0), dice.correlated(5_000, 0.5));
        assert!((long_run_factor(&white) - 1.0).abs() < 0.1);
        assert!((long_run_factor(&red) - 3.0).abs() < 0.3);
        assert_eq!(long_run_factor(&[1.0; 9]), 1.0);
    }
}
