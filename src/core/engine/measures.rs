//! The series, their windows, and what is due for them: seals, corrections, reviews.
//!
//! Intuition: a value goes into the window of its minute, and each window is sealed once, at a time that is known
//! when it opens.
//! Invariant: each open window has one entry in `seals`, the schedule of due times. So it is sealed at its due
//! time, finer sizes first; a sealed window only changes through a correction.
//! Rejected: a walk over all series at each instant, because most of them have no window to seal.

use super::Handled;
use super::timeline::Timeline;
use crate::core::effect::{Effects, WindowEffect};
use crate::core::measure::pane::{Pane, Sample};
use crate::core::measure::series::{Metric, Series, SeriesSlot, SeriesTable};
use crate::core::measure::window::{Correction, Sealed, WindowKey, WindowSize, seal_due};
use crate::core::view::Reading;
use crate::core::vocab::counters::{Outcome, Refusal};
use crate::core::vocab::identity::SeriesRef;
use crate::core::vocab::time::{Span, Timestamp};
use std::collections::BTreeMap;

/// Due time and size → the slots whose windows are sealed then, with the start of each window.
pub(super) type Seals = BTreeMap<(Timestamp, WindowSize), Vec<(u32, Timestamp)>>;

/// Size, series id and start → the late part of a sealed window.
type Corrections = BTreeMap<(WindowSize, u64, Timestamp), (WindowKey, Pane)>;

/// Grid point → slot and generation of the series to review there for removal.
pub(super) type Reviews = BTreeMap<Timestamp, Vec<(u32, u32)>>;

/// The outcome if the engine's tables do not know what an event refers to. It cannot occur while the engine
/// is fed by its own decoders; the event is refused rather than guessed.
pub(super) const LOST: Outcome = Outcome::Refused(Refusal::BadEvent);

#[derive(Debug)]
pub(super) struct Measures {
    series: SeriesTable,
    /// Cache of the series of each `SeriesRef`, by decoder and by number within the decoder.
    slots: Vec<Vec<Option<SeriesSlot>>>,
    seals: Seals,
    corrections: Corrections,
    reviews: Reviews,
    /// Slots of the series with new values; `None` unless the caller tracks changes.
    touched: Option<Vec<u32>>,
    /// Start of the minute of the event processed last; only a cache.
    minute: Timestamp,
    /// Reused buffer for consecutive samples of one series that fall into one pane; it saves an allocation.
    run: Vec<Sample>,
    /// Time after the end of a window in which its events are on time.
    allowed_lateness: Span,
}

impl Measures {
    pub(super) fn new(allowed_lateness: Span) -> Measures {
        Measures {
            series: SeriesTable::default(),
            slots: Vec::new(),
            seals: Seals::new(),
            corrections: Corrections::new(),
            reviews: Reviews::new(),
            touched: None,
            minute: Timestamp::MIN,
            run: Vec::new(),
            allowed_lateness,
        }
    }

    pub(super) fn restore(
        series: SeriesTable,
        seals: Seals,
        reviews: Reviews,
        allowed_lateness: Span,
    ) -> Measures {
        Measures { series, seals, reviews, ..Measures::new(allowed_lateness) }
    }

    pub(super) fn series(&self) -> &SeriesTable {
        &self.series
    }

    pub(super) fn series_mut(&mut self) -> &mut SeriesTable {
        &mut self.series
    }

    #[inline]
    pub(super) fn with_metric(&mut self, slot: u32) -> Option<(&mut Series, &Metric)> {
        self.series.with_metric(slot)
    }

    pub(super) fn seals(&self) -> &Seals {
        &self.seals
    }

    pub(super) fn reviews(&self) -> &Reviews {
        &self.reviews
    }

    /// Returns when the next window is sealed.
    #[inline]
    pub(super) fn next_seal(&self) -> Timestamp {
        self.seals.first_key_value().map_or(Timestamp::MAX, |((due, _), _)| *due)
    }

    /// Returns when the next series is reviewed.
    pub(super) fn next_review(&self) -> Option<Timestamp> {
        self.reviews.first_key_value().map(|(when, _)| *when)
    }

    pub(super) fn review_at(&mut self, grid: Timestamp, slot: u32, generation: u32) {
        self.reviews.entry(grid).or_default().push((slot, generation));
    }

