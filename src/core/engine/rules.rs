//! Rules at a grid point: the engine observes the changed keys and steps their alerts.
//!
//! Intuition: the observation of a key does not depend on the step of any other alert. So all rules observe
//! the same few keys before the next ones, while the data of those keys is in the CPU cache. Most observations
//! change no alert, so they are dropped at once.
//! Invariant: alerts take their steps in file order and key order.
//! Rejected: each rule by itself over all keys, because each rule then fetches the same windows from memory
//! again. With seven detectors, these fetches take half of the time that is spent on a closed window.

use super::grid::Due;
use super::{Engine, Owner, RuleState};
use crate::core::alert::flap::Flaps;
use crate::core::alert::{Change, Instance, Levels, Observation, Unknown};
use crate::core::effect::Effects;
use crate::core::evaluate::lookback::CachedExtent;
use crate::core::evaluate::memos::Reader;
use crate::core::evaluate::{Evaluation, Inputs, Learned, Notes, Target, Timing, prefilter};
use crate::core::rule::ast::{Elapsed, Expr, RunSelector};
use crate::core::rule::{OnUnknown, Rule, Subject};
use crate::core::view::View;
use crate::core::vocab::key::{Key, KeyId};
use crate::core::vocab::limits::ALERTS_PER_RULE_MAX;
use crate::core::vocab::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Number of keys that all rules observe before the next ones. Seven detectors read about 18 KiB per key, so 16
/// keys need 288 KiB, which fits into 1 MiB of CPU cache.
const NEIGHBOURS: usize = 16;

/// A rule's observation of one key.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) key: KeyId,
    pub(super) observation: Observation,
    pub(super) notes: Notes,
}

impl Engine {
    /// Evaluates the rules whose inputs changed or whose timers are due, in file order and key order.
    pub(super) fn evaluate_rules(&mut self, at: Timestamp, due: &mut Due, out: &mut Effects) {
        let rules = self.rules.clone();
        let rules = &rules.rules;
        let mut keys: Vec<Vec<KeyId>> = Vec::with_capacity(rules.len());
        for (place, rule) in rules.iter().enumerate() {
            let mut due_keys = self.due_keys(Owner::Rule(place as u32), &rule.views, due);
            if rule.reads.has_runs {
                self.add_run_keys(rule, due, &mut due_keys);
            }
            keys.push(due_keys);
        }
        for (place, mut seen) in self.observe_all(rules, (&keys, due), at).into_iter().enumerate() {
            let rule = &rules[place];
            self.judge_unbelieved(place, rule, &mut seen, at);
            for one in seen {
                self.step_rule(place, rule, one, at, out);
            }
        }
    }

    /// Observes the due keys of all rules, a few neighbouring keys at a time. Returns, by rule, the
    /// observations that may have consequences.
    fn observe_all(
        &mut self,
        rules: &[Rule],
        (keys, due): (&[Vec<KeyId>], &Due),
        at: Timestamp,
    ) -> Vec<Vec<Observed>> {
        let judged: Vec<bool> = rules.iter().map(|rule| self.shared_share(rule).is_some()).collect();
        let may_be_told: Vec<bool> = rules.iter().map(prefilter::may_be_told).collect();
        let longest = keys.iter().max_by_key(|keys| keys.len()).map_or(&[][..], Vec::as_slice);
        let (mut begun, mut seen) = (vec![0; rules.len()], Vec::new());
        seen.resize_with(rules.len(), Vec::new);
        let mut neighbours = longest.chunks(NEIGHBOURS).peekable();
        while let Some(chunk) = neighbours.next() {
            self.prefetch(chunk, due);
            let bound = neighbours.peek().and_then(|next| next.first());
            for (place, rule) in rules.iter().enumerate() {
                let rest = &keys[place][begun[place]..];
                let is_before = |key: &&KeyId| bound.is_none_or(|bound| self.keys.is_before(**key, *bound));
                let some = &rest[..rest.iter().take_while(is_before).count()];
                begun[place] += some.len();
                let told = if may_be_told[place] {
                    self.without_consequence(place, rule, some, at)
                } else {
                    Vec::new()
                };
                for (n, key) in some.iter().enumerate() {
                    if told.get(n) == Some(&true) {
                        self.counters.evaluations += 1;
                        if judged[place] {
                            self.states.rule_mut(place).chances.remove(key);
                        }
                        continue;
                    }
                    let one = self.observe_key(place, rule, *key, at, Notes::default());
                    if judged[place] {
                        self.note_p_value(place, &one);
                    }
                    if self.is_of_consequence(place, rule, &one) {
                        seen[place].push(one);
                    }
                }
            }
        }
        seen
    }

