//! Checks a syntax tree and compiles it to an expression. The checks are: functions exist, units fit, keys match.
//!
//! Invariant: the result refers to views by index, and its numbers are in the unit of the values they are compared
//! with, so the engine converts no units.

mod call;
mod depth;
mod lookback;
pub(crate) mod range;
mod selector;
mod typed;

use super::parse::{Arg, Logic, MatcherTerm, Term, TermKind};
use super::{ExprError, SPLIT, Spot};
use crate::core::measure::series::MetricSpec;
use crate::core::rule::ast::{Arithmetic, Cond, Elapsed, Expr};
use crate::core::view::ViewSpec;
use crate::core::view::pipeline_records::PipelineRecords;
use crate::core::vocab::comparison::{Comparison, Side};
use crate::core::vocab::escalation::Escalation;
use crate::core::vocab::pattern::Pattern;
use crate::core::vocab::pipeline::PipelineSpec;
use crate::core::vocab::selector::{By, Selector};
use crate::core::vocab::unit::Unit;
use crate::pipeline::bounds::VIEWS_MAX;
use crate::pipeline::tree::File;
use crate::pipeline::yaml::Node;
pub use selector::{matchers, selector as selector_of};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
pub use typed::{Keys, Measure, Typed};

/// A checked expression: a value or a condition.
#[derive(Debug, Clone, PartialEq)]
pub enum Checked {
    Value(Typed),
    Condition(Cond, Keys),
}

/// The state that the expressions of one rule set share during their checks.
#[derive(Debug, Default)]
pub struct Checker {
    /// Metrics defined by `metrics:`.
    pub metrics: BTreeMap<Arc<str>, MetricSpec>,
    /// The `record:` series that are checked already.
    pub records: BTreeMap<Arc<str>, Recorded>,
    /// The recorded series that derive from pipeline series.
    pub made: PipelineRecords,
    /// All views so far; expressions refer to them by index.
    pub views: Vec<ViewSpec>,
    /// The value of `metric:` in a rule whose expression names only an aggregate, such as `p99 > 1000ms`.
    pub metric: Option<String>,
    /// Escalations that rules may name.
    pub escalations: BTreeMap<String, Escalation>,
    /// The index for the next stateful function of the current rule.
    pub places: u32,
    /// Names and windows of the series that expressions read, for the warning about short windows.
    pub reads: Vec<(Arc<str>, crate::core::Span)>,
    /// Declared pipelines.
    pub pipelines: BTreeMap<Arc<str>, PipelineSpec>,
    /// Warnings about the current expression.
    pub doubts: Vec<Doubt>,
    /// Bytes of the escalations that rules have named so far.
    pub escalation_bytes: usize,
    /// Indexes of the views that read the same series into the same keys, by [`reads_key`].
    alike: HashMap<String, Vec<u32>>,
    /// Compiled regular expressions by their text, and the bytes of all of them.
    patterns: HashMap<String, Pattern>,
    regex_bytes: usize,
}

/// The unit and labels of a `record:` series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub unit: Option<Unit>,
    /// The labels of the series; `None` if its expression does not name them.
    pub labels: Option<Vec<Arc<str>>>,
}

/// A warning about an expression that is valid but probably not intended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    pub at: Spot,
    pub message: String,
    pub hint: Option<String>,
}

type Check<T> = Result<T, ExprError>;

impl Checker {
    /// Checks a whole expression.
    pub fn check(&mut self, term: &Term) -> Check<Checked> {
        let checked = match &term.kind {
            TermKind::Compare(..) | TermKind::Logic(..) => {
                self.condition(term).map(|(cond, keys)| Checked::Condition(cond, keys))
            }
            _ => self.value(term, Side::Above).map(Checked::Value),
        }?;
        if depth::of(&checked) > depth::LEVELS_MAX {
            let message = "this expression is nested too deeply to be stored";
            return Err(ExprError::new(term.at, message).hint(SPLIT));
        }
        Ok(checked)
    }

    /// Reports the warnings about the expression in a node.
    pub fn tell_doubts(&mut self, file: &File<'_>, node: &Node) {
        for Doubt { at, message, hint } in self.doubts.drain(..) {
            file.warn_within(node, at.start, at.end.saturating_sub(at.start), message, hint);
        }
    }

