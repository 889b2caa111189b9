//! From a change of an instance to the transition that others see, with its reason.

use super::Engine;
use crate::core::alert::transition::{ChangeName, Evidence, State, Window};
use crate::core::alert::{Change, Firing, Instance, StaleCause, Transition};
use crate::core::effect::Effects;
use crate::core::key::{Key, KeyId};
use crate::core::rule::evaluate::Notes;
use crate::core::rule::{Rule, template};
use crate::core::run::PIPELINE;
use crate::core::time::Timestamp;
use crate::core::view::ViewKind;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Engine {
    /// Publishes one change. `before`: the instance before the step, for episodes that ended.
    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename them")]
    pub(super) fn publish(
        &mut self,
        place: usize,
        rule: &Rule,
        key: KeyId,
        change: Change,
        before: &Instance,
        at: Timestamp,
        out: &mut Effects,
    ) {
        let Some(now) = self.rule_states[place].instances.get(&key).cloned() else { return };
        // A terminal change leaves no firing state behind: the one before it is what ended.
        let (Some(firing), instance) = (match now.firing() {
            Some(firing) => (Some(firing), &now),
            None => (before.firing(), before),
        }) else {
            return;
        };
        let notes = (self.evidence(place, rule, key, at), self.is_flapping(place, key));
        let mut transition = self.transition(rule, key, change, (firing, instance, now.value), notes, at);
        if let Some(instance) = self.rule_states[place].instances.get_mut(&key) {
            instance.count_transition();
        }
        self.counters.transitions += 1;
        if rule.is_shadow {
            // Nobody acts on what nobody is told.
            transition.actions.clear();
            out.shadows.push(transition);
        } else {
            out.transitions.push(transition);
        }
    }

    fn is_flapping(&self, place: usize, key: KeyId) -> bool {
        self.rule_states[place].flaps.get(&key).is_some_and(|flaps| flaps.is_flapping)
    }

    /// Reads everything again, this time writing down what was read.
    pub(super) fn evidence(&mut self, place: usize, rule: &Rule, key: KeyId, at: Timestamp) -> Notes {
        let notes = Notes::with_evidence();
        self.observe_rule(place, rule, key, at, notes).1
    }

    fn transition(
        &self,
        rule: &Rule,
        key: KeyId,
        change: Change,
        (firing, instance, value): (&Firing, &Instance, f64),
        (notes, is_flapping): (Notes, bool),
        at: Timestamp,
    ) -> Transition {
        let step = rule.escalation.as_ref().and_then(|policy| policy.current(firing.steps));
        let (key, why) = (self.keys.get(key).clone(), *notes.why.unwrap_or_default());
        let (level, labels) = (&rule.levels[firing.level], self.labels(rule, &key));
        let is_terminal = matches!(change, Change::Resolved | Change::Stale(_));
        let is_entered = matches!(change, Change::Firing | Change::Rise);
        let value = value.is_finite().then_some(value);
        Transition {
            id: alert_id(rule, &key, instance.started_at),
            seq: firing.seq,
            rule: rule.id.clone(),
            state: state_of(change, firing),
            change: change_name(change),
            severity: level.severity,
            severity_highest: rule.levels[firing.highest].severity,
            value,
            unit: rule.unit.clone(),
            threshold: level.threshold.clone(),
            started_at: instance.started_at,
            at,
            event_time: notes.newest,
            ended_at: is_terminal.then_some(at),
            reason: reason(rule, change, firing, value),
            evidence: Evidence { inputs: why.inputs, baseline: why.baseline, window: self.window(rule, at) },
            escalation_level: firing.steps as u32,
            notify: step
                .map(|step| step.notify.iter().map(|one| one.to_string()).collect())
                .unwrap_or_default(),
            escalate_to: step.and_then(|step| step.escalate_to.clone()),
            acknowledged_by: firing.ack.as_ref().map(|ack| ack.by.to_string()),
            suppressed_by: firing.suppressed.clone(),
            flapping: is_flapping,
            actions: if is_entered { level.actions.clone() } else { Vec::new() },
            summary: template::render(rule, (&key, &labels), value, level.severity),
            runbook: rule.runbook.clone(),
            rule_hash: rule.hash.clone(),
            labels,
            key,
        }
    }

    /// The labels of an alert besides its key: those of its rule, and the pipeline that it is about.
    fn labels(&self, rule: &Rule, key: &Key) -> BTreeMap<Arc<str>, Arc<str>> {
        let mut labels = rule.labels.clone();
        if let Some(pipeline) = self.pipeline_of(rule, key) {
            labels.insert(PIPELINE.into(), pipeline.clone());
        }
        labels
    }

    /// The longest trailing window that the rule reads.
    pub(super) fn window(&self, rule: &Rule, at: Timestamp) -> Window {
        let views = rule.views.iter().map(|view| &self.views[*view as usize]);
        let trailing = views.filter(|view| matches!(view.spec.kind, ViewKind::Trailing { .. }));
        let start = trailing.map(|view| view.oldest_start(at)).min();
        Window { start, end: start.map(|_| at) }
    }

    /// Active alerts as views show them, pending ones too: file order, key order.
    pub fn active_alerts(&mut self) -> Vec<Transition> {
        let mut alerts = self.active_of(|rule| !rule.is_shadow);
        alerts.extend(self.active_own());
        alerts
    }

    /// Those of `shadow: true` rules.
    pub fn active_shadows(&mut self) -> Vec<Transition> {
        self.active_of(|rule| rule.is_shadow)
    }

    fn active_of(&mut self, is_wanted: impl Fn(&Rule) -> bool) -> Vec<Transition> {
        self.active_from(0, is_wanted, usize::MAX).0
    }

    /// Active alerts of the rules from place `from` on until there are `max`, and where the next page begins. The
    /// first page holds those of the system itself, too.
    pub fn active_page(
        &mut self,
        from: usize,
        is_shadow: bool,
        max: usize,
    ) -> (Vec<Transition>, Option<usize>) {
        let (mut alerts, next) = self.active_from(from, |rule| rule.is_shadow == is_shadow, max);
        if from == 0 && !is_shadow {
            alerts.extend(self.active_own());
        }
        (alerts, next)
    }

    fn active_from(
        &mut self,
        from: usize,
        is_wanted: impl Fn(&Rule) -> bool,
        max: usize,
    ) -> (Vec<Transition>, Option<usize>) {
        let rules = std::mem::take(&mut self.rules.rules);
        let (mut alerts, mut next) = (Vec::new(), None);
        for (place, rule) in rules.iter().enumerate().skip(from).filter(|(_, rule)| is_wanted(rule)) {
            if alerts.len() >= max {
                next = Some(place);
                break;
            }
            let mut keys: Vec<KeyId> = self.rule_states[place].instances.keys().copied().collect();
            self.keys.sort(&mut keys);
            for key in keys {
                alerts.extend(self.view_alert(place, rule, key));
            }
        }
        self.rules.rules = rules;
        (alerts, next)
    }

    pub(super) fn view_alert(&mut self, place: usize, rule: &Rule, key: KeyId) -> Option<Transition> {
        let instance = self.rule_states[place].instances.get(&key)?.clone();
        let at = instance.seen_at;
        let (_, notes) = self.observe_rule(place, rule, key, at, Notes::of_a_look());
        let notes = (notes, self.is_flapping(place, key));
        if let Some(firing) = instance.firing() {
            let shown = firing.as_published();
            return Some(self.transition(
                rule,
                key,
                Change::Firing,
                (&shown, &instance, instance.value),
                notes,
                at,
            ));
        }
        if instance.phase != crate::core::alert::Phase::Pending {
            return None;
        }
        let pending = Firing::pending(&instance);
        let mut shown =
            self.transition(rule, key, Change::Firing, (&pending, &instance, instance.value), notes, at);
        (shown.state, shown.change) = (State::Pending, ChangeName::Pending);
        shown.actions.clear();
        shown.reason = format!("pending since {}: {}", instance.started_at, rule.text);
        Some(shown)
    }
}