    /// Prefetches what the evaluation of some keys is about to read.
    fn prefetch(&self, keys: &[KeyId], due: &Due) {
        let ask = |token, (at, view): (usize, &View)| token ^ view.prefetch(keys, due.has_changed(at));
        let of_views = self.views.all().iter().enumerate().fold(0, ask);
        std::hint::black_box(of_views ^ self.memos.prefetch(keys));
    }

    /// Returns whether an observation can change an alert or the state remembered of the key.
    fn is_of_consequence(
        &self,
        place: usize,
        rule: &Rule,
        Observed { key, observation, notes }: &Observed,
    ) -> bool {
        let state = self.states.rule(place);
        may_begin(rule, *observation) || notes.look_again.is_some() || state.remembers(*key)
    }

    /// Returns, for each key, whether its evaluation has no consequence whatever the exact value is: the rule
    /// is surely not met, and it remembers nothing of the key.
    fn without_consequence(&mut self, place: usize, rule: &Rule, keys: &[KeyId], at: Timestamp) -> Vec<bool> {
        let Some(first) = keys.first() else { return Vec::new() };
        let state = self.states.rule(place);
        let mut told: Vec<bool> = keys.iter().map(|key| !state.remembers(*key)).collect();
        // Keys with remembered state are not tested, so none of the tested keys has an active alert:
        // `is_active` is false.
        let owner = Owner::Rule(place as u32);
        let mut scope = self.scope(owner, (&rule.labels, false), *first, at, Notes::default());
        for (told, key) in told.iter_mut().zip(keys) {
            *told = *told && scope.is_surely_not_met(rule, *key);
        }
        told
    }

