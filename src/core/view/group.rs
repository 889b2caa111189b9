//! One key's panes, and what is remembered of reading them.
//!
//! Intuition: at one grid point several rules read the same key; each question is answered once.
//! Invariant: panes ascend by index; what is remembered is thrown away at any change.

use super::baseline::{Kept, WINDOWS_OF_A_VERSION};
use super::history::{self, History, Reader};
use super::sealed::SealedPanes;
use super::totals::Totals;
use crate::core::detect::regression::Profile;
use crate::core::key::KeyId;
use crate::core::pane::{Pane, Sample, Shape, quantile_of_two};
use crate::core::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// One key's panes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Group {
    pub key: KeyId,
    pub(super) members: u32, // series that feed it, > 0 while the group lives
    /// Greatest event time of its observations; for a declared series, when it was declared.
    pub newest: Timestamp,
    pub(super) panes: VecDeque<Trail>, // ascending by index
    pub(super) is_dirty: bool,
    /// Baseline views: what is known of sealed windows.
    history: Option<Box<History>>,
    /// Baseline views: how often a window was sealed; only to know what is out of date.
    #[serde(skip)]
    pub(super) changes: u32,
    /// And how often one that was not the newest: evidence names it.
    pub(super) rewrites: u32,
    #[serde(skip)]
    prefix: Prefix,
    #[serde(skip)]
    pub(super) memo: Vec<f64>, // the view's asked quantiles at `memo_at`, NaN where there is none
    #[serde(skip)]
    pub(super) totals: Option<Totals>, // at `memo_at`
    /// Grid point of what is remembered above; `None` after any change.
    #[serde(skip)]
    pub(super) memo_at: Option<Timestamp>,
}

/// One pane of a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trail {
    pub index: i64, // start = index × pane length
    pub pane: Pane,
    pub(super) mean: f64,
    pub(in crate::core) m2: f64, // sum of squared distances from the mean
    pub(super) is_open: bool,    // the views behind this one do not have it yet; only the newest is
}

/// The merge of all panes of a window but the newest, kept while it stays true.
#[derive(Debug, Clone, Default)]
struct Prefix {
    first: i64,
    last: i64,
    pane: Option<Pane>,
}

/// What one group holds for the same key's groups in other views.
#[derive(Debug)]
pub(super) struct Sealable {
    panes: VecDeque<Trail>,
    /// With the window from which on they may change.
    sealed: (SealedPanes, i64),
}

impl Sealable {
    /// The windows that something is to be done with.
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

    /// Begins anew to remember what was read at a grid point.
    pub(super) fn remember(&mut self, at: Timestamp) {
        if self.memo_at != Some(at) {
            self.memo.clear();
            self.totals = None;
            self.memo_at = Some(at);
        }
    }

    /// A pane that the remembered merge holds has changed.
    pub(super) fn forget_merged(&mut self) {
        self.prefix.pane = None;
    }

    /// A finished pane went into the pane with this index: the remembered merge of all panes takes
    /// it in, too, where it holds that pane.
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

    /// Index of the newest window that it ever held.
    pub(super) fn newest_index(&self) -> Option<i64> {
        let sealed = || self.history.as_ref().and_then(|history| history.newest());
        self.panes.back().map(|trail| trail.index).or_else(sealed)
    }

    pub(super) fn within(&self, first: i64, last: i64) -> impl Iterator<Item = &Trail> {
        let skip = self.panes.partition_point(|trail| trail.index < first);
        self.panes.iter().skip(skip).take_while(move |trail| trail.index <= last)
    }

    /// Baseline views: something comes for a window; false if that is closed.
    pub(super) fn note_window(&mut self, index: i64) -> bool {
        let history = self.history.get_or_insert_default();
        history.begin(index);
        !history.is_closed(index)
    }

    /// Baseline views: whether nothing is taken for a window any more.
    pub(super) fn is_closed(&self, index: i64) -> bool {
        self.history.as_ref().is_some_and(|history| history.is_closed(index))
    }

    /// Baseline views: a window that is sealed is looked for here, as something late came for it.
    pub(super) fn open_again(&mut self, index: i64) -> Option<Trail> {
        self.history.as_mut()?.open_again(index)
    }

    /// Baseline views: index of the first window that held something.
    pub(super) fn begun(&self) -> Option<i64> {
        self.history.as_ref()?.begun()
    }

    /// Baseline views: writes the row of a window that is sealed, maybe not for the first time.
    pub(super) fn write(&mut self, trail: &Trail, reader: &Reader) {
        let history = self.history.get_or_insert_default();
        self.rewrites += u32::from(history.seal(trail, reader));
        self.changes += 1;
    }

