//! Test cases in rule files: series, events and decisions at given times, and the alerts expected from them.
//!
//! Intuition: a test is an event log written by hand and the alert states expected at some times. The log is
//! processed with a virtual clock. Values are written as for promtool, with an `@` suffix for late values and for
//! senders' clocks that are ahead.

mod expect;
mod said;
mod values;

use super::bounds::TEST_SLOTS_MAX;
use super::tree::File;
use super::yaml::{Kind, Node};
use crate::core::rule::{Rule, RuleSet};
use crate::core::vocab::selector::By;
use crate::core::{Span, Timestamp};
pub(crate) use expect::{Expectation, rule_of, transition};
pub(crate) use said::{Alert, Decision};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
pub(crate) use values::{expand, observations, series_name};

/// One test: its input, and the expected state at some times.
#[derive(Debug, Clone, PartialEq)]
pub struct TestCase {
    pub file: String,
    pub line: usize,
    pub name: String,
    /// The input, sorted by arrival time.
    pub inputs: Vec<(Timestamp, Input)>,
    pub expectations: Vec<Expectation>,
    /// All transitions of the rules named in the test, in order, formatted by [`expect::transition`].
    pub transitions: Option<Vec<String>>,
    /// The test runs at least until this time.
    pub until: Timestamp,
    /// The number of events that must be refused.
    pub refused: usize,
}

/// One input of a test.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The JSON of an event as text: a parsed tree is five times as large, and a test may have a million
    /// events.
    Event(Box<str>),
    /// The series ends: it has no value from here on.
    Ended { source: String, name: String, labels: BTreeMap<String, String> },
    /// A decision of an operator.
    Decision(Box<Decision>),
}

/// Maximum number of values in one input series: 11 days of one value per second.
const EVENTS_MAX: usize = 1_000_000;

/// The time at which each test starts.
pub(crate) const START: Timestamp = Timestamp::clamped(1_793_491_200_000); // 2026-11-01T00:00:00Z

const KEYS: [&str; 9] =
    ["name", "interval", "input_series", "input_events", "say", "expect", "transitions", "until", "refused"];

/// Fields of an event that are always texts, even if they look like other types: `run: 17`, `stage: on`,
/// `id: 1e5`.
const TEXT_FIELDS: [&str; 12] =
    ["type", "source", "name", "unit", "id", "pipeline", "run", "stage", "gate", "status", "hdr", "labels"];

/// The tested rules, each with the labels that its keys can have. `None`: any labels, because each series is
/// a key.
#[derive(Debug)]
pub(crate) struct Known<'r>(BTreeMap<&'r str, Option<BTreeSet<&'r str>>>);

impl<'r> Known<'r> {
    pub(crate) fn new(rules: &'r RuleSet) -> Known<'r> {
        Known(rules.rules.iter().map(|rule| (&*rule.id, labels_of(rules, rule))).collect())
    }
}

fn labels_of<'r>(rules: &'r RuleSet, rule: &'r Rule) -> Option<BTreeSet<&'r str>> {
    // A rule over runs takes its alert keys from the runs, with the labels stage and run, and not from its views.
    if rule.reads.has_runs || rule.views.is_empty() {
        return None;
    }
    let mut labels = BTreeSet::new();
    for view in &rule.views {
        match &rules.views.get(*view as usize)?.by {
            By::Series => return None,
            By::Labels(by) => labels.extend(by.iter().map(|label| &**label)),
        }
    }
    // The source of a series derived from pipeline events is the pipeline.
    if labels.contains("source") || labels.contains("pipeline") {
        labels.extend(["source", "pipeline"]);
    }
    Some(labels)
}

/// Reads the `tests:` of one file. `slots`: the number of values and gaps that the remaining tests of the rule set
/// may have. `is_to_run`: whether the tests are run; if not, their values are not expanded to events, because a line
/// of ten characters may stand for a million events.
pub(crate) fn read(
    file: &File<'_>,
    node: &Node,
    rules: &Known<'_>,
    slots: &mut usize,
    is_to_run: bool,
    mut keep: impl FnMut(TestCase),
) {
    for item in file.list(node) {
        let entries = file.map(item, &KEYS);
        let find = |name: &str| entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| *node);
        let list = |name: &str| find(name).map(|node| file.list(node)).unwrap_or_default();
        let interval = find("interval").and_then(|node| file.span(node)).unwrap_or(Span::from_secs(10));
        let mut test = TestCase {
            file: file.name.into(),
            line: item.at.line,
            name: find("name").and_then(|node| file.name_of(node)).unwrap_or_else(|| "unnamed".into()),
            inputs: Vec::new(),
            expectations: Vec::new(),
            transitions: find("transitions").map(|node| file.texts(node)),
            until: START + find("until").and_then(|node| file.span(node)).unwrap_or_default(),
            refused: find("refused").and_then(|node| file.whole(node)).unwrap_or(0) as usize,
        };
        for series in list("input_series") {
            input_series(file, series, interval, slots, is_to_run.then_some(&mut test.inputs));
        }
        list("input_events").iter().for_each(|event| input_event(file, event, &mut test.inputs));
        for said in list("say") {
            test.inputs.extend(said::read(file, said));
        }
        for expected in list("expect") {
            test.expectations.extend(expect::read(file, expected, rules));
        }
        if test.expectations.is_empty() && test.transitions.is_none() {
            file.error(item.at, "a test without `expect` or `transitions` cannot fail", None);
        }
        test.inputs.sort_by_key(|(at, _)| *at);
        test.expectations.sort_by_key(|expectation| expectation.at);
        keep(test);
    }
}

