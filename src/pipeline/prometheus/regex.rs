//! Translates regular expressions of Prometheus, which are RE2's, to the syntax of the regex library used
//! here.
//!
//! Intuition: the syntaxes are nearly the same, but differ in meaning in three places: a class inside a
//! class, operators between classes, and letters such as `\d` (ASCII in RE2, Unicode here).
//! Invariant: the result matches the same texts; an expression without an equivalent is refused.

/// Returns the translated expression, or the reason why there is none.
pub(super) fn ours(re2: &str) -> Result<String, String> {
    let mut out = String::with_capacity(re2.len());
    let mut rest = re2;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '\\' => escape(rest, false, &mut out)?,
            '[' => class(rest, &mut out)?,
            _ => {
                out.push(first);
                &rest[first.len_utf8()..]
            }
        };
    }
    Ok(out)
}

/// Copies the escape at the start of `rest`; returns the text after it.
fn escape<'r>(rest: &'r str, is_in_class: bool, out: &mut String) -> Result<&'r str, String> {
    let mut letters = rest.chars();
    letters.next();
    let Some(letter) = letters.next() else { return Err(format!("`{rest}` ends with a backslash")) };
    match (letter, is_in_class) {
        ('d', true) => out.push_str("0-9"),
        // These expansions end with a range, so a `-` after them is a literal, as it is in RE2.
        ('w', true) => out.push_str("0-9_A-Za-z"),
        ('s', true) => out.push_str(" \\t\\n\\f-\\r"),
        ('D' | 'W' | 'S', true) => {
            return Err(format!("`\\{letter}` within a class has no counterpart"));
        }
        ('d', false) => out.push_str("[0-9]"),
        ('w', false) => out.push_str("[0-9A-Za-z_]"),
        ('s', false) => out.push_str("[\\t\\n\\f\\r ]"),
        ('D', false) => out.push_str("[^0-9]"),
        ('W', false) => out.push_str("[^0-9A-Za-z_]"),
        ('S', false) => out.push_str("[^\\t\\n\\f\\r ]"),
        ('b', false) => out.push_str("(?-u:\\b)"),
        _ => out.extend(['\\', letter]),
    }
    Ok(letters.as_str())
}

/// Copies the class at the start of `rest`, and escapes the operators in it, which RE2 reads as literals;
/// returns the text after it.
fn class<'r>(rest: &'r str, out: &mut String) -> Result<&'r str, String> {
    let whole = rest;
    let mut rest = &rest[1..];
    out.push('[');
    for first in ["^", "]"] {
        if let Some(behind) = rest.strip_prefix(first) {
            out.push_str(if first == "]" { "\\]" } else { first });
            rest = behind;
        }
    }
    while let Some(letter) = rest.chars().next() {
        rest = match letter {
            ']' => {
                out.push(']');
                return Ok(&rest[1..]);
            }
            '\\' => escape(rest, true, out)?,
            '-' if rest.starts_with("--") => {
                return Err(format!("`--` in the class of `{whole}` has no counterpart"));
            }
            '[' | '&' | '~' => match named(rest) {
                Some(end) => {
                    out.push_str(&rest[..end]);
                    &rest[end..]
                }
                None => {
                    out.extend(['\\', letter]);
                    &rest[1..]
                }
            },
            _ => {
                out.push(letter);
                &rest[letter.len_utf8()..]
            }
        };
    }
    Err(format!("`{whole}` has a class without an end"))
}

/// Returns the length in bytes of a named class such as `[:alpha:]` at the start of the text.
fn named(text: &str) -> Option<usize> {
    let name = text.strip_prefix("[:")?;
    let end = name
        .find(":]")
        .filter(|end| name[..*end].bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'^'))?;
    (end > 0).then_some("[:".len() + end + ":]".len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vocab::pattern::Pattern;

    #[test]
    fn what_is_given_matches_what_re2_does() {
        let is_match = |re2: &str, text: &str| {
            Pattern::new(&ours(re2).expect("a counterpart")).expect("a pattern").is_match(text)
        };
        for (re2, hits, misses) in [
            ("[[a]b]", &["[b]", "ab]"][..], &["a", "b"][..]),
            ("[a&&b]", &["a", "&", "b"], &["ab"]),
            ("[a~~b]", &["~", "a"], &[""]),
            ("[]a]+", &["]a"], &["b"]),
            ("[^]a]", &["b"], &["]", "a"]),
            ("[[:alpha:]&]+", &["a&"], &["1"]),
            ("\\d+", &["12"], &["\u{663}"]),
            ("\\w+", &["a_1"], &["\u{e9}"]),
            ("[\\w-.]+", &["a-b.c"], &["a`b"]),
            ("[\\w-z]", &["-", "z", "_"], &["`"]),
            ("[\\s-a]", &[" ", "-", "a"], &["B"]),
            ("[[:]x]", &["[x]", ":x]"], &["x"]),
            ("[\\w.-]+", &["a.b-c"], &["\u{e9}"]),
            ("\\S+\\s\\D", &["a b"], &["a 1"]),
            ("a\\.b", &["a.b"], &["axb"]),
            ("(?i)AB|c{2}", &["ab", "cc"], &["abc"]),
        ] {
            hits.iter().for_each(|text| assert!(is_match(re2, text), "{re2} should match {text}"));
            misses.iter().for_each(|text| assert!(!is_match(re2, text), "{re2} should not match {text}"));
        }
        for none in ["[\\D]", "[a--b]", "[a", "a\\"] {
            assert!(ours(none).is_err(), "{none}");
        }
    }
}
