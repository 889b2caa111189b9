//! What is kept of windows that can change no more: a few numbers each, instead of a histogram.
//!
//! Intuition: detectors ask about windows, not requests. A day of five-minute histograms is 100 KB a key, a
//! day of their values 3 KB. Invariant: a window is closed when nothing can come for it any more, so what
//! is kept of it is what the histogram said; windows stand without holes, NaN where nothing was.
//! Rejected: closing a window when it is sealed (a late event would change it, but not what is kept).

use super::group::Trail;
use crate::core::detect::regression::{Profile, VALUES_MIN, Window};
use crate::core::detect::{median, tails};
use crate::core::histogram::layout::Digits;
use crate::core::pane::{Pane, Shape, quantile_of_two};
use crate::core::rule::ast::Aggregate;
use crate::core::time::Span;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::LazyLock;

/// Windows whose p95 the reference of the tail is taken from.
const TAIL_WINDOWS: usize = 300;

/// After a longer hole what was before it is no past any more: more than any period holds.
const GAP_MAX: i64 = 1 << 16;

/// The closed windows of one key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    first: i64, // index of the oldest window kept
    values: VecDeque<f64>,
    counts: VecDeque<u16>, // saturating
    /// p50, its error, tail share, mean logarithm, its error, p95; empty where nobody asks.
    profiles: VecDeque<[f32; 6]>,
    /// Index of the first window that ever held something.
    begun: Option<i64>,
}

/// How a window is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader {
    pub(super) shape: Shape,
    pub(super) aggregate: Aggregate,
    pub(super) window: Span,
    pub(super) is_profiled: bool,
}

impl Reader {
    /// A whole window; `above`: where the tail begins.
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
    /// Notes that a window holds something.
    pub(super) fn begin(&mut self, index: i64) {
        self.begun = Some(self.begun.map_or(index, |begun| begun.min(index)));
    }

    pub(super) fn begun(&self) -> Option<i64> {
        self.begun
    }

    /// Closes a window; windows come in the order of their index.
    pub(super) fn close(&mut self, trail: &Trail, reader: &Reader) {
        let Some(window) = reader.read(trail, self.tail_begin()) else { return };
        if trail.index - self.first > GAP_MAX + self.values.len() as i64 {
            self.drop_before(i64::MAX);
        }
        if self.values.is_empty() {
            self.first = trail.index;
        }
        while self.first + (self.values.len() as i64) < trail.index {
            self.push(f64::NAN, 0, [f32::NAN; 6], reader);
        }
        let p95 = trail.pane.quantile(reader.shape, 0.95).unwrap_or(f64::NAN) as f32;
        let row = window.profile.map_or([f32::NAN; 6], |profile| {
            let (mean, error) = profile.log.unwrap_or((f64::NAN, f64::NAN));
            [
                profile.p50 as f32,
                profile.p50_error as f32,
                profile.tail as f32,
                mean as f32,
                error as f32,
                p95,
            ]
        });
        self.push(window.value, window.count.min(u64::from(u16::MAX)) as u16, row, reader);
    }

    fn push(&mut self, value: f64, count: u16, profile: [f32; 6], reader: &Reader) {
        self.values.push_back(value);
        self.counts.push_back(count);
        if reader.is_profiled {
            self.profiles.push_back(profile);
        }
    }

    /// Lets windows before this one go.
    pub(super) fn drop_before(&mut self, index: i64) {
        while self.first < index && self.values.pop_front().is_some() {
            self.counts.pop_front();
            self.profiles.pop_front();
            self.first += 1;
        }
    }

    /// Lets all but so many go.
    pub(super) fn keep_newest(&mut self, windows: usize) {
        let surplus = self.values.len().saturating_sub(windows);
        self.drop_before(self.first + surplus as i64);
    }

    /// The index after the newest closed window, if there is one.
    pub(super) fn end(&self) -> Option<i64> {
        (!self.values.is_empty()).then(|| self.first + self.values.len() as i64)
    }

    /// Closed windows from `first` to `last` that held something.
    pub(super) fn within(&self, first: i64, last: i64) -> impl Iterator<Item = (i64, Window)> + '_ {
        let from = (first - self.first).clamp(0, self.values.len() as i64);
        let to = (last + 1 - self.first).clamp(from, self.values.len() as i64);
        let row = |at: i64| {
            let value = self.values[at as usize];
            let count = u64::from(self.counts[at as usize]);
            let profile = self.profiles.get(at as usize).and_then(to_profile);
            (self.first + at, Window { count, value, profile })
        };
        (from..to).map(row).filter(|(_, window)| !window.value.is_nan())
    }

    /// Where the tail begins: the middle of the past's p95s.
    pub(super) fn tail_begin(&self) -> Option<f64> {
        let rows = self.profiles.iter().rev().take(TAIL_WINDOWS).map(|row| f64::from(row[5]));
        let mut known: Vec<f64> = rows.filter(|p95| !p95.is_nan()).collect();
        (!known.is_empty()).then(|| median(&mut known))
    }
}

fn to_profile(row: &[f32; 6]) -> Option<Profile> {
    let [p50, p50_error, tail, mean, error, _] = row.map(f64::from);
    let log = (!mean.is_nan()).then_some((mean, error));
    (!p50.is_nan()).then_some(Profile { p50, p50_error, tail, log })
}

static EMPTY: LazyLock<Pane> = LazyLock::new(Pane::default);

/// How the values of two panes together are distributed; `above`: where the tail begins, the window's own
/// p95 where nothing is known yet. `None` with too few values.
pub fn profile(panes: [&Pane; 2], shape: Shape, above: Option<f64>) -> Option<Profile> {
    let count = panes[0].count + panes[1].count;
    if count < VALUES_MIN {
        return None;
    }
    let q = |q: f64| quantile_of_two(panes[0], panes[1], shape, q.clamp(0.0, 1.0)).unwrap_or(0.0);
    let reach = tails::share_error(0.5, count as f64);
    let above = above.unwrap_or_else(|| q(0.95));
    let (mut over, mut logs, mut squares, mut is_positive) = (0, 0.0, 0.0, true);
    for (value, log, times) in panes.into_iter().flat_map(|pane| logarithms(pane, shape)) {
        over += if value > above { times } else { 0 };
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

/// Middle of each filled bucket, its logarithm, and how many values it stands for. Values below zero have no
/// logarithm: 0 stands there.
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

/// The logarithm of the middle of each bucket, in steps, for two and three digits; the bucket of 0 counts as
/// half a step.
static LOGARITHMS: LazyLock<[Vec<f64>; 2]> = LazyLock::new(|| {
    [Digits::Two, Digits::Three].map(|digits| {
        let middle = |bucket: u16| digits.lowest(bucket).midpoint(digits.highest(bucket));
        (0..digits.buckets()).map(|bucket| libm::log((middle(bucket) as f64).max(0.5))).collect()
    })
});
