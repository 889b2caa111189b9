//! `trend` and `forecast`: how fast does it rise, where does that end, and is it more than noise?
//!
//! Intuition: the slope that half of all pairs of windows exceed does not care for outliers; whether there
//! is a slope at all is asked by counting how many pairs rise.
//! Formula: Theil–Sen slope b = median (yⱼ − yᵢ) / (tⱼ − tᵢ), value a + b t with a = median (yᵢ − b tᵢ);
//! Mann–Kendall S = Σ sign (yⱼ − yᵢ) with the variance for ties, times (1 + r) / (1 − r), because neighbours
//! resemble each other; r = (lag-1 correlation of the residuals + 2/n) / (1 − 3/n). The slope's interval is
//! Sen's.
//! Rejected: least squares (one outlier tilts it), Mann–Kendall without the factor (a level of 1 % is 18 %
//! for a correlation of 0.6).
//! Cost: O(n²) for up to [`POINTS_MAX`] points, once a closed window; more are taken together in blocks. From
//! window to window the slope hardly moves: only pairs near the last one are divided and put in order.

use super::tails::normal_above;
use super::{lag_one, median, middle, ranked};
use serde::{Deserialize, Serialize};

/// Fewer windows have no trend.
pub const WINDOWS_MIN: usize = 6;

/// Points of which all pairs are looked at: 1,770 pairs.
pub const POINTS_MAX: usize = 60;

/// Slopes near the last one that are put in order: one of so many, between half and twice as many.
const NEAR_SHARE: usize = 24;

/// How much farther is looked where the slope moved out of its last reach: a tenth of what all would cost.
const FARTHER: f64 = 3.0;

/// So many slopes are compared at once.
const EIGHT: usize = 8;

/// What neighbours are taken to have in common at most.
const CORRELATION_MAX: f64 = 0.95;

/// Two-sided 95 %.
const Z_INTERVAL: f64 = 1.959_964;

/// A line through some windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    /// Per unit of the times given.
    pub slope: f64,
    intercept: f64,
    pub windows: usize,
    /// How far from `slope` the next one is looked for; only for speed.
    reach: f64,
}

/// How sure a line is; only for those who ask why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Certainty {
    /// 95 % of the time the slope is between these.
    pub interval: (f64, f64),
    /// Two-sided: how often chance alone gives as much of a trend.
    pub p: f64,
}

impl Trend {
    /// Of (time, value), ascending in time; `None` with too few. `before`: what was learned a window ago,
    /// which changes nothing but how long it takes.
    pub fn learn(points: &[(f64, f64)], before: Option<&Trend>) -> Option<Trend> {
        if points.len() < WINDOWS_MIN {
            return None;
        }
        let windows = points.len();
        let points = together(points);
        let near = before.and_then(|before| {
            let nearer = median_near(&points, before.slope, before.reach);
            nearer.or_else(|| median_near(&points, before.slope, FARTHER * before.reach))
        });
        let (slope, reach) = near.unwrap_or_else(|| median_of_all(&points));
        let mut rests: Vec<f64> = points.iter().map(|(t, y)| y - slope * t).collect();
        Some(Trend { slope, intercept: median(&mut rests), windows, reach })
    }

    /// The value that the line reaches at a time.
    pub fn at(&self, time: f64) -> f64 {
        self.intercept + self.slope * time
    }

    /// How sure that is, of the points that it was learned from.
    pub fn certainty(&self, points: &[(f64, f64)]) -> Certainty {
        let points = together(points);
        let rests: Vec<f64> = points.iter().map(|(t, y)| y - self.slope * t).collect();
        // What is left of a line correlates less than the noise did: corrected for both ends of it.
        let n = points.len() as f64;
        let r = ((lag_one(&rests) + 2.0 / n) / (1.0 - 3.0 / n)).clamp(0.0, CORRELATION_MAX);
        let factor = (1.0 + r) / (1.0 - r);
        let deviation = (variance(&points) * factor).sqrt();
        let s: f64 = slopes(&points)
            .map(|slope| f64::from(u8::from(slope > 0.0)) - f64::from(u8::from(slope < 0.0)))
            .sum();
        let z = if deviation > 0.0 { (s.abs() - 1.0).max(0.0) / deviation } else { 0.0 };
        Certainty { interval: interval(slopes(&points).collect(), deviation), p: 2.0 * normal_above(z) }
    }

