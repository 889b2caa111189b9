//! promtool's rule tests: the same series, the same alerts at the same times.

use super::{Converted, convert, field, items, text, texts};
use crate::core::Span;
use crate::core::Timestamp;
use crate::core::alert::Transition;
use crate::pipeline::test_case::{Input, START, expand, observations, series_name};
use crate::pipeline::yaml::{self, Node};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// A file of tests, its rules converted.
#[derive(Debug)]
pub struct Suite {
    pub converted: Converted,
    pub cases: Vec<Case>,
    /// `promql_expr_test`s, which are none of ours.
    pub skipped: usize,
}

/// One test of it.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub line: usize,
    pub inputs: Vec<(Timestamp, Input)>,
    pub checks: Vec<Check>,
}

/// Which alerts of one name fire at a time.
#[derive(Debug)]
pub struct Check {
    pub line: usize,
    pub at: Timestamp,
    pub alert: String,
    pub expected: BTreeSet<Labels>,
}

type Labels = BTreeMap<String, String>;

/// An alert fires at the grid point after the one that promtool asks about: what came until then counts.
const GRID: Span = Span::from_secs(1);

/// Whether a file is one of promtool's tests.
pub fn is_suite(source: &str) -> bool {
    yaml::parse(source).is_ok_and(|root| field(&root, "rule_files").is_some())
}

/// Reads the tests; `rules`: gives the text of a rule file by its name there.
pub fn read(source: &str, rules: impl Fn(&str) -> Result<String, String>) -> Result<Suite, String> {
    let root = yaml::parse(source).map_err(|error| error.message)?;
    let names: Vec<String> =
        field(&root, "rule_files").map(items).unwrap_or_default().iter().filter_map(text).collect();
    let files: Result<Vec<_>, String> = names.iter().map(|name| Ok((name.clone(), rules(name)?))).collect();
    let (mut cases, mut skipped) = (Vec::new(), 0);
    for (place, node) in field(&root, "tests").map(items).unwrap_or_default().iter().enumerate() {
        skipped += field(node, "promql_expr_test").map(items).unwrap_or_default().len();
        cases.push(case(place, node)?);
    }
    Ok(Suite { converted: convert(&files?)?, cases, skipped })
}

fn case(place: usize, node: &Node) -> Result<Case, String> {
    let name = field(node, "name").and_then(text).unwrap_or_else(|| format!("test {}", place + 1));
    let interval = span(node, "interval")?.unwrap_or(Span::from_mins(1));
    let mut case = Case { name, line: node.at.line, inputs: Vec::new(), checks: Vec::new() };
    for series in field(node, "input_series").map(items).unwrap_or_default() {
        let at = format!("line {}", series.at.line);
        let read =
            |name: &str| field(series, name).and_then(text).ok_or(format!("{at}: `{name}` is missing"));
        let (series, values) = (read("series")?, read("values")?);
        let name = series_name(&series).ok_or(format!("{at}: `{series}` is not read"))?;
        let values = expand(&values).ok_or(format!("{at}: the values are not read"))?;
        case.inputs.extend(observations(name, values, interval, None));
    }
    case.inputs.sort_by_key(|(at, _)| *at);
    for check in field(node, "alert_rule_test").map(items).unwrap_or_default() {
        let at = span(check, "eval_time")?.unwrap_or_default();
        let expected = field(check, "exp_alerts").map(items).unwrap_or_default();
        let expected = expected.iter().map(|alert| texts(field(alert, "exp_labels"))).collect();
        let alert = field(check, "alertname").and_then(text).unwrap_or_default();
        case.checks.push(Check { line: check.at.line, at: START + at + GRID, alert, expected });
    }
    case.checks.sort_by_key(|check| check.at);
    Ok(case)
}

fn span(node: &Node, name: &str) -> Result<Option<Span>, String> {
    let written = field(node, name).and_then(text);
    let parse =
        |text: String| text.parse().map_err(|_| format!("line {}: `{text}` is no duration", node.at.line));
    written.map(parse).transpose()
}

impl Check {
    /// What is wrong, given the active alerts.
    pub fn compare(&self, converted: &Converted, alerts: &[Transition]) -> Option<String> {
        let left_out = converted.left_out.iter().find(|(name, _)| *name == self.alert);
        if let Some((_, reason)) = left_out {
            return Some(format!("line {}: {} was not converted: {reason}", self.line, self.alert));
        }
        let found: BTreeSet<Labels> = alerts
            .iter()
            .filter(|alert| alert.is_active())
            .filter_map(|alert| self.labels(converted, alert))
            .collect();
        let expected: BTreeSet<Labels> =
            self.expected.iter().map(|labels| without_name(labels.clone())).collect();
        (found != expected).then(|| {
            let shown = |all: &BTreeSet<Labels>| {
                let all: Vec<String> = all.iter().map(|labels| json!(labels).to_string()).collect();
                if all.is_empty() { "none".to_string() } else { all.join(" ") }
            };
            let at = self.at - GRID - START;
            format!(
                "line {}: at {at} {} fires for\n        expected {}\n        found    {}",
                self.line,
                self.alert,
                shown(&expected),
                shown(&found)
            )
        })
    }

    /// The labels that an alert of this name would have there.
    fn labels(&self, converted: &Converted, alert: &Transition) -> Option<Labels> {
        let rule = converted.rules.iter().find(|rule| rule.alert == self.alert && *rule.id == *alert.rule)?;
        let is_own = |label: &str, value: &str| label == "name" || label == "source" && value == "test";
        let key = alert.key.0.iter().filter(|(label, value)| !is_own(label, value));
        let key = key.map(|(label, value)| (label.to_string(), value.to_string()));
        Some(without_name(key.chain(rule.labels_there.clone()).collect()))
    }
}

fn without_name(mut labels: Labels) -> Labels {
    labels.remove("alertname");
    labels.remove("__name__");
    labels
}
