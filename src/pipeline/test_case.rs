//! Test cases beside the rules: series and events at times, and the alerts expected from them.
//!
//! Notation of values is promtool's: `1+2x3` is 1 3 5 7, `5x9` is ten times 5, `_` is no value.

use super::tree::File;
use super::yaml::{Kind, Node};
use crate::core::alert::Severity;
use crate::core::rule::RuleSet;
use crate::core::{Span, Timestamp};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One test: what comes in, and what must be so at which times.
#[derive(Debug, Clone, PartialEq)]
pub struct TestCase {
    pub file: String,
    pub line: usize,
    pub name: String,
    /// (when, event as JSON), by time.
    pub events: Vec<(Timestamp, Value)>,
    pub expectations: Vec<Expectation>,
}

/// What must be so at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    pub line: usize,
    pub at: Timestamp,
    pub rule: String,
    /// Labels that the alert's key must have.
    pub key: BTreeMap<String, String>,
    /// `None`: no alert of the rule (with this key) is active.
    pub state: Option<ExpectedState>,
    pub severity: Option<Severity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedState {
    Pending,
    Firing,
}

/// Values of one test: an hour of them, once a second, for a few series.
const EVENTS_MAX: usize = 1_000_000;

/// Where test time begins unless a test says otherwise.
const START: Timestamp = Timestamp::clamped(1_793_491_200_000); // 2026-11-01T00:00:00Z

/// Reads the `tests:` of one file.
pub fn read(file: &File<'_>, node: &Node, rules: &RuleSet, out: &mut Vec<TestCase>) {
    for item in file.list(node) {
        let mut test = TestCase {
            file: file.name.into(),
            line: item.at.line,
            name: String::new(),
            events: Vec::new(),
            expectations: Vec::new(),
        };
        let entries = file.map(item, &["name", "interval", "input_series", "input_events", "expect"]);
        let find = |name: &str| entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| *node);
        test.name = find("name").and_then(|node| file.text(node)).unwrap_or_else(|| "unnamed".into());
        let interval = find("interval").and_then(|node| file.span(node)).unwrap_or(Span::from_secs(10));
        for series in find("input_series").map(|node| file.list(node)).unwrap_or_default() {
            input_series(file, series, interval, &mut test.events);
        }
        for event in find("input_events").map(|node| file.list(node)).unwrap_or_default() {
            input_event(file, event, &mut test.events);
        }
        for expected in find("expect").map(|node| file.list(node)).unwrap_or_default() {
            test.expectations.extend(expectation(file, expected, rules));
        }
        if test.expectations.is_empty() {
            file.error(item.at, "a test without `expect` cannot fail", None);
        }
        test.events.sort_by_key(|(at, _)| *at);
        test.expectations.sort_by_key(|expectation| expectation.at);
        out.push(test);
    }
}

fn input_series(file: &File<'_>, node: &Node, interval: Span, events: &mut Vec<(Timestamp, Value)>) {
    let (mut series, mut values, mut unit) = (None, None, None);
    for (key, value) in file.map(node, &["series", "values", "unit"]) {
        match key.text.as_str() {
            "series" => series = file.text(value),
            "values" => values = file.text(value).map(|text| (value, text)),
            _ => unit = file.text(value),
        }
    }
    let (Some(series), Some((at, values))) = (series, values) else {
        return file.error(node.at, "an input series needs `series` and `values`", None);
    };
    let Some((name, labels)) = series_name(&series) else {
        let hint = "`latency_ms{source=\"checkout\", host=\"h1\"}`";
        return file.error(node.at, format!("`{series}` is not a series"), Some(hint.into()));
    };
    let Some(values) = expand(&values) else {
        let hint = "`1 2 3`, `1+2x3` for 1 3 5 7, `5x9` for ten times 5, `_` for no value";
        return file.error(at.at, "these values cannot be read", Some(hint.into()));
    };
    let (mut labels, source) = (labels.clone(), labels.get("source").cloned());
    labels.remove("source");
    for (place, value) in values.into_iter().enumerate() {
        let Some(value) = value else { continue };
        let at = START + interval * place as i64;
        let mut event = json!({"type": "metric", "time": at.ms(), "source": source.as_deref().unwrap_or("test"),
            "name": name, "value": value, "labels": labels});
        if let (Some(unit), Some(event)) = (&unit, event.as_object_mut()) {
            event.insert("unit".into(), json!(unit));
        }
        events.push((at, event));
    }
}

/// `name{label="value"}` to its parts.
fn series_name(text: &str) -> Option<(String, BTreeMap<String, String>)> {
    use super::expr::parse::{TermKind, parse};
    let TermKind::Selector(selector) = parse(text).ok()?.term.kind else { return None };
    let labels = selector.matchers.into_iter();
    let labels: Option<BTreeMap<_, _>> =
        labels.map(|matcher| (matcher.op == "=").then_some((matcher.label, matcher.value))).collect();
    Some((selector.name?, labels?))
}

