//! Expressions after checking: names are resolved to indices in the rule set, units to factors.

use crate::core::vocab::aggregate::Aggregate;
use crate::core::vocab::comparison::{Comparison, Side};
use crate::core::vocab::limits::PANE_MIN;
use crate::core::vocab::selector::{By, Selector};
use crate::core::vocab::time::Span;
use serde::{Deserialize, Serialize};

/// An expression that has a value per key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Expr {
    Number(f64),
    Aggregate {
        view: u32,
        aggregate: Aggregate,
    },
    /// Relative change against the same aggregate `period` ago; the view keeps that much history.
    Change {
        view: u32,
        aggregate: Aggregate,
        period: Span,
    },
    Past(Box<Past>),
    Correlation(Box<Correlation>),
    Elapsed(Elapsed),
    /// The limit for an elapsed time, in seconds, learned from the usual times.
    Learned(Elapsed),
    InFlight(RunSelector),
    /// The share of the period for which the condition held; `place` numbers the function within its rule.
    Sustained {
        cond: Box<Cond>,
        period: Span,
        place: u32,
    },
    Occurrences {
        cond: Box<Cond>,
        period: Span,
        place: u32,
    },
    Binary {
        op: Arithmetic,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Abs(Box<Expr>),
    Min(Vec<Expr>),
    Max(Vec<Expr>),
}

/// An elapsed time in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Elapsed {
    /// Time since the newest accepted stage or run event, while work is in flight.
    Idle(RunSelector),
    /// Time since the first event of the oldest run in flight.
    Age(RunSelector),
    /// Time since the newest observation of a series.
    Silent { view: u32 },
}

/// The pipelines and stages that a run function reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSelector {
    pub matchers: Selector, // labels `pipeline` and `stage`
    pub has_stage: bool,
}

/// A function that compares the current window of an aggregate with earlier windows, or fits a line to them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Past {
    pub function: Function,
    pub current: u32, // trailing view
    pub baseline: u32,
    /// With `deploys`: the trailing view of each version.
    #[serde(default)]
    pub per_version: Option<u32>,
    pub aggregate: Aggregate,
    pub window: Span,
    pub period: Period,
    /// The side on which a deviation counts.
    pub side: Side,
    /// The number of the function within its rule.
    pub place: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Function {
    Regression,
    RegressionScore,
    Anomaly,
    /// The slope per hour.
    Trend,
    Forecast {
        ahead: Span,
    },
    ZScore,
    RobustZ,
    Upper {
        k: f64,
    },
    Lower {
        k: f64,
    },
}

impl Past {
    /// Whether the baseline excludes the windows during an alert. A regression excludes them, because it lasts
    /// until it is fixed or accepted. A season excludes them, because it compares with the same hour of other
    /// days and need not adapt. The other functions include them, so that the baseline adapts: a daily peak
    /// must not fire every day because it fired on the first. `trend` and `forecast` have no baseline; they
    /// fit a line through all windows.
    pub fn leaves_alerts_out(&self) -> bool {
        let is_regression = matches!(self.function, Function::Regression | Function::RegressionScore);
        let is_season = matches!(self.period, Period::Season { .. });
        is_regression || (is_season && !self.function.is_line())
    }
}

impl Function {
    /// Whether the function is a significance test, so that some of its results are false positives.
    pub fn has_chance(self) -> bool {
        matches!(self, Function::Regression | Function::RegressionScore | Function::Anomaly)
    }

    /// Whether the function fits a line through the windows instead of comparing with a baseline.
    pub fn is_line(self) -> bool {
        matches!(self, Function::Trend | Function::Forecast { .. })
    }
}

/// Two aggregates over the same past windows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    pub a: Past,
    pub b: Past,
}

/// The past windows that a function looks back on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Period {
    /// The windows of this length of time before the current window.
    Span(Span),
    /// The windows of the same hour in each of the last `times` days or weeks.
    Season { every: Span, times: u32 },
    /// This number of newest deployed versions, with one summary for each.
    Deploys(u32),
}

impl Period {
    /// Returns how far back the oldest window lies.
    pub fn reach(self) -> Span {
        match self {
            Period::Span(span) => span,
            Period::Season { every, times } => every * i64::from(times) + Span::from_hours(1),
            // Versions are kept by number, not by age.
            Period::Deploys(_) => Span::ZERO,
        }
    }
}

impl std::fmt::Display for Period {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Period::Span(span) => span.fmt(f),
            Period::Season { every, times } if *every == Span::from_hours(24) => {
                write!(f, "season(day, {times})")
            }
            Period::Season { times, .. } => write!(f, "season(week, {times})"),
            Period::Deploys(count) => write!(f, "deploys({count})"),
        }
    }
}

