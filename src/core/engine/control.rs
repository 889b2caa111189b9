//! Control records: rule sets and the decisions of operators, applied at their place in the log.

use super::records::RecordState;
use super::{Engine, Owner, RuleState, States};
use crate::core::alert::Change;
use crate::core::effect::Effects;
use crate::core::evaluate::Notes;
use crate::core::record::{Ack, Control};
use crate::core::rule::{Rule, RuleSet};
use crate::core::vocab::key::KeyId;
use crate::core::vocab::severity::Severity;
use crate::core::vocab::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Engine {
    pub(super) fn control(&mut self, control: &Control, out: &mut Effects) {
        self.timeline.wake();
        match control {
            Control::Rules(rules) => self.load(RuleSet::clone(rules), out),
            Control::Ack(ack) => self.acknowledge(ack, out),
            Control::Unack { alert, .. } => {
                let now = self.timeline.now();
                self.change_alert(alert, out, |instance| instance.unacknowledge(now));
            }
            Control::Silence(silence) => self.mutes.add_silence(silence.clone()),
            Control::Unsilence { id, .. } => self.mutes.end_silence(id),
            Control::Maintenance(maintenance) => self.mutes.add_maintenance(maintenance.clone()),
            Control::EndMaintenance { id, .. } => self.mutes.end_maintenance(id),
        }
    }

    fn acknowledge(&mut self, ack: &Ack, out: &mut Effects) {
        let (until, now) = (ack.until, self.timeline.now());
        let found = self.find_alert(&ack.alert);
        if let (true, Some((place, key))) = (ack.accept, found) {
            let since = self.began_at(place, key).unwrap_or(now);
            self.states.rule_mut(place).baseline_freeze.accept(key, since);
        }
        self.change_alert(&ack.alert, out, |instance| instance.acknowledge(&ack.by, &ack.why, until, now));
        // An acknowledgement with an end needs a timer for that end; an earlier timer stays.
        if let (Some(until), Some((place, key))) = (until, found) {
            let due = self.states.rule(place).timer(key).map_or(until, |due| until.min(due));
            self.set_timer(Owner::Rule(place as u32), key, Some(due));
        }
    }

    /// Returns when the change that an alert reports began: its onset if that is known and earlier, else the
    /// start of the episode.
    fn began_at(&mut self, place: usize, key: KeyId) -> Option<Timestamp> {
        let started_at = self.states.rule(place).instances.get(&key)?.started_at;
        let rules = self.rules.clone();
        let notes =
            self.observe_rule(place, &rules.rules[place], key, self.timeline.now(), Notes::of_a_look()).1;
        Some(notes.why.and_then(|why| why.baseline.onset).map_or(started_at, |onset| onset.min(started_at)))
    }

    /// Applies an operator's change to the alert with this id, if it is active, and publishes it.
    fn change_alert(
        &mut self,
        id: &str,
        out: &mut Effects,
        change: impl FnOnce(&mut crate::core::alert::Instance) -> Option<Change>,
    ) {
        let Some((place, key)) = self.find_alert(id) else { return };
        let Some(instance) = self.states.rule_mut(place).instances.get_mut(&key) else { return };
        let before = instance.clone();
        let Some(change) = change(instance) else { return };
        let rules = self.rules.clone();
        self.publish(place, &rules.rules[place], key, change, &before, self.timeline.now(), out);
    }

    fn find_alert(&self, id: &str) -> Option<(usize, KeyId)> {
        let rules = self.rules.rules.iter().enumerate();
        rules.filter(|(_, rule)| id.starts_with(&*rule.id)).find_map(|(place, rule)| {
            let found = self.states.rule(place).instances.iter().find(|(key, instance)| {
                super::publish::alert_id(rule, self.keys.get(**key), instance.started_at) == id
            });
            found.map(|(key, _)| (place, *key))
        })
    }

    /// Puts a rule set in force. Rules with the same id and expression keep their state, and views that are
    /// still read keep their panes. Alerts of removed or changed rules, and of removed levels, become stale.
    pub fn load(&mut self, rules: RuleSet, out: &mut Effects) {
        self.measures
            .series_mut()
            .specify(rules.metrics.iter().map(|(name, spec)| (name.clone(), spec.clone())));
        let states = self.carry_rule_states(&rules, out);
        let records = self.carry_record_states(&rules);
        let new = self.views.load(&rules, &self.limits, self.timeline.when());
        self.memos.clear();
        (self.rules, self.states) = (Arc::new(rules), States::new(states, records));
        self.runs.declare(&self.rules.pipelines);
        self.resubscribe();
        self.views.begin_following(&new, self.timeline.now());
        self.mutes.look_again();
        self.look_at_runs();
        if self.timeline.has_begun() {
            self.declare_series();
        }
    }

    fn carry_rule_states(&mut self, next: &RuleSet, out: &mut Effects) -> Vec<RuleState> {
        let rules = self.rules.clone();
        let mut kept: BTreeMap<Arc<str>, RuleState> = BTreeMap::new();
        let next_by_id: BTreeMap<&str, &Rule> =
            next.rules.iter().rev().map(|rule| (&*rule.id, rule)).collect();
        for (place, rule) in rules.rules.iter().enumerate() {
            let same = next_by_id.get(&*rule.id).filter(|other| other.text == rule.text);
            let levels = same.map(|same| (severities(rule), severities(same)));
            let turns = same.is_some_and(|same| same.is_shadow != rule.is_shadow);
            if turns || levels.as_ref().is_none_or(|(before, after)| before != after) {
                self.end_alerts(place, rule, (levels.as_ref(), turns), out);
            }
            if same.is_some() {
                kept.insert(rule.id.clone(), self.states.take_rule(place));
            }
        }
        next.rules.iter().map(|rule| kept.remove(&rule.id).unwrap_or_default()).collect()
    }

    /// Ends the alerts of a rule that was removed or whose expression changed. If `levels` is given (the
    /// severities before and after the change), only alerts at a removed level end. If `turns` is true (the rule
    /// becomes a shadow rule or stops being one), all firing alerts end, too, because an episode is published as
    /// a whole or not at all.
    fn end_alerts(
        &mut self,
        place: usize,
        rule: &Rule,
        (levels, turns): (Option<&(Vec<Severity>, Vec<Severity>)>, bool),
        out: &mut Effects,
    ) {
        let now = self.timeline.now();
        let mut keys: Vec<KeyId> = self.states.rule(place).instances.keys().copied().collect();
        self.keys.sort(&mut keys);
        for key in keys {
            let Some(instance) = self.states.rule_mut(place).instances.get_mut(&key) else { continue };
            let is_ended = turns && instance.firing().is_some();
            if levels.is_some_and(|(before, after)| !is_ended && instance.relevel(before, after)) {
                continue;
            }
            let before = instance.clone();
            if let Some(change) = instance.end_by_rule() {
                self.publish(place, rule, key, change, &before, now, out);
            }
            // The rule may stay with other levels or as a shadow rule, so a timer makes it judge the key again.
            let state = self.states.rule_mut(place);
            state.baseline_freeze.end(key, before.firing().is_some().then_some(now));
            state.prepare_timer(key, now);
        }
    }

    fn carry_record_states(&mut self, next: &RuleSet) -> Vec<RecordState> {
        let mut states = self.states.take_records();
        let by_name: BTreeMap<&str, usize> =
            self.rules.records.iter().enumerate().rev().map(|(at, record)| (&*record.name, at)).collect();
        let carry = |record: &crate::core::rule::RecordSpec| {
            let same = by_name.get(&*record.name);
            same.map(|at| std::mem::take(&mut states[*at])).unwrap_or_default()
        };
        next.records.iter().map(carry).collect()
    }

    /// Sets timers, so that rules over runs judge the runs in flight at the next grid point.
    fn look_at_runs(&mut self) {
        let rules = self.rules.clone();
        for (place, rule) in rules.rules.iter().enumerate().filter(|(_, rule)| rule.reads.has_runs) {
            for key in self.all_run_keys(rule) {
                if self.states.rule(place).timer(key).is_none() {
                    self.set_timer(Owner::Rule(place as u32), key, Some(self.timeline.now()));
                }
            }
        }
        self.timeline.wake();
    }
}

fn severities(rule: &Rule) -> Vec<Severity> {
    rule.levels.iter().map(|level| level.severity).collect()
}
