//! Rows of sealed windows: a few numbers each, instead of a histogram.
//!
//! Intuition: a detector reads a few statistics of a window, not its histogram. A day of five-minute
//! histograms takes 100 KB per key; a day of rows takes 3 KB.
//! Invariant: a window's row is written when the window is sealed, and again after each late observation. So
//! the row always equals what the histogram would give. Rows are contiguous; the value of a window without
//! observations is NaN.
//! Rejected: reading the histograms of sealed windows again each time (an hour of histograms for each closed
//! window).

use super::group::Trail;
use super::sealed::SealedPanes;
use crate::core::detect::regression::{Profile, VALUES_MIN, Window};
use crate::core::detect::{median, tails};
use crate::core::measure::histogram::layout::Digits;
use crate::core::measure::pane::{Pane, Shape, quantile_of_two};
use crate::core::vocab::aggregate::Aggregate;
use crate::core::vocab::time::Span;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::LazyLock;

/// Maximum number of windows from which the threshold of the tail is computed: the median of their p95s. A
/// value above the threshold belongs to the tail.
const TAIL_WINDOWS: usize = 300;

/// Number of windows after which the threshold of the tail is computed again; it changes slowly. With fewer
/// than twice as many windows, it is computed again for each window.
const TAIL_EVERY: usize = 16;

/// Maximum gap in windows: after a longer one, the rows before the gap are dropped. No period of a baseline
/// is as long.
const GAP_MAX: i64 = 1 << 16;

/// The sealed windows of one key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct History {
    first: i64, // index of the oldest window kept
    pub(super) values: VecDeque<f64>,
    pub(super) counts: VecDeque<u16>, // saturating
    /// Per window: p50, its error, tail share, mean logarithm, its error, p95. Empty until a window has a
    /// profile.
    profiles: VecDeque<[f32; 6]>,
    /// Index of the first window with an observation, even if the window is no longer kept.
    begun: Option<i64>,
    /// Windows before this index no longer change.
    closed: i64,
    /// Sealed windows that may still change.
    pub(super) panes: SealedPanes,
    /// The threshold of the tail, and the number of further windows for which it is used.
    tail_begin: Option<f32>,
    tail_holds: usize,
}

/// The largest count that a row can store; a larger count is stored as this one.
pub(crate) const COUNT_MAX: u64 = u16::MAX as u64;

/// The settings by which the pane of a window is reduced to a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader {
    pub(super) shape: Shape,
    pub(super) aggregate: Aggregate,
    pub(super) window: Span,
    pub(super) is_profiled: bool,
}

impl Reader {
    /// Computes the statistics of a window; `above`: the threshold of the tail.
    pub(super) fn read(&self, trail: &Trail, above: Option<f64>) -> Option<Window> {
        let value = self.value(trail)?;
        let count = trail.pane.count;
        let profile = match self.is_profiled {
            true => profile([&trail.pane, &EMPTY], self.shape, above),
            false => None,
        };
        Some(Window { count, value, profile })
    }

    fn value(&self, trail: &Trail) -> Option<f64> {
        let (pane, seconds) = (&trail.pane, self.window.secs_f64());
        match self.aggregate {
            Aggregate::Count => Some(pane.count as f64),
            Aggregate::Sum => Some(pane.sum),
            Aggregate::RateOfCount => Some(pane.count as f64 / seconds),
            Aggregate::RateOfSum => Some(pane.sum / seconds),
            Aggregate::Avg => pane.avg(),
            Aggregate::Min => Some(pane.min),
            Aggregate::Max => Some(pane.max),
            Aggregate::Last => pane.last(),
            Aggregate::Stddev => (pane.count > 0).then(|| (trail.m2 / pane.count as f64).sqrt()),
            Aggregate::Quantile(q) => pane.quantile(self.shape, q),
        }
    }
}

impl History {
    /// Notes that a window has an observation.
    pub(super) fn begin(&mut self, index: i64) {
        self.begun = Some(self.begun.map_or(index, |begun| begun.min(index)));
    }

    pub(super) fn begun(&self) -> Option<i64> {
        self.begun
    }

    /// Whether a window accepts no more observations.
    pub(super) fn is_closed(&self, index: i64) -> bool {
        index < self.closed
    }

    /// Closes the windows before `index`: they accept no more observations.
    pub(super) fn close_before(&mut self, index: i64) {
        self.closed = self.closed.max(index);
        self.panes.drop_before(index);
    }

