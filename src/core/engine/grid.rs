//! A grid point: the engine emits corrections, forgets old state, and evaluates records and rules.

use super::{Engine, Owner};
use crate::core::effect::Effects;
use crate::core::run::Touched;
use crate::core::view::feed::When;
use crate::core::vocab::key::KeyId;
use crate::core::vocab::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The work that is due at one grid point.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Changed keys of each view, in key order.
    views: BTreeMap<u32, Vec<KeyId>>,
    /// Keys of expired timers.
    timers: BTreeMap<Owner, Vec<KeyId>>,
    /// Pipelines with new events, and the stages that the events are about.
    pub(super) pipelines: BTreeMap<Arc<str>, Touched>,
}

impl Due {
    /// Returns a `Due` with these pipelines alone.
    pub(super) fn of_pipelines(pipelines: impl Iterator<Item = Arc<str>>) -> Due {
        let pipelines = pipelines.map(|name| (name, Touched::All)).collect();
        Due { pipelines, ..Due::default() }
    }

    /// Whether any key of a view changed.
    pub(super) fn has_changed(&self, view: usize) -> bool {
        self.views.contains_key(&(view as u32))
    }
}

impl Engine {
    /// Runs one grid point over all records before it.
    pub(super) fn grid(&mut self, at: Timestamp, out: &mut Effects) {
        self.timeline.take_grid();
        self.measures.flush_corrections(at, out);
        self.end_own_alerts(at, out);
        self.forget_series(at);
        self.counters.runs_abandoned += self.runs.forget(at, self.limits.abandon_after);
        let turned = self.turn_mutes(at);
        self.views.roll(When { now: at, interval: self.timeline.interval() });
        let mut due = Due { pipelines: self.runs.take_dirty(), ..Due::default() };
        while let Some((owner, key)) = self.states.take_due(at) {
            due.timers.entry(owner).or_default().push(key);
        }
        self.emit_gauges(at, &due);
        self.evaluate_records(at, &mut due, out);
        self.send_partials(at, out);
        let begun = out.transitions.len();
        self.evaluate_rules(at, &mut due, out);
        self.settle_mutes(at, begun, turned, out);
        self.plan_grid(at);
    }

    /// Returns the keys that a rule or record must evaluate now, in key order, each once.
    pub(super) fn due_keys(&mut self, owner: Owner, views: &[u32], due: &mut Due) -> Vec<KeyId> {
        for view in views {
            if let Some(source) = self.views.at(*view).source() {
                self.take_dirty(source, due);
            }
            self.take_dirty(*view, due);
        }
        let timers = due.timers.remove(&owner);
        if let ([view], None) = (views, &timers) {
            return due.views.get(view).cloned().unwrap_or_default();
        }
        // Keys of per-version views have an additional `version` label, so they are not keys of the rule. Their
        // series also feed the rule's other views.
        let views = views.iter().filter(|view| !self.views.at(**view).spec.per_version);
        let changed = views.filter_map(|view| due.views.get(view)).flatten().copied();
        let mut keys: Vec<KeyId> = changed.chain(timers.into_iter().flatten()).collect();
        self.keys.sort_many(&mut keys);
        keys
    }

    /// Moves the changed keys of a view to `due`, and marks them as changed in the views that this one feeds.
    fn take_dirty(&mut self, view: u32, due: &mut Due) {
        let mut keys = self.views.take_dirty(view);
        if keys.is_empty() {
            return;
        }
        let known = due.views.entry(view).or_default();
        known.append(&mut keys);
        self.keys.sort_many(known);
    }

    pub(super) fn set_timer(&mut self, owner: Owner, key: KeyId, at: Option<Timestamp>) {
        self.states.set_timer(owner, key, at, &mut self.timeline);
    }

    /// Computes the next grid point with work to do.
    fn plan_grid(&mut self, at: Timestamp) {
        let rolls = self.views.next_roll().into_iter();
        let timers = self.states.next_timer();
        let series = self.measures.next_review();
        let runs = self.runs.next_review();
        let gauges = self.next_gauge();
        let own = self.next_own_end();
        let partials = self.next_partials();
        let mutes = self.mutes.next(at);
        let next = rolls.chain(timers).chain(series).chain(runs).chain(gauges).chain(own).chain(partials);
        let next = next.chain(mutes);
        let next = next.min();
        let is_dirty = self.views.has_dirty() || self.runs.has_dirty();
        let soonest = at + self.timeline.interval();
        let next = if is_dirty { Some(soonest) } else { next.map(|next| next.max(soonest)) };
        self.timeline.plan(next);
    }
}
