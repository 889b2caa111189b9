//! Resolves scalars to YAML types, and keeps their text as it is written.
//!
//! Invariant: a scalar is a number only if all YAML parsers agree on its value. `010` is eight to some parsers and
//! ten to others, so it is a text. `1e999` is a text, because all numbers here are finite.

use super::{Kind, Node, TextPlace};
use serde_saphyr::granit_parser::ScalarStyle;

/// Makes the node of a scalar. `tag`: a tag of YAML's core schema, such as `str`. `is_there`: whether the
/// scalar is not empty.
pub(super) fn node(
    at: TextPlace,
    value: &str,
    style: ScalarStyle,
    tag: Option<&str>,
    is_there: bool,
) -> Node {
    let is_plain = style == ScalarStyle::Plain;
    let kind = match tag {
        Some("null") => Kind::Null,
        Some("int" | "float" | "bool") => resolved(value.trim()),
        Some(_) => Kind::Text(value.into()),
        None if is_plain && is_there => resolved(value),
        None if is_plain => Kind::Null,
        None => Kind::Text(value.into()),
    };
    let is_text = matches!(kind, Kind::Text(_));
    let written = (is_there && !is_text).then(|| value.into());
    Node { at, kind, written }
}

fn resolved(value: &str) -> Kind {
    if matches!(value, "" | "~") || value.eq_ignore_ascii_case("null") {
        return Kind::Null;
    }
    let is = |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
    if is(&["true", "yes", "y", "on"]) {
        return Kind::Bool(true);
    }
    if is(&["false", "no", "n", "off"]) {
        return Kind::Bool(false);
    }
    if let Some(number) = integer(value) {
        return Kind::Integer(number);
    }
    float(value).map_or_else(|| Kind::Text(value.into()), Kind::Float)
}

/// Reads `42`, `-1_000`, `0x1F`, `0o17`, `0b1`.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let prefixes = [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)];
    let mut prefixed =
        prefixes.into_iter().filter_map(|(prefix, radix)| Some((radix, digits.strip_prefix(prefix)?)));
    let (radix, digits) = prefixed.next().unwrap_or((10, digits));
    let is_octal_to_some = radix == 10 && digits.len() > 1 && digits.starts_with('0');
    let is_grouped = !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
    if is_octal_to_some || !is_grouped || digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{}", digits.replace('_', "")), radix).ok()
}

/// Reads `1.5`, `.5`, `-1e-3`.
fn float(text: &str) -> Option<f64> {
    let is_number = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    let unsigned = text.trim_start_matches(['+', '-']);
    let is_octal_to_some =
        unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || is_octal_to_some {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn kind(text: &str) -> Kind {
        let Kind::List(items) = parse(&format!("[{text}]")).expect("YAML").kind else { panic!("a list") };
        items.into_iter().next().map_or(Kind::Null, |item| item.kind)
    }

    #[test]
    fn numbers_are_what_everybody_takes_for_one() {
        let grouped = [("0x1F", 31), ("0o17", 15), ("1_000", 1_000)];
        for (text, number) in [("42", 42), ("-7", -7), ("+7", 7), ("0", 0)].into_iter().chain(grouped) {
            assert_eq!(kind(text), Kind::Integer(number), "{text}");
        }
        let large = ("18446744073709551615", 2f64.powi(64));
        for (text, number) in [("1.10", 1.1), ("1e5", 1e5), ("-.5", -0.5), large] {
            assert_eq!(kind(text), Kind::Float(number), "{text}");
        }
        let others =
            ["010", "-010", "1e999", "2026-11-01", "1.2.3", "++5", "0x", "1__0", "inf", ".nan", "e5"];
        for text in others.into_iter().chain(["'5'"]) {
            assert!(matches!(kind(text), Kind::Text(_)), "{text}: {:?}", kind(text));
        }
    }

    #[test]
    fn tags_say_what_a_scalar_is() {
        assert_eq!(kind("!!str 5"), Kind::Text("5".into()));
        assert_eq!(kind("!!int '5'"), Kind::Integer(5));
        assert_eq!((kind("yes"), kind("'yes'")), (Kind::Bool(true), Kind::Text("yes".into())));
        assert_eq!((kind("~"), kind("null")), (Kind::Null, Kind::Null));
        assert_eq!(kind("\"\""), Kind::Text(String::new()));
    }
}
