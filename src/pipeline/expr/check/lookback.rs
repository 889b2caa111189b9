//! Functions over past windows: their arguments and results.

use super::super::parse::{Arg, Term, TermKind};
use super::super::{ExprError, Spot};
use super::call::duration;
use super::{Check, Checker, Doubt, Keys, Measure, Typed, only_terms};
use crate::core::Span;
use crate::core::detect::regression::DEPLOYS_MIN;
use crate::core::detect::{anomaly, correlation, regression, trend, zscore};
use crate::core::rule::ast::{Correlation, Expr, Function, Past, Period};
use crate::core::view::{ViewKind, ViewSpec};
use crate::core::vocab::aggregate::Aggregate;
use crate::core::vocab::comparison::Side;
use crate::core::vocab::key::VERSION_LABEL;
use crate::core::vocab::limits::{PERIOD_WINDOWS_MAX, SEASON_WINDOWS_MAX};
use crate::core::vocab::selector::{By, Matcher, Test};
use crate::core::vocab::unit::Unit;

/// The names of the functions over past windows.
pub(super) const PAST: [&str; 10] = [
    "regression",
    "regression_score",
    "anomaly",
    "trend",
    "forecast",
    "zscore",
    "robust_z",
    "upper",
    "lower",
    "correlation",
];

/// The number of windows before the current one that a function needs for a value.
fn windows_min(function: Function) -> usize {
    match function {
        Function::Regression | Function::RegressionScore => regression::WINDOWS_MIN,
        Function::Anomaly => anomaly::WINDOWS_MIN,
        Function::Trend | Function::Forecast { .. } => trend::WINDOWS_MIN,
        Function::ZScore | Function::RobustZ | Function::Upper { .. } | Function::Lower { .. } => {
            zscore::WINDOWS_MIN
        }
    }
}

impl Checker {
    /// Checks `NAME(aggregate, period, …)`.
    pub(super) fn past_function(&mut self, at: Spot, name: &str, args: &[Arg], side: Side) -> Check<Typed> {
        let terms = only_terms(args, at, name)?;
        match (name, terms.as_slice()) {
            ("correlation", [a, b, period]) => self.correlation(at, a, b, period),
            ("forecast", [of, period, ahead]) => {
                self.past(Function::Forecast { ahead: duration(ahead)? }, of, period, side)
            }
            ("upper", [of, period, k]) => self.past(Function::Upper { k: number(k)? }, of, period, side),
            ("lower", [of, period, k]) => self.past(Function::Lower { k: number(k)? }, of, period, side),
            (_, [of, period]) if plain(name).is_some() => {
                // The fallback is never used: the guard has excluded `None`.
                self.past(plain(name).unwrap_or(Function::Regression), of, period, side)
            }
            _ => Err(usage(at, name)),
        }
    }

    fn past(&mut self, function: Function, of: &Term, period: &Term, side: Side) -> Check<Typed> {
        let is_profiled = matches!(function, Function::Regression | Function::RegressionScore);
        let (past, keys) = self.looking_back(function, of, period, side, is_profiled)?;
        self.doubt_period(period.at, function.name(), &past, windows_min(function));
        let measure = self.past_measure(&past);
        Ok(Typed { expr: Expr::Past(Box::new(past)), measure, keys })
    }

    fn correlation(&mut self, at: Spot, a: &Term, b: &Term, period: &Term) -> Check<Typed> {
        let (a, keys) = self.looking_back(Function::ZScore, a, period, Side::Above, false)?;
        let (b, others) = self.looking_back(Function::ZScore, b, period, Side::Above, false)?;
        if a.window != b.window {
            let message = format!("the windows differ: {} and {}", a.window, b.window);
            return Err(ExprError::new(at, message).hint("take the same window for both"));
        }
        self.doubt_period(period.at, "correlation", &a, correlation::WINDOWS_MIN);
        let keys = keys.meet(others, at)?;
        let expr = Expr::Correlation(Box::new(Correlation { a, b }));
        Ok(Typed { expr, measure: Measure::Number, keys })
    }