    /// Baseline views: lets windows go that begin before `kept`; without it, all but the newest.
    pub(super) fn trim(&mut self, at: Timestamp, kept: Kept, window: Span) {
        let history = self.history.get_or_insert_default();
        match kept {
            Kept::For(span) => history.drop_before((at - span).index(window)),
            Kept::Newest => history.keep_newest(WINDOWS_OF_A_VERSION),
        }
    }

    /// Baseline views: keeps a sealed window, as something late may come for it.
    pub(super) fn keep_sealed(&mut self, trail: &Trail) {
        self.history.get_or_insert_default().keep(trail);
    }

    /// Baseline views: nothing is taken for windows before this one any more.
    pub(super) fn close_before(&mut self, index: i64) {
        self.history.get_or_insert_default().close_before(index);
    }

    /// Baseline views: takes what is sealed once it is time, and what may still change.
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
        parts: Parts<'_>,
    ) -> Option<Profile> {
        self.refresh(first, last, parts);
        let rest = self.rest(first, last, parts);
        history::profile([self.prefix.pane.as_ref().unwrap_or(&EMPTY), rest.unwrap_or(&EMPTY)], shape, above)
    }

    /// Drops the panes that nothing reads at `at`; the open one if it was among them.
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

    /// The newest pane, if the views behind this one do not have it.
    pub(super) fn open(&self) -> Option<&Trail> {
        self.panes.back().filter(|trail| trail.is_open)
    }

    /// The pane before the newest, if the views behind this one do not have it.
    pub(super) fn finished(&self) -> Option<&Trail> {
        self.panes.iter().rev().nth(1).filter(|trail| trail.is_open)
    }

    /// The pane before the newest was handed on.
    pub(super) fn hand_over_older(&mut self) {
        if let Some(finished) = self.panes.iter_mut().rev().nth(1) {
            finished.is_open = false;
        }
    }

    /// A copy of the newest pane, which counts as handed on from here.
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
        parts: Parts<'_>,
    ) -> Option<f64> {
        if self.memo.len() <= place {
            self.answer(shape, (first, last), asked, parts);
        }
        self.memo.get(place).copied().filter(|value| !value.is_nan())
    }

    /// All that is asked of this key, while its panes are at hand: the next rule comes back for the
    /// rest after it has read ten thousand other keys.
    fn answer(&mut self, shape: Shape, (first, last): (i64, i64), asked: &[f64], parts: Parts<'_>) {
        let mut memo = std::mem::take(&mut self.memo);
        self.refresh(first, last, parts);
        let rest = self.rest(first, last, parts);
        let new = &asked[memo.len().min(asked.len())..];
        memo.extend(new.iter().map(|q| self.value(rest, shape, *q).unwrap_or(f64::NAN)));
        self.memo = memo;
    }

    /// One quantile that nobody will ask for again.
    pub(super) fn answer_one(
        &mut self,
        shape: Shape,
        (first, last): (i64, i64),
        q: f64,
        parts: Parts<'_>,
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

    /// Makes the merge of the window's panes anew where it is not true any more.
    fn refresh(&mut self, first: i64, last: i64, parts: Parts<'_>) {
        match parts {
            Parts::OlderAndNewest => self.refresh_prefix(first, last, 1),
            Parts::AllAnd(_) => self.refresh_prefix(first, last, 0),
        }
    }

    /// The pane that is not in the merge.
    fn rest<'a>(&'a self, first: i64, last: i64, parts: Parts<'a>) -> Option<&'a Pane> {
        match parts {
            Parts::OlderAndNewest => self.within(first, last).last().map(|trail| &trail.pane),
            Parts::AllAnd(open) => open.map(|trail| &trail.pane),
        }
    }

    /// Merges the panes of the window but the newest `left_out`, unless that is already there.
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

/// What a quantile is made of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Parts<'a> {
    /// The panes of the window; the newest one is merged with nothing, because it changes.
    OlderAndNewest,
    /// All panes of the window, and an open one of the source.
    AllAnd(Option<&'a Trail>),
}

impl Trail {
    /// `before`: the pane next to it, if there is one.
    pub(super) fn new(index: i64, is_open: bool, before: Option<&Trail>) -> Trail {
        let pane = before.map_or_else(Pane::default, |before| Pane::ready_for(&before.pane));
        Trail { index, pane, mean: 0.0, m2: 0.0, is_open }
    }

    /// When the pane begins; `pane`: how long it is.
    pub(super) fn start(&self, pane: Span) -> Timestamp {
        Timestamp::clamped(self.index * pane.ms())
    }

    /// Welford's update, so that a small spread around a large mean survives.
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

    /// Adds a pre-aggregated pane with its spread, 0 where that is not known.
    pub(super) fn merge(&mut self, part: &Pane, m2: f64) {
        self.add_moments(part.count, part.avg().unwrap_or(0.0), m2);
        self.pane.merge(part);
    }

    /// Adds a finer pane with its spread.
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