/// promtool's notation to values.
fn expand(text: &str) -> Option<Vec<Option<f64>>> {
    let mut values = Vec::new();
    for word in text.split_whitespace() {
        let (shape, times) = match word.split_once('x') {
            Some((shape, times)) => (shape, times.parse::<usize>().ok()?),
            None => (word, 0),
        };
        if values.len() + times > EVENTS_MAX {
            return None;
        }
        if shape == "_" {
            values.extend(std::iter::repeat_n(None, times.max(1)));
            continue;
        }
        let (start, step) = start_and_step(shape)?;
        values.extend((0..=times).map(|n| Some(start + step * n as f64)));
    }
    Some(values)
}

/// `1+2` and `1-2`, where the sign after the first digit is that of the step.
fn start_and_step(shape: &str) -> Option<(f64, f64)> {
    let sign = shape.char_indices().skip(1).find(|(_, c)| matches!(c, '+' | '-'));
    match sign {
        Some((at, _)) => Some((shape[..at].parse().ok()?, shape[at..].parse().ok()?)),
        None => Some((shape.parse().ok()?, 0.0)),
    }
}

/// An event as it would be sent, with `at` (since the start) in place of `time`.
fn input_event(file: &File<'_>, node: &Node, events: &mut Vec<(Timestamp, Value)>) {
    let mut fields = Map::new();
    let mut at = None;
    for (key, value) in file.names(node) {
        if key.text == "at" {
            at = file.span(value);
        } else {
            fields.insert(key.text.clone(), plain(value));
        }
    }
    let Some(at) = at else {
        return file.error(node.at, "an input event needs `at`, such as `at: 5s`", None);
    };
    fields.entry("time").or_insert(json!((START + at).ms()));
    events.push((START + at, Value::Object(fields)));
}

fn plain(node: &Node) -> Value {
    match &node.kind {
        Kind::Null => Value::Null,
        Kind::Bool(value) => json!(value),
        Kind::Integer(value) => json!(value),
        Kind::Float(value) => json!(value),
        Kind::Text(value) => json!(value),
        Kind::List(items) => Value::Array(items.iter().map(plain).collect()),
        Kind::Map(entries) => {
            Value::Object(entries.iter().map(|(key, value)| (key.text.clone(), plain(value))).collect())
        }
    }
}

fn expectation(file: &File<'_>, node: &Node, rules: &RuleSet) -> Option<Expectation> {
    let mut expected = Expectation {
        line: node.at.line,
        at: START,
        rule: String::new(),
        key: BTreeMap::new(),
        state: None,
        severity: None,
    };
    let mut has_at = false;
    for (key, value) in file.map(node, &["at", "rule", "key", "state", "severity"]) {
        match key.text.as_str() {
            "at" => {
                expected.at = START + file.span(value)?;
                has_at = true;
            }
            "rule" => {
                expected.rule = file.text(value)?;
                if !rules.rules.iter().any(|rule| *rule.id == *expected.rule) {
                    let near = super::diagnostic::nearest(&expected.rule, rules.rules.iter().map(|r| &*r.id));
                    let hint = near.map(|near| format!("did you mean `{near}`?"));
                    file.error(value.at, format!("there is no rule `{}`", expected.rule), hint);
                }
            }
            "key" => {
                for (label, value) in file.names(value) {
                    expected.key.insert(label.text.clone(), file.text(value)?);
                }
            }
            "state" => match file.text(value)?.as_str() {
                "none" | "inactive" => {}
                "pending" => expected.state = Some(ExpectedState::Pending),
                "firing" => expected.state = Some(ExpectedState::Firing),
                _ => file.error(value.at, "state is firing, pending or none", None),
            },
            "severity" => {
                let severity = Severity::from_name(&file.text(value)?);
                if severity.is_none() {
                    file.error(value.at, "severity is info, warning or critical", None);
                }
                expected.severity = severity;
            }
            _ => {}
        }
    }
    if !has_at || expected.rule.is_empty() {
        file.error(node.at, "an expectation needs `at` and `rule`", None);
        return None;
    }
    Some(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_expand_as_promtool_does_it() {
        let some = |values: &[f64]| Some(values.iter().map(|v| Some(*v)).collect::<Vec<_>>());
        assert_eq!(expand("1+2x3"), some(&[1.0, 3.0, 5.0, 7.0]));
        assert_eq!(expand("10-1x2 -5"), some(&[10.0, 9.0, 8.0, -5.0]));
        assert_eq!(expand("5x2"), some(&[5.0, 5.0, 5.0]));
        assert_eq!(expand("1 _x2 2"), Some(vec![Some(1.0), None, None, Some(2.0)]));
        assert_eq!(expand("1y"), None);
    }
}
