//! The exact test for small shares. In a metric of zeros and ones (a gate that passes or fails, an error or
//! none), the ones are hits. If hits are few, the spread between windows is no basis for a t-test.
//!
//! Intuition: if nothing changed, the values of this window are a random sample of all values, past ones
//! included.
//! Formula: Fisher's exact test. This window has n values and x hits, the past has N values and K hits. P(X ≥
//! x) is that of the hypergeometric distribution with n of n + N values drawn, of which x + K are hits. For a
//! fall, the misses are tested in the same way. If past windows are overdispersed, all numbers are divided by
//! the overdispersion (quasi-binomial).
//! Rejected: the binomial with the past's share taken as known (after a past without any failure, the first
//! failure would be a certain change), and the t-test (a gate that fails once a day alarms each time).
//! Cost: tens of terms of a series, only if fewer than five hits or misses are expected.

use super::sorted::Sorted;
use crate::core::vocab::comparison::Side;
use libm::{exp, lgamma};
use serde::{Deserialize, Serialize};

/// Minimum number of expected hits and of expected misses for the t-test; the spread between windows is then
/// a sufficient basis.
const EXPECTED_MIN: f64 = 5.0;

/// Maximum distance of a sum of zeros and ones from a whole number, per value. The sum is computed from an
/// average, which is rounded.
const ROUNDING: f64 = 1e-6;

/// Relative size below which further terms no longer change a sum.
const NOTHING: f64 = 1e-15;

/// The baseline of a share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shares {
    /// Number of values of all past windows, and number of ones among them.
    values: f64,
    hits: f64,
    /// Overdispersion: the variance between windows divided by the variance by chance, at least 1.
    width: f64,
}

/// Whether the averages may be those of zeros and ones: none is below 0 or above 1.
pub(crate) fn may_be_shares(averages: &Sorted<f64>) -> bool {
    averages.extremes().is_some_and(|(least, most)| least >= 0.0 && most <= 1.0)
}

impl Shares {
    /// Learns from (number of values, average) of each window; `None` if these are not averages of zeros and
    /// ones.
    pub(crate) fn learn(windows: impl Iterator<Item = (f64, f64)> + Clone) -> Option<Shares> {
        let mut all = windows.clone();
        if !all.all(|(count, average)| is_share(count, average)) {
            return None;
        }
        let add = |(n, values, hits): (f64, f64, f64), (count, average): (f64, f64)| {
            (n + 1.0, values + count, hits + (count * average).round())
        };
        let (n, values, hits) = windows.clone().fold((0.0, 0.0, 0.0), add);
        let share = hits / values;
        let chance = share * (1.0 - share);
        let apart: f64 = windows.map(|(count, average)| count * (average - share) * (average - share)).sum();
        let width = if chance > 0.0 && n > 1.0 { apart / (n - 1.0) / chance } else { 1.0 };
        (values > 0.0).then_some(Shares { values, hits, width: width.max(1.0) })
    }

    /// Returns the share of ones.
    pub(crate) fn usual(&self) -> f64 {
        self.hits / self.values
    }

    /// Returns the p-value of the share `average` in a window of `count` values, for a rise or a fall
    /// according to `side`. `None` if the average is not one of zeros and ones, or if enough hits and misses
    /// are expected for the t-test.
    pub(crate) fn p_value(&self, count: f64, average: f64, side: Side) -> Option<f64> {
        let expected = count * self.usual().min(1.0 - self.usual());
        if expected >= EXPECTED_MIN || !is_share(count, average) {
            return None;
        }
        let whole = |number: f64| (number / self.width).round();
        let (drawn, rest) = (whole(count), whole(self.values));
        let hits = (count * average).round();
        let (hits, known) = match side {
            Side::Above => (hits, self.hits),
            Side::Below => (count - hits, self.values - self.hits),
        };
        let (hits, known) = (whole(hits), whole(known));
        Some(hypergeometric_at_least(hits, drawn, known + hits, drawn + rest))
    }
}

fn is_share(count: f64, average: f64) -> bool {
    let sum = count * average;
    (0.0..=1.0).contains(&average) && (sum - sum.round()).abs() <= ROUNDING * count.max(1.0)
}