    /// Time from `now` until the line reaches a limit, with the earliest and the latest that the slope's
    /// `interval` allows; `None` where it moves away from it.
    pub fn reaches(&self, limit: f64, now: f64, interval: (f64, f64)) -> Option<(f64, f64, f64)> {
        let left = limit - self.at(now);
        let after = |slope: f64| if left * slope > 0.0 { left / slope } else { f64::INFINITY };
        let (a, b) = (after(interval.0), after(interval.1));
        (left * self.slope > 0.0).then(|| (left / self.slope, a.min(b), a.max(b)))
    }
}

/// The median of all slopes, and how far around it the next one is looked for.
fn median_of_all(points: &[(f64, f64)]) -> (f64, f64) {
    let mut slopes: Vec<f64> = slopes(points).collect();
    let slope = median(&mut slopes);
    let near = slopes.len() / NEAR_SHARE / 2;
    let mut distances: Vec<f64> = slopes.iter().map(|other| (other - slope).abs()).collect();
    let (_, reach, _) = distances.select_nth_unstable_by(2 * near, f64::total_cmp);
    (slope, *reach)
}

/// The same where it lies well within `reach` of `near`; else `None`. The others are only counted: whether a
/// pair's slope is below is asked without a division, which at the edges may err by a rounding, and there
/// nothing is looked for.
fn median_near(points: &[(f64, f64)], near: f64, reach: f64) -> Option<(f64, f64)> {
    let (below, mut found) = near_slopes(points, (near - reach, near + reach));
    let all = points.len() * (points.len() - 1) / 2;
    let (lower, upper) = ((all - 1) / 2, all / 2);
    if lower < below || upper >= below + found.len() {
        return None;
    }
    let (lower, upper) = ranked(&mut found, lower - below, upper - below);
    let is_inside = |value: f64| (value - near).abs() <= 0.999 * reach;
    let share = all / NEAR_SHARE;
    let factor = match found.len() {
        len if len > 2 * share => 0.7,
        len if len < share / 2 => 1.5,
        _ => 1.0,
    };
    (is_inside(lower) && is_inside(upper)).then(|| (middle((lower, upper)), reach * factor))
}

/// How many slopes are below, and those that are between. Which is which cannot be foretold, so they are only
/// compared, eight at once and without a branch; of the few eights with one between the slopes are divided.
fn near_slopes(points: &[(f64, f64)], (low, high): (f64, f64)) -> (usize, Vec<f64>) {
    // What is not there compares as neither.
    let (mut times, mut values) = ([0.0; POINTS_MAX + EIGHT], [f64::NAN; POINTS_MAX + EIGHT]);
    for (at, (t, y)) in points.iter().enumerate() {
        (times[at], values[at]) = (*t, *y);
    }
    // Each of the eight counts for itself: a single sum of floats has an order, and so no eight at once.
    let (mut below, mut found, mut len) = ([0.0; EIGHT], vec![0.0; 4 * POINTS_MAX], 0);
    for (at, (t0, y0)) in points.iter().enumerate() {
        let (times, values) = (times[at + 1..].as_chunks().0, values[at + 1..].as_chunks().0);
        let eights = times.iter().zip(values).take((points.len() - at - 1).div_ceil(EIGHT));
        for (times, values) in eights {
            if has_between((times, values), (*t0, *y0), (low, high), &mut below) {
                found.resize(found.len().max(len + EIGHT), 0.0);
                for (t1, y1) in times.iter().zip(values) {
                    let (time, rise) = (t1 - t0, y1 - y0);
                    // Written in any case, and kept where it is between.
                    found[len] = rise / time;
                    len += usize::from((rise >= low * time) & (rise <= high * time));
                }
            }
        }
    }
    found.truncate(len);
    (below.iter().sum::<f64>() as usize, found)
}

