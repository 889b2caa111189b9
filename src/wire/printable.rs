//! Foreign text on a terminal. Characters that would move the cursor, change colours or reverse the text
//! direction are written as escapes.
//!
//! Intuition: a producer may give a source any name, and an operator who lists alerts must see the name
//! instead of its effect on the terminal. Invariant: the output contains no control character and none that
//! changes the text direction; plain text is unchanged. Rejected: omitting such characters (two sources would
//! look the same); replacing them (the original could not be identified).

use std::borrow::Cow;
use std::fmt::Write;

/// Returns text for one cell or one line: line breaks and tabs are escaped too.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_unfit, |out, c| {
        // Writing to a String cannot fail.
        let _ = match c {
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            c if c.is_ascii() => write!(out, "\\x{:02x}", u32::from(c)),
            c => write!(out, "\\u{{{:x}}}", u32::from(c)),
        };
    })
}

/// Returns text of several lines, such as a diagnostic, with each line escaped by itself. Tabs are kept, because a
/// diagnostic aligns its carets by them.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    let is_kept = |c: char| matches!(c, '\n' | '\t');
    match text.contains(|c: char| is_unfit(c) && !is_kept(c)) {
        false => Cow::Borrowed(text),
        true => {
            let of_line = |line: &str| line.split('\t').map(printable).collect::<Vec<_>>().join("\t");
            Cow::Owned(text.split('\n').map(of_line).collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Returns JSON in which the characters that a terminal would interpret are JSON escapes.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    let is_kept = |c: char| matches!(c, '\n' | '\r' | '\t');
    escaped(
        json,
        |c: char| is_unfit(c) && !is_kept(c),
        |out, c| {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}"); // writing to a String cannot fail
            }
        },
    )
}

fn escaped(text: &str, is_unfit: impl Fn(char) -> bool, escape: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.contains(&is_unfit) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unfit(c) { escape(&mut out, c) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// Matches control characters (C0, DEL, C1), direction controls, invisible marks and Unicode line separators.
fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_others_controls_a_terminal() {
        let cases = [
            ("checkout", "checkout"),
            ("größer 日本 🙂 a\\b", "größer 日本 🙂 a\\b"),
            ("\u{1b}[2J\u{1b}[31mX\r\nY", "\\x1b[2J\\x1b[31mX\\r\\nY"),
            ("a\tb\u{7f}\0", "a\\tb\\x7f\\x00"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}fdp.exe", "abc\\u{202e}fdp.exe"),
            ("\u{2066}x\u{2069}\u{feff}\u{2028}", "\\u{2066}x\\u{2069}\\u{feff}\\u{2028}"),
            ("\u{1b}]8;;http://evil\u{7}here", "\\x1b]8;;http://evil\\x07here"),
        ];
        for (text, shown) in cases {
            assert_eq!(printable(text), shown);
            assert!(!printable(text).contains(is_unfit));
        }
        assert!(matches!(printable("plain"), Cow::Borrowed(_)), "nothing is copied for nothing");
    }

    #[test]
    fn every_character_is_either_itself_or_written_out() {
        for c in ('\0'..=char::MAX).filter(|c| c.len_utf8() < 4 || u32::from(*c) >= 0xe0000) {
            let text = c.to_string();
            let shown = printable(&text);
            assert!(shown == text || (shown.is_ascii() && shown.starts_with('\\')), "{c:?}");
            assert!(!shown.chars().any(char::is_control), "{c:?}");
        }
    }

    #[test]
    fn lines_stay_lines() {
        let text = "a.yaml:1:2: error: `\u{1b}[2J`\n  1 | \tx\r\n    | \t^";
        let shown = "a.yaml:1:2: error: `\\x1b[2J`\n  1 | \tx\\r\n    | \t^";
        assert_eq!(printable_lines(text), shown);
        assert!(matches!(printable_lines("a\n\tb"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({"a": "\u{9b}31m \u{7f} \u{202e} \u{e0001} \u{1b} ok"});
        for text in [value.to_string(), serde_json::to_string_pretty(&value).expect("JSON")] {
            let shown = printable_json(&text);
            assert!(!shown.contains(|c: char| is_unfit(c) && c != '\n'), "{shown}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
        }
    }
}
