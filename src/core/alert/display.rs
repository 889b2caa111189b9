//! The display of a value and its limit, in the unit in which the author wrote the limit.
//!
//! Intuition: an author who wrote `> 1%` thinks in percent, whatever the unit of the value is.
//! Invariant: the displayed numbers compare like the judged ones. If three digits would round a value past
//! the limit to the limit itself, more digits are written.
//! Rejected: the value's own unit, because it gives 0.0290 against `> 1%`; a unit by magnitude, because two
//! alerts of one rule could have two units.

use super::transition::{State, Transition};
use crate::core::vocab::comparison::Comparison;
use crate::core::vocab::time::{Span, Timestamp};
use crate::core::vocab::unit::Unit;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Significant digits of a value; whole numbers keep all their digits.
const DIGITS: usize = 3;

/// Significant digits that distinguish any two `f64` numbers.
const DIGITS_MAX: usize = 17;

/// The text for an unknown value.
const UNKNOWN: &str = "unknown";

/// A value and its limit as text, in the author's unit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Display {
    /// The value, such as `2.9 %`, or `unknown`.
    pub value: String,
    /// The limit as its author wrote it, such as `> 1 %`.
    pub threshold: String,
}

impl Display {
    /// Formats a value and its limit. `unit`: unit of the value; `threshold`: the limit as the author wrote
    /// it; `limit`: the limit in the value's unit.
    pub fn new(value: Option<f64>, unit: Option<&Unit>, threshold: &str, limit: Option<f64>) -> Display {
        let (op, rest) = split(threshold);
        let scale = Scale::of(rest, unit, limit);
        let text = scale.limit_text(rest);
        let sign = op.map_or("", Comparison::symbol);
        Display {
            value: value.map_or_else(|| UNKNOWN.into(), |value| scale.value_text(value, op)),
            threshold: format!("{sign} {text}").trim().to_string(),
        }
    }

    /// Returns the same display with an unknown value.
    pub fn without_value(self) -> Display {
        Display { value: UNKNOWN.into(), ..self }
    }

    pub fn is_known(&self) -> bool {
        !self.value.is_empty() && self.value != UNKNOWN
    }

    /// Returns whether the displayed value is past the displayed limit; `None` if they cannot be compared.
    pub fn holds(&self) -> Option<bool> {
        let (op, rest) = split(&self.threshold);
        let op = op?;
        if let (Some(value), Some(limit)) = (Literal::read(&self.value), Literal::read(rest))
            && value.suffix == limit.suffix
        {
            return Some(op.holds(value.number, limit.number));
        }
        let (value, limit) = (self.value.parse::<Span>().ok()?, rest.parse::<Span>().ok()?);
        Some(op.holds(value.ms() as f64, limit.ms() as f64))
    }

    /// Describes value and limit of an alert in this state.
    fn sentence(&self, state: State) -> String {
        let (Display { value, threshold }, holds) = (self, self.holds());
        if split(threshold).1.is_empty() {
            return value.clone();
        }
        match state {
            State::Resolved if !self.is_known() => format!("no longer {threshold}"),
            _ if !self.is_known() => format!("value unknown, limit {threshold}"),
            State::Stale if holds == Some(false) => format!("last known {value}, limit {threshold}"),
            State::Stale => format!("last known {value} {threshold}"),
            State::Resolved if holds != Some(true) => format!("{value}, no longer {threshold}"),
            State::Resolved => format!("{value}, limit {threshold}"),
            _ if holds == Some(false) => format!("{value}, limit {threshold}"),
            _ => format!("{value} {threshold}"),
        }
    }
}

impl Transition {
    /// Returns the key in words: `source=checkout, stage=build`.
    pub fn about(&self) -> String {
        self.key.words()
    }

    /// Returns the value and its limit: `2.9 % > 1 %`; `0.4 %, no longer > 1 %` at the end.
    pub fn judged(&self) -> String {
        self.display.sentence(self.state)
    }

    /// Returns the state in words, with the cause that keeps the alert from being notified, if there is one.
    pub fn state_in_words(&self) -> String {
        let state = self.state.name();
        match &self.suppressed_by {
            Some(cause) => format!("{state}, muted by {} {}", cause.kind, cause.id),
            None => state.to_string(),
        }
    }

    /// Returns since when the alert has had no input, if that is long: `no data since 09:12`.
    pub fn silence(&self) -> Option<String> {
        self.no_data_since.map(|since| format!("no data since {}", clock(since, self.at)))
    }
}

