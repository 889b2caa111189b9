//! The middle one of the slopes between all pairs of points, kept from window to window.
//!
//! Intuition: when one point comes and one goes, all pairs of the others stand as they stood; the middle one
//! moves by a few ranks. So those near the middle are kept in order and those below are counted, and a point
//! costs its own pairs only: 60 instead of 1,770. Invariant: what is kept is for speed alone: the middle is
//! that of all pairs, to the last bit; where it left what is kept, all are looked at again.
//! Rejected: looking at all pairs at each window (4 us with eight compared at once, most of what a line cost),
//! and a tree of all slopes (28 KiB a key).

use super::sorted::Sorted;
use super::{middle, ranked};

/// A time and a value.
pub type Point = (f64, f64);

/// One slope of so many is kept: half of them on each side of the middle.
const NEAR_SHARE: usize = 12;

/// Where more of them came near than so many times their share, noise is less than it was, and the reach of
/// what is near is found anew.
const CROWDED: usize = 3;

/// Where one point of so many is another one, it is quicker to begin anew.
const CHANGED_SHARE: usize = 4;

/// Slopes that are computed before any is put in its place.
const AT_ONCE: usize = 32;

/// Some points, and the slopes of their pairs that are near the middle one.
#[derive(Debug, Default)]
pub struct Slopes {
    /// Ascending in time.
    points: Vec<Point>,
    low: f64,
    high: f64,
    below: usize,
    /// Those from `low` to `high`, unless these are the same.
    near: Sorted<f64>,
    /// Where they are the same, as with values that hardly change: how many there are.
    same: usize,
}

impl Slopes {
    /// The middle one of the slopes of these points, at least two, ascending in time.
    pub fn move_to(&mut self, points: &[Point]) -> f64 {
        let kept = if self.follow(points) { self.median() } else { None };
        kept.unwrap_or_else(|| self.begin(points))
    }

    /// Takes out the points that are gone and takes in the new ones; `false` where that would be most of them.
    fn follow(&mut self, points: &[Point]) -> bool {
        let gone = missing(&self.points, points);
        let new = missing(points, &self.points);
        if (gone.len() + new.len()) * CHANGED_SHARE > points.len() {
            return false;
        }
        for at in gone.into_iter().rev() {
            let point = self.points.remove(at);
            self.count(point, false);
        }
        for at in new {
            let point = points[at];
            self.count(point, true);
            let place = self.points.partition_point(|known| known.0 < point.0);
            self.points.insert(place, point);
        }
        true
    }

    /// Takes out the points before a time, and takes in later ones, where what is kept is true.
    /// `None` where it is to be begun anew.
    pub fn slide(&mut self, from: f64, new: &[Point]) -> Option<f64> {
        while self.points.first().is_some_and(|oldest| oldest.0 < from) {
            let point = self.points.remove(0);
            self.count(point, false);
        }
        for point in new {
            self.count(*point, true);
            self.points.push(*point);
        }
        self.median()
    }

    /// The points that it stands for.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// One point's slopes to all others come, or go. Which of them are near cannot be foretold, so each is
    /// written, and only counted if it is.
    fn count(&mut self, point: Point, comes: bool) {
        let points = std::mem::take(&mut self.points);
        for some in points.chunks(AT_ONCE) {
            let (mut below, mut near, mut len) = (0, [0.0; AT_ONCE], 0);
            for other in some {
                let slope = slope(*other, point);
                below += usize::from(slope < self.low);
                near[len] = slope;
                len += usize::from((slope >= self.low) & (slope <= self.high));
            }
            self.below = if comes { self.below + below } else { self.below - below };
            near[..len].iter().for_each(|slope| self.count_near(*slope, comes));
        }
        self.points = points;
    }

    fn count_near(&mut self, slope: f64, comes: bool) {
        match (self.low == self.high, comes) {
            (true, true) => self.same += 1,
            (true, false) => self.same -= 1,
            (false, true) => self.near.insert(slope),
            (false, false) => {
                let was_there = self.near.remove(slope);
                debug_assert!(was_there, "it was computed of the same two points when it came");
            }
        }
    }

    /// `None` where it left what is kept.
    fn median(&self) -> Option<f64> {
        let all = pairs(self.points.len());
        let (lower, upper) = (((all - 1) / 2).checked_sub(self.below)?, (all / 2).checked_sub(self.below)?);
        if self.low == self.high {
            return Some(self.low).filter(|_| upper < self.same);
        }
        let is_crowded = self.near.len() > CROWDED * (all / NEAR_SHARE + 2);
        let near = Some(&self.near).filter(|_| !is_crowded)?;
        Some(middle((near.rank(lower)?, near.rank(upper)?)))
    }

