//! `trend` and `forecast`: how fast a metric rises, when it reaches a limit, and whether the rise is more
//! than noise.
//!
//! Intuition: the median of the slopes between all pairs of windows is robust against outliers. Whether
//! there is a slope at all is tested by counting how many pairs rise.
//! Formula: Theil–Sen slope b = median (yⱼ − yᵢ) / (tⱼ − tᵢ), value a + b t with a = median (yᵢ − b tᵢ);
//! Mann–Kendall S = Σ sign (yⱼ − yᵢ) with the variance for ties, times (1 + r) / (1 − r) because of
//! autocorrelation; r = (lag-1 correlation of the residuals + 2/n) / (1 − 3/n). The slope's interval is
//! Sen's.
//! Rejected: least squares (one outlier tilts it), Mann–Kendall without the factor (a nominal level of 1 %
//! is 18 % at a correlation of 0.6).
//! Cost: O(n²) for up to [`POINTS_MAX`] points if the line itself is needed; O(n) per closed window if only
//! its bounds are ([`super::slopes`]). More points are grouped into blocks.

use super::slopes::{Point, Slopes, slopes};
use super::tails::normal_above;
use super::{lag_one, median};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Minimum number of windows for a trend.
pub(crate) const WINDOWS_MIN: usize = 6;

/// Maximum number of points of which all pairs are examined: 1,770 pairs.
pub(crate) const POINTS_MAX: usize = 60;

/// Maximum autocorrelation that is assumed.
const CORRELATION_MAX: f64 = 0.95;

/// The normal quantile of a two-sided 95 % interval.
const Z_INTERVAL: f64 = 1.959_964;

/// A line through some windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trend {
    /// Change per unit of the given times.
    pub slope: f64,
    /// The value of the line at the time of the newest point.
    level: f64,
    newest: f64,
    pub windows: usize,
}

/// The certainty of a line; computed only for an explanation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Certainty {
    /// The 95 % confidence interval of the slope.
    pub interval: (f64, f64),
    /// Two-sided p-value of the trend.
    pub p: f64,
}

impl Trend {
    /// Learns from points ascending in time; `None` with too few of them.
    pub(crate) fn learn(points: &[Point]) -> Option<Trend> {
        let mut slopes = Slopes::default();
        slopes.move_to(&together(points));
        Trend::of(&slopes, points.len())
    }

    /// Derives the line from the slopes of this many windows; `None` with too few. Many windows must have
    /// been grouped by [`together`].
    pub(crate) fn of(slopes: &Slopes, windows: usize) -> Option<Trend> {
        let slope = Some(slopes).filter(|_| windows >= WINDOWS_MIN)?.middle()?;
        Some(Trend::through(slopes.points(), slope, windows))
    }

    fn through(points: &[Point], slope: f64, windows: usize) -> Trend {
        // There are points, because there is a slope.
        let newest = points.last().map_or(0.0, |point| point.0);
        let mut rests: Vec<f64> = points.iter().map(|(t, y)| y - slope * (t - newest)).collect();
        Trend { slope, level: median(&mut rests), newest, windows }
    }

    /// Returns the value of the line at a time.
    pub(crate) fn at(&self, time: f64) -> f64 {
        self.level + self.slope * (time - self.newest)
    }

    /// Returns the certainty of the line from the points that it was learned from.
    pub(crate) fn certainty(&self, points: &[Point]) -> Certainty {
        let points = together(points);
        let rests: Vec<f64> = points.iter().map(|(t, y)| y - self.slope * (t - self.newest)).collect();
        // The residuals of a fitted line are less autocorrelated than the noise; the two terms in n correct
        // for this bias.
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

    /// Returns the time from `now` until the line reaches a limit, with the earliest and the latest time
    /// that the slope's `interval` allows; `None` if the line moves away from the limit.
    pub(crate) fn reaches(&self, limit: f64, now: f64, interval: (f64, f64)) -> Option<(f64, f64, f64)> {
        let left = limit - self.at(now);
        let after = |slope: f64| if left * slope > 0.0 { left / slope } else { f64::INFINITY };
        let (a, b) = (after(interval.0), after(interval.1));
        (left * self.slope > 0.0).then(|| (left / self.slope, a.min(b), a.max(b)))
    }
}

/// Bounds on a line, found without computing the line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Between {
    /// Bounds on the change per unit of the given times.
    pub slope: (f64, f64),
    level: (f64, f64),
    newest: f64,
}

