//! Expectations of a test: the state of single alerts at a time, or all transitions of the named rules.

use super::{Known, START};
use crate::core::Timestamp;
use crate::core::alert::Transition;
use crate::core::alert::self_alerts::is_own;
use crate::core::alert::transition::{ChangeName, State};
use crate::core::vocab::severity::Severity;
use crate::pipeline::diagnostic::nearest;
use crate::pipeline::tree::File;
use crate::pipeline::yaml::Node;
use std::collections::{BTreeMap, BTreeSet};

/// The expected state of a rule's alerts at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    pub line: usize,
    pub at: Timestamp,
    pub rule: String,
    /// Labels that the key of the alert must have.
    pub key: BTreeMap<String, String>,
    /// `None`: the rule must have no active alert with these labels.
    pub wanted: Option<Expected>,
}

/// The expected fields of an alert; a field that is `None` may have any value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expected {
    pub state: Option<ExpectedState>,
    pub severity: Option<Severity>,
    pub suppressed_by: Option<Mute>,
    pub escalation_level: Option<u32>,
    pub notify: Option<Vec<String>>,
    pub acknowledged_by: Option<String>,
    pub flapping: Option<bool>,
    pub summary: Option<String>,
}

/// The expected state of an alert. `Firing` includes the acknowledged and escalated states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedState {
    Pending,
    Firing,
    Acknowledged,
    Escalated,
}

impl ExpectedState {
    fn name(self) -> &'static str {
        match self {
            ExpectedState::Pending => "pending",
            ExpectedState::Firing => "firing",
            ExpectedState::Acknowledged => "acknowledged",
            ExpectedState::Escalated => "escalated",
        }
    }
}

/// The expected suppression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mute {
    Nothing,
    /// The kind or the id of the suppressor.
    By(String),
}

const KEYS: [&str; 11] = [
    "at",
    "rule",
    "key",
    "state",
    "severity",
    "suppressed_by",
    "escalation_level",
    "notify",
    "acknowledged_by",
    "flapping",
    "summary",
];

/// Reads one entry of `expect:`.
pub(super) fn read(file: &File<'_>, node: &Node, rules: &Known<'_>) -> Option<Expectation> {
    let fields: BTreeMap<&str, &Node> =
        file.map(node, &KEYS).into_iter().map(|(key, value)| (key.text.as_str(), value)).collect();
    let text = |name: &str| fields.get(name).and_then(|node| file.text(node));
    let (Some(at), Some(rule)) = (fields.get("at").and_then(|node| file.span(node)), text("rule")) else {
        file.error(node.at, "an expectation needs `at` and `rule`", None);
        return None;
    };
    let known = rules.0.get(rule.as_str());
    if known.is_none() && !is_own(rule.as_str()) {
        let near = if file.is_full() { None } else { nearest(&rule, rules.0.keys().copied()) };
        let hint = near.map(|near| format!("did you mean `{near}`?"));
        file.error(fields["rule"].at, format!("there is no rule `{rule}`"), hint);
    }
    let mut key = BTreeMap::new();
    for (label, value) in fields.get("key").map(|node| file.names(node)).unwrap_or_default() {
        if let Some(Some(labels)) = known.filter(|labels| !has(labels, &label.text)) {
            // No alert can have such a key, so `state: none` would always pass.
            let near = nearest(&label.text, labels.iter().copied());
            let hint = near.map_or_else(|| shown(labels), |near| format!("did you mean `{near}`?"));
            file.error(
                label.at,
                format!("no alert of `{rule}` has a label `{}` in its key", label.text),
                Some(hint),
            );
        }
        key.insert(label.text.clone(), file.text(value)?);
    }
    let (at, line) = (START + at, node.at.line);
    Some(Expectation { line, at, rule, key, wanted: wanted(file, &fields)? })
}

fn has(labels: &Option<BTreeSet<&str>>, label: &str) -> bool {
    labels.as_ref().is_none_or(|labels| labels.contains(label))
}

