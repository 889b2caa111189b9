//! Views: the panes that rules read, kept per key.
//!
//! Intuition: a rule such as `p99(latency_ms[1m]) by (source)` reads one merged histogram per source, not one
//! per series. So each observation is added on arrival to the current pane of every group it belongs to; at a
//! grid point the trailing window is the union of a few panes.
//! Invariant: a group's panes hold the observations of its key by event time. Only a baseline view takes late
//! observations. Evaluating a view costs what changed since the last grid point, because only dirty groups
//! are visited.
//! Rejected: merging the series' own windows at each grid point (cost = rules × series), and a running total
//! from which panes are subtracted when they leave the window (floating-point sums drift).

mod alike;
mod baseline;
pub(crate) mod feed;
mod gather;
mod group;
pub(crate) mod history;
mod image;
pub(crate) mod lead;
pub(crate) mod pipeline_records;
pub(crate) mod prefetch;
mod read;
mod sealed;
mod totals;

use crate::core::measure::pane::{Pane, Sample, Shape};
use crate::core::vocab::aggregate::Aggregate;
use crate::core::vocab::key::KeyId;
use crate::core::vocab::key::table::KeyTable;
use crate::core::vocab::limits::Lateness;
use crate::core::vocab::selector::{By, Selector};
use crate::core::vocab::time::{Span, Timestamp};
use alike::Alike;
pub(crate) use alike::Former;
pub(crate) use baseline::{SealedWindows, StateBefore, WINDOWS_OF_A_VERSION};
use group::{Group, Trail};
pub(crate) use history::COUNT_MAX;
pub(crate) use image::ViewImage;
pub(crate) use read::{newest, quantile, rank, totals, trailing};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The contents of a view. Two expressions that read the same rows share one view, even if one of them
/// reads further back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewSpec {
    pub selector: Selector,
    pub by: By,
    pub kind: ViewKind,
    /// Whether any expression reads a quantile.
    pub has_quantiles: bool,
    /// Whether any expression reads the spread.
    pub has_spread: bool,
    /// Whether the view's keys have a `version` label in addition to the labels of the rule that reads it.
    #[serde(default)]
    pub per_version: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum ViewKind {
    /// The panes of the last `window`, and those of the `window` that ended `history` earlier.
    Trailing { window: Span, pane: Span, history: Span },
    /// One aggregate of each aligned window of length `window` in the last `period`, the longest period of
    /// all expressions that read the view. Late observations are included.
    Baseline { window: Span, period: Span, aggregate: Aggregate, is_profiled: bool },
    /// Like `Baseline`, for each value of the label `version`: the newest windows of the newest `deploys`
    /// versions, however old they are.
    Deploys { window: Span, deploys: u32, aggregate: Aggregate, is_profiled: bool },
    /// Only the time of the newest observation.
    Newest,
    /// The observations since the last partials were sent, for the view with the id `of` in the aggregate
    /// partition. The panes have the same length as in that view.
    Gathering { of: u64, pane: Span, kept: Span, takes_late: bool },
}

impl ViewKind {
    /// Returns the one with the longer period, if both read the same rows; `None` otherwise.
    pub fn for_both(self, other: ViewKind) -> Option<ViewKind> {
        let further = if other.period() > self.period() { other } else { self };
        (self.of_any_period() == other.of_any_period()).then_some(further)
    }

    /// Returns the kind without its period, so that kinds with the same rows compare equal. The period stays
    /// in two cases, in which the number of kept windows changes the rows: a dropped window would read as
    /// zero, or the rows before a window influence its row ([`history`]).
    fn of_any_period(self) -> ViewKind {
        match self {
            ViewKind::Baseline { window, aggregate, is_profiled: false, .. }
                if !aggregate.is_zero_of_nothing() =>
            {
                ViewKind::Baseline { window, period: Span::ZERO, aggregate, is_profiled: false }
            }
            other => other,
        }
    }

    fn period(self) -> Span {
        if let ViewKind::Baseline { period, .. } = self { period } else { Span::ZERO }
    }
}

