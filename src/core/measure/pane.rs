//! A pane: all data kept of one series (or group) over one interval.
//!
//! Intuition: a pane holds the count, the sum, the extremes, the latest value, and a histogram for quantiles.
//! Two panes of neighbouring intervals add up to the pane of both, so a 5m window is five 1m windows and a 1h
//! window is twelve 5m windows.
//! Invariant: `merge` of panes equals recording their values one by one, except for the rounding of `sum`.
//! Rejected: averaging the quantiles of parts, which is wrong for every distribution.

use super::histogram::Histogram;
use super::histogram::layout::Digits;
use super::histogram::rank::from_top;
use crate::core::vocab::limits::STEPS_MAX;
use crate::core::vocab::time::Timestamp;
use crate::core::vocab::unit::Resolution;
use serde::{Deserialize, Serialize};

/// The mapping from values to histogram buckets; fixed for the life of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    pub digits: Digits,
    pub resolution: Resolution,
}

/// The values of one series over one interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pane {
    pub count: u64,
    pub sum: f64,
    pub min: f64,                     // +inf while empty
    pub max: f64,                     // -inf while empty
    last: f64,                        // meaningless while last_time is MIN
    last_time: Timestamp,             // MIN: unknown
    pub overflow: u64,                // values whose magnitude was saturated
    positive: Histogram,              // steps of values >= 0
    negative: Option<Box<Histogram>>, // steps of the magnitudes of values < 0
}

/// All of a pane except its histograms, as the stores keep it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plain {
    pub count: u64,
    pub sum: f64,
    pub extremes: Option<(f64, f64)>, // None: empty
    pub last: Option<(f64, Timestamp)>,
    pub overflow: u64,
}

/// Number of values above which a pane is busy. The pane after a busy pane most likely gets as many values.
const BUSY_COUNT: u64 = 48;

/// A value ready to be recorded. The bucket is computed once for all panes that record the value.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub value: f64,
    pub time: Timestamp,
    bucket: u16,
    is_negative: bool,
    is_saturated: bool,
}

impl Sample {
    /// Whether the magnitude exceeds the range of the histogram.
    pub fn is_saturated(&self) -> bool {
        self.is_saturated
    }

    /// Finds the bucket of a finite value.
    #[inline]
    pub fn new(shape: Shape, value: f64, time: Timestamp) -> Sample {
        let steps = shape.resolution.steps(value.abs());
        Sample {
            value,
            time,
            bucket: shape.digits.bucket(steps.min(STEPS_MAX)),
            is_negative: value < 0.0,
            is_saturated: steps > STEPS_MAX,
        }
    }
}

impl Default for Pane {
    fn default() -> Pane {
        Pane {
            count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            last: 0.0,
            last_time: Timestamp::MIN,
            overflow: 0,
            positive: Histogram::default(),
            negative: None,
        }
    }
}

impl Pane {
    /// A pane built from its parts.
    pub fn of(plain: Plain, positive: Histogram, negative: Option<Histogram>) -> Pane {
        let (min, max) = plain.extremes.unwrap_or((f64::INFINITY, f64::NEG_INFINITY));
        let (last, last_time) = plain.last.unwrap_or((0.0, Timestamp::MIN));
        Pane {
            count: plain.count,
            sum: plain.sum,
            min,
            max,
            last,
            last_time,
            overflow: plain.overflow,
            positive,
            negative: negative.map(Box::new),
        }
    }

    /// An empty pane with space for values in this many buckets.
    pub fn with_room(buckets: usize) -> Pane {
        Pane { positive: Histogram::with_room(buckets), ..Pane::default() }
    }

    /// Creates an empty pane. If `neighbour` is busy and its histogram is dense, the new histogram covers the
    /// same buckets.
    pub fn ready_for(neighbour: &Pane) -> Pane {
        let is_busy = neighbour.count > BUSY_COUNT;
        let positive = if is_busy { Histogram::ready_for(&neighbour.positive) } else { Histogram::default() };
        Pane { positive, ..Pane::default() }
    }

    /// Records one value. Of two values with equal times, the one recorded later becomes `last`.
    #[inline]
    pub fn record(&mut self, sample: Sample) {
        self.record_plain(sample);
        if sample.is_negative {
            self.negative.get_or_insert_default().record(sample.bucket);
        } else {
            self.positive.record(sample.bucket);
        }
    }

    /// Like [`Self::record`] without the histogram, for panes of which no rule reads a quantile.
    #[inline]
    pub fn record_plain(&mut self, sample: Sample) {
        self.count = self.count.saturating_add(1);
        self.sum = sum_of(self.sum, sample.value);
        self.min = self.min.min(sample.value);
        self.max = self.max.max(sample.value);
        if sample.time >= self.last_time {
            self.last = sample.value;
            self.last_time = sample.time;
        }
        self.overflow = self.overflow.saturating_add(u64::from(sample.is_saturated));
    }

