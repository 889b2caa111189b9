//! Series: whether they can be read, their names here, and functions over their ranges.

use super::super::ast::Vector;
use super::keys::Keys;
use super::said::{Leaf, Value};
use super::{NOW, Translated, Translator};
use crate::core::Span;
use crate::core::rule::ast::pane_of;
use crate::core::vocab::unit::Unit;
use std::collections::BTreeSet;

/// Series that Prometheus makes of its alerts.
const OWN: [&str; 2] = ["ALERTS", "ALERTS_FOR_STATE"];

impl Translator<'_> {
    /// Whether a series is recorded in these files; returns an error if it cannot be read.
    pub(super) fn is_record(&mut self, of: &Vector) -> Result<bool, String> {
        if of.name.is_empty() {
            return Err(
                "series without one name have no counterpart: whether they are counters is said by name"
                    .into(),
            );
        }
        if OWN.contains(&of.name.as_str()) {
            return Err(format!("there is no series `{}` here", of.name));
        }
        of.matchers.iter().try_for_each(|matcher| label(&matcher.label))?;
        let fixed = of.matchers.iter().filter(|matcher| matcher.op == "=" && !matcher.value.is_empty());
        self.fixed.extend(fixed.map(|matcher| (matcher.label.clone(), matcher.value.clone())));
        match self.facts.records.get(&of.name) {
            Some(Ok(_)) => {
                self.out.records.insert(of.name.clone());
                Ok(true)
            }
            Some(Err(reason)) => Err(format!("it reads `{}`, which is left out: {reason}", of.name)),
            None => {
                if of.name.contains(':') {
                    self.note(format!("`{}` is recorded in none of these files: it must be sent", of.name));
                }
                Ok(false)
            }
        }
    }

    /// Checks a series whose current value is read: a counter is refused. Returns whether the series is a recorded
    /// one.
    pub(super) fn gauge(&mut self, of: &Vector) -> Result<bool, String> {
        if self.is_record(of)? {
            return Ok(true);
        }
        if let Some(why) = self.facts.counter(&of.name) {
            return Err(format!(
                "`{}` is a counter ({why}): here its increments are kept, not its total",
                of.name
            ));
        }
        if self.facts.may_be_counter(&of.name) {
            self.note(format!("`{}` is taken for a gauge: as a counter it would read increments", of.name));
        }
        Ok(false)
    }

    /// Registers the series as a counter, because its increments are read. Refuses a recorded series.
    fn counter(&mut self, name: &str, of: &Vector) -> Result<(), String> {
        if self.is_record(of)? {
            return Err(format!("`{name}` of a recorded series has no counterpart: it is no counter here"));
        }
        self.out.counters.insert(of.name.clone());
        Ok(())
    }

    /// Translates a function over a range. `by`: the labels of an aggregation around it.
    pub(super) fn over_range(&mut self, name: &str, of: &Vector, by: Option<&[String]>) -> Translated {
        let range = of.range.ok_or_else(|| format!("`{name}` needs a range such as `{}[5m]`", of.name))?;
        let head = over_range(name).ok_or_else(|| super::no_function(name))?;
        match name {
            "rate" => {
                self.counter(name, of)?;
                self.note(
                    "`rate` is the sum of the increments by the time that is covered, not extrapolated: with few samples in a window it differs by one of them",
                );
            }
            "increase" => {
                self.counter(name, of)?;
                self.note("`increase` is the sum of the increments, not extrapolated");
            }
            _ if self.gauge(of)? => recorded_range(name, range)?,
            _ => {}
        }
        if ADDED_UP.contains(&name) {
            let (pane, least) = (pane_of(range), range - pane_of(range));
            self.note(format!(
                "`{name}` reads the last {least} to {range}: the oldest {pane} leave a window at once"
            ));
        }
        self.leaf(head, of, range, by)
    }

    pub(super) fn quantile_over(&mut self, q: f64, of: &Vector) -> Translated {
        let range = of.range.ok_or("`quantile_over_time` needs a range")?;
        if self.gauge(of)? {
            recorded_range("quantile_over_time", range)?;
        }
        self.note("a quantile is one of the values, to 1 % or a step of its unit, not interpolated");
        self.leaf(&format!("quantile({q}, "), of, range, None)
    }

    /// Builds the call from `head`, such as `sum(`, and the selector. In a record, the value is unknown without
    /// data.
    pub(super) fn leaf(&self, head: &str, of: &Vector, window: Span, by: Option<&[String]>) -> Translated {
        let is_zero = matches!(head, "rate(" | "sum(" | "count(");
        let leaf = Leaf {
            selector: selector(of, window)?,
            by: by.map_or(String::new(), |labels| format!(" by ({})", labels.join(", "))),
            is_zero,
            vanishes: true,
        };
        let bare = format!("{head}{}){}", leaf.selector, leaf.by);
        let is_guarded = self.is_record && is_zero;
        let text = if is_guarded { format!("({bare} / min(1, {}))", leaf.count()) } else { bare.clone() };
        Ok(Value {
            text,
            keys: match by {
                Some(labels) => Keys::By(labels.iter().cloned().collect()),
                None => Keys::Series(of.name.clone()),
            },
            number: None,
            leaves: vec![leaf],
            units: if matches!(head, "rate(" | "count(") { BTreeSet::new() } else { self.units(&of.name) },
            current: BTreeSet::new(),
            bare: is_guarded.then_some(bare),
        })
    }

    fn units(&self, name: &str) -> BTreeSet<String> {
        match self.facts.records.get(name) {
            Some(Ok(units)) => units.clone(),
            _ => Unit::from_suffix(name).map(|unit| unit.to_string()).into_iter().collect(),
        }
    }
}