impl Function {
    /// Returns the name of the function as written in a rule.
    pub fn name(self) -> &'static str {
        match self {
            Function::Regression => "regression",
            Function::RegressionScore => "regression_score",
            Function::Anomaly => "anomaly",
            Function::Trend => "trend",
            Function::Forecast { .. } => "forecast",
            Function::ZScore => "zscore",
            Function::RobustZ => "robust_z",
            Function::Upper { .. } => "upper",
            Function::Lower { .. } => "lower",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// A condition that is met, not met or unknown per key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Cond {
    Compare { left: Expr, op: Comparison, right: Expr },
    And(Box<Cond>, Box<Cond>),
    Or(Box<Cond>, Box<Cond>),
    Unless(Box<Cond>, Box<Cond>),
}

/// Returns the pane length of a trailing window: the coarsest of 10s, 1m, 5m, 1h that divides the window
/// and is at most a fifth of it, else 10s.
pub(crate) fn pane_of(window: Span) -> Span {
    let sizes = [Span::from_hours(1), Span::from_mins(5), Span::from_mins(1)];
    let fits = |pane: &Span| window.ms() % pane.ms() == 0 && pane.ms() * 5 <= window.ms();
    sizes.into_iter().find(fits).unwrap_or(PANE_MIN)
}

impl Cond {
    /// Calls `visit` for each expression in the condition, outermost first.
    pub fn for_each<'a>(&'a self, visit: &mut impl FnMut(&'a Expr)) {
        match self {
            Cond::Compare { left, right, .. } => {
                left.for_each(visit);
                right.for_each(visit);
            }
            Cond::And(a, b) | Cond::Or(a, b) | Cond::Unless(a, b) => {
                a.for_each(visit);
                b.for_each(visit);
            }
        }
    }

    /// Returns the leftmost comparison with the constant on the right: the value that an alert shows, and
    /// its limit.
    pub fn leading(&self) -> (&Expr, Comparison, &Expr) {
        match self {
            Cond::Compare { left: left @ Expr::Number(_), op, right } => (right, op.mirrored(), left),
            Cond::Compare { left, op, right } => (left, *op, right),
            Cond::And(a, _) | Cond::Or(a, _) | Cond::Unless(a, _) => a.leading(),
        }
    }
}

impl Expr {
    /// Calls `visit` for this expression and each inside it, outermost first.
    pub fn for_each<'a>(&'a self, visit: &mut impl FnMut(&'a Expr)) {
        visit(self);
        match self {
            Expr::Sustained { cond, .. } | Expr::Occurrences { cond, .. } => cond.for_each(visit),
            Expr::Binary { left, right, .. } => {
                left.for_each(visit);
                right.for_each(visit);
            }
            Expr::Abs(inner) => inner.for_each(visit),
            Expr::Min(all) | Expr::Max(all) => all.iter().for_each(|expr| expr.for_each(visit)),
            Expr::Number(_)
            | Expr::Aggregate { .. }
            | Expr::Change { .. }
            | Expr::Past(_)
            | Expr::Correlation(_)
            | Expr::Elapsed(_)
            | Expr::Learned(_)
            | Expr::InFlight(_) => {}
        }
    }

    /// Returns the views that this expression itself reads, without those of its parts.
    pub fn views(&self) -> Vec<u32> {
        match self {
            Expr::Aggregate { view, .. } | Expr::Change { view, .. } => vec![*view],
            Expr::Elapsed(Elapsed::Silent { view }) => vec![*view],
            Expr::Past(past) => past.views(),
            Expr::Correlation(both) => [both.a.views(), both.b.views()].concat(),
            _ => Vec::new(),
        }
    }
}

impl Past {
    pub fn views(&self) -> Vec<u32> {
        [Some(self.current), Some(self.baseline), self.per_version].into_iter().flatten().collect()
    }
}

impl RunSelector {
    /// Returns the labels by which the runs are grouped into keys.
    pub fn by(&self) -> By {
        let labels: &[&str] = if self.has_stage { &["pipeline", "stage"] } else { &["pipeline"] };
        By::Labels(labels.iter().map(|label| (*label).into()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panes_are_those_of_the_language() {
        let cases = [
            ("10s", "10s"),
            ("1m", "10s"),
            ("5m", "1m"),
            ("10m", "1m"),
            ("25m", "5m"),
            ("1h", "5m"),
            ("5h", "1h"),
            ("24h", "1h"),
            ("50s", "10s"),
            ("7m10s", "10s"),
        ];
        for (window, pane) in cases {
            let window: Span = window.parse().expect("a span");
            assert_eq!(pane_of(window).to_string(), pane, "{window}");
        }
    }
}