    /// Checks a term that must be a condition.
    fn condition(&mut self, term: &Term) -> Check<(Cond, Keys)> {
        match &term.kind {
            TermKind::Compare(op, left, right) => self.compare(*op, left, right),
            TermKind::Logic(op, left, right) => {
                let (a, left_keys) = self.condition(left)?;
                let (b, right_keys) = self.condition(right)?;
                let keys = left_keys.meet(right_keys, term.at)?;
                let (a, b) = (Box::new(a), Box::new(b));
                let cond = match op {
                    Logic::And => Cond::And(a, b),
                    Logic::Or => Cond::Or(a, b),
                    Logic::Unless => Cond::Unless(a, b),
                };
                Ok((cond, keys))
            }
            _ => Err(ExprError::new(term.at, "this is a value, but a condition is needed here")
                .hint("compare it with something, such as `> 10`")),
        }
    }

    fn compare(&mut self, op: Comparison, left: &Term, right: &Term) -> Check<(Cond, Keys)> {
        // A regression tests one side only: increases for an operand that must be greater, decreases for one
        // that must be less.
        let (left_side, right_side) = match op {
            Comparison::Less | Comparison::LessEqual => (Side::Below, Side::Above),
            _ => (Side::Above, Side::Below),
        };
        let a = self.value(left, left_side)?;
        if is_learned(right) {
            return learned(op, a, left);
        }
        let b = self.value(right, right_side)?;
        let keys = a.keys.clone().meet(b.keys.clone(), left.at.to(right.at))?;
        if keys == Keys::Any {
            return Err(ExprError::new(left.at.to(right.at), "this compares two numbers")
                .hint("one side must read a series or a pipeline"));
        }
        let (a, b) = typed::align(a, left.at, b, right.at)?;
        if let Some(message) = range::says_nothing(&a.expr, op, &b.expr) {
            self.doubts.push(Doubt { at: left.at.to(right.at), message, hint: None });
        }
        Ok((Cond::Compare { left: a.expr, op, right: b.expr }, keys))
    }

    /// Checks a term that must be a value.
    pub(super) fn value(&mut self, term: &Term, side: Side) -> Check<Typed> {
        match &term.kind {
            TermKind::Number(literal) => Ok(Typed::literal(literal)),
            TermKind::Negative(inner) => {
                let inner = self.value(inner, side)?;
                Ok(inner.map(|expr| match expr {
                    Expr::Number(number) => Expr::Number(-number),
                    other => times(other, -1.0),
                }))
            }
            TermKind::Arithmetic(op, left, right) => {
                let a = self.value(left, side)?;
                let b = self.value(right, side)?;
                let keys = a.keys.clone().meet(b.keys.clone(), term.at)?;
                typed::arithmetic(*op, (a, left.at), (b, right.at), keys)
            }
            TermKind::Call { name, args, by } => self.call(term.at, name, args, by.as_deref(), side),
            TermKind::Selector(selector) => self.bare(term, selector),
            TermKind::Compare(..) | TermKind::Logic(..) => {
                Err(ExprError::new(term.at, "this is a condition, but a value is needed here"))
            }
        }
    }

    /// Returns the index of a view. A new view is added only if no existing view of the same series and keys can be
    /// extended to serve both.
    pub(super) fn view(&mut self, spec: ViewSpec, at: Spot) -> Check<u32> {
        let alike = self.alike.entry(reads_key(&spec)).or_default();
        for place in alike.iter() {
            let known = &mut self.views[*place as usize];
            let Some(kind) = known.kind.for_both(spec.kind) else { continue };
            known.kind = kind;
            known.has_quantiles |= spec.has_quantiles;
            known.has_spread |= spec.has_spread;
            return Ok(*place);
        }
        if self.views.len() >= VIEWS_MAX {
            let message = format!("the expressions up to here read more than {VIEWS_MAX} views");
            return Err(ExprError::new(at, message).hint("let rules share series, windows and `by (…)`"));
        }
        let place = self.views.len() as u32;
        alike.push(place);
        self.views.push(spec);
        Ok(place)
    }

