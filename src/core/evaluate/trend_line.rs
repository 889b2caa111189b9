//! Lines through past windows: `trend` and `forecast`, and the time at which the line reaches a limit.
//!
//! Intuition: a line is not a baseline. It keeps following new windows while its alert lasts, and an operator
//! wants to know when it reaches the limit.
//! Invariant: the p-value and the confidence interval of a line cost more than the line and change no value, so
//! they are computed only when evidence is collected.

use super::Evaluation;
use super::baseline_cache::Extent;
use super::lookback::{Learned, Version};
use crate::core::alert::transition::{Baseline, Reach};
use crate::core::detect::slopes::{Point, Slopes};
use crate::core::detect::trend::{Between, POINTS_MAX, Trend, together};
use crate::core::rule::ast::{Expr, Function, Past};
use crate::core::view::SealedWindows;
use crate::core::vocab::time::{Span, Timestamp};

/// A line that was evaluated, kept for evidence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    trend: Trend,
    interval: (f64, f64),
    /// The length of a window, which is the unit of the line's time axis.
    window: Span,
}

impl Line {
    /// Returns when the line reaches a limit, seen from `at`; `None` if it moves away from the limit or
    /// reaches it too late.
    pub(super) fn reaches(&self, limit: f64, at: Timestamp) -> Option<Reach> {
        let now = in_windows(at, self.window);
        let (after, earliest, latest) = self.trend.reaches(limit, now, self.interval)?;
        let time = |windows: f64| at + Span::from_ms((windows * self.window.ms() as f64).round() as i64);
        let is_told = |windows: &f64| windows * hours(self.window) < REACH_HOURS_MAX;
        Some(after).filter(is_told).map(|after| Reach {
            limit,
            at: time(after),
            earliest: time(earliest),
            latest: Some(latest).filter(is_told).map(time),
        })
    }
}

/// Ten years, in hours. A limit that is reached later is reported as never reached.
const REACH_HOURS_MAX: f64 = 10.0 * 365.0 * 24.0;

impl Evaluation<'_> {
    /// Returns the value of a function on a line. The line counts time in windows, but published slopes are
    /// per hour.
    pub(super) fn follow(&mut self, asked: &Past, trend: &Trend, version: &Version) -> f64 {
        let (window, an_hour) = (asked.window, |slope: f64| slope / hours(asked.window));
        if self.notes.why.is_some() {
            let known = self.outside_maintenance(asked, self.known(asked, self.memo_of(asked, None)));
            let known = known.iter().map(|(index, window)| (*index, window.value));
            let certainty = trend.certainty(&points(known));
            let (low, high) = certainty.interval;
            let interval = Some([an_hour(low), an_hour(high)]);
            self.note_baseline(|| Baseline { p: Some(certainty.p), interval, ..version.evidence() });
            let line = Line { trend: *trend, interval: certainty.interval, window };
            self.notes.why.iter_mut().for_each(|why| why.line = Some(line));
        }
        match asked.function {
            Function::Forecast { ahead } => trend.at(in_windows(self.target.at + ahead, window)),
            _ => an_hour(trend.slope),
        }
    }

    /// Does the same as [`Self::follow`] for the bounds of a line.
    pub(super) fn follow_roughly(&self, asked: &Past, between: &Between) -> (f64, f64) {
        match asked.function {
            Function::Forecast { ahead } => between.at(in_windows(self.target.at + ahead, asked.window)),
            _ => (between.slope.0 / hours(asked.window), between.slope.1 / hours(asked.window)),
        }
    }

    /// Notes when the forecast that was evaluated reaches a limit.
    pub(super) fn note_reach(&mut self, expr: &Expr, limit: Option<f64>) {
        let is_forecast =
            matches!(expr, Expr::Past(past) if matches!(past.function, Function::Forecast { .. }));
        let Some(why) = self.notes.why.as_mut().filter(|_| is_forecast) else { return };
        let reached = why.line.zip(limit).and_then(|(line, limit)| line.reaches(limit, self.target.at));
        why.baseline.reaches = why.baseline.reaches.take().or(reached);
    }
}

