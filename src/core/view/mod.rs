//! Views: the panes that rules read, kept per key.
//!
//! Intuition: a rule such as `p99(latency_ms[1m]) by (source)` reads one merged histogram per
//! source, not one per series. So an observation is added, as it comes, to the current pane of
//! each group it belongs to; at a grid point the trailing window is the union of a few panes.
//! Invariant: a group's panes are those of its key over event time, on-time observations only
//! (a baseline view takes late ones, too); evaluating a view costs what changed since the last
//! grid point, because only dirty groups are visited.
//! Rejected: merging the series' own windows at each grid point (cost = rules × series), and a
//! running total from which leaving panes are subtracted (floating sums drift).

pub mod ahead;
mod alike;
mod baseline;
pub mod feed;
mod gather;
mod group;
pub mod history;
mod image;
pub mod lead;
mod read;
mod sealed;
mod totals;

use super::key::KeyId;
use super::key::table::KeyTable;
use super::pane::{Pane, Sample, Shape};
use super::selector::{By, Selector};
use super::time::{Span, Timestamp};
use crate::core::rule::ast::Aggregate;
use alike::Alike;
pub use alike::Former;
pub use baseline::{SealedWindows, StateBefore, WINDOWS_OF_A_VERSION};
use group::{Group, Trail};
pub use history::COUNT_MAX;
pub use image::ViewImage;
pub use read::{newest, quantile, rank, totals, trailing};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
pub use totals::Totals;

/// What a view keeps; two expressions that read the same thing share one, though one of them reads further back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewSpec {
    pub selector: Selector,
    pub by: By,
    pub kind: ViewKind,
    /// Whether anything asks for a quantile.
    pub has_quantiles: bool,
    /// Whether anything asks for the spread.
    pub has_spread: bool,
    /// Its keys have a `version` more than those of whoever reads it.
    #[serde(default)]
    pub per_version: bool,
}

/// How late an observation may come.
#[derive(Debug, Clone, Copy)]
pub struct Lateness {
    /// Windows are sealed then.
    pub allowed: Span,
    /// Nothing comes for a window after that.
    pub max: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum ViewKind {
    /// The panes of `[window]`, and those of the same window `history` earlier.
    Trailing { window: Span, pane: Span, history: Span },
    /// One aggregate of the aligned windows of `window` over the last `period`, the longest of those who read it;
    /// late observations included.
    Baseline { window: Span, period: Span, aggregate: Aggregate, is_profiled: bool },
    /// The same for each value of the label `version`: windows of the newest `deploys` versions, however old.
    Deploys { window: Span, deploys: u32, aggregate: Aggregate, is_profiled: bool },
    /// Only when the newest observation was.
    Newest,
    /// What came since the last partials, for view `of` of the aggregate; panes like that one's.
    Gathering { of: u64, pane: Span, kept: Span, takes_late: bool },
}

impl ViewKind {
    /// What both read, if they read the same rows, though one of them further back; `None` where they do not.
    pub fn for_both(self, other: ViewKind) -> Option<ViewKind> {
        let further = if other.period() > self.period() { other } else { self };
        (self.of_any_period() == other.of_any_period()).then_some(further)
    }

