//! Problems in files: file:line:col, the line with a caret, and a hint.

use serde::Serialize;
use std::fmt;

/// One problem, or one remark, at a place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub file: String,
    pub line: usize,   // from 1; 0 where the whole file is meant
    pub column: usize, // from 1, in characters
    pub length: usize, // characters to underline, at least 1
    pub is_error: bool,
    pub message: String,
    pub hint: Option<String>,
    /// The line it stands in.
    pub text: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_error { "error" } else { "warning" };
        if self.line == 0 {
            return write!(f, "{}: {kind}: {}", self.file, self.message);
        }
        writeln!(f, "{}:{}:{}: {kind}: {}", self.file, self.line, self.column, self.message)?;
        let number = self.line.to_string();
        writeln!(f, "  {number} | {}", self.text)?;
        let margin = " ".repeat(number.len());
        let indent: String = self.text.chars().take(self.column - 1).map(blank).collect();
        write!(f, "  {margin} | {indent}{}", "^".repeat(self.length.max(1)))?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {margin} = hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// A tab stays a tab, so that the caret stands where the eye expects it.
fn blank(c: char) -> char {
    if c == '\t' { '\t' } else { ' ' }
}

/// The name that was probably meant, if one is near enough.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (wrong.chars().count() / 3).clamp(1, 3);
    let scored = names.into_iter().map(|name| (distance(wrong, name), name));
    scored.filter(|(distance, _)| *distance <= limit).min().map(|(_, name)| name)
}

/// Edits (insert, delete, replace) that turn one text into the other: Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, c) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (to, d) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(c != *d);
            diagonal = row[to + 1];
            row[to + 1] = replaced.min(diagonal + 1).min(row[to] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_what_was_meant() {
        assert_eq!(nearest("latencyms", ["latency_ms", "errors"]), Some("latency_ms"));
        assert_eq!(nearest("severty", ["severity", "summary"]), Some("severity"));
        assert_eq!(nearest("xyz", ["severity"]), None);
    }
}
