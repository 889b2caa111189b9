//! One key's panes, and what is remembered of reading them.
//!
//! Intuition: at one grid point several rules read the same key; each question is answered once.
//! Invariant: panes ascend by index; what is remembered is thrown away at any change.

use super::totals::Totals;
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
    #[serde(skip)]
    prefix: Prefix,
    #[serde(skip)]
    pub(super) memo: Vec<(u64, f64)>, // (q as bits, quantile) at `memo_at`
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
    pub(super) m2: f64, // sum of squared distances from the mean
}

/// The merge of all panes of a window but the newest, kept while it stays true.
#[derive(Debug, Clone, Default)]
struct Prefix {
    first: i64,
    last: i64,
    pane: Option<Pane>,
}
impl Group {
    pub(super) fn new(key: KeyId, newest: Timestamp) -> Group {
        Group {
            key,
            members: 1,
            newest,
            panes: VecDeque::new(),
            is_dirty: false,
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

    pub(super) fn within(&self, first: i64, last: i64) -> impl Iterator<Item = &Trail> {
        let skip = self.panes.partition_point(|trail| trail.index < first);
        self.panes.iter().skip(skip).take_while(move |trail| trail.index <= last)
    }

    pub(super) fn drop_before(&mut self, at: Timestamp, pane: Span, kept: Span) {
        while self.panes.front().is_some_and(|trail| Timestamp::clamped(trail.index * pane.ms()) + kept < at)
        {
            self.panes.pop_front();
        }
        if self.panes.is_empty() {
            self.panes = VecDeque::new();
            self.prefix = Prefix::default();
        }
    }

    pub(super) fn quantile(
        &mut self,
        shape: Shape,
        first: i64,
        last: i64,
        at: Timestamp,
        q: f64,
    ) -> Option<f64> {
        self.remember(at);
        if let Some((_, value)) = self.memo.iter().find(|(bits, _)| *bits == q.to_bits()) {
            return Some(*value);
        }
        self.refresh_prefix(first, last);
        let newest = self.within(first, last).last()?;
        let value = match &self.prefix.pane {
            Some(prefix) => quantile_of_two(prefix, &newest.pane, shape, q),
            None => newest.pane.quantile(shape, q),
        }?;
        self.memo.push((q.to_bits(), value));
        Some(value)
    }

    /// Merges all panes of the window but the newest, unless that is what is already there.
    pub(super) fn refresh_prefix(&mut self, first: i64, last: i64) {
        let mut indexes = self.within(first, last).map(|trail| trail.index);
        let Some(oldest) = indexes.next() else { return };
        let newest = indexes.last().unwrap_or(oldest);
        if self.prefix.pane.is_some() && (self.prefix.first, self.prefix.last) == (oldest, newest) {
            return;
        }
        let mut older = self.within(oldest, newest - 1);
        let pane = older.next().map(|first| {
            let mut merged = first.pane.clone();
            older.for_each(|trail| {
                merged.merge(&trail.pane);
                merged.speed_up();
            });
            merged
        });
        self.prefix = Prefix { first: oldest, last: newest, pane };
    }
}

impl Trail {
    pub(super) fn new(index: i64) -> Trail {
        Trail { index, pane: Pane::default(), mean: 0.0, m2: 0.0 }
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

    /// Adds a pre-aggregated pane; its spread is taken from its buckets' mean only.
    pub(super) fn merge(&mut self, part: &Pane) {
        let mut totals = Totals { count: self.pane.count, mean: self.mean, m2: self.m2, ..Totals::default() };
        totals.add_moments(part.count, part.avg().unwrap_or(0.0), 0.0);
        self.pane.merge(part);
        (self.mean, self.m2) = (totals.mean, totals.m2);
    }
}
