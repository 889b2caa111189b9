//! Definitions of a file besides its rules: metrics, declared series, pipelines and health weights.

use super::firsts::Firsts;
use super::tree::File;
use super::yaml::{Kind, Node};
use crate::core::measure::histogram::layout::Digits;
use crate::core::measure::series::MetricSpec;
use crate::core::rule::Declared;
use crate::core::vocab::identity::Labels;
use crate::core::vocab::pipeline::{PipelineSpec, Weights};
use crate::core::vocab::unit::Unit;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The sections of a file.
pub(crate) const SECTIONS: [&str; 11] = [
    "version",
    "metrics",
    "declare",
    "pipelines",
    "record",
    "rules",
    "escalations",
    "maintenance",
    "inhibit",
    "health",
    "tests",
];

/// A section that users may expect here, because Alertmanager keeps it beside its routes: (name, message, hint).
const ELSEWHERE: (&str, &str, &str) = (
    "receivers",
    "receivers stand in the configuration, not beside rules",
    "`streamgauge run --config F`; `streamgauge schema config` prints its shape",
);

/// Returns a section of a file by name.
pub(crate) fn section<'n>(root: &'n Node, name: &str) -> Option<&'n Node> {
    let Kind::Map(entries) = &root.kind else { return None };
    entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
}

/// Checks the names of the sections and the version. An empty file is an error: it does not state that there
/// are no rules, because it may be unfinished or its content lost. A file with only a version is a warning:
/// it may be intended or cut short.
pub(crate) fn check_sections(file: &File<'_>, root: &Node) {
    if let Kind::Map(entries) = &root.kind
        && entries.iter().all(|(key, _)| key.text == "version")
    {
        let hint = Some("a file with `rules: []` says that there are none".into());
        match entries.is_empty() {
            true => file.error(root.at, "this file has no content, which does not mean `rules: []`", hint),
            false => file.warn(root.at, "this file contains nothing but its version", hint),
        }
    }
    file.map_without(root, &SECTIONS, ELSEWHERE);
    match section(root, "version") {
        Some(Node { kind: Kind::Integer(1), .. }) | None => {}
        Some(other) => {
            file.error(other.at, "this version of the format is not known", Some("write `version: 1`".into()))
        }
    }
}

/// Reads the weights of the parts of a pipeline's health; a part that is not named keeps its default weight.
pub(crate) fn health(file: &File<'_>, node: &Node, out: &mut Option<Weights>, firsts: &mut Firsts) {
    firsts.note(file, "section", "health", node.at);
    let mut weights = Weights::default();
    for (_, node) in file.map(node, &["weights"]) {
        for (key, value) in file.map(node, &["latency", "errors", "throughput"]) {
            let Some(weight) = weight(file, value) else { continue };
            match key.text.as_str() {
                "latency" => weights.latency = weight,
                "errors" => weights.errors = weight,
                _ => weights.throughput = weight,
            }
        }
        if weights.latency + weights.errors + weights.throughput <= 0.0 {
            file.error(node.at, "at least one weight must be above 0", None);
        }
    }
    *out = Some(weights);
}

/// Reads a weight. Weights are divided by their sum, so any scale is possible.
fn weight(file: &File<'_>, node: &Node) -> Option<f64> {
    let found = match node.kind {
        Kind::Integer(number) => Some(number as f64),
        Kind::Float(number) => Some(number),
        _ => None,
    };
    let found = found.filter(|weight| weight.is_finite() && *weight >= 0.0);
    if found.is_none() {
        file.wrong(node, "a weight, which is a number from 0 up");
    }
    found
}

pub(crate) fn metrics(
    file: &File<'_>,
    node: &Node,
    out: &mut BTreeMap<Arc<str>, MetricSpec>,
    firsts: &mut Firsts,
) {
    for (name, node) in file.names(node) {
        firsts.note(file, "metric", &name.text, name.at);
        let mut spec = MetricSpec { unit: None, digits: Digits::Two, is_cumulative: false };
        for (key, value) in file.map(node, &["unit", "digits", "temporality"]) {
            match key.text.as_str() {
                "unit" => spec.unit = unit(file, value),
                "digits" => match file.whole(value).and_then(|n| Digits::from_count(n.min(9) as u8)) {
                    Some(digits) => spec.digits = digits,
                    None => file.error(value.at, "digits are 2 or 3", None),
                },
                "temporality" => match file.text(value).as_deref() {
                    Some("cumulative") => spec.is_cumulative = true,
                    Some("delta") | None => {}
                    Some(_) => file.error(value.at, "temporality is delta or cumulative", None),
                },
                _ => {}
            }
        }
        out.insert(name.text.as_str().into(), spec);
    }
}

