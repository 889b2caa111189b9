//! What is kept of sealed windows: a few numbers each, instead of a histogram.
//!
//! Intuition: detectors ask about windows, not requests. A day of five-minute histograms is 100 KB a key, a
//! day of their values 3 KB. Invariant: a window's row is written when it is sealed, and again when something
//! late came for it, so what is kept of it is what its histogram said; rows stand without holes, NaN where
//! nothing was.
//! Rejected: reading the sealed windows anew each time (an hour of histograms a closed window).

use super::group::Trail;
use super::sealed::SealedPanes;
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

/// Where the tail begins moves slowly: it is looked at again after so many windows, at once while there are
/// fewer than twice as many.
const TAIL_EVERY: usize = 16;

/// After a longer hole what was before it is no past any more: more than any period holds.
const GAP_MAX: i64 = 1 << 16;

/// The sealed windows of one key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    first: i64, // index of the oldest window kept
    pub(super) values: VecDeque<f64>,
    pub(super) counts: VecDeque<u16>, // saturating
    /// p50, its error, tail share, mean logarithm, its error, p95; none at all before a window has a profile.
    profiles: VecDeque<[f32; 6]>,
    /// Index of the first window that ever held something.
    begun: Option<i64>,
    /// Windows before this one can change no more.
    closed: i64,
    /// Sealed windows that may still change.
    pub(super) panes: SealedPanes,
    /// Where the tail begins, and for how many windows more that holds.
    tail_begin: Option<f32>,
    tail_holds: usize,
}

/// The greatest number of values that is told from a greater one.
pub const COUNT_MAX: u64 = u16::MAX as u64;

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

    /// Whether nothing is taken for a window any more.
    pub(super) fn is_closed(&self, index: i64) -> bool {
        index < self.closed
    }

    /// Nothing comes any more for windows before this one.
    pub(super) fn close_before(&mut self, index: i64) {
        self.closed = self.closed.max(index);
        self.panes.drop_before(index);
    }

    /// Keeps a sealed window, as something late may come for it.
    pub(super) fn keep(&mut self, trail: &Trail) {
        self.panes.put(trail);
    }

    /// What may still change, and the window from which on it may.
    pub(super) fn take_panes(&mut self) -> (SealedPanes, i64) {
        (std::mem::take(&mut self.panes), self.closed)
    }

    pub(super) fn give_panes(&mut self, panes: SealedPanes, closed: i64) {
        (self.panes, self.closed) = (panes, closed);
    }

    /// A sealed window that something late came for.
    pub(super) fn open_again(&mut self, index: i64) -> Option<Trail> {
        self.panes.take(index)
    }

    /// Writes the row of a window that is sealed, maybe not for the first time; says whether it stands among
    /// rows that were there before.
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

    /// Rows up to a window, and from it on where it is older than all others.
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

    /// Lets rows before this window go.
    pub(super) fn drop_before(&mut self, index: i64) {
        while self.first < index && self.values.pop_front().is_some() {
            self.counts.pop_front();
            self.profiles.pop_front();
            self.first += 1;
        }
    }

    /// Index of the newest window kept.
    pub(super) fn newest(&self) -> Option<i64> {
        (!self.values.is_empty()).then(|| self.range().1 - 1)
    }

    /// Lets all but so many go.
    pub(super) fn keep_newest(&mut self, windows: usize) {
        let surplus = self.values.len().saturating_sub(windows);
        self.drop_before(self.first + surplus as i64);
    }

    /// Index of the oldest window kept, and that after the newest.
    pub(super) fn range(&self) -> (i64, i64) {
        (self.first, self.first + self.values.len() as i64)
    }

    /// Value and count of one window, if it held something.
    #[inline]
    pub(super) fn value(&self, index: i64) -> Option<(f64, u64)> {
        let at = usize::try_from(index - self.first).ok()?;
        let value = *self.values.get(at)?;
        (!value.is_nan()).then(|| (value, u64::from(self.counts[at])))
    }

    /// How the values of one window were distributed, if it held enough.
    #[inline]
    pub(super) fn profile(&self, index: i64) -> Option<Profile> {
        self.profiles.get(usize::try_from(index - self.first).ok()?).and_then(to_profile)
    }

    /// Where the tail begins: the middle of the past's p95s.
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

/// A queue that grows by an eighth: there is one for each key, and they stay as long as they are.
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

/// How the values of two panes together are distributed; `above`: where the tail begins, the window's own
/// p95 where nothing is known yet. `None` with too few values.
pub fn profile(panes: [&Pane; 2], shape: Shape, above: Option<f64>) -> Option<Profile> {
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
