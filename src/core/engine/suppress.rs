//! Suppression: maintenance windows and silences begin and end, inhibition is decided, alerts are marked.
//!
//! Invariant: suppression is decided once per grid point, after all rules, so the order of rules does not
//! matter. The first transition of an alert already states what suppresses it. An alert is matched against all
//! mutes only if the alert or a mute has changed; otherwise the result of the previous grid point is still valid.

use super::Engine;
use crate::core::alert::{Change, Transition};
use crate::core::effect::Effects;
use crate::core::inhibition::{Party, inhibitors};
use crate::core::mute::{Maintenance, Silence, Suppressed, Turned};
use crate::core::rule::Rule;
use crate::core::vocab::key::{Key, KeyId};
use crate::core::vocab::pipeline::PIPELINE;
use crate::core::vocab::selector::Selector;
use crate::core::vocab::severity::Severity;
use crate::core::vocab::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The [`Suppressed`] kind of an alert that another alert inhibits.
const INHIBITION: &str = "inhibition";

/// A firing alert as matchers see it.
struct FiringAlert<'a> {
    place: usize,
    id: KeyId,
    rule: &'a Rule,
    key: Arc<Key>,
    pipeline: Option<Arc<str>>,
    alert: String,
    severity: Severity,
    before: Option<Suppressed>,
    /// Indexes of its transitions of this grid point in the effects.
    told: Vec<usize>,
}

impl Party for FiringAlert<'_> {
    fn id(&self) -> &str {
        &self.alert
    }

    /// Returns a label of the key or of the rule, or one of `rule`, `severity` and the pipeline.
    fn label(&self, name: &str) -> Option<&str> {
        label((self.rule, &self.key, self.pipeline.as_ref()), self.severity, name)
    }
}

/// Returns the indexes of each alert's transitions from index `begun` on.
fn places(transitions: &[Transition], begun: usize) -> BTreeMap<String, Vec<usize>> {
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (place, transition) in transitions.iter().enumerate().skip(begun) {
        places.entry(transition.id.clone()).or_default().push(place);
    }
    places
}

/// Returns the value of a label for the matchers of mutes: `rule`, `severity`, `pipeline` (of an alert about
/// a pipeline), or a label of the key, else of the rule.
pub(super) fn label<'a>(
    (rule, key, pipeline): (&'a Rule, &'a Key, Option<&'a Arc<str>>),
    severity: Severity,
    name: &str,
) -> Option<&'a str> {
    match name {
        "rule" => Some(&rule.id),
        "severity" => Some(severity.name()),
        PIPELINE => pipeline.map(|value| &**value),
        name => key.get(name).or_else(|| rule.labels.get(name)).map(|value| &**value),
    }
}

impl Engine {
    /// Begins and ends maintenance windows and silences. If a maintenance window with `mode: suspend` begins, is
    /// in force or ends while mutes change, all keys are marked as changed, because each of them may have become
    /// suspended or may be judged again.
    pub(super) fn turn_mutes(&mut self, at: Timestamp) -> Turned {
        let was_suspended = self.mutes.has_suspended();
        let turned = self.mutes.turn(&self.rules.maintenance, at);
        if turned.is_any && (was_suspended || self.mutes.has_suspended() || turned.has_resumed) {
            self.views.mark_all();
        }
        turned
    }

