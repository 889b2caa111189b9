//! A fast check whether a rule surely is not met, without learning the baseline.
//!
//! Intuition: ninety-nine of a hundred evaluations are far from their limit and have no consequence. So
//! before a baseline is learned, bounds decide whether the rule can be met at all: the value of each function
//! lies between two bounds ([`crate::core::detect::bounds`]), and so does an expression over functions.
//! Invariant: a rule that this check reports as surely not met is not met in the exact evaluation. All
//! other keys are evaluated exactly, so a bound is never published as a value, a limit or a reason.
//! Rejected: bounds for all arithmetic (rules compare one function with one limit), and bounds for periods
//! with windows left out (they are few, and are learned on their own).

use super::baseline_cache::Normal;
use super::trend_line::SharedLine;
use super::{Evaluation, Notes};
use crate::core::detect::bounds::{Bounds, least_magnitude};
use crate::core::detect::regression::Window;
use crate::core::rule::ast::{Cond, Expr, Function, Past};
use crate::core::rule::{OnUnknown, Rule, Subject};
use crate::core::view;
use crate::core::vocab::aggregate::Aggregate;
use crate::core::vocab::comparison::Comparison;
use crate::core::vocab::key::KeyId;

/// Lower and upper bound of a value.
type Range = (f64, f64);

/// Bounds of `regression_score` where nothing is significant.
const NOT_SIGNIFICANT: Range = (f64::NEG_INFINITY, 1.0);

/// Bounds of `anomaly` where nothing is unusual.
const USUAL: Range = (0.0, 1.0);

/// Whether [`Evaluation::is_surely_not_met`] is worth calling: the rule reads past windows, whose learning costs
/// more than the check, and it does not fire on unknown.
pub(crate) fn may_be_told(rule: &Rule) -> bool {
    let asks_the_past = match &rule.subject {
        Subject::Value(expr) => asks_the_past(expr),
        Subject::Condition(cond) => asks_the_past_at_all(cond),
    };
    asks_the_past && rule.on_unknown != OnUnknown::Fire
}

fn asks_the_past_at_all(cond: &Cond) -> bool {
    match cond {
        Cond::Compare { left, right, .. } => asks_the_past(left) || asks_the_past(right),
        Cond::And(a, b) | Cond::Or(a, b) | Cond::Unless(a, b) => {
            asks_the_past_at_all(a) || asks_the_past_at_all(b)
        }
    }
}

fn asks_the_past(expr: &Expr) -> bool {
    match expr {
        Expr::Past(_) => true,
        Expr::Abs(inner) => asks_the_past(inner),
        _ => false,
    }
}

impl Evaluation<'_> {
    /// Whether the rule surely is not met for a key and its evaluation leaves nothing to remember.
    pub(crate) fn is_surely_not_met(&mut self, rule: &Rule, key: KeyId) -> bool {
        (self.target.key, self.notes) = (key, Notes::default());
        self.notes.min_count = rule.min_count;
        let is_not_met = match &rule.subject {
            Subject::Value(expr) => self.prefilter(expr).is_some_and(|value| {
                let conditions = rule.levels.iter().filter_map(|level| level.condition);
                conditions.into_iter().all(|one| surely_not(value, one.op, (one.limit, one.limit)))
            }),
            Subject::Condition(cond) => self.surely_does_not_hold(cond) == Some(true),
        };
        let has_enough = self.notes.count_max.is_none_or(|count| count >= rule.min_count);
        is_not_met && has_enough && self.notes.look_again.is_none()
    }

    /// Returns whether the condition surely does not hold; `None` if it must be evaluated exactly. Both sides are
    /// always checked, because either may need another evaluation at a later time.
    fn surely_does_not_hold(&mut self, cond: &Cond) -> Option<bool> {
        Some(match cond {
            Cond::Compare { left, op, right } => {
                surely_not(self.prefilter(left)?, *op, self.prefilter(right)?)
            }
            Cond::And(a, b) => self.surely_does_not_hold(a)? | self.surely_does_not_hold(b)?,
            Cond::Or(a, b) => self.surely_does_not_hold(a)? & self.surely_does_not_hold(b)?,
            Cond::Unless(a, b) => self.surely_does_not_hold(a)? & self.surely_does_not_hold(b).is_some(),
        })
    }

    /// Returns the bounds of an expression; `None` where it must be evaluated exactly.
    fn prefilter(&mut self, expr: &Expr) -> Option<Range> {
        match expr {
            Expr::Number(number) => Some((*number, *number)),
            Expr::Aggregate { view, aggregate } => {
                self.aggregate(*view, *aggregate, self.target.at).ok().map(|value| (value, value))
            }
            Expr::Abs(inner) => self
                .prefilter(inner)
                .map(|(low, high)| (least_magnitude((low, high)), low.abs().max(high.abs()))),
            Expr::Past(past) => self.prefilter_lookback(past),
            _ => None,
        }
    }

    fn prefilter_lookback(&mut self, asked: &Past) -> Option<Range> {
        let now = self.aggregate(asked.current, asked.aggregate, self.target.at);
        let (_, extent) = self.plain_extent(asked)?;
        let place = extent.place(asked.baseline);
        let windows = self.inputs.views[asked.baseline as usize].sealed(self.target.key)?;
        if asked.function.is_line() {
            now.ok()?;
            let lines = self.learned.memos.lines.entry(place).or_default();
            let line = lines.get_or_insert_with(self.target.key, SharedLine::default);
            let between = line.between(&windows, extent)?;
            return Some(self.follow_roughly(asked, &between));
        }
        let above = windows.tail_begin();
        let keys = self.learned.memos.normal.entry(place).or_default();
        let normal = keys.get_or_insert_with(self.target.key, || Normal::new(&windows, extent));
        let (bounds, newest_sum) = normal.bounds(&windows, extent)?;
        match asked.function {
            Function::Upper { k } => Some(bounds.bound(k)),
            Function::Lower { k } => Some(bounds.bound(-k)),
            Function::ZScore => bounds.z(now.ok()?),
            Function::RobustZ => bounds.robust_z(now.ok()?),
            Function::Anomaly => bounds.is_usual(now.ok()?, newest_sum).then_some(USUAL),
            Function::Regression | Function::RegressionScore => {
                let (value, looked) = (now.ok()?, (asked.current, self.target.key));
                let window = view::trailing(self.inputs.views, looked, self.target.at, value, above);
                let is_score = asked.function == Function::RegressionScore;
                let is_unchanged = is_unchanged(asked, bounds, &window);
                is_unchanged.then_some(if is_score { NOT_SIGNIFICANT } else { (0.0, 0.0) })
            }
            Function::Trend | Function::Forecast { .. } => None,
        }
    }
}

fn is_unchanged(asked: &Past, bounds: &Bounds, window: &Window) -> bool {
    match asked.aggregate {
        Aggregate::Count | Aggregate::RateOfCount => bounds.is_unchanged_count(window.value, asked.side),
        Aggregate::Avg => bounds.is_unchanged_average(window, asked.side),
        _ => bounds.is_unchanged(window, asked.side),
    }
}

/// Whether a comparison holds for no pair of values within these bounds.
fn surely_not(left: Range, op: Comparison, right: Range) -> bool {
    match op {
        Comparison::Greater => left.1 <= right.0,
        Comparison::GreaterEqual => left.1 < right.0,
        Comparison::Less => left.0 >= right.1,
        Comparison::LessEqual => left.0 > right.1,
        Comparison::Equal => left.1 < right.0 || left.0 > right.1,
        Comparison::NotEqual => false,
    }
}
