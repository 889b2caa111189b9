//! One key's panes, and the cached results of reading them.
//!
//! Intuition: at one grid point, several rules read the same key. Its totals and each of its quantiles are
//! computed once and cached.
//! Invariant: panes ascend by index; any change discards the cached results.

use super::baseline::{Retention, WINDOWS_OF_A_VERSION};
use super::history::{self, History, Reader};
use super::sealed::SealedPanes;
use super::totals::Totals;
use crate::core::detect::regression::Profile;
use crate::core::measure::pane::{Pane, Sample, Shape, quantile_of_two};
use crate::core::vocab::key::KeyId;
use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// One key's panes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Group {
    pub key: KeyId,
    pub(super) members: u32, // number of series that feed it
    /// Greatest event time of the observations; for a declared series, the time of the declaration.
    pub newest: Timestamp,
    pub(super) panes: VecDeque<Trail>, // ascending by index
    pub(super) is_dirty: bool,
    /// Baseline views: the rows of sealed windows.
    history: Option<Box<History>>,
    /// Baseline views: how often a window was sealed. A cached baseline compares it to detect that it is out
    /// of date.
    #[serde(skip)]
    pub(super) changes: u32,
    /// Baseline views: how often a row was replaced, or written before a newer one. The evidence of an alert
    /// shows the number.
    pub(super) rewrites: u32,
    #[serde(skip)]
    prefix: Prefix,
    #[serde(skip)]
    pub(super) memo: Vec<f64>, // the view's requested quantiles at `memo_at`, NaN where there is none
    #[serde(skip)]
    pub(super) totals: Option<Totals>, // at `memo_at`
    /// Grid point of the cached results above; `None` after any change.
    #[serde(skip)]
    pub(super) memo_at: Option<Timestamp>,
}

/// One pane of a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Trail {
    pub index: i64, // start = index × pane length
    pub pane: Pane,
    pub(super) mean: f64,
    pub(in crate::core) m2: f64, // sum of squared distances from the mean
    pub(super) is_open: bool,    // not handed on to the fed views yet
}

/// The cached merge of a window's panes. The newest pane is left out unless the view is fed.
#[derive(Debug, Clone, Default)]
struct Prefix {
    first: i64,
    last: i64,
    pane: Option<Pane>,
}

/// The panes of a leader's group that are not closed yet. The followers read them, too, when they are sealed.
#[derive(Debug)]
pub(super) struct Sealable {
    panes: VecDeque<Trail>,
    /// The sealed windows, and the index of the first window that may still change.
    sealed: (SealedPanes, i64),
}

impl Sealable {
    /// Returns the indexes of the windows that must still be sealed or closed.
    pub(super) fn indexes(&self) -> impl Iterator<Item = i64> + '_ {
        self.panes.iter().map(|trail| trail.index).chain(self.sealed.0.indexes())
    }
}

impl Group {
    pub(super) fn new(key: KeyId, newest: Timestamp) -> Group {
        Group {
            key,
            members: 1,
            newest,
            panes: VecDeque::new(),
            is_dirty: false,
            history: None,
            changes: 0,
            rewrites: 0,
            prefix: Prefix::default(),
            memo: Vec::new(),
            totals: None,
            memo_at: None,
        }
    }

    /// Discards the cached results unless they are those of grid point `at`.
    pub(super) fn remember(&mut self, at: Timestamp) {
        if self.memo_at != Some(at) {
            self.memo.clear();
            self.totals = None;
            self.memo_at = Some(at);
        }
    }

    /// Discards the cached merge, because a pane in it has changed.
    pub(super) fn forget_merged(&mut self) {
        self.prefix.pane = None;
    }

    /// Adds a finished pane to the cached merge, if the merge contains the pane with this index; else
    /// discards the merge.
    pub(super) fn add_to_merged(&mut self, index: i64, finished: &Pane) {
        let is_held = (self.prefix.first..=self.prefix.last).contains(&index);
        match &mut self.prefix.pane {
            Some(merged) if is_held => {
                merged.merge(finished);
                merged.speed_up();
            }
            _ => self.prefix.pane = None,
        }
    }

    /// Returns the index of the newest window, sealed or not.
    pub(super) fn newest_index(&self) -> Option<i64> {
        let sealed = || self.history.as_ref().and_then(|history| history.newest());
        self.panes.back().map(|trail| trail.index).or_else(sealed)
    }

    pub(super) fn within(&self, first: i64, last: i64) -> impl Iterator<Item = &Trail> {
        let skip = self.panes.partition_point(|trail| trail.index < first);
        self.panes.iter().skip(skip).take_while(move |trail| trail.index <= last)
    }

    /// Baseline views: notes that a window has an observation; returns false if the window is closed.
    pub(super) fn note_window(&mut self, index: i64) -> bool {
        let history = self.history.get_or_insert_default();
        history.begin(index);
        !history.is_closed(index)
    }

    /// Baseline views: whether a window accepts no more observations.
    pub(super) fn is_closed(&self, index: i64) -> bool {
        self.history.as_ref().is_some_and(|history| history.is_closed(index))
    }