    /// Returns the pipeline that an alert of a rule and key is about.
    pub(super) fn pipeline_of<'a>(&'a self, rule: &'a Rule, key: &'a Key) -> Option<&'a Arc<str>> {
        rule.pipeline(self.views.pipeline_records(), key, |view| &self.rules.views[view as usize])
    }

    /// Returns whether a maintenance window suspends the evaluation of a rule for a key now.
    pub(super) fn is_suspended(&self, rule: &Rule, key: KeyId) -> bool {
        if !self.mutes.has_suspended() {
            return false;
        }
        let key = self.keys.get(key);
        let severity = rule.levels.first().map_or(Severity::Info, |level| level.severity);
        let pipeline = self.pipeline_of(rule, key);
        self.mutes.is_suspended(|name| label((rule, key, pipeline), severity, name))
    }

    /// Stores in each firing alert the cause that suppresses it. Transitions from index `begun` on belong to
    /// this grid point.
    pub(super) fn settle_mutes(&mut self, at: Timestamp, begun: usize, turned: Turned, out: &mut Effects) {
        // Without inhibition rules and mutes no alert is suppressed. The causes of earlier mutes were removed when
        // the last mute ended.
        let is_quiet = self.rules.inhibits.is_empty() && !self.mutes.has_any();
        if !turned.is_any && (is_quiet || out.transitions.len() == begun) {
            return;
        }
        let rules = self.rules.clone();
        let firing = self.firing(&rules.rules, &places(&out.transitions, begun));
        let inhibited = inhibitors(&rules.inhibits, &firing);
        let is_any = |of: &Selector, was_any: bool| {
            let is_to_ask = |seen: &&FiringAlert<'_>| turned.is_any || was_any || !seen.told.is_empty();
            firing.iter().filter(is_to_ask).any(|seen| of.selects(|name| seen.label(name)))
        };
        self.mutes.note_matches(at, is_any);
        for (seen, inhibited) in firing.iter().zip(inhibited) {
            let inhibited = inhibited.map(|id| Suppressed { kind: INHIBITION.into(), id: id.into() });
            let cause = match turned.is_any || !seen.told.is_empty() {
                true => self.mutes.cause(at, |name| seen.label(name)),
                false => seen.before.clone().filter(|before| before.kind != INHIBITION),
            };
            self.mark(seen, cause.or(inhibited), at, out);
        }
        self.digest(&turned.ended, &firing, out);
        self.warn_of_ends(&turned.ending, &firing, out);
    }

    /// Returns all firing alerts except those of shadow rules, in file order and key order.
    fn firing<'a>(&self, rules: &'a [Rule], told: &BTreeMap<String, Vec<usize>>) -> Vec<FiringAlert<'a>> {
        let mut all = Vec::new();
        for (place, rule) in rules.iter().enumerate().filter(|(_, rule)| !rule.is_shadow) {
            let instances = &self.states.rule(place).instances;
            let mut keys: Vec<KeyId> = instances.keys().copied().collect();
            self.keys.sort(&mut keys);
            for id in keys {
                let Some(instance) = instances.get(&id) else { continue };
                let Some(firing) = instance.firing() else { continue };
                let key = self.keys.get(id).clone();
                let alert = super::publish::alert_id(rule, &key, instance.started_at);
                let severity = rule.levels[firing.level].severity;
                let (pipeline, before) = (self.pipeline_of(rule, &key).cloned(), firing.suppressed.clone());
                let told = told.get(&alert).cloned().unwrap_or_default();
                all.push(FiringAlert { place, id, rule, key, pipeline, alert, severity, before, told });
            }
        }
        all
    }

    /// Writes the suppression cause of one alert into its transitions of this grid point. If the suppression
    /// began or ended, a separate transition is published.
    fn mark(&mut self, seen: &FiringAlert<'_>, cause: Option<Suppressed>, at: Timestamp, out: &mut Effects) {
        let is_new = seen.told.iter().any(|place| out.transitions[*place].seq == 0);
        let state = self.states.rule_mut(seen.place);
        let Some(instance) = state.instances.get_mut(&seen.id) else { return };
        instance.mark(cause.clone(), is_new);
        let is_muted_action =
            cause.as_ref().is_some_and(|cause| cause.kind == "maintenance") && !seen.rule.acts_in_maintenance;
        for place in &seen.told {
            let transition = &mut out.transitions[*place];
            transition.suppressed_by.clone_from(&cause);
            if is_muted_action {
                transition.actions.clear();
            }
        }
        let change = match (&seen.before, &cause) {
            (None, Some(_)) if !is_new => Change::Suppressed,
            (Some(_), None) => Change::Unsuppressed,
            _ => return,
        };
        let before = instance.clone();
        self.publish(seen.place, seen.rule, seen.id, change, &before, at, out);
    }

    /// Publishes, once at the end of each maintenance window, which alerts still fire.
    fn digest(&mut self, ended: &[Maintenance], firing: &[FiringAlert<'_>], out: &mut Effects) {
        for maintenance in ended {
            let still: Vec<&FiringAlert<'_>> =
                firing.iter().filter(|seen| maintenance.matchers.selects(|name| seen.label(name))).collect();
            if let Some(worst) = still.iter().map(|seen| seen.severity).max() {
                let alerts: Vec<String> = still.iter().map(|seen| seen.alert.clone()).collect();
                self.tell_digest(&maintenance.id, worst, &alerts, out);
            }
        }
    }

    /// Publishes which silences end soon and still hide firing alerts.
    fn warn_of_ends(&mut self, ending: &[Silence], firing: &[FiringAlert<'_>], out: &mut Effects) {
        for silence in ending {
            let matching = |seen: &&FiringAlert<'_>| silence.matchers.selects(|name| seen.label(name));
            let hidden = firing.iter().filter(matching).count();
            if hidden > 0 {
                self.tell_silence_ending(silence, hidden, out);
            }
        }
    }
}
