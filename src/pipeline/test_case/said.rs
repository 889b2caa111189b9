//! Decisions of operators in a test: `say: [{ at: 5m, ack: high_latency, by: ann, why: on it }]`.

use super::{Input, START};
use crate::core::Timestamp;
use crate::core::mute::{Maintenance, Silence};
use crate::pipeline::ask;
use crate::pipeline::tree::File;
use crate::pipeline::yaml::{Key, Kind, Node};
use std::collections::BTreeMap;

/// A decision of an operator.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Acknowledges the active alert of a rule with these labels.
    Ack {
        of: Alert,
        why: String,
        until: Option<Timestamp>,
        accept: bool,
    },
    Unack(Alert),
    Silence(Silence),
    Unsilence(String),
    Maintenance(Maintenance),
    EndMaintenance(String),
}

/// Identifies an alert.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    pub rule: String,
    pub key: BTreeMap<String, String>,
    pub by: String,
}

const WORDS: [&str; 6] = ["ack", "unack", "silence", "expire_silence", "maintenance", "end_maintenance"];

const KEYS: [&str; 12] = [
    "at",
    "key",
    "by",
    "why",
    "until",
    "accept",
    "ack",
    "unack",
    "silence",
    "expire_silence",
    "maintenance",
    "end_maintenance",
];

/// Reads one entry of `say:`; returns `None` after an error is noted.
pub(super) fn read(file: &File<'_>, node: &Node) -> Option<(Timestamp, Input)> {
    let fields: BTreeMap<&str, &Node> =
        file.map(node, &KEYS).into_iter().map(|(key, value)| (key.text.as_str(), value)).collect();
    let Some(at) = fields.get("at").and_then(|node| file.span(node)) else {
        file.error(node.at, "it needs `at`, such as `at: 5m`", None);
        return None;
    };
    let at = START + at;
    let words: Vec<&str> = WORDS.into_iter().filter(|word| fields.contains_key(word)).collect();
    let [word] = words.as_slice() else {
        let hint = format!("exactly one of {}", WORDS.join(", "));
        file.error(node.at, "an entry of `say` needs exactly one action", Some(hint));
        return None;
    };
    let value = fields[word];
    let said = match *word {
        "silence" => asked(file, value, |text| ask::silence(text, NEW, at)).map(Decision::Silence),
        "maintenance" => asked(file, value, |text| ask::maintenance(text, NEW)).map(Decision::Maintenance),
        "expire_silence" => file.text(value).map(Decision::Unsilence),
        "end_maintenance" => file.text(value).map(Decision::EndMaintenance),
        "unack" => alert(file, value, &fields).map(Decision::Unack),
        _ => alert(file, value, &fields).map(|of| Decision::Ack {
            of,
            why: fields.get("why").and_then(|node| file.text(node)).unwrap_or_default(),
            until: fields.get("until").and_then(|node| file.span(node)).map(|span| START + span),
            accept: fields.get("accept").is_some_and(|node| node.kind == Kind::Bool(true)),
        }),
    };
    Some((at, Input::Decision(Box::new(said?))))
}

fn alert(file: &File<'_>, rule: &Node, fields: &BTreeMap<&str, &Node>) -> Option<Alert> {
    let mut key = BTreeMap::new();
    for (label, value) in fields.get("key").map(|node| file.names(node)).unwrap_or_default() {
        key.insert(label.text.clone(), file.text(value)?);
    }
    let by = fields.get("by").and_then(|node| file.text(node)).unwrap_or_else(|| "test".into());
    Some(Alert { rule: file.text(rule)?, key, by })
}

/// The id of a silence or maintenance window that has no `id` in the test.
const NEW: ask::New<'_> = ask::New { id: "test", by: None };

/// Reads a silence or maintenance window in the format of the API; its problems are noted at its place in the
/// file.
fn asked<T>(
    file: &File<'_>,
    node: &Node,
    read: impl FnOnce(&str) -> Result<T, Vec<crate::pipeline::Diagnostic>>,
) -> Option<T> {
    let mut node = node.clone();
    if let Kind::Map(entries) = &mut node.kind
        && !entries.iter().any(|(key, _)| key.text == "by")
    {
        entries.push((Key { at: node.at, text: "by".into() }, Node::of_text(node.at, "test")));
    }
    match read(&super::as_written(&node).to_string()) {
        Ok(found) => Some(found),
        Err(wrong) => {
            wrong.into_iter().for_each(|one| file.error(node.at, one.message, one.hint));
            None
        }
    }
}