    /// Warns about a period that can never have as many windows as the function needs.
    fn doubt_period(&mut self, at: Spot, name: &str, past: &Past, least: usize) {
        let Period::Span(span) = past.period else { return };
        let (windows, window) = (span.ms() / past.window.ms(), past.window);
        if windows < least as i64 {
            let message = format!(
                "{span} has {windows} windows of {window}; `{name}` needs {least}, so this is never met"
            );
            let hint = format!("take {} or more", window * least as i64);
            self.doubts.push(Doubt { at, message, hint: Some(hint) });
        }
    }

    /// Checks an aggregate together with the windows before it, and registers their views.
    fn looking_back(
        &mut self,
        function: Function,
        of: &Term,
        period: &Term,
        side: Side,
        is_profiled: bool,
    ) -> Check<(Past, Keys)> {
        let name = function.name();
        let inner = self.value(of, side)?;
        let Expr::Aggregate { view: current, aggregate } = inner.expr else {
            return Err(ExprError::new(of.at, format!("`{name}` takes an aggregate, such as `p95(x[5m])`")));
        };
        let spec = self.views[current as usize].clone();
        let ViewKind::Trailing { window, .. } = spec.kind else {
            return Err(ExprError::new(of.at, format!("`{name}` takes an aggregate over a window")));
        };
        let period = self.period_of(period, window)?;
        // A profile needs the histograms of the past windows and of the current one. The views keep
        // histograms only for a quantile.
        let is_profiled = is_profiled && matches!(aggregate, Aggregate::Quantile(_));
        // Both flags depend on this aggregate alone. If they also depended on other rules that read the trailing
        // window, those rules would change the view of the past.
        let (has_quantiles, has_spread) =
            (matches!(aggregate, Aggregate::Quantile(_)), aggregate == Aggregate::Stddev);
        let (baseline, per_version) = match period {
            Period::Deploys(deploys) => {
                if !function.has_chance() || function == Function::Anomaly {
                    let hint = "only regression and regression_score compare versions";
                    return Err(ExprError::new(of.at, format!("`{name}` takes no `deploys`")).hint(hint));
                }
                let spec = per_version(spec, of.at)?;
                let kind = ViewKind::Deploys { window, deploys, aggregate, is_profiled };
                let past = ViewSpec { kind, has_quantiles, has_spread, ..spec.clone() };
                (self.view(past, of.at)?, Some(self.view(spec, of.at)?))
            }
            _ => {
                let kind = ViewKind::Baseline { window, period: period.reach(), aggregate, is_profiled };
                (self.view(ViewSpec { kind, has_quantiles, has_spread, ..spec }, of.at)?, None)
            }
        };
        let place = self.places;
        self.places += 1;
        Ok((
            Past { function, current, baseline, per_version, aggregate, window, period, side, place },
            inner.keys,
        ))
    }

    /// Returns the measure of the function's value.
    pub fn past_measure(&self, past: &Past) -> Measure {
        match past.function {
            Function::Regression => Measure::Unit(Unit::Ratio),
            Function::RegressionScore | Function::Anomaly | Function::ZScore | Function::RobustZ => {
                Measure::Number
            }
            // The slope of a trend is given per hour, in the unit of the value.
            Function::Trend | Function::Forecast { .. } | Function::Upper { .. } | Function::Lower { .. } => {
                self.measure(past.aggregate, &self.views[past.current as usize].selector)
            }
        }
    }

    /// Reads a period: a duration, `season(week, 4)`, `season(day, 7)` or `deploys(8)`.
    fn period_of(&mut self, term: &Term, window: Span) -> Check<Period> {
        match &term.kind {
            TermKind::Call { name, args, .. } if name == "season" => self.season(term.at, args, window),
            TermKind::Call { name, args, .. } if name == "deploys" => {
                let terms = only_terms(args, term.at, "deploys")?;
                let count = match terms.as_slice() {
                    [count] => number(count)?,
                    _ => 0.0,
                };
                match count {
                    count if count.fract() == 0.0 && DEPLOYS.contains(&count) => {
                        Ok(Period::Deploys(count as u32))
                    }
                    _ => {
                        let (least, most) = (DEPLOYS.start(), DEPLOYS.end());
                        let message = format!("deploys takes a number of versions from {least} to {most}");
                        Err(ExprError::new(term.at, message).hint("`deploys(8)`"))
                    }
                }
            }
            _ => self.period(term, window).map(Period::Span),
        }
    }