/// Returns the time of day in UTC, with the date if it is not the date of `now`.
pub(crate) fn clock(time: Timestamp, now: Timestamp) -> String {
    let day = Span::from_hours(24);
    let text = time.to_string();
    let (date, hour) = (text.get(..10).unwrap_or(""), text.get(11..16).unwrap_or(""));
    if time.floor(day) == now.floor(day) { hour.to_string() } else { format!("{date} {hour}") }
}

/// Splits a threshold into its comparison and the text behind it.
fn split(threshold: &str) -> (Option<Comparison>, &str) {
    // Longer operators come first, so that `>=` is not read as `>`.
    const OPS: [Comparison; 6] = [
        Comparison::GreaterEqual,
        Comparison::LessEqual,
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Greater,
        Comparison::Less,
    ];
    let text = threshold.trim();
    let op = OPS.into_iter().find(|op| text.starts_with(op.symbol()));
    let rest = op.map_or(text, |op| &text[op.symbol().len()..]);
    (op, rest.trim())
}

/// A number at the start of a text, and the rest of the text, such as a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Literal<'t> {
    number: f64,
    text: &'t str,
    suffix: &'t str,
}

impl<'t> Literal<'t> {
    fn read(text: &'t str) -> Option<Literal<'t>> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let whole = digits(unsigned, |c| c.is_ascii_digit() || c == '.');
        let exponent = unsigned[whole..].strip_prefix(['e', 'E']).map_or(0, |after| {
            let power = after.strip_prefix(['+', '-']).unwrap_or(after);
            let count = digits(power, |c| c.is_ascii_digit());
            if count == 0 { 0 } else { 1 + after.len() - power.len() + count }
        });
        let (number, suffix) = text.split_at(text.len() - unsigned.len() + whole + exponent);
        let parsed = number.parse::<f64>().ok().filter(|number| number.is_finite())?;
        Some(Literal { number: parsed, text: number, suffix: suffix.trim() })
    }
}

/// Returns the length, in bytes, of the leading characters for which `is_one` holds.
fn digits(text: &str, is_one: impl Fn(char) -> bool) -> usize {
    text.find(|c| !is_one(c)).unwrap_or(text.len())
}

/// The unit in which a limit is written, and the conversion of a value to that unit.
#[derive(Debug, PartialEq)]
enum Scale<'t> {
    /// `per`: how many of the author's units are one unit of the value; `limit`: the author's number.
    Unit { per: f64, symbol: &'t str, limit: f64 },
    /// A duration such as `10m`. `per`: milliseconds in one unit of the value; `limit`: the limit
    /// in milliseconds.
    Clock { per: f64, limit: f64 },
    /// The limit is no number, so the value keeps its own unit.
    Own(Option<&'t Unit>),
}

impl<'t> Scale<'t> {
    fn of(rest: &'t str, unit: Option<&'t Unit>, limit: Option<f64>) -> Scale<'t> {
        let Some(literal) = Literal::read(rest) else { return Scale::Own(unit) };
        let per = |number: f64, author: &Unit| match limit {
            Some(limit) if limit != 0.0 && number != 0.0 => number / limit,
            _ => factor(unit, author),
        };
        if literal.suffix.is_empty() {
            return Scale::Unit { per: 1.0, symbol: unit.map_or("", symbol), limit: literal.number };
        }
        if let Some(author) = Unit::known(literal.suffix) {
            let per = per(literal.number, &author);
            return Scale::Unit { per, symbol: literal.suffix, limit: literal.number };
        }
        match rest.parse::<Span>() {
            Ok(span) => Scale::Clock { per: per(span.ms() as f64, &Unit::Ms), limit: span.ms() as f64 },
            Err(_) => Scale::Own(unit),
        }
    }

    fn limit_text(&self, rest: &str) -> String {
        match (self, Literal::read(rest)) {
            (Scale::Unit { symbol, .. }, Some(literal)) => with_symbol(literal.text, symbol),
            _ => rest.to_string(),
        }
    }

    fn value_text(&self, value: f64, op: Option<Comparison>) -> String {
        match self {
            Scale::Unit { per, symbol, limit } => {
                with_symbol(&number(value * per, op.map(|op| (op, *limit))), symbol)
            }
            Scale::Clock { per, limit } => duration(value * per, op.map(|op| (op, *limit))),
            Scale::Own(Some(Unit::S)) if value.abs() >= 60.0 => duration(value * 1_000.0, None),
            Scale::Own(Some(Unit::Bytes)) => bytes(value),
            Scale::Own(unit) => with_symbol(&number(value, None), unit.map_or("", symbol)),
        }
    }
}