/// Whether one of eight points, seen from another, rises between; those below are counted.
/// Not inlined, where the compiler would mix the steps again.
#[inline(never)]
fn has_between(
    (times, values): (&[f64; EIGHT], &[f64; EIGHT]),
    (t0, y0): (f64, f64),
    (low, high): (f64, f64),
    below: &mut [f64; EIGHT],
) -> bool {
    // One step for all eight after another, so that an instruction takes several at once.
    let time: [f64; EIGHT] = std::array::from_fn(|lane| times[lane] - t0);
    let rise: [f64; EIGHT] = std::array::from_fn(|lane| values[lane] - y0);
    let is_below: [f64; EIGHT] =
        std::array::from_fn(|lane| if rise[lane] < low * time[lane] { 1.0 } else { 0.0 });
    let is_through: [f64; EIGHT] =
        std::array::from_fn(|lane| if rise[lane] <= high * time[lane] { 1.0 } else { 0.0 });
    for lane in 0..EIGHT {
        below[lane] += is_below[lane];
    }
    let between: [f64; EIGHT] = std::array::from_fn(|lane| is_through[lane] - is_below[lane]);
    between.iter().sum::<f64>() > 0.0
}

/// The slopes of all pairs of points.
fn slopes(points: &[(f64, f64)]) -> impl Iterator<Item = f64> + Clone + '_ {
    let pairs = move |(at, (t0, y0)): (usize, &(f64, f64))| {
        let (t0, y0) = (*t0, *y0);
        points[at + 1..].iter().map(move |(t1, y1)| (y1 - y0) / (t1 - t0))
    };
    points.iter().enumerate().flat_map(pairs)
}

/// Not more than [`POINTS_MAX`] points: neighbours are taken together, each block by its medians.
fn together(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let block = points.len().div_ceil(POINTS_MAX);
    if block == 1 {
        return points.to_vec();
    }
    let middle = |block: &[(f64, f64)]| {
        let of = |part: fn(&(f64, f64)) -> f64| median(&mut block.iter().map(part).collect::<Vec<f64>>());
        (of(|point| point.0), of(|point| point.1))
    };
    points.chunks(block).map(middle).collect()
}

/// Of Mann and Kendall's S, with ties.
fn variance(points: &[(f64, f64)]) -> f64 {
    let mut values: Vec<f64> = points.iter().map(|(_, y)| *y).collect();
    values.sort_unstable_by(f64::total_cmp);
    let term = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let ties: f64 = values.chunk_by(|a, b| a == b).map(|tied| term(tied.len() as f64)).sum();
    (term(values.len() as f64) - ties) / 18.0
}