/// Converts windows to the points of a line. A point lies in the middle of its window and its time is
/// counted in windows, so differences of times are exact.
pub(super) fn points(windows: impl Iterator<Item = (i64, f64)>) -> Vec<Point> {
    let mut points = Vec::with_capacity(windows.size_hint().1.unwrap_or(0).min(POINTS_ROOM));
    points.extend(windows.map(point));
    points
}

fn point((index, value): (i64, f64)) -> Point {
    (index as f64 + 0.5, value)
}

/// The largest number of points for which capacity is reserved beforehand.
const POINTS_ROOM: usize = 2 * POINTS_MAX;

/// The line through a key's windows, shared by the rules over the same windows.
#[derive(Debug, Default)]
pub(super) struct SharedLine {
    of: Option<(Extent, (u32, i64, i64))>,
    windows: usize,
    slopes: Slopes,
    /// Computed on first use.
    line: Option<Trend>,
    between: Option<Between>,
}

impl SharedLine {
    /// Reads the parts to prefetch; see [`crate::core::view::prefetch`].
    pub(super) fn prefetch(&self) -> u64 {
        self.windows as u64 ^ self.slopes.points().first().map_or(0, |(_, value)| value.to_bits())
    }

    /// Returns the trend line (Theil–Sen) of these windows, cached until they change.
    pub(super) fn line(&mut self, windows: &SealedWindows<'_>, extent: Extent) -> Option<(Learned, usize)> {
        self.move_to(windows, extent);
        self.line = self.line.or_else(|| Trend::of(&self.slopes, self.windows));
        self.line.map(|line| (Learned::Trend(line), self.windows))
    }

    /// Returns bounds that contain the line.
    pub(super) fn between(&mut self, windows: &SealedWindows<'_>, extent: Extent) -> Option<Between> {
        self.move_to(windows, extent);
        self.between = self.between.or_else(|| Between::of(&mut self.slopes, self.windows));
        self.between
    }

    fn move_to(&mut self, windows: &SealedWindows<'_>, extent: Extent) {
        let of = Some((extent, windows.state()));
        if self.of == of {
            return;
        }
        if !self.slide(windows, extent) {
            let points = points(whole(windows, extent.first, extent));
            self.slopes.move_to(&together(&points));
            self.windows = points.len();
        }
        (self.of, self.line, self.between) = (of, None, None);
    }

    /// Slides the points to a later extent; returns `false` if all windows must be read again.
    fn slide(&mut self, windows: &SealedWindows<'_>, extent: Extent) -> bool {
        let is_near = |(known, before): &(Extent, _)| known.is_near(extent, *before, windows.state());
        let known = self.of.filter(is_near);
        // Sliding needs one point per window. With more than about `POINTS_MAX` windows, a point stands for a
        // block of several windows.
        let Some((known, _)) = known.filter(|_| self.windows == self.slopes.points().len()) else {
            return false;
        };
        let new = whole(windows, known.last + 1, extent).map(point);
        self.slopes.slide(extent.first as f64, new);
        self.windows = self.slopes.points().len();
        self.windows <= POINTS_MAX
    }
}

/// Returns the windows from `first` to the end of an extent that hold enough observations.
fn whole<'a>(
    windows: &'a SealedWindows<'_>,
    first: i64,
    extent: Extent,
) -> impl Iterator<Item = (i64, f64)> + 'a {
    let all = windows.values(first, extent.last);
    all.filter(move |(.., count)| *count >= extent.least).map(|(index, value, _)| (index, value))
}

fn hours(span: Span) -> f64 {
    span.ms() as f64 / 3_600_000.0
}

/// Converts a time to a number of windows since the epoch.
fn in_windows(at: Timestamp, window: Span) -> f64 {
    at.ms() as f64 / window.ms() as f64
}
