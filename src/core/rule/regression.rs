//! `regression`: is this window worse than its own past, by enough, and more than by chance?
//!
//! Intuition: the unit of replication is the window, not the request: with hundreds of requests a
//! window, the spread from window to window is what a change must exceed. So the baseline is one
//! aggregate per past window; its median and robust spread say what is normal, and a change counts
//! when it passes a t limit for that many windows and is at least [`EFFECT_MIN`] large.
//! Formula: score = (x − median) / (spread × √(1 + 1/B)); limit = t(99.9 %, B − 1).
//! Rejected: tests on the requests themselves (Kolmogorov–Smirnov, Mann–Whitney), which call a
//! fifth of all unchanged windows changed; and a bare MAD, which is zero for steady metrics.
//! Cost: one sort of the baseline's aggregates, B log B.

use super::super::alert::transition::Baseline;
use super::super::pane::{Pane, Shape};
use super::super::time::{Span, Timestamp};
use super::ast::{Aggregate, Side};

/// Fewer past windows than this are no baseline.
pub const WINDOWS_MIN: usize = 12;

/// A change smaller than this is nobody's business, however significant.
pub const EFFECT_MIN: f64 = 0.03;

/// The spread is never taken to be below this share of the median.
const SPREAD_MIN: f64 = 0.01;

/// One-sided: a quiet window passes by chance once in a thousand.
const Z_LIMIT: f64 = 3.090_232;

/// MAD × this estimates the standard deviation of a normal distribution.
const MAD_TO_SIGMA: f64 = 1.482_602;

/// What the comparison found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Signed relative change; 0 where it is not significant.
    pub change: f64,
    pub median: f64,
    pub spread: f64,
    pub score: f64,
    pub limit: f64,
    pub windows: usize,
}

/// Compares with the aggregates of past windows; `None` without enough of them.
pub fn judge(now: f64, mut past: Vec<f64>, side: Side) -> Option<Verdict> {
    if past.len() < WINDOWS_MIN {
        return None;
    }
    let windows = past.len();
    let median = median(&mut past);
    if median == 0.0 {
        return None;
    }
    let mut distances: Vec<f64> = past.iter().map(|value| (value - median).abs()).collect();
    let mad = self::median(&mut distances) * MAD_TO_SIGMA;
    let spread = mad.max(SPREAD_MIN * median.abs());
    let score = (now - median) / (spread * (1.0 + 1.0 / windows as f64).sqrt());
    let limit = t_limit(windows - 1);
    let change = (now - median) / median.abs();
    let is_passed = match side {
        Side::Above => score > limit && change >= EFFECT_MIN,
        Side::Below => score < -limit && change <= -EFFECT_MIN,
    };
    let change = if is_passed { change } else { 0.0 };
    Some(Verdict { change, median, spread, score, limit, windows })
}

impl Verdict {
    /// The baseline as the evidence names it; `end`: where its newest window may end.
    pub fn evidence(&self, end: Timestamp) -> Baseline {
        Baseline {
            version: Some(format!("{}@{end}", self.windows)),
            median: Some(self.median),
            spread: Some(self.spread),
            windows: Some(self.windows),
            score: Some(self.score),
            limit: Some(self.limit),
        }
    }
}

/// The aggregate of one whole past window.
pub fn aggregate(pane: &Pane, shape: Shape, aggregate: Aggregate, window: Span) -> Option<f64> {
    match aggregate {
        Aggregate::Count => Some(pane.count as f64),
        Aggregate::Sum => Some(pane.sum),
        Aggregate::RateOfCount => Some(pane.count as f64 / window.secs_f64()),
        Aggregate::RateOfSum => Some(pane.sum / window.secs_f64()),
        Aggregate::Avg => pane.avg(),
        Aggregate::Min => Some(pane.min),
        Aggregate::Max => Some(pane.max),
        Aggregate::Last => pane.last(),
        Aggregate::Quantile(q) => pane.quantile(shape, q),
        // Refused when the rule is checked: a pane alone does not know its spread.
        Aggregate::Stddev => None,
    }
}

/// The middle value; of an even number, the mean of the two in the middle. Not for empty input.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Quantile of Student's t for `Z_LIMIT`'s probability, by the Cornish–Fisher expansion
/// (Abramowitz & Stegun 26.7.5); within 1 % from 11 degrees of freedom on.
fn t_limit(freedom: usize) -> f64 {
    let (z, n) = (Z_LIMIT, freedom as f64);
    let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
    z + (z3 + z) / (4.0 * n)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * n * n)
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * n * n * n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_tables() {
        // One-sided 99.9 % points of Student's t.
        for (freedom, table) in [(11, 4.025), (20, 3.552), (30, 3.385), (60, 3.232), (120, 3.160)] {
            assert!((t_limit(freedom) / table - 1.0).abs() < 0.01, "{freedom}: {}", t_limit(freedom));
        }
    }

    #[test]
    fn a_change_must_be_large_and_significant_and_to_the_side_asked_for() {
        let past: Vec<f64> = (0..24).map(|n| 100.0 + f64::from(n % 5)).collect();
        let change = |now, side| judge(now, past.clone(), side).map(|verdict| verdict.change);
        assert_eq!(change(103.0, Side::Above), Some(0.0));
        assert!(change(150.0, Side::Above).is_some_and(|change| (change - 0.47).abs() < 0.02));
        assert_eq!(change(150.0, Side::Below), Some(0.0));
        assert!(change(60.0, Side::Below).is_some_and(|change| change < -0.4));
        assert_eq!(judge(150.0, past[..11].to_vec(), Side::Above), None);
    }

    #[test]
    fn a_steady_metric_has_a_spread_all_the_same() {
        let steady = vec![50.0; 30];
        assert_eq!(judge(50.5, steady.clone(), Side::Above).map(|v| v.change), Some(0.0));
        assert!(judge(60.0, steady, Side::Above).is_some_and(|v| v.change > 0.19));
    }
}
