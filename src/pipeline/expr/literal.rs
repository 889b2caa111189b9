//! Numbers with units: `500ms`, `1.5s`, `20%`, `1GiB`, `10m`, `42`.

use crate::core::Span;
use crate::core::vocab::unit::Unit;

/// A number with its unit as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Literal {
    pub value: f64,
    pub unit: Option<Unit>,
}

/// Reads a number. A duration such as `1h30m` or `10m` is converted to milliseconds.
pub fn read(text: &str) -> Option<Literal> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = exponent(text, digits);
    let value: f64 = number.parse().ok().filter(|value: &f64| value.is_finite())?;
    if suffix.is_empty() {
        return Some(Literal { value, unit: None });
    }
    if let Some(unit) = Unit::known(suffix) {
        return Some(Literal { value, unit: Some(unit) });
    }
    let span: Span = text.parse().ok()?;
    Some(Literal { value: span.ms() as f64, unit: Some(Unit::Ms) })
}

/// Splits a number from its unit; the number may have an exponent: `1e6`, `1.5e3ms`.
fn exponent(text: &str, digits: usize) -> (&str, &str) {
    let rest = &text[digits..];
    if let Some(after) = rest.strip_prefix(['e', 'E']) {
        let length = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        if length > 0 {
            return text.split_at(digits + 1 + length);
        }
    }
    text.split_at(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_carry_their_units() {
        let cases = [
            ("500ms", 500.0, Some(Unit::Ms)),
            ("1.5s", 1.5, Some(Unit::S)),
            ("20%", 20.0, Some(Unit::Percent)),
            ("1GiB", 1.0, Some(Unit::Gib)),
            ("10m", 600_000.0, Some(Unit::Ms)),
            ("1h30m", 5_400_000.0, Some(Unit::Ms)),
            ("1e3", 1_000.0, None),
            ("42", 42.0, None),
        ];
        for (text, value, unit) in cases {
            assert_eq!(read(text), Some(Literal { value, unit }), "{text}");
        }
        for text in ["1.2.3", "5parsecs", "."] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
