//! The views that rules read: which series feed them, and the panes of their groups.
//!
//! Invariant: views stand in the order of the rule set, so rules refer to them by index. A view that is still read
//! after a change of the rules keeps its panes.

use crate::core::measure::histogram::layout::Digits;
use crate::core::measure::pane::{Sample, Shape};
use crate::core::measure::series::{MetricSpec, Subscription};
use crate::core::rule::RuleSet;
use crate::core::view::feed::{self, When};
use crate::core::view::pipeline_records::PipelineRecords;
use crate::core::view::{Former, Reading, View, ViewImage, ViewSpec, lead};
use crate::core::vocab::key::{Key, KeyId};
use crate::core::vocab::limits::Limits;
use crate::core::vocab::partition::Partition;
use crate::core::vocab::series_info::SeriesInfo;
use crate::core::vocab::time::Timestamp;
use crate::core::vocab::unit::Unit;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// All views of a rule set.
#[derive(Debug, Default)]
pub(super) struct Views {
    all: Vec<View>,
    by_name: HashMap<Arc<str>, Vec<u32>, foldhash::fast::FixedState>,
    unnamed: Vec<u32>,
    /// Aggregate only: the index of each view by its id. A partial names its view by id.
    by_id: BTreeMap<u64, u32>,
    /// The `record:` series that are derived from the series of pipelines.
    pipeline_records: PipelineRecords,
}

impl Views {
    pub(super) fn restore(rules: &RuleSet, images: Vec<ViewImage>, limits: &Limits) -> Views {
        let specs = rules.views.iter().cloned().zip(images);
        let all = specs.map(|(spec, image)| View::restore(spec, image, limits.lateness())).collect();
        let mut views = Views { all, pipeline_records: rules.pipeline_records(), ..Views::default() };
        views.index(limits.partition);
        feed::link(&mut views.all);
        views
    }

    /// Replaces the views by those of a rule set. Returns the indices of the new views, which begin empty.
    pub(super) fn load(&mut self, rules: &RuleSet, limits: &Limits, when: When) -> Vec<u32> {
        feed::settle(&mut self.all, when);
        let leads = lead::take(&mut self.all);
        let mut old = Former::new(std::mem::take(&mut self.all));
        let mut new = Vec::new();
        self.all = Vec::with_capacity(rules.views.len());
        for (spec, at) in rules.views.iter().zip(0..) {
            let known = old.take_like(spec);
            new.extend(known.is_none().then_some(at));
            let begin = || View::new(spec.clone(), shape(spec, &rules.metrics), limits.lateness());
            self.all.push(known.unwrap_or_else(begin));
        }
        feed::link(&mut self.all);
        lead::give(&mut self.all, leads, when.now, when.interval);
        self.pipeline_records = rules.pipeline_records();
        self.index(limits.partition);
        new
    }

    fn index(&mut self, partition: Partition) {
        self.by_name.clear();
        self.unnamed.clear();
        if partition.is_aggregate() {
            self.by_id = self.all.iter().zip(0..).map(|(view, at)| (view.spec.id(), at)).collect();
        }
        for (view, at) in self.all.iter().zip(0..) {
            match &view.spec.selector.name {
                Some(name) => self.by_name.entry(name.clone()).or_default().push(at),
                None => self.unnamed.push(at),
            }
        }
    }

    /// Forgets which series belong to the groups, because all series join again afterwards.
    pub(super) fn forget_members(&mut self) {
        self.all.iter_mut().for_each(View::forget_members);
    }

    /// Drops the groups that no series has joined again.
    pub(super) fn drop_empty(&mut self) {
        self.all.iter_mut().for_each(View::drop_empty);
    }

    pub(super) fn begin_following(&mut self, views: &[u32], now: Timestamp) {
        for view in views {
            self.all[*view as usize].begin_following(now);
        }
    }

    /// Adds a reading to the groups that its series belongs to.
    #[inline]
    pub(super) fn record(
        &mut self,
        to: &[Subscription],
        reading: &Reading<'_>,
        from: Shape,
        is_on_time: bool,
        when: When,
    ) {
        for subscription in to {
            let view = &self.all[subscription.view as usize];
            if view.is_fed() || (!is_on_time && !view.takes_late()) {
                continue;
            }
            self.record_one(*subscription, reading, from, when);
        }
    }

    /// Adds a reading to one group.
    #[inline]
    pub(super) fn record_one(&mut self, to: Subscription, reading: &Reading<'_>, from: Shape, when: When) {
        if self.all[to.view as usize].shape() == from {
            feed::record(&mut self.all, to, reading, when);
        } else {
            record_reshaped(&mut self.all, to, reading, from, when);
        }
    }

    /// Joins a series to the group of a key. Returns the group, and whether it is new.
    pub(super) fn join(&mut self, view: u32, key: KeyId, newest: Timestamp, shape: Shape) -> (u32, bool) {
        let view = &mut self.all[view as usize];
        let is_new = view.group_of(key).is_none();
        (view.join(key, newest, shape), is_new)
    }

