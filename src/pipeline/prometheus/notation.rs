//! The notation of promtool for a series and its values: `1+2x3` is 1 3 5 7, `5x9` is ten times 5, `_` is a
//! gap, `stale` ends the series.

use super::ast::{Node, Vector};
use super::{lex, promql};
use std::collections::BTreeMap;

/// The content of one slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Slot {
    Value(f64),
    /// No sample; the previous sample stays valid within the lookback.
    Gap,
    /// The series ends.
    Stale,
}

/// Maximum number of slots in one series: 11 days of one value per second.
const SLOTS_MAX: usize = 1_000_000;

/// Splits `name{label="value"}` into its parts.
pub(super) fn series(text: &str) -> Result<(String, BTreeMap<String, String>), String> {
    let Node::Vector(Vector { name, matchers, range: None }) = promql::parse(text)? else {
        return Err("it is no series".into());
    };
    if name.is_empty() || matchers.iter().any(|matcher| matcher.op != "=") {
        return Err("a series is a name and labels with `=`".into());
    }
    let labels = matchers.into_iter().map(|matcher| (matcher.label, matcher.value));
    Ok((name, labels.filter(|(_, value)| !value.is_empty()).collect()))
}

/// Expands the notation to all slots of a series.
pub(super) fn values(text: &str) -> Result<Vec<Slot>, String> {
    if text.contains("{{") {
        return Err("native histograms cannot be sent here".into());
    }
    let mut slots = Vec::new();
    for word in text.split_whitespace() {
        let (slot, step, times) = match word.strip_prefix('_') {
            Some("") => (Slot::Gap, 0.0, 1),
            Some(times) => (Slot::Gap, 0.0, repeats(word, times)?),
            None if word == "stale" => (Slot::Stale, 0.0, 1),
            None => {
                let (start, step, times) = run(word)?;
                (Slot::Value(start), step, times.saturating_add(1))
            }
        };
        if times > SLOTS_MAX - slots.len() {
            return Err(format!("it has more than {SLOTS_MAX} values"));
        }
        slots.extend((0..times).map(|place| slot.at(step * place as f64)));
    }
    Ok(slots)
}

impl Slot {
    /// Returns the slot with its value increased by `distance`.
    fn at(self, distance: f64) -> Slot {
        match self {
            Slot::Value(start) => Slot::Value(start + distance),
            other => other,
        }
    }
}

/// Splits a word into start, step and number of steps.
fn run(word: &str) -> Result<(f64, f64, usize), String> {
    let (start, rest) = number(word)?;
    if rest.is_empty() {
        return Ok((start, 0.0, 0));
    }
    let (step, rest) = if rest.starts_with(['+', '-']) { number(rest)? } else { (0.0, rest) };
    Ok((start, step, repeats(word, rest)?))
}

/// Reads the repetition `x12`.
fn repeats(word: &str, text: &str) -> Result<usize, String> {
    let times = text.strip_prefix('x').filter(|times| times.bytes().all(|byte| byte.is_ascii_digit()));
    times.and_then(|times| times.parse().ok()).ok_or_else(|| format!("`{word}` is no value"))
}

/// Reads a number with its sign; returns the rest of the text too.
fn number(text: &str) -> Result<(f64, &str), String> {
    let none = || format!("`{text}` is no value");
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let word = unsigned.to_ascii_lowercase();
    if word.starts_with("nan") || word.starts_with("inf") {
        return Err(format!("`{text}` cannot be sent: all values are finite here"));
    }
    let digits = |text: &str| text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let mut length = digits(unsigned);
    if let Some(exponent) = unsigned[length..].strip_prefix(['e', 'E']) {
        let signed = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let count = digits(signed);
        if count > 0 {
            length += 1 + (exponent.len() - signed.len()) + count;
        }
    }
    let (written, rest) = unsigned.split_at(length);
    let magnitude = lex::number(written).ok_or_else(none)?;
    Ok((if text.starts_with('-') { -magnitude } else { magnitude }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_promtool() {
        let value = |values: &[f64]| values.iter().map(|value| Slot::Value(*value)).collect::<Vec<_>>();
        let cases: [(&str, Vec<Slot>); 11] = [
            ("1+2x3", value(&[1.0, 3.0, 5.0, 7.0])),
            ("10-1x2 -5", value(&[10.0, 9.0, 8.0, -5.0])),
            ("-1-2x1", value(&[-1.0, -3.0])),
            ("5x2", value(&[5.0, 5.0, 5.0])),
            ("1e3+1x1", value(&[1000.0, 1001.0])),
            ("-1e-3x1", value(&[-0.001, -0.001])),
            ("0x2", value(&[0.0, 0.0, 0.0])),
            ("010", value(&[8.0])),
            ("+1", value(&[1.0])),
            ("_x0 5", value(&[5.0])),
            ("_ _x2 stale", vec![Slot::Gap, Slot::Gap, Slot::Gap, Slot::Stale]),
        ];
        for (text, slots) in cases {
            assert_eq!(values(text), Ok(slots), "{text}");
        }
        for text in ["1x", "a", "1 # c", "1+-2x2", "stalex3", "1_000", "1+1x2stale", "1x2.5", "9x9999999"] {
            assert!(values(text).is_err(), "{text}");
        }
        for text in ["1x18446744073709551615", "1 _x18446744073709551615", "1x18446744073709551616"] {
            assert!(values(text).is_err(), "{text}");
        }
        for (text, reason) in [("NaN", "finite"), ("-Inf", "finite"), ("{{schema:0 sum:1}}x3", "histograms")]
        {
            assert!(values(text).is_err_and(|error| error.contains(reason)), "{text}");
        }
    }

    #[test]
    fn a_series_is_a_name_and_labels() {
        let (name, labels) =
            series("{__name__=\":x:y\", name=\"docker.service\", e=\"\"}").expect("a series");
        assert_eq!((name.as_str(), labels.len(), labels["name"].as_str()), (":x:y", 1, "docker.service"));
        for text in ["x{a=~\"b\"}", "x[5m]", "rate(x[5m])", "{a=\"b\"}", "x{"] {
            assert!(series(text).is_err(), "{text}");
        }
    }
}
