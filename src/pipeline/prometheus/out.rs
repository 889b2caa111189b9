//! Formats the converted rules as a pipeline file.

use super::alert::RuleOut;
use super::document::Origin;
use super::translate::Translation;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write;

/// A converted recorded series.
#[derive(Debug, Clone)]
pub struct RecordOut {
    pub origin: Origin,
    pub said: Translation,
}

/// The source of the series that are declared because a rule tests their absence.
const DECLARED_SOURCE: &str = "absent";

/// Returns the file with these records and rules, and the counters and declared series that they need.
pub(super) fn yaml(records: &[&RecordOut], rules: &[&RuleOut]) -> String {
    let all = || records.iter().map(|record| &record.said).chain(rules.iter().map(|rule| &rule.said));
    let mut out = String::from("version: 1\n");
    // Writing to a String cannot fail.
    let counters: BTreeSet<&String> = all().flat_map(|said| &said.counters).collect();
    section(&mut out, "metrics", counters.len());
    for name in counters {
        let _ = writeln!(out, "  {}: {{ temporality: cumulative }}", json!(name));
    }
    let declared: BTreeSet<_> = all().flat_map(|said| &said.declared).collect();
    section(&mut out, "declare", declared.len());
    for (name, labels) in declared {
        let (name, labels) = (json!(name), json!(labels));
        let _ = writeln!(out, "  - {{ source: {DECLARED_SOURCE}, name: {name}, labels: {labels} }}");
    }
    section(&mut out, "record", records.len());
    for RecordOut { origin, said } in records {
        let _ = writeln!(out, "  - {{ name: {}, expr: {} }}", json!(origin.name), json!(said.expr));
    }
    if records.is_empty() && rules.is_empty() {
        out.push_str("rules: []\n");
    }
    section(&mut out, "rules", rules.len());
    for rule in rules {
        let _ = writeln!(out, "  - id: {}\n    expr: {}", json!(rule.id), json!(rule.said.expr));
        for (name, value) in &rule.fields {
            let _ = writeln!(out, "    {name}: {value}");
        }
        if !rule.labels.is_empty() {
            let _ = writeln!(out, "    labels: {}", json!(rule.labels));
        }
    }
    out
}

fn section(out: &mut String, name: &str, entries: usize) {
    if entries > 0 {
        let _ = writeln!(out, "{name}:");
    }
}
