//! The notation of promtool for the values of a series: `1+2x3` is 1 3 5 7, `5x9` is ten times 5, `_` is a gap.
//!
//! The `@` suffix is an extension. `5@+90s` arrives 90 s after its timestamp. `5@-10s` arrives 10 s before its
//! timestamp, because the sender's clock is 10 s ahead.

use super::{EVENTS_MAX, Input, START};
use crate::core::{Span, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;

/// A value and its lateness: arrival time minus timestamp. The lateness is negative if the sender's clock is ahead.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Placed {
    pub value: f64,
    pub late: Span,
}

/// Splits `name{label="value"}` into its parts.
pub(crate) fn series_name(text: &str) -> Option<(String, BTreeMap<String, String>)> {
    use crate::pipeline::expr::parse::{TermKind, parse};
    let TermKind::Selector(selector) = parse(text).ok()?.term.kind else { return None };
    let labels = selector.matchers.into_iter();
    let labels: Option<BTreeMap<_, _>> =
        labels.map(|matcher| (matcher.op == "=").then_some((matcher.label, matcher.value))).collect();
    Some((selector.name?, labels?))
}

/// Returns the events of a series with these values, each with its arrival time. The default `source` is
/// `test`.
pub(crate) fn observations(
    (name, mut labels): (String, BTreeMap<String, String>),
    values: Vec<Option<Placed>>,
    interval: Span,
    unit: Option<&str>,
) -> impl Iterator<Item = (Timestamp, Input)> {
    let source = labels.remove("source").unwrap_or_else(|| "test".into());
    let slots = values.into_iter().enumerate();
    slots.filter_map(move |(place, value)| {
        let (value, time) = (value?, START + interval * place as i64);
        let mut event = json!({"type": "metric", "time": time.ms(), "source": source, "name": name,
            "value": value.value, "labels": labels});
        if let Some(unit) = unit {
            event["unit"] = json!(unit);
        }
        Some((time + value.late, Input::Event(event.to_string().into())))
    })
}

/// Expands the notation to one entry per slot; `None` is a slot without a value.
pub(crate) fn expand(text: &str) -> Option<Vec<Option<Placed>>> {
    let mut values = Vec::new();
    for word in text.split_whitespace() {
        let (word, mark) = word.split_once('@').map_or((word, None), |(word, mark)| (word, Some(mark)));
        let late = mark.map_or(Some(Span::ZERO), lateness)?;
        let (shape, times) = match word.split_once('x') {
            Some((shape, times)) => (shape, times.parse::<usize>().ok()?),
            None => (word, 0),
        };
        if times >= EVENTS_MAX || values.len() + times > EVENTS_MAX {
            return None;
        }
        // `stale` ends the values of a series, which is the same as a gap here.
        if shape == "_" || shape == "stale" {
            values.extend(std::iter::repeat_n(None, times.max(1)));
            continue;
        }
        let (start, step) = start_and_step(shape)?;
        values.extend((0..=times).map(|n| Some(Placed { value: start + step * n as f64, late })));
    }
    Some(values)
}

/// Reads `+90s`, `90s` or `-10s`.
pub(super) fn lateness(text: &str) -> Option<Span> {
    match text.strip_prefix('-') {
        Some(ahead) => ahead.parse::<Span>().ok().map(|span| Span::ZERO - span),
        None => text.trim_start_matches('+').parse().ok(),
    }
}

/// Splits `1+2` and `1-2` into start and step; a sign after the first character belongs to the step.
fn start_and_step(shape: &str) -> Option<(f64, f64)> {
    let sign = shape.char_indices().skip(1).find(|(_, c)| matches!(c, '+' | '-'));
    let (start, step): (f64, f64) = match sign {
        Some((at, _)) => (shape[..at].parse().ok()?, shape[at..].parse().ok()?),
        None => (shape.parse().ok()?, 0.0),
    };
    (start.is_finite() && step.is_finite()).then_some((start, step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_expand_as_promtool_does_it() {
        let values = |text: &str| -> Option<Vec<Option<f64>>> {
            Some(expand(text)?.into_iter().map(|placed| placed.map(|placed| placed.value)).collect())
        };
        let some = |values: &[f64]| Some(values.iter().map(|v| Some(*v)).collect::<Vec<_>>());
        assert_eq!(values("1+2x3"), some(&[1.0, 3.0, 5.0, 7.0]));
        assert_eq!(values("10-1x2 -5"), some(&[10.0, 9.0, 8.0, -5.0]));
        assert_eq!(values("5x2"), some(&[5.0, 5.0, 5.0]));
        assert_eq!(values("1 _x2 stale 2"), Some(vec![Some(1.0), None, None, None, Some(2.0)]));
        assert_eq!((values("1y"), values("NaN"), values("1@soon")), (None, None, None));
        assert_eq!((values("1 5x18446744073709551615"), values("1x99999999")), (None, None));
    }

    #[test]
    fn a_mark_says_how_late_a_value_comes() {
        let late = |text: &str| expand(text).expect("values")[0].map(|placed| placed.late);
        assert_eq!(late("5@+90s"), Some(Span::from_secs(90)));
        assert_eq!(late("5@-10s"), Some(Span::from_secs(-10)));
        assert_eq!(late("5x3@2m"), Some(Span::from_mins(2)));
    }
}
