//! Subscriptions of series to views, and the removal of forgotten series.

use super::{Engine, Owner};
use crate::core::alert::Instance;
use crate::core::measure::pane::{Sample, Shape};
use crate::core::measure::series::Subscription;
use crate::core::view::feed::{self, When};
use crate::core::view::{Reading, View, ViewKind};
use crate::core::vocab::identity::Identity;
use crate::core::vocab::key::{KeyId, VERSION_LABEL};
use crate::core::vocab::time::{Span, Timestamp};

impl Engine {
    /// Adds a reading to the groups that its series belongs to.
    #[inline]
    pub(super) fn feed_views(&mut self, slot: u32, reading: &Reading<'_>, is_on_time: bool) {
        let Some((series, metric)) = self.series.with_metric(slot) else { return };
        if series.subscriptions.is_empty() {
            return;
        }
        let (when, shape) = (self.timeline.when(), metric.shape);
        for subscription in &series.subscriptions {
            let view = &self.views[subscription.view as usize];
            if view.is_fed() || (!is_on_time && !view.takes_late()) {
                continue;
            }
            feed_view(&mut self.views, *subscription, reading, shape, when);
        }
        self.timeline.wake();
    }

    /// Adds a reading to the group of one view only, the view for which it was gathered.
    pub(super) fn feed_one_view(&mut self, slot: u32, view: u32, reading: &Reading<'_>) {
        let when = self.timeline.when();
        let Some((series, metric)) = self.series.with_metric(slot) else { return };
        let shape = metric.shape;
        if let Some(to) = series.subscriptions.iter().find(|to| to.view == view) {
            feed_view(&mut self.views, *to, reading, shape, when);
        }
        self.timeline.wake();
    }

    /// Finds the views that read a new series, and joins their groups.
    pub(super) fn subscribe(&mut self, slot: u32) {
        let Some(series) = self.series.get(slot) else { return };
        let named = self.views_by_name.get(&series.info.name);
        let candidates: Vec<u32> = named.into_iter().flatten().chain(&self.views_unnamed).copied().collect();
        for view in candidates {
            self.join(slot, view);
        }
    }

    /// Joins one series to one view, if the view reads it.
    pub(super) fn join(&mut self, slot: u32, view_at: u32) {
        let Some(series) = self.series.get(slot) else { return };
        let view = &mut self.views[view_at as usize];
        let Some(key) = view.spec.key_of(&series.info, &self.pipeline_records) else { return };
        let shape = self.series.metric_of(series).shape;
        let newest = if series.newest == Timestamp::MIN { self.timeline.now() } else { series.newest };
        let key = self.keys.intern(key);
        let is_new = view.group_of(key).is_none();
        let group = view.join(key, newest, shape);
        if let (ViewKind::Deploys { .. }, true) = (view.spec.kind, is_new) {
            let versions = self.keys.get(key).without(VERSION_LABEL);
            let versions = self.keys.find(&versions).map_or(&[][..], |key| self.keys.versions_of(key));
            view.prune_versions(versions);
        }
        if let Some(series) = self.series.get_mut(slot) {
            series.subscriptions.push(Subscription { view: view_at, group });
        }
        self.timeline.wake();
    }

    /// Creates the declared series at the start, so that their silence can be detected.
    pub(super) fn declare_series(&mut self) {
        let rules = self.rules.clone();
        for declared in &rules.declared {
            let identity = Identity {
                source: declared.source.clone(),
                name: declared.name.clone(),
                labels: declared.labels.clone(),
                unit: None,
            };
            if self.limits.partition.holds(&identity.source)
                && let Ok(place) = self.place_identity(&identity)
                && let Some(series) = self.series.get_mut(place.slot)
            {
                series.is_declared = true;
            }
        }
    }

    /// Schedules the review of a series at the first grid point of the minute after `at`.
    pub(super) fn review_series(&mut self, slot: u32, generation: u32, at: Timestamp) {
        let grid = at.next(Span::from_mins(1)).ceil(self.timeline.interval());
        self.reviews.entry(grid).or_default().push((slot, generation));
        self.timeline.wake_at(grid);
    }

    /// Forgets the series that had no observation for too long.
    pub(super) fn forget_series(&mut self, at: Timestamp) {
        while let Some(entry) = self.reviews.first_entry()
            && *entry.key() <= at
        {
            for (slot, generation) in entry.remove() {
                let Some(series) = self.series.get(slot) else { continue };
                if series.generation != generation || series.is_declared {
                    continue;
                }
                let due = series.last_seen + self.forget_after(series.subscriptions.as_slice());
                if due >= at || !series.windows.is_empty() {
                    let again = due.max(at);
                    self.review_series(slot, generation, again);
                } else {
                    self.forget_one(slot);
                }
            }
        }
    }

    /// Forgets a series at once, because its producer has ended it. Its open windows are never sealed.
    pub fn end_series(&mut self, identity: &Identity) {
        let slot = self.series.slot_of(identity);
        let is_declared = |slot: &u32| self.series.get(*slot).is_some_and(|series| series.is_declared);
        if let Some(slot) = slot.filter(|slot| !is_declared(slot)) {
            self.forget_one(slot);
        }
    }

    /// Returns `forget_after`, or the longest window that a rule reads over the series if that is longer.
    fn forget_after(&self, subscriptions: &[Subscription]) -> Span {
        let windows = subscriptions.iter().map(|s| match self.views[s.view as usize].spec.kind {
            ViewKind::Trailing { window, history, .. } => window + history,
            ViewKind::Baseline { window, period, .. } => window + period,
            // The data of a version stays after its series is forgotten.
            ViewKind::Deploys { window, .. } => window,
            ViewKind::Newest => Span::ZERO,
            ViewKind::Gathering { kept, .. } => kept,
        });
        windows.fold(self.limits.forget_after, Span::max)
    }

    fn forget_one(&mut self, slot: u32) {
        let Some(series) = self.series.forget(slot) else { return };
        self.counters.series_forgotten += 1;
        for subscription in series.subscriptions {
            if let Some(key) = self.views[subscription.view as usize].leave(subscription.group) {
                self.key_left(subscription.view, key);
            }
        }
    }

    /// Schedules the rules that track a key, after the key lost its last series in a view.
    fn key_left(&mut self, view: u32, key: KeyId) {
        let at = self.timeline.now().next(self.timeline.interval());
        for (place, state) in self.rule_states.iter_mut().enumerate() {
            let views = &self.rules.rules[place].views;
            if !views.contains(&view) {
                continue;
            }
            let is_left = views.iter().all(|view| self.views[*view as usize].group_of(key).is_none());
            state.instances.get_mut(&key).into_iter().for_each(Instance::lose_operand);
            if state.instances.contains_key(&key) || state.timers.contains_key(&key) {
                self.timers.insert((at, Owner::Rule(place as u32), key));
            } else if is_left {
                state.forget(key);
            }
        }
        self.memos.forget(key);
        self.timeline.wake_at(at);
    }
}

/// Adds a reading to one group.
#[inline]
fn feed_view(views: &mut [View], to: Subscription, reading: &Reading<'_>, from: Shape, when: When) {
    if views[to.view as usize].shape() == from {
        feed::record(views, to, reading, when);
    } else {
        record_reshaped(views, to, reading, from, when);
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