impl ViewSpec {
    /// Whether both read the same rows, although one may have a longer period.
    fn is_like(&self, other: &ViewSpec) -> bool {
        self.selector == other.selector
            && self.by == other.by
            && self.kind.of_any_period() == other.kind.of_any_period()
            && (self.has_quantiles, self.has_spread, self.per_version)
                == (other.has_quantiles, other.has_spread, other.per_version)
    }

    fn of_any_period(&self) -> ViewSpec {
        ViewSpec { kind: self.kind.of_any_period(), ..self.clone() }
    }
}

#[derive(Debug)]
pub(crate) struct View {
    pub spec: ViewSpec,
    pane: Span,
    /// Time after its start for which a pane may still be read by a grid point.
    kept: Span,
    lateness: Lateness,
    shape: Shape,
    groups: Vec<Option<Group>>,
    free: Vec<u32>,
    by_key: KeyTable<u32>,
    dirty: Vec<u32>,
    /// Grid point → groups whose value changes there because a pane enters or leaves.
    rolls: BTreeMap<Timestamp, Vec<u32>>,
    /// The quantiles requested so far, in order of the requests. Each group caches their values in the same
    /// order.
    asked: Vec<f64>,
    /// Cache: start and index of the pane of the newest observation.
    current: (Timestamp, i64), // start, index
    /// Cache: the grid point under evaluation, and the first and last pane index of its window.
    looked_at: (Timestamp, (i64, i64)),
    /// The views that get their panes from this view.
    feeds: Vec<u32>,
    /// The view that this view gets its panes from.
    source: Option<u32>,
    /// The leader, whose sealed windows this view reads; and the followers, which read those of this view.
    leader: Option<u32>,
    followers: Vec<u32>,
    /// Whether this view or any follower needs quantiles, and whether any needs the spread.
    detail: (bool, bool),
    /// For `Deploys`: the number of groups that no series feeds any more.
    gone: usize,
}

/// Where an observation was recorded in a view that feeds others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recorded {
    /// In the open pane. The fed views receive the pane when it is finished.
    Kept,
    /// In a pane that the fed views already received, or in no pane. The fed views must receive the
    /// observation itself.
    Passed,
    /// In a new pane, so the previous pane is finished.
    Begun,
}

impl View {
    pub(crate) fn new(spec: ViewSpec, shape: Shape, lateness: Lateness) -> View {
        let (pane, kept) = match spec.kind {
            ViewKind::Trailing { window, pane, history } => (pane, window + history),
            ViewKind::Baseline { window, .. } | ViewKind::Deploys { window, .. } => {
                (window, lateness.max + window * 2)
            }
            ViewKind::Newest => (Span::from_hours(1), Span::ZERO),
            ViewKind::Gathering { pane, kept, .. } => (pane, kept),
        };
        let detail = (spec.has_quantiles, spec.has_spread);
        View {
            spec,
            pane,
            kept,
            lateness,
            shape,
            groups: Vec::new(),
            free: Vec::new(),
            by_key: KeyTable::default(),
            dirty: Vec::new(),
            rolls: BTreeMap::new(),
            asked: Vec::new(),
            current: (Timestamp::clamped(0), 0),
            looked_at: (Timestamp::MIN, (0, 0)),
            feeds: Vec::new(),
            source: None,
            leader: None,
            followers: Vec::new(),
            detail,
            gone: 0,
        }
    }

    /// Returns the view that this view gets its panes from.
    pub(crate) fn source(&self) -> Option<u32> {
        self.source
    }

    /// Whether the view takes late observations, because its panes become sealed windows.
    pub(crate) fn takes_late(&self) -> bool {
        match self.spec.kind {
            ViewKind::Trailing { .. } => false,
            ViewKind::Baseline { .. } | ViewKind::Deploys { .. } | ViewKind::Newest => true,
            ViewKind::Gathering { takes_late, .. } => takes_late,
        }
    }

