//! The measure of an expression (its unit, or that it is a plain number), and the keys for which it has values.

use super::super::literal::Literal;
use super::super::{ExprError, Spot};
use super::{Check, times};
use crate::core::rule::ast::{Arithmetic, Expr};
use crate::core::vocab::selector::By;
use crate::core::vocab::unit::{Dimension, Unit};

/// An expression with its measure and keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Typed {
    pub expr: Expr,
    pub measure: Measure,
    pub keys: Keys,
}

/// The measure of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// A bare number; it takes the unit of the other operand.
    Number,
    /// A number written with a unit.
    Literal(Unit),
    /// A value whose unit is known.
    Unit(Unit),
    /// A value whose unit is not stated; with the metric's name, for the hint.
    Unknown(Option<String>),
}

/// The keys for which an expression has values.
#[derive(Debug, Clone, PartialEq)]
pub enum Keys {
    /// A number, which has a value for every key.
    Any,
    /// Each series of this metric is a key; the name is part of the key.
    Series(Option<std::sync::Arc<str>>),
    By(By),
}

impl Keys {
    pub fn new(by: By, selector: &crate::core::vocab::selector::Selector) -> Keys {
        match by {
            By::Series => Keys::Series(selector.name.clone()),
            by => Keys::By(by),
        }
    }

    /// Returns the common keys of two operands; both must have the same labels.
    pub fn meet(self, other: Keys, at: Spot) -> Check<Keys> {
        match (self, other) {
            (Keys::Any, keys) | (keys, Keys::Any) => Ok(keys),
            (a, b) if a == b => Ok(a),
            (a, b) => Err(ExprError::new(at, format!("one side has {}, the other {}", a.words(), b.words()))
                .hint("give both the same `by (…)`; values meet on equal keys")),
        }
    }

    fn words(&self) -> String {
        match self {
            Keys::Any => "no keys".into(),
            Keys::Series(Some(name)) => format!("a key per series of `{name}`"),
            Keys::Series(None) | Keys::By(By::Series) => "a key per series".into(),
            Keys::By(By::Labels(labels)) if labels.is_empty() => "one key over all".into(),
            Keys::By(By::Labels(labels)) => format!("keys by ({})", labels.join(", ")),
        }
    }
}

impl Typed {
    pub fn literal(literal: &Literal) -> Typed {
        let measure = literal.unit.clone().map_or(Measure::Number, Measure::Literal);
        Typed { expr: Expr::Number(literal.value), measure, keys: Keys::Any }
    }

    pub fn map(self, change: impl FnOnce(Expr) -> Expr) -> Typed {
        Typed { expr: change(self.expr), ..self }
    }

    pub fn unit(&self) -> Option<&Unit> {
        match &self.measure {
            Measure::Literal(unit) | Measure::Unit(unit) => Some(unit),
            Measure::Number | Measure::Unknown(_) => None,
        }
    }
}

/// Converts two operands of a comparison or addition to a common unit. If one is a literal, the other's unit is
/// used.
pub(super) fn align(a: Typed, a_at: Spot, b: Typed, b_at: Spot) -> Check<(Typed, Typed)> {
    use Measure::{Literal, Number, Unit, Unknown};
    match (&a.measure, &b.measure) {
        (Number | Unknown(_), Number | Unknown(_)) => Ok((a, b)),
        (Number, _) | (_, Number) => Ok((a, b)),
        (Unknown(metric), Literal(_)) => Err(unitless(b_at, metric.as_deref())),
        (Literal(_), Unknown(metric)) => Err(unitless(a_at, metric.as_deref())),
        (Unknown(_), Unit(_)) | (Unit(_), Unknown(_)) => Ok((a, b)),
        (Literal(from), Unit(to)) => Ok((converted(a.clone(), from, to, a_at)?, b)),
        (Unit(to) | Literal(to), Unit(from) | Literal(from)) => {
            let b = converted(b.clone(), from, to, b_at)?;
            Ok((a, b))
        }
    }
}

