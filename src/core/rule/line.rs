//! Lines through past windows: `trend` and `forecast`, and when the line comes to a limit.
//!
//! Intuition: a line is no baseline: it is followed as long as its alert lasts, and people want to know when it
//! gets where it must not. Invariant: how sure it is costs more than the line and changes no value, so it is
//! asked only by those who want to know why.

use super::super::alert::transition::{Baseline, Reach};
use super::super::detect::trend;
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
    /// Its hours count from here.
    end: Timestamp,
}

impl Line {
    /// When it reaches a limit, seen from `at`; `None` where it moves away from it.
    pub(super) fn reaches(&self, limit: f64, at: Timestamp) -> Option<Reach> {
        let (after, earliest, latest) = self.trend.reaches(limit, hours(at - self.end), self.interval)?;
        let time = |hours: f64| at + Span::from_ms((hours * 3_600_000.0).round() as i64);
        let is_told = |hours: &f64| *hours < REACH_HOURS_MAX;
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
    /// The line's time is in hours from where the newest window ends.
    pub(super) fn follow(&mut self, asked: &Past, trend: &trend::Trend, version: &Version) -> f64 {
        let end = version.end;
        if self.notes.inputs.is_some() {
            let known = self.outside_maintenance(asked, self.known(asked, self.memo_of(asked, None)));
            let known = known.iter().map(|(index, window)| (*index, window.value));
            let certainty = trend.certainty(&points(asked, known, end));
            let (low, high) = certainty.interval;
            self.notes.baseline =
                Baseline { p: Some(certainty.p), interval: Some([low, high]), ..version.evidence() };
            self.notes.line = Some(Line { trend: *trend, interval: certainty.interval, end });
        }
        match asked.function {
            Function::Forecast { ahead } => trend.at(hours(self.at + ahead - end)),
            _ => trend.slope,
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

/// Windows as points of a line: each stands for its middle, in hours from where the newest ends.
pub(super) fn points(
    asked: &Past,
    windows: impl Iterator<Item = (i64, f64)>,
    end: Timestamp,
) -> Vec<(f64, f64)> {
    let (newest, hours) = (end.index(asked.window), hours(asked.window));
    let hour = |index: i64| (index - newest) as f64 * hours + hours / 2.0;
    windows.map(|(index, value)| (hour(index), value)).collect()
}

/// The line through a key's windows, which rules over the same windows share.
#[derive(Debug)]
pub(super) struct SharedLine {
    of: (Extent, (u32, i64, i64)),
    line: Option<(Learned, usize)>,
}

impl SharedLine {
    /// The line through these windows: `known`, if it is of the same ones.
    pub(super) fn learn(
        asked: &Past,
        (windows, extent): (&SealedWindows<'_>, Extent),
        end: Timestamp,
        known: Option<&SharedLine>,
    ) -> SharedLine {
        let of = (extent, windows.state());
        if let Some(known) = known.filter(|known| known.of == of) {
            return SharedLine { of, line: known.line };
        }
        let whole = windows.values(extent.first, extent.last).filter(|(.., count)| *count >= extent.least);
        let points = points(asked, whole.map(|(index, value, _)| (index, value)), end);
        let before = known.and_then(|known| known.line.as_ref()).map(|(learned, _)| learned);
        SharedLine { of, line: learn_line(&points, before) }
    }

    pub(super) fn line(&self) -> Option<(Learned, usize)> {
        self.line
    }
}

pub(super) fn learn_line(points: &[(f64, f64)], before: Option<&Learned>) -> Option<(Learned, usize)> {
    let before = before.and_then(Learned::trend);
    Some((Learned::Trend(trend::Trend::learn(points, before)?), points.len()))
}

fn hours(span: Span) -> f64 {
    span.ms() as f64 / 3_600_000.0
}
