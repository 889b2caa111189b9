//! Membership of series: a new series joins the views that read it, and a silent series is forgotten.

use super::Engine;
use crate::core::alert::Instance;
use crate::core::measure::series::Subscription;
use crate::core::view::ViewKind;
use crate::core::vocab::identity::Identity;
use crate::core::vocab::key::{KeyId, VERSION_LABEL};
use crate::core::vocab::time::{Span, Timestamp};

impl Engine {
    /// Finds the views that read a new series, and joins their groups.
    pub(super) fn subscribe(&mut self, slot: u32) {
        let Some(series) = self.measures.series().get(slot) else { return };
        let views: Vec<u32> = self.views.reading(&series.info.name).collect();
        for view in views {
            self.join(slot, view);
        }
    }

    /// Joins one series to one view, if the view reads it.
    fn join(&mut self, slot: u32, view: u32) {
        let Some(series) = self.measures.series().get(slot) else { return };
        let Some(key) = self.views.key_of(view, &series.info) else { return };
        let shape = self.measures.series().metric_of(series).shape;
        let newest = if series.newest == Timestamp::MIN { self.timeline.now() } else { series.newest };
        let key = self.keys.intern(key);
        let (group, is_new) = self.views.join(view, key, newest, shape);
        if let (ViewKind::Deploys { .. }, true) = (self.views.at(view).spec.kind, is_new) {
            let versions = self.keys.get(key).without(VERSION_LABEL);
            let versions = self.keys.find(&versions).map_or(&[][..], |key| self.keys.versions_of(key));
            self.views.prune_versions(view, versions);
        }
        if let Some(series) = self.measures.series_mut().get_mut(slot) {
            series.subscriptions.push(Subscription { view, group });
        }
        self.timeline.wake();
    }

    /// Subscribes all series again after a change of the rule set, to new views and to those that stayed.
    pub(super) fn resubscribe(&mut self) {
        self.views.forget_members();
        let slots: Vec<u32> = self.measures.series().iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if let Some(series) = self.measures.series_mut().get_mut(slot) {
                series.subscriptions.clear();
            }
            self.subscribe(slot);
        }
        self.views.drop_empty();
    }

    /// Subscribes each series of a restored engine to the groups that it feeds. The groups are in the snapshot,
    /// so they do not change.
    pub(super) fn find_subscriptions(&mut self) {
        let slots: Vec<u32> = self.measures.series().iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(series) = self.measures.series().get(slot) else { continue };
            let views = self.views.reading(&series.info.name);
            let found: Vec<_> = views
                .filter_map(|at| {
                    let key = self.views.key_of(at, &series.info)?;
                    let group = self.views.at(at).group_of(self.keys.find(&key)?)?;
                    Some(Subscription { view: at, group })
                })
                .collect();
            if let Some(series) = self.measures.series_mut().get_mut(slot) {
                series.subscriptions = found;
            }
        }
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
                && let Some(series) = self.measures.series_mut().get_mut(place.slot)
            {
                series.is_declared = true;
            }
        }
    }

    /// Schedules the review of a series at the first grid point of the minute after `at`.
    pub(super) fn review_series(&mut self, slot: u32, generation: u32, at: Timestamp) {
        let grid = at.next(Span::from_mins(1)).ceil(self.timeline.interval());
        self.measures.review_at(grid, slot, generation);
        self.timeline.wake_at(grid);
    }

    /// Forgets the series that had no observation for too long.
    pub(super) fn forget_series(&mut self, at: Timestamp) {
        let before = self.counters.series_forgotten;
        while let Some(due) = self.measures.take_review(at) {
            for (slot, generation) in due {
                let Some(series) = self.measures.series().get(slot) else { continue };
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
        if self.counters.series_forgotten > before {
            // Event ids expire when their source sends another event. A silent source sends none, so its ids are
            // removed here.
            self.duplicates.shrink(at, self.limits.duplicate_window);
        }
    }

    /// Forgets a series at once, because its producer has ended it. Its open windows are never sealed.
    pub fn end_series(&mut self, identity: &Identity) {
        let slot = self.measures.series().slot_of(identity);
        let is_declared =
            |slot: &u32| self.measures.series().get(*slot).is_some_and(|series| series.is_declared);
        if let Some(slot) = slot.filter(|slot| !is_declared(slot)) {
            self.forget_one(slot);
        }
    }

    /// Returns `forget_after`, or the longest window that a rule reads over the series if that is longer.
    fn forget_after(&self, subscriptions: &[Subscription]) -> Span {
        let windows = subscriptions.iter().map(|s| match self.views.at(s.view).spec.kind {
            ViewKind::Trailing { window, history, .. } => window + history,
            ViewKind::Baseline { window, period, .. } => window + period,
            // The view keeps the data of a version after its series is forgotten, so `window` is enough.
            ViewKind::Deploys { window, .. } => window,
            ViewKind::Newest => Span::ZERO,
            ViewKind::Gathering { kept, .. } => kept,
        });
        windows.fold(self.limits.forget_after, Span::max)
    }

    fn forget_one(&mut self, slot: u32) {
        let Some(series) = self.measures.series_mut().forget(slot) else { return };
        self.counters.series_forgotten += 1;
        for subscription in series.subscriptions {
            if let Some(key) = self.views.leave(subscription) {
                self.key_left(subscription.view, key);
            }
        }
    }

    /// Schedules the rules that track a key, after the key lost its last series in a view.
    fn key_left(&mut self, view: u32, key: KeyId) {
        let at = self.timeline.now().next(self.timeline.interval());
        for (place, rule) in self.rules.rules.iter().enumerate() {
            let (views, state) = (&rule.views, self.states.rule_mut(place));
            if !views.contains(&view) {
                continue;
            }
            let is_left = !self.views.have(views, key);
            state.instances.get_mut(&key).into_iter().for_each(Instance::lose_operand);
            if state.instances.contains_key(&key) || state.timer(key).is_some() {
                self.states.wake(place, key, at);
            } else if is_left {
                state.forget(key);
            }
        }
        self.memos.forget(key);
        self.timeline.wake_at(at);
    }
}