/// Returns P(X ≥ x) for `drawn` of `all` values drawn, of which `hits` are hits; all numbers are whole.
fn hypergeometric_at_least(x: f64, drawn: f64, hits: f64, all: f64) -> f64 {
    let most = drawn.min(hits);
    if x <= (drawn + hits - all).max(0.0) {
        return 1.0;
    }
    let ways = |n: f64, k: f64| lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0);
    let mut term = exp(ways(hits, x) + ways(all - hits, drawn - x) - ways(all, drawn));
    let (mut sum, mut at) = (term, x);
    while at < most && (term > sum * NOTHING || at < drawn * hits / all) {
        term *= (hits - at) * (drawn - at) / ((at + 1.0) * (all - hits - drawn + at + 1.0));
        sum += term;
        at += 1.0;
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::*;

    fn learn(windows: &[(f64, f64)]) -> Option<Shares> {
        Shares::learn(windows.iter().copied())
    }

    #[test]
    fn chances_are_those_of_fishers_exact_test() {
        // The lady tasting tea: 4 of 8 drawn, 4 hits: 1/70 for all, 17/70 for three or more.
        assert!((hypergeometric_at_least(4.0, 4.0, 4.0, 8.0) - 1.0 / 70.0).abs() < 1e-12);
        assert!((hypergeometric_at_least(3.0, 4.0, 4.0, 8.0) - 17.0 / 70.0).abs() < 1e-12);
        assert_eq!(hypergeometric_at_least(0.0, 4.0, 4.0, 8.0), 1.0);
        // A table of 3 in 5 against 1 in 15: P = (C(4,3) C(16,2) + C(4,4) C(16,1)) / C(20,5).
        let shares = learn(&[(8.0, 0.125), (7.0, 0.0)]).expect("zeros and ones");
        let exact = (4.0 * 120.0 + 16.0) / 15_504.0;
        assert!((shares.p_value(5.0, 0.6, Side::Above).expect("few") - exact).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_share_is_not_judged() {
        assert_eq!(learn(&[(10.0, 0.55)]), None);
        assert_eq!(learn(&[(10.0, 1.5)]), None);
        assert_eq!(learn(&[]), None);
        let shares = learn(&[(10.0, 0.1); 20]).expect("zeros and ones");
        assert_eq!(shares.p_value(10.0, 0.55, Side::Above), None);
        assert_eq!(shares.p_value(1_000.0, 0.5, Side::Above), None, "as many have a spread");
    }

    #[test]
    fn the_first_failure_of_a_gate_is_no_proof_and_ten_are() {
        let always = learn(&[(20.0, 1.0); 24]).expect("zeros and ones");
        assert!(always.p_value(20.0, 0.95, Side::Below).expect("few") > 0.03);
        assert!(always.p_value(20.0, 0.5, Side::Below).expect("few") < 1e-9);
        assert_eq!(always.p_value(20.0, 1.0, Side::Below), Some(1.0));
    }

    /// Goal: neither a rise nor a fall is significant more often than stated. Method: windows of 5 to 40
    /// values with a share of 2, 10, 50 and 98 %.
    #[test]
    fn the_level_holds_for_small_shares() {
        for (share, count) in [(0.02, 40), (0.1, 20), (0.5, 5), (0.98, 40)] {
            let (mut dice, mut passed, rounds) = (Dice(21), [0, 0], 20_000);
            for _ in 0..rounds {
                let mut window = || {
                    let hits = (0..count).filter(|_| dice.uniform() < share).count();
                    (f64::from(count), hits as f64 / f64::from(count))
                };
                let past: Vec<(f64, f64)> = (0..24).map(|_| window()).collect();
                let (shares, now) = (learn(&past).expect("zeros and ones"), window());
                for (at, side) in [Side::Above, Side::Below].into_iter().enumerate() {
                    passed[at] += u32::from(shares.p_value(now.0, now.1, side).expect("few") < 0.01);
                }
            }
            assert!(passed.iter().all(|n| *n < rounds / 100), "share {share}: {passed:?} of {rounds}");
        }
    }
}
