//! Order statistics of values that stand in ascending order.
//!
//! Intuition: from window to window one value comes and one goes, so a list that is kept in order costs a
//! search and a short move, and everything that detectors ask of it (median, tails, distances from the
//! middle) is found without looking at all of it. Invariant: what is computed depends on the values alone, not
//! on how the list came about: sums go through it in ascending order, in four lanes.
//! Rejected: sorting at each closed window (300 values: 8 us and more), running sums (they drift), trees (a
//! list of 300 moves in less time than a tree finds).

use super::middle;
use std::cmp::Ordering;

/// What such lists hold: f64, or f32 where many are kept.
pub trait Number: Copy + Into<f64> {
    fn order(&self, other: &Self) -> Ordering;
}

impl Number for f64 {
    fn order(&self, other: &f64) -> Ordering {
        self.total_cmp(other)
    }
}

impl Number for f32 {
    fn order(&self, other: &f32) -> Ordering {
        self.total_cmp(other)
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
        values.sort_unstable_by(T::order);
        Sorted(values)
    }

    /// O(log n) to find, O(n) to move: 2 KiB at most.
    pub fn insert(&mut self, value: T) {
        let at = self.0.partition_point(|known| known.order(&value) == Ordering::Less);
        if self.0.len() == self.0.capacity() {
            // There are some for each key: not twice as much as is needed.
            self.0.reserve_exact(self.0.len() / 8 + 4);
        }
        self.0.insert(at, value);
    }

    /// Takes one out; `false` where it is not there.
    pub fn remove(&mut self, value: T) -> bool {
        let found = self.0.binary_search_by(|known| known.order(&value)).ok();
        found.map(|at| self.0.remove(at)).is_some()
    }

    /// Takes some out, which are there or among the new ones, and puts others in, in one pass.
    pub fn replace(&mut self, mut gone: Vec<T>, mut new: Vec<T>) {
        gone.sort_unstable_by(T::order);
        new.sort_unstable_by(T::order);
        let mut gone = gone.into_iter().peekable();
        self.0.retain(|known| gone.next_if(|gone| gone.order(known) == Ordering::Equal).is_none());
        self.merge(new);
    }

    /// From the end on, so that each is moved once.
    fn merge(&mut self, mut new: Vec<T>) {
        let mut old = self.0.len();
        if self.0.capacity() < old + new.len() {
            self.0.reserve_exact(new.len() + old / 8);
        }
        self.0.extend_from_slice(&new);
        for to in (0..self.0.len()).rev() {
            let Some(greatest) = new.last().copied() else { break };
            if old > 0 && self.0[old - 1].order(&greatest) == Ordering::Greater {
                old -= 1;
                self.0[to] = self.0[old];
            } else {
                self.0[to] = greatest;
                new.pop();
            }
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one that `rank` others stand before, if there are so many.
    pub fn rank(&self, rank: usize) -> Option<f64> {
        self.0.get(rank).map(|value| (*value).into())
    }

    fn at(&self, at: usize) -> f64 {
        self.0[at].into()
    }

    /// The least and the greatest.
    pub fn extremes(&self) -> Option<(f64, f64)> {
        self.0.first().zip(self.0.last()).map(|(low, high)| ((*low).into(), (*high).into()))
    }

    /// The middle one; of an even number, the mean of the two in the middle. 0 for none.
    pub fn median(&self) -> f64 {
        match self.len() {
            0 => 0.0,
            len => middle((self.at((len - 1) / 2), self.at(len / 2))),
        }
    }

    /// The value of rank `ceil(q × n)`; 0 for none.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = (q * self.len() as f64).ceil() as usize;
        if self.is_empty() { 0.0 } else { self.at(rank.clamp(1, self.len()) - 1) }
    }

    /// The median of the distances from `center`. O(log n).
    pub fn median_distance(&self, center: f64) -> f64 {
        let distance = |rank: usize| self.distance_of_rank(center, rank);
        match self.len() {
            0 => 0.0,
            len if len % 2 == 1 => distance(len / 2),
            len => middle((distance(len / 2 - 1), distance(len / 2))),
        }
    }

    /// The distance from `center` that `rank` others are nearer than. Those nearest to it stand side by side:
    /// what is looked for is where they begin.
    fn distance_of_rank(&self, center: f64, rank: usize) -> f64 {
        let distance = |at: usize| (self.at(at) - center).abs();
        let (mut low, mut high) = (0, self.len() - 1 - rank);
        while low < high {
            let begin = low.midpoint(high);
            // Whether the one after these is nearer than their first.
            if center - self.at(begin) > self.at(begin + rank + 1) - center {
                low = begin + 1;
            } else {
                high = begin;
            }
        }
        distance(low).max(distance(low + rank))
    }

    /// Mean and standard deviation (n − 1) of the values, those farther than `reach` from `center` taken as if
    /// they were just so far. One pass in four lanes, by distances from the centre, so that a small spread
    /// around a large mean survives.
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

/// What a processor adds at the same time.
const LANES: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::super::{mean_and_deviation, median, quantile_of_sorted};
    use super::*;

    /// The same from scratch, value by value.
    fn median_distance(values: &[f64], center: f64) -> f64 {
        median(&mut values.iter().map(|value| (value - center).abs()).collect::<Vec<f64>>())
    }

    #[test]
    fn a_list_that_is_kept_is_the_list_that_is_sorted() {
        let (mut dice, mut kept, mut values) = (Dice(3), Sorted::default(), Vec::new());
        for round in 0..900 {
            // Coarse, so that many are equal.
            let value = (dice.normal() * 8.0).round();
            values.push(value);
            kept.insert(value);
            if values.len() > round % 70 {
                assert!(kept.remove(values.remove(0)));
            }
            assert!(!kept.remove(1e9));
            assert_eq!(kept, Sorted::of(values.clone()));
            assert_eq!(kept.median(), median(&mut values.clone()));
            let center = if round % 2 == 0 { kept.median() } else { dice.normal() * 20.0 };
            assert_eq!(kept.median_distance(center), median_distance(&values, center));
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            assert_eq!(kept.quantile(0.99), quantile_of_sorted(&sorted, 0.99));
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