    /// Records `count` values of about `value` at once, as a pre-aggregated histogram has them. `last` is
    /// unchanged, because the order of these values is unknown.
    pub fn record_many(&mut self, shape: Shape, value: f64, count: u64) {
        let sample = Sample::new(shape, value, Timestamp::MIN);
        self.count = self.count.saturating_add(count);
        self.sum = sum_of(self.sum, value * count as f64);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.overflow = self.overflow.saturating_add(if sample.is_saturated { count } else { 0 });
        if sample.is_negative {
            self.negative.get_or_insert_default().add(sample.bucket, count);
        } else {
            self.positive.add(sample.bucket, count);
        }
    }

    /// Makes a histogram with many filled buckets dense, which trades memory for speed. For panes that are
    /// read each second.
    #[inline]
    pub fn speed_up(&mut self) {
        if self.positive.is_crowded() {
            self.positive.make_dense();
        }
    }

    /// The same values in another resolution, multiplied by a factor. Each value counts as the middle of its
    /// bucket.
    pub fn reshaped(&self, from: Shape, to: Shape, factor: f64) -> Pane {
        let mut pane = Pane::default();
        for (value, count) in self.values(from) {
            pane.record_many(to, value * factor, count);
        }
        pane
    }

    /// Extends minimum and maximum to those that a pre-aggregated histogram states.
    pub fn widen(&mut self, min: f64, max: f64) {
        self.min = self.min.min(min);
        self.max = self.max.max(max);
    }