    /// Returns what an evaluation of one key may read, and the state of its rule or record that it
    /// may change.
    pub(super) fn scope<'a>(
        &'a mut self,
        owner: Owner,
        (labels, is_active): (&'a BTreeMap<Arc<str>, Arc<str>>, bool),
        key: KeyId,
        at: Timestamp,
        notes: Notes,
    ) -> Evaluation<'a> {
        let (reader, shares, baseline_freeze) = match owner {
            Owner::Rule(place) => {
                let state = self.states.rule_mut(place as usize);
                (Reader::Rule(place), &mut state.shares, &mut state.baseline_freeze)
            }
            Owner::Record(place) => {
                let state = self.states.record_mut(place as usize);
                (Reader::Record(place), &mut state.shares, &mut state.baseline_freeze)
            }
        };
        let (views, pipeline_records) = self.views.lent_to_evaluation();
        let (interruptions, gaps) = (self.timeline.interruptions(), self.timeline.gaps());
        let (runs, keys, mutes) = (&self.runs, &self.keys, &self.mutes);
        Evaluation {
            inputs: Inputs { views, runs, keys, interruptions, gaps, mutes, pipeline_records },
            learned: Learned { reader, memos: &mut self.memos, shares, baseline_freeze },
            target: Target { labels, is_active, key, at },
            timing: Timing {
                allowed_lateness: self.limits.allowed_lateness,
                grace: self.limits.grace,
                interval: self.limits.evaluation_interval,
            },
            notes,
            reach: CachedExtent::default(),
        }
    }

    /// Observes a key that is due. A suspended rule gives `Unknown::Suspended`.
    pub(super) fn observe_key(
        &mut self,
        place: usize,
        rule: &Rule,
        key: KeyId,
        at: Timestamp,
        notes: Notes,
    ) -> Observed {
        self.counters.evaluations += 1;
        let (observation, notes) = match self.is_suspended(rule, key) {
            true => (Observation::Unknown(Unknown::Suspended), Notes::default()),
            false => self.observe_rule(place, rule, key, at, notes),
        };
        Observed { key, observation, notes }
    }

    fn step_rule(
        &mut self,
        place: usize,
        rule: &Rule,
        Observed { key, observation, notes }: Observed,
        at: Timestamp,
        out: &mut Effects,
    ) {
        self.note_flaps(place, key, observation, at);
        let state = self.states.rule_mut(place);
        if !state.instances.contains_key(&key) && !may_begin(rule, observation) {
            if notes.look_again.is_some() || state.timer(key).is_some() {
                self.set_timer(Owner::Rule(place as u32), key, notes.look_again);
            }
            return;
        }
        let instance = state.instances.entry(key).or_insert_with(|| Instance::new(at));
        let before = instance.clone();
        let counted = self.timeline.interruptions().counted(instance.seen_at, at);
        let mut stepped = instance.step(rule, observation, at, counted);
        if stepped.changes.first() == Some(&Change::Firing) && is_full(state) {
            state.instances.insert(key, before.clone());
            self.counters.alerts_capped += 1;
            stepped.changes.clear();
            state.capped.insert(key);
            let rest = state.capped.len();
            self.tell_capped(&rule.id, rest, out);
        } else {
            state.capped.remove(&key);
        }
        self.teach(place, key, &before, at);
        for change in &stepped.changes {
            self.publish(place, rule, key, *change, &before, at, out);
        }
        if let Some(late) = stepped.overdue {
            self.tell_overdue(&rule.id, late, out);
        }
        let falls_silent = self.falls_silent(place, rule, key, &notes, at);
        let look_again = [stepped.look_again, notes.look_again, falls_silent].into_iter().flatten().min();
        let state = self.states.rule_mut(place);
        if state.instances.get(&key).is_some_and(|instance| instance.is_over(at)) {
            state.instances.remove(&key);
        }
        if observation == Observation::Gone {
            state.forget(key);
        }
        self.set_timer(Owner::Rule(place as u32), key, look_again);
    }

    /// Updates the flap history of a key, which begins when the key is first met and ends when none of the
    /// remembered minutes was met.
    fn note_flaps(&mut self, place: usize, key: KeyId, observation: Observation, at: Timestamp) {
        let flaps = &mut self.states.rule_mut(place).flaps;
        let is_met = match observation {
            Observation::Known { met, .. } => met != Levels::NONE,
            // An unknown value leaves the previous observation in force.
            Observation::Unknown(_) => return,
            Observation::Gone => {
                flaps.remove(&key);
                return;
            }
        };
        if !is_met && !flaps.contains_key(&key) {
            return;
        }
        let known = flaps.entry(key).or_insert_with(|| Flaps::new(at));
        known.observe(is_met, at);
        if known.is_over() {
            flaps.remove(&key);
        }
    }

    /// Excludes the time in which a key is pending or firing from its baseline. If the alert never fired, the
    /// time was normal after all and is not excluded.
    fn teach(&mut self, place: usize, key: KeyId, before: &Instance, at: Timestamp) {
        let state = self.states.rule_mut(place);
        let started_at = |instance: &Instance| instance.is_active().then_some(instance.started_at);
        let now = state.instances.get(&key).and_then(started_at);
        match (started_at(before), now) {
            (None, Some(started_at)) => state.baseline_freeze.begin(key, started_at),
            (Some(_), None) => state.baseline_freeze.end(key, before.firing().is_some().then_some(at)),
            _ => {}
        }
    }

    /// Judges one key. With `notes.why` set, it also collects the evidence.
    pub(super) fn observe_rule(
        &mut self,
        place: usize,
        rule: &Rule,
        key: KeyId,
        at: Timestamp,
        notes: Notes,
    ) -> (Observation, Notes) {
        if !self.is_known(rule, key) {
            return (Observation::Gone, notes);
        }
        let is_active = self.states.rule(place).instances.get(&key).is_some_and(Instance::is_active);
        let mut scope = self.scope(Owner::Rule(place as u32), (&rule.labels, is_active), key, at, notes);
        let observation = scope.observe(rule);
        (observation, scope.notes)
    }

    /// Returns whether a key is known to a rule: at least one operand has it.
    fn is_known(&self, rule: &Rule, key: KeyId) -> bool {
        rule.reads.has_runs || self.views.have(&rule.views, key)
    }

    /// Adds the keys that the rule's run functions read of the pipelines with new events.
    fn add_run_keys(&mut self, rule: &Rule, due: &Due, keys: &mut Vec<KeyId>) {
        let before = keys.len();
        for selector in run_selectors(rule) {
            for pipeline in due.pipelines.keys() {
                for key in self.run_keys(selector, pipeline) {
                    keys.push(self.keys.intern(key));
                }
            }
        }
        if keys.len() > before {
            self.keys.sort(keys);
            keys.dedup();
        }
    }

    fn run_keys(&self, selector: &RunSelector, pipeline: &Arc<str>) -> Vec<Key> {
        let Some(found) = self.runs.get(pipeline) else { return Vec::new() };
        let is_match = |stage: Option<&str>| {
            selector.matchers.is_match_labels(|label| match label {
                "pipeline" => Some(pipeline),
                "stage" => stage,
                _ => None,
            })
        };
        let whole = ("pipeline".into(), pipeline.clone());
        if !selector.has_stage {
            return if is_match(None) { vec![Key::new(vec![whole])] } else { Vec::new() };
        }
        let stages = found.stage_names().filter(|stage| is_match(Some(stage)));
        stages.map(|stage| Key::new(vec![whole.clone(), ("stage".into(), stage.clone())])).collect()
    }

    /// Returns the run keys of a rule that were seen before. The query adds no new keys to the key table.
    pub(super) fn known_run_keys(&self, rule: &Rule) -> Vec<KeyId> {
        let selectors = run_selectors(rule).into_iter();
        let keys = selectors
            .flat_map(|selector| self.runs.iter().flat_map(|(name, _)| self.run_keys(selector, name)));
        keys.filter_map(|key| self.keys.find(&key)).collect()
    }

    /// Returns all keys that the run functions of a rule read now.
    pub(super) fn all_run_keys(&mut self, rule: &Rule) -> Vec<KeyId> {
        let due = Due::of_pipelines(self.runs.iter().map(|(name, _)| name.clone()));
        let mut keys = Vec::new();
        self.add_run_keys(rule, &due, &mut keys);
        keys
    }
}

