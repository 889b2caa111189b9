//! The open 1m, 5m and 1h windows of one series.
//!
//! Intuition: an observation is recorded once, in its open 1m window. When that window is sealed, it is
//! merged into its 5m window, and the 5m window in turn into its 1h window. So a 5m window is exactly the
//! merge of its 1m windows, by construction.
//! Invariant: a window is sealed at `end + allowed_lateness + 1 ms`. From then on the engine does not hold
//! it. A later observation leaves the engine as a [`Correction`] that carries only the late part, and the
//! store adds this part to the window. Rejected: keeping sealed windows for an hour in case a correction
//! comes (at 100,000 series that is a gigabyte of idle windows).

use super::packed::PackedPane;
use super::pane::{Pane, Shape};
use crate::core::vocab::limits::OPEN_WINDOWS_MAX;
use crate::core::vocab::series_info::SeriesInfo;
use crate::core::vocab::time::{Span, Timestamp};
use crate::core::vocab::unit::Unit;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The three resolutions of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum WindowSize {
    #[serde(rename = "1m")]
    Minute,
    #[serde(rename = "5m")]
    FiveMinutes,
    #[serde(rename = "1h")]
    Hour,
}

impl WindowSize {
    pub const ALL: [WindowSize; 3] = [WindowSize::Minute, WindowSize::FiveMinutes, WindowSize::Hour];

    pub const fn span(self) -> Span {
        match self {
            WindowSize::Minute => Span::from_mins(1),
            WindowSize::FiveMinutes => Span::from_mins(5),
            WindowSize::Hour => Span::from_hours(1),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            WindowSize::Minute => "1m",
            WindowSize::FiveMinutes => "5m",
            WindowSize::Hour => "1h",
        }
    }

    pub fn from_name(name: &str) -> Option<WindowSize> {
        WindowSize::ALL.into_iter().find(|size| size.name() == name)
    }

    /// The next coarser size. Its windows are merged from windows of this size.
    fn coarser(self) -> Option<WindowSize> {
        match self {
            WindowSize::Minute => Some(WindowSize::FiveMinutes),
            WindowSize::FiveMinutes => Some(WindowSize::Hour),
            WindowSize::Hour => None,
        }
    }
}

/// The identity of one window of one series.
#[derive(Debug, Clone)]
pub struct WindowKey {
    pub series: Arc<SeriesInfo>,
    pub unit: Option<Unit>,
    pub shape: Shape,
    pub size: WindowSize,
    pub start: Timestamp,
    /// Whether a gap of the log overlaps the time in which the window's events arrive.
    pub is_incomplete: bool,
}

/// A window as it leaves the engine for the first time, as revision 0.
#[derive(Debug, Clone)]
pub struct Sealed {
    pub at: Timestamp,
    pub key: WindowKey,
    pub pane: Pane,
}

/// The part of a window that arrived after the window was sealed; it adds a revision.
#[derive(Debug, Clone)]
pub struct Correction {
    pub at: Timestamp,
    pub key: WindowKey,
    pub part: Pane,
}

/// The open windows of one series, each list ascending by start.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct OpenWindows {
    minutes: Vec<Open>,
    /// Number of filled buckets of the last sealed 1m window. The next 1m window reserves capacity for as
    /// many.
    #[serde(skip)]
    minute_buckets: u16,
    fives: Vec<Open>,
    hours: Vec<OpenHour>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct OpenHour {
    start: Timestamp,
    pane: PackedPane,
}

/// One open window.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Open {
    pub start: Timestamp,
    pub pane: Pane,
}

/// The time at which a window of this size and start is sealed.
#[inline]
pub fn seal_due(start: Timestamp, size: WindowSize, allowed_lateness: Span) -> Timestamp {
    start + size.span() + allowed_lateness + Span::MILLISECOND
}

impl OpenWindows {
    /// Returns the open 1m window with this start, and whether the call created it. `None` if the series
    /// already has the maximum number of open windows.
    #[inline]
    pub fn minute(&mut self, start: Timestamp) -> Option<(&mut Pane, bool)> {
        open_in(&mut self.minutes, start, self.minute_buckets.into())
    }

    /// Applies `change` to the open window with this start, and creates the window if needed. Returns whether
    /// the window was created; `None` if the series already has the maximum number of open windows.
    pub fn change(
        &mut self,
        size: WindowSize,
        start: Timestamp,
        change: impl FnOnce(&mut Pane),
    ) -> Option<bool> {
        let (pane, is_new) = match size {
            WindowSize::Minute => self.minute(start)?,
            WindowSize::FiveMinutes => open_in(&mut self.fives, start, 0)?,
            WindowSize::Hour => return self.change_hour(start, change),
        };
        change(pane);
        Some(is_new)
    }

    fn change_hour(&mut self, start: Timestamp, change: impl FnOnce(&mut Pane)) -> Option<bool> {
        let at = self.hours.partition_point(|hour| hour.start < start);
        let is_new = self.hours.get(at).is_none_or(|hour| hour.start != start);
        if is_new {
            if self.hours.len() >= OPEN_WINDOWS_MAX {
                return None;
            }
            self.hours.reserve_exact(1);
            self.hours.insert(at, OpenHour { start, pane: PackedPane::default() });
        }
        self.hours[at].pane.change(change);
        Some(is_new)
    }