fn shown(labels: &BTreeSet<&str>) -> String {
    match labels.is_empty() {
        true => "it has one key without labels: leave `key` out".into(),
        false => format!("it has {}", labels.iter().copied().collect::<Vec<_>>().join(", ")),
    }
}

fn wanted(file: &File<'_>, fields: &BTreeMap<&str, &Node>) -> Option<Option<Expected>> {
    let text = |name: &str| fields.get(name).and_then(|node| file.text(node));
    let state = match text("state").as_deref() {
        Some("none" | "inactive" | "resolved") => return Some(None),
        None => None,
        Some("pending") => Some(ExpectedState::Pending),
        Some("firing") => Some(ExpectedState::Firing),
        Some("acknowledged") => Some(ExpectedState::Acknowledged),
        Some("escalated") => Some(ExpectedState::Escalated),
        Some(other) => {
            let hint = "firing, pending, acknowledged, escalated or none";
            file.error(fields["state"].at, format!("`{other}` is no state"), Some(hint.into()));
            return None;
        }
    };
    let severity = text("severity").map(|name| (Severity::from_name(&name), name));
    if let Some((None, name)) = &severity {
        let hint = "info, warning or critical";
        file.error(fields["severity"].at, format!("`{name}` is no severity"), Some(hint.into()));
    }
    let mute = text("suppressed_by").map(|by| if by == "none" { Mute::Nothing } else { Mute::By(by) });
    Some(Some(Expected {
        state,
        severity: severity.and_then(|(severity, _)| severity),
        suppressed_by: mute,
        escalation_level: fields
            .get("escalation_level")
            .and_then(|node| file.whole(node))
            .map(|level| level as u32),
        notify: fields.get("notify").map(|node| file.texts(node)),
        acknowledged_by: text("acknowledged_by"),
        flapping: fields.get("flapping").and_then(|node| file.flag(node)),
        summary: text("summary"),
    }))
}

impl Expectation {
    /// Whether an alert belongs to the rule and has the expected labels.
    pub fn is_about(&self, alert: &Transition) -> bool {
        *alert.rule == *self.rule && alert.key.has_all(&self.key)
    }

    /// Returns a description of the differences, given the active alerts; `None` if the expectation is met.
    pub fn compare(&self, alerts: &[Transition]) -> Option<String> {
        let found: Vec<&Transition> = alerts.iter().filter(|alert| self.is_about(alert)).collect();
        let is_as_expected = match &self.wanted {
            None => found.is_empty(),
            Some(wanted) => found.iter().any(|alert| wanted.differences(alert).is_empty()),
        };
        if is_as_expected {
            return None;
        }
        let at = self.at - START;
        let wanted = self.wanted.as_ref().map_or("no alert".to_string(), Expected::words);
        let mut text = format!("line {}: at {at} rule {}: expected {wanted}", self.line, self.rule);
        match found.as_slice() {
            [] => text.push_str(", found no alert"),
            found => {
                for alert in found {
                    let differing = self.wanted.as_ref().map(|wanted| wanted.differences(alert));
                    let differing = differing.filter(|all| !all.is_empty()).map(|all| all.join(", "));
                    let differing = differing.map_or(String::new(), |all| format!("  ({all})"));
                    text = format!("{text}\n        found {}{differing}", active(alert));
                }
            }
        }
        Some(text)
    }
}

impl Expected {
    fn words(&self) -> String {
        let state = self.state.map_or("an alert", ExpectedState::name);
        let severity = self.severity.map_or(String::new(), |severity| format!(" {}", severity.name()));
        format!("{state}{severity}")
    }

