//! Reads promtool's rule tests: the same series must give the same alerts at the same times.
//!
//! Intuition: a suite states what its author expects of a rule, so it is the best check of a conversion.
//! Invariant: a test passes only if every alert that it checks is converted and every series that it feeds is
//! accepted. Otherwise it fails with the reason.

use super::ast::{EXPORTED_NAME, label_there};
use super::document::{field, items, span, text, texts};
use super::notation::{Slot, series, values};
use super::{Converted, convert};
use crate::core::Span;
use crate::core::Timestamp;
use crate::core::alert::Transition;
use crate::pipeline::diagnostic::nearest;
use crate::pipeline::test_case::{Input, START};
use crate::pipeline::yaml::{Kind, Node};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// A test file with its converted rules.
#[derive(Debug)]
pub struct Suite {
    pub converted: Converted,
    pub cases: Vec<Case>,
    /// The number of `promql_expr_test`s, which cannot be run here.
    pub skipped: usize,
    /// The number of alerts with expected annotations, which are not compared because numbers are formatted
    /// differently here.
    pub texts_skipped: usize,
}

/// One test of a suite.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub line: usize,
    pub inputs: Vec<(Timestamp, Input)>,
    pub checks: Vec<Check>,
    /// The reasons why the test cannot be judged.
    pub wrong: Vec<String>,
    /// Names of the series that the test feeds.
    fed: BTreeSet<String>,
}

/// The alerts of one name that must fire at a time.
#[derive(Debug)]
pub struct Check {
    pub line: usize,
    pub at: Timestamp,
    pub alert: String,
    /// The labels of the expected alerts, in ascending order; duplicates are kept.
    pub expected: Vec<Labels>,
}

type Labels = BTreeMap<String, String>;

/// The evaluation interval. Alerts are compared at the grid point after the time in the test, so that values with
/// exactly that time count.
const GRID: Span = Span::from_secs(1);

/// Values of the label `source` of the test's series and of recorded series. Prometheus has no such label.
const OWN_SOURCES: [&str; 2] = ["test", "_record"];

/// Whether a file is a test file of promtool.
pub fn is_suite(source: &str) -> bool {
    root(source).is_ok_and(|root| field(&root, "rule_files").is_some())
}

/// The fields that promtool knows in each place. Any other field is an error, because a misspelt check would
/// be skipped.
const SUITE: [&str; 5] = ["rule_files", "evaluation_interval", "group_eval_order", "fuzzy_compare", "tests"];
const CASE: [&str; 8] = [
    "name",
    "interval",
    "start_timestamp",
    "input_series",
    "alert_rule_test",
    "promql_expr_test",
    "external_labels",
    "external_url",
];
const SERIES: [&str; 2] = ["series", "values"];
const CHECK: [&str; 3] = ["eval_time", "alertname", "exp_alerts"];
const ALERT: [&str; 2] = ["exp_labels", "exp_annotations"];

/// Returns an error for a field that promtool does not know.
fn known(node: &Node, fields: &[&str]) -> Result<(), String> {
    let Kind::Map(entries) = &node.kind else {
        return Err(format!("line {}: this must have the fields {}", node.at.line, fields.join(", ")));
    };
    let Some((key, _)) = entries.iter().find(|(key, _)| !fields.contains(&key.text.as_str())) else {
        return Ok(());
    };
    let hint = nearest(&key.text, fields.iter().copied()).map(|near| format!(", did you mean `{near}`?"));
    Err(format!("line {}: there is no field `{}` here{}", key.at.line, key.text, hint.unwrap_or_default()))
}

fn root(source: &str) -> Result<Node, String> {
    let documents = crate::pipeline::yaml::parse_documents(source).map_err(|error| error.message)?;
    documents.into_iter().next().ok_or_else(|| "it is empty".into())
}

