//! The median of the slopes between all pairs of points, and bounds on it.
//!
//! Intuition: a rule compares a line with a limit, and the line is nearly always far from the limit, so
//! bounds on the median slope suffice. When one point is added and one is removed, the slopes between the
//! other points do not change. So it is enough to count the slopes below the middle third of all slopes and
//! those inside it. An update computes the 59 slopes of one point instead of all 1,770. While the median is
//! inside this interval, the ends of the interval bound it. The median itself is searched among the slopes
//! inside, and only on demand.
//! Invariant: the counts only save time. The median equals that of all pairs, to the last bit.
//! Rejected: examining all pairs at each window, keeping the slopes near the median sorted (1.5 KiB per key,
//! and the median moves out of them every few windows), and a tree of all slopes (28 KiB per key).

use super::{middle, ranked};

/// A time and a value.
pub(crate) type Point = (f64, f64);

/// On each side of the median, the interval contains one in this many of all slopes. That is enough, because
/// one new window moves the median by dozens of ranks out of 1,770.
const MARGIN_SHARE: usize = 6;

/// If more than one in this many points changed, a new count is faster than an update.
const CHANGED_SHARE: usize = 4;

/// Number of slopes that are computed per block. Those inside the interval are then copied to the result.
const AT_ONCE: usize = 32;

/// Some points, and an interval that contains the median of their slopes.
#[derive(Debug, Default)]
pub(crate) struct Slopes {
    /// Ascending in time.
    points: Vec<Point>,
    /// `None` until the bounds are first requested.
    counted: Option<Counted>,
}

/// The number of slopes below an interval, and inside it.
#[derive(Debug, Clone, Copy)]
struct Counted {
    low: f64,
    high: f64,
    below: usize,
    inside: usize,
    /// The number of slopes inside, and of all slopes, at the time the interval was chosen.
    inside_then: usize,
    all_then: usize,
}

impl Slopes {
    /// Replaces the points by these, ascending in time.
    pub(crate) fn move_to(&mut self, points: &[Point]) {
        if !self.follow(points) {
            (self.points, self.counted) = (points.to_vec(), None);
        }
    }

    /// Removes the points that are not among `points` and inserts the new ones; returns `false`, and changes
    /// nothing, if too many changed.
    fn follow(&mut self, points: &[Point]) -> bool {
        let gone = missing(&self.points, points);
        let new = missing(points, &self.points);
        if (gone.len() + new.len()) * CHANGED_SHARE > points.len() {
            return false;
        }
        for at in gone.into_iter().rev() {
            self.take_out(at);
        }
        for at in new {
            let place = self.points.partition_point(|known| known.0 < points[at].0);
            self.put_in(place, points[at]);
        }
        true
    }

    /// Removes the points before the time `from` and appends later ones.
    pub(crate) fn slide(&mut self, from: f64, new: impl Iterator<Item = Point>) {
        while self.points.first().is_some_and(|oldest| oldest.0 < from) {
            self.take_out(0);
        }
        for point in new {
            self.put_in(self.points.len(), point);
        }
    }

    /// Returns the current points.
    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }

    /// Returns a lower and an upper bound of the median slope; `None` for fewer than two points.
    pub(crate) fn between(&mut self) -> Option<(f64, f64)> {
        let ranks = middle_ranks(self.points.len())?;
        let all = pairs(self.points.len());
        let counted = self.counted.filter(|counted| counted.has(ranks) && !counted.is_wide(all));
        let counted = counted.unwrap_or_else(|| Counted::around_middle(&self.points, ranks));
        self.counted = Some(counted);
        Some((counted.low, counted.high))
    }

    /// Returns the median slope; `None` for fewer than two points, or if it is NaN, which infinite values
    /// cause.
    pub(crate) fn middle(&self) -> Option<f64> {
        let (lower, upper) = middle_ranks(self.points.len())?;
        let (below, mut some) = match self.counted.filter(|counted| counted.has((lower, upper))) {
            Some(counted) => (counted.below, counted.inside_of(&self.points)),
            None => (0, slopes(&self.points).collect()),
        };
        let middle = middle(ranked(&mut some, lower - below, upper - below));
        Some(middle).filter(|middle| !middle.is_nan())
    }

    fn take_out(&mut self, at: usize) {
        let point = self.points.remove(at);
        if let Some(counted) = &mut self.counted {
            let (below, inside) = counted.count(&self.points, point);
            (counted.below, counted.inside) = (counted.below - below, counted.inside - inside);
        }
    }

    fn put_in(&mut self, at: usize, point: Point) {
        if let Some(counted) = &mut self.counted {
            let (below, inside) = counted.count(&self.points, point);
            (counted.below, counted.inside) = (counted.below + below, counted.inside + inside);
        }
        self.points.insert(at, point);
    }
}

impl Counted {
    /// Chooses the middle third of all slopes as the interval.
    fn around_middle(points: &[Point], (lower, upper): (usize, usize)) -> Counted {
        let mut all: Vec<f64> = slopes(points).collect();
        let margin = all.len() / MARGIN_SHARE;
        let (first, last) = (lower.saturating_sub(margin), (upper + margin).min(all.len() - 1));
        let high = *all.select_nth_unstable_by(last, f64::total_cmp).1;
        let low = *all[..=last].select_nth_unstable_by(first, f64::total_cmp).1;
        let below = all.iter().filter(|slope| **slope < low).count();
        let inside = all.iter().filter(|slope| (low..=high).contains(*slope)).count();
        Counted { low, high, below, inside, inside_then: inside, all_then: all.len() }
    }

