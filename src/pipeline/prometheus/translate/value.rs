//! Values: numbers, current values, arithmetic, functions.

use super::super::ast::{Matching, Node, Vector};
use super::said::Value;
use super::{LOOKBACK, NOW, Translated, Translator, no_function};
use crate::core::Span;
use std::collections::BTreeSet;

/// The number of windows that a forecast needs.
const LINE_WINDOWS: i64 = 20;

impl Translator<'_> {
    pub(super) fn value(&mut self, node: &Node) -> Translated {
        match node {
            Node::Number(number) => Ok(Value::number(*number)),
            Node::Text(_) => Err("a text is no value".into()),
            Node::Vector(of) => self.current(of),
            Node::Subquery(_) => Err("a subquery has no counterpart; record its inner part".into()),
            Node::Moved(_, "offset") => {
                Err("`offset` has no counterpart; `change(agg, period)` compares with before".into())
            }
            Node::Moved(_, word) => Err(format!("`{word}` has no counterpart")),
            Node::Negative(inner) => {
                let inner = self.value(inner)?;
                let text = format!("({} * -1)", inner.text);
                Ok(inner.number.map_or_else(|| inner.scaled(text), |number| Value::number(-number)))
            }
            Node::Call { name, args } => self.call(name, args),
            Node::Aggregation { op, grouping, args } => self.aggregation(op, grouping, args),
            Node::Binary { op: op @ ("+" | "-" | "*" | "/"), matching, left, right } => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.arithmetic(op, matching, left, right)
            }
            Node::Binary { op, .. } => Err(format!("`{op}` within a value has no counterpart")),
        }
    }

    /// Translates a selector: the newest value of each series.
    fn current(&mut self, of: &Vector) -> Translated {
        if of.range.is_some() {
            return Err(format!("the range of `{}` is no value", of.name));
        }
        let window = if self.gauge(of)? { NOW } else { LOOKBACK };
        self.out.current.insert(of.name.clone());
        self.leaf("last(", of, window, None)
    }

    fn arithmetic(&mut self, op: &str, matching: &Matching, left: Value, right: Value) -> Translated {
        for number in [left.number, right.number].into_iter().flatten() {
            if !number.is_finite() {
                return Err(format!("arithmetic with `{number}` has no counterpart: all values are finite"));
            }
        }
        if let (Some(a), Some(b)) = (left.number, right.number) {
            return Ok(Value::number(fold(op, a, b)));
        }
        let keys = left.keys.meet(&right.keys, matching)?;
        match op {
            "*" => same_current(&left, &right)?,
            _ => fit(&left, &right)?,
        }
        match (op, right.number) {
            ("/", Some(0.0)) => return Err("it divides by zero".into()),
            ("/", None) => self.note("a division by zero is unknown, not infinite: nothing fires"),
            _ => {}
        }
        // The divisor needs no guard: if it has no data, it is zero, and the quotient is unknown.
        let divisor = right.bare.clone().filter(|_| op == "/").unwrap_or_else(|| right.text.clone());
        let text = format!("({} {op} {divisor})", left.text);
        let (left, right) = match op {
            "*" | "/" => (left, right),
            _ => (left.through(String::new()), right.through(String::new())),
        };
        Ok(left.with(right, keys, text))
    }

    fn call(&mut self, name: &str, args: &[Node]) -> Translated {
        match (name, args) {
            ("abs", [inner]) => {
                let inner = self.value(inner)?;
                let text = format!("abs({})", inner.text);
                Ok(inner.scaled(text))
            }
            ("clamp", [inner, low, high]) => {
                let (low, high) = (constant(name, low)?, constant(name, high)?);
                if low > high {
                    return Err("`clamp` with a lower limit above the upper one has no value".into());
                }
                let inner = self.value(inner)?;
                let text = format!("clamp({}, {low}, {high})", inner.text);
                Ok(inner.through(text))
            }
            ("clamp_min" | "clamp_max", [inner, limit]) => {
                let limit = constant(name, limit)?;
                let inner = self.value(inner)?;
                let word = if name == "clamp_min" { "max" } else { "min" };
                let text = format!("{word}({}, {limit})", inner.text);
                Ok(inner.through(text))
            }
            ("histogram_quantile", [q, inner]) => self.histogram_quantile(constant(name, q)?, inner),
            ("predict_linear", [Node::Vector(of), ahead]) => self.predict(of, constant(name, ahead)?),
            ("quantile_over_time", [q, Node::Vector(of)]) => {
                let q = constant(name, q)?;
                self.quantile_over(q, of)
            }
            (_, [Node::Vector(of)]) if of.range.is_some() => self.over_range(name, of, None),
            // If the function is known, the error about its range explains more than an error about the function.
            (_, [inner @ (Node::Subquery(_) | Node::Moved(..))]) if super::series::is_over_range(name) => {
                self.value(inner)
            }
            _ => Err(no_function(name)),
        }
    }

    fn predict(&mut self, of: &Vector, ahead: f64) -> Translated {
        let period = of.range.ok_or("`predict_linear` needs a range")?;
        if self.gauge(of)? {
            return Err("`predict_linear` of a recorded series has no counterpart".into());
        }
        let ahead = Span::from_ms((ahead * 1e3) as i64);
        let windows = [Span::from_mins(5), Span::from_mins(1), Span::from_secs(10)];
        let window = windows.into_iter().find(|window| *window * LINE_WINDOWS <= period);
        let window = window.ok_or("a forecast needs twenty windows of its past, so 200s at least")?;
        if !ahead.is_positive() {
            return Err("a forecast looks ahead, so its distance is above zero".into());
        }
        self.note("a forecast follows the Theil–Sen line, which outliers do not move");
        let inner = self.leaf("avg(", of, window, None)?;
        let text = format!("forecast({}, {period}, {ahead})", inner.text);
        Ok(inner.through(text))
    }
}