/// Rule, hash of the key, start of the episode (CONTRACT §4).
pub(super) fn alert_id(rule: &Rule, key: &crate::core::key::Key, started_at: Timestamp) -> String {
    format!("{}:{:016x}:{}", rule.id, key.hash(), started_at.ms())
}

fn state_of(change: Change, firing: &Firing) -> State {
    match change {
        Change::Resolved => State::Resolved,
        Change::Stale(_) => State::Stale,
        _ if firing.ack.is_some() => State::Acknowledged,
        // A step after the first was taken.
        _ if firing.steps > 1 => State::Escalated,
        _ => State::Firing,
    }
}

fn change_name(change: Change) -> ChangeName {
    match change {
        Change::Firing => ChangeName::Firing,
        Change::Rise | Change::Fall => ChangeName::Level,
        Change::Acknowledged => ChangeName::Acknowledged,
        Change::Unacknowledged => ChangeName::Unacknowledged,
        Change::Escalated => ChangeName::Escalated,
        Change::Suppressed => ChangeName::Suppressed,
        Change::Unsuppressed => ChangeName::Unsuppressed,
        Change::Resolved => ChangeName::Resolved,
        Change::Stale(_) => ChangeName::Stale,
    }
}

fn reason(rule: &Rule, change: Change, firing: &Firing, value: Option<f64>) -> String {
    let level = &rule.levels[firing.level];
    let value = value.map_or("unknown".to_string(), |value| match &rule.unit {
        Some(unit) => format!("{value} {unit}"),
        None => value.to_string(),
    });
    match change {
        Change::Firing => {
            format!("value {value} is {} and was for {}", level.threshold, level.pending_for)
        }
        Change::Rise | Change::Fall => format!("value {value}: level is {} now", level.severity.name()),
        Change::Acknowledged => match &firing.ack {
            Some(ack) if !ack.why.is_empty() => format!("acknowledged by {}: {}", ack.by, ack.why),
            Some(ack) => format!("acknowledged by {}", ack.by),
            None => "acknowledged".into(),
        },
        Change::Unacknowledged => "the acknowledgement ended".into(),
        Change::Escalated => escalated(rule, firing),
        Change::Suppressed => match &firing.suppressed {
            Some(cause) => format!("suppressed by {} {}", cause.kind, cause.id),
            None => "suppressed".into(),
        },
        Change::Unsuppressed => "nothing suppresses it any more".into(),
        Change::Resolved => {
            format!("value {value} is no longer {}, for {}", level.threshold, rule.keep_firing_for)
        }
        Change::Stale(StaleCause::UnknownTooLong(reason)) => {
            format!("unknown for too long: {}", reason.name())
        }
        Change::Stale(StaleCause::Forgotten) => "its series or run is gone".into(),
        Change::Stale(StaleCause::RuleChanged) => "its rule was removed or judges something else".into(),
    }
}

fn escalated(rule: &Rule, firing: &Firing) -> String {
    let Some(policy) = &rule.escalation else { return "escalated".into() };
    let step = policy.current(firing.steps);
    let to = step.and_then(|step| step.escalate_to.as_ref()).map_or(String::new(), |to| format!(" to {to}"));
    format!("nobody took care of it for {}: step {} of {}{to}", firing.unattended, firing.steps, policy.name)
}
