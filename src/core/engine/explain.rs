//! Explanations: why an alert fires or not, what a rule observes of a key, and what suppresses the alert.
//!
//! Invariant: an explanation changes no state. It evaluates the rule as of the newest grid point.
//! Rejected: keeping the evidence of every evaluation, because a thousand rules over a hundred thousand keys
//! would be stored for the one pair that an operator asks about.

use super::Engine;
use super::suppress::label;
use crate::core::alert::transition::{Baseline, Input, Window, rfc3339};
use crate::core::alert::{Display, Instance, Observation, Phase, Transition};
use crate::core::evaluate::Notes;
use crate::core::mute::Suppressed;
use crate::core::rule::Rule;
use crate::core::view::View;
use crate::core::vocab::key::{Key, KeyId};
use crate::core::vocab::severity::Severity;
use crate::core::vocab::time::{Span, Timestamp};
use serde::Serialize;
use std::sync::Arc;

/// A rule's keys are counted exactly up to this number; collecting more would block the engine for too long.
const KEYS_COUNTED: usize = 1_000;

/// Number of known keys that the error names if the requested key is unknown.
const KEYS_NAMED: usize = 20;

/// The explanation of one rule and one key.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    pub rule: Arc<str>,
    pub key: Key,
    #[serde(with = "rfc3339")]
    pub at: Timestamp,
    pub verdict: Verdict,
    /// The reasons in words, the most important first.
    pub because: Vec<String>,
    pub expr: Arc<str>,
    pub value: Option<f64>,
    pub unit: Option<String>,
    pub levels: Vec<LevelShown>,
    pub inputs: Vec<Input>,
    pub baseline: Baseline,
    pub window: Window,
    /// Everything that suppresses the alert's notification, or would suppress it if the alert fired.
    pub suppressed_by: Vec<Suppressed>,
    /// The alert as the list of active alerts shows it.
    pub alert: Option<Transition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Firing,
    Pending,
    /// The condition is met, but the cooldown of an ended episode is not over.
    Cooling,
    /// The condition is met, but the rule has too many alerts.
    Capped,
    NotMet,
    Unknown,
}

/// One level, whether it is met, for how long it has been met, and for how long it must be met.
#[derive(Debug, Clone, Serialize)]
pub struct LevelShown {
    pub severity: Severity,
    pub condition: Arc<str>,
    pub is_met: bool,
    pub met_for: String,
    pub needs: String,
}

/// The error of an explanation that is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    #[error("there is no rule `{0}` here; `rules list` names them")]
    NoRule(String),
    #[error("rule `{rule}` has seen no such key; it has seen {known}")]
    NoKey { rule: String, known: String },
}

impl Engine {
    pub(super) fn explain(&mut self, rule: &str, key: &Key) -> Result<Explanation, Unexplained> {
        let rules = self.rules.clone();
        let place = rules.rules.iter().position(|known| *known.id == *rule);
        match place {
            Some(place) => self.explain_rule(place, &rules.rules[place], key),
            None => Err(Unexplained::NoRule(rule.into())),
        }
    }

