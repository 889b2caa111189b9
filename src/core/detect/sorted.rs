//! Order statistics of sorted values.
//!
//! Intuition: values are sorted once. The median, quantiles and the median distance are then found without a
//! scan of all values.
//! Invariant: a result depends on the values alone, not on the order of their arrival. Sums run over the
//! values in ascending order, in four lanes.
//! Rejected: keeping a sorted list from window to window (each new window moves its elements, and the list is
//! rarely read: see [`super::bounds`]), running sums (they drift).

use super::middle;
use std::cmp::Ordering;

/// The element of a list: f64, or f32 if many are kept.
pub trait Number: Copy + Into<f64> + PartialOrd {
    fn order(&self, other: &Self) -> Ordering;

    /// Returns the same number, but zero for a negative zero, so that the sort order agrees with
    /// comparisons.
    fn without_sign_of_zero(self) -> Self;
}

impl Number for f64 {
    fn order(&self, other: &f64) -> Ordering {
        self.total_cmp(other)
    }

    fn without_sign_of_zero(self) -> f64 {
        self + 0.0
    }
}

impl Number for f32 {
    fn order(&self, other: &f32) -> Ordering {
        self.total_cmp(other)
    }

    fn without_sign_of_zero(self) -> f32 {
        self + 0.0
    }
}

/// Values in ascending order.
#[derive(Debug, Clone, PartialEq)]
pub struct Sorted<T>(Vec<T>);

impl<T> Default for Sorted<T> {
    fn default() -> Sorted<T> {
        Sorted(Vec::new())
    }
}

impl<T: Number> Sorted<T> {
    pub fn of(mut values: Vec<T>) -> Sorted<T> {
        values.iter_mut().for_each(|value| *value = value.without_sign_of_zero());
        values.sort_unstable_by(T::order);
        Sorted(values)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn at(&self, at: usize) -> f64 {
        self.0[at].into()
    }

    /// Returns the smallest and the greatest value.
    pub fn extremes(&self) -> Option<(f64, f64)> {
        self.0.first().zip(self.0.last()).map(|(low, high)| ((*low).into(), (*high).into()))
    }

    /// Returns the median; for an even number of values, the mean of the two middle ones; 0 for no values.
    pub fn median(&self) -> f64 {
        match self.len() {
            0 => 0.0,
            len => middle((self.at((len - 1) / 2), self.at(len / 2))),
        }
    }

    /// Returns the value of rank `ceil(q × n)`; 0 for no values.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = (q * self.len() as f64).ceil() as usize;
        if self.is_empty() { 0.0 } else { self.at(rank.clamp(1, self.len()) - 1) }
    }

    /// Returns the median distance from `center`. O(log n).
    pub fn median_distance(&self, center: f64) -> f64 {
        let distance = |rank: usize| self.distance_of_rank(center, rank);
        match self.len() {
            0 => 0.0,
            len if len % 2 == 1 => distance(len / 2),
            len => middle((distance(len / 2 - 1), distance(len / 2))),
        }
    }

    /// Returns the distance of rank `rank`, counted from 0, among all distances from `center` in ascending
    /// order. The `rank + 1` nearest values are contiguous, so a binary search finds where they begin.
    fn distance_of_rank(&self, center: f64, rank: usize) -> f64 {
        let distance = |at: usize| (self.at(at) - center).abs();
        let (mut low, mut high) = (0, self.len() - 1 - rank);
        while low < high {
            let begin = low.midpoint(high);
            // If the next value after these `rank + 1` values is nearer than the first of them, they begin
            // too early.
            if center - self.at(begin) > self.at(begin + rank + 1) - center {
                low = begin + 1;
            } else {
                high = begin;
            }
        }
        distance(low).max(distance(low + rank))
    }

    /// Returns mean and standard deviation (denominator n − 1) of the values, clamped to `reach` around
    /// `center`. One pass in four lanes sums the distances from `center`, so that rounding does not destroy a
    /// small spread around a large mean.
    pub fn mean_and_deviation(&self, center: f64, reach: f64) -> (f64, f64) {
        let (mut sums, mut squares) = ([0.0f64; LANES], [0.0f64; LANES]);
        let chunks = self.0.chunks_exact(LANES);
        let rest = chunks.remainder();
        let mut add = |lane: usize, value: T| {
            let distance = (value.into() - center).clamp(-reach, reach);
            sums[lane] += distance;
            squares[lane] += distance * distance;
        };
        for chunk in chunks {
            (0..LANES).for_each(|lane| add(lane, chunk[lane]));
        }
        rest.iter().enumerate().for_each(|(lane, value)| add(lane, *value));
        let (sum, square): (f64, f64) = (sums.iter().sum(), squares.iter().sum());
        let count = self.len() as f64;
        let mean = sum / count.max(1.0);
        let variance = (square - sum * mean).max(0.0) / (count - 1.0).max(1.0);
        (center + mean, variance.sqrt())
    }
}

/// Number of independent sums, which a processor adds in parallel.
const LANES: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::super::{mean_and_deviation, median, quantile_of_sorted};
    use super::*;

    /// Computes the median distance from scratch, value by value.
    fn median_distance(values: &[f64], center: f64) -> f64 {
        median(&mut values.iter().map(|value| (value - center).abs()).collect::<Vec<f64>>())
    }

    #[test]
    fn what_is_asked_is_what_all_values_say() {
        let (mut dice, mut values) = (Dice(3), Vec::new());
        for round in 0..900 {
            // Values are coarse, so that many are equal.
            values.push((dice.normal() * 8.0).round());
            values.drain(..values.len().saturating_sub(round % 70));
            let ordered = Sorted::of(values.clone());
            assert_eq!(ordered.median(), median(&mut values.clone()));
            let center = if round % 2 == 0 { ordered.median() } else { dice.normal() * 20.0 };
            assert_eq!(ordered.median_distance(center), median_distance(&values, center));
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            assert_eq!(ordered.quantile(0.99), quantile_of_sorted(&sorted, 0.99));
        }
    }

    #[test]
    fn spreads_are_those_of_the_textbook_also_around_a_large_mean() {
        let mut dice = Dice(4);
        for n in [1, 2, 3, 4, 5, 30, 301] {
            let values: Vec<f64> = (0..n).map(|_| 1e9 + dice.normal()).collect();
            let sorted = Sorted::of(values.clone());
            let (mean, deviation) = sorted.mean_and_deviation(sorted.median(), f64::INFINITY);
            let naive = mean_and_deviation(&values);
            assert!((mean - naive.0).abs() < 1e-6 && (deviation - naive.1).abs() < 1e-6, "{n}");
            let near = |value: &f64| value.clamp(1e9 - 0.5, 1e9 + 0.5);
            let (clamped, naive) = (
                sorted.mean_and_deviation(1e9, 0.5),
                mean_and_deviation(&values.iter().map(near).collect::<Vec<f64>>()),
            );
            assert!((clamped.0 - naive.0).abs() < 1e-6 && (clamped.1 - naive.1).abs() < 1e-6, "{n}");
        }
        assert_eq!(Sorted::<f32>::default().mean_and_deviation(0.0, 1.0), (0.0, 0.0));
    }
}
