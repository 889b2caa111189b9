//! A rule's summary: checks the names in its template, and suggests the right name for a wrong one.

use super::diagnostic::nearest;
use super::expr::check::Keys;
use super::tree::File;
use super::yaml::Node;
use crate::core::rule::template::{self, TemplateError};
use crate::core::vocab::selector::By;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reads a summary. A label that no alert of the rule can have is a warning, because it would be empty.
pub(super) fn read(
    file: &File<'_>,
    node: &Node,
    keys: &Keys,
    labels: &BTreeMap<Arc<str>, Arc<str>>,
) -> Option<Arc<str>> {
    let text = file.prose(node)?;
    if let Err(error) = template::check(&text) {
        file.error_within(node, error.at(), 2, error.to_string(), hint(&error));
        return None;
    }
    for (at, label) in template::labels(&text) {
        let Some(known) = unknown_among(label, keys, labels) else { continue };
        let message = format!("no alert of this rule has a label `{label}`; it would be empty here");
        file.warn_within(node, at, 2, message, Some(label_hint(label, &known)));
    }
    Some(text.into())
}

/// Returns the labels that alerts of the rule have, if this label is not among them.
fn unknown_among<'a>(
    label: &str,
    keys: &'a Keys,
    labels: &'a BTreeMap<Arc<str>, Arc<str>>,
) -> Option<Vec<&'a str>> {
    // Without `by (…)`, each series has its own alert, so an alert may have any label.
    let Keys::By(By::Labels(by)) = keys else { return None };
    let mut known: Vec<&str> = by.iter().chain(labels.keys()).map(|label| &**label).collect();
    // The source of a series derived from pipeline events is the pipeline.
    if known.contains(&"source") || known.contains(&"pipeline") {
        known.extend(["source", "pipeline"]);
        known.sort_unstable();
        known.dedup();
    }
    (!known.contains(&label)).then_some(known)
}

fn label_hint(label: &str, known: &[&str]) -> String {
    match label {
        "severity" | "rule" => format!("write `{{{{ {label} }}}}`"),
        "alertname" => "write `{{ rule }}`".into(),
        _ => match nearest(label, known.iter().copied()) {
            Some(near) => format!("did you mean `labels.{near}`?"),
            None if known.is_empty() => "its key has no labels: name some with `by (…)`".into(),
            None => format!("it has {}; its key is made by `by (…)`", known.join(", ")),
        },
    }
}

/// Returns a hint with the equivalent, in this template language, of a construct from Go or Jinja templates.
fn hint(error: &TemplateError) -> Option<String> {
    match error {
        TemplateError::Unclosed { .. } => Some("write `{{ value }}`".into()),
        TemplateError::Block { .. } => Some("a summary has no conditions and loops; write two rules".into()),
        TemplateError::Filter { name, .. } => filter_hint(first_word(name)),
        TemplateError::Name { name, .. } => name_hint(name),
    }
}

fn first_word(text: &str) -> &str {
    text.split(|c: char| c.is_whitespace() || matches!(c, '(' | '[')).next().unwrap_or("")
}

fn filter_hint(word: &str) -> Option<String> {
    let ours = match word {
        "humanizePercentage" => "percent",
        "humanizeDuration" => "duration",
        "humanize" | "humanize1024" | "printf" | "float" | "int" => "round",
        other => nearest(other, ["percent", "round", "duration"])?,
    };
    Some(format!("write `{{{{ value | {ours} }}}}`"))
}

fn name_hint(name: &str) -> Option<String> {
    let name = name.trim_matches('-').trim();
    if let Some(label) = name.strip_prefix(".Labels.").or(name.strip_prefix("$.Labels.")) {
        return Some(format!("write `{{{{ labels.{label} }}}}`"));
    }
    Some(match first_word(name) {
        ".Value" | "$.Value" | "Value" => "write `{{ value }}`".into(),
        "humanize" | "humanize1024" | "humanizePercentage" | "humanizeDuration" | "printf" => {
            return filter_hint(first_word(name));
        }
        "if" | "else" | "end" | "range" | "with" | "define" | "template" | "block" => {
            "a summary has no conditions and loops; write two rules".into()
        }
        "query" | "first" | "label" | "strvalue" => "a summary runs no queries; it has `{{ value }}`".into(),
        "labels" | "$labels" => "write `{{ labels.source }}`".into(),
        other => {
            let near = nearest(other, ["value", "severity", "rule", "labels.source"])?;
            format!("did you mean `{{{{ {near} }}}}`?")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::load_files;

    fn said(expr: &str, summary: &str) -> Vec<(bool, String)> {
        let text = format!(
            "rules:\n  - id: r\n    expr: '{expr}'\n    severity: info\n    labels: {{ team: ci }}\n    summary: '{summary}'\n"
        );
        let found = load_files(vec![("f.yaml".into(), text)]).diagnostics.into_iter();
        found.map(|one| (one.is_error, format!("{} {}", one.message, one.hint.unwrap_or_default()))).collect()
    }

    #[test]
    fn a_label_that_no_alert_has_is_a_doubt() {
        let by_source = "count(x[1m]) by (source) > 1";
        let found = said(by_source, "{{ labels.source }} {{ $labels.team }} {{ labels.nosuch }}");
        assert!(found.len() == 1 && !found[0].0 && found[0].1.contains("`nosuch`"), "{found:?}");
        assert!(said(by_source, "{{ labels.sorce }}")[0].1.contains("did you mean `labels.source`?"));
        assert!(said(by_source, "{{ labels.severity }}")[0].1.contains("write `{{ severity }}`"));
        // Each series is a key, so any label may be present; the source of a pipeline's series is the
        // pipeline.
        assert!(said("count(x[1m]) > 1", "{{ labels.host }}").is_empty());
        assert!(said("age(pipeline=\"p\") > 1m", "{{ labels.pipeline }}").is_empty());
        assert!(said("max(stage_active[1m]) by (source) > 1", "{{ labels.pipeline }}").is_empty());
    }

    #[test]
    fn words_of_other_templates_are_errors_with_ours() {
        for (summary, word) in [
            ("{% if value %}x{% endif %}", "no conditions"),
            ("{{ if gt .Value 1.0 }}x{{ end }}", "no conditions"),
            ("{{ .Labels.host }}", "`{{ labels.host }}`"),
            ("{{ .Value }}", "`{{ value }}`"),
            ("{{ printf \"%.2f\" .Value }}", "`{{ value | round }}`"),
            ("{{ humanizePercentage .Value }}", "`{{ value | percent }}`"),
            ("{{ $value | humanizeDuration }}", "`{{ value | duration }}`"),
            ("{{ valu }}", "did you mean `{{ value }}`?"),
            ("{{ labels[\"host\"] }}", "`{{ labels.source }}`"),
            ("{{ query \"up\" }}", "runs no queries"),
        ] {
            let found = said("count(x[1m]) by (host) > 1", summary);
            assert!(found.len() == 1 && found[0].0 && found[0].1.contains(word), "{summary}: {found:?}");
        }
    }
}