    /// Baseline views: takes a sealed window out again, because a late observation arrived for it.
    pub(super) fn open_again(&mut self, index: i64) -> Option<Trail> {
        self.history.as_mut()?.open_again(index)
    }

    /// Baseline views: returns the index of the first window with an observation.
    pub(super) fn begun(&self) -> Option<i64> {
        self.history.as_ref()?.begun()
    }

    /// Baseline views: writes the row of a sealed window. It replaces the window's row, if there is one.
    pub(super) fn write(&mut self, trail: &Trail, reader: &Reader) {
        let history = self.history.get_or_insert_default();
        self.rewrites += u32::from(history.seal(trail, reader));
        self.changes += 1;
    }

    /// Baseline views: drops the rows that `kept` does not cover.
    pub(super) fn trim(&mut self, at: Timestamp, kept: Retention, window: Span) {
        let history = self.history.get_or_insert_default();
        match kept {
            Retention::For(span) => history.drop_before((at - span).index(window)),
            Retention::Newest => history.keep_newest(WINDOWS_OF_A_VERSION),
        }
    }

    /// Baseline views: keeps the pane of a sealed window for late observations.
    pub(super) fn keep_sealed(&mut self, trail: &Trail) {
        self.history.get_or_insert_default().keep(trail);
    }

    /// Baseline views: closes the windows before `index`: they accept no more observations.
    pub(super) fn close_before(&mut self, index: i64) {
        self.history.get_or_insert_default().close_before(index);
    }

    /// Baseline views: removes and returns the windows that are not sealed yet, and the sealed ones that may
    /// still change.
    pub(super) fn take_sealable(&mut self) -> Sealable {
        let sealed = self.history.as_mut().map(|history| history.take_panes()).unwrap_or_default();
        Sealable { panes: std::mem::take(&mut self.panes), sealed }
    }

    pub(super) fn give_sealable(&mut self, Sealable { panes, sealed: (sealed, closed) }: Sealable) {
        self.panes = panes;
        self.history.get_or_insert_default().give_panes(sealed, closed);
    }

    pub(super) fn history(&self) -> Option<&History> {
        self.history.as_deref()
    }

    pub(super) fn profile(
        &mut self,
        shape: Shape,
        (first, last): (i64, i64),
        above: Option<f64>,
        parts: QuantilePanes<'_>,
    ) -> Option<Profile> {
        self.refresh(first, last, parts);
        let rest = self.rest(first, last, parts);
        history::profile([self.prefix.pane.as_ref().unwrap_or(&EMPTY), rest.unwrap_or(&EMPTY)], shape, above)
    }

    /// Drops the panes that no grid point from `at` on reads. Returns the open pane if it was dropped.
    pub(super) fn drop_before(&mut self, at: Timestamp, pane: Span, kept: Span) -> Option<Trail> {
        let mut open = None;
        while self.panes.front().is_some_and(|trail| trail.start(pane) + kept < at) {
            open = self.panes.pop_front().filter(|trail| trail.is_open);
        }
        if self.panes.is_empty() {
            self.panes = VecDeque::new();
            self.prefix = Prefix::default();
        }
        open
    }

    /// Returns the newest pane if it is not handed on to the fed views yet.
    pub(super) fn open(&self) -> Option<&Trail> {
        self.panes.back().filter(|trail| trail.is_open)
    }

    /// Returns the pane before the newest if it is not handed on to the fed views yet.
    pub(super) fn finished(&self) -> Option<&Trail> {
        self.panes.iter().rev().nth(1).filter(|trail| trail.is_open)
    }

    /// Marks the pane before the newest as handed on.
    pub(super) fn hand_over_older(&mut self) {
        if let Some(finished) = self.panes.iter_mut().rev().nth(1) {
            finished.is_open = false;
        }
    }

    /// Returns a copy of the newest pane, and marks the pane as handed on; `None` if it already was.
    pub(super) fn hand_over_newest(&mut self) -> Option<Trail> {
        let newest = self.panes.back_mut().filter(|trail| trail.is_open)?;
        newest.is_open = false;
        Some(newest.clone())
    }

    pub(super) fn quantile(
        &mut self,
        shape: Shape,
        (first, last): (i64, i64),
        (asked, place): (&[f64], usize),
        parts: QuantilePanes<'_>,
    ) -> Option<f64> {
        if self.memo.len() <= place {
            self.answer(shape, (first, last), asked, parts);
        }
        self.memo.get(place).copied().filter(|value| !value.is_nan())
    }

    /// Computes all requested quantiles of this key while its panes are in the processor's cache. The next
    /// rule reads this key only after it has read all other keys, which evict the panes.
    fn answer(&mut self, shape: Shape, (first, last): (i64, i64), asked: &[f64], parts: QuantilePanes<'_>) {
        let mut memo = std::mem::take(&mut self.memo);
        self.refresh(first, last, parts);
        let rest = self.rest(first, last, parts);
        let new = &asked[memo.len().min(asked.len())..];
        memo.extend(new.iter().map(|q| self.value(rest, shape, *q).unwrap_or(f64::NAN)));
        self.memo = memo;
    }

