//! `record:` series and the live gauges of pipelines: values that the engine itself produces.
//!
//! The engine emits a value when it changes, and repeats it every `record_interval`; gauges are repeated only
//! while a run is in flight. The values are stamped 1 ms before the grid point, so that a rule at the same grid
//! point sees them.

use super::grid::Due;
use super::{Engine, Owner};
use crate::core::effect::{Effects, Recorded};
use crate::core::evaluate::Notes;
use crate::core::evaluate::baseline_freeze::BaselineFreeze;
use crate::core::evaluate::proportion::Shares;
use crate::core::rule::RecordSpec;
use crate::core::run::Touched;
use crate::core::vocab::identity::{Identity, Labels};
use crate::core::vocab::key::KeyId;
use crate::core::vocab::series_info::RECORD_SOURCE;
use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The state of one `record:` series.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct RecordState {
    /// The last value observed of each key, and its time.
    emitted: BTreeMap<KeyId, (f64, Timestamp)>,
    pub(super) timers: BTreeMap<KeyId, Timestamp>,
    pub(super) shares: Shares,
    /// Always empty, because a record has no alerts.
    #[serde(skip)]
    pub(super) baseline_freeze: BaselineFreeze,
}

/// The state of the gauges of one pipeline.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Gauges {
    emitted: BTreeMap<(String, Labels), f64>,
    /// When all gauges are repeated; `None` while no run is in flight.
    repeat_at: Option<Timestamp>,
}

impl Engine {
    /// Evaluates the records whose inputs changed or whose timers are due, in dependency order.
    pub(super) fn evaluate_records(&mut self, at: Timestamp, due: &mut Due, out: &mut Effects) {
        let rules = self.rules.clone();
        for (record, spec) in rules.records.iter().enumerate() {
            let keys = self.due_keys(Owner::Record(record as u32), &spec.views, due);
            for key in keys {
                let is_known = self.views.have(&spec.views, key);
                if is_known {
                    self.evaluate_record(record, spec, key, at, out);
                } else {
                    self.states.record_mut(record).emitted.remove(&key);
                    self.states.record_mut(record).shares.forget(key);
                }
            }
        }
    }

    fn evaluate_record(
        &mut self,
        record: usize,
        spec: &RecordSpec,
        key: KeyId,
        at: Timestamp,
        out: &mut Effects,
    ) {
        let owner = Owner::Record(record as u32);
        let mut scope = self.scope(owner, (&NO_LABELS, false), key, at, Notes::default());
        let value = scope.value(&spec.expr);
        let look_again = scope.notes.look_again;
        self.counters.evaluations += 1;
        let Ok(value) = value else {
            self.states.record_mut(record).emitted.remove(&key);
            return self.set_timer(owner, key, look_again);
        };
        let interval = self.limits.record_interval;
        let before = self.states.record(record).emitted.get(&key).copied();
        let mut repeat_at = before.map_or(at, |(_, when)| when + interval);
        if before.is_none_or(|(known, _)| known != value) || repeat_at <= at {
            self.states.record_mut(record).emitted.insert(key, (value, at));
            repeat_at = at + interval;
            self.emit_record(spec, key, at, value, out);
        }
        let next = look_again.map_or(repeat_at, |again| again.min(repeat_at));
        self.set_timer(owner, key, Some(next));
    }

    fn emit_record(&mut self, spec: &RecordSpec, key: KeyId, at: Timestamp, value: f64, out: &mut Effects) {
        let key = self.keys.get(key).clone();
        let name = spec.name.clone();
        let identity = Identity {
            source: key.get("source").cloned().unwrap_or_else(|| RECORD_SOURCE.into()),
            name: name.clone(),
            labels: key.rest(),
            unit: spec.unit.clone(),
        };
        let time = at - Span::MILLISECOND;
        self.observe_own(&identity, time, value);
        out.recorded.push(Recorded { name, key, time, value });
    }

    /// Observes the gauges of pipelines that changed, or that are due to be repeated.
    pub(super) fn emit_gauges(&mut self, at: Timestamp, due: &Due) {
        let repeated = self.gauges.iter().filter(|(_, g)| g.repeat_at.is_some_and(|when| when <= at));
        let changed = due.pipelines.iter().map(|(name, touched)| (name.clone(), touched));
        let mut pipelines: BTreeMap<_, &Touched> = changed.collect();
        pipelines.extend(repeated.map(|(name, _)| (name.clone(), &Touched::All)));
        for (pipeline, touched) in pipelines {
            let Some(found) = self.runs.get(&pipeline) else { continue };
            let (values, is_busy) = (found.gauges(touched), found.whole().in_flight() > 0);
            let gauges = self.gauges.entry(pipeline.clone()).or_default();
            let is_repeat = gauges.repeat_at.is_some_and(|when| when <= at);
            let mut changed = Vec::new();
            for (name, labels, value) in values {
                let before = gauges.emitted.insert((name.to_string(), labels.clone()), value);
                if before != Some(value) || is_repeat {
                    changed.push((name, labels, value));
                }
            }
            if is_repeat || gauges.repeat_at.is_none() || !is_busy {
                gauges.repeat_at = is_busy.then(|| at + self.limits.record_interval);
            }
            for (name, labels, value) in changed {
                let identity = Identity { source: pipeline.clone(), name: name.into(), labels, unit: None };
                self.observe_own(&identity, at - Span::MILLISECOND, value);
            }
        }
    }

    /// Returns the earliest time at which the gauges of any pipeline are repeated.
    pub(super) fn next_gauge(&self) -> Option<Timestamp> {
        self.gauges.values().filter_map(|gauges| gauges.repeat_at).min()
    }
}

/// Records have no labels of their own.
static NO_LABELS: BTreeMap<std::sync::Arc<str>, std::sync::Arc<str>> = BTreeMap::new();