    /// The same for all that read the same rows. Not where what was let go would be taken for zero, nor where
    /// rows are written with a look at those before them ([`history`]): there it matters how many are kept.
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
    /// Whether both read the same rows, though maybe one of them further back.
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

/// Which group of which view a series feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    pub view: u32,
    pub group: u32,
}

#[derive(Debug)]
pub struct View {
    pub spec: ViewSpec,
    pane: Span,
    /// How long after its start a pane is still read by some grid point.
    kept: Span,
    lateness: Lateness,
    shape: Shape,
    groups: Vec<Option<Group>>,
    free: Vec<u32>,
    by_key: KeyTable<u32>,
    dirty: Vec<u32>,
    /// Grid point → groups whose value changes there because a pane enters or leaves.
    rolls: BTreeMap<Timestamp, Vec<u32>>,
    /// The quantiles that were asked for so far, in that order.
    asked: Vec<f64>,
    /// The pane that the newest reading fell into; only a shortcut.
    current: (Timestamp, i64), // start, index
    /// The grid point that is looked at, and the panes of its window; only a shortcut.
    looked_at: (Timestamp, (i64, i64)),
    /// The views that get their panes from this one.
    feeds: Vec<u32>,
    /// The view that this one gets its panes from.
    source: Option<u32>,
    /// The view whose sealed windows this one reads, and those that read this one's.
    leader: Option<u32>,
    followers: Vec<u32>,
    /// Whether it or any that follows it asks for quantiles, and for the spread.
    detail: (bool, bool),
    /// With `deploys`: groups that no series feeds any more.
    gone: usize,
}

/// What became of an observation in a view that feeds others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recorded {
    /// In the open pane, which is handed on later.
    Kept,
    /// In a pane that was handed on before, or in none: the others must be given it, too.
    Passed,
    /// In a new pane: the one before it is finished.
    Begun,
}

