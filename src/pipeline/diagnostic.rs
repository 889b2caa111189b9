//! Problems in files: file:line:col, the line with a caret, and a hint.
//!
//! Invariant: a problem takes at most about 1 KiB, however long the line and the names in it are, and its
//! text contains no control sequences for a terminal.

use serde::Serialize;
use std::fmt;

/// One error or warning at a place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub file: String,
    pub line: usize,   // from 1; 0 if the problem concerns the whole file
    pub column: usize, // from 1, in characters
    pub length: usize, // characters to underline, at least 1
    pub is_error: bool,
    pub message: String,
    pub hint: Option<String>,
    /// The line of the problem, or the part of a long line around it.
    pub text: String,
    /// The column within `text`, from 1.
    pub caret: usize,
}

/// Maximum characters of a line that are shown: the width of a wide terminal.
const TEXT_CHARS_MAX: usize = 160;

/// Maximum characters of a message or hint. Its fixed part has up to 250 characters; the rest quotes the file.
const MESSAGE_CHARS_MAX: usize = 480;

impl Diagnostic {
    /// Makes an error about a whole file.
    pub fn of_file(file: impl Into<String>, message: impl Into<String>, hint: Option<&str>) -> Diagnostic {
        Diagnostic {
            file: file.into(),
            line: 0,
            column: 1,
            length: 1,
            is_error: true,
            message: message.into(),
            hint: hint.map(Into::into),
            text: String::new(),
            caret: 1,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_error { "error" } else { "warning" };
        if self.line == 0 {
            write!(f, "{}: {kind}: {}", self.file, self.message)?;
            return self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  = hint: {hint}"));
        }
        writeln!(f, "{}:{}:{}: {kind}: {}", self.file, self.line, self.column, self.message)?;
        let number = self.line.to_string();
        writeln!(f, "  {number} | {}", self.text)?;
        let margin = " ".repeat(number.len());
        let indent: String = self.text.chars().take(self.caret.saturating_sub(1)).map(blank).collect();
        write!(f, "  {margin} | {indent}{}", "^".repeat(self.length.max(1)))?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {margin} = hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Keeps a tab as it is, so that the caret is aligned with the text above it.
fn blank(c: char) -> char {
    if c == '\t' { '\t' } else { ' ' }
}

/// A part of a line around a column.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub text: String,
    /// The column in the line; at most one past its end.
    pub column: usize,
    /// The column in `text`.
    pub caret: usize,
    /// Characters from the caret to the end of the shown part, at least 1.
    pub room: usize,
}

/// Cuts a long line on both sides of `column`, which counts characters from 1.
pub(super) fn excerpt(line: &str, column: usize) -> Excerpt {
    let count = line.chars().count();
    let column = column.clamp(1, count + 1);
    let most = count.saturating_sub(TEXT_CHARS_MAX);
    let first = (column - 1).saturating_sub(TEXT_CHARS_MAX / 2).min(most);
    let shown = (count - first).min(TEXT_CHARS_MAX);
    let part = line.chars().skip(first).take(shown);
    let part: String = part.map(|c| if c == '\t' { c } else { visible(c) }).collect();
    let before = if first > 0 { "…" } else { "" };
    let after = if first + shown < count { "…" } else { "" };
    let caret = column - first + usize::from(first > 0);
    let room = (first + shown).saturating_sub(column - 1).max(1);
    Excerpt { text: format!("{before}{part}{after}"), column, caret, room }
}

/// Cuts a long message in the middle, because it may repeat a text of any length, and replaces control
/// characters.
pub fn clipped(text: &str) -> String {
    let count = text.chars().count();
    if count <= MESSAGE_CHARS_MAX {
        return text.chars().map(visible).collect();
    }
    let (head, tail) = (MESSAGE_CHARS_MAX * 2 / 3, MESSAGE_CHARS_MAX / 3);
    let end = text.chars().skip(count - tail);
    text.chars().take(head).chain(" … ".chars()).chain(end).map(visible).collect()
}

/// Replaces control characters and the characters that change the direction of text.
fn visible(c: char) -> char {
    let is_hidden = c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if is_hidden { '\u{fffd}' } else { c }
}

/// Maximum bytes of a name that is compared: the time of a comparison is the product of both lengths.
const NEAREST_BYTES_MAX: usize = 64;

/// The largest number of names that are compared with an unknown one: 1,000 × 64 × 64 = 4 million steps.
const NEAREST_NAMES_MAX: usize = 1_000;

/// Returns the known name that is most similar to an unknown one, if it is similar enough.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if wrong.len() > NEAREST_BYTES_MAX {
        return None;
    }
    let length = wrong.chars().count();
    let limit = (length / 3).clamp(1, 3);
    let is_alike =
        |name: &&str| name.len() <= NEAREST_BYTES_MAX && name.chars().count().abs_diff(length) <= limit;
    let alike = names.into_iter().take(NEAREST_NAMES_MAX).filter(is_alike);
    let scored = alike.filter_map(|name| Some((distance(wrong, name, limit)?, name)));
    scored.min().map(|(_, name)| name)
}