/// Returns how many of the author's units are one unit of the value. A value without a unit is a ratio if
/// the author wrote `%`.
fn factor(unit: Option<&Unit>, author: &Unit) -> f64 {
    match unit {
        Some(unit) => unit.factor_to(author).unwrap_or(1.0),
        None if *author == Unit::Percent => 100.0,
        None => 1.0,
    }
}

fn with_symbol(number: &str, symbol: &str) -> String {
    if symbol.is_empty() { number.to_string() } else { format!("{number} {symbol}") }
}

/// Returns the symbol of a unit as it is written behind a number.
fn symbol(unit: &Unit) -> &str {
    match unit {
        Unit::Percent => "%",
        Unit::Ratio | Unit::Count => "",
        Unit::Us => "µs",
        Unit::Kib => "KiB",
        Unit::Mib => "MiB",
        Unit::Gib => "GiB",
        other => other.name(),
    }
}

fn bytes(value: f64) -> String {
    let sizes = [("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1_024.0)];
    let (symbol, size) = sizes.into_iter().find(|(_, size)| value.abs() >= *size).unwrap_or(("bytes", 1.0));
    with_symbol(&number(value / size, None), symbol)
}

/// Formats a number with the fewest digits, but at least [`DIGITS`], that keep it on the same side of a limit.
fn number(value: f64, against: Option<(Comparison, f64)>) -> String {
    let is_true = |text: &String| {
        let shown = text.parse::<f64>().unwrap_or(value);
        against.is_none_or(|(op, limit)| op.holds(shown, limit) == op.holds(value, limit))
    };
    let mut texts = (DIGITS..=DIGITS_MAX).map(|digits| significant(value, digits));
    texts.find(is_true).unwrap_or_else(|| value.to_string())
}

/// Rounds to this many significant digits. Below 1e15, digits before the decimal point are never
/// rounded away.
fn significant(value: f64, digits: usize) -> String {
    let size = value.abs();
    let rounded = || format!("{:.*e}", digits - 1, value).parse::<f64>().unwrap_or(value);
    if value == 0.0 {
        "0".into()
    } else if !(1e-6..1e15).contains(&size) {
        // Very small and very large numbers use scientific notation, because all their digits are hard to read.
        format!("{:e}", rounded())
    } else if size >= 10f64.powi(digits as i32 - 1) {
        value.round().to_string()
    } else {
        rounded().to_string()
    }
}

/// Formats milliseconds as a duration, rounded as coarsely as keeps it on the same side of a limit.
fn duration(ms: f64, against: Option<(Comparison, f64)>) -> String {
    // Each step: the least duration, and the precision to which it is rounded, in milliseconds.
    let steps = [(86_400_000.0, 60_000.0), (10_000.0, 1_000.0), (1_000.0, 100.0), (0.0, 1.0)];
    let fitting = steps.into_iter().filter(|(from, _)| ms.abs() >= *from);
    let mut rounded = fitting.map(|(_, step)| (ms / step).round() * step);
    let is_true =
        |shown: &f64| against.is_none_or(|(op, limit)| op.holds(*shown, limit) == op.holds(ms, limit));
    Span::from_ms(rounded.find(is_true).unwrap_or(ms) as i64).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: f64, unit: Option<Unit>, threshold: &str, limit: Option<f64>) -> (String, String) {
        let display = Display::new(Some(value), unit.as_ref(), threshold, limit);
        (display.value, display.threshold)
    }

    #[test]
    fn a_value_is_shown_in_the_unit_of_its_limit() {
        let (percent, ratio, ms, s) = (Some(Unit::Percent), Some(Unit::Ratio), Some(Unit::Ms), Some(Unit::S));
        let cases = [
            (0.029, None, "> 1%", Some(0.01), "2.9 %", "> 1 %"),
            (0.029, ratio.clone(), "> 1%", Some(0.01), "2.9 %", "> 1 %"),
            (97.123, percent.clone(), "> 95%", Some(95.0), "97.1 %", "> 95 %"),
            (97.123, percent, "> 95", Some(95.0), "97.1 %", "> 95 %"),
            (0.3, ratio.clone(), "> 0.2", Some(0.2), "0.3", "> 0.2"),
            (0.1 + 0.2, None, "> 0.2", Some(0.2), "0.3", "> 0.2"),
            (-0.5, ratio.clone(), "< -30%", Some(-0.3), "-50 %", "< -30 %"),
            (0.2, ratio, "> 0%", Some(0.0), "20 %", "> 0 %"),
            (1_500.0, ms.clone(), "> 1s", Some(1_000.0), "1.5 s", "> 1 s"),
            (1_827.31, ms.clone(), ">= 500ms", Some(500.0), "1827 ms", ">= 500 ms"),
            (1_827.31, ms, "> 1000", Some(1_000.0), "1827 ms", "> 1000 ms"),
            (680.44, s.clone(), "> 10m", Some(600.0), "11m20s", "> 10m"),
            (0.68, s.clone(), "> 10m", Some(600.0), "680ms", "> 10m"),
            (680.44, s.clone(), "> learned", None, "11m20s", "> learned"),
            (3.214, s, "> upper(x, 24h, 3)", None, "3.21 s", "> upper(x, 24h, 3)"),
            (3_221_225_472.0, Some(Unit::Bytes), "> 1GiB", Some(1_073_741_824.0), "3 GiB", "> 1 GiB"),
            (3_221_225_472.0, Some(Unit::Bytes), "> quota", None, "3 GiB", "> quota"),
            (12_345.0, Some(Unit::Count), "> 1e4", Some(1e4), "12345", "> 1e4"),
            (3.0, Some(Unit::from_name("cards")), "< 5", Some(5.0), "3 cards", "< 5 cards"),
            (0.000_123_456, None, "> 0.0001", Some(0.000_1), "0.000123", "> 0.0001"),
            (95.0, None, "> 60 s", None, "95 s", "> 60 s"),
        ];
        for (value, unit, threshold, limit, in_words, with_unit) in cases {
            let wanted = (in_words.to_string(), with_unit.to_string());
            assert_eq!(shown(value, unit, threshold, limit), wanted, "{value} {threshold}");
        }
        assert_eq!(Display::new(None, None, "> 1%", Some(0.01)).value, "unknown");
    }

    #[test]
    fn what_is_shown_compares_as_what_was_judged() {
        let cases = [
            (1.000_4, "> 1", "1.0004"),
            (0.999_96, "> 1", "1"),
            (1.0, "> 1", "1"),
            (499.6, "< 500", "499.6"),
            (5e-320, "> 0", "5e-320"),
            (1e20, "> 1e19", "1e20"),
        ];
        for (value, threshold, text) in cases {
            let (op, rest) = split(threshold);
            let limit = rest.parse::<f64>().expect("a number");
            let display = Display::new(Some(value), None, threshold, Some(limit));
            assert_eq!(display.value, text);
            assert_eq!(display.holds(), op.map(|op| op.holds(value, limit)), "{value} {threshold}");
        }
        let late = Display::new(Some(600.4), Some(&Unit::S), "> 10m", Some(600.0));
        assert_eq!((late.value.as_str(), late.holds()), ("10m400ms", Some(true)));
    }

    #[test]
    fn a_sentence_is_true_in_each_state() {
        let of = |value: f64| Display::new(Some(value), None, "> 1%", Some(0.01));
        let cases = [
            (of(0.029), State::Firing, "2.9 % > 1 %"),
            (of(0.004), State::Firing, "0.4 %, limit > 1 %"),
            (of(0.029), State::Pending, "2.9 % > 1 %"),
            (of(0.004), State::Resolved, "0.4 %, no longer > 1 %"),
            (of(0.029), State::Resolved, "2.9 %, limit > 1 %"),
            (of(0.029), State::Stale, "last known 2.9 % > 1 %"),
            (of(0.004), State::Stale, "last known 0.4 %, limit > 1 %"),
            (of(0.029).without_value(), State::Escalated, "value unknown, limit > 1 %"),
            (of(0.029).without_value(), State::Resolved, "no longer > 1 %"),
            (Display::default(), State::Firing, ""),
        ];
        for (display, state, sentence) in cases {
            assert_eq!(display.sentence(state), sentence, "{state:?}");
        }
    }

    #[test]
    fn a_time_of_another_day_has_its_date() {
        let at = |ms: i64| Timestamp::clamped(1_793_491_200_000 + ms);
        assert_eq!(clock(at(33_120_000), at(40_000_000)), "09:12");
        assert_eq!(clock(at(33_120_000), at(100_000_000)), "2026-11-01 09:12");
    }
}
