//! Walking a file's tree: typed reads that note what is wrong and go on.

use super::diagnostic::{Diagnostic, nearest};
use super::yaml::{Key, Kind, Node, Place};
use crate::core::Span;
use std::cell::RefCell;

/// One file under check, collecting what is wrong with it.
#[derive(Debug)]
pub struct File<'a> {
    pub name: &'a str,
    text: &'a str,
    found: RefCell<Vec<Diagnostic>>,
}

impl<'a> File<'a> {
    pub fn new(name: &'a str, text: &'a str) -> File<'a> {
        File { name, text, found: RefCell::new(Vec::new()) }
    }

    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.found.into_inner()
    }

    pub fn error(&self, at: Place, message: impl Into<String>, hint: Option<String>) {
        self.note(at, 1, true, message.into(), hint);
    }

    pub fn warn(&self, at: Place, message: impl Into<String>, hint: Option<String>) {
        self.note(at, 1, false, message.into(), hint);
    }

    /// An error within a text value: `offset` and `length` in bytes of the value.
    pub fn error_within(
        &self,
        node: &Node,
        offset: usize,
        length: usize,
        message: String,
        hint: Option<String>,
    ) {
        let Kind::Text(value) = &node.kind else { return self.error(node.at, message, hint) };
        let line = self.line(node.at.line);
        let begins: String = line.chars().skip(node.at.column - 1).take(1).collect();
        let quote = usize::from(matches!(begins.as_str(), "'" | "\""));
        let before = value.get(..offset).unwrap_or(value).chars().count();
        let length = value.get(offset..offset + length).map_or(1, |part| part.chars().count());
        // A block scalar begins on another line: the caret stays at its head then.
        let is_inline =
            line.contains(value.get(..offset).unwrap_or_default()) && !begins.contains(['|', '>']);
        let column = if is_inline { node.at.column + quote + before } else { node.at.column };
        self.note(Place { line: node.at.line, column }, length.max(1), true, message, hint);
    }

    fn note(&self, at: Place, length: usize, is_error: bool, message: String, hint: Option<String>) {
        let text = self.line(at.line).to_string();
        let column = at.column.clamp(1, text.chars().count() + 1);
        self.found.borrow_mut().push(Diagnostic {
            file: self.name.into(),
            line: at.line,
            column,
            length,
            is_error,
            message,
            hint,
            text,
        });
    }

    fn line(&self, number: usize) -> &'a str {
        self.text.lines().nth(number.saturating_sub(1)).unwrap_or("")
    }

    /// The entries of a map; a key that is not in `known` is an error.
    pub fn map<'n>(&self, node: &'n Node, known: &[&str]) -> Vec<(&'n Key, &'n Node)> {
        let Kind::Map(entries) = &node.kind else {
            self.wrong(node, "a map of keys and values");
            return Vec::new();
        };
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            let hint = match nearest(&key.text, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.error(key.at, format!("unknown key `{}`", key.text), Some(hint));
        }
        entries.iter().map(|(key, value)| (key, value)).collect()
    }

    /// The same where people look for a key that stands elsewhere: what is wrong with it, and where it stands.
    pub fn map_without<'n>(
        &self,
        node: &'n Node,
        known: &[&str],
        (elsewhere, message, hint): (&str, &str, &str),
    ) -> Vec<(&'n Key, &'n Node)> {
        let entries = self.map(node, &[known, &[elsewhere]].concat());
        for (key, _) in entries.iter().filter(|(key, _)| key.text == elsewhere) {
            self.error(key.at, message, Some(hint.into()));
        }
        entries
    }

    /// The entries of a map whose keys are names of the user's own.
    pub fn names<'n>(&self, node: &'n Node) -> Vec<(&'n Key, &'n Node)> {
        match &node.kind {
            Kind::Map(entries) => entries.iter().map(|(key, value)| (key, value)).collect(),
            _ => {
                self.wrong(node, "a map of names");
                Vec::new()
            }
        }
    }

    pub fn list<'n>(&self, node: &'n Node) -> &'n [Node] {
        match &node.kind {
            Kind::List(items) => items,
            _ => {
                self.wrong(node, "a list");
                &[]
            }
        }
    }

    /// A text; numbers are taken as they would be written.
    pub fn text(&self, node: &Node) -> Option<String> {
        match &node.kind {
            Kind::Text(text) => Some(text.clone()),
            Kind::Integer(number) => Some(number.to_string()),
            Kind::Float(number) => Some(number.to_string()),
            Kind::Bool(value) => Some(value.to_string()),
            _ => {
                self.wrong(node, "a text");
                None
            }
        }
    }

    pub fn texts(&self, node: &Node) -> Vec<String> {
        self.list(node).iter().filter_map(|item| self.text(item)).collect()
    }

    pub fn span(&self, node: &Node) -> Option<Span> {
        let text = self.text(node)?;
        match text.parse() {
            Ok(span) => Some(span),
            Err(error) => {
                self.error(node.at, format!("`{text}` is {error}"), None);
                None
            }
        }
    }

    pub fn whole(&self, node: &Node) -> Option<u64> {
        match &node.kind {
            Kind::Integer(number) if *number >= 0 => Some(*number as u64),
            _ => {
                self.wrong(node, "a whole number");
                None
            }
        }
    }

    pub fn wrong(&self, node: &Node, expected: &str) {
        let found = match &node.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Integer(_) | Kind::Float(_) => "a number",
            Kind::Text(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        };
        self.error(node.at, format!("this is {found}, but must be {expected}"), None);
    }
}
