//! Rules of Prometheus, as far as they can be said here, and promtool's tests of them.
//!
//! Intuition: most rules people have are a rate, a ratio or a quantile against a limit, and those exist here
//! under the same names. Invariant: what is converted is compiled like any file, so it runs; what has no honest
//! counterpart is listed with the reason, never bent. Rejected: evaluating PromQL itself (windows of
//! observations are no samples of a scrape), and a parser that knows all of it (eighteen crates for a fifth of
//! the language).

mod promql;
pub mod suite;
mod translate;

use super::load::load_files;
use super::yaml::{self, Kind, Node};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use translate::Translation;

/// What came of some rule files.
#[derive(Debug, Default)]
pub struct Converted {
    pub rules: Vec<RuleOut>,
    pub records: Vec<(String, String)>,
    /// Metrics that are counters.
    pub cumulative: BTreeSet<String>,
    /// What could not be said: name, why.
    pub left_out: Vec<(String, String)>,
    /// What is said, but differs: name, how.
    pub notes: Vec<(String, String)>,
}

/// One alerting rule as it is said here.
#[derive(Debug, Clone, Default)]
pub struct RuleOut {
    pub id: String,
    /// Name of the alert there.
    pub alert: String,
    expr: String,
    fields: Vec<(&'static str, String)>,
    labels: BTreeMap<String, String>,
    /// All labels it had, the severity too.
    pub labels_there: BTreeMap<String, String>,
}

/// Reads rule files as (name, text); a syntax error ends it.
pub fn convert(files: &[(String, String)]) -> Result<Converted, String> {
    let mut converted = Converted::default();
    for (name, text) in files {
        let root = yaml::parse(text).map_err(|error| format!("{name}: {}", error.message))?;
        let Some(groups) = super::define::section(&root, "groups") else {
            return Err(format!("{name} has no `groups:`; is it a rule file of Prometheus?"));
        };
        for group in items(groups) {
            for rule in field(group, "rules").map(items).unwrap_or_default() {
                converted.rule(rule);
            }
        }
    }
    converted.settle();
    Ok(converted)
}

fn items(node: &Node) -> &[Node] {
    match &node.kind {
        Kind::List(items) => items,
        _ => &[],
    }
}

fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    super::define::section(node, name)
}