    /// Returns the differing fields, each with its name, the expected and the found value.
    fn differences(&self, alert: &Transition) -> Vec<String> {
        let mut all = Vec::new();
        let mut differ = |name: &str, is_same: bool, wanted: String, found: String| {
            if !is_same {
                all.push(format!("{name}: expected {wanted}, found {found}"));
            }
        };
        if let Some(state) = self.state {
            let is_same = match state {
                ExpectedState::Pending => alert.state == State::Pending,
                ExpectedState::Firing => alert.is_active(),
                ExpectedState::Acknowledged => alert.state == State::Acknowledged,
                ExpectedState::Escalated => alert.state == State::Escalated,
            };
            differ("state", is_same, state.name().into(), state_name(alert).into());
        }
        if let Some(severity) = self.severity {
            let found = alert.severity;
            differ("severity", severity == found, severity.name().into(), found.name().into());
        }
        if let Some(mute) = &self.suppressed_by {
            let found = alert.suppressed_by.as_ref();
            let shown = found.map_or("nothing".to_string(), |by| format!("{} {}", by.kind, by.id));
            match mute {
                Mute::Nothing => differ("suppressed_by", found.is_none(), "nothing".into(), shown),
                Mute::By(by) => {
                    let is_same = found.is_some_and(|found| found.kind == *by || found.id == *by);
                    differ("suppressed_by", is_same, by.clone(), shown);
                }
            }
        }
        if let Some(level) = self.escalation_level {
            let found = alert.escalation_level;
            differ("escalation_level", level == found, level.to_string(), found.to_string());
        }
        if let Some(notify) = &self.notify {
            differ("notify", *notify == alert.notify, notify.join(" "), alert.notify.join(" "));
        }
        if let Some(by) = &self.acknowledged_by {
            let found = alert.acknowledged_by.clone().unwrap_or_else(|| "nobody".into());
            differ("acknowledged_by", *by == found, by.clone(), found);
        }
        if let Some(flapping) = self.flapping {
            let found = alert.flapping;
            differ("flapping", flapping == found, flapping.to_string(), found.to_string());
        }
        if let Some(summary) = &self.summary {
            differ("summary", *summary == alert.summary, summary.clone(), alert.summary.clone());
        }
        all
    }
}

fn state_name(alert: &Transition) -> &'static str {
    match alert.state {
        State::Pending => "pending",
        State::Firing => "firing",
        State::Acknowledged => "acknowledged",
        State::Escalated => "escalated",
        State::Resolved => "resolved",
        State::Stale => "stale",
    }
}

fn change_name(change: ChangeName) -> &'static str {
    match change {
        ChangeName::Pending => "pending",
        ChangeName::Firing => "firing",
        ChangeName::Level => "level",
        ChangeName::Acknowledged => "acknowledged",
        ChangeName::Unacknowledged => "unacknowledged",
        ChangeName::Escalated => "escalated",
        ChangeName::Suppressed => "suppressed",
        ChangeName::Unsuppressed => "unsuppressed",
        ChangeName::Resolved => "resolved",
        ChangeName::Stale => "stale",
    }
}

fn active(alert: &Transition) -> String {
    let key = serde_json::to_string(&alert.key).unwrap_or_default();
    format!("{} {} of {key}", state_name(alert), alert.severity.name())
}

/// Formats a transition as in `transitions:`:
/// `7m1s latency_p99 {source=checkout} firing warning by silence s1`.
pub(crate) fn transition(of: &Transition) -> String {
    let change = change_name(of.change);
    let key: Vec<String> = of.key.0.iter().map(|(label, value)| format!("{label}={value}")).collect();
    let by = of.suppressed_by.as_ref().map_or(String::new(), |by| format!(" by {} {}", by.kind, by.id));
    let step = match (of.change, of.escalation_level) {
        (ChangeName::Escalated, level) => format!(" step {level}"),
        _ => String::new(),
    };
    let (at, severity) = (of.at - START, of.severity.name());
    format!("{at} {} {{{}}} {change} {severity}{step}{by}", of.rule, key.join(","))
}

/// Returns the rule of a line of `transitions:`.
pub(crate) fn rule_of(line: &str) -> Option<&str> {
    line.split_whitespace().nth(1)
}
