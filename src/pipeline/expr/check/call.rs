//! Functions: their arguments, their results and the measures of their results.

use super::super::parse::{Arg, SelectorTerm, Term, TermKind};
use super::super::{ExprError, Spot, foreign};
use super::lookback::PAST;
use super::selector::{AGGREGATES, by, window};
use super::{Check, Checker, Keys, Measure, Typed, only_matchers, only_terms, typed};
use crate::core::Span;
use crate::core::rule::ast::{Elapsed, Expr, RunSelector, pane_of};
use crate::core::view::{ViewKind, ViewSpec};
use crate::core::vocab::aggregate::Aggregate;
use crate::core::vocab::comparison::Side;
use crate::core::vocab::selector::{By, Selector};
use crate::core::vocab::time::SPAN_MAX;
use crate::core::vocab::unit::Unit;
use crate::pipeline::diagnostic::nearest;

/// The functions that are neither aggregates nor functions over past windows.
const FUNCTIONS: [&str; 13] = [
    "quantile",
    "abs",
    "min",
    "max",
    "clamp",
    "idle",
    "age",
    "in_flight",
    "silent",
    "change",
    "sustained",
    "occurrences",
    "by",
];

impl Checker {
    pub(super) fn call(
        &mut self,
        at: Spot,
        name: &str,
        args: &[Arg],
        labels: Option<&[String]>,
        side: Side,
    ) -> Check<Typed> {
        if let Some(of) = over_series(args).filter(|_| AGGREGATES.contains(&name)) {
            return self.aggregate(at, name, of, labels, None);
        }
        let is_other = FUNCTIONS.contains(&name) || PAST.contains(&name);
        if labels.is_some() && name != "quantile" && is_other {
            return Err(ExprError::new(at, format!("`by` belongs to an aggregate, not to `{name}`"))
                .hint("write it right after the aggregate: `p95(x[5m]) by (source)`"));
        }
        match name {
            "quantile" => self.quantile(at, args, labels),
            "abs" => self.abs(at, args, side),
            "min" | "max" | "clamp" => self.extreme(at, name, args, side),
            "idle" | "age" | "in_flight" => self.runs(name, args),
            "silent" => self.silent(at, args),
            "change" => self.change(at, args, side),
            past if PAST.contains(&past) => self.past_function(at, past, args, side),
            "sustained" | "occurrences" => self.share(at, name, args),
            "season" | "deploys" => Err(ExprError::new(at, format!("`{name}` is a period, not a value"))
                .hint(format!("write it behind an aggregate: `regression(p95(x[5m]), {name}(…))`"))),
            aggregate if AGGREGATES.contains(&aggregate) => {
                Err(ExprError::new(at, format!("`{aggregate}` takes a series with a window"))
                    .hint(format!("write `{aggregate}(latency_ms[5m])`")))
            }
            unknown => {
                let error = ExprError::new(at, format!("function `{unknown}` is not known"));
                let near = nearest(unknown, AGGREGATES.into_iter().chain(FUNCTIONS).chain(PAST));
                Err(match (foreign::of_function(unknown), near) {
                    (Some(ours), _) => error.hint(ours),
                    (None, Some(near)) => error.hint(format!("did you mean `{near}`?")),
                    (None, None) => error,
                })
            }
        }
    }

    /// Checks `AGG(selector[window]) by (labels)`. `q`: the quantile of `quantile(q, …)`.
    pub(super) fn aggregate(
        &mut self,
        at: Spot,
        name: &str,
        of: &SelectorTerm,
        labels: Option<&[String]>,
        q: Option<f64>,
    ) -> Check<Typed> {
        let (selector, window) = (self.selector(of)?, window(of, at)?);
        self.doubt_rate(at, name, &selector);
        let aggregate = match q {
            Some(q) => Aggregate::Quantile(q),
            None => self.named_aggregate(name, &selector, at)?,
        };
        if let Some(name) = &selector.name {
            self.reads.push((name.clone(), window));
        }
        let measure = self.measure(aggregate, &selector);
        let by = by(labels);
        let kind = ViewKind::Trailing { window, pane: pane_of(window), history: Span::ZERO };
        let has_quantiles = matches!(aggregate, Aggregate::Quantile(_));
        let keys = Keys::new(by.clone(), &selector);
        let has_spread = aggregate == Aggregate::Stddev;
        self.doubt_keys(at, &selector, &by);
        let spec = ViewSpec { selector, by, kind, has_quantiles, has_spread, per_version: false };
        let view = self.view(spec, at)?;
        Ok(Typed { expr: Expr::Aggregate { view, aggregate }, measure, keys })
    }