    /// Keeps the pane of a sealed window for late observations.
    pub(super) fn keep(&mut self, trail: &Trail) {
        self.panes.put(trail);
    }

    /// Removes and returns the sealed windows that may still change, and returns the index of the first
    /// window that may.
    pub(super) fn take_panes(&mut self) -> (SealedPanes, i64) {
        (std::mem::take(&mut self.panes), self.closed)
    }

    pub(super) fn give_panes(&mut self, panes: SealedPanes, closed: i64) {
        (self.panes, self.closed) = (panes, closed);
    }

    /// Removes and returns the pane of a sealed window for which a late observation arrived.
    pub(super) fn open_again(&mut self, index: i64) -> Option<Trail> {
        self.panes.take(index)
    }

    /// Writes the row of a sealed window. Returns whether the row replaces another one or lies before the
    /// newest row.
    pub(super) fn seal(&mut self, trail: &Trail, reader: &Reader) -> bool {
        let above = self.tail_begin().map(f64::from);
        let Some(window) = reader.read(trail, above) else { return false };
        self.make_room(trail.index);
        let at = (trail.index - self.first) as usize;
        let is_old = !self.values[at].is_nan() || at + 1 < self.values.len();
        self.values[at] = window.value;
        self.counts[at] = window.count.min(COUNT_MAX) as u16;
        if let Some(profile) = window.profile {
            let p95 = trail.pane.quantile(reader.shape, 0.95);
            self.profiles.resize(self.values.len(), NO_PROFILE);
            self.profiles[at] = to_row(profile, p95);
            self.look_for_tail();
        }
        is_old
    }

    /// Extends the rows to include a window, at the end or, for a window older than all others, at the
    /// front.
    fn make_room(&mut self, index: i64) {
        if index - self.first > GAP_MAX + self.values.len() as i64 {
            self.drop_before(i64::MAX);
        }
        if self.values.is_empty() {
            self.first = index;
        }
        let has_profiles = !self.profiles.is_empty();
        let (before, after) = (self.first - index, index + 1 - self.first - self.values.len() as i64);
        for _ in 0..before.min(GAP_MAX) {
            self.values.push_front(f64::NAN);
            self.counts.push_front(0);
            if has_profiles {
                self.profiles.push_front(NO_PROFILE);
            }
            self.first -= 1;
        }
        for _ in 0..after {
            push_tight(&mut self.values, f64::NAN);
            push_tight(&mut self.counts, 0);
            if has_profiles {
                push_tight(&mut self.profiles, NO_PROFILE);
            }
        }
    }

    /// Drops the rows of windows before `index`.
    pub(super) fn drop_before(&mut self, index: i64) {
        while self.first < index && self.values.pop_front().is_some() {
            self.counts.pop_front();
            self.profiles.pop_front();
            self.first += 1;
        }
    }

    /// Returns the index of the newest window kept.
    pub(super) fn newest(&self) -> Option<i64> {
        (!self.values.is_empty()).then(|| self.range().1 - 1)
    }

    /// Drops all but the newest `windows` rows.
    pub(super) fn keep_newest(&mut self, windows: usize) {
        let surplus = self.values.len().saturating_sub(windows);
        self.drop_before(self.first + surplus as i64);
    }

    /// Returns the index of the oldest window kept, and the index after the newest.
    pub(super) fn range(&self) -> (i64, i64) {
        (self.first, self.first + self.values.len() as i64)
    }

    /// Returns value and count of one window, if it has a row.
    #[inline]
    pub(super) fn value(&self, index: i64) -> Option<(f64, u64)> {
        let at = usize::try_from(index - self.first).ok()?;
        let value = *self.values.get(at)?;
        (!value.is_nan()).then(|| (value, u64::from(self.counts[at])))
    }

    /// Returns the distribution of one window's values; `None` if the window had too few values.
    #[inline]
    pub(super) fn profile(&self, index: i64) -> Option<Profile> {
        self.profiles.get(usize::try_from(index - self.first).ok()?).and_then(to_profile)
    }

    /// Returns the threshold above which a value belongs to the tail: the median of the p95s of past windows.
    pub(super) fn tail_begin(&self) -> Option<f32> {
        self.tail_begin
    }