/// Reads a test file. `rules`: returns the names and texts of the rule files that one entry of the test file
/// names.
pub fn read(
    source: &str,
    rules: impl Fn(&str) -> Result<Vec<(String, String)>, String>,
) -> Result<Suite, String> {
    let root = root(source)?;
    known(&root, &SUITE)?;
    let names: Vec<String> = items(field(&root, "rule_files")).iter().filter_map(text).collect();
    let files: Result<Vec<_>, String> = names.iter().map(|name| rules(name)).collect();
    let converted = convert(&files?.concat())?;
    let minute = Span::from_mins(1);
    let interval = Some(span(&root, "evaluation_interval")?).filter(|span| span.is_positive());
    let mut suite = Suite { converted, cases: Vec::new(), skipped: 0, texts_skipped: 0 };
    for (place, node) in items(field(&root, "tests")).iter().enumerate() {
        suite.skipped += items(field(node, "promql_expr_test")).len();
        suite.texts_skipped += items(field(node, "alert_rule_test"))
            .iter()
            .flat_map(|check| items(field(check, "exp_alerts")))
            .filter(|alert| field(alert, "exp_annotations").is_some())
            .count();
        let case = case(place, node, interval.unwrap_or(minute), &suite.converted)?;
        suite.cases.push(case);
    }
    Ok(suite)
}

fn case(place: usize, node: &Node, interval: Span, converted: &Converted) -> Result<Case, String> {
    known(node, &CASE)?;
    let name = field(node, "name").and_then(text).unwrap_or_else(|| format!("test {}", place + 1));
    let own = span(node, "interval").map_err(|error| format!("line {}: {error}", node.at.line))?;
    let interval = if own.is_positive() { own } else { interval };
    let mut case = Case {
        name,
        line: node.at.line,
        inputs: Vec::new(),
        checks: Vec::new(),
        wrong: Vec::new(),
        fed: BTreeSet::new(),
    };
    for series in items(field(node, "input_series")) {
        case.feed(series, interval, converted)?;
    }
    case.inputs.sort_by_key(|(at, _)| *at);
    for check in items(field(node, "alert_rule_test")) {
        case.checks.push(self::check(check)?);
    }
    case.checks.sort_by_key(|check| check.at);
    Ok(case)
}

fn check(node: &Node) -> Result<Check, String> {
    let line = node.at.line;
    known(node, &CHECK)?;
    let at = span(node, "eval_time").map_err(|error| format!("line {line}: {error}"))?;
    let labels = |alert: &Node| {
        known(alert, &ALERT)?;
        texts(field(alert, "exp_labels")).ok_or(format!("line {line}: `exp_labels` are no map of texts"))
    };
    let expected: Result<Vec<Labels>, String> =
        items(field(node, "exp_alerts")).iter().map(|alert| labels(alert).map(without_name)).collect();
    let mut expected = expected?;
    expected.sort_unstable();
    let alert = field(node, "alertname").and_then(text);
    let alert = alert.ok_or_else(|| format!("line {line}: `alertname` is missing"))?;
    Ok(Check { line, at: START + at + GRID, alert, expected })
}

impl Case {
    /// Reads one input series. If events cannot represent it, the test is marked as failed.
    fn feed(&mut self, node: &Node, interval: Span, converted: &Converted) -> Result<(), String> {
        let line = node.at.line;
        known(node, &SERIES)?;
        let read = |name: &str| {
            field(node, name).and_then(text).ok_or_else(|| format!("line {line}: `{name}` is missing"))
        };
        let written = read("series")?;
        let (name, mut labels) =
            series(&written).map_err(|error| format!("line {line}: `{written}`: {error}"))?;
        self.fed.insert(name.clone());
        let slots = match values(&read("values")?) {
            Ok(slots) => slots,
            Err(error) => {
                self.wrong.push(format!("line {line}: `{written}`: {error}"));
                return Ok(());
            }
        };
        if let Some(name) = labels.remove("name")
            && labels.insert(EXPORTED_NAME.into(), name).is_some()
        {
            let why = format!("the labels `name` and `{EXPORTED_NAME}` are one here");
            self.wrong.push(format!("line {line}: `{written}` cannot be sent: {why}"));
            return Ok(());
        }
        let source = labels.remove("source").unwrap_or_else(|| OWN_SOURCES[0].into());
        // A range still contains the samples of a series that has ended; only its current value is gone.
        let ends = converted.reads_current(&name);
        for (place, slot) in slots.into_iter().enumerate() {
            let time = START + interval * place as i64;
            let input = match slot {
                Slot::Value(value) => {
                    let event = json!({"type": "metric", "time": time.ms(), "source": source, "name": name,
                        "value": value, "labels": labels});
                    Input::Event(event.to_string().into())
                }
                Slot::Stale if ends => {
                    let (source, name, labels) = (source.clone(), name.clone(), labels.clone());
                    Input::Ended { source, name, labels }
                }
                Slot::Gap | Slot::Stale => continue,
            };
            self.inputs.push((time, input));
        }
        Ok(())
    }
}

