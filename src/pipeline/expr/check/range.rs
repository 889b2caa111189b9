//! Finds comparisons that are always or never met, whatever the events are, because of the range of a value.
//!
//! Intuition: a correlation is between -1 and 1, and a count is at least 0.
//! Invariant: only certain results are reported; a value without a known range may be anything.
//! Rejected: conditions joined by `and` (their parts may be rounded or missing at other times, and proofs of
//! that kind are hard to explain).

use crate::core::rule::ast::{Arithmetic, Elapsed, Expr};
use crate::core::vocab::aggregate::Aggregate;
use crate::core::vocab::comparison::Comparison;

/// The least and the greatest possible value.
type Range = (f64, f64);

const ANYTHING: Range = (f64::NEG_INFINITY, f64::INFINITY);
const NOT_NEGATIVE: Range = (0.0, f64::INFINITY);

/// Returns the reason why a comparison is always or never met; `None` if it may be either.
pub(crate) fn says_nothing(left: &Expr, op: Comparison, right: &Expr) -> Option<String> {
    let (a, b) = (of(left), of(right));
    let (is_possible, is_certain) = match op {
        Comparison::Greater => (a.1 > b.0, a.0 > b.1),
        Comparison::GreaterEqual => (a.1 >= b.0, a.0 >= b.1),
        Comparison::Less => (a.0 < b.1, a.1 < b.0),
        Comparison::LessEqual => (a.0 <= b.1, a.1 <= b.0),
        Comparison::Equal => (meet(a, b), false),
        Comparison::NotEqual => (true, !meet(a, b)),
    };
    match (is_possible, is_certain) {
        (false, _) => Some(format!("this is never met: its value is {}", words(a))),
        (_, true) => Some(format!("this is always met: its value is {}", words(a))),
        _ => None,
    }
}

fn meet(a: Range, b: Range) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}

fn words((least, greatest): Range) -> String {
    match greatest == f64::INFINITY {
        true => format!("{least} or more"),
        false => format!("{least} to {greatest}"),
    }
}

/// Returns the range of an expression, in the unit in which it is compared.
fn of(expr: &Expr) -> Range {
    match expr {
        Expr::Number(number) => (*number, *number),
        Expr::Correlation(_) => (-1.0, 1.0),
        Expr::Sustained { .. } => (0.0, 1.0),
        Expr::Occurrences { .. } | Expr::InFlight(_) | Expr::Abs(_) => NOT_NEGATIVE,
        Expr::Elapsed(Elapsed::Idle(_) | Elapsed::Age(_) | Elapsed::Silent { .. }) => NOT_NEGATIVE,
        Expr::Aggregate {
            aggregate: Aggregate::Count | Aggregate::RateOfCount | Aggregate::Stddev, ..
        } => NOT_NEGATIVE,
        Expr::Binary { op: Arithmetic::Multiply, left, right } => scaled(left, right),
        _ => ANYTHING,
    }
}

/// Returns the range of a value that a unit conversion multiplies by a number above 0.
fn scaled(left: &Expr, right: &Expr) -> Range {
    match (left, right) {
        (of_it, Expr::Number(factor)) | (Expr::Number(factor), of_it) if *factor > 0.0 => {
            let (least, greatest) = of(of_it);
            (least * factor, greatest * factor)
        }
        _ => ANYTHING,
    }
}

#[cfg(test)]
mod tests {
    use crate::pipeline::load_files;

    fn warned(rest: &str) -> Vec<String> {
        let text = format!("rules:\n  - {{ id: r, severity: info, expr: '{rest}' }}\n");
        let found = load_files(vec![("f.yaml".into(), text)]).diagnostics;
        assert!(found.iter().all(|one| !one.is_error), "{rest}: {found:?}");
        found.into_iter().map(|one| one.message).collect()
    }

    #[test]
    fn a_comparison_that_no_value_meets_is_said() {
        let pair = "avg(a[1m]) by (host), avg(b[1m]) by (host)";
        for (expr, word) in [
            (format!("correlation({pair}, 30m) > 1"), "never"),
            (format!("correlation({pair}, 30m) < -1.5"), "never"),
            (format!("correlation({pair}, 30m) >= -1"), "always"),
            ("sustained(avg(a[1m]) > 90, 10m) > 100%".into(), "never"),
            ("sustained(avg(a[1m]) > 90, 10m) > 110%".into(), "never"),
            ("count(a[5m]) < 0".into(), "never"),
            ("0 > count(a[5m])".into(), "never"),
            ("count(a[5m]) != -1".into(), "always"),
            ("idle(pipeline=\"p\") < 0s".into(), "never"),
        ] {
            let found = warned(&expr);
            assert!(found.len() == 1 && found[0].contains(word), "{expr}: {found:?}");
        }
        for expr in [
            format!("correlation({pair}, 30m) > 0.9"),
            format!("abs(correlation({pair}, 30m)) >= 1"),
            "sustained(avg(a[1m]) > 90, 10m) >= 100%".into(),
            "count(a[5m]) == 0".into(),
            "avg(a[5m]) < 0".into(),
            "idle(pipeline=\"p\") > 2m".into(),
        ] {
            assert_eq!(warned(&expr), Vec::<String>::new(), "{expr}");
        }
    }

    #[test]
    fn a_level_that_no_value_meets_is_said() {
        let text = "rules:\n  - { id: r, expr: 'sustained(avg(a[1m]) > 90, 10m)', levels: { warning: '> 80%', critical: '> 180%' } }\n";
        let found = load_files(vec![("f.yaml".into(), text.into())]).diagnostics;
        assert!(found.len() == 1 && found[0].message.contains("0 to 1"), "{found:?}");
        let text = "rules:\n  - { id: r, expr: 'count(a[1m])', levels: { warning: '> 5' }, reset: { warning: '< 0' } }\n";
        let found = load_files(vec![("f.yaml".into(), text.into())]).diagnostics;
        assert!(found.len() == 1 && found[0].message.contains("never met"), "{found:?}");
    }

    #[test]
    fn matchers_that_exclude_each_other_are_said() {
        for (expr, count) in [
            ("avg(m{a=\"1\",a=\"2\"}[1m]) > 1", 1),
            ("avg(m{a=\"1\",a!=\"1\"}[1m]) > 1", 1),
            ("avg(m{a=\"1\",a=~\"2.*\"}[1m]) > 1", 1),
            ("avg(m{a=\"1\",a=~\"1.*\"}[1m]) > 1", 0),
            ("avg(m{source=\"a\",pipeline=\"b\"}[1m]) > 1", 0),
            ("avg(run_duration_seconds{source=\"a\",pipeline=\"b\"}[1m]) > 1s", 1),
            ("avg(run_duration_seconds{source=\"a\",pipeline=\"a\"}[1m]) > 1s", 0),
            ("idle(pipeline=\"a\",pipeline=\"b\") > 2m", 1),
        ] {
            let found = warned(expr);
            assert_eq!(found.len(), count, "{expr}: {found:?}");
        }
    }
}
