//! Count, sum, extremes and spread of a trailing window.

use super::group::Trail;
use crate::core::measure::pane::sum_of;
use crate::core::vocab::time::Timestamp;

/// Count, sum, extremes and spread over some panes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Totals {
    pub count: u64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
    pub last: Option<(Timestamp, f64)>,
    pub(super) mean: f64,
    pub(super) m2: f64,
}

impl Default for Totals {
    fn default() -> Totals {
        Totals {
            count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            last: None,
            mean: 0.0,
            m2: 0.0,
        }
    }
}

impl Totals {
    pub(super) fn add(&mut self, trail: &Trail, has_spread: bool) {
        match has_spread {
            true => self.add_moments(trail.pane.count, trail.mean, trail.m2),
            false => self.count = self.count.saturating_add(trail.pane.count),
        }
        self.sum = sum_of(self.sum, trail.pane.sum);
        self.min = self.min.min(trail.pane.min);
        self.max = self.max.max(trail.pane.max);
        if let (Some(time), Some(value)) = (trail.pane.last_time(), trail.pane.last()) {
            self.last = self.last.filter(|(newest, _)| *newest > time).or(Some((time, value)));
        }
    }

    /// Adds `count` values by the pairwise form of Welford's update (Chan, Golub & LeVeque 1979).
    pub(super) fn add_moments(&mut self, count: u64, mean: f64, m2: f64) {
        let total = self.count as f64 + count as f64;
        if count > 0 {
            let distance = mean - self.mean;
            self.m2 += m2 + distance * distance * self.count as f64 * count as f64 / total;
            self.mean += distance * count as f64 / total;
            self.count = self.count.saturating_add(count);
        }
    }

    /// Population standard deviation, as PromQL's `stddev_over_time`; `None` while empty.
    pub(crate) fn stddev(&self) -> Option<f64> {
        (self.count > 0).then(|| (self.m2 / self.count as f64).sqrt())
    }
}
