//! The engine's time: how far the log has advanced, the next grid point with work, and the time that is missing.
//!
//! Intuition: only records advance time, and rules are evaluated at grid points, the multiples of the evaluation
//! interval. Code that has work for a grid point schedules it; a grid point without work is skipped.
//! Invariant: `now` never decreases.

use crate::core::gap::Gaps;
use crate::core::interruption::Interruptions;
use crate::core::measure::window::WindowSize;
use crate::core::view::feed::When;
use crate::core::vocab::limits::Limits;
use crate::core::vocab::time::{Span, Timestamp};

/// The time of one log.
#[derive(Debug)]
pub(super) struct Timeline {
    interval: Span,
    allowed_lateness: Span,
    /// Effective ingest time of the newest record.
    now: Timestamp,
    has_begun: bool,
    /// Whether the log has ever held a tick. An interruption can only be detected in a log with ticks.
    has_ticks: bool,
    /// Whether time has begun to advance for a record that is not yet applied.
    is_underway: bool,
    /// Earliest grid point with work to do; `MAX` if none is known.
    grid_due: Timestamp,
    interruptions: Interruptions,
    gaps: Gaps,
}

/// The stored form of a timeline.
#[derive(Debug)]
pub(super) struct TimelineImage {
    pub(super) now: Timestamp,
    pub(super) has_begun: bool,
    pub(super) has_ticks: bool,
    pub(super) grid_due: Timestamp,
    pub(super) interruptions: Interruptions,
    pub(super) gaps: Gaps,
}

impl Timeline {
    pub(super) fn new(limits: &Limits) -> Timeline {
        let image = TimelineImage {
            now: Timestamp::MIN,
            has_begun: false,
            has_ticks: false,
            grid_due: Timestamp::MAX,
            interruptions: Interruptions::default(),
            gaps: Gaps::default(),
        };
        Timeline::restore(image, limits)
    }

    pub(super) fn restore(image: TimelineImage, limits: &Limits) -> Timeline {
        Timeline {
            interval: limits.evaluation_interval,
            allowed_lateness: limits.allowed_lateness,
            now: image.now,
            has_begun: image.has_begun,
            has_ticks: image.has_ticks,
            is_underway: false,
            grid_due: image.grid_due,
            interruptions: image.interruptions,
            gaps: image.gaps,
        }
    }

    /// Starts time at the first record. Rules that were loaded before it are evaluated at the first grid point
    /// after it.
    pub(super) fn begin(&mut self, at: Timestamp) {
        self.has_begun = true;
        self.now = at;
        self.grid_due = self.grid_due.max(at.next(self.interval));
    }

    /// Begins to advance for a record. Returns whether it is the first call for that record.
    pub(super) fn get_underway(&mut self) -> bool {
        !std::mem::replace(&mut self.is_underway, true)
    }

    /// Notes that time has advanced to the record's time, so the record can be applied.
    pub(super) fn arrive(&mut self) {
        self.is_underway = false;
    }

    /// Moves time forward; an earlier time changes nothing.
    #[inline]
    pub(super) fn advance_to(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
    }

    pub(super) fn note_tick(&mut self) {
        self.has_ticks = true;
    }

    /// Schedules the next grid point, because something changed that it must evaluate.
    #[inline]
    pub(super) fn wake(&mut self) {
        // A grid point due within one interval is already the next one.
        if self.grid_due <= self.now + self.interval {
            return;
        }
        self.grid_due = self.grid_due.min(self.now.next(self.interval));
    }

    /// Schedules a grid point for work that is due at `at`, a multiple of the interval.
    pub(super) fn wake_at(&mut self, at: Timestamp) {
        self.grid_due = self.grid_due.min(at);
    }

    /// Clears the due grid point before its work runs. That work schedules the next one.
    pub(super) fn take_grid(&mut self) {
        self.grid_due = Timestamp::MAX;
    }

    /// Sets the next grid point, rounded up to the grid; `None` if no work is due.
    pub(super) fn plan(&mut self, next: Option<Timestamp>) {
        self.grid_due = next.map_or(Timestamp::MAX, |next| next.ceil(self.interval));
    }

    /// Records a span in which no owner wrote to the log, or whose content is unknown. Timers exclude the span.
    pub(super) fn interrupt(&mut self, from: Timestamp, to: Timestamp) {
        self.interruptions.add(from, to);
    }

    /// Notes a span whose records are lost.
    pub(super) fn lose(&mut self, from: Timestamp, to: Timestamp) {
        self.gaps.add(from, to);
    }

    #[inline]
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) fn has_ticks(&self) -> bool {
        self.has_ticks
    }

    pub(super) fn is_underway(&self) -> bool {
        self.is_underway
    }

    pub(super) fn grid_due(&self) -> Timestamp {
        self.grid_due
    }

    /// Returns the distance between grid points. An event is read only at grid points after it.
    #[inline]
    pub(super) fn interval(&self) -> Span {
        self.interval
    }

    /// Returns the time as views need it.
    #[inline]
    pub(super) fn when(&self) -> When {
        When { now: self.now, interval: self.interval }
    }

    pub(super) fn interruptions(&self) -> &Interruptions {
        &self.interruptions
    }

    pub(super) fn gaps(&self) -> &Gaps {
        &self.gaps
    }

    /// Returns whether a gap overlaps the time in which a window's events arrive.
    pub(super) fn is_incomplete(&self, size: WindowSize, start: Timestamp) -> bool {
        self.gaps.touch(start, start + size.span() + self.allowed_lateness)
    }
}
