//! The rules that the `stage_limits` of a pipeline expand to.
//!
//! Invariant: a stage may have any name that an event may give it. The rule is built as a tree, so no part of
//! a name can be parsed as a part of the rule.

use super::yaml::{Key, Kind, Node, TextPlace};
use crate::core::Span;
use crate::core::vocab::limits::NAME_BYTES_MAX;

/// Returns the rule for the limit of a pipeline's stage, as a node at the place of the limit.
pub(super) fn rule(pipeline: &str, stage: &str, limit: Span, at: TextPlace) -> Node {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let expr = format!("age(pipeline={}, stage={}) > {limit}", quoted(pipeline), quoted(stage));
    let summary = format!("stage {stage} of {pipeline} takes longer than its limit of {limit}");
    let fields = [
        ("id", id_of(&format!("stage_limit_{pipeline}_{stage}"))),
        ("expr", expr),
        ("severity", "warning".into()),
        // A name that contains template syntax must not be expanded.
        ("summary", summary.replace("{{", "{ {").replace("{%", "{ %")),
    ];
    let entry = |(key, text): (&str, String)| (Key { at, text: key.into() }, Node::of_text(at, text));
    Node { at, kind: Kind::Map(fields.into_iter().map(entry).collect()), written: None }
}

/// Makes an id from a text: characters that an id cannot have are replaced, and a hash keeps different texts
/// distinct.
fn id_of(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if text.chars().all(fits) && text.len() <= NAME_BYTES_MAX {
        return text.into();
    }
    let tidy = text.chars().map(|c| if fits(c) { c } else { '_' }).take(NAME_BYTES_MAX / 2);
    let hash = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
    format!("{}_{:08x}", tidy.collect::<String>(), hash as u32)
}

#[cfg(test)]
mod tests {
    use super::super::load_files;

    /// Goal: each limit becomes a rule, whatever the name of the stage. Method: names with blanks, quotes and
    /// braces; limits of stages with blanks were once accepted and ignored.
    #[test]
    fn each_limit_is_a_rule_whatever_its_stage_is_called() {
        let text = r#"pipelines:
  'a/b: build':
    stages: ['unit tests', plain, "say \"{{ x }}\""]
    stage_limits: { 'unit tests': 10m, unit_tests: 11m, plain: 5m, "say \"{{ x }}\"": 1h }
  release:
    stage_limits: { test_execution: 10m }
"#;
        let loaded = load_files(vec![("f.yaml".into(), text.into())]);
        let rules = loaded.rules.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics)).rules;
        assert_eq!(rules.len(), 5);
        assert_eq!(&*rules[4].id, "stage_limit_release_test_execution");
        assert_eq!(&*rules[4].text, r#"age(pipeline="release", stage="test_execution") > 10m"#);
        assert!(rules[0].id.starts_with("stage_limit_a_b__build_unit_tests_"), "{}", rules[0].id);
        assert_eq!(&*rules[3].text, r#"age(pipeline="a/b: build", stage="say \"{{ x }}\"") > 1h"#);
        let wrong =
            load_files(vec![("f.yaml".into(), "pipelines: { p: { stage_limits: { s: soon } } }".into())]);
        assert_eq!(wrong.diagnostics.len(), 1);
    }
}
