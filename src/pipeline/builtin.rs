//! The series that are derived from stage, run and gate events: their labels and the values of these labels.
//!
//! Intuition: if a rule selects such a series by a label that the series never has, its alert can never fire, so this
//! is an error. A name that `metrics:` or `record:` defines belongs to the user and is not checked here. Stages are
//! known only where a pipeline declares them, so an unknown stage is a warning and no error.

use super::diagnostic::nearest;
use crate::core::event::{RunStatus, StageStatus};
use crate::core::vocab::pipeline::{PIPELINE, PipelineSpec};
use crate::core::vocab::selector::Matcher;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Derived series with their own labels.
const DERIVED: [(&str, &[&str]); 9] = [
    ("stage_duration_seconds", &["stage", "outcome"]),
    ("stage_queue_seconds", &["stage"]),
    ("stage_transition_seconds", &["from", "to"]),
    ("run_duration_seconds", &["outcome"]),
    ("cards_processed", &["outcome"]),
    ("gate_pass", &["gate"]),
    ("stage_active", &["stage"]),
    ("stage_waiting", &["stage"]),
    ("pipeline_in_flight", &[]),
];

/// Labels whose values are names of stages.
const STAGES: [&str; 3] = ["stage", "from", "to"];

/// Maximum number of declared pipeline or stage names that are compared for one expression. 10,000 rules then
/// compare 10 million names in 0.3 s. With more names, a typing error is found only if the expression names its
/// pipeline.
const NAMES_MAX: usize = 1_000;

/// A problem of one matcher in a list; `place` is the index of the matcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub place: usize,
    pub message: String,
    pub hint: String,
}

/// Returns the labels of a derived series, without `source` and `name`. Its `pipeline` label equals its source.
pub(super) fn labels_of(name: &str) -> Option<Vec<Arc<str>>> {
    let (_, own) = DERIVED.iter().find(|(derived, _)| *derived == name)?;
    Some(std::iter::once(&PIPELINE).chain(own.iter()).map(|label| Arc::from(*label)).collect())
}

/// Whether a series with the labels `labels` has `label`. Every series has `source` and `name`.
pub(super) fn has(labels: &[Arc<str>], label: &str) -> bool {
    matches!(label, "source" | "name") || labels.iter().any(|known| **known == *label)
}

pub(super) fn labels_in_words(labels: &[Arc<str>]) -> String {
    format!("it has {}", labels.join(", "))
}

/// Returns the first matcher that no label value of the derived series `name` can match.
pub(super) fn wrong(name: &str, matchers: &[Matcher]) -> Option<Wrong> {
    let labels = labels_of(name)?;
    // A matcher that also matches a missing label demands nothing, so it is skipped.
    let mut asking = matchers.iter().enumerate().filter(|(_, matcher)| !matcher.is_match(""));
    asking.find_map(|(place, matcher)| {
        let label = &*matcher.label;
        if !has(&labels, label) {
            let message = format!("`{name}` has no label `{label}`, so this matches nothing");
            return Some(Wrong { place, message, hint: labels_in_words(&labels) });
        }
        let outcomes = outcomes(name);
        if label == "outcome" && !outcomes.iter().any(|outcome| matcher.is_match(outcome)) {
            let message = format!("no outcome matches `{matcher}`");
            return Some(Wrong { place, message, hint: format!("outcomes are {}", outcomes.join(", ")) });
        }
        None
    })
}

/// Returns the values of the `outcome` label: those of stages for a `stage_…` series, otherwise those of runs.
fn outcomes(name: &str) -> Vec<&'static str> {
    let of_stages = StageStatus::ALL.into_iter().filter(|status| status.is_terminal()).map(StageStatus::name);
    let of_runs = [RunStatus::Succeeded, RunStatus::Failed, RunStatus::Cancelled].map(RunStatus::name);
    if name.starts_with("stage_") { of_stages.collect() } else { of_runs.to_vec() }
}