    /// Takes the series that are reviewed by `at`.
    pub(super) fn take_review(&mut self, at: Timestamp) -> Option<Vec<(u32, u32)>> {
        let entry = self.reviews.first_entry().filter(|entry| *entry.key() <= at)?;
        Some(entry.remove())
    }

    /// Returns the series of a `SeriesRef` with one array read, unless the series is new or was forgotten.
    #[inline]
    pub(super) fn known(&mut self, who: SeriesRef) -> Option<SeriesSlot> {
        let known = self.slots.get(who.decoder()).and_then(|slots| *slots.get(who.place())?);
        known.filter(|place| self.series.at(*place).is_some())
    }

    /// Caches the series of a `SeriesRef`. `count`: the number of series that its decoder knows.
    pub(super) fn remember(&mut self, who: SeriesRef, count: usize, place: SeriesSlot) {
        if self.slots.len() <= who.decoder() {
            self.slots.resize_with(who.decoder() + 1, Vec::new);
        }
        let slots = &mut self.slots[who.decoder()];
        if slots.len() <= who.place() {
            slots.resize(count, None);
        }
        slots[who.place()] = Some(place);
    }

    /// Forgets the series that a decoder's numbers stand for.
    pub(super) fn forget_decoder(&mut self, decoder: usize) {
        if let Some(slots) = self.slots.get_mut(decoder) {
            slots.clear();
        }
    }

    /// Returns the start of the minute of a time. Nearly always it is the minute of the previous
    /// event, which is cached.
    #[inline]
    pub(super) fn minute_of(&mut self, time: Timestamp) -> Timestamp {
        if time < self.minute || time >= self.minute + WindowSize::Minute.span() {
            self.minute = time.floor(WindowSize::Minute.span());
        }
        self.minute
    }

    /// Takes the buffer for samples, emptied. [`Self::give_run`] returns it.
    pub(super) fn take_run(&mut self) -> Vec<Sample> {
        let mut run = std::mem::take(&mut self.run);
        run.clear();
        run
    }

    pub(super) fn give_run(&mut self, run: Vec<Sample>) {
        self.run = run;
    }

    /// Starts to record which series get new values.
    pub(super) fn track_changes(&mut self) {
        self.touched.get_or_insert_default();
    }

    /// Returns the slots of the series with new values since the last call, each once.
    pub(super) fn take_touched(&mut self) -> Vec<u32> {
        let touched = self.touched.as_mut().map(std::mem::take).unwrap_or_default();
        for slot in &touched {
            if let Some(series) = self.series.get_mut(*slot) {
                series.is_touched = false;
            }
        }
        touched
    }

    #[inline]
    pub(super) fn add_on_time(&mut self, slot: u32, reading: &Reading<'_>) -> Outcome {
        let start = self.minute_of(reading.time());
        let Some(series) = self.series.get_mut(slot) else { return LOST };
        if let Some(touched) = &mut self.touched
            && !std::mem::replace(&mut series.is_touched, true)
        {
            touched.push(slot);
        }
        let Some((pane, is_new)) = series.windows.minute(start) else {
            return Outcome::Refused(Refusal::Cardinality);
        };
        reading.add_to(pane);
        if is_new {
            self.schedule_seal(slot, WindowSize::Minute, start);
        }
        Outcome::Recorded
    }

    /// Adds a late reading to the finest window that is still open, and to a correction of each finer one.
    pub(super) fn add_late(&mut self, slot: u32, reading: &Reading<'_>, timeline: &mut Timeline) -> Outcome {
        for size in WindowSize::ALL {
            let start = reading.time().floor(size.span());
            let is_incomplete = timeline.is_incomplete(size, start);
            let is_sealed = timeline.now() >= seal_due(start, size, self.allowed_lateness);
            let Some((series, metric)) = self.series.with_metric(slot) else { return LOST };
            if is_sealed {
                let place = (size, series.info.id, start);
                let key = || key(series, metric, size, start, is_incomplete);
                let (_, part) = self.corrections.entry(place).or_insert_with(|| (key(), Pane::default()));
                reading.add_to(part);
                timeline.wake();
            } else if let Some(is_new) = series.windows.change(size, start, |pane| reading.add_to(pane)) {
                if is_new {
                    self.schedule_seal(slot, size, start);
                }
                // The coarser windows get the reading when this window is sealed.
                break;
            }
        }
        Outcome::Late
    }

