use super::*;
use crate::pipeline::load_files;
use serde_json::json;

mod cases;
mod mixins;
mod snippets;

/// Converts one rule file.
fn one(text: &str) -> Converted {
    convert(&[("f.yml".into(), text.into())]).unwrap_or_else(|error| panic!("{error}"))
}

/// Makes a file with these rules, each as a flow map.
fn file(rules: &[&str]) -> String {
    format!("groups: [{{ name: g, rules: [{}] }}]", rules.join(", "))
}

/// Makes an alert with this expression.
fn alert_of(expr: &str) -> String {
    format!("{{ alert: a, expr: {} }}", json!(expr))
}

fn exprs(converted: &Converted) -> Vec<&str> {
    converted.rules.iter().map(|rule| rule.said.expr.as_str()).collect()
}

fn reasons(converted: &Converted) -> Vec<String> {
    converted.left_out.iter().map(|one| format!("{}: {}", one.origin.name, one.text)).collect()
}

fn notes(converted: &Converted) -> Vec<String> {
    converted.notes.iter().map(|one| format!("{}: {}", one.origin.name, one.text)).collect()
}