    /// Looks at all pairs.
    fn begin(&mut self, points: &[Point]) -> f64 {
        let mut all: Vec<f64> = slopes(points).collect();
        let (lower, upper) = ((all.len() - 1) / 2, all.len() / 2);
        let margin = all.len() / NEAR_SHARE / 2;
        let found = ranked(&mut all, lower, upper);
        let (_, low, _) = all[..=lower].select_nth_unstable_by(lower - margin.min(lower), f64::total_cmp);
        let low = *low;
        let above = margin.min(all.len() - upper - 1);
        let (_, high, _) = all[upper..].select_nth_unstable_by(above, f64::total_cmp);
        (self.low, self.high) = (low, *high);
        let is_near = |slope: &&f64| (self.low..=self.high).contains(*slope);
        if all.iter().filter(is_near).count() > CROWDED * (2 * margin + 2) {
            // Many are the same, most likely this one.
            (self.low, self.high) = (found.1, found.1);
        }
        self.points = points.to_vec();
        self.below = all.iter().filter(|slope| **slope < self.low).count();
        let near = all.into_iter().filter(|slope| (self.low..=self.high).contains(slope));
        (self.near, self.same) = match self.low == self.high {
            true => (Sorted::default(), near.count()),
            false => (Sorted::of(near.collect()), 0),
        };
        middle(found)
    }
}

/// The slopes of all pairs of points.
pub fn slopes(points: &[Point]) -> impl Iterator<Item = f64> + Clone + '_ {
    let of = move |(at, first): (usize, &Point)| {
        let first = *first;
        points[at + 1..].iter().map(move |second| slope(first, *second))
    };
    points.iter().enumerate().flat_map(of)
}

/// Of two points in either order; never a negative zero.
fn slope((t0, y0): Point, (t1, y1): Point) -> f64 {
    (y1 - y0) / (t1 - t0) + 0.0
}

fn pairs(points: usize) -> usize {
    points * points.saturating_sub(1) / 2
}

/// Where those stand that are not among the others; both ascending in time.
fn missing(points: &[Point], others: &[Point]) -> Vec<usize> {
    let mut rest = others.iter().peekable();
    let is_missing = |(_, point): &(usize, &Point)| {
        while rest.next_if(|other| other.0 < point.0).is_some() {}
        rest.peek() != Some(point)
    };
    points.iter().enumerate().filter(is_missing).map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::super::median;
    use super::*;

    /// Noise, coarse noise with many ties, nothing, a jump, quiet noise after loud noise; windows without
    /// values, and some that change afterwards.
    #[test]
    fn the_middle_is_that_of_all_pairs_whatever_was_before() {
        let (mut dice, mut kept, mut anew) = (Dice(8), Slopes::default(), 0);
        let mut values: Vec<Point> = Vec::new();
        for at in 0..1_500 {
            let value = match at / 250 {
                0 => dice.normal(),
                1 => dice.normal().round(),
                2 => 5.0,
                3 => 1e6 + dice.normal(),
                4 => 100.0 * dice.normal(),
                _ => dice.normal(),
            };
            if dice.uniform() < 0.95 {
                values.push((f64::from(at), value));
            }
            if dice.uniform() < 0.02
                && let Some(late) = values.iter_mut().rev().nth(5)
            {
                late.1 += 1.0;
            }
            let points = &values[values.len().saturating_sub(60)..];
            if points.len() >= 2 {
                let (low, begun) = (kept.low, pairs(points.len()));
                assert_eq!(kept.move_to(points), median(&mut slopes(points).collect::<Vec<f64>>()), "{at}");
                anew += usize::from(kept.low != low);
                assert!(kept.near.len() <= CROWDED * (begun / NEAR_SHARE + 2), "{at}: {}", kept.near.len());
            }
        }
        assert!((10..300).contains(&anew), "{anew} times anew");
    }

    #[test]
    fn two_and_three_points_have_a_middle_too() {
        let mut slopes = Slopes::default();
        assert_eq!(slopes.move_to(&[(0.0, 1.0), (2.0, 5.0)]), 2.0);
        assert_eq!(slopes.move_to(&[(0.0, 1.0), (2.0, 5.0), (3.0, 5.0)]), 4.0 / 3.0);
        assert_eq!(slopes.move_to(&[(9.0, 1.0), (11.0, -5.0)]), -3.0);
    }
}