fn unit(file: &File<'_>, node: &Node) -> Option<Unit> {
    let name = file.text(node)?;
    let unit = Unit::known(&name);
    if unit.is_none() {
        let hint = "units are ns us ms s, bytes kib mib gib, percent, ratio, count";
        file.error(node.at, format!("unit `{name}` is not known"), Some(hint.into()));
    }
    unit
}

pub(crate) fn declare(file: &File<'_>, node: &Node, out: &mut Vec<Declared>) {
    for item in file.list(node) {
        let (mut source, mut name, mut labels) = (None, None, Vec::new());
        for (key, value) in file.map(item, &["source", "name", "labels"]) {
            match key.text.as_str() {
                "source" => source = file.name_of(value),
                "name" => name = file.name_of(value),
                "labels" => {
                    let pairs = file.names(value).into_iter();
                    labels = pairs
                        .filter_map(|(k, v)| Some((k.text.as_str().into(), file.name_of(v)?.into())))
                        .collect();
                }
                _ => {}
            }
        }
        match (source, name, Labels::new(labels)) {
            (Some(source), Some(name), Ok(labels)) => {
                out.push(Declared { source: source.into(), name: name.into(), labels });
            }
            (_, _, Err(error)) => file.error(item.at, error.to_string(), None),
            _ => file.error(item.at, "a declared series needs `source` and `name`", None),
        }
    }
}

/// Reads the pipelines, and returns their stage limits, which expand to rules: (pipeline, stage, limit).
pub(crate) fn pipelines<'n>(
    file: &File<'_>,
    node: &'n Node,
    out: &mut BTreeMap<Arc<str>, PipelineSpec>,
    firsts: &mut Firsts,
) -> Vec<(String, String, &'n Node)> {
    let mut limits = Vec::new();
    for (name, node) in file.names(node) {
        firsts.note(file, "pipeline", &name.text, name.at);
        let mut spec = PipelineSpec::default();
        for (key, value) in file.map(node, &["stages", "stage_limits"]) {
            match key.text.as_str() {
                "stages" => spec.stages = file.names_in(value).into_iter().map(Into::into).collect(),
                "stage_limits" => {
                    for (stage, limit) in file.names(value) {
                        limits.push((name.text.clone(), stage.text.clone(), limit));
                    }
                }
                _ => {}
            }
        }
        out.insert(name.text.as_str().into(), spec);
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::super::load_files;

    fn said(text: &str) -> Vec<(usize, String)> {
        let loaded = load_files(vec![("f.yaml".into(), text.into())]);
        loaded.diagnostics.into_iter().map(|one| (one.line, one.message)).collect()
    }

    #[test]
    fn weights_are_numbers_of_which_one_counts() {
        let loaded =
            load_files(vec![("f.yaml".into(), "health: { weights: { latency: 1, errors: 2.5 } }".into())]);
        let weights = loaded.rules.expect("fine").health;
        assert_eq!((weights.latency, weights.errors, weights.throughput), (1.0, 2.5, 25.0));
        let none = said("health:\n  weights: { latency: 0, errors: 0, throughput: 0 }");
        assert_eq!(none, [(2, "at least one weight must be above 0".to_string())]);
        assert_eq!(said("health: { weights: { latency: -1 } }").len(), 1);
        assert_eq!(said("health: { weights: { speed: 1 } }").len(), 1);
    }

    #[test]
    fn nothing_is_not_taken_for_no_rules() {
        for text in ["", "  \n", "# rules will be here\n", "---\n"] {
            let found = said(text);
            assert!(found[0].1.contains("no content"), "{text:?}: {found:?}");
        }
        assert_eq!(said("version: 1\n"), [(1, "this file contains nothing but its version".to_string())]);
        assert!(said("rules: []").is_empty() && said("metrics: { m: { unit: ms } }").is_empty());
    }

    #[test]
    fn what_stands_elsewhere_is_said_to() {
        let found = said(
            "receivers: []\nrules:\n  - { id: a, expr: 'count(m[1m]) > 1', severity: info, notify: [log] }",
        );
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].1.contains("the configuration") && found[1].1.contains("no `notify`"), "{found:?}");
    }
}