    fn season(&self, at: Spot, args: &[Arg], window: Span) -> Check<Period> {
        let usage =
            || ExprError::new(at, "season takes week or day, and how many of them: `season(week, 4)`");
        let terms = only_terms(args, at, "season")?;
        let [every, times] = terms.as_slice() else { return Err(usage()) };
        let TermKind::Selector(word) = &every.kind else { return Err(usage()) };
        let every = match word.name.as_deref() {
            Some("week") => Span::from_hours(24 * 7),
            Some("day") => Span::from_hours(24),
            _ => return Err(usage()),
        };
        let times = number(times)?;
        if times < 1.0 || times.fract() != 0.0 {
            return Err(usage());
        }
        let period = Period::Season { every, times: times as u32 };
        if period.reach().ms() / window.ms() > SEASON_WINDOWS_MAX {
            let message = format!("{period} has more than {SEASON_WINDOWS_MAX} windows of {window}");
            return Err(ExprError::new(at, message).hint("take a longer window or fewer of them"));
        }
        Ok(period)
    }

    /// Reads a duration that is a whole number of windows.
    pub(super) fn period(&mut self, term: &Term, window: Span) -> Check<Span> {
        let period = duration(term)?;
        if period.ms() % window.ms() != 0 || period < window {
            return Err(ExprError::new(term.at, format!("{period} is no multiple of the window {window}")));
        }
        if period.ms() / window.ms() > PERIOD_WINDOWS_MAX {
            let message = format!("{period} has more than {PERIOD_WINDOWS_MAX} windows of {window}");
            return Err(ExprError::new(term.at, message).hint("take a longer window or a shorter period"));
        }
        Ok(period)
    }
}

/// The allowed numbers of earlier versions with which the newest version is compared.
const DEPLOYS: std::ops::RangeInclusive<f64> = (DEPLOYS_MIN as f64)..=32.0;

/// Adds the version label to the keys of a view.
fn per_version(mut spec: ViewSpec, at: Spot) -> Check<ViewSpec> {
    let By::Labels(labels) = &mut spec.by else {
        let message = "with `deploys` the aggregate needs `by (…)`: each series has one version alone";
        return Err(ExprError::new(at, message).hint("write `p95(x[5m]) by (source)`"));
    };
    if labels.iter().any(|label| **label == *VERSION_LABEL) {
        let message = "`deploys` compares versions: take `version` out of `by (…)`";
        return Err(ExprError::new(at, message));
    }
    labels.push(VERSION_LABEL.into());
    labels.sort();
    spec.selector.matchers.push(Matcher { label: VERSION_LABEL.into(), test: Test::NotEqual("".into()) });
    spec.per_version = true;
    Ok(spec)
}

/// Returns the function with this name, if it takes only an aggregate and a period.
fn plain(name: &str) -> Option<Function> {
    Some(match name {
        "regression" => Function::Regression,
        "regression_score" => Function::RegressionScore,
        "anomaly" => Function::Anomaly,
        "trend" => Function::Trend,
        "zscore" => Function::ZScore,
        "robust_z" => Function::RobustZ,
        _ => return None,
    })
}

fn usage(at: Spot, name: &str) -> ExprError {
    let text = match name {
        "correlation" => {
            "correlation takes two aggregates and a period: `correlation(avg(a[1m]), avg(b[1m]), 30m)`".into()
        }
        "forecast" => {
            "forecast takes an aggregate, a period and how far ahead: `forecast(max(x[5m]), 6h, 4h)`".into()
        }
        "upper" | "lower" => {
            format!(
                "`{name}` takes an aggregate, a period and how many deviations: `{name}(p95(x[5m]), 24h, 3)`"
            )
        }
        _ => format!("`{name}` takes an aggregate and a period: `{name}(p95(x[5m]), 24h)`"),
    };
    ExprError::new(at, text)
}

fn number(term: &Term) -> Check<f64> {
    match &term.kind {
        TermKind::Number(literal) if literal.unit.is_none() => Ok(literal.value),
        _ => Err(ExprError::new(term.at, "expected a number without a unit, such as 3")),
    }
}