    /// Whether the share of slopes inside grew by more than half since the interval was chosen. The noise
    /// has decreased since then, so the interval is too wide to be useful.
    fn is_wide(&self, all: usize) -> bool {
        2 * self.inside * self.all_then > 3 * self.inside_then * all
    }

    fn has(&self, (lower, upper): (usize, usize)) -> bool {
        lower >= self.below && upper - self.below < self.inside
    }

    /// Returns how many of the slopes between `point` and the other points lie below the interval, and how
    /// many lie inside it.
    fn count(&self, points: &[Point], point: Point) -> (usize, usize) {
        let one = |(below, inside): (usize, usize), other: &Point| {
            let slope = slope(*other, point);
            let is_inside = (slope >= self.low) & (slope <= self.high);
            (below + usize::from(slope < self.low), inside + usize::from(is_inside))
        };
        points.iter().fold((0, 0), one)
    }

    /// Returns the slopes of all pairs that are inside the interval. A branch per slope would be mispredicted
    /// often. So each slope is written to the block, and the length grows only if the slope is inside.
    fn inside_of(&self, points: &[Point]) -> Vec<f64> {
        let mut all = Vec::with_capacity(self.inside);
        for (at, point) in points.iter().enumerate() {
            for some in points[..at].chunks(AT_ONCE) {
                let (mut inside, mut len) = ([0.0; AT_ONCE], 0);
                for other in some {
                    let slope = slope(*other, *point);
                    inside[len] = slope;
                    len += usize::from((slope >= self.low) & (slope <= self.high));
                }
                all.extend_from_slice(&inside[..len]);
            }
        }
        all
    }
}

/// Returns the ranks of the two middle slopes, which are equal for an odd number of slopes.
fn middle_ranks(points: usize) -> Option<(usize, usize)> {
    let all = pairs(points);
    Some((all.checked_sub(1)? / 2, all / 2))
}

/// Returns the slopes of all pairs of points.
pub(crate) fn slopes(points: &[Point]) -> impl Iterator<Item = f64> + Clone + '_ {
    let of = move |(at, first): (usize, &Point)| {
        let first = *first;
        points[at + 1..].iter().map(move |second| slope(first, *second))
    };
    points.iter().enumerate().flat_map(of)
}

/// Returns the slope between two points in either order; it is never a negative zero.
fn slope((t0, y0): Point, (t1, y1): Point) -> f64 {
    (y1 - y0) / (t1 - t0) + 0.0
}

fn pairs(points: usize) -> usize {
    points * points.saturating_sub(1) / 2
}

/// Returns the positions of the points that are not among `others`; both lists are ascending in time.
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

    /// Goal: the median equals that of all pairs after any sequence of updates.
    /// Method: noise, coarse noise with many ties, constant values, a jump, quiet noise after loud noise.
    /// Some windows have no values, and some values change afterwards.
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
                kept.move_to(points);
                let middle = median(&mut slopes(points).collect::<Vec<f64>>());
                if at % 3 == 0 {
                    let before = kept.counted.map(|counted| counted.low);
                    let (low, high) = kept.between().expect("two points");
                    assert!(low <= middle && middle <= high, "{at}");
                    anew += usize::from(before != Some(low));
                }
                assert_eq!(kept.middle(), Some(middle), "{at}");
            }
        }
        assert!((5..100).contains(&anew), "{anew} times anew");
    }

    #[test]
    fn two_and_three_points_have_a_middle_too() {
        let mut slopes = Slopes::default();
        assert_eq!((slopes.middle(), slopes.between()), (None, None));
        for (points, middle) in [
            (&[(0.0, 1.0), (2.0, 5.0)][..], 2.0),
            (&[(0.0, 1.0), (2.0, 5.0), (3.0, 5.0)], 4.0 / 3.0),
            (&[(9.0, 1.0), (11.0, -5.0)], -3.0),
        ] {
            slopes.move_to(points);
            assert_eq!(slopes.middle(), Some(middle));
            assert!(slopes.between().is_some_and(|(low, high)| low <= middle && middle <= high));
            assert_eq!(slopes.middle(), Some(middle));
        }
    }

    #[test]
    fn between_infinite_values_there_is_no_slope() {
        for infinite in 1..=8 {
            let value = |at: i32| if at < infinite { f64::INFINITY } else { f64::from(at) };
            let points: Vec<Point> = (0..8).map(|at| (f64::from(at), value(at))).collect();
            let mut kept = Slopes::default();
            kept.move_to(&points);
            let before = kept.middle();
            let middle = median(&mut slopes(&points).collect::<Vec<f64>>());
            assert_eq!(before, Some(middle).filter(|middle| !middle.is_nan()), "{infinite}");
            assert!(kept.between().is_some());
            assert_eq!(kept.middle(), before, "{infinite}");
        }
    }
}