/// Sen's: the slopes whose ranks lie this far from the middle one.
fn interval(mut slopes: Vec<f64>, deviation: f64) -> (f64, f64) {
    let (len, reach) = (slopes.len() as f64, Z_INTERVAL * deviation);
    slopes.sort_unstable_by(f64::total_cmp);
    let at = |rank: f64| slopes[(rank.max(0.0) as usize).min(slopes.len() - 1)];
    (at((len - reach) / 2.0 - 1.0), at((len + reach) / 2.0))
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::*;

    fn learn(points: &[(f64, f64)]) -> Option<Trend> {
        Trend::learn(points, None)
    }

    fn is_found(points: &[(f64, f64)]) -> bool {
        learn(points).expect("enough windows").certainty(points).p < 0.01
    }

    fn line(n: usize, slope: f64) -> Vec<(f64, f64)> {
        (0..n).map(|at| (at as f64, 7.0 + slope * at as f64)).collect()
    }

    #[test]
    fn lines_are_found_exactly_also_in_blocks_and_with_outliers() {
        for n in [6, 50, 500] {
            let trend = learn(&line(n, -0.5)).expect("enough windows");
            assert!((trend.slope + 0.5).abs() < 1e-12 && (trend.at(1_000.0) + 493.0).abs() < 1e-9, "{n}");
        }
        let mut spoiled = line(30, 2.0);
        (spoiled[3].1, spoiled[20].1) = (1e6, -1e6);
        assert!((learn(&spoiled).expect("enough").slope - 2.0).abs() < 1e-9);
        assert_eq!(learn(&line(5, 1.0)), None);
    }

    #[test]
    fn what_was_learned_before_changes_nothing_but_the_time_it_takes() {
        let (mut dice, mut before, mut is_near) = (Dice(8), None, 0);
        // Noise, coarse noise with many ties, nothing, and a jump.
        let values: Vec<f64> = (0..900)
            .map(|at| match at / 200 {
                0 => dice.normal(),
                1 => dice.normal().round(),
                2 => 5.0,
                _ => 1e6 * f64::from(u8::from(at > 700)) + dice.normal(),
            })
            .collect();
        for end in 60..values.len() {
            let points: Vec<(f64, f64)> = (end - 60..end).map(|at| (at as f64, values[at])).collect();
            let found = Trend::learn(&points, before.as_ref()).expect("enough windows");
            assert_eq!(Some(found.slope), learn(&points).map(|plain| plain.slope), "{end}");
            is_near += usize::from(
                before
                    .is_some_and(|before: Trend| median_near(&points, before.slope, before.reach).is_some()),
            );
            before = Some(found);
        }
        assert!(is_near > 600, "{is_near} of {} at once", values.len() - 60);
    }

    #[test]
    fn turning_time_round_turns_the_slope_round() {
        let mut dice = Dice(3);
        let points: Vec<(f64, f64)> = (0..40).map(|at| (f64::from(at), dice.normal())).collect();
        let turned: Vec<(f64, f64)> = points.iter().rev().map(|(t, y)| (-t, *y)).collect();
        let (a, b) = (learn(&points).expect("enough"), learn(&turned).expect("enough"));
        let p = |trend: &Trend, points: &[(f64, f64)]| trend.certainty(points).p;
        assert!((a.slope + b.slope).abs() < 1e-12 && (p(&a, &points) - p(&b, &turned)).abs() < 1e-12);
    }

    #[test]
    fn a_limit_is_reached_when_the_line_does() {
        let trend = learn(&line(20, 2.0)).expect("enough windows");
        let interval = trend.certainty(&line(20, 2.0)).interval;
        let (time, earliest, latest) = trend.reaches(67.0, 20.0, interval).expect("it rises");
        assert!((time - 10.0).abs() < 1e-9 && earliest <= time && time <= latest);
        assert_eq!(trend.reaches(0.0, 20.0, interval), None);
        assert_eq!(learn(&[(0.0, 4.0); 0]), None);
        let flat: Vec<(f64, f64)> = (0..20).map(|at| (f64::from(at), 4.0)).collect();
        let trend = learn(&flat).expect("enough windows");
        assert_eq!((trend.slope, trend.certainty(&flat).p), (0.0, 1.0));
        assert_eq!(trend.reaches(9.0, 0.0, (0.0, 0.0)), None);
    }

    /// Anchors at nominal 1 %: 60 windows 1.3, 1.7 and 1.8 % for correlations of 0, 0.3 and 0.6; 20 windows
    /// 0.5, 1.5 and 3.3 %. None is passed by more than 15 %.
    #[test]
    fn the_level_holds_for_correlated_windows() {
        for (windows, r, anchor) in [
            (60, 0.0, 0.013),
            (60, 0.3, 0.017),
            (60, 0.6, 0.018),
            (20, 0.0, 0.005),
            (20, 0.3, 0.015),
            (20, 0.6, 0.033),
        ] {
            let (mut dice, mut passed, rounds) = (Dice(17), 0, 12_000);
            for _ in 0..rounds {
                let values = dice.correlated(windows, r);
                let points: Vec<(f64, f64)> =
                    values.iter().enumerate().map(|(t, y)| (t as f64, *y)).collect();
                passed += u32::from(is_found(&points));
            }
            let share = f64::from(passed) / f64::from(rounds);
            assert!(share > 0.003 && share < 1.15 * anchor, "{windows} windows, correlation {r}: {share}");
        }
    }
}