/// Returns the matchers that match no declared pipeline or stage. `of` is the name of a series; `None` means that
/// the matchers belong to a function over runs, such as `age`.
pub(super) fn doubts(
    of: Option<&str>,
    matchers: &[Matcher],
    pipelines: &BTreeMap<Arc<str>, PipelineSpec>,
) -> Vec<Wrong> {
    if pipelines.is_empty() || of.is_some_and(|name| labels_of(name).is_none()) {
        return Vec::new();
    }
    let is_pipeline = |matcher: &Matcher| match of {
        Some(_) => matches!(&*matcher.label, "pipeline" | "source"),
        None => &*matcher.label == "pipeline",
    };
    let mut doubts = Vec::new();
    let has_few = pipelines.len() <= NAMES_MAX;
    let named = matchers.iter().filter(|matcher| is_pipeline(matcher)).find_map(Matcher::equal);
    let mut meant: Vec<(&Arc<str>, &PipelineSpec)> = match named {
        Some(name) => pipelines.get_key_value(name).into_iter().collect(),
        None if has_few => pipelines.iter().collect(),
        None => return doubts,
    };
    for (place, matcher) in matchers.iter().enumerate().filter(|(_, matcher)| is_pipeline(matcher)) {
        if let Some(wanted) = matcher.equal().filter(|wanted| has_few && !pipelines.contains_key(*wanted)) {
            // A pipeline need not be declared. A typing error is likely only if a declared name is similar.
            let near = nearest(wanted, pipelines.keys().map(|name| &**name));
            let doubt = near.map(|near| {
                let message = format!("no declared pipeline is called `{wanted}`");
                Wrong { place, message, hint: format!("did you mean `{near}`?") }
            });
            doubts.extend(doubt);
        }
        meant.retain(|(name, _)| matcher.is_match(name));
    }
    // If a pipeline declares no stages, any stage name is possible, so stage matchers are not checked.
    let has_many = meant.iter().map(|(_, spec)| spec.stages.len()).sum::<usize>() > NAMES_MAX;
    if has_many || meant.is_empty() || meant.iter().any(|(_, spec)| spec.stages.is_empty()) {
        return doubts;
    }
    let stages: Vec<&str> = meant.iter().flat_map(|(_, spec)| &spec.stages).map(|stage| &**stage).collect();
    for (place, matcher) in matchers.iter().enumerate() {
        let is_stage = STAGES.contains(&&*matcher.label) && !matcher.is_match("");
        if is_stage && !stages.iter().any(|stage| matcher.is_match(stage)) {
            let message = format!("no declared pipeline has a stage that matches `{matcher}`");
            doubts.push(Wrong { place, message, hint: stage_hint(matcher, &stages) });
        }
    }
    doubts
}

fn stage_hint(matcher: &Matcher, stages: &[&str]) -> String {
    match matcher.equal().and_then(|wanted| nearest(wanted, stages.iter().copied())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("stages are {}", stages.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::load_files;

    fn said(expr: &str) -> Vec<(bool, String)> {
        let text = format!(
            "pipelines:\n  release: {{ stages: [build, test, deploy] }}\nrules:\n  - id: r\n    expr: '{expr}'\n    severity: info\n"
        );
        let found = load_files(vec![("f.yaml".into(), text)]).diagnostics.into_iter();
        found.map(|one| (one.is_error, format!("{} {}", one.message, one.hint.unwrap_or_default()))).collect()
    }

    #[test]
    fn labels_that_derived_series_never_have_are_errors() {
        for expr in [
            r#"max(stage_duration_seconds{host="a"}[1m]) > 1"#,
            r#"max(stage_duration_seconds{host=~".+"}[1m]) > 1"#,
            r#"avg(gate_pass{stage="build"}[1m]) by (gate) < 1"#,
            r#"silent(pipeline_in_flight{stage="build"}) > 1m"#,
            r#"count(cards_processed{outcome="skipped"}[1m]) > 1"#,
            r#"count(stage_duration_seconds{outcome="success"}[1m]) > 1"#,
        ] {
            let found = said(expr);
            assert!(found.len() == 1 && found[0].0, "{expr}: {found:?}");
        }
        for expr in [
            r#"max(stage_duration_seconds{pipeline="release", stage="build"}[1m]) by (pipeline) > 1"#,
            r#"max(stage_duration_seconds{source="release", outcome=~"failed|cancelled"}[1m]) by (stage) > 1"#,
            r#"max(stage_duration_seconds{host!="a"}[1m]) by (source) > 1"#,
            r#"max(latency_ms{host="a"}[1m]) by (host) > 1"#,
            r#"max(stage_queue_seconds{pipeline="other", stage="anything"}[1m]) by (source) > 1"#,
            r#"age(pipeline="other", stage="anything") > 1m"#,
        ] {
            assert!(said(expr).is_empty(), "{expr}: {:?}", said(expr));
        }
    }

    #[test]
    fn of_many_pipelines_only_the_named_one_is_read() {
        let pipelines = (0..2_000).map(|n| format!("  p{n}: {{ stages: [build, test] }}\n"));
        let said = |expr: &str| {
            let text = format!(
                "pipelines:\n{}rules:\n  - {{ id: r, expr: '{expr}', severity: info }}\n",
                pipelines.clone().collect::<String>()
            );
            load_files(vec![("f.yaml".into(), text)]).diagnostics.len()
        };
        assert_eq!(said(r#"age(pipeline="p7", stage="bild") > 1m"#), 1);
        assert_eq!(said(r#"age(pipeline="p7", stage="build") > 1m"#), 0);
        assert_eq!(said(r#"age(stage="bild") > 1m"#), 0);
    }

    #[test]
    fn what_no_declared_pipeline_has_is_a_doubt() {
        for (expr, word) in [
            (r#"max(stage_duration_seconds{stage="bild"}[1m]) by (source) > 1"#, "did you mean `build`?"),
            (r#"age(pipeline="release", stage="lint") > 1m"#, "stages are build, test, deploy"),
            (r#"idle(pipeline="relaese") > 1m"#, "did you mean `release`?"),
            (r#"max(stage_duration_seconds[1m]) by (host) > 1"#, "has no label `host`"),
        ] {
            let found = said(expr);
            assert!(found.len() == 1 && !found[0].0 && found[0].1.contains(word), "{expr}: {found:?}");
        }
    }
}
