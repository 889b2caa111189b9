//! Shares of few: a metric of zeros and ones (a gate that passes or fails, an error or none) has no spread worth a t.
//!
//! Intuition: if nothing changed, the hits of the past and of this window are one heap, from which the window
//! drew its own by chance. Formula: Fisher's exact test, P(X ≥ x) of the hypergeometric distribution with
//! n of n + N drawn, of which x + K are hits; below the same of the misses. Where past windows lie further
//! apart than chance puts them, all numbers are divided by how much further (quasi-binomial).
//! Rejected: the binomial with the past's share taken as known (a past without any failure makes the first one
//! certain), and the t limit (a gate that fails once a day alarms each time).
//! Cost: tens of steps, only where less than five hits or misses are expected.

use super::sorted::Sorted;
use crate::core::rule::ast::Side;
use libm::{exp, lgamma};
use serde::{Deserialize, Serialize};

/// With as many hits and as many misses expected in a window, the spread between windows tells as well.
const EXPECTED_MIN: f64 = 5.0;

/// How far from whole numbers sums of zeros and ones may lie: an average is rounded.
const ROUNDING: f64 = 1e-6;

/// Terms of a sum that no longer change it.
const NOTHING: f64 = 1e-15;

/// What is normal for a share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// Values of all past windows, and how many of them were ones.
    values: f64,
    hits: f64,
    /// Variance between windows by that of chance, at least 1.
    width: f64,
}

/// Whether averages may be of zeros and ones at all: none lies outside.
pub fn may_be_shares(averages: &Sorted<f64>) -> bool {
    averages.extremes().is_some_and(|(least, most)| least >= 0.0 && most <= 1.0)
}

impl Shares {
    /// Of (values, average) of each window; `None` where these are no averages of zeros and ones.
    pub fn learn(windows: impl Iterator<Item = (f64, f64)> + Clone) -> Option<Shares> {
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

    /// The share of ones.
    pub fn usual(&self) -> f64 {
        self.hits / self.values
    }

    /// The chance of a share as far to this side in a window of `count` values; `None` where it is no share,
    /// or where enough of both is expected.
    pub fn chance(&self, count: f64, average: f64, side: Side) -> Option<f64> {
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

/// P(X ≥ x) where `drawn` of `all` are drawn, of which `hits` are hits; all whole.
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
        // 3 of 5 against 1 of 15, of a table: P = (C(4,3) C(16,2) + C(4,4) C(16,1)) / C(20,5).
        let shares = learn(&[(8.0, 0.125), (7.0, 0.0)]).expect("zeros and ones");
        let exact = (4.0 * 120.0 + 16.0) / 15_504.0;
        assert!((shares.chance(5.0, 0.6, Side::Above).expect("few") - exact).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_share_is_not_judged() {
        assert_eq!(learn(&[(10.0, 0.55)]), None);
        assert_eq!(learn(&[(10.0, 1.5)]), None);
        assert_eq!(learn(&[]), None);
        let shares = learn(&[(10.0, 0.1); 20]).expect("zeros and ones");
        assert_eq!(shares.chance(10.0, 0.55, Side::Above), None);
        assert_eq!(shares.chance(1_000.0, 0.5, Side::Above), None, "as many have a spread");
    }

    #[test]
    fn the_first_failure_of_a_gate_is_no_proof_and_ten_are() {
        let always = learn(&[(20.0, 1.0); 24]).expect("zeros and ones");
        assert!(always.chance(20.0, 0.95, Side::Below).expect("few") > 0.03);
        assert!(always.chance(20.0, 0.5, Side::Below).expect("few") < 1e-9);
        assert_eq!(always.chance(20.0, 1.0, Side::Below), Some(1.0));
    }

    /// Windows of 5 to 40 values with a share of 2, 10 and 50 %: no side is passed more often than stated.
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
                    passed[at] += u32::from(shares.chance(now.0, now.1, side).expect("few") < 0.01);
                }
            }
            assert!(passed.iter().all(|n| *n < rounds / 100), "share {share}: {passed:?} of {rounds}");
        }
    }
}