impl View {
    pub fn new(spec: ViewSpec, shape: Shape, lateness: Lateness) -> View {
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

    /// The view that its panes come from.
    pub fn source(&self) -> Option<u32> {
        self.source
    }

    /// Whether it takes a late observation: the panes that it keeps are those of sealed windows.
    pub fn takes_late(&self) -> bool {
        match self.spec.kind {
            ViewKind::Trailing { .. } => false,
            ViewKind::Baseline { .. } | ViewKind::Deploys { .. } | ViewKind::Newest => true,
            ViewKind::Gathering { takes_late, .. } => takes_late,
        }
    }

    /// Whether its panes come from another view instead of from observations.
    pub fn is_fed(&self) -> bool {
        self.source.is_some() || self.leader.is_some()
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Adds a series to the group of a key, making the group when it is the first.
    /// The first series of a named metric brings its shape along.
    pub fn join(&mut self, key: KeyId, newest: Timestamp, shape: Shape) -> u32 {
        if self.by_key.is_empty() && self.spec.selector.name.is_some() {
            self.shape = shape;
        }
        if let Some(group) = self.by_key.get(key) {
            let at = *group;
            if let Some(group) = self.group_mut(at) {
                let is_back = group.members == 0;
                group.members += 1;
                group.newest = group.newest.max(newest);
                // While all series join anew it is counted at the end.
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

    /// Takes a series out of its group; the key, if that was its last series.
    pub fn leave(&mut self, group: u32) -> Option<KeyId> {
        let members = &mut self.group_mut(group)?.members;
        *members -= 1;
        if *members > 0 {
            return None;
        }
        // What a version was like is known when it is long gone.
        if self.is_of_deploys() {
            self.gone += 1;
            return None;
        }
        self.remove(group)
    }

    /// Lets a group go; its key.
    fn remove(&mut self, group: u32) -> Option<KeyId> {
        let gone = self.groups[group as usize].take()?;
        self.by_key.remove(gone.key);
        self.dirty.retain(|dirty| *dirty != group);
        self.free.push(group);
        Some(gone.key)
    }

    /// Adds one observation to a group. `now`: the ingest time; `interval`: the grid.
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

    /// The pane of a time in a group, marked as changed; `None` where no grid point reads it.
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

    /// Start and index of the pane of a time.
    #[inline]
    fn place(&mut self, time: Timestamp) -> (Timestamp, i64) {
        let (start, _) = self.current;
        if time < start || time >= start + self.pane {
            self.current = (time.floor(self.pane), time.index(self.pane));
        }
        self.current
    }

    /// A pane that is not the newest one, or a new one.
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
    pub fn mark(&mut self, group: u32) {
        if let Some(Some(entry)) = self.groups.get_mut(group as usize)
            && !entry.is_dirty
        {
            entry.is_dirty = true;
            self.dirty.push(group);
        }
    }

    /// Marks all groups as changed: they are judged again, or not any more.
    pub fn mark_all(&mut self) {
        (0..self.groups.len() as u32).for_each(|group| self.mark(group));
    }

    /// When the next pane enters or leaves some group's window.
    pub fn next_roll(&self) -> Option<Timestamp> {
        self.rolls.first_key_value().map(|(at, _)| *at)
    }

    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Marks the groups whose panes roll by `at`, and lets panes go that nothing reads any more.
    /// Those that were still open are returned: the views behind this one do not have them.
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

    /// Copies of all open panes, which count as handed on from here.
    fn take_open(&mut self) -> Vec<(KeyId, Trail)> {
        let groups = self.groups.iter_mut().flatten();
        groups.filter_map(|group| Some((group.key, group.hand_over_newest()?))).collect()
    }

    /// The keys of the changed groups, in no order; they are clean afterwards.
    pub fn take_dirty(&mut self) -> Vec<KeyId> {
        let dirty = std::mem::take(&mut self.dirty);
        let keys = dirty.iter().filter_map(|at| {
            let group = self.groups.get_mut(*at as usize)?.as_mut()?;
            group.is_dirty = false;
            Some(group.key)
        });
        keys.collect()
    }

    /// Before all series join anew: groups stay, their member counts do not.
    pub fn forget_members(&mut self) {
        for group in self.groups.iter_mut().flatten() {
            group.members = 0;
        }
    }

    /// After all series joined anew: groups that nobody joined go.
    pub fn drop_empty(&mut self) {
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

    pub fn group_of(&self, key: KeyId) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    pub fn group(&self, group: u32) -> Option<&Group> {
        self.groups.get(group as usize)?.as_ref()
    }

    fn group_mut(&mut self, group: u32) -> Option<&mut Group> {
        self.groups.get_mut(group as usize)?.as_mut()
    }

    pub fn keys(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.by_key.keys()
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Start of the oldest pane of the trailing window that ends at grid point `at`.
    pub fn oldest_start(&self, at: Timestamp) -> Timestamp {
        Timestamp::clamped(self.range(at).0 * self.pane.ms())
    }

    /// From now on it is mostly this grid point that is asked about.
    fn look_at(&mut self, at: Timestamp) {
        self.looked_at = (at, self.range_anew(at));
    }

    /// First and last pane index of the trailing window that ends at grid point `at`.
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

/// Sealed windows that are closed together: nobody waits for it, and each time the key must be fetched.
const CLOSED_TOGETHER: i64 = 16;

fn block_of(index: i64) -> i64 {
    index.div_euclid(CLOSED_TOGETHER)
}

/// A pane changes the value of its group where it enters and where it leaves a window. `begins_block`: whether it is
/// the first of those that are closed together.
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
        // It is sealed, and later nothing comes for it any more.
        ViewKind::Baseline { window, .. } | ViewKind::Deploys { window, .. } => {
            let end = Timestamp::clamped(index * window.ms()) + window;
            // What comes late is taken in at the next grid point.
            at((end + lateness.allowed).max(now));
            if begins_block {
                at(Timestamp::clamped((block_of(index) + 1) * CLOSED_TOGETHER * window.ms()) + lateness.max);
            }
        }
        ViewKind::Newest | ViewKind::Gathering { .. } => {}
    }
}

/// What is added to a pane: one value, some of the same finest pane, or a whole pane of them.
#[derive(Debug)]
pub enum Reading<'a> {
    One(Sample),
    /// With the newest time among them.
    Run(&'a [Sample], Timestamp),
    /// With the sum of squared distances from their mean, and the newest time.
    Many(&'a Pane, f64, Timestamp),
}

impl Reading<'_> {
    #[inline]
    pub fn time(&self) -> Timestamp {
        match self {
            Reading::One(sample) => sample.time,
            Reading::Run(_, time) | Reading::Many(_, _, time) => *time,
        }
    }

    #[inline]
    pub fn add_to(&self, pane: &mut Pane) {
        match self {
            Reading::One(sample) => pane.record(*sample),
            Reading::Run(samples, _) => samples.iter().for_each(|sample| pane.record(*sample)),
            Reading::Many(part, ..) => pane.merge(part),
        }
    }
}
