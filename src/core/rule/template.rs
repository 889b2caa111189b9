//! Summaries: a text with `{{ value }}`, `{{ labels.source }}` and a few filters.
//!
//! Invariant: a template cannot fail at run time, because [`check`] rejects everything unknown when the
//! rule is loaded; a missing label renders as an empty text.

use super::Rule;
use crate::core::vocab::key::Key;
use crate::core::vocab::limits::SUMMARY_BYTES_MAX;
use crate::core::vocab::severity::Severity;
use crate::core::vocab::time::Span;
use crate::core::vocab::unit::Unit;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a template was rejected, with the offset of the error in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("`{{{{` without `}}}}`")]
    Unclosed { at: usize },
    #[error("`{name}` is not known here; write value, severity, rule or labels.NAME")]
    Name { at: usize, name: String },
    #[error("filter `{name}` is not known; write percent, round or duration")]
    Filter { at: usize, name: String },
    #[error("`{mark}` begins a block, and a summary has none")]
    Block { at: usize, mark: &'static str },
}

impl TemplateError {
    pub(crate) fn at(&self) -> usize {
        match self {
            TemplateError::Unclosed { at } => *at,
            TemplateError::Name { at, .. } | TemplateError::Filter { at, .. } => *at,
            TemplateError::Block { at, .. } => *at,
        }
    }
}

/// Rejects everything that [`render`] does not support, including blocks of other template languages.
pub(crate) fn check(text: &str) -> Result<(), TemplateError> {
    parts(text).try_for_each(|(at, part)| match part? {
        Part::Text(text) => block(text).map_or(Ok(()), |(offset, mark)| {
            let at = at + offset;
            Err(TemplateError::Block { at, mark })
        }),
        _ => Ok(()),
    })
}

/// Returns where a block of another template language begins: `{% if %}`, `{# a remark #}`.
fn block(text: &str) -> Option<(usize, &'static str)> {
    let of = |mark: &'static str, end: &str| {
        let at = text.find(mark)?;
        text[at..].contains(end).then_some((at, mark))
    };
    of("{%", "%}").or(of("{#", "#}"))
}

/// Returns the labels that a template names, each with the offset in bytes at which its part begins.
pub(crate) fn labels(text: &str) -> impl Iterator<Item = (usize, &str)> {
    parts(text).filter_map(|(at, part)| match part {
        Ok(Part::Label(name)) => Some((at, name)),
        _ => None,
    })
}

/// Returns the rule's summary for one alert with the given key and labels, or the rule's id if it has no
/// summary.
pub(crate) fn render(
    rule: &Rule,
    (key, labels): (&Key, &BTreeMap<Arc<str>, Arc<str>>),
    value: Option<f64>,
    severity: Severity,
) -> String {
    let Some(text) = &rule.summary else { return rule.id.to_string() };
    let mut rendered = String::with_capacity(text.len());
    for part in parts(text).filter_map(|(_, part)| part.ok()) {
        match part {
            Part::Text(text) => rendered.push_str(text),
            Part::Label(name) => {
                let label = key.get(name).or_else(|| labels.get(name));
                rendered.push_str(label.map_or("", |value| value));
            }
            Part::Rule => rendered.push_str(&rule.id),
            Part::Severity => rendered.push_str(severity.name()),
            Part::Value(filter) => rendered.push_str(&filter.apply(value, rule.unit.as_ref())),
        }
        if rendered.len() > SUMMARY_BYTES_MAX {
            break;
        }
    }
    cut(rendered)
}