impl Between {
    /// Derives bounds from the slopes of this many windows; `None` with too few.
    pub(crate) fn of(slopes: &mut Slopes, windows: usize) -> Option<Between> {
        let slope = Some(&mut *slopes).filter(|_| windows >= WINDOWS_MIN)?.between()?;
        let points = slopes.points();
        let (oldest, newest) = (points.first()?.0, points.last()?.0);
        let values = points.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), (_, value)| {
            (least.min(*value), most.max(*value))
        });
        // A residual is the value plus the slope times the point's age. The oldest age therefore bounds the
        // second term.
        let age = newest - oldest;
        let level = (values.0 + (slope.0 * age).min(0.0), values.1 + (slope.1 * age).max(0.0));
        Some(Between { slope, level, newest })
    }

    /// Returns bounds on the value of the line at a time.
    pub(crate) fn at(&self, time: f64) -> (f64, f64) {
        let ahead = time - self.newest;
        let (a, b) = (self.slope.0 * ahead, self.slope.1 * ahead);
        (self.level.0 + a.min(b), self.level.1 + a.max(b))
    }
}

/// Reduces the points to at most [`POINTS_MAX`] + 1: neighbours form blocks, and the medians of a block's
/// times and values represent the block. Blocks begin at multiples of their length, so that only the first
/// and the last block change from window to window.
pub(crate) fn together(points: &[Point]) -> Cow<'_, [Point]> {
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else { return points.into() };
    if points.len() <= POINTS_MAX {
        return points.into();
    }
    let block = ((last - first + 1.0) / POINTS_MAX as f64).ceil();
    let middle = |block: &[Point]| {
        let of = |part: fn(&Point) -> f64| median(&mut block.iter().map(part).collect::<Vec<f64>>());
        (of(|point| point.0), of(|point| point.1))
    };
    let is_same = |a: &Point, b: &Point| (a.0 / block).floor() == (b.0 / block).floor();
    points.chunk_by(is_same).map(middle).collect()
}

/// The variance of the Mann–Kendall S, with ties.
fn variance(points: &[Point]) -> f64 {
    let mut values: Vec<f64> = points.iter().map(|(_, y)| *y).collect();
    values.sort_unstable_by(f64::total_cmp);
    let term = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let ties: f64 = values.chunk_by(|a, b| a == b).map(|tied| term(tied.len() as f64)).sum();
    (term(values.len() as f64) - ties) / 18.0
}

/// Sen's interval: the slopes whose ranks are `Z_INTERVAL` deviations of S apart, centred on the median.
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

    fn learn(points: &[Point]) -> Option<Trend> {
        Trend::learn(points)
    }

    fn is_within(value: f64, (low, high): (f64, f64)) -> bool {
        low <= value && value <= high
    }

    fn is_found(points: &[Point]) -> bool {
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
    fn blocks_stay_where_they_are_while_windows_come_and_go() {
        let (mut dice, mut kept) = (Dice(8), Slopes::default());
        let all: Vec<Point> = (0..900).map(|at| (f64::from(at) + 0.5, dice.normal())).collect();
        for end in 300..all.len() {
            let points = &all[end - 300..end];
            let blocks = together(points);
            assert!((POINTS_MAX..=POINTS_MAX + 1).contains(&blocks.len()), "{}", blocks.len());
            kept.move_to(&blocks);
            let (between, line) = (Between::of(&mut kept, points.len()), learn(points).expect("enough"));
            let between = between.expect("enough");
            assert!(is_within(line.slope, between.slope), "{end}");
            for time in [0.0, 2.0 * f64::from(end as u32)] {
                assert!(is_within(line.at(time), between.at(time)), "{end}");
            }
            assert_eq!(Trend::of(&kept, points.len()), Some(line), "{end}");
        }
    }

    #[test]
    fn turning_time_round_turns_the_slope_round() {
        let mut dice = Dice(3);
        let points: Vec<(f64, f64)> = (0..40).map(|at| (f64::from(at), dice.normal())).collect();
        let turned: Vec<(f64, f64)> = points.iter().rev().map(|(t, y)| (-t, *y)).collect();
        let (a, b) = (learn(&points).expect("enough"), learn(&turned).expect("enough"));
        let p = |trend: &Trend, points: &[Point]| trend.certainty(points).p;
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

    /// Anchors for the share of significant trends in noise, at a nominal level of 1 % and correlations of 0,
    /// 0.3 and 0.6: 1.3, 1.7 and 1.8 % with 60 windows; 0.5, 1.5 and 3.3 % with 20 windows. No share exceeds
    /// its anchor by more than 15 %.
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
