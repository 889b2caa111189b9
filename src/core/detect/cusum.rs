//! CUSUM: finds when a change began, from the cumulative sum of the distances above normal, each less an
//! allowance.
//!
//! Intuition: each window adds its distance above the centre, less half a spread. While nothing changes, the
//! sum falls back to zero, so the change began after the last zero.
//! Formula: S = max(0, S + z − k) with z = (x − m) / s √((1 − r) / (1 + r)) kept within ±6, alarm if S > h.
//! The allowance is k = 0.5. The limit is h = 10 with a baseline of at least 300 windows and 12 with at
//! least 100; fewer are not enough.
//! Rejected: the plain spread without the long-run factor (half of all unchanged series alarm within 1,000
//! windows if neighbours correlate by 0.3).
//! Cost: O(1) per window; the sum and its length take 16 bytes.

use super::{long_run_factor, mean_and_deviation};

/// The allowance that is subtracted for each window, in spreads.
const ALLOWANCE: f64 = 0.5;

/// The distance of a single window is clipped at this many spreads.
const CLIP: f64 = 6.0;

/// Minimum number of windows in the baseline. With at least `WINDOWS_MANY` windows, the limit is `LIMIT`;
/// with fewer, it is `LIMIT_FEW`.
pub(crate) const WINDOWS_MIN: usize = 100;
const WINDOWS_MANY: usize = 300;
const LIMIT: f64 = 10.0;
const LIMIT_FEW: f64 = 12.0;

/// A running sum and the baseline from which its distances are measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cusum {
    center: f64,
    spread: f64,
    limit: f64,
    sum: f64,
    /// Number of windows since the sum was zero.
    since: usize,
}

impl Cusum {
    /// Creates the sum; `None` if the baseline is too short or has no spread.
    pub(crate) fn new(baseline: &[f64]) -> Option<Cusum> {
        if baseline.len() < WINDOWS_MIN {
            return None;
        }
        let (center, deviation) = mean_and_deviation(baseline);
        let spread = deviation * long_run_factor(baseline).sqrt();
        let limit = if baseline.len() < WINDOWS_MANY { LIMIT_FEW } else { LIMIT };
        (spread > 0.0).then_some(Cusum { center, spread, limit, sum: 0.0, since: 0 })
    }

    /// Adds the next window; `sign` is −1 to detect a fall. Returns how many windows ago the change began,
    /// if the sum exceeds the limit.
    pub(crate) fn add(&mut self, value: f64, sign: f64) -> Option<usize> {
        let z = (sign * (value - self.center) / self.spread).clamp(-CLIP, CLIP);
        self.sum = (self.sum + z - ALLOWANCE).max(0.0);
        self.since = if self.sum > 0.0 { self.since + 1 } else { 0 };
        (self.sum > self.limit).then_some(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::*;

    #[test]
    fn a_step_is_dated_where_it_was() {
        let mut dice = Dice(2);
        let baseline: Vec<f64> = (0..300).map(|_| dice.normal()).collect();
        let mut cusum = Cusum::new(&baseline).expect("a baseline");
        for _ in 0..50 {
            assert_eq!(cusum.add(dice.normal() * 0.5 - 0.5, 1.0), None);
        }
        let alarm = (1..20).find_map(|after| cusum.add(5.0 + dice.normal(), 1.0).map(|since| (after, since)));
        let (after, since) = alarm.expect("an alarm");
        assert!(after <= 4 && since.abs_diff(after) <= 2, "{after} {since}");
        assert_eq!(Cusum::new(&baseline[..99]), None);
        assert_eq!(Cusum::new(&[1.0; 200]), None);
    }

    /// Returns the share of unchanged series that alarm within 1,000 windows.
    fn false_alarms(windows: usize, r: f64) -> f64 {
        let (mut dice, rounds) = (Dice(41), 1_500);
        let alarms = (0..rounds).filter(|_| {
            let values = dice.correlated(windows + 1_000, r);
            let mut cusum = Cusum::new(&values[..windows]).expect("a baseline");
            values[windows..].iter().any(|value| cusum.add(*value, 1.0).is_some())
        });
        alarms.count() as f64 / rounds as f64
    }

    /// Anchors for the share of unchanged series that alarm, with autocorrelations of 0, 0.3 and 0.6: h = 10
    /// and 300 windows: 2.8, 3.0, 2.6 %; h = 12 and 100 windows: 1.6, 6.0, 5.0 %.
    #[test]
    fn unchanged_series_alarm_as_seldom_as_stated() {
        for (windows, r, at_most) in [
            (300, 0.0, 0.034),
            (300, 0.3, 0.036),
            (300, 0.6, 0.032),
            (100, 0.0, 0.019),
            (100, 0.3, 0.072),
            (100, 0.6, 0.06),
        ] {
            let share = false_alarms(windows, r);
            assert!(share <= at_most, "{windows} windows, correlation {r}: {share}");
        }
    }

    /// Anchor: a shift of one spread is found after 19 windows.
    #[test]
    fn a_shift_of_one_spread_is_found_in_about_twenty_windows() {
        let (mut dice, mut total, rounds) = (Dice(8), 0, 400);
        for _ in 0..rounds {
            let baseline: Vec<f64> = (0..300).map(|_| dice.normal()).collect();
            let mut cusum = Cusum::new(&baseline).expect("a baseline");
            total += (1..).find(|_| cusum.add(1.0 + dice.normal(), 1.0).is_some()).unwrap_or(0);
        }
        let mean = f64::from(total) / f64::from(rounds);
        assert!((mean / 19.0 - 1.0).abs() < 0.2, "{mean}");
    }
}