/// Cuts a text to [`SUMMARY_BYTES_MAX`] bytes and appends an ellipsis if anything was cut.
fn cut(mut text: String) -> String {
    if text.len() > SUMMARY_BYTES_MAX {
        let end = (0..=SUMMARY_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[derive(Debug, PartialEq)]
enum Part<'a> {
    Text(&'a str),
    Label(&'a str),
    Rule,
    Severity,
    Value(Filter),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Filter {
    Plain,
    Percent,
    Round,
    Duration,
}

impl Filter {
    /// `unit` is the unit of the value. Without a unit, `percent` takes the value as a ratio, and `duration`
    /// takes it as seconds.
    fn apply(self, value: Option<f64>, unit: Option<&Unit>) -> String {
        let Some(value) = value else { return "unknown".into() };
        let within = |other: &Unit| unit.and_then(|unit| unit.factor_to(other));
        match self {
            Filter::Plain => short(value),
            Filter::Percent => {
                let percent = value * within(&Unit::Percent).unwrap_or(100.0);
                format!("{} %", short((percent * 10.0).round() / 10.0))
            }
            Filter::Round => format!("{}", value.round()),
            Filter::Duration => {
                let ms = value * within(&Unit::Ms).unwrap_or(1_000.0);
                Span::from_ms(ms.round() as i64).to_string()
            }
        }
    }
}

/// Rounds to four decimals, for readability.
fn short(value: f64) -> String {
    let rounded = (value * 1e4).round() / 1e4;
    format!("{}", if rounded.is_finite() { rounded } else { value })
}

/// Returns the parts of a template, each with the offset in bytes at which it begins.
fn parts(text: &str) -> impl Iterator<Item = (usize, Result<Part<'_>, TemplateError>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let begin = at;
        if let Some(inner) = rest.strip_prefix("{{") {
            let Some(length) = inner.find("}}") else {
                at = text.len();
                return Some((begin, Err(TemplateError::Unclosed { at: begin })));
            };
            at += length + 4;
            return Some((begin, hole(&inner[..length], begin)));
        }
        let length = rest.find("{{").unwrap_or(rest.len());
        at += length;
        Some((begin, Ok(Part::Text(&rest[..length]))))
    })
}

fn hole(inner: &str, at: usize) -> Result<Part<'_>, TemplateError> {
    let (name, filter) = match inner.split_once('|') {
        Some((name, filter)) => (name.trim(), Some(filter.trim())),
        None => (inner.trim(), None),
    };
    let filter = match filter {
        None => Filter::Plain,
        Some("percent") => Filter::Percent,
        Some("round") => Filter::Round,
        Some("duration") => Filter::Duration,
        Some(other) => return Err(TemplateError::Filter { at, name: other.into() }),
    };
    match name {
        "value" | "$value" => Ok(Part::Value(filter)),
        "rule" => Ok(Part::Rule),
        "severity" => Ok(Part::Severity),
        other => match other.strip_prefix("labels.").or(other.strip_prefix("$labels.")) {
            Some(label) if !label.is_empty() && label.chars().all(is_of_label) => Ok(Part::Label(label)),
            _ => Err(TemplateError::Name { at, name: other.into() }),
        },
    }
}

/// Whether a character may occur in a label's name; any other belongs to another template language.
fn is_of_label(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | '@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_refused_when_loaded_not_when_needed() {
        assert_eq!(check("p95 of {{ labels.source }} is {{ value | percent }} high"), Ok(()));
        assert_eq!(check("{{ value"), Err(TemplateError::Unclosed { at: 0 }));
        assert_eq!(check("x {{ valeu }}"), Err(TemplateError::Name { at: 2, name: "valeu".into() }));
        assert!(matches!(check("{{ value | upper }}"), Err(TemplateError::Filter { .. })));
        assert_eq!(check("a {% if x %}"), Err(TemplateError::Block { at: 2, mark: "{%" }));
        assert_eq!(check("100 {% of {#1"), Ok(()));
        assert!(matches!(check("{{ labels.a b }}"), Err(TemplateError::Name { .. })));
        let named: Vec<_> = labels("{{ labels.a }}-{{ value }} {{ $labels.b }}").collect();
        assert_eq!(named, [(0, "a"), (27, "b")]);
    }

    #[test]
    fn a_summary_is_as_long_as_a_template_may_be() {
        assert_eq!(cut("ä".repeat(SUMMARY_BYTES_MAX / 2)).len(), SUMMARY_BYTES_MAX);
        let long = cut(format!("x{}", "ä".repeat(SUMMARY_BYTES_MAX)));
        assert!(
            long.ends_with("ä…") && long.len() == SUMMARY_BYTES_MAX - 1 + '…'.len_utf8(),
            "{}",
            long.len()
        );
    }

    #[test]
    fn values_are_written_for_people() {
        assert_eq!(Filter::Percent.apply(Some(0.7312), None), "73.1 %");
        assert_eq!(Filter::Plain.apply(Some(1.0 / 3.0), None), "0.3333");
        assert_eq!(Filter::Duration.apply(Some(605.0), None), "10m5s");
        assert_eq!(Filter::Round.apply(None, None), "unknown");
        // The filters convert from the unit of the value.
        assert_eq!(Filter::Percent.apply(Some(97.12), Some(&Unit::Percent)), "97.1 %");
        assert_eq!(Filter::Percent.apply(Some(0.5), Some(&Unit::Ratio)), "50 %");
        assert_eq!(Filter::Duration.apply(Some(1_500.0), Some(&Unit::Ms)), "1s500ms");
        assert_eq!(Filter::Duration.apply(Some(605.0), Some(&Unit::S)), "10m5s");
    }
}