    fn named_aggregate(&self, name: &str, selector: &Selector, at: Spot) -> Check<Aggregate> {
        Ok(match name {
            "count" => Aggregate::Count,
            "sum" => Aggregate::Sum,
            "avg" => Aggregate::Avg,
            "min" => Aggregate::Min,
            "max" => Aggregate::Max,
            "last" => Aggregate::Last,
            "stddev" => Aggregate::Stddev,
            "rate" if self.is_cumulative(selector) => Aggregate::RateOfSum,
            "rate" => Aggregate::RateOfCount,
            "p50" => Aggregate::Quantile(0.5),
            "p75" => Aggregate::Quantile(0.75),
            "p90" => Aggregate::Quantile(0.9),
            "p95" => Aggregate::Quantile(0.95),
            "p99" => Aggregate::Quantile(0.99),
            "p999" => Aggregate::Quantile(0.999),
            other => return Err(ExprError::new(at, format!("aggregate `{other}` is not known"))),
        })
    }

    pub(super) fn measure(&self, aggregate: Aggregate, selector: &Selector) -> Measure {
        match aggregate {
            Aggregate::Count => Measure::Unit(Unit::Count),
            Aggregate::RateOfSum | Aggregate::RateOfCount => Measure::Unknown(None),
            _ => match self.unit_of(selector) {
                Some(unit) => Measure::Unit(unit),
                None => Measure::Unknown(selector.name.as_ref().map(|name| name.to_string())),
            },
        }
    }

    fn quantile(&mut self, at: Spot, args: &[Arg], labels: Option<&[String]>) -> Check<Typed> {
        let terms = only_terms(args, at, "quantile")?;
        let usage =
            || ExprError::new(at, "quantile takes a share and a series: `quantile(0.99, latency_ms[5m])`");
        let [q, of] = terms.as_slice() else { return Err(usage()) };
        let (TermKind::Number(literal), TermKind::Selector(of)) = (&q.kind, &of.kind) else {
            return Err(usage());
        };
        let q_value = match literal.unit {
            None => literal.value,
            Some(Unit::Percent) => literal.value / 100.0,
            Some(_) => return Err(usage()),
        };
        if !(0.0..=1.0).contains(&q_value) {
            return Err(ExprError::new(q.at, format!("{q_value} is no share; it must be between 0 and 1")));
        }
        self.aggregate(at, "quantile", of, labels, Some(q_value))
    }

    fn abs(&mut self, at: Spot, args: &[Arg], side: Side) -> Check<Typed> {
        let terms = only_terms(args, at, "abs")?;
        let [inner] = terms.as_slice() else { return Err(ExprError::new(at, "abs takes one value")) };
        Ok(self.value(inner, side)?.map(|expr| Expr::Abs(Box::new(expr))))
    }

    /// Checks `min(a, b, …)`, `max(a, b, …)` and `clamp(value, low, high)`.
    fn extreme(&mut self, at: Spot, name: &str, args: &[Arg], side: Side) -> Check<Typed> {
        let terms = only_terms(args, at, name)?;
        let needs = if name == "clamp" { 3 } else { 2 };
        if terms.len() < needs || (name == "clamp" && terms.len() > needs) {
            return Err(ExprError::new(at, format!("`{name}` takes {needs} values")).hint(format!(
                "or a series with a window: `{}(x[5m])`",
                if name == "clamp" { "max" } else { name }
            )));
        }
        let first = self.value(terms[0], side)?;
        let (measure, mut keys) = (first.measure.clone(), first.keys.clone());
        let mut all = vec![first.expr.clone()];
        for term in &terms[1..] {
            let other = self.value(term, side)?;
            keys = keys.meet(other.keys.clone(), at)?;
            all.push(typed::align(first.clone(), terms[0].at, other, term.at)?.1.expr);
        }
        let expr = match name {
            "min" => Expr::Min(all),
            "max" => Expr::Max(all),
            _ => {
                let high = all.pop().unwrap_or(Expr::Number(f64::MAX));
                Expr::Min(vec![Expr::Max(all), high])
            }
        };
        Ok(Typed { expr, measure, keys })
    }

