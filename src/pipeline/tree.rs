//! Typed access to a file's YAML tree. A read of a wrong value adds a diagnostic and the checks continue.
//!
//! Invariant: a file full of errors costs no more than a correct file. Its line starts are computed once, and
//! problems beyond the first hundred are counted instead of described.

use super::bounds::{DIAGNOSTICS_MAX, NAMES_MAX, PROSE_BYTES_MAX, REGEXES_BYTES_MAX};
use super::diagnostic::{Diagnostic, clipped, excerpt, nearest};
use super::yaml::{Key, Kind, Node, TextPlace};
use crate::core::Span;
use crate::core::vocab::limits::NAME_BYTES_MAX;
use crate::core::vocab::selector::{Matcher, Test};
use crate::core::vocab::severity::Severity;
use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;

/// Maximum number of rule names in a file's matchers that are checked for typing errors. A usual file has a few
/// inhibitions and maintenance windows.
const MENTIONS_MAX: usize = 200;

/// One file under check, with the problems found so far.
#[derive(Debug)]
pub struct File<'a> {
    pub name: &'a str,
    text: &'a str,
    /// The byte offsets of the lines, computed on first use.
    starts: OnceCell<Vec<u32>>,
    found: RefCell<Vec<Diagnostic>>,
    /// The number of problems beyond the described ones, and whether one of them is an error.
    more: Cell<(usize, bool)>,
    /// Bytes of the file's compiled regular expressions, and their limit.
    regex_bytes: Cell<usize>,
    regex_bytes_max: usize,
    /// Names of rules in the file's matchers.
    mentions: RefCell<Vec<(TextPlace, Arc<str>)>>,
}