    fn explain_rule(&mut self, place: usize, rule: &Rule, key: &Key) -> Result<Explanation, Unexplained> {
        let known = self.keys_of(place, rule);
        let found = self.keys.find(key).filter(|id| known.contains(id));
        let Some(id) = found else {
            return Err(Unexplained::NoKey { rule: rule.id.to_string(), known: self.named(&known) });
        };
        let at = self.timeline.now().floor(self.timeline.interval());
        let (observation, notes) = self.observe_rule(place, rule, id, at, Notes::of_a_look());
        let state = self.states.rule(place);
        let (instance, is_capped) = (state.instances.get(&id).cloned(), state.capped.contains(&id));
        let alert = self.view_alert(place, rule, id);
        let severity = alert.as_ref().map_or(rule.levels[0].severity, |alert| alert.severity);
        let pipeline = self.pipeline_of(rule, key);
        let of_alert = |name: &str| label((rule, key, pipeline), severity, name);
        let causes = self.mutes.causes(at, &of_alert).chain(alert.as_ref().and_then(inhibition));
        let suppressed_by: Vec<Suppressed> = causes.collect();
        let seen = Explained { rule, instance: instance.as_ref(), observation, is_capped, at };
        let is_suspended = self.is_suspended(rule, id);
        let mut because = seen.because(is_suspended, &notes, &suppressed_by);
        because.extend(alert.as_ref().and_then(Transition::silence));
        let why = *notes.why.unwrap_or_default();
        Ok(Explanation {
            rule: rule.id.clone(),
            key: key.clone(),
            at,
            verdict: if is_suspended { Verdict::Unknown } else { seen.verdict() },
            because,
            expr: rule.text.clone(),
            value: seen.value(),
            unit: rule.unit.as_ref().map(ToString::to_string),
            levels: seen.levels(),
            inputs: why.inputs,
            baseline: why.baseline,
            window: self.window(rule, at),
            suppressed_by,
            alert,
        })
    }

    /// Returns how many keys each rule has seen, in the order of the rules. If a view has more than
    /// `KEYS_COUNTED` keys, the count is that of the rule's largest view.
    pub fn keys_seen(&self) -> Vec<usize> {
        let rules = self.rules.rules.iter().enumerate();
        let count = |(place, rule): (usize, &Rule)| {
            let of_views = self.views.of(&rule.views).map(View::len);
            let most = of_views.max().unwrap_or(0);
            if most > KEYS_COUNTED { most } else { self.keys_of(place, rule).len() }
        };
        rules.map(count).collect()
    }

    /// Returns the keys that a rule has seen, in key order.
    fn keys_of(&self, place: usize, rule: &Rule) -> Vec<KeyId> {
        let views = self.views.of(&rule.views);
        let of_views = views.filter(|view| !view.spec.per_version).flat_map(|view| view.keys());
        let of_alerts = self.states.rule(place).instances.keys().copied();
        let of_timers = self.states.rule(place).timed_keys();
        let mut keys: Vec<KeyId> = of_views.chain(of_alerts).chain(of_timers).collect();
        if rule.reads.has_runs {
            keys.extend(self.known_run_keys(rule));
        }
        self.keys.sort(&mut keys);
        keys.dedup();
        keys
    }

    fn named(&self, keys: &[KeyId]) -> String {
        let name = |id: &KeyId| serde_json::to_string(&**self.keys.get(*id)).unwrap_or_default();
        let names: Vec<String> = keys.iter().take(KEYS_NAMED).map(name).collect();
        match keys.len() {
            0 => "none yet: does its selector match any series?".into(),
            all if all > KEYS_NAMED => format!("{} and {} more", names.join(" "), all - KEYS_NAMED),
            _ => names.join(" "),
        }
    }
}

fn inhibition(alert: &Transition) -> Option<Suppressed> {
    alert.suppressed_by.clone().filter(|cause| cause.kind == "inhibition")
}

/// The observation and the alert instance of one rule and key.
struct Explained<'a> {
    rule: &'a Rule,
    instance: Option<&'a Instance>,
    observation: Observation,
    is_capped: bool,
    at: Timestamp,
}