/// Checks a label; some labels of Prometheus have no equivalent here.
pub(crate) fn label(name: &str) -> Result<(), String> {
    match name {
        "source" => Err("label `source` has no counterpart: here it is who sends an event".into()),
        "__name__" => Err("`__name__` has no counterpart but `=`".into()),
        _ => Ok(()),
    }
}

/// Checks the labels of `by (…)`.
pub(super) fn labels(all: &[String]) -> Result<&[String], String> {
    all.iter().try_for_each(|name| label(name)).map(|()| all)
}

/// Functions whose value may differ if a part of their range is missing.
const ADDED_UP: [&str; 5] =
    ["count_over_time", "sum_over_time", "increase", "min_over_time", "max_over_time"];

/// Returns the start of the equivalent call, such as `sum(`, for a function over a range.
fn over_range(name: &str) -> Option<&'static str> {
    Some(match name {
        "rate" => "rate(",
        "increase" | "sum_over_time" => "sum(",
        "avg_over_time" => "avg(",
        "min_over_time" => "min(",
        "max_over_time" => "max(",
        "count_over_time" => "count(",
        "last_over_time" => "last(",
        "stddev_over_time" => "stddev(",
        _ => return None,
    })
}

pub(super) fn is_over_range(name: &str) -> bool {
    over_range(name).is_some() || matches!(name, "irate" | "quantile_over_time" | "predict_linear")
}

/// Checks a function over a range of a record. A record has a value when it changes and every 30 s, so only
/// functions whose result does not depend on the number of values are equivalent.
fn recorded_range(name: &str, range: Span) -> Result<(), String> {
    match name {
        "min_over_time" | "max_over_time" | "last_over_time" if range >= NOW => Ok(()),
        "min_over_time" | "max_over_time" | "last_over_time" => {
            Err(format!("a window of {range} over a recorded series may be empty; it takes {NOW}"))
        }
        _ => {
            Err(format!("`{name}` of a recorded series has no counterpart: its values come when they change"))
        }
    }
}

/// Formats `name{matchers}[window]`; a name that the expression language cannot write becomes a matcher.
pub(super) fn selector(of: &Vector, window: Span) -> Result<String, String> {
    let is_plain = of.name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && of.name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
    let mut matchers = Vec::new();
    if !is_plain {
        matchers.push(format!("name={}", quoted(&of.name)));
    }
    for matcher in &of.matchers {
        if matcher.label.contains(':') {
            return Err(format!("`{}` is no label", matcher.label));
        }
        matchers.push(format!("{}{}{}", matcher.label, matcher.op, quoted(&matcher.value)));
    }
    let name = if is_plain { of.name.as_str() } else { "" };
    let matchers = if matchers.is_empty() { String::new() } else { format!("{{{}}}", matchers.join(",")) };
    Ok(format!("{name}{matchers}[{window}]"))
}

/// Quotes a text for the expression language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
