//! Whether a rule surely is not met, told without learning what is normal.
//!
//! Intuition: of a hundred evaluations ninety-nine are far from their limit, and what follows of them is nothing. So
//! before it is learned what a window is compared with, it is asked whether that can matter: each function lies
//! between two bounds ([`super::super::detect::leeway`]), and an expression of them does, too. Invariant: who
//! is told that a rule surely is not met would see it not met; everybody else looks closely, so that no
//! value, no limit and no reason ever told is a bound.
//! Rejected: bounds for all arithmetic (rules compare one function with one limit), and for periods of which windows are
//! left out (they are few, and learned by themselves).

use super::super::view;
use super::ast::{Aggregate, Comparison, Cond, Expr, Function, Past, Period};
use super::evaluate::Scope;
use super::line::SharedLine;
use super::ranks;
use super::{OnUnknown, Rule, Subject};
use crate::core::detect::anomaly::SLOW_WINDOWS;
use crate::core::detect::leeway::Leeway;
use crate::core::detect::regression::Window;

/// What a value surely lies between.
type Bounds = (f64, f64);

/// What is known of `regression_score` where nothing is significant.
const NOT_SIGNIFICANT: Bounds = (f64::NEG_INFINITY, 1.0);

/// What is known of `anomaly` where nothing is unusual.
const USUAL: Bounds = (0.0, 1.0);

impl Scope<'_> {
    /// Whether the rule surely is not met, and nothing of it is to be remembered.
    pub fn is_surely_not_met(&mut self, rule: &Rule) -> bool {
        if rule.on_unknown == OnUnknown::Fire {
            return false;
        }
        self.notes.min_count = rule.min_count;
        let is_not_met = match &rule.subject {
            Subject::Value(expr) if asks_the_past(expr) => self.rough(expr).is_some_and(|value| {
                let conditions = rule.levels.iter().filter_map(|level| level.condition);
                conditions.into_iter().all(|one| surely_not(value, one.op, (one.limit, one.limit)))
            }),
            Subject::Condition(Cond::Compare { left, op, right })
                if asks_the_past(left) || asks_the_past(right) =>
            {
                let right = self.rough(right);
                right.is_some_and(|right| self.rough(left).is_some_and(|left| surely_not(left, *op, right)))
            }
            _ => false,
        };
        let has_enough = self.notes.count_max.is_none_or(|count| count >= rule.min_count);
        is_not_met && has_enough && self.notes.look_again.is_none()
    }

    /// `None` where it must be looked at closely.
    fn rough(&mut self, expr: &Expr) -> Option<Bounds> {
        match expr {
            Expr::Number(number) => Some((*number, *number)),
            Expr::Aggregate { view, aggregate } => {
                self.aggregate(*view, *aggregate, self.at).ok().map(|value| (value, value))
            }
            Expr::Abs(inner) => self.rough(inner).map(|(low, high)| {
                let least = if low <= 0.0 && high >= 0.0 { 0.0 } else { low.abs().min(high.abs()) };
                (least, low.abs().max(high.abs()))
            }),
            Expr::Past(past) => self.rough_past(past),
            _ => None,
        }
    }

    fn rough_past(&mut self, asked: &Past) -> Option<Bounds> {
        let Period::Span(span) = asked.period else { return None };
        let now = self.aggregate(asked.current, asked.aggregate, self.at);
        let (_, end) = self.reach_of(asked);
        if !self.is_plain(asked, end - span, end) {
            return None;
        }
        let extent = self.extent(asked, end, span);
        let place = (asked.baseline, extent.least);
        let windows = self.views[asked.baseline as usize].sealed(self.key)?;
        if asked.function.is_line() {
            let lines = self.memos.lines.entry(place).or_default();
            let line = lines.get_or_insert_with(self.key, SharedLine::default);
            let between = line.between(&windows, extent)?;
            return Some(self.follow_roughly(asked, &between));
        }
        let above = windows.tail_begin();
        let (leeway, came) = self.memos.ranks.get_mut(&place)?.get_mut(self.key)?.leeway(&windows, extent)?;
        match asked.function {
            Function::Upper { k } => Some(leeway.bound(k)),
            Function::Lower { k } => Some(leeway.bound(-k)),
            Function::ZScore => leeway.z(now.ok()?),
            Function::RobustZ => leeway.robust_z(now.ok()?),
            Function::Anomaly => {
                let newest_sum = ranks::sum_of_newest(&windows, extent, SLOW_WINDOWS - 1);
                leeway.is_usual(now.ok()?, newest_sum).then_some(USUAL)
            }
            Function::Regression | Function::RegressionScore => {
                let leeway = *leeway;
                let is_unchanged = self.is_unchanged(asked, now.ok()?, above, (&leeway, came));
                let is_score = asked.function == Function::RegressionScore;
                is_unchanged.then_some(if is_score { NOT_SIGNIFICANT } else { (0.0, 0.0) })
            }
            Function::Trend | Function::Forecast { .. } => None,
        }
    }

    /// `above`: where the past's tail begins.
    fn is_unchanged(
        &mut self,
        asked: &Past,
        value: f64,
        above: Option<f64>,
        (leeway, came): (&Leeway, f64),
    ) -> bool {
        if let Aggregate::Count | Aggregate::RateOfCount = asked.aggregate {
            return leeway.is_unchanged_count(value, asked.side);
        }
        let (view, key, at) = (asked.current, self.key, self.at);
        let profile = above.and_then(|_| view::profile(self.views, view, key, at, above));
        let window = Window { count: view::totals(self.views, view, key, at).count, value, profile };
        match asked.aggregate {
            Aggregate::Avg => leeway.is_unchanged_average(&window, asked.side, came),
            _ => leeway.is_unchanged(&window, asked.side, came),
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

/// Whether a comparison holds for no values between these bounds.
fn surely_not(left: Bounds, op: Comparison, right: Bounds) -> bool {
    match op {
        Comparison::Greater => left.1 <= right.0,
        Comparison::GreaterEqual => left.1 < right.0,
        Comparison::Less => left.0 >= right.1,
        Comparison::LessEqual => left.0 > right.1,
        Comparison::Equal => left.1 < right.0 || left.0 > right.1,
        Comparison::NotEqual => false,
    }
}
