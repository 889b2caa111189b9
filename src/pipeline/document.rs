//! Documents from which rules are compiled: the files of a directory, and single rules added over the API.

use super::diagnostic::Diagnostic;
use super::load::{FILES_MAX, LoadError, Loaded, SET_BYTES_MAX, load_rules, read_dir};
use crate::core::rule::RuleSet;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Maps names to texts in YAML or JSON. The rule set is compiled from them in the order of their names.
pub(crate) type Documents = BTreeMap<String, String>;

/// Reads the files of a directory; the keys are the file names without the directory.
pub(crate) fn of_dir(path: &Path) -> Result<Documents, LoadError> {
    let name = |path: &str| Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
    let files = read_dir(path)?.into_iter();
    Ok(files.map(|(path, text)| (name(&path).unwrap_or(path), text)).collect())
}

/// Compiles a rule set, or returns all problems of the documents.
pub(crate) fn compile(documents: &Documents) -> Result<RuleSet, Vec<Diagnostic>> {
    let bytes: usize = documents.values().map(String::len).sum();
    if documents.len() > FILES_MAX || bytes as u64 > SET_BYTES_MAX {
        let message = format!("there are more than {FILES_MAX} documents, or {SET_BYTES_MAX} bytes of them");
        return Err(vec![Diagnostic::of_file("all documents", message, Some("take some of them out"))]);
    }
    let files = documents.iter().map(|(name, text)| (name.clone(), text.clone())).collect();
    let Loaded { rules, diagnostics, .. } = load_rules(files);
    rules.ok_or(diagnostics)
}

/// Wraps a JSON rule that has `id` and `expr` into a document. Returns (id, document), or `None` if the text is not
/// such a rule.
pub(crate) fn of_rule(text: &str) -> Option<(String, String)> {
    let mut rule: Value = serde_json::from_str(text).ok()?;
    let object = rule.as_object_mut()?;
    if !object.contains_key("expr") {
        return None;
    }
    let id = object.get("id")?.as_str()?.to_string();
    leave_out_nulls(object);
    Some((id, document_of(&rule)))
}

/// Returns the document for a value that the store holds under the key `name`. A single rule is wrapped into a
/// document; a text or a whole document is kept as it is.
pub(crate) fn of_value(name: &str, mut value: Value) -> String {
    match &mut value {
        Value::String(text) => std::mem::take(text),
        Value::Object(rule) if rule.contains_key("expr") => {
            rule.entry("id").or_insert_with(|| name.into());
            leave_out_nulls(rule);
            document_of(&value)
        }
        _ => value.to_string(),
    }
}

/// Removes the fields that are null: in JSON, null means that a field is not set.
fn leave_out_nulls(rule: &mut Map<String, Value>) {
    rule.retain(|_, value| !value.is_null());
}

fn document_of(rule: &Value) -> String {
    json!({"version": 1, "rules": [rule]}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_rule_is_called_by_its_field() {
        let rule = json!({"expr": "count(x[1m]) by (source) > 5", "severity": "info"});
        let documents = Documents::from([("busy".into(), of_value("busy", rule))]);
        let set = compile(&documents).expect("a rule");
        assert_eq!(&*set.rules[0].id, "busy");
        let whole = of_value("x", json!("version: 1\nrules: []\n"));
        assert_eq!(whole, "version: 1\nrules: []\n");
        let wrong = Documents::from([("a".into(), of_value("a", json!({"rulez": []})))]);
        assert!(compile(&wrong).is_err_and(|found| found[0].message.contains("rulez")));
        let many = (0..=FILES_MAX).map(|n| (n.to_string(), "rules: []".into())).collect();
        assert!(compile(&many).is_err_and(|found| found[0].message.contains("1000 documents")));
        assert!(of_rule("rules: []").is_none());
        let (id, text) = of_rule(r#"{"id": "a", "expr": "x", "summary": null}"#).expect("a rule");
        assert!(id == "a" && !text.contains("summary"), "{text}");
    }
}
