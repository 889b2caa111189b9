//! Expressions as text, for evidence: as written in the rule, with each limit and unit as a number.
//!
//! Invariant: two expressions that read different series have different texts, so matchers and windows are
//! always included.

use super::ast::{Arithmetic, Cond, Elapsed, Expr, Function, Past, RunSelector};
use crate::core::view::{View, ViewKind};
use crate::core::vocab::selector::Selector;

/// Returns an expression as text.
pub(crate) fn describe(expr: &Expr, views: &[View]) -> String {
    let of = |inner: &Expr| describe(inner, views);
    let all = |inner: &[Expr]| inner.iter().map(of).collect::<Vec<String>>().join(", ");
    match expr {
        Expr::Number(number) => number.to_string(),
        Expr::Aggregate { view, aggregate } => aggregate.of(&trailing(*view, views)),
        Expr::Change { view, aggregate, period } => {
            format!("change({}, {period})", aggregate.of(&trailing(*view, views)))
        }
        Expr::Past(past) => function(past, views),
        Expr::Correlation(both) => format!(
            "correlation({}, {}, {})",
            current(&both.a, views),
            current(&both.b, views),
            both.a.period
        ),
        Expr::Elapsed(Elapsed::Idle(at)) => format!("idle({})", matchers(&at.matchers)),
        Expr::Elapsed(Elapsed::Age(at)) => format!("age({})", matchers(&at.matchers)),
        Expr::Elapsed(Elapsed::Silent { view }) => format!("silent({})", selector(*view, views)),
        Expr::Learned(elapsed) => format!("learned limit of {}", of(&Expr::Elapsed(elapsed.clone()))),
        Expr::InFlight(RunSelector { matchers: at, .. }) => format!("in_flight({})", matchers(at)),
        Expr::Sustained { cond, period, .. } => format!("sustained({}, {period})", condition(cond, views)),
        Expr::Occurrences { cond, period, .. } => {
            format!("occurrences({}, {period})", condition(cond, views))
        }
        Expr::Binary { op, left, right } => format!("({} {} {})", of(left), sign(*op), of(right)),
        Expr::Abs(inner) => format!("abs({})", of(inner)),
        Expr::Min(inner) => format!("min({})", all(inner)),
        Expr::Max(inner) => format!("max({})", all(inner)),
    }
}

fn condition(cond: &Cond, views: &[View]) -> String {
    let of = |inner: &Cond| condition(inner, views);
    match cond {
        Cond::Compare { left, op, right } => {
            format!("{} {} {}", describe(left, views), op.symbol(), describe(right, views))
        }
        Cond::And(a, b) => format!("({} and {})", of(a), of(b)),
        Cond::Or(a, b) => format!("({} or {})", of(a), of(b)),
        Cond::Unless(a, b) => format!("({} unless {})", of(a), of(b)),
    }
}

fn function(past: &Past, views: &[View]) -> String {
    let (name, of, period) = (past.function.name(), current(past, views), past.period);
    match past.function {
        Function::Forecast { ahead } => format!("{name}({of}, {period}, {ahead})"),
        Function::Upper { k } | Function::Lower { k } => format!("{name}({of}, {period}, {k})"),
        _ => format!("{name}({of}, {period})"),
    }
}

/// Returns the text of the aggregate that a function judges.
fn current(past: &Past, views: &[View]) -> String {
    past.aggregate.of(&trailing(past.current, views))
}

/// Returns the text of a selector with its window.
fn trailing(view: u32, views: &[View]) -> String {
    let of = selector(view, views);
    match views.get(view as usize).map(|view| view.spec.kind) {
        Some(ViewKind::Trailing { window, .. }) => format!("{of}[{window}]"),
        _ => of,
    }
}

fn selector(view: u32, views: &[View]) -> String {
    let Some(view) = views.get(view as usize) else { return "{…}".into() };
    let Selector { name, matchers: all } = &view.spec.selector;
    let name = name.as_deref().unwrap_or("");
    match all.is_empty() && !name.is_empty() {
        true => name.to_string(),
        false => format!("{name}{{{}}}", matchers(&view.spec.selector)),
    }
}

fn matchers(selector: &Selector) -> String {
    selector.texts().join(", ")
}

fn sign(op: Arithmetic) -> &'static str {
    match op {
        Arithmetic::Add => "+",
        Arithmetic::Subtract => "-",
        Arithmetic::Multiply => "*",
        Arithmetic::Divide => "/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::view::ViewSpec;
    use crate::core::vocab::aggregate::Aggregate;
    use crate::core::vocab::limits::Lateness;
    use crate::core::vocab::selector::{By, Matcher, Test};
    use crate::core::vocab::time::Span;

    fn view(matchers: Vec<Matcher>) -> View {
        let window = Span::from_mins(5);
        let spec = ViewSpec {
            selector: Selector { name: Some("latency_ms".into()), matchers },
            by: By::Series,
            kind: ViewKind::Trailing { window, pane: Span::from_mins(1), history: Span::ZERO },
            has_quantiles: true,
            has_spread: false,
            per_version: false,
        };
        let shape = crate::core::measure::pane::Shape {
            digits: Default::default(),
            resolution: crate::core::vocab::unit::Unit::resolution(None),
        };
        View::new(spec, shape, Lateness { allowed: Span::ZERO, max: Span::ZERO })
    }

    #[test]
    fn an_input_is_named_with_its_matchers() {
        let stage = Matcher { label: "stage".into(), test: Test::Equal("build".into()) };
        let views = [view(Vec::new()), view(vec![stage])];
        let read = |view, aggregate| Expr::Aggregate { view, aggregate };
        let cases = [
            (read(0, Aggregate::Count), "count(latency_ms[5m])"),
            (read(1, Aggregate::Quantile(0.99)), "p99(latency_ms{stage=\"build\"}[5m])"),
            (read(1, Aggregate::Quantile(0.29)), "quantile(0.29, latency_ms{stage=\"build\"}[5m])"),
            (
                Expr::Sustained {
                    cond: Box::new(Cond::Compare {
                        left: read(1, Aggregate::Avg),
                        op: crate::core::vocab::comparison::Comparison::Greater,
                        right: Expr::Number(80.0),
                    }),
                    period: Span::from_mins(30),
                    place: 0,
                },
                "sustained(avg(latency_ms{stage=\"build\"}[5m]) > 80, 30m)",
            ),
        ];
        for (expr, words) in cases {
            assert_eq!(describe(&expr, &views), words);
        }
    }
}
