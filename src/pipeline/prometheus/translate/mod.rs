//! Translates PromQL to the expression language, from a list of constructs that are known to be equivalent.
//!
//! Intuition: each construct has a branch here that checks under which conditions it is equivalent. The table in the
//! documentation of [`super`] lists these conditions.
//! Invariant: a construct without a known equivalent is refused; no branch copies a name that it does not know.
//! Rejected: an approximate translation (a rule that fires for another reason is worse than a missing one,
//! and nobody notices it).

mod aggregate;
mod condition;
mod keys;
mod said;
mod series;
mod value;

use super::ast::Node;
use super::facts::Facts;
use crate::core::Span;
use keys::Keys;
use said::Value;
pub(super) use series::label as readable;
use std::collections::{BTreeMap, BTreeSet};

/// The translation of one expression.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Translation {
    pub expr: String,
    /// Metrics whose increments are read.
    pub counters: BTreeSet<String>,
    /// Series that must be known before their first event: name, labels.
    pub declared: Vec<(String, BTreeMap<String, String>)>,
    /// Labels that the alerts have besides those of the key.
    pub labels: BTreeMap<String, String>,
    /// Labels of the keys, as far as the expression determines them, each with its value if there is only
    /// one.
    pub key_labels: BTreeMap<String, Option<String>>,
    /// Whether the keys may have labels beyond these.
    pub has_other_labels: bool,
    /// Records that the expression reads.
    pub records: BTreeSet<String>,
    /// Metrics whose current values are read; a series that has ended has none.
    pub current: BTreeSet<String>,
    /// Metrics that must be sent as observations instead of buckets.
    pub observed: BTreeSet<String>,
    /// Units of the series in the expression.
    pub units: BTreeSet<String>,
    /// The time by which Prometheus' lookback exceeds the window used here.
    pub patience: Span,
    /// Differences between the expression and its translation.
    pub notes: BTreeSet<String>,
}

/// The lookback of Prometheus for the newest sample.
const LOOKBACK: Span = Span::from_mins(5);

/// The window for the value of a record, which is repeated every 30 s, and for the current values of several
/// series.
const NOW: Span = Span::from_mins(1);

/// Translates the condition of an alert.
pub(super) fn alert(node: &Node, facts: &Facts) -> Result<Translation, String> {
    let mut translator = Translator::new(facts, false);
    let condition = translator.top(node)?;
    Ok(translator.finish(condition.text, condition.keys))
}

/// Translates the value of a record.
pub(super) fn record(node: &Node, facts: &Facts) -> Result<Translation, String> {
    let mut translator = Translator::new(facts, true);
    let value = translator.value(node)?;
    if value.number.is_some() {
        return Err("it reads no series".into());
    }
    translator.out.units = value.units;
    Ok(translator.finish(value.text, value.keys))
}

struct Translator<'f> {
    facts: &'f Facts,
    /// Whether a record is translated. A record has no condition that could contain a guard, so its value itself
    /// must be unknown without data.
    is_record: bool,
    /// Labels for which a selector has an `=` matcher, with the value of the matcher.
    fixed: BTreeMap<String, String>,
    out: Translation,
}

type Translated = Result<Value, String>;

impl<'f> Translator<'f> {
    fn new(facts: &'f Facts, is_record: bool) -> Translator<'f> {
        Translator { facts, is_record, fixed: BTreeMap::new(), out: Translation::default() }
    }

    fn finish(self, expr: String, keys: Keys) -> Translation {
        let has_other_labels = matches!(keys, Keys::Series(_));
        let key_labels = match keys {
            Keys::Any => BTreeMap::new(),
            Keys::Series(_) => self.fixed.into_iter().map(|(label, value)| (label, Some(value))).collect(),
            Keys::By(labels) => labels.into_iter().map(|label| (label, None)).collect(),
        };
        Translation { expr, key_labels, has_other_labels, ..self.out }
    }

    fn note(&mut self, text: impl Into<String>) {
        self.out.notes.insert(text.into());
    }
}

/// Returns the reason why a function is refused.
fn no_function(name: &str) -> String {
    match name {
        "irate" => {
            "`irate` is the rate between the last two samples; `rate(x[1m])` is the nearest here".into()
        }
        "deriv" | "delta" | "idelta" => {
            format!("`{name}` has no counterpart; `trend(agg, period)` gives a slope per hour")
        }
        "time" | "timestamp" => {
            format!("`{name}` has no counterpart; `silent(…)` and `age(…)` measure time")
        }
        "absent" | "absent_over_time" => {
            format!("`{name}` within another expression has no counterpart; it can be a rule of its own")
        }
        "vector" | "scalar" => format!("`{name}` has no counterpart: here a value belongs to a key"),
        _ => format!("`{name}` has no counterpart"),
    }
}