/// The optimal string alignment distance: the number of edits (insert, delete, replace, exchange of two neighbours)
/// that turn one text into the other, with no part edited twice. Returns `None` if the distance exceeds `limit`.
fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for at in 1..=a.len() {
        let mut next = vec![at];
        for to in 1..=b.len() {
            let replaced = row[to - 1] + usize::from(a[at - 1] != b[to - 1]);
            let mut least = replaced.min(row[to] + 1).min(next[to - 1] + 1);
            if at > 1 && to > 1 && a[at - 1] == b[to - 2] && a[at - 2] == b[to - 1] {
                least = least.min(before[to - 2] + 1);
            }
            next.push(least);
        }
        // The minimum of a row never decreases, so no later row can be within the limit.
        if next.iter().min().is_none_or(|least| *least > limit) {
            return None;
        }
        before = std::mem::replace(&mut row, next);
    }
    Some(row[b.len()]).filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_what_was_meant() {
        assert_eq!(nearest("latencyms", ["latency_ms", "errors"]), Some("latency_ms"));
        assert_eq!(nearest("severty", ["severity", "summary"]), Some("severity"));
        assert_eq!(
            nearest("form", ["from", "to"]),
            Some("from"),
            "two letters in the wrong order are one slip"
        );
        assert_eq!(nearest("fr", ["rf", "to"]), Some("rf"));
        assert_eq!(nearest("xyz", ["severity"]), None);
        let long = "a".repeat(1 << 20);
        assert_eq!(nearest(&long, [long.as_str()]), None, "a megabyte is no slip");
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let line = format!("{}X{}", "ä".repeat(1_000), "b".repeat(1_000));
        let found = excerpt(&line, 1_001);
        assert_eq!((found.column, found.text.chars().count()), (1_001, TEXT_CHARS_MAX + 2));
        assert_eq!(found.text.chars().nth(found.caret - 1), Some('X'));
        assert!(found.text.starts_with('…') && found.text.ends_with('…'));
        let last = excerpt(&line, 9_999);
        assert_eq!((last.column, last.caret, last.room), (2_002, TEXT_CHARS_MAX + 2, 1));
        let short = excerpt("a: \u{1b}[31m", 2);
        assert_eq!((short.text.as_str(), short.column, short.caret), ("a: \u{fffd}[31m", 2, 2));
        assert_eq!(excerpt("", 7), Excerpt { text: String::new(), column: 1, caret: 1, room: 1 });
    }

    #[test]
    fn a_message_keeps_both_ends_of_what_is_too_long() {
        assert_eq!(clipped("short\u{7}"), "short\u{fffd}");
        let long = clipped(&format!("unknown key `{}` here", "k".repeat(1 << 20)));
        assert!(long.chars().count() <= MESSAGE_CHARS_MAX + 3, "{}", long.chars().count());
        assert!(long.starts_with("unknown key `kk") && long.ends_with("` here"), "{long}");
    }
}