fn input_series(
    file: &File<'_>,
    node: &Node,
    interval: Span,
    slots: &mut usize,
    inputs: Option<&mut Vec<(Timestamp, Input)>>,
) {
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
    let Some(name) = series_name(&series) else {
        let hint = "`latency_ms{source=\"checkout\", host=\"h1\"}`";
        return file.error(node.at, format!("`{series}` is not a series"), Some(hint.into()));
    };
    let Some(values) = expand(&values) else {
        let hint = "`1 2 3`, `1+2x3` for 1 3 5 7, `5x9` for ten times 5, `_` or `stale` for no value, `5@+90s` for one that comes 90s late, `5@-10s` for one of a clock that is 10s ahead";
        return file.error(at.at, "these values cannot be read", Some(hint.into()));
    };
    let Some(left) = slots.checked_sub(values.len()) else {
        *slots = 0;
        let message = format!("the tests up to here have more than {TEST_SLOTS_MAX} values");
        return file.error(at.at, message, Some("split the tests over several runs".into()));
    };
    *slots = left;
    if let Some(inputs) = inputs {
        inputs.extend(observations(name, values, interval, unit.as_deref()));
    }
}

/// Reads an event in its wire format, with `at` (time since the start of the test) in place of `time`. The field
/// `late` is the arrival time minus `at`; it is negative if the sender's clock is ahead.
fn input_event(file: &File<'_>, node: &Node, inputs: &mut Vec<(Timestamp, Input)>) {
    let mut fields = Map::new();
    let (mut at, mut late) = (None, Span::ZERO);
    for (key, value) in file.names(node) {
        match key.text.as_str() {
            "at" => at = file.span(value),
            "late" => match file.text(value).as_deref().and_then(values::lateness) {
                Some(span) => late = span,
                None => file.error(value.at, "`late` is a duration", Some("`90s`, or `-10s`".into())),
            },
            other => {
                let is_text = TEXT_FIELDS.contains(&other);
                fields.insert(other.to_string(), if is_text { as_written(value) } else { plain(value) });
            }
        }
    }
    let Some(at) = at else {
        return file.error(node.at, "an input event needs `at`, such as `at: 5s`", None);
    };
    fields.entry("time").or_insert(json!((START + at).ms()));
    inputs.push((START + at + late, Input::Event(Value::Object(fields).to_string().into())));
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

/// Converts a node to JSON as [`plain`] does, but keeps each scalar as the text that is written; an empty
/// scalar is null.
fn as_written(node: &Node) -> Value {
    match &node.kind {
        Kind::List(items) => Value::Array(items.iter().map(as_written).collect()),
        Kind::Map(entries) => {
            let written = entries.iter().map(|(key, value)| (key.text.clone(), as_written(value)));
            Value::Object(written.collect())
        }
        _ => node.text().map_or(Value::Null, |text| json!(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::load_rules;
    use super::super::load_files;
    use super::*;

    fn tests(text: &str) -> crate::pipeline::Loaded {
        let rules = "rules:\n  - { id: r, expr: 'count(x[1m]) by (source) > 5', severity: info }\n";
        load_files(vec![("f.yaml".into(), format!("{rules}tests:\n{text}"))])
    }

    #[test]
    fn texts_of_events_are_as_written() {
        let text = "  - name: t
    transitions: []
    input_events:
      - { at: 1s, type: stage, pipeline: on, run: 17, stage: 1.10, status: started, attempt: 2 }
      - { at: 2s, type: metric, source: 010, name: x, value: 1e1, labels: { v: yes, sha: 1e5 } }
";
        let loaded = tests(text);
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        let event = |at: usize| match &loaded.tests[0].inputs[at].1 {
            Input::Event(event) => serde_json::from_str::<Value>(event).expect("JSON"),
            Input::Decision(_) | Input::Ended { .. } => Value::Null,
        };
        let stage = event(0);
        assert_eq!((&stage["pipeline"], &stage["run"]), (&json!("on"), &json!("17")));
        assert_eq!((&stage["stage"], &stage["attempt"]), (&json!("1.10"), &json!(2)));
        let metric = event(1);
        assert_eq!((&metric["source"], &metric["value"]), (&json!("010"), &json!(10.0)));
        assert_eq!(metric["labels"], json!({"v": "yes", "sha": "1e5"}));
    }

    /// Goal: the number of values is bounded over all tests. Method: lines of twenty bytes that stand for a
    /// million values each.
    #[test]
    fn values_of_tests_are_bounded_together() {
        let series = "      - { series: 'x{source=\"a\"}', values: '_x999999' }\n".repeat(5);
        let found =
            tests(&format!("  - name: t\n    transitions: []\n    input_series:\n{series}")).diagnostics;
        assert!(found.len() == 1 && found[0].message.contains("more than 4000000 values"), "{found:?}");
    }

    /// Goal: values of tests that are not run are not expanded. Method: the time to load four million values;
    /// a request of 354 bytes with such tests once took 3 GiB.
    #[test]
    fn values_of_tests_that_nobody_runs_are_not_made() {
        let rules = "rules:\n  - { id: r, expr: 'count(x[1m]) by (source) > 5', severity: info }\n";
        let series = "      - { series: 'x{source=\"a\"}', values: '1x999998' }\n".repeat(4);
        let tests = format!("tests:\n  - name: t\n    transitions: []\n    input_series:\n{series}");
        let begun = std::time::Instant::now();
        let loaded = load_rules(vec![("f.yaml".into(), format!("{rules}{tests}"))]);
        assert!(loaded.rules.is_some() && loaded.tests.is_empty(), "{:?}", loaded.diagnostics);
        // Expanding four million events takes ten seconds on the development machine.
        assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    }
}
