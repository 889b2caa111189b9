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

/// Slopes of the pairs of some points.
#[derive(Debug, Default)]
struct Counted {
    below: usize,
    near: Vec<f64>,
}

#[derive(Debug, Default)]
struct Change {
    gone: Counted,
    new: Counted,
}

impl Slopes {
    /// The middle one of the slopes of these points, at least two, ascending in time.
    pub fn move_to(&mut self, points: &[Point]) -> f64 {
        self.follow(points).unwrap_or_else(|| self.begin(points))
    }

    /// Takes out the points that are gone and takes in the new ones; `None` where that would be most of them.
    fn follow(&mut self, points: &[Point]) -> Option<f64> {
        let gone = missing(&self.points, points);
        let new = missing(points, &self.points);
        if (gone.len() + new.len()) * CHANGED_SHARE > points.len() {
            return None;
        }
        let mut change = Change::default();
        for at in gone.into_iter().rev() {
            let point = self.points.remove(at);
            self.count(point, &mut change.gone);
        }
        for at in new {
            let point = points[at];
            self.count(point, &mut change.new);
            let place = self.points.partition_point(|known| known.0 < point.0);
            self.points.insert(place, point);
        }
        self.apply(change)
    }

    /// Takes out the points before a time, and takes in later ones, where what is kept is true.
    /// `None` where it is to be begun anew.
    pub fn slide(&mut self, from: f64, new: &[Point]) -> Option<f64> {
        let mut change = Change::default();
        while self.points.first().is_some_and(|oldest| oldest.0 < from) {
            let point = self.points.remove(0);
            self.count(point, &mut change.gone);
        }
        for point in new {
            self.count(*point, &mut change.new);
            self.points.push(*point);
        }
        self.apply(change)
    }

    /// The points that it stands for.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    fn count(&self, point: Point, counted: &mut Counted) {
        counted.add(&self.points, point, (self.low, self.high));
    }

    /// All that came and went at once: the list in order is gone through once.
    fn apply(&mut self, Change { gone, new }: Change) -> Option<f64> {
        self.below = self.below + new.below - gone.below;
        match self.low == self.high {
            true => self.same = self.same + new.near.len() - gone.near.len(),
            false => self.near.replace(gone.near, new.near),
        }
        self.median()
    }

    /// `None` where it left what is kept.
    fn median(&self) -> Option<f64> {
        let all = pairs(self.points.len());
        let (lower, upper) = (all.checked_sub(1)? / 2, all / 2);
        let (lower, upper) = (lower.checked_sub(self.below)?, upper.checked_sub(self.below)?);
        if self.low == self.high {
            return Some(self.low).filter(|_| upper < self.same);
        }
        let is_crowded = self.near.len() > CROWDED * (all / NEAR_SHARE + 2);
        let near = Some(&self.near).filter(|_| !is_crowded)?;
        Some(middle((near.rank(lower)?, near.rank(upper)?)))
    }

    /// Looks at all pairs: first for what lies around the last middle.
    fn begin(&mut self, points: &[Point]) -> f64 {
        self.points = points.to_vec();
        let width = self.high - self.low;
        let around = (self.low - width, self.high + width);
        let guessed = if width > 0.0 { self.choose(Counted::of(points, around)) } else { None };
        // Of all of them, the middle one is one.
        let all = (f64::NEG_INFINITY, f64::INFINITY);
        guessed.unwrap_or_else(|| self.choose(Counted::of(points, all)).unwrap_or(0.0))
    }

    /// Keeps the near ones of these; `None` where not enough of them are known.
    fn choose(&mut self, Counted { below, mut near }: Counted) -> Option<f64> {
        let all = pairs(self.points.len());
        let (lower, upper, margin) = ((all - 1) / 2, all / 2, all / NEAR_SHARE / 2);
        let first = lower.saturating_sub(margin).checked_sub(below)?;
        let last = (upper + margin).min(all - 1).checked_sub(below).filter(|last| *last < near.len())?;
        let high = *near.select_nth_unstable_by(last, f64::total_cmp).1;
        let low = *near[..=last].select_nth_unstable_by(first, f64::total_cmp).1;
        let found = ranked(&mut near[first..=last], lower - below - first, upper - below - first);
        let is_near = |slope: &f64| (low..=high).contains(slope);
        let is_crowded = near.iter().filter(|slope| is_near(slope)).count() > CROWDED * (2 * margin + 2);
        // Many are the same, most likely this one.
        (self.low, self.high) = if is_crowded { (found.1, found.1) } else { (low, high) };
        self.below = below + near.iter().filter(|slope| **slope < self.low).count();
        near.retain(|slope| (self.low..=self.high).contains(slope));
        (self.near, self.same) = match self.low == self.high {
            true => (Sorted::default(), near.len()),
            false => (Sorted::of(near.as_slice().to_vec()), 0),
        };
        Some(middle(found))
    }
}

impl Counted {
    /// Of all pairs: those below, and those between.
    fn of(points: &[Point], between: (f64, f64)) -> Counted {
        let mut counted = Counted { below: 0, near: Vec::with_capacity(pairs(points.len())) };
        for (at, point) in points.iter().enumerate() {
            counted.add(&points[..at], *point, between);
        }
        counted
    }

    /// One point's slopes to others. Which of them are near cannot be foretold, so each is written, and only
    /// counted if it is.
    fn add(&mut self, points: &[Point], point: Point, (low, high): (f64, f64)) {
        for some in points.chunks(AT_ONCE) {
            let (mut near, mut len) = ([0.0; AT_ONCE], 0);
            for other in some {
                let slope = slope(*other, point);
                self.below += usize::from(slope < low);
                near[len] = slope;
                len += usize::from((slope >= low) & (slope <= high));
            }
            self.near.extend_from_slice(&near[..len]);
        }
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