    /// Lets a series leave a group. Returns the key that lost its last series.
    pub(super) fn leave(&mut self, subscription: Subscription) -> Option<KeyId> {
        self.all[subscription.view as usize].leave(subscription.group)
    }

    pub(super) fn prune_versions(&mut self, view: u32, versions: &[KeyId]) {
        self.all[view as usize].prune_versions(versions);
    }

    /// Updates the groups in whose windows a pane enters or leaves at a grid point.
    pub(super) fn roll(&mut self, when: When) {
        feed::roll(&mut self.all, when);
    }

    /// Marks all keys as changed.
    pub(super) fn mark_all(&mut self) {
        self.all.iter_mut().for_each(View::mark_all);
    }

    /// Takes the changed keys of a view, and marks them in the views that this one feeds.
    pub(super) fn take_dirty(&mut self, view: u32) -> Vec<KeyId> {
        if !self.at(view).has_dirty() {
            return Vec::new();
        }
        let keys = self.all[view as usize].take_dirty();
        feed::spread(&mut self.all, view, &keys);
        keys
    }

    /// Returns a view mutably, so that its gathered data can be taken.
    pub(super) fn at_mut(&mut self, view: u32) -> &mut View {
        &mut self.all[view as usize]
    }

    /// Returns what an evaluation reads of the views. They are mutable, because an evaluation fills their caches.
    pub(super) fn lent_to_evaluation(&mut self) -> (&mut [View], &PipelineRecords) {
        (&mut self.all, &self.pipeline_records)
    }

    pub(super) fn at(&self, view: u32) -> &View {
        &self.all[view as usize]
    }

    /// Returns the views with these indexes.
    pub(super) fn of<'a>(&'a self, views: &'a [u32]) -> impl Iterator<Item = &'a View> {
        views.iter().map(|view| self.at(*view))
    }

    pub(super) fn all(&self) -> &[View] {
        &self.all
    }

    /// Returns the view with this id.
    pub(super) fn by_id(&self, id: u64) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// Returns the views that may read a series of this name.
    pub(super) fn reading(&self, name: &str) -> impl Iterator<Item = u32> {
        self.by_name.get(name).into_iter().flatten().chain(&self.unnamed).copied()
    }

    /// Returns the key under which a view reads a series, if it does.
    pub(super) fn key_of(&self, view: u32, series: &SeriesInfo) -> Option<Key> {
        self.at(view).spec.key_of(series, &self.pipeline_records)
    }

    /// Returns whether any of these views has a group of a key.
    pub(super) fn have(&self, views: &[u32], key: KeyId) -> bool {
        self.of(views).any(|view| view.group_of(key).is_some())
    }

    pub(super) fn pipeline_records(&self) -> &PipelineRecords {
        &self.pipeline_records
    }

    /// Returns whether a rule that spans partitions reads data of this partition.
    pub(super) fn is_gathering(&self) -> bool {
        self.all.iter().any(View::is_gathering)
    }

    /// Returns whether a key changed in a view that a rule of this partition reads.
    pub(super) fn has_dirty(&self) -> bool {
        self.all.iter().filter(|view| !view.is_gathering()).any(View::has_dirty)
    }

    /// Returns the next grid point at which a pane enters or leaves a window.
    pub(super) fn next_roll(&self) -> Option<Timestamp> {
        self.all.iter().filter_map(View::next_roll).min()
    }
}

/// Adds a reading of another shape. A view over several metrics keeps its own resolution, so the histogram
/// buckets are computed again.
fn record_reshaped(views: &mut [View], to: Subscription, reading: &Reading<'_>, from: Shape, when: When) {
    let shape = views[to.view as usize].shape();
    match reading {
        Reading::One(sample) => {
            let sample = Sample::new(shape, sample.value, sample.time);
            feed::record(views, to, &Reading::One(sample), when);
        }
        Reading::Run(samples, newest) => {
            let samples: Vec<Sample> =
                samples.iter().map(|sample| Sample::new(shape, sample.value, sample.time)).collect();
            feed::record(views, to, &Reading::Run(&samples, *newest), when);
        }
        Reading::Many(part, m2, time) => {
            let reshaped = part.reshaped(from, shape, 1.0);
            feed::record(views, to, &Reading::Many(&reshaped, *m2, *time), when);
        }
    }
}

/// The shape of a view before any of its series was seen.
fn shape(spec: &ViewSpec, metrics: &BTreeMap<Arc<str>, MetricSpec>) -> Shape {
    let name = spec.selector.name.as_ref();
    let stated = name.and_then(|name| metrics.get(name));
    let unit = stated.and_then(|spec| spec.unit.clone());
    let unit = unit.or_else(|| name.and_then(|name| Unit::from_suffix(name)));
    Shape {
        digits: stated.map_or(Digits::default(), |spec| spec.digits),
        resolution: Unit::resolution(unit.as_ref()),
    }
}
