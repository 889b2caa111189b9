//! PromQL's tree to an expression of ours: a list of what is known to mean the same, and nothing else.
//!
//! Intuition: each construct is named here with the conditions under which it is equal; the table of them is in the
//! documentation of [`super`]. Invariant: an arm without such a condition refuses; no arm passes a name on that it
//! does not know. Rejected: a translation that bends what is near (a rule that fires for something else is worse
//! than one that is missing, and nobody sees it).

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
pub use series::label as readable;
use std::collections::{BTreeMap, BTreeSet};

/// What came of one expression.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Translation {
    pub expr: String,
    /// Metrics of which increments are taken.
    pub counters: BTreeSet<String>,
    /// Series that must be known before they are ever seen: name, labels.
    pub declared: Vec<(String, BTreeMap<String, String>)>,
    /// Labels that its alerts have besides those of the key.
    pub labels: BTreeMap<String, String>,
    /// Labels of its keys, as far as the expression tells, and their values where there is only one.
    pub key_labels: BTreeMap<String, Option<String>>,
    /// Records it reads.
    pub records: BTreeSet<String>,
    /// Metrics whose current value it reads: that of a series that has ended is none.
    pub current: BTreeSet<String>,
    /// Metrics that must come as observations instead of buckets.
    pub observed: BTreeSet<String>,
    /// Units of the series in it.
    pub units: BTreeSet<String>,
    /// How much longer a series may be silent there than a window here is.
    pub patience: Span,
    /// What differs.
    pub notes: BTreeSet<String>,
}

/// Prometheus looks back so far for the newest sample.
const LOOKBACK: Span = Span::from_mins(5);

/// Of a record, which is repeated every 30 s, and of the values that several series have now.
const NOW: Span = Span::from_mins(1);

/// The condition of an alert.
pub fn alert(node: &Node, facts: &Facts) -> Result<Translation, String> {
    let mut translator = Translator::new(facts, false);
    let condition = translator.top(node)?;
    Ok(translator.finish(condition.text, condition.keys))
}

/// The value of a record.
pub fn record(node: &Node, facts: &Facts) -> Result<Translation, String> {
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
    /// A record has no condition that could ask whether something is there: its value must say so.
    is_record: bool,
    /// Labels of which a selector takes one value only.
    fixed: BTreeMap<String, String>,
    out: Translation,
}

type Said = Result<Value, String>;

impl<'f> Translator<'f> {
    fn new(facts: &'f Facts, is_record: bool) -> Translator<'f> {
        Translator { facts, is_record, fixed: BTreeMap::new(), out: Translation::default() }
    }

    fn finish(self, expr: String, keys: Keys) -> Translation {
        let key_labels = match keys {
            Keys::Any => BTreeMap::new(),
            Keys::Series(_) => self.fixed.into_iter().map(|(label, value)| (label, Some(value))).collect(),
            Keys::By(labels) => labels.into_iter().map(|label| (label, None)).collect(),
        };
        Translation { expr, key_labels, ..self.out }
    }

    fn note(&mut self, text: impl Into<String>) {
        self.out.notes.insert(text.into());
    }
}

/// Why a function is refused.
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
