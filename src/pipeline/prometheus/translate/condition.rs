//! Conditions: comparisons with the guards that they need, `and`, `or`, `unless`, `absent`.
//!
//! Intuition: without data, PromQL has no value, so nothing fires. In streamgauge, missing data may count as zero
//! and meet the comparison, and an unknown right side of `unless` hides the left side. In both cases, the
//! translation adds a guard, `count(…) > 0`, which is false without data.

use super::super::ast::{Matching, Node, Vector};
use super::keys::Keys;
use super::said::{Leaf, Value};
use super::{LOOKBACK, NOW, Translator, no_function};
use crate::core::vocab::pattern::Pattern;
use std::collections::{BTreeMap, BTreeSet};

/// A translated condition.
pub(super) struct Condition {
    pub text: String,
    pub keys: Keys,
    /// The outermost set operator.
    op: Option<&'static str>,
}

type Met = Result<Condition, String>;

/// The greatest finite number; every value is less or equal.
const GREATEST: &str = "1.7976931348623157e308";

impl Translator<'_> {
    /// Translates the expression of a whole rule; `absent` is possible only here.
    pub(super) fn top(&mut self, node: &Node) -> Met {
        match node {
            Node::Call { name, args } if name == "absent" || name == "absent_over_time" => {
                self.absent(name, args)
            }
            other => self.condition(other, false),
        }
    }

    /// Translates a condition. `is_negated`: the condition is negated by `unless`, so without data it must be false,
    /// not unknown.
    fn condition(&mut self, node: &Node, is_negated: bool) -> Met {
        match node {
            Node::Binary { op: op @ ("and" | "or" | "unless"), matching, left, right } => {
                let a = self.condition(left, is_negated)?;
                let b = self.condition(right, is_negated != (*op == "unless"))?;
                if *op == "or" {
                    self.note("with `or` the value that is shown is that of the left side");
                }
                both(op, a, b, matching)
            }
            Node::Binary { op: op @ ("==" | "!=" | ">=" | "<=" | ">" | "<"), matching, left, right } => {
                if matching.is_bool {
                    return Err("`bool` has no counterpart: a comparison is a condition here".into());
                }
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.compare(op, matching, (left, right), is_negated)
            }
            Node::Call { name, .. } if name.starts_with("absent") => Err(no_function(name)),
            other => {
                // An error in the inner expression is reported first.
                self.value(other)?;
                Err("it is no comparison: it fires for every series there is".into())
            }
        }
    }

    fn compare(
        &mut self,
        op: &'static str,
        matching: &Matching,
        (left, right): (Value, Value),
        is_negated: bool,
    ) -> Met {
        let (op, left, right) = match (left.number, right.number) {
            (Some(_), Some(_)) => return Err("it compares two numbers".into()),
            // The value that an alert shows is that of the series, on either side of the comparison.
            (Some(_), None) => (mirrored(op), right, left),
            _ => (op, left, right),
        };
        let keys = left.keys.meet(&right.keys, matching)?;
        super::value::fit(&left, &right)?;
        let (op, limit) = match right.number {
            Some(limit) if !limit.is_finite() => ("<=", always(op, limit)?.to_string()),
            _ => (op, right.text),
        };
        let holds_at_zero = right.number.is_none_or(|limit| !limit.is_finite() || holds(op, 0.0, limit));
        let mut text = format!("{} {op} {limit}", left.text);
        for guard in guards(left.leaves.iter().chain(&right.leaves), holds_at_zero, is_negated) {
            text = format!("{text} and {guard}");
        }
        Ok(Condition { text, keys, op: None })
    }

    /// Translates `absent(x{a="b"})`. A series with exactly these labels is declared, so that its absence is
    /// noticed even if it has never existed.
    fn absent(&mut self, name: &str, args: &[Node]) -> Met {
        let [Node::Vector(of)] = args else {
            return Err(format!("`{name}` of an expression has no counterpart: it must be of a series"));
        };
        let is_record = self.is_record(of)?;
        let lookback = if is_record { NOW } else { LOOKBACK };
        let labels = phantom(of)?;
        let window = of.range.unwrap_or(lookback);
        self.note(format!(
            "`{name}` looks back {window}, no marker ends a series sooner; its value is 0, not 1"
        ));
        if !is_record && self.facts.counter(&of.name).is_some() {
            self.note("a counter is seen from its second sample on");
        }
        self.out.declared.push((of.name.clone(), labels.clone()));
        self.out.labels = labels;
        let text = format!("count({}) by () == 0", super::series::selector(of, window)?);
        Ok(Condition { text, keys: Keys::By(BTreeSet::new()), op: None })
    }
}

/// Joins two conditions as `(a) and (b)`. A left side with the same operator needs no parentheses, so a chain
/// does not nest.
fn both(op: &'static str, a: Condition, b: Condition, matching: &Matching) -> Met {
    let keys = a.keys.meet(&b.keys, matching)?;
    let left = if a.op == Some(op) { a.text } else { format!("({})", a.text) };
    Ok(Condition { text: format!("{left} {op} ({})", b.text), keys, op: Some(op) })
}

/// Returns the guards (`count(…) > 0`) of the leaves that need one, without duplicates.
fn guards<'l>(
    leaves: impl Iterator<Item = &'l Leaf>,
    holds_at_zero: bool,
    is_negated: bool,
) -> BTreeSet<String> {
    let needed = leaves.filter(|leaf| leaf.needs_guard(holds_at_zero, is_negated));
    needed.map(|leaf| format!("{} > 0", leaf.count())).collect()
}

/// Translates a comparison with an infinite number or NaN: it always holds or is refused, because all values
/// are finite.
fn always(op: &str, limit: f64) -> Result<&'static str, String> {
    let is_met = match op {
        "!=" => true,
        "<" | "<=" => limit == f64::INFINITY,
        ">" | ">=" => limit == f64::NEG_INFINITY,
        _ => false,
    };
    match is_met {
        true => Ok(GREATEST),
        false => Err(format!("it is never met: all values are finite here, and none is `{op} {limit}`")),
    }
}

fn mirrored(op: &'static str) -> &'static str {
    match op {
        ">" => "<",
        "<" => ">",
        ">=" => "<=",
        "<=" => ">=",
        same => same,
    }
}

fn holds(op: &str, left: f64, right: f64) -> bool {
    match op {
        ">" => left > right,
        "<" => left < right,
        ">=" => left >= right,
        "<=" => left <= right,
        "==" => left == right,
        _ => left != right,
    }
}

/// Returns the labels of a series that the selector matches; Prometheus gives them to the alert.
fn phantom(of: &Vector) -> Result<BTreeMap<String, String>, String> {
    let equal = of.matchers.iter().filter(|matcher| matcher.op == "=" && !matcher.value.is_empty());
    let labels: BTreeMap<String, String> =
        equal.map(|matcher| (matcher.label.clone(), matcher.value.clone())).collect();
    for matcher in &of.matchers {
        let value = labels.get(&matcher.label).map_or("", String::as_str);
        let matches = || Pattern::new(&matcher.value).is_ok_and(|pattern| pattern.is_match(value));
        let is_taken = match matcher.op {
            "=" => value == matcher.value,
            "!=" => value != matcher.value,
            "=~" => matches(),
            _ => !matches(),
        };
        if !is_taken {
            return Err(format!(
                "`absent` with `{}{}\"…\"` has no counterpart: the series that is missing cannot be declared",
                matcher.label, matcher.op
            ));
        }
    }
    Ok(labels)
}