    fn schedule_seal(&mut self, slot: u32, size: WindowSize, start: Timestamp) {
        let due = seal_due(start, size, self.allowed_lateness);
        self.seals.entry((due, size)).or_default().push((slot, start));
    }

    /// Seals the windows that are due, by due time, then finer sizes first.
    pub(super) fn seal(
        &mut self,
        due: Timestamp,
        timeline: &Timeline,
        out: &mut Effects,
        windows_max: usize,
    ) -> Handled {
        while let Some(mut entry) = self.seals.first_entry()
            && entry.key().0 <= due
        {
            let (key, mut windows) = (*entry.key(), std::mem::take(entry.get_mut()));
            // The order is descending because `pop` takes the last element; the remaining windows stay
            // sorted. The sort reads each id only once, because most of the ids are not in the CPU cache.
            windows.sort_by_cached_key(|(slot, start)| {
                std::cmp::Reverse((self.series.get(*slot).map_or(0, |series| series.info.id), *start))
            });
            while let Some((slot, start)) = windows.pop() {
                let is_incomplete = timeline.is_incomplete(key.1, start);
                let sealed = self.seal_one(slot, key.1, start, (due, is_incomplete));
                out.windows.extend(sealed.map(WindowEffect::Sealed));
                if out.windows.len() >= windows_max && !windows.is_empty() {
                    self.seals.insert(key, windows);
                    return Handled::Partly;
                }
            }
            self.seals.remove(&key);
        }
        Handled::Wholly
    }

    /// Seals one window, unless `end_series` removed its series with open windows.
    fn seal_one(
        &mut self,
        slot: u32,
        size: WindowSize,
        start: Timestamp,
        (at, is_incomplete): (Timestamp, bool),
    ) -> Option<Sealed> {
        let (series, metric) = self.series.with_metric(slot)?;
        let (pane, opened) = series.windows.seal(size, start)?;
        let key = key(series, metric, size, start, is_incomplete);
        if let Some(coarse_start) = opened {
            let coarse = if size == WindowSize::Minute { WindowSize::FiveMinutes } else { WindowSize::Hour };
            self.schedule_seal(slot, coarse, coarse_start);
        }
        Some(Sealed { at, key, pane })
    }

    /// Returns the corrections that no grid point has emitted yet.
    pub(super) fn corrections(&self) -> impl Iterator<Item = &(WindowKey, Pane)> {
        self.corrections.values()
    }

    /// Adds a correction from a snapshot.
    pub(super) fn restore_correction(&mut self, key: WindowKey, part: Pane) {
        self.corrections.insert((key.size, key.series.id, key.start), (key, part));
    }

    /// Emits the corrections that late events opened since the last grid point.
    pub(super) fn flush_corrections(&mut self, at: Timestamp, out: &mut Effects) {
        for (_, (key, part)) in std::mem::take(&mut self.corrections) {
            out.windows.push(WindowEffect::Correction(Correction { at, key, part }));
        }
    }

    /// Returns the open windows of one series. Each includes its open windows of finer size.
    pub(super) fn open_windows_of(
        &self,
        slot: u32,
        sizes: &[WindowSize],
        timeline: &Timeline,
    ) -> Vec<(WindowKey, Pane)> {
        let Some(series) = self.series.get(slot) else { return Vec::new() };
        let metric = self.series.metric_of(series);
        let open = |size: &WindowSize| {
            let size = *size;
            series.windows.current(size).into_iter().map(move |open| {
                let is_incomplete = timeline.is_incomplete(size, open.start);
                (key(series, metric, size, open.start, is_incomplete), open.pane)
            })
        };
        sizes.iter().flat_map(open).collect()
    }
}

fn key(
    series: &Series,
    metric: &Metric,
    size: WindowSize,
    start: Timestamp,
    is_incomplete: bool,
) -> WindowKey {
    let (series, unit, shape) = (series.info.clone(), metric.unit.clone(), metric.shape);
    WindowKey { series, unit, shape, size, start, is_incomplete }
}
