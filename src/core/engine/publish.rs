//! Publication: turns a change of an instance into a transition with its reason and evidence.

use super::Engine;
use super::freshness::lack;
use super::reason::ReasonInput;
use crate::core::alert::transition::{ChangeName, Evidence, State, Window};
use crate::core::alert::{Change, Display, Firing, Instance, Phase, StaleCause, Transition};
use crate::core::effect::Effects;
use crate::core::evaluate::Notes;
use crate::core::rule::{Rule, template};
use crate::core::view::ViewKind;
use crate::core::vocab::key::{Key, KeyId};
use crate::core::vocab::pipeline::PIPELINE;
use crate::core::vocab::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Engine {
    /// Publishes one change. `before`: the instance before the step, which describes an episode that ended.
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
        let Some(now) = self.states.rule(place).instances.get(&key).cloned() else { return };
        // A terminal change removes the firing state, so the firing state from before the step is published.
        let (Some(firing), instance) = (match now.firing() {
            Some(firing) => (Some(firing), &now),
            None => (before.firing(), before),
        }) else {
            return;
        };
        let notes = self.evidence(place, rule, key, at);
        let lacks = match change {
            Change::Stale(StaleCause::UnknownTooLong(reason)) => Some(reason),
            _ => lack(&now),
        };
        let cut = TransitionParts {
            firing,
            instance,
            value: now.value,
            no_data_since: self.no_data_since(rule, key, (lacks, &notes), at),
            is_flapping: self.is_flapping(place, key),
            notes,
            at,
        };
        let mut transition = self.transition(rule, key, change, (cut, before.firing()));
        if let Some(instance) = self.states.rule_mut(place).instances.get_mut(&key) {
            instance.count_transition(transition.change);
        }
        self.counters.transitions += 1;
        if rule.is_shadow {
            // The alert of a shadow rule is not notified, so it must not trigger actions.
            transition.actions.clear();
            out.shadows.push(transition);
        } else {
            out.transitions.push(transition);
        }
    }

    fn is_flapping(&self, place: usize, key: KeyId) -> bool {
        self.states.rule(place).flaps.get(&key).is_some_and(|flaps| flaps.is_flapping)
    }

    /// Evaluates the key again to collect evidence, which the first evaluation skips to save time.
    pub(super) fn evidence(&mut self, place: usize, rule: &Rule, key: KeyId, at: Timestamp) -> Notes {
        let notes = Notes::with_evidence();
        self.observe_rule(place, rule, key, at, notes).1
    }

    fn transition(
        &self,
        rule: &Rule,
        key: KeyId,
        change: Change,
        (cut, before): (TransitionParts<'_>, Option<&Firing>),
    ) -> Transition {
        let TransitionParts { firing, instance, no_data_since, at, .. } = cut;
        let step = rule.escalation.as_ref().and_then(|policy| policy.current(firing.steps));
        let (key, why) = (self.keys.get(key).clone(), *cut.notes.why.unwrap_or_default());
        let (level, labels) = (&rule.levels[firing.level], self.labels(rule, &key));
        let is_terminal = matches!(change, Change::Resolved | Change::Stale(_));
        let is_entered = matches!(change, Change::Firing | Change::Rise);
        let value = cut.value.is_finite().then_some(cut.value);
        let display = Display::new(value, rule.unit.as_ref(), &level.threshold, rule.limit(firing.level));
        let told = summarised(instance, firing, is_terminal);
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
            event_time: cut.notes.newest,
            no_data_since,
            ended_at: is_terminal.then_some(at),
            reason: ReasonInput { rule, firing, value, display: &display, no_data_since, at }
                .changed(change, before),
            display,
            evidence: Evidence { inputs: why.inputs, baseline: why.baseline, window: self.window(rule, at) },
            escalation_level: firing.steps as u32,
            notify: step
                .map(|step| step.notify.iter().map(|one| one.to_string()).collect())
                .unwrap_or_default(),
            escalate_to: step.and_then(|step| step.escalate_to.clone()),
            acknowledged_by: firing.ack.as_ref().map(|ack| ack.by.to_string()),
            suppressed_by: firing.suppressed.clone(),
            flapping: cut.is_flapping,
            actions: if is_entered { level.actions.clone() } else { Vec::new() },
            summary: template::render(rule, (&key, &labels), told, level.severity),
            runbook: rule.runbook.clone(),
            rule_hash: rule.hash.clone(),
            labels,
            key,
        }
    }

    /// Returns the labels of an alert besides its key: those of its rule, and the pipeline that
    /// the alert is about.
    fn labels(&self, rule: &Rule, key: &Key) -> BTreeMap<Arc<str>, Arc<str>> {
        let mut labels = rule.labels.clone();
        if let Some(pipeline) = self.pipeline_of(rule, key) {
            labels.insert(PIPELINE.into(), pipeline.clone());
        }
        labels
    }

    /// Returns the longest trailing window that the rule reads.
    pub(super) fn window(&self, rule: &Rule, at: Timestamp) -> Window {
        let views = self.views.of(&rule.views);
        let trailing = views.filter(|view| matches!(view.spec.kind, ViewKind::Trailing { .. }));
        let start = trailing.map(|view| view.oldest_start(at)).min();
        Window { start, end: start.map(|_| at) }
    }

    pub(super) fn active_alerts(&mut self) -> Vec<Transition> {
        let mut alerts = self.active_of(|rule| !rule.is_shadow);
        alerts.extend(self.active_own());
        alerts
    }

    pub(super) fn active_shadows(&mut self) -> Vec<Transition> {
        self.active_of(|rule| rule.is_shadow)
    }

    fn active_of(&mut self, is_wanted: impl Fn(&Rule) -> bool) -> Vec<Transition> {
        self.active_from(0, is_wanted, usize::MAX).0
    }

    pub(super) fn active_page(
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
        let rules = self.rules.clone();
        let (mut alerts, mut next) = (Vec::new(), None);
        for (place, rule) in rules.rules.iter().enumerate().skip(from).filter(|(_, rule)| is_wanted(rule)) {
            if alerts.len() >= max {
                next = Some(place);
                break;
            }
            let mut keys: Vec<KeyId> = self.states.rule(place).instances.keys().copied().collect();
            self.keys.sort(&mut keys);
            for key in keys {
                alerts.extend(self.view_alert(place, rule, key));
            }
        }
        (alerts, next)
    }

    pub(super) fn view_alert(&mut self, place: usize, rule: &Rule, key: KeyId) -> Option<Transition> {
        let instance = self.states.rule(place).instances.get(&key)?.clone();
        let at = instance.seen_at;
        let firing = match &instance.phase {
            Phase::Firing(firing) => firing.as_published(),
            Phase::Pending => Firing::pending(&instance),
            Phase::Inactive => return None,
        };
        let (_, notes) = self.observe_rule(place, rule, key, at, Notes::of_a_look());
        let lacks = (lack(&instance), &notes);
        let cut = TransitionParts {
            firing: &firing,
            instance: &instance,
            value: instance.value,
            // The inputs may have stopped since the alert was judged last.
            no_data_since: self.no_data_since(rule, key, lacks, self.timeline.now().max(at)),
            is_flapping: self.is_flapping(place, key),
            notes,
            at,
        };
        let mut shown = self.transition(rule, key, Change::Firing, (cut, None));
        let (value, no_data_since) = (shown.value, shown.no_data_since);
        let of = ReasonInput { rule, firing: &firing, value, display: &shown.display, no_data_since, at };
        shown.change = firing.last_change;
        shown.reason = match instance.phase {
            Phase::Pending => of.pending(&instance),
            _ => of.standing(&instance),
        };
        if instance.phase == Phase::Pending {
            (shown.state, shown.change) = (State::Pending, ChangeName::Pending);
            shown.actions.clear();
        }
        Some(shown)
    }
}

/// The parts of one transition.
struct TransitionParts<'a> {
    firing: &'a Firing,
    instance: &'a Instance,
    value: f64,
    notes: Notes,
    is_flapping: bool,
    no_data_since: Option<Timestamp>,
    at: Timestamp,
}

/// Returns the value for the summary. The author wrote the summary for an alert that fires, so an alert that
/// is no longer met uses the last value that was met.
fn summarised(instance: &Instance, firing: &Firing, is_terminal: bool) -> Option<f64> {
    let is_over = is_terminal || !(firing.is_held() || instance.unknown.is_some());
    let value = if is_over { instance.met_value } else { instance.value };
    value.is_finite().then_some(value)
}

/// Builds the id of an alert: rule, hash of the key, start of the episode.
pub(super) fn alert_id(rule: &Rule, key: &crate::core::vocab::key::Key, started_at: Timestamp) -> String {
    format!("{}:{:016x}:{}", rule.id, key.hash(), started_at.ms())
}

fn state_of(change: Change, firing: &Firing) -> State {
    match change {
        Change::Resolved => State::Resolved,
        Change::Stale(_) => State::Stale,
        _ if firing.ack.is_some() => State::Acknowledged,
        // An escalation step after the first was taken.
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