fn converted(value: Typed, from: &Unit, to: &Unit, at: Spot) -> Check<Typed> {
    let Some(factor) = from.factor_to(to) else {
        return Err(ExprError::new(at, format!("{from} cannot be compared with {to}"))
            .hint(format!("write a number in {}, or without a unit", dimension_words(to))));
    };
    let expr = match value.expr {
        // JSON stores a number that is not finite as `null`, and the whole rule set could then not be read back.
        Expr::Number(number) if !(number * factor).is_finite() => {
            return Err(ExprError::new(at, format!("this number is too large in {to}")));
        }
        Expr::Number(number) => Expr::Number(number * factor),
        other => times(other, factor),
    };
    Ok(Typed { expr, measure: Measure::Unit(to.clone()), keys: value.keys })
}

fn unitless(at: Spot, metric: Option<&str>) -> ExprError {
    let hint = match metric {
        Some(metric) => {
            format!("state it: `metrics: {{ {metric}: {{ unit: ms }} }}`, or write the number alone")
        }
        None => "write the number without a unit".into(),
    };
    ExprError::new(at, "this number has a unit, but what it is compared with has none").hint(hint)
}

fn dimension_words(unit: &Unit) -> &'static str {
    match unit.dimension() {
        Dimension::Time => "ns, us, ms, s, m or h",
        Dimension::Data => "bytes, KiB, MiB or GiB",
        Dimension::Fraction => "% or ratio",
        Dimension::Count | Dimension::Other(_) => "its own unit",
    }
}

/// Combines two values with `+`, `-`, `*` or `/`, and determines the measure of the result.
pub(super) fn arithmetic(op: Arithmetic, a: (Typed, Spot), b: (Typed, Spot), keys: Keys) -> Check<Typed> {
    let ((a, a_at), (b, b_at)) = (a, b);
    let (a, b, measure) = match op {
        Arithmetic::Add | Arithmetic::Subtract => {
            let (a, b) = align(a, a_at, b, b_at)?;
            let measure = if a.measure == Measure::Number { b.measure.clone() } else { a.measure.clone() };
            (a, b, measure)
        }
        Arithmetic::Multiply => {
            let measure = match (&a.measure, &b.measure) {
                (Measure::Number, other) | (other, Measure::Number) => other.clone(),
                (Measure::Unit(Unit::Ratio), other) | (other, Measure::Unit(Unit::Ratio)) => other.clone(),
                _ => Measure::Unknown(None),
            };
            (a, b, measure)
        }
        Arithmetic::Divide => divide(a, b),
    };
    if let (Expr::Number(x), Expr::Number(y)) = (&a.expr, &b.expr) {
        let value = fold(op, *x, *y).ok_or_else(|| ExprError::new(b_at, "this divides by zero"))?;
        return Ok(Typed { expr: Expr::Number(value), measure, keys });
    }
    let expr = Expr::Binary { op, left: Box::new(a.expr), right: Box::new(b.expr) };
    Ok(Typed { expr, measure, keys })
}

fn fold(op: Arithmetic, a: f64, b: f64) -> Option<f64> {
    let value = match op {
        Arithmetic::Add => a + b,
        Arithmetic::Subtract => a - b,
        Arithmetic::Multiply => a * b,
        Arithmetic::Divide => a / b,
    };
    value.is_finite().then_some(value)
}

/// The quotient of two values of one dimension is a ratio; a value divided by a bare number keeps its unit.
fn divide(a: Typed, b: Typed) -> (Typed, Typed, Measure) {
    let measure = match (a.unit(), b.unit()) {
        (Some(x), Some(y)) if x.dimension() == y.dimension() => {
            let factor = y.factor_to(x).unwrap_or(1.0);
            let b = b.map(|expr| times(expr, factor));
            return (a, b, Measure::Unit(Unit::Ratio));
        }
        (_, None) if b.measure == Measure::Number => a.measure.clone(),
        _ => Measure::Unknown(None),
    };
    (a, b, measure)
}