impl Explained<'_> {
    fn verdict(&self) -> Verdict {
        let is_met = matches!(self.observation, Observation::Known { met, .. } if !met.is_empty());
        match self.instance.map(|instance| &instance.phase) {
            Some(Phase::Firing(_)) => Verdict::Firing,
            _ if is_met && self.is_capped => Verdict::Capped,
            _ if is_met && self.cooling().is_some() => Verdict::Cooling,
            Some(Phase::Pending) => Verdict::Pending,
            _ if matches!(self.observation, Observation::Unknown(_) | Observation::Gone) => Verdict::Unknown,
            _ => Verdict::NotMet,
        }
    }

    fn cooling(&self) -> Option<Timestamp> {
        self.instance.and_then(|instance| instance.cooldown_until).filter(|until| *until > self.at)
    }

    fn value(&self) -> Option<f64> {
        match self.observation {
            Observation::Known { value, .. } => Some(value).filter(|value| value.is_finite()),
            _ => None,
        }
    }

    fn levels(&self) -> Vec<LevelShown> {
        let met = |at: usize| matches!(self.observation, Observation::Known { met, .. } if met.has(at));
        let met_for = |at: usize| match self.instance {
            Some(instance) if instance.is_active() => instance.met_for(at, self.at),
            _ => Span::ZERO,
        };
        let levels = self.rule.levels.iter().enumerate();
        levels
            .map(|(at, level)| LevelShown {
                severity: level.severity,
                condition: level.threshold.clone(),
                is_met: met(at),
                met_for: met_for(at).to_string(),
                needs: level.pending_for.to_string(),
            })
            .collect()
    }

    fn because(&self, is_suspended: bool, notes: &Notes, suppressed_by: &[Suppressed]) -> Vec<String> {
        let mut lines = Vec::new();
        if is_suspended {
            lines.push("maintenance with `mode: suspend` is in force: the rule is not judged".into());
        }
        lines.extend(self.observed(notes));
        lines.extend(self.waiting());
        for cause in suppressed_by {
            lines.push(format!("{} {} suppresses its notifications", cause.kind, cause.id));
        }
        lines
    }

    /// Describes the result of the expression, or why it is unknown.
    fn observed(&self, notes: &Notes) -> Vec<String> {
        let unknown_inputs = || {
            let inputs = notes.why.iter().flat_map(|why| &why.inputs);
            inputs
                .filter_map(|input| Some(format!("{} is unknown: {}", input.input, input.unknown.as_ref()?)))
        };
        match self.observation {
            Observation::Gone => vec!["the value is unknown: its series or run is forgotten".into()],
            Observation::Unknown(reason) => {
                let counted = notes.count_max.map_or(String::new(), |count| {
                    format!(" ({count} observations, min_count is {})", self.rule.min_count)
                });
                let first = format!("the value is unknown: {}{counted}", reason.name());
                [first].into_iter().chain(unknown_inputs()).collect()
            }
            Observation::Known { met, .. } => {
                (0..self.rule.levels.len()).map(|level| self.compared(level, met.has(level))).collect()
            }
        }
    }

    /// Describes whether a level is met. The text shows the value and its threshold if comparing them gives the
    /// same answer, else the whole expression.
    fn compared(&self, at: usize, is_met: bool) -> String {
        let (rule, level) = (self.rule, &self.rule.levels[at]);
        let display = Display::new(self.value(), rule.unit.as_ref(), &level.threshold, rule.limit(at));
        let (is, severity) = (if is_met { "is" } else { "is not" }, level.severity.name());
        match display.holds().is_none_or(|holds| holds == is_met) && display.is_known() {
            true => format!("{} {is} {} ({severity})", display.value, display.threshold),
            false => format!("`{}` {is} met ({severity}); the value is {}", rule.text, display.value),
        }
    }

    /// Describes what the alert waits for, and since when it is pending or firing.
    fn waiting(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(until) = self.cooling() {
            lines.push(format!("no new alert of this key until {until}: cooldown"));
        }
        if self.is_capped {
            lines.push("the rule has reached its limit of alerts, so no new alert opens".into());
        }
        match self.instance {
            Some(instance) if instance.phase == Phase::Pending => {
                lines.push(format!("pending since {}", instance.started_at));
            }
            Some(instance) if instance.is_active() => {
                lines.push(format!("firing; the episode began at {}", instance.started_at));
            }
            _ => {}
        }
        lines
    }
}
