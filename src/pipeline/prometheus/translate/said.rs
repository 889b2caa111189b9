//! A value as our language writes it, with what its meaning depends on.
//!
//! Intuition: PromQL knows no value where there is none; here `rate`, `sum` and `count` of nothing are zero and
//! everything else is unknown. So each value carries the series it is made of, and whoever compares it decides
//! which of them must be there. Invariant: a leaf that `vanishes` makes the whole value zero or unknown when it is
//! zero itself; whatever is not known to do so does not.

use super::keys::Keys;
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    pub text: String,
    pub keys: Keys,
    /// What it is, where it is a number.
    pub number: Option<f64>,
    pub leaves: Vec<Leaf>,
    /// Units of the series in it, by their suffixes.
    pub units: BTreeSet<String>,
    /// Aggregations over series' current values in it.
    pub current: BTreeSet<String>,
    /// The same without a guard, of a single leaf that has one.
    pub bare: Option<String>,
}

/// One aggregate of a selector.
#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    /// `x{a="b"}[5m]`
    pub selector: String,
    /// ` by (job)`, or nothing.
    pub by: String,
    /// Whether nothing counts as zero.
    pub is_zero: bool,
    pub vanishes: bool,
}

impl Leaf {
    /// How many observations it has.
    pub fn count(&self) -> String {
        format!("count({}){}", self.selector, self.by)
    }

    /// Whether a comparison must demand that it is there. `holds_at_zero`: the comparison holds for zero;
    /// `is_negated`: unknown must be a no.
    pub fn needs_guard(&self, holds_at_zero: bool, is_negated: bool) -> bool {
        match self.is_zero {
            true => holds_at_zero || !self.vanishes,
            false => is_negated,
        }
    }
}

impl Value {
    pub fn number(number: f64) -> Value {
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

    /// The same values through a function of which nothing is known.
    pub fn through(self, text: String) -> Value {
        let leaves = self.leaves.into_iter().map(|leaf| Leaf { vanishes: false, ..leaf }).collect();
        Value { text, leaves, bare: None, number: None, ..self }
    }

    /// The same values times a number, or their magnitude: zero stays zero.
    pub fn scaled(self, text: String) -> Value {
        Value { text, bare: None, number: None, ..self }
    }

    /// What two values make of the series in them.
    pub fn with(self, other: Value, keys: Keys, text: String) -> Value {
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