/// Checks whether two values can be added, divided or compared without a conversion of units, which
/// Prometheus does not do.
pub(super) fn fit(left: &Value, right: &Value) -> Result<(), String> {
    if left.number.or(right.number).is_some() {
        return Ok(());
    }
    let units: BTreeSet<&String> = left.units.iter().chain(&right.units).collect();
    let units: Vec<&str> = units.into_iter().map(String::as_str).collect();
    if let [first, second, ..] = units.as_slice() {
        return Err(format!(
            "it meets {first} with {second} as bare numbers; here they would be converted by their names"
        ));
    }
    same_current(left, right)
}

/// Refuses two different aggregations of current values: over one minute, the difference of `max` and `min`
/// is also the movement of a single series.
fn same_current(left: &Value, right: &Value) -> Result<(), String> {
    let all: BTreeSet<&String> = left.current.iter().chain(&right.current).collect();
    let all: Vec<&str> = all.into_iter().map(String::as_str).collect();
    match all.as_slice() {
        [first, second, ..] => Err(format!(
            "`{first}` and `{second}` of current values do not meet: here both are over a minute, so their distance is also that of one series from itself"
        )),
        _ => Ok(()),
    }
}

fn fold(op: &str, a: f64, b: f64) -> f64 {
    match op {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        _ => a / b,
    }
}

/// Evaluates arithmetic on numbers, such as `4 * 3600`.
fn constant(name: &str, node: &Node) -> Result<f64, String> {
    let found = match node {
        Node::Number(number) => Some(*number),
        Node::Negative(inner) => Some(-constant(name, inner)?),
        Node::Binary { op: op @ ("+" | "-" | "*" | "/"), left, right, .. } => {
            Some(fold(op, constant(name, left)?, constant(name, right)?))
        }
        _ => None,
    };
    found
        .filter(|number| number.is_finite())
        .ok_or_else(|| format!("`{name}` with something else than numbers as its limits has no counterpart"))
}