    fn runs(&mut self, name: &str, args: &[Arg]) -> Check<Typed> {
        let mut matchers = Vec::new();
        for written in only_matchers(args, name)? {
            if !matches!(written.label.as_str(), "pipeline" | "stage") {
                return Err(ExprError::new(written.at, format!("`{name}` knows pipeline and stage only")));
            }
            matchers.push(self.matcher(written)?);
        }
        let spots: Vec<Spot> = only_matchers(args, name)?.iter().map(|written| written.at).collect();
        self.doubt_exclusion(None, &matchers, &spots);
        self.doubt_stages(None, &matchers, &spots);
        let has_stage = matchers.iter().any(|matcher| &*matcher.label == "stage");
        let runs = RunSelector { matchers: Selector { name: None, matchers }, has_stage };
        let keys = Keys::By(runs.by());
        let (expr, unit) = match name {
            "idle" => (Expr::Elapsed(Elapsed::Idle(runs)), Unit::S),
            "age" => (Expr::Elapsed(Elapsed::Age(runs)), Unit::S),
            _ => (Expr::InFlight(runs), Unit::Count),
        };
        Ok(Typed { expr, measure: Measure::Unit(unit), keys })
    }

    fn silent(&mut self, at: Spot, args: &[Arg]) -> Check<Typed> {
        let terms = only_terms(args, at, "silent")?;
        let [Term { kind: TermKind::Selector(of), .. }] = terms.as_slice() else {
            return Err(ExprError::new(at, "silent takes a series: `silent(heartbeat{job=\"runner\"})`"));
        };
        if let Some((_, spot)) = of.window {
            return Err(ExprError::new(
                spot,
                "silent takes no window: it is the time since the newest value",
            ));
        }
        let selector = self.selector(of)?;
        if let Some(name) = &selector.name {
            self.reads.push((name.clone(), Span::from_hours(1)));
        }
        let keys = Keys::new(By::Series, &selector);
        let spec = ViewSpec {
            selector,
            by: By::Series,
            kind: ViewKind::Newest,
            has_quantiles: false,
            has_spread: false,
            per_version: false,
        };
        let view = self.view(spec, at)?;
        let expr = Expr::Elapsed(Elapsed::Silent { view });
        Ok(Typed { expr, measure: Measure::Unit(Unit::S), keys })
    }

    /// Checks `change(agg, period)`.
    fn change(&mut self, at: Spot, args: &[Arg], side: Side) -> Check<Typed> {
        let terms = only_terms(args, at, "change")?;
        let [of, period] = terms.as_slice() else {
            let message = "`change` takes an aggregate and a period: `change(p95(x[5m]), 24h)`";
            return Err(ExprError::new(at, message));
        };
        let inner = self.value(of, side)?;
        let Expr::Aggregate { view, aggregate } = inner.expr else {
            return Err(ExprError::new(of.at, "`change` takes an aggregate, such as `p95(x[5m])`"));
        };
        let spec = self.views[view as usize].clone();
        let ViewKind::Trailing { window, pane, .. } = spec.kind else {
            return Err(ExprError::new(of.at, "`change` takes an aggregate over a window"));
        };
        let period = self.period(period, window)?;
        let kind = ViewKind::Trailing { window, pane, history: period };
        let view = self.view(ViewSpec { kind, ..spec }, of.at)?;
        let expr = Expr::Change { view, aggregate, period };
        Ok(Typed { expr, measure: Measure::Unit(Unit::Ratio), keys: inner.keys })
    }

    fn share(&mut self, at: Spot, name: &str, args: &[Arg]) -> Check<Typed> {
        let terms = only_terms(args, at, name)?;
        let [cond, period] = terms.as_slice() else {
            return Err(ExprError::new(
                at,
                format!("`{name}` takes a condition and a period: `{name}(p99(x[1m]) > 1s, 1h)`"),
            ));
        };
        let (cond, keys) = self.condition(cond)?;
        let (cond, period, place) = (Box::new(cond), duration(period)?, self.places);
        self.places += 1;
        let (expr, unit) = match name {
            "sustained" => (Expr::Sustained { cond, period, place }, Unit::Ratio),
            _ => (Expr::Occurrences { cond, period, place }, Unit::Count),
        };
        Ok(Typed { expr, measure: Measure::Unit(unit), keys })
    }
}

/// Returns the argument of an aggregate, if the only argument is a series.
fn over_series(args: &[Arg]) -> Option<&SelectorTerm> {
    match args {
        [Arg::Term(Term { kind: TermKind::Selector(of), .. })] => Some(of),
        _ => None,
    }
}

pub(super) fn duration(term: &Term) -> Check<Span> {
    let TermKind::Number(literal) = &term.kind else {
        return Err(ExprError::new(term.at, "expected a duration such as 24h"));
    };
    let ms =
        literal.unit.as_ref().and_then(|unit| unit.factor_to(&Unit::Ms)).map(|factor| literal.value * factor);
    match ms {
        Some(ms) if (1.0..=SPAN_MAX.ms() as f64).contains(&ms) => Ok(Span::from_ms(ms as i64)),
        _ => Err(ExprError::new(term.at, "expected a duration such as 24h")),
    }
}