    /// Returns the unit of a metric, as far as it is known before the first event.
    pub fn unit_of(&self, selector: &Selector) -> Option<Unit> {
        let name = selector.name.as_ref()?;
        if let Some(spec) = self.metrics.get(name)
            && spec.unit.is_some()
        {
            return spec.unit.clone();
        }
        if let Some(recorded) = self.records.get(name) {
            return recorded.unit.clone();
        }
        Unit::from_suffix(name).or_else(|| derived_unit(name))
    }

    pub(super) fn is_cumulative(&self, selector: &Selector) -> bool {
        let spec = selector.name.as_ref().and_then(|name| self.metrics.get(name));
        spec.is_some_and(|spec| spec.is_cumulative)
    }

    /// Converts a level such as `> 10%` to a comparison in the unit of the value it judges.
    pub fn level(&self, value: &Typed, text: &str) -> Check<crate::core::vocab::comparison::Compare> {
        let (op, literal) = super::parse::parse_level(text)?;
        let at = Spot { start: 0, end: text.len() };
        let (_, limit) = typed::align(value.clone(), at, Typed::literal(&literal), at)?;
        match limit.expr {
            Expr::Number(limit) => Ok(crate::core::vocab::comparison::Compare { op, limit }),
            _ => Err(ExprError::new(at, "a level compares with a number")),
        }
    }
}

/// Returns a text that is equal for two views if and only if they read the same series into the same keys.
fn reads_key(spec: &ViewSpec) -> String {
    let matchers = spec.selector.texts().join(",");
    let by = match &spec.by {
        By::Series => "series".into(),
        By::Labels(labels) => format!("by {labels:?}"),
    };
    format!("{:?}{{{matchers}}} {by}", spec.selector.name)
}

/// Returns the unit of a series that is derived from stage and run events.
fn derived_unit(name: &str) -> Option<Unit> {
    matches!(name, "cards_processed" | "stage_active" | "stage_waiting" | "pipeline_in_flight")
        .then_some(Unit::Count)
}

/// Multiplies a value by a factor, to convert its unit.
pub(super) fn times(expr: Expr, factor: f64) -> Expr {
    if factor == 1.0 {
        return expr;
    }
    let factor = Expr::Number(factor);
    Expr::Binary { op: Arithmetic::Multiply, left: Box::new(expr), right: Box::new(factor) }
}

pub(super) fn only_terms<'a>(args: &'a [Arg], at: Spot, name: &str) -> Check<Vec<&'a Term>> {
    args.iter()
        .map(|arg| match arg {
            Arg::Term(term) => Ok(term),
            Arg::Matcher(matcher) => {
                Err(ExprError::new(matcher.at, format!("`{name}` takes no label matchers here")))
            }
        })
        .collect::<Check<Vec<_>>>()
        .map_err(|error| if error.at == Spot::default() { ExprError { at, ..error } } else { error })
}

pub(super) fn only_matchers<'a>(args: &'a [Arg], name: &str) -> Check<Vec<&'a MatcherTerm>> {
    args.iter()
        .map(|arg| match arg {
            Arg::Matcher(matcher) => Ok(matcher),
            Arg::Term(term) => {
                Err(ExprError::new(term.at, format!("`{name}` takes `pipeline=\"…\"` and `stage=\"…\"`")))
            }
        })
        .collect()
}

/// Whether a term is the word `learned` in place of a limit.
fn is_learned(term: &Term) -> bool {
    matches!(&term.kind, TermKind::Selector(word)
        if word.name.as_deref() == Some("learned") && word.window.is_none() && word.matchers.is_empty())
}

/// Checks `idle(…) > learned`, whose limit is learned from usual values.
fn learned(op: Comparison, left: Typed, term: &Term) -> Check<(Cond, Keys)> {
    match left.expr {
        Expr::Elapsed(elapsed @ (Elapsed::Idle(_) | Elapsed::Age(_))) if op == Comparison::Greater => {
            let right = Expr::Learned(elapsed.clone());
            Ok((Cond::Compare { left: Expr::Elapsed(elapsed), op, right }, left.keys))
        }
        _ => Err(ExprError::new(term.at, "only `idle(…)` and `age(…)` have a learned limit")
            .hint("write `idle(pipeline=\"p\") > learned`")),
    }
}

#[cfg(test)]
mod tests;