impl Converted {
    /// Whether a rule or record reads the current values of a metric.
    fn reads_current(&self, name: &str) -> bool {
        let rules = self.rules.iter().map(|rule| &rule.said);
        rules.chain(self.records.iter().map(|record| &record.said)).any(|said| said.current.contains(name))
    }

    /// Returns a metric whose observations the alert reads, directly or through records, while the test feeds
    /// its buckets.
    fn unfed<'c>(&'c self, alert: &str, case: &Case) -> Option<&'c str> {
        let rules = self.rules.iter().filter(|rule| rule.origin.name == alert).map(|rule| &rule.said);
        let (mut observed, mut reads) = (BTreeSet::new(), BTreeSet::new());
        for said in rules {
            observed.extend(said.observed.iter().map(String::as_str));
            reads.extend(said.records.iter().map(String::as_str));
        }
        // A record reads only records converted before it, so one pass in reverse order suffices.
        for record in self.records.iter().rev() {
            if reads.contains(record.origin.name.as_str()) {
                observed.extend(record.said.observed.iter().map(String::as_str));
                reads.extend(record.said.records.iter().map(String::as_str));
            }
        }
        observed.into_iter().find(|name| case.fed.contains(&format!("{name}_bucket")))
    }
}

impl Check {
    /// Returns a description of the differences, given the active alerts; `None` if there are none.
    pub fn compare(&self, case: &Case, converted: &Converted, alerts: &[Transition]) -> Option<String> {
        let is_own = |origin: &super::Origin| origin.is_alert && origin.name == self.alert;
        if let Some(left_out) = converted.left_out.iter().find(|one| is_own(&one.origin)) {
            return Some(format!("line {}: {} was not converted: {}", self.line, self.alert, left_out.text));
        }
        if let Some(name) = converted.unfed(&self.alert, case) {
            return Some(format!(
                "line {}: {} is not judged: it reads observations of `{name}`, the test feeds its buckets",
                self.line, self.alert
            ));
        }
        let found: BTreeSet<Labels> = alerts
            .iter()
            .filter(|alert| alert.is_active())
            .filter_map(|alert| self.labels(converted, alert))
            .collect();
        let found: Vec<Labels> = found.into_iter().collect();
        (found != self.expected).then(|| {
            let shown = |all: &[Labels]| {
                let all: Vec<String> = all.iter().map(|labels| json!(labels).to_string()).collect();
                if all.is_empty() { "none".to_string() } else { all.join(" ") }
            };
            let at = self.at - GRID - START;
            format!(
                "line {}: at {at} {} fires for\n        expected {}\n        found    {}",
                self.line,
                self.alert,
                shown(&self.expected),
                shown(&found)
            )
        })
    }

    /// Returns the labels that an alert of this name would have in Prometheus.
    fn labels(&self, converted: &Converted, alert: &Transition) -> Option<Labels> {
        let is_same = |rule: &&super::RuleOut| rule.origin.name == self.alert && *rule.id == *alert.rule;
        let rule = converted.rules.iter().find(is_same)?;
        let is_own =
            |label: &str, value: &str| label == "name" || label == "source" && OWN_SOURCES.contains(&value);
        let key = alert.key.0.iter().filter(|(label, value)| !is_own(label, value));
        let key = key.map(|(label, value)| {
            let label = if converted.has_exported { label } else { label_there(label) };
            (label.to_string(), value.to_string())
        });
        Some(without_name(key.chain(rule.labels_there.clone()).collect()))
    }
}

fn without_name(mut labels: Labels) -> Labels {
    labels.remove("alertname");
    labels.remove("__name__");
    labels
}
