//! Limits learned from past durations: how long a silence lasts, or how old a run grows, before it is
//! unusual.
//!
//! Intuition: a pipeline that works every second is stuck after a minute; a pipeline that works every hour is
//! not.
//! Formula: the limit for silences is max(−ln α / λ, 2 × the longest of the last 1,000 gaps) with λ = 1 /
//! mean gap and α = 1e-5. A gap beyond the limit is recorded as one at the limit. The limit for ages is 1.5 ×
//! the 99.9th percentile of the last 1,000 durations.
//! Rejected: the first term alone (1,654 false stalls in a million log-normal gaps), the second term alone
//! (84).
//! Cost: O(1) per duration; O(n) per gap and per request of a limit.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Maximum number of durations kept; they take 4 KB.
const KEPT: usize = 1_000;

/// Minimum number of durations for a limit.
const LEAST: usize = 20;

const ALPHA_LOG: f64 = 11.512_925_464_970_229; // −ln 1e-5
const LONGEST_TIMES: f64 = 2.0;
const AGE_QUANTILE: f64 = 0.999;
const AGE_TIMES: f64 = 1.5;

/// The newest durations, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Durations(VecDeque<u32>);

impl Durations {
    pub(crate) fn add(&mut self, ms: i64) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(ms.clamp(0, i64::from(u32::MAX)) as u32);
    }

    /// Returns the newest durations, newest first, in seconds.
    pub(crate) fn newest_secs(&self, count: usize) -> impl Iterator<Item = f64> {
        self.0.iter().rev().take(count).map(|ms| f64::from(*ms) / 1e3)
    }

    /// Returns the values of the ranks `ceil(q × n)`, in seconds; `None` without any duration.
    pub(crate) fn quantiles_secs<const N: usize>(&self, qs: [f64; N]) -> Option<[f64; N]> {
        let sorted = self.sorted();
        (!sorted.is_empty()).then(|| qs.map(|q| super::quantile_of_sorted(&sorted, q) / 1e3))
    }

    /// Returns the median of the newest `count` durations and that of the durations before them, in seconds;
    /// `None` until there are enough of both.
    pub(crate) fn newest_and_usual_secs(&self, count: usize) -> Option<(f64, f64)> {
        if self.0.len() < count + LEAST {
            return None;
        }
        let mut all: Vec<f64> = self.newest_secs(self.0.len()).collect();
        let (newest, usual) = all.split_at_mut(count);
        Some((super::median(newest), super::median(usual)))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted: Vec<f64> = self.0.iter().map(|ms| f64::from(*ms)).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted
    }

    /// Adds a gap. A gap beyond the limit is unusual, so it is recorded as one at the limit. So one gap can
    /// at most double the limit.
    pub(crate) fn add_gap(&mut self, ms: i64) {
        let limit = self.gap_limit_ms().unwrap_or(f64::INFINITY);
        self.add(if ms as f64 > limit { limit as i64 } else { ms });
    }

    /// Returns the longest usual gap, in milliseconds; `None` until enough gaps are known.
    pub(crate) fn gap_limit_ms(&self) -> Option<f64> {
        if self.0.len() < LEAST {
            return None;
        }
        let sum: f64 = self.0.iter().map(|ms| f64::from(*ms)).sum();
        let longest = self.0.iter().copied().max().map_or(0.0, f64::from);
        Some((ALPHA_LOG * sum / self.0.len() as f64).max(LONGEST_TIMES * longest))
    }

    /// Returns the greatest usual age, in milliseconds; `None` until enough durations are known.
    pub(crate) fn age_limit_ms(&self) -> Option<f64> {
        if self.0.len() < LEAST {
            return None;
        }
        Some(AGE_TIMES * super::quantile_of_sorted(&self.sorted(), AGE_QUANTILE))
    }
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::*;

    #[test]
    fn limits_are_those_of_the_formula() {
        let mut regular = Durations::default();
        (0..19).for_each(|_| regular.add(1_000));
        assert_eq!((regular.gap_limit_ms(), regular.age_limit_ms()), (None, None));
        regular.add(1_000);
        let limit = regular.gap_limit_ms().expect("enough");
        assert!((limit - 11_512.9).abs() < 0.1 && regular.age_limit_ms() == Some(1_500.0));
        regular.add(30_000);
        assert_eq!((regular.gap_limit_ms(), regular.age_limit_ms()), (Some(60_000.0), Some(45_000.0)));
        (0..1_000).for_each(|_| regular.add(1_000));
        assert!(regular.gap_limit_ms().is_some_and(|limit| limit < 12_000.0), "it is forgotten");
    }

    /// Anchor: at most 20 false stalls in 200,000 gaps, exponential, log-normal or products of normal values.
    #[test]
    fn usual_gaps_are_no_stalls() {
        let kinds: [(&str, fn(&mut Dice) -> f64); 3] = [
            ("exponential", Dice::exponential),
            ("log-normal", |dice| libm::exp(dice.normal())),
            ("gamma", |dice| dice.normal() * dice.normal()),
        ];
        for (kind, gap) in kinds {
            let (mut dice, mut gaps, mut stalls) = (Dice(13), Durations::default(), 0);
            for _ in 0..200_000 {
                let ms = (gap(&mut dice).abs() * 1_000.0) as i64;
                stalls += u32::from(gaps.gap_limit_ms().is_some_and(|limit| ms as f64 > limit));
                gaps.add(ms);
            }
            assert!(stalls <= 20, "{kind}: {stalls} in 200,000");
        }
    }
}