fn text(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Text(text) => Some(text.clone()),
        Kind::Integer(number) => Some(number.to_string()),
        Kind::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

fn texts(node: Option<&Node>) -> BTreeMap<String, String> {
    let Some(Node { kind: Kind::Map(entries), .. }) = node else { return BTreeMap::new() };
    entries.iter().filter_map(|(key, value)| Some((key.text.clone(), text(value)?))).collect()
}

impl Converted {
    fn rule(&mut self, node: &Node) {
        let word = |name: &str| field(node, name).and_then(text);
        let (record, alert, expr) = (word("record"), word("alert"), word("expr").unwrap_or_default());
        let name = alert.clone().or(record.clone()).unwrap_or_else(|| "unnamed".into());
        let translated = match translate::translate(&expr, alert.is_some()) {
            Ok(translated) => translated,
            Err(reason) => return self.left_out.push((name, reason)),
        };
        let Translation { expr, cumulative, notes } = translated;
        let before = self.cumulative.clone();
        self.cumulative.extend(cumulative);
        let one = match alert {
            Some(alert) => {
                let rule = self.alert(node, alert, expr);
                let trial = Converted { rules: vec![rule.clone()], ..self.alone() };
                trial.problem().map_or(Ok(()), Err).map(|()| self.rules.push(rule))
            }
            None => {
                let record = (name.clone(), expr);
                let trial = Converted { records: vec![record.clone()], ..self.alone() };
                trial.problem().map_or(Ok(()), Err).map(|()| self.records.push(record))
            }
        };
        match one {
            Ok(()) => self.notes.extend(notes.into_iter().map(|note| (name.clone(), note))),
            Err(problem) => {
                self.cumulative = before;
                self.left_out.push((name, problem));
            }
        }
    }

    /// The same metrics and records, no rules.
    fn alone(&self) -> Converted {
        Converted { cumulative: self.cumulative.clone(), ..Converted::default() }
    }

    /// What a rule is wrong by, compiled alone.
    fn problem(&self) -> Option<String> {
        let loaded = load_files(vec![("converted".into(), self.yaml())]);
        let first = loaded.diagnostics.into_iter().find(|one| one.is_error)?;
        Some(format!("{}{}", first.message, first.hint.map_or(String::new(), |hint| format!(" ({hint})"))))
    }

    fn alert(&mut self, node: &Node, alert: String, expr: String) -> RuleOut {
        let labels_there = texts(field(node, "labels"));
        let severity = labels_there.get("severity").map_or("", String::as_str);
        let mut fields = Vec::new();
        for (there, here) in [("for", "for"), ("keep_firing_for", "keep_firing_for")] {
            fields.extend(field(node, there).and_then(text).map(|span| (here, json!(span).to_string())));
        }
        fields.push(("severity", severity_of(severity).into()));
        let annotations = texts(field(node, "annotations"));
        let summary =
            annotations.get("summary").or(annotations.get("description")).map(|text| template(text));
        if let Some(summary) = summary {
            match crate::core::rule::template::check(&summary) {
                Ok(()) => fields.push(("summary", json!(summary).to_string())),
                Err(error) => self.notes.push((alert.clone(), format!("its summary is left out: {error}"))),
            }
        }
        fields.extend(annotations.get("runbook_url").map(|url| ("runbook", json!(url).to_string())));
        let is_label = |(name, _): &(&String, &String)| *name != "severity";
        let labels = labels_there.iter().filter(is_label).map(|(k, v)| (k.clone(), v.clone())).collect();
        let id = self.free_id(&alert, severity);
        RuleOut { id, alert, expr, fields, labels, labels_there }
    }

    /// An id that no other rule has: several alerts may have one name there.
    fn free_id(&self, alert: &str, severity: &str) -> String {
        let tidy = |text: &str| -> String {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            text.chars().map(|c| if fits(c) { c } else { '_' }).collect()
        };
        let names = [tidy(alert), format!("{}_{}", tidy(alert), tidy(severity))].into_iter();
        let numbered = (2..).map(|number| format!("{}_{number}", tidy(alert)));
        let is_free = |id: &String| !self.rules.iter().any(|rule| rule.id == *id);
        names.chain(numbered).find(is_free).unwrap_or_default()
    }

    /// Rules that do not go together are taken out, the last first.
    fn settle(&mut self) {
        while let Some(problem) = self.problem() {
            match self.rules.pop() {
                Some(rule) => self.left_out.push((rule.alert, problem)),
                None => match self.records.pop() {
                    Some((name, _)) => self.left_out.push((name, problem)),
                    None => return,
                },
            }
        }
    }

    /// As a pipeline file.
    pub fn yaml(&self) -> String {
        let mut out = String::from("version: 1\n");
        // Writing to a String cannot fail.
        if !self.cumulative.is_empty() {
            out.push_str("metrics:\n");
            for name in &self.cumulative {
                let _ = writeln!(out, "  {}: {{ temporality: cumulative }}", json!(name));
            }
        }
        if !self.records.is_empty() {
            out.push_str("record:\n");
            for (name, expr) in &self.records {
                let _ = writeln!(out, "  - {{ name: {}, expr: {} }}", json!(name), json!(expr));
            }
        }
        if !self.rules.is_empty() {
            out.push_str("rules:\n");
            for rule in &self.rules {
                let _ = writeln!(out, "  - id: {}\n    expr: {}", json!(rule.id), json!(rule.expr));
                for (name, value) in &rule.fields {
                    let _ = writeln!(out, "    {name}: {value}");
                }
                if !rule.labels.is_empty() {
                    let _ = writeln!(out, "    labels: {}", json!(rule.labels));
                }
            }
        }
        out
    }
}

fn severity_of(there: &str) -> &'static str {
    match there.to_ascii_lowercase().as_str() {
        "critical" | "page" | "error" | "high" | "emergency" | "p1" => "critical",
        "info" | "none" | "notice" | "low" | "p4" | "p5" => "info",
        _ => "warning",
    }
}

/// `{{ $labels.x }}` to `{{ labels.x }}`, `{{ $value | humanizePercentage }}` to `{{ value | percent }}`.
fn template(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((inner, next)) = after.split_once("}}") else { break };
        let words: Vec<&str> = inner.split('|').map(str::trim).collect();
        let name = words[0].trim_start_matches('$');
        let filter = words.get(1).map_or("", |filter| match *filter {
            "humanizePercentage" => " | percent",
            "humanizeDuration" => " | duration",
            filter if filter.starts_with("printf") || filter.starts_with("humanize") => " | round",
            _ => "",
        });
        let filter = if name == "value" { filter } else { "" };
        out.push_str(&format!("{before}{{{{ {name}{filter} }}}}"));
        rest = next;
    }
    out + rest
}

#[cfg(test)]
mod tests;