impl<'a> File<'a> {
    pub fn new(name: &'a str, text: &'a str) -> File<'a> {
        File {
            name,
            text: text.strip_prefix('\u{feff}').unwrap_or(text),
            starts: OnceCell::new(),
            found: RefCell::new(Vec::new()),
            more: Cell::new((0, false)),
            regex_bytes: Cell::new(0),
            regex_bytes_max: REGEXES_BYTES_MAX,
            mentions: RefCell::new(Vec::new()),
        }
    }

    /// Returns the file with a lower limit for the bytes of regular expressions.
    pub(super) fn with_regexes_within(self, regex_bytes_max: usize) -> File<'a> {
        File { regex_bytes_max, ..self }
    }

    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        let (more, is_error) = self.more.get();
        if more > 0 {
            let message = format!("and {more} more; correct those above to see them");
            found.push(Diagnostic { is_error, ..Diagnostic::of_file(self.name, message, None) });
        }
        found
    }

    pub fn error(&self, at: TextPlace, message: impl Into<String>, hint: Option<String>) {
        self.note(at, 1, true, message.into(), hint);
    }

    pub fn warn(&self, at: TextPlace, message: impl Into<String>, hint: Option<String>) {
        self.note(at, 1, false, message.into(), hint);
    }

    /// Notes an error within a text value. `offset` and `length` are in bytes of the value.
    pub fn error_within(
        &self,
        node: &Node,
        offset: usize,
        length: usize,
        message: String,
        hint: Option<String>,
    ) {
        self.note_within(node, (offset, length), true, message, hint);
    }

    /// Notes a warning within a text value, as [`File::error_within`] does for an error.
    pub fn warn_within(
        &self,
        node: &Node,
        offset: usize,
        length: usize,
        message: String,
        hint: Option<String>,
    ) {
        self.note_within(node, (offset, length), false, message, hint);
    }

    fn note_within(
        &self,
        node: &Node,
        (offset, length): (usize, usize),
        is_error: bool,
        message: String,
        hint: Option<String>,
    ) {
        let Some(value) = node.text().filter(|_| !self.is_full()) else {
            return self.note(node.at, 1, is_error, message, hint);
        };
        let line = self.line(node.at.line);
        let begins: String = line.chars().skip(node.at.column.saturating_sub(1)).take(1).collect();
        let quote = usize::from(matches!(begins.as_str(), "'" | "\""));
        let before = value.get(..offset).unwrap_or(value).chars().count();
        let length = value.get(offset..offset + length).map_or(1, |part| part.chars().count());
        // The text of a block scalar begins on a later line, so the caret stays at the head of the scalar.
        let is_inline =
            line.contains(value.get(..offset).unwrap_or_default()) && !begins.contains(['|', '>']);
        let column = if is_inline { node.at.column + quote + before } else { node.at.column };
        self.note(TextPlace { line: node.at.line, column }, length.max(1), is_error, message, hint);
    }

    fn note(&self, at: TextPlace, length: usize, is_error: bool, message: String, hint: Option<String>) {
        if self.is_full() {
            return self.count(is_error);
        }
        let shown = excerpt(self.line(at.line), at.column);
        self.found.borrow_mut().push(Diagnostic {
            file: self.name.into(),
            line: at.line,
            column: shown.column,
            length: length.min(shown.room),
            is_error,
            message: clipped(&message),
            hint: hint.map(|hint| clipped(&hint)),
            text: shown.text,
            caret: shown.caret,
        });
    }

    /// Whether the limit of described problems is reached; further problems are only counted.
    pub fn is_full(&self) -> bool {
        self.found.borrow().len() >= DIAGNOSTICS_MAX
    }

    /// Counts a problem without a description.
    fn count(&self, is_error: bool) {
        let (more, has_error) = self.more.get();
        self.more.set((more + 1, has_error || is_error));
    }

    fn line(&self, number: usize) -> &'a str {
        let starts = self.starts.get_or_init(|| line_starts(self.text));
        let at = number.saturating_sub(1);
        let Some(begin) = starts.get(at) else { return "" };
        let end = starts.get(at + 1).map_or(self.text.len(), |end| *end as usize);
        self.text.get(*begin as usize..end).unwrap_or("").trim_end_matches(['\n', '\r'])
    }

    /// Returns the entries of a map; a key that is not in `known` is an error.
    pub fn map<'n>(&self, node: &'n Node, known: &[&str]) -> Vec<(&'n Key, &'n Node)> {
        let Kind::Map(entries) = &node.kind else {
            self.wrong(node, "a map of keys and values");
            return Vec::new();
        };
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str())) {
            if self.is_full() {
                self.count(true);
                continue;
            }
            let hint = match nearest(&key.text, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.error(key.at, format!("unknown key `{}`", key.text), Some(hint));
        }
        entries.iter().map(|(key, value)| (key, value)).collect()
    }

    /// Returns the entries of a map, as [`File::map`] does. A key that belongs in another place is an error
    /// with this message and hint.
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

    /// Returns the entries of a map whose keys are names that the user chooses.
    pub fn names<'n>(&self, node: &'n Node) -> Vec<(&'n Key, &'n Node)> {
        match &node.kind {
            Kind::Map(entries) => {
                let named = entries.iter().filter(|(key, _)| self.fits(key.at, &key.text, NAME_BYTES_MAX));
                named.map(|(key, value)| (key, value)).collect()
            }
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

    /// Returns a scalar as it is written: `1.10`, `yes` and `010` stay unchanged.
    pub fn text(&self, node: &Node) -> Option<String> {
        let text = node.text().map(String::from);
        if text.is_none() {
            self.wrong(node, "a text");
        }
        text
    }

    /// Returns a text that is a name, within the limit for names.
    pub fn name_of(&self, node: &Node) -> Option<String> {
        self.text(node).filter(|text| self.fits(node.at, text, NAME_BYTES_MAX))
    }

    /// Returns a name that identifies an object, such as a silence; it must not be empty.
    pub fn id_of(&self, node: &Node) -> Option<String> {
        let id = self.name_of(node)?;
        if id.is_empty() {
            self.error(
                node.at,
                "an id cannot be empty",
                Some("leave it out in a request, and one is made".into()),
            );
            return None;
        }
        Some(id)
    }

    /// Returns a human-readable text of at most `PROSE_BYTES_MAX` bytes.
    pub fn prose(&self, node: &Node) -> Option<String> {
        self.text(node).filter(|text| self.fits(node.at, text, PROSE_BYTES_MAX))
    }

    fn fits(&self, at: TextPlace, text: &str, bytes_max: usize) -> bool {
        let fits = text.len() <= bytes_max;
        if !fits {
            let message = format!("this text has {} bytes; at most {bytes_max} are taken here", text.len());
            self.error(at, message, None);
        }
        fits
    }

    pub fn texts(&self, node: &Node) -> Vec<String> {
        self.list(node).iter().filter_map(|item| self.text(item)).collect()
    }

    /// Returns a list of names, within the limits for their number and length.
    pub fn names_in(&self, node: &Node) -> Vec<String> {
        let items = self.list(node);
        if items.len() > NAMES_MAX {
            let message = format!("this list has {} names; at most {NAMES_MAX} are taken", items.len());
            self.error(node.at, message, None);
            return Vec::new();
        }
        items.iter().filter_map(|item| self.name_of(item)).collect()
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

    pub fn flag(&self, node: &Node) -> Option<bool> {
        match &node.kind {
            Kind::Bool(value) => Some(*value),
            _ => {
                self.wrong(node, "true or false");
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

    /// Adds the bytes of compiled regular expressions; returns `false` and notes an error if they exceed the
    /// limit.
    pub(super) fn charge(&self, at: TextPlace, bytes: usize) -> bool {
        let all = self.regex_bytes.get() + bytes;
        self.regex_bytes.set(all);
        let fits = all <= self.regex_bytes_max;
        if !fits {
            let most = self.regex_bytes_max >> 20;
            let hint = Some("match by `=` where you can".into());
            self.error(at, format!("the regular expressions up to here take more than {most} MiB"), hint);
        }
        fits
    }

    /// Notes the rules and severities that an alert's matchers name. Severities are checked at once. Rules
    /// are checked by [`File::doubt_mentions`] after all files are read.
    pub(super) fn mention(&self, at: TextPlace, matchers: &[Matcher]) {
        for Matcher { label, test } in matchers {
            let Test::Equal(value) = test else { continue };
            match &**label {
                "rule" => {
                    let mut mentions = self.mentions.borrow_mut();
                    // Further names are not checked: the check only helps the author, and each name costs a
                    // comparison with every rule.
                    if mentions.len() < MENTIONS_MAX {
                        mentions.push((at, value.clone()));
                    }
                }
                "severity" if Severity::from_name(value).is_none() => {
                    let names = Severity::ALL.map(Severity::name).join(", ");
                    let message = format!("there is no severity `{value}`, so this matches nothing");
                    self.warn(at, message, Some(format!("severities are {names}")));
                }
                _ => {}
            }
        }
    }

    /// Warns about names of rules that do not exist but resemble an existing rule. Other names may belong to another
    /// directory. `rules` must be sorted.
    pub(super) fn doubt_mentions(&self, rules: &[&str]) {
        for (at, name) in self.mentions.borrow().iter() {
            if self.is_full() || rules.binary_search(&&**name).is_ok() {
                continue;
            }
            if let Some(near) = nearest(name, rules.iter().copied()) {
                let message = format!("there is no rule `{name}` here");
                self.warn(*at, message, Some(format!("did you mean `{near}`?")));
            }
        }
    }

    /// Bytes of the file's compiled regular expressions.
    pub(super) fn regex_bytes(&self) -> usize {
        self.regex_bytes.get()
    }
}

/// Returns the byte offset of each line; a lone `\r` ends a line too, as in YAML.
fn line_starts(text: &str) -> Vec<u32> {
    let bytes = text.as_bytes();
    let is_end = |at: &usize| bytes[*at] == b'\n' || bytes[*at] == b'\r' && bytes.get(at + 1) != Some(&b'\n');
    // The conversion cannot fail: a text of 4 GiB is refused before.
    let ends = (0..bytes.len()).filter(is_end).map(|at| u32::try_from(at + 1).unwrap_or(u32::MAX));
    std::iter::once(0).chain(ends).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{load_files, yaml};
    use super::*;

    fn diagnostics(text: String) -> Vec<Diagnostic> {
        load_files(vec![("f.yaml".into(), text)]).diagnostics
    }

    /// Goal: a short answer to a file with many errors on one line. Method: 20,000 unknown keys on one line;
    /// when each problem copied the whole line, 120 KB of keys made 1.3 GB of answer.
    #[test]
    fn a_line_of_unknown_keys_makes_a_short_answer() {
        let keys: Vec<String> = (0..20_000).map(|n| format!("k{n}: 1")).collect();
        let found = diagnostics(format!("{{{}}}", keys.join(", ")));
        assert_eq!(found.len(), DIAGNOSTICS_MAX + 1);
        let last = &found[DIAGNOSTICS_MAX];
        assert!(last.is_error && last.message.contains("and 19900 more"), "{last}");
        let bytes: usize = found.iter().map(|one| one.to_string().len()).sum();
        assert!(bytes < 100_000, "{bytes}");
    }

    #[test]
    fn names_of_any_length_are_shortened() {
        let long = "x".repeat(900);
        let id = "y".repeat(9_000);
        let found = diagnostics(format!("? {long}\n: 1\nrules:\n  - id: '{id}'\n    expr: x\n"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|one| one.to_string().len() < 2_000), "{found:?}");
    }

    #[test]
    fn lines_end_as_yaml_has_it() {
        let file = File::new("f", "\u{feff}a: 1\r\nb: 2\rc: 3\nd");
        assert_eq!([1, 2, 3, 4, 5].map(|number| file.line(number)), ["a: 1", "b: 2", "c: 3", "d", ""]);
    }

    #[test]
    fn texts_are_as_they_were_written() {
        let root =
            yaml::parse("[yes, 1.10, 010, 1e5, 0x1F, ~, null, 2026-11-01, on, 1e999, '5']").expect("YAML");
        let file = File::new("f", "");
        let texts = file.texts(&root);
        assert_eq!(
            texts,
            ["yes", "1.10", "010", "1e5", "0x1F", "~", "null", "2026-11-01", "on", "1e999", "5"]
        );
        assert!(file.into_diagnostics().is_empty());
    }
}
