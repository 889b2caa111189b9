//! Converts an alert whose expression is translated: severity, durations, labels and annotations.

use super::ast::{EXPORTED_NAME, label_here, label_there};
use super::document::{Body, Origin};
use super::template;
use super::translate::{Translation, readable};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Default)]
pub struct RuleOut {
    pub origin: Origin,
    pub id: String,
    pub said: Translation,
    /// Fields of the rule with their values, as they are written to the file.
    pub fields: Vec<(&'static str, String)>,
    pub labels: BTreeMap<String, String>,
    /// All labels that the alert has in Prometheus besides those of the series; includes the severity.
    pub labels_there: BTreeMap<String, String>,
    pub notes: Vec<String>,
}

/// Annotations that may become the summary, in order of preference.
const SUMMARIES: [&str; 3] = ["summary", "description", "message"];

const RUNBOOKS: [&str; 2] = ["runbook_url", "runbook"];

/// The ids of the converted rules, and the last numeric suffix tried for each name.
#[derive(Debug, Default)]
pub(super) struct Ids {
    taken: BTreeSet<String>,
    numbers: BTreeMap<String, u32>,
}

/// Makes the rule of an alert, with a unique id.
pub(super) fn alert(
    origin: &Origin,
    body: &Body,
    said: Translation,
    has_name: bool,
    ids: &mut Ids,
) -> Result<RuleOut, String> {
    check_labels(body, &said)?;
    let there = |label: &String| if has_name { label_there(label) } else { label }.to_string();
    let mut labels_there: BTreeMap<String, String> =
        said.labels.iter().map(|(label, value)| (there(label), value.clone())).collect();
    labels_there.extend(body.labels.clone());
    labels_there.retain(|_, value| !value.is_empty());
    let severity = labels_there.get("severity").map_or("", String::as_str);
    let mut notes: Vec<String> = said.notes.iter().cloned().collect();
    // The expression does not show whether the series have this label.
    let empty = body.labels.iter().filter(|(_, value)| said.has_other_labels && value.is_empty());
    notes.extend(empty.map(|(name, _)| removed(name)));
    let mut fields = Vec::new();
    for (name, span) in [("for", body.pending_for), ("keep_firing_for", body.keep_firing_for)] {
        if span.is_positive() {
            fields.push((name, json!(span.to_string()).to_string()));
        }
    }
    fields.push(("severity", severity_of(severity).into()));
    if !severity.is_empty() && severity != severity_of(severity) {
        notes.push(format!("severity `{severity}` is `{}` here", severity_of(severity)));
    }
    // In Prometheus an alert ends when its series is gone, so unknown data clears the alert here.
    let patience = said.patience.max(body.keep_firing_for);
    fields.push(("on_unknown", format!("clear_after {patience}")));
    fields.extend(texts(&body.annotations, &mut notes));
    let id = ids.free(&origin.name, severity);
    if id != origin.name {
        notes.push(format!("it is called `{id}` here"));
    }
    let labels = labels_there.iter().filter(|(name, _)| *name != "severity");
    let labels = labels.map(|(name, value)| (label_here(name).to_string(), value.clone())).collect();
    Ok(RuleOut { origin: origin.clone(), id, said, fields, labels, labels_there, notes })
}

/// Checks the labels of a rule, which are fixed texts here and are added to those of the key.
fn check_labels(body: &Body, said: &Translation) -> Result<(), String> {
    if body.labels.contains_key("name") && body.labels.contains_key(EXPORTED_NAME) {
        return Err(format!("its labels `name` and `{EXPORTED_NAME}` are one here"));
    }
    for (name, value) in &body.labels {
        let name = label_here(name);
        readable(name)?;
        if template::is_template(value) {
            return Err(format!("its label `{name}` is a template; here the labels of a rule are fixed"));
        }
        if value.is_empty() {
            if said.key_labels.contains_key(name) {
                return Err(removed(name));
            }
            continue;
        }
        if said.key_labels.get(name).is_some_and(|known| known.as_ref() != Some(value)) {
            return Err(format!(
                "its label `{name}` replaces that of the series; here the key keeps its own"
            ));
        }
    }
    Ok(())
}

/// Returns the note about the different effect of an empty label.
fn removed(name: &str) -> String {
    format!("its label `{name}` is empty, which removes that of the series; here the key keeps its own")
}

fn severity_of(there: &str) -> &'static str {
    match there.to_ascii_lowercase().as_str() {
        "critical" | "page" | "error" | "high" | "emergency" | "p1" => "critical",
        "info" | "none" | "notice" | "low" | "p4" | "p5" => "info",
        _ => "warning",
    }
}

/// Returns the summary and the runbook; notes the other annotations.
fn texts(annotations: &BTreeMap<String, String>, notes: &mut Vec<String>) -> Vec<(&'static str, String)> {
    let (mut fields, mut used) = (Vec::new(), Vec::new());
    for name in SUMMARIES {
        let Some(text) = annotations.get(name) else { continue };
        used.push(name);
        match template::translate(text) {
            Ok(summary) => {
                fields.push(("summary", json!(summary).to_string()));
                break;
            }
            Err(reason) => notes.push(format!("its `{name}` is left out: {reason}")),
        }
    }
    for name in RUNBOOKS {
        let Some(text) = annotations.get(name) else { continue };
        used.push(name);
        match template::is_template(text) {
            false => {
                fields.push(("runbook", json!(text).to_string()));
                break;
            }
            true => notes.push(format!("its `{name}` is left out: here it is a fixed text")),
        }
    }
    let left: Vec<&str> =
        annotations.keys().map(String::as_str).filter(|name| !used.contains(name)).collect();
    if !left.is_empty() {
        notes.push(format!(
            "annotations left out: {}; a rule has one summary and one runbook",
            left.join(", ")
        ));
    }
    fields
}

impl Ids {
    pub(super) fn take(&mut self, id: &str) {
        self.taken.insert(id.into());
    }

    /// Returns an id that no other rule has, because several alerts may have the same name in Prometheus.
    fn free(&mut self, alert: &str, severity: &str) -> String {
        let alert = tidy(alert);
        let named = [alert.clone(), format!("{alert}_{}", tidy(severity))];
        if let Some(free) = named.into_iter().find(|id| !self.taken.contains(id)) {
            return free;
        }
        let number = self.numbers.entry(alert.clone()).or_insert(2);
        loop {
            let id = format!("{alert}_{number}");
            if !self.taken.contains(&id) {
                return id;
            }
            // Ids are never released, so the next search continues from this number.
            *number += 1;
        }
    }
}

fn tidy(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    text.chars().map(|c| if fits(c) { c } else { '_' }).collect()
}