    /// Computes one quantile without caching it.
    pub(super) fn answer_one(
        &mut self,
        shape: Shape,
        (first, last): (i64, i64),
        q: f64,
        parts: QuantilePanes<'_>,
    ) -> Option<f64> {
        self.refresh(first, last, parts);
        self.value(self.rest(first, last, parts), shape, q)
    }

    fn value(&self, rest: Option<&Pane>, shape: Shape, q: f64) -> Option<f64> {
        match (&self.prefix.pane, rest) {
            (Some(prefix), Some(rest)) => quantile_of_two(prefix, rest, shape, q),
            (Some(pane), None) | (None, Some(pane)) => pane.quantile(shape, q),
            (None, None) => None,
        }
    }

    /// Merges the panes of the window again if the cached merge is out of date.
    fn refresh(&mut self, first: i64, last: i64, parts: QuantilePanes<'_>) {
        match parts {
            QuantilePanes::OlderAndNewest => self.refresh_prefix(first, last, 1),
            QuantilePanes::AllAnd(_) => self.refresh_prefix(first, last, 0),
        }
    }

    /// Returns the pane of the window that the cached merge leaves out.
    fn rest<'a>(&'a self, first: i64, last: i64, parts: QuantilePanes<'a>) -> Option<&'a Pane> {
        match parts {
            QuantilePanes::OlderAndNewest => self.within(first, last).last().map(|trail| &trail.pane),
            QuantilePanes::AllAnd(open) => open.map(|trail| &trail.pane),
        }
    }

    /// Merges the panes of the window except the newest `left_out`, unless the cached merge is valid.
    fn refresh_prefix(&mut self, first: i64, last: i64, left_out: usize) {
        let within = || self.within(first, last).map(|trail| trail.index);
        let (Some(oldest), Some(newest)) = (within().next(), within().last()) else {
            self.prefix = Prefix::default();
            return;
        };
        if self.prefix.pane.is_some() && (self.prefix.first, self.prefix.last) == (oldest, newest) {
            return;
        }
        let count = self.within(oldest, newest).count() - left_out;
        let mut merged: Option<Pane> = None;
        for trail in self.within(oldest, newest).take(count).filter(|trail| !trail.pane.is_empty()) {
            match &mut merged {
                Some(merged) => {
                    merged.merge(&trail.pane);
                    merged.speed_up();
                }
                None => merged = Some(trail.pane.clone()),
            }
        }
        self.prefix = Prefix { first: oldest, last: newest, pane: merged };
    }
}

/// The panes from which a quantile is computed.
#[derive(Debug, Clone, Copy)]
pub(super) enum QuantilePanes<'a> {
    /// The panes of the window; the newest one is not merged with the others, because it changes.
    OlderAndNewest,
    /// All panes of the window, and the open pane of the source, if any.
    AllAnd(Option<&'a Trail>),
}

impl Trail {
    /// Creates an empty pane; `before`: the previous pane, if there is one.
    pub(super) fn new(index: i64, is_open: bool, before: Option<&Trail>) -> Trail {
        let pane = before.map_or_else(Pane::default, |before| Pane::ready_for(&before.pane));
        Trail { index, pane, mean: 0.0, m2: 0.0, is_open }
    }

    /// Returns when the pane begins; `pane`: its length.
    pub(super) fn start(&self, pane: Span) -> Timestamp {
        Timestamp::clamped(self.index * pane.ms())
    }

    /// Adds one value. Welford's update keeps a small spread around a large mean from being lost to rounding.
    #[inline]
    pub(super) fn record(&mut self, sample: &Sample, has_quantiles: bool, has_spread: bool) {
        if has_quantiles {
            self.pane.record(*sample);
            self.pane.speed_up();
        } else {
            self.pane.record_plain(*sample);
        }
        if has_spread {
            let distance = sample.value - self.mean;
            self.mean += distance / self.pane.count as f64;
            self.m2 += distance * (sample.value - self.mean);
        }
    }

    /// Adds a pre-aggregated pane. `m2`: the sum of squared distances from its mean; 0 if unknown.
    pub(super) fn merge(&mut self, part: &Pane, m2: f64) {
        self.add_moments(part.count, part.avg().unwrap_or(0.0), m2);
        self.pane.merge(part);
    }

    /// Adds a finished pane of a finer view.
    pub(super) fn absorb(&mut self, finer: &Trail) {
        self.add_moments(finer.pane.count, finer.mean, finer.m2);
        self.pane.merge(&finer.pane);
        self.pane.speed_up();
    }

    fn add_moments(&mut self, count: u64, mean: f64, m2: f64) {
        let (own, before) = (self.pane.count, (self.mean, self.m2));
        let mut totals = Totals { count: own, mean: before.0, m2: before.1, ..Totals::default() };
        totals.add_moments(count, mean, m2);
        (self.mean, self.m2) = (totals.mean, totals.m2);
    }
}

static EMPTY: std::sync::LazyLock<Pane> = std::sync::LazyLock::new(Pane::default);