    fn look_for_tail(&mut self) {
        self.tail_holds = self.tail_holds.saturating_sub(1);
        if self.tail_holds > 0 {
            return;
        }
        let rows = self.profiles.iter().rev().take(TAIL_WINDOWS).map(|row| f64::from(row[5]));
        let mut known: Vec<f64> = rows.filter(|p95| !p95.is_nan()).collect();
        self.tail_holds = if known.len() < 2 * TAIL_EVERY { 1 } else { TAIL_EVERY };
        self.tail_begin = (!known.is_empty()).then(|| median(&mut known) as f32);
    }
}

/// Appends to a queue and grows its capacity by an eighth if it is full. Doubling would waste memory, because
/// each key has a queue whose length soon stays the same.
fn push_tight<T>(queue: &mut VecDeque<T>, value: T) {
    if queue.len() == queue.capacity() {
        queue.reserve_exact(queue.len() / 8 + 4);
    }
    queue.push_back(value);
}

const NO_PROFILE: [f32; 6] = [f32::NAN; 6];

fn to_row(profile: Profile, p95: Option<f64>) -> [f32; 6] {
    let (mean, error) = profile.log.unwrap_or((f64::NAN, f64::NAN));
    let p95 = p95.unwrap_or(f64::NAN);
    [profile.p50, profile.p50_error, profile.tail, mean, error, p95].map(|number| number as f32)
}

fn to_profile(row: &[f32; 6]) -> Option<Profile> {
    let [p50, p50_error, tail, mean, error, _] = row.map(f64::from);
    let log = (!mean.is_nan()).then_some((mean, error));
    (!p50.is_nan()).then_some(Profile { p50, p50_error, tail, log })
}

static EMPTY: LazyLock<Pane> = LazyLock::new(Pane::default);

/// Returns the distribution of the values of two panes together. `above`: the threshold of the tail; by
/// default the p95 of the two panes. `None` with fewer than [`VALUES_MIN`] values.
pub(crate) fn profile(panes: [&Pane; 2], shape: Shape, above: Option<f64>) -> Option<Profile> {
    let count = panes[0].count.saturating_add(panes[1].count);
    if count < VALUES_MIN {
        return None;
    }
    let q = |q: f64| quantile_of_two(panes[0], panes[1], shape, q.clamp(0.0, 1.0)).unwrap_or(0.0);
    let reach = tails::share_error(0.5, count as f64);
    let above = above.unwrap_or_else(|| q(0.95));
    let (mut over, mut logs, mut squares, mut is_positive) = (0u64, 0.0, 0.0, true);
    for (value, log, times) in panes.into_iter().flat_map(|pane| logarithms(pane, shape)) {
        over = over.saturating_add(if value > above { times } else { 0 });
        is_positive &= value > 0.0;
        logs += log * times as f64;
        squares += log * log * times as f64;
    }
    let n = count as f64;
    let mean = logs / n;
    let error = ((squares / n - mean * mean).max(0.0) / n).sqrt();
    Some(Profile {
        p50: q(0.5),
        p50_error: (q(0.5 + reach) - q(0.5 - reach)) / 2.0,
        tail: over as f64 / n,
        log: is_positive.then_some((mean, error)),
    })
}

/// Returns for each filled bucket its middle, the logarithm of the middle, and its count. Values below zero
/// have no logarithm: for them, -1 stands for the middle and 0 for the logarithm.
fn logarithms(pane: &Pane, shape: Shape) -> impl Iterator<Item = (f64, f64, u64)> + '_ {
    let table = &LOGARITHMS[usize::from(shape.digits == Digits::Three)];
    let step = libm::log(shape.resolution.magnitude(1));
    let negative = pane.negative().into_iter().flat_map(|histogram| histogram.iter());
    let positive = pane.positive().iter().map(move |(bucket, count)| {
        let middle = shape.digits.lowest(bucket).midpoint(shape.digits.highest(bucket));
        (shape.resolution.magnitude(middle), table[usize::from(bucket)] + step, count)
    });
    negative.map(|(_, count)| (-1.0, 0.0, count)).chain(positive)
}

/// The logarithm of the middle of each bucket, in steps, for two and three digits; the bucket of 0 counts
/// as half a step.
static LOGARITHMS: LazyLock<[Vec<f64>; 2]> = LazyLock::new(|| {
    [Digits::Two, Digits::Three].map(|digits| {
        let middle = |bucket: u16| digits.lowest(bucket).midpoint(digits.highest(bucket));
        (0..digits.buckets()).map(|bucket| libm::log((middle(bucket) as f64).max(0.5))).collect()
    })
});
