//! Lines through past windows: `trend` and `forecast`, and when the line comes to a limit.
//!
//! Intuition: a line is no baseline: it is followed as long as its alert lasts, and people want to know when it
//! gets where it must not. Invariant: how sure it is costs more than the line and changes no value, so it is
//! asked only by those who want to know why.

use super::super::alert::transition::{Baseline, Reach};
use super::super::detect::slopes::{Point, Slopes};
use super::super::detect::trend::{self, POINTS_MAX};
use super::super::time::{Span, Timestamp};
use super::super::view::SealedWindows;
use super::ast::{Expr, Function, Past};
use super::evaluate::Scope;
use super::past::{Learned, Version};
use super::ranks::Extent;

/// A line that was read, for those who ask why.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    trend: trend::Trend,
    interval: (f64, f64),
    /// What its time is counted in.
    window: Span,
}

impl Line {
    /// When it reaches a limit, seen from `at`; `None` where it moves away from it.
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

/// Later than in ten years is never.
const REACH_HOURS_MAX: f64 = 10.0 * 365.0 * 24.0;

impl Scope<'_> {
    /// The line's time is in windows; people count in hours.
    pub(super) fn follow(&mut self, asked: &Past, trend: &trend::Trend, version: &Version) -> f64 {
        let (window, an_hour) = (asked.window, |slope: f64| slope / hours(asked.window));
        if self.notes.inputs.is_some() {
            let known = self.outside_maintenance(asked, self.known(asked, self.memo_of(asked, None)));
            let known = known.iter().map(|(index, window)| (*index, window.value));
            let certainty = trend.certainty(&points(known));
            let (low, high) = certainty.interval;
            let interval = Some([an_hour(low), an_hour(high)]);
            self.notes.baseline = Baseline { p: Some(certainty.p), interval, ..version.evidence() };
            self.notes.line = Some(Line { trend: *trend, interval: certainty.interval, window });
        }
        match asked.function {
            Function::Forecast { ahead } => trend.at(in_windows(self.at + ahead, window)),
            _ => an_hour(trend.slope),
        }
    }

    /// When the forecast that was read comes to a limit.
    pub(super) fn note_reach(&mut self, expr: &Expr, limit: Option<f64>) {
        let is_forecast =
            matches!(expr, Expr::Past(past) if matches!(past.function, Function::Forecast { .. }));
        let line = self.notes.line.filter(|_| is_forecast && self.notes.inputs.is_some());
        let reached = line.zip(limit).and_then(|(line, limit)| line.reaches(limit, self.at));
        self.notes.baseline.reaches = self.notes.baseline.reaches.take().or(reached);
    }
}

/// Windows as points of a line: each stands for its middle, counted in windows, so that what lies between two
/// is the same at any time.
pub(super) fn points(windows: impl Iterator<Item = (i64, f64)>) -> Vec<Point> {
    let mut points = Vec::with_capacity(windows.size_hint().1.unwrap_or(0).min(POINTS_ROOM));
    points.extend(windows.map(|(index, value)| (index as f64 + 0.5, value)));
    points
}

/// More points than this make room for themselves.
const POINTS_ROOM: usize = 2 * POINTS_MAX;

/// The line through a key's windows, which rules over the same windows share.
#[derive(Debug, Default)]
pub(super) struct SharedLine {
    of: Option<(Extent, (u32, i64, i64))>,
    slopes: Slopes,
    line: Option<(Learned, usize)>,
}

impl SharedLine {
    /// The line through these windows.
    pub(super) fn move_to(
        &mut self,
        (windows, extent): (&SealedWindows<'_>, Extent),
    ) -> Option<(Learned, usize)> {
        let (of, state) = (Some((extent, windows.state())), windows.state());
        if self.of != of {
            let slid = self.slide(windows, extent, state);
            let anew = || learn_line(&points(whole(windows, extent.first, extent)), &mut self.slopes);
            (self.of, self.line) = (of, slid.or_else(anew));
        }
        self.line
    }

    /// `None` where all windows must be looked at.
    fn slide(
        &mut self,
        windows: &SealedWindows<'_>,
        extent: Extent,
        state: (u32, i64, i64),
    ) -> Option<(Learned, usize)> {
        let (known, _) = self.of.filter(|(known, before)| known.is_near(extent, *before, state))?;
        // Blocks of windows are no windows.
        self.line.filter(|(_, windows)| *windows == self.slopes.points().len())?;
        let new = points(whole(windows, known.last + 1, extent));
        let trend = trend::Trend::slide(extent.first as f64, &new, &mut self.slopes)?;
        Some((Learned::Trend(trend), trend.windows))
    }
}

/// The windows of an extent that hold enough, from one on.
fn whole<'a>(
    windows: &'a SealedWindows<'_>,
    first: i64,
    extent: Extent,
) -> impl Iterator<Item = (i64, f64)> + 'a {
    let all = windows.values(first, extent.last);
    all.filter(move |(.., count)| *count >= extent.least).map(|(index, value, _)| (index, value))
}

pub(super) fn learn_line(points: &[Point], slopes: &mut Slopes) -> Option<(Learned, usize)> {
    Some((Learned::Trend(trend::Trend::learn(points, slopes)?), points.len()))
}

fn hours(span: Span) -> f64 {
    span.ms() as f64 / 3_600_000.0
}

/// How many windows there were before a time.
fn in_windows(at: Timestamp, window: Span) -> f64 {
    at.ms() as f64 / window.ms() as f64
}