    /// Removes a window that is sealed now and merges it into its coarser window. Returns the window, and the
    /// start of the coarser window if that had to be opened.
    pub fn seal(&mut self, size: WindowSize, start: Timestamp) -> Option<(Pane, Option<Timestamp>)> {
        let pane = self.take(size, start)?;
        if size == WindowSize::Minute {
            self.minute_buckets = pane.positive().sparse_len() as u16;
        }
        let Some(coarser) = size.coarser() else { return Some((pane, None)) };
        let coarse_start = start.floor(coarser.span());
        // The limit on open windows is not reached: a coarser window is only opened after it has begun and is
        // soon sealed, so few are open.
        let opened = self.change(coarser, coarse_start, |whole| whole.merge(&pane));
        Some((pane, opened.filter(|is_new| *is_new).map(|_| coarse_start)))
    }

    fn take(&mut self, size: WindowSize, start: Timestamp) -> Option<Pane> {
        let list = match size {
            WindowSize::Minute => &mut self.minutes,
            WindowSize::FiveMinutes => &mut self.fives,
            WindowSize::Hour => {
                let at = self.hours.iter().position(|hour| hour.start == start)?;
                return Some(self.hours.remove(at).pane.into_pane());
            }
        };
        let at = list.iter().position(|open| open.start == start)?;
        let pane = list.remove(at).pane;
        if list.is_empty() && list.capacity() > 2 {
            *list = Vec::new();
        }
        Some(pane)
    }

    pub fn is_empty(&self) -> bool {
        self.minutes.is_empty() && self.fives.is_empty() && self.hours.is_empty()
    }

    /// Returns the open windows of one size in order of start, with their current content. The content of
    /// finer open windows is included.
    pub fn current(&self, size: WindowSize) -> Vec<Open> {
        let mut windows = self.list(size);
        let finer: &[WindowSize] = match size {
            WindowSize::Minute => &[],
            WindowSize::FiveMinutes => &[WindowSize::Minute],
            WindowSize::Hour => &[WindowSize::FiveMinutes, WindowSize::Minute],
        };
        for open in finer.iter().flat_map(|finer| self.list(*finer)) {
            let start = open.start.floor(size.span());
            let at = windows.partition_point(|window| window.start < start);
            if windows.get(at).is_none_or(|window| window.start != start) {
                windows.insert(at, Open { start, pane: Pane::default() });
            }
            windows[at].pane.merge(&open.pane);
        }
        windows
    }

    /// Copies of the open windows of one size, by start.
    fn list(&self, size: WindowSize) -> Vec<Open> {
        match size {
            WindowSize::Minute => self.minutes.clone(),
            WindowSize::FiveMinutes => self.fives.clone(),
            WindowSize::Hour => {
                let open = |hour: &OpenHour| Open { start: hour.start, pane: hour.pane.clone().into_pane() };
                self.hours.iter().map(open).collect()
            }
        }
    }
}

/// Returns the window with this start, and whether it was created. A new window reserves capacity for
/// `buckets` filled buckets. `None` if the list has the maximum length.
#[inline]
fn open_in(list: &mut Vec<Open>, start: Timestamp, buckets: usize) -> Option<(&mut Pane, bool)> {
    // The window is nearly always the newest one, so the search begins at the back.
    let behind = list.iter().rev().take_while(|open| open.start > start).count();
    let at = list.len() - behind;
    let is_new = at == 0 || list[at - 1].start != start;
    if is_new && list.len() >= OPEN_WINDOWS_MAX {
        return None;
    }
    let at = if is_new {
        if list.is_empty() {
            list.reserve_exact(1);
        }
        list.insert(at, Open { start, pane: Pane::with_room(buckets) });
        at
    } else {
        at - 1
    };
    list.get_mut(at).map(|open| (&mut open.pane, is_new))
}

#[cfg(test)]
mod tests {
    use super::super::histogram::layout::Digits;
    use super::super::pane::Sample;
    use super::*;

    fn record(windows: &mut OpenWindows, secs: i64, value: f64) {
        let shape = Shape { digits: Digits::Two, resolution: Unit::resolution(None) };
        let time = Timestamp::clamped(secs * 1_000);
        let (pane, _) = windows.minute(time.floor(Span::from_mins(1))).expect("room");
        pane.record(Sample::new(shape, value, time));
    }

    #[test]
    fn a_coarser_window_is_the_merge_of_the_finer_ones() {
        let mut windows = OpenWindows::default();
        (0..300).for_each(|secs| record(&mut windows, secs, f64::from(secs as i32)));
        let before = windows.current(WindowSize::FiveMinutes);
        for minute in 0..5 {
            let start = Timestamp::clamped(minute * 60_000);
            let (pane, opened) = windows.seal(WindowSize::Minute, start).expect("open");
            assert_eq!((pane.count, opened.is_some()), (60, minute == 0));
        }
        let (five, opened) = windows.seal(WindowSize::FiveMinutes, Timestamp::clamped(0)).expect("open");
        assert_eq!((five.count, five.sum, five.last()), (300, 44_850.0, Some(299.0)));
        assert!(opened.is_some() && before[0].pane == five);
    }

    #[test]
    fn windows_out_of_order_are_kept_in_order() {
        let mut windows = OpenWindows::default();
        for secs in [130, 10, 70, 11] {
            record(&mut windows, secs, 1.0);
        }
        let minutes = windows.current(WindowSize::Minute);
        let starts: Vec<_> = minutes.iter().map(|open| open.start.ms() / 1_000).collect();
        assert_eq!(starts, [0, 60, 120]);
    }
}