    /// Whether the view gets its panes from another view instead of from observations.
    pub(crate) fn is_fed(&self) -> bool {
        self.source.is_some() || self.leader.is_some()
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Adds a series to the group of a key, and creates the group if it does not exist. If the view reads a
    /// named metric, its first series sets the view's shape.
    pub(crate) fn join(&mut self, key: KeyId, newest: Timestamp, shape: Shape) -> u32 {
        if self.by_key.is_empty() && self.spec.selector.name.is_some() {
            self.shape = shape;
        }
        if let Some(group) = self.by_key.get(key) {
            let at = *group;
            if let Some(group) = self.group_mut(at) {
                let is_back = group.members == 0;
                group.members += 1;
                group.newest = group.newest.max(newest);
                // During a resubscription of all series, this count is wrong; `drop_empty` corrects it at the
                // end.
                self.gone = self.gone.saturating_sub(usize::from(is_back));
            }
            self.mark(at);
            return at;
        }
        let at = self.add_group(Group::new(key, newest));
        self.mark(at);
        at
    }

    fn add_group(&mut self, group: Group) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() as u32 - 1
        });
        self.by_key.insert(group.key, at);
        self.groups[at as usize] = Some(group);
        at
    }

    /// Removes a series from its group. Returns the key if the series was the last one and the group is
    /// removed.
    pub(crate) fn leave(&mut self, group: u32) -> Option<KeyId> {
        let members = &mut self.group_mut(group)?.members;
        *members -= 1;
        if *members > 0 {
            return None;
        }
        // The group of a version is kept after its last series has left, because later versions are compared
        // with it.
        if self.is_of_deploys() {
            self.gone += 1;
            return None;
        }
        self.remove(group)
    }

    /// Removes a group and returns its key.
    fn remove(&mut self, group: u32) -> Option<KeyId> {
        let gone = self.groups[group as usize].take()?;
        self.by_key.remove(gone.key);
        self.dirty.retain(|dirty| *dirty != group);
        self.free.push(group);
        Some(gone.key)
    }

    /// Adds observations to a group. `now`: the ingest time; `interval`: the distance between grid points.
    #[inline]
    fn record(&mut self, group: u32, reading: &Reading<'_>, now: Timestamp, interval: Span) -> Recorded {
        let (has_quantiles, has_spread) = self.detail;
        let Some((trail, recorded)) = self.trail(group, reading.time(), now, interval) else {
            return Recorded::Passed;
        };
        match reading {
            Reading::One(sample) => trail.record(sample, has_quantiles, has_spread),
            Reading::Run(samples, _) => {
                samples.iter().for_each(|sample| trail.record(sample, has_quantiles, has_spread));
            }
            Reading::Many(pane, m2, _) => trail.merge(pane, *m2),
        }
        recorded
    }

    /// Returns the pane that contains `time` in a group, and marks the group as changed. `None` if no grid
    /// point reads the pane.
    #[inline]
    fn trail(
        &mut self,
        group: u32,
        time: Timestamp,
        now: Timestamp,
        interval: Span,
    ) -> Option<(&mut Trail, Recorded)> {
        let kept = self.kept;
        let (start, index) = self.place(time);
        let entry = self.groups.get_mut(group as usize)?.as_mut()?;
        if !entry.is_dirty {
            entry.is_dirty = true;
            self.dirty.push(group);
        }
        entry.newest = entry.newest.max(time);
        entry.memo_at = None;
        if let ViewKind::Baseline { .. } | ViewKind::Deploys { .. } = self.spec.kind
            && !entry.note_window(index)
        {
            return None;
        }
        if self.spec.kind == ViewKind::Newest || start + kept < now {
            return None;
        }
        if entry.panes.back().is_some_and(|newest| newest.index == index) {
            let newest = self.groups.get_mut(group as usize)?.as_mut()?.panes.back_mut()?;
            let recorded = if newest.is_open { Recorded::Kept } else { Recorded::Passed };
            return Some((newest, recorded));
        }
        self.older_or_new(group, index, now, interval)
    }

    /// Returns start and index of the pane that contains `time`.
    #[inline]
    fn place(&mut self, time: Timestamp) -> (Timestamp, i64) {
        let (start, _) = self.current;
        if time < start || time >= start + self.pane {
            self.current = (time.floor(self.pane), time.index(self.pane));
        }
        self.current
    }

    /// Returns the pane with this index, if it is not the newest one; creates the pane if needed.
    fn older_or_new(
        &mut self,
        group: u32,
        index: i64,
        now: Timestamp,
        interval: Span,
    ) -> Option<(&mut Trail, Recorded)> {
        let entry = self.groups.get_mut(group as usize)?.as_mut()?;
        let behind = entry.panes.iter().rev().take_while(|trail| trail.index > index).count();
        let at = entry.panes.len() - behind;
        if behind > 0 {
            entry.forget_merged();
        }
        if at > 0 && entry.panes[at - 1].index == index {
            return entry.panes.get_mut(at - 1).map(|trail| (trail, Recorded::Passed));
        }
        if self.feeds.is_empty()
            && let Some(newest) = entry.panes.back_mut()
        {
            newest.is_open &= behind > 0;
        }
        let begins_block = entry.newest_index().is_none_or(|newest| block_of(newest) < block_of(index));
        let view = (self.spec.kind, self.lateness);
        schedule_rolls(&mut self.rolls, view, group, (index, begins_block), now, interval);
        let sealed = entry.open_again(index);
        let trail = sealed.unwrap_or_else(|| Trail::new(index, behind == 0, entry.panes.back()));
        entry.panes.insert(at, trail);
        let recorded = if behind == 0 { Recorded::Begun } else { Recorded::Passed };
        entry.panes.get_mut(at).map(|trail| (trail, recorded))
    }

    /// Marks a group as changed since the last grid point.
    #[inline]
    pub(crate) fn mark(&mut self, group: u32) {
        if let Some(Some(entry)) = self.groups.get_mut(group as usize)
            && !entry.is_dirty
        {
            entry.is_dirty = true;
            self.dirty.push(group);
        }
    }

    /// Marks all groups as changed, so that all keys are evaluated again.
    pub(crate) fn mark_all(&mut self) {
        (0..self.groups.len() as u32).for_each(|group| self.mark(group));
    }

    /// Returns the next grid point at which a pane enters or leaves the window of a group.
    pub(crate) fn next_roll(&self) -> Option<Timestamp> {
        self.rolls.first_key_value().map(|(at, _)| *at)
    }

    pub(crate) fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Marks the groups whose windows gained or lost a pane by `at`, and drops panes that no grid point reads
    /// any more. Returns the dropped panes that were still open, because the fed views did not receive them.
    fn roll(&mut self, at: Timestamp) -> Option<Vec<(KeyId, Trail)>> {
        let (pane, kept) = (self.pane, self.kept);
        let mut gone = None;
        while let Some(entry) = self.rolls.first_entry()
            && *entry.key() <= at
        {
            for place in entry.remove() {
                let Some(group) = self.group_mut(place) else { continue };
                if let Some(open) = group.drop_before(at, pane, kept) {
                    gone.get_or_insert_with(Vec::new).push((group.key, open));
                }
                self.mark(place);
            }
        }
        gone
    }

    /// Returns copies of all open panes, and marks the panes as handed on.
    fn take_open(&mut self) -> Vec<(KeyId, Trail)> {
        let groups = self.groups.iter_mut().flatten();
        groups.filter_map(|group| Some((group.key, group.hand_over_newest()?))).collect()
    }

    /// Returns the keys of the changed groups, in no order, and marks the groups as clean.
    pub(crate) fn take_dirty(&mut self) -> Vec<KeyId> {
        let dirty = std::mem::take(&mut self.dirty);
        let keys = dirty.iter().filter_map(|at| {
            let group = self.groups.get_mut(*at as usize)?.as_mut()?;
            group.is_dirty = false;
            Some(group.key)
        });
        keys.collect()
    }

    /// Prepares a resubscription of all series: groups stay, and their member counts are reset.
    pub(crate) fn forget_members(&mut self) {
        for group in self.groups.iter_mut().flatten() {
            group.members = 0;
        }
    }

    /// Ends a resubscription of all series: removes the groups that no series joined.
    pub(crate) fn drop_empty(&mut self) {
        if self.is_of_deploys() {
            self.count_gone();
            return;
        }
        for at in 0..self.groups.len() {
            if self.groups[at].as_ref().is_some_and(|group| group.members == 0) {
                self.remove(at as u32);
            }
        }
    }

    pub(crate) fn group_of(&self, key: KeyId) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn group(&self, group: u32) -> Option<&Group> {
        self.groups.get(group as usize)?.as_ref()
    }

    fn group_mut(&mut self, group: u32) -> Option<&mut Group> {
        self.groups.get_mut(group as usize)?.as_mut()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.by_key.keys()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Returns the start of the oldest pane of the trailing window that ends at grid point `at`.
    pub(crate) fn oldest_start(&self, at: Timestamp) -> Timestamp {
        Timestamp::clamped(self.range(at).0 * self.pane.ms())
    }

    /// Returns the end of the newest pane in the trailing window that ends at `at`.
    pub(crate) fn newest_end(&self, at: Timestamp) -> Timestamp {
        Timestamp::clamped((self.range(at).1 + 1) * self.pane.ms())
    }

    /// Caches the pane range of grid point `at`, because most of the next reads need it.
    fn look_at(&mut self, at: Timestamp) {
        self.looked_at = (at, self.range_anew(at));
    }

    /// Returns first and last pane index of the trailing window that ends at grid point `at`.
    #[inline]
    fn range(&self, at: Timestamp) -> (i64, i64) {
        let (looked_at, range) = self.looked_at;
        if looked_at == at { range } else { self.range_anew(at) }
    }

    fn range_anew(&self, at: Timestamp) -> (i64, i64) {
        let last = (at - Span::MILLISECOND).index(self.pane);
        let panes = match self.spec.kind {
            ViewKind::Trailing { window, pane, .. } => window.ms() / pane.ms(),
            _ => 1,
        };
        (last - panes + 1, last)
    }
}