/// Returns whether a rule has more alerts than it may have, the one that just fired included.
fn is_full(state: &RuleState) -> bool {
    let firing = state.instances.values().filter(|instance| instance.firing().is_some());
    firing.count() > ALERTS_PER_RULE_MAX
}

/// Whether an observation can open an episode.
fn may_begin(rule: &Rule, observation: Observation) -> bool {
    match observation {
        Observation::Known { met, .. } => met != Levels::NONE,
        Observation::Unknown(_) => rule.on_unknown == OnUnknown::Fire,
        Observation::Gone => false,
    }
}

/// Returns the selectors of a rule's run functions, each once.
pub(super) fn run_selectors(rule: &Rule) -> Vec<&RunSelector> {
    let mut parts: Vec<&Expr> = Vec::new();
    match &rule.subject {
        Subject::Value(expr) => expr.for_each(&mut |part| parts.push(part)),
        Subject::Condition(cond) => cond.for_each(&mut |part| parts.push(part)),
    }
    let mut found: Vec<&RunSelector> = Vec::new();
    for part in parts {
        let (Expr::Elapsed(Elapsed::Idle(selector) | Elapsed::Age(selector)) | Expr::InFlight(selector)) =
            part
        else {
            continue;
        };
        if !found.contains(&selector) {
            found.push(selector);
        }
    }
    found
}