    /// Adds a pane of the same shape. If both panes have a last value of the same time, that of `other` is
    /// kept.
    pub fn merge(&mut self, other: &Pane) {
        self.count = self.count.saturating_add(other.count);
        self.sum = sum_of(self.sum, other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if other.last_time >= self.last_time {
            self.last = other.last;
            self.last_time = other.last_time;
        }
        self.overflow = self.overflow.saturating_add(other.overflow);
        self.positive.merge(&other.positive);
        if let Some(negative) = &other.negative {
            self.negative.get_or_insert_default().merge(negative);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The value with the greatest event time, if one is known.
    pub fn last(&self) -> Option<f64> {
        (self.last_time > Timestamp::MIN).then_some(self.last)
    }

    /// The time of [`Self::last`].
    pub fn last_time(&self) -> Option<Timestamp> {
        (self.last_time > Timestamp::MIN).then_some(self.last_time)
    }

    pub fn avg(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The value of rank `ceil(q × count)`, exact to within 1 % (two digits), 0.1 % (three digits) or one
    /// resolution step, and never outside [min, max]. `q` in [0, 1]; `None` while empty.
    pub fn quantile(&self, shape: Shape, q: f64) -> Option<f64> {
        quantile_of_two(self, &EMPTY, shape, q)
    }

    /// p50, p90, p95, p99 and p99.9, the quantiles in every output of a window.
    pub fn percentiles(&self, shape: Shape) -> [Option<f64>; 5] {
        [0.5, 0.9, 0.95, 0.99, 0.999].map(|q| self.quantile(shape, q))
    }

    /// The histogram of the values >= 0, in steps of the resolution.
    pub fn positive(&self) -> &Histogram {
        &self.positive
    }

    /// The histogram of the magnitudes of the values < 0.
    pub fn negative(&self) -> Option<&Histogram> {
        self.negative.as_deref()
    }

    /// Removes the histogram of the values >= 0 and returns it as packed bytes. Removes and returns nothing
    /// if it is empty or not sparse.
    pub fn take_cells(&mut self) -> Box<[u8]> {
        if self.positive.sparse_len() == 0 {
            return Box::default();
        }
        std::mem::take(&mut self.positive).cells().into()
    }

    /// Restores the histogram that [`Self::take_cells`] removed.
    pub fn put_back(&mut self, positive: Histogram) {
        self.positive = positive;
    }

    /// The middle of each filled bucket, with the number of values in it.
    pub fn values(&self, shape: Shape) -> impl Iterator<Item = (f64, u64)> + '_ {
        let middle = move |bucket: u16| {
            let (lowest, highest) = (shape.digits.lowest(bucket), shape.digits.highest(bucket));
            shape.resolution.magnitude(lowest.midpoint(highest))
        };
        let negative = self.negative.iter().flat_map(|histogram| histogram.iter());
        let negative = negative.map(move |(bucket, count)| (-middle(bucket), count));
        negative.chain(self.positive.iter().map(move |(bucket, count)| (middle(bucket), count)))
    }

    /// The memory of this pane in bytes, itself included.
    pub fn memory_bytes(&self) -> usize {
        let negative = self.negative.as_ref().map_or(0, |h| size_of::<Histogram>() + h.heap_bytes());
        size_of::<Pane>() + self.positive.heap_bytes() + negative
    }

    /// The approximate size of the content in bytes. It does not depend on allocations, so a restart does not
    /// change it.
    pub fn content_bytes(&self) -> usize {
        size_of::<Pane>() + self.buckets() * size_of::<u32>()
    }

    /// The number of filled buckets of both signs.
    pub fn buckets(&self) -> usize {
        self.positive.iter().count() + self.negative().map_or(0, |negative| negative.iter().count())
    }
}

/// Adds to a sum and clamps the result to finite numbers, because JSON has no infinity. Values of such a
/// magnitude are already counted in [`Pane::overflow`].
#[inline]
pub fn sum_of(sum: f64, more: f64) -> f64 {
    (sum + more).clamp(f64::MIN, f64::MAX)
}

/// The quantile over two panes together, without merging them.
pub fn quantile_of_two(a: &Pane, b: &Pane, shape: Shape, q: f64) -> Option<f64> {
    let count = a.count.saturating_add(b.count);
    if count == 0 {
        return None;
    }
    let (min, max) = (a.min.min(b.min), a.max.max(b.max));
    let rank = ((q * count as f64).ceil() as u64).clamp(1, count);
    Some(ranked([a, b], shape, rank, count).unwrap_or(max).clamp(min, max))
}

/// Returns the value of this rank, counted from 1 for the lowest value.
fn ranked(panes: [&Pane; 2], shape: Shape, rank: u64, count: u64) -> Option<f64> {
    let negatives = panes.iter().filter_map(|pane| pane.negative()).map(Histogram::count);
    let below_zero = negatives.fold(0, u64::saturating_add);
    if rank <= below_zero {
        // The histogram of negative values holds magnitudes, so the lowest values are at its top.
        let none = Histogram::default();
        let bucket = from_top(panes.map(|pane| pane.negative().unwrap_or(&none)), rank)?;
        return Some(-shape.resolution.magnitude(shape.digits.highest(bucket)));
    }
    let bucket = from_top(panes.map(Pane::positive), count - rank + 1)?;
    Some(shape.resolution.magnitude(shape.digits.highest(bucket)))
}

static EMPTY: std::sync::LazyLock<Pane> = std::sync::LazyLock::new(Pane::default);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vocab::unit::Unit;

    fn shape() -> Shape {
        Shape { digits: Digits::Two, resolution: Unit::resolution(Some(&Unit::Ms)) }
    }

    fn of(values: &[f64]) -> Pane {
        let mut pane = Pane::default();
        for (at, value) in values.iter().enumerate() {
            pane.record(Sample::new(shape(), *value, Timestamp::clamped(at as i64)));
        }
        pane
    }

    #[test]
    fn sums_and_counts_of_the_largest_numbers_stay_finite() {
        let shape = shape();
        let mut pane = Pane::default();
        for value in [f64::MAX, f64::MAX, 1.0] {
            pane.record(Sample::new(shape, value, Timestamp::MIN));
        }
        assert_eq!((pane.sum, pane.count, pane.overflow), (f64::MAX, 3, 2));
        pane.record_many(shape, -f64::MAX, u64::MAX);
        pane.record(Sample::new(shape, 1.0, Timestamp::MIN));
        let twin = pane.clone();
        pane.merge(&twin);
        assert_eq!((pane.sum, pane.count, pane.overflow), (f64::MIN, u64::MAX, u64::MAX));
    }

    #[test]
    fn quantiles_are_order_statistics_on_both_sides_of_zero() {
        let pane = of(&[-20.0, -10.0, -0.5, 0.0, 1.0, 2.0, 100.0, 1_000.0]);
        let near = |q: f64, exact: f64| {
            let got = pane.quantile(shape(), q).expect("not empty");
            assert!((got - exact).abs() <= exact.abs() * 0.01 + 0.001, "q {q}: {got} for {exact}");
        };
        for (rank, exact) in [-20.0, -10.0, -0.5, 0.0, 1.0, 2.0, 100.0, 1_000.0].iter().enumerate() {
            near((rank as f64 + 0.5) / 8.0, *exact);
        }
        near(0.0, -20.0);
        near(1.0, 1_000.0);
    }

    #[test]
    fn the_last_value_is_that_of_the_greatest_time() {
        let mut pane = of(&[1.0, 2.0]);
        pane.record(Sample::new(shape(), 9.0, Timestamp::clamped(0)));
        assert_eq!(pane.last(), Some(2.0));
        pane.record(Sample::new(shape(), 7.0, Timestamp::clamped(1)));
        assert_eq!(pane.last(), Some(7.0));
    }

    #[test]
    fn a_saturated_value_is_counted_and_keeps_its_extremes() {
        let pane = of(&[1e300, 5.0]);
        assert_eq!((pane.overflow, pane.max), (1, 1e300));
        assert_eq!(pane.quantile(shape(), 1.0).map(|v| v > 4e9), Some(true));
    }

    #[test]
    fn a_quantile_of_two_panes_is_that_of_their_merge() {
        let (left, right) = (of(&[-3.0, 1.0, 50.0]), of(&[-7.0, 20.0, 30.0, 2.0]));
        let mut both = left.clone();
        both.merge(&right);
        for q in [0.0, 0.1, 0.3, 0.5, 0.9, 1.0] {
            assert_eq!(quantile_of_two(&left, &right, shape(), q), both.quantile(shape(), q));
        }
    }
}
