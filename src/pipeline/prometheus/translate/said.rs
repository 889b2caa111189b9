//! A translated value, with the properties that decide whether a comparison with it needs a guard.
//!
//! Intuition: PromQL has no value without data. Here `rate`, `sum` and `count` are zero without data, and
//! everything else is unknown. So each value carries the series it consists of, and a comparison decides
//! which of them must have data.
//! Invariant: a leaf with `vanishes` makes the whole value zero or unknown if the leaf is zero. `vanishes` is
//! false unless this is certain.

use super::keys::Keys;
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    pub text: String,
    pub keys: Keys,
    /// The value, if it is a number.
    pub number: Option<f64>,
    pub leaves: Vec<Leaf>,
    /// Units of the series in the value, derived from the suffixes of their names.
    pub units: BTreeSet<String>,
    /// Aggregations over current values of series in the value.
    pub current: BTreeSet<String>,
    /// The text without a guard, if the value is a single leaf that has one.
    pub bare: Option<String>,
}

/// One aggregate of a selector.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaf {
    /// `x{a="b"}[5m]`
    pub selector: String,
    /// ` by (job)`, or empty.
    pub by: String,
    /// Whether the value is zero without data.
    pub is_zero: bool,
    pub vanishes: bool,
}

impl Leaf {
    /// The expression that counts the observations of the leaf.
    pub(super) fn count(&self) -> String {
        format!("count({}){}", self.selector, self.by)
    }

    /// Whether a comparison must demand data for this leaf. `holds_at_zero`: the comparison holds for zero.
    /// `is_negated`: the condition must be false instead of unknown.
    pub(super) fn needs_guard(&self, holds_at_zero: bool, is_negated: bool) -> bool {
        match self.is_zero {
            true => holds_at_zero || !self.vanishes,
            false => is_negated,
        }
    }
}

impl Value {
    pub(super) fn number(number: f64) -> Value {
        Value {
            text: number.to_string(),
            keys: Keys::Any,
            number: Some(number),
            leaves: Vec::new(),
            units: BTreeSet::new(),
            current: BTreeSet::new(),
            bare: None,
        }
    }

    /// Returns the value after a function that may map zero to another number.
    pub(super) fn through(self, text: String) -> Value {
        let leaves = self.leaves.into_iter().map(|leaf| Leaf { vanishes: false, ..leaf }).collect();
        Value { text, leaves, bare: None, number: None, ..self }
    }

    /// Returns the value after a multiplication by a number or `abs`: zero stays zero.
    pub(super) fn scaled(self, text: String) -> Value {
        Value { text, bare: None, number: None, ..self }
    }

    /// Combines two values into one with this text.
    pub(super) fn with(self, other: Value, keys: Keys, text: String) -> Value {
        Value {
            text,
            keys,
            number: None,
            leaves: [self.leaves, other.leaves].concat(),
            units: self.units.into_iter().chain(other.units).collect(),
            current: self.current.into_iter().chain(other.current).collect(),
            bare: None,
        }
    }
}