/// Number of windows that are closed in one batch: a closed window accepts no more late observations. Closing
/// may be delayed, and each batch costs a fetch of the key's state from memory.
const CLOSED_TOGETHER: i64 = 16;

fn block_of(index: i64) -> i64 {
    index.div_euclid(CLOSED_TOGETHER)
}

/// Schedules the grid points at which a pane changes the value of its group: where the pane enters a window
/// and where it leaves one. `begins_block`: whether the pane is the first one of a batch that is closed
/// together.
fn schedule_rolls(
    rolls: &mut BTreeMap<Timestamp, Vec<u32>>,
    (kind, lateness): (ViewKind, Lateness),
    group: u32,
    (index, begins_block): (i64, bool),
    now: Timestamp,
    interval: Span,
) {
    let mut at = |time: Timestamp| {
        let grid = (time + Span::MILLISECOND).ceil(interval);
        if grid > now {
            rolls.entry(grid).or_default().push(group);
        }
    };
    match kind {
        ViewKind::Trailing { window, pane, history } => {
            let start = Timestamp::clamped(index * pane.ms());
            at(start);
            at(start + window);
            if history.is_positive() {
                at(start + history);
                at(start + history + window);
            }
        }
        // The first grid point seals the window; the second one closes the whole batch of windows.
        ViewKind::Baseline { window, .. } | ViewKind::Deploys { window, .. } => {
            let end = Timestamp::clamped(index * window.ms()) + window;
            // A pane opened again by a late observation is sealed at the next grid point.
            at((end + lateness.allowed).max(now));
            if begins_block {
                at(Timestamp::clamped((block_of(index) + 1) * CLOSED_TOGETHER * window.ms()) + lateness.max);
            }
        }
        ViewKind::Newest | ViewKind::Gathering { .. } => {}
    }
}

/// An addition to a pane: one value, several values of the same finest pane, or a whole pane.
#[derive(Debug)]
pub(crate) enum Reading<'a> {
    One(Sample),
    /// Several values, and the newest time among them.
    Run(&'a [Sample], Timestamp),
    /// A pane, the sum of squared distances from its mean, and its newest time.
    Many(&'a Pane, f64, Timestamp),
}

impl Reading<'_> {
    #[inline]
    pub(crate) fn time(&self) -> Timestamp {
        match self {
            Reading::One(sample) => sample.time,
            Reading::Run(_, time) | Reading::Many(_, _, time) => *time,
        }
    }

    #[inline]
    pub(crate) fn add_to(&self, pane: &mut Pane) {
        match self {
            Reading::One(sample) => pane.record(*sample),
            Reading::Run(samples, _) => samples.iter().for_each(|sample| pane.record(*sample)),
            Reading::Many(part, ..) => pane.merge(part),
        }
    }
}
