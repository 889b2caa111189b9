//! The nesting depth of an expression in the JSON of a control record. The parser that reads the record has a
//! depth limit.
//!
//! Invariant: every accepted expression can be read back from the log, from an export and from a snapshot. An
//! expression that cannot be read back would be lost at the next start, together with the whole rule set.

use super::Checked;
use crate::core::rule::ast::{Cond, Elapsed, Expr};

/// The largest number of nested JSON objects and arrays in an expression. The parser reads 127 levels. Six
/// enclose an expression in a line of an export (line, control, rule set, list, rule, subject), and ten are
/// kept in reserve. Each link of a chain takes two levels, so a chain of fifty comparisons of ratios fits:
/// 49 × 2 + 9 = 107.
pub(super) const LEVELS_MAX: usize = 111;

/// The levels of a run selector: `{"matchers":{"matchers":[{"test":{…}}]}}`.
const RUN_SELECTOR: usize = 5;

pub(super) fn of(checked: &Checked) -> usize {
    match checked {
        Checked::Value(typed) => of_expr(&typed.expr),
        Checked::Condition(cond, _) => of_cond(cond),
    }
}

fn of_cond(cond: &Cond) -> usize {
    match cond {
        Cond::Compare { left, right, .. } => 2 + of_expr(left).max(of_expr(right)),
        Cond::And(a, b) | Cond::Or(a, b) | Cond::Unless(a, b) => 2 + of_cond(a).max(of_cond(b)),
    }
}

/// The name of an enum variant takes one level, and its fields another.
fn of_expr(expr: &Expr) -> usize {
    match expr {
        Expr::Number(_) => 1,
        // The aggregate may be a quantile, which contains a number.
        Expr::Aggregate { .. } | Expr::Change { .. } => 3,
        // The period or the function may have fields.
        Expr::Past(_) => 4,
        Expr::Correlation(_) => 5,
        Expr::Elapsed(elapsed) | Expr::Learned(elapsed) => match elapsed {
            Elapsed::Idle(_) | Elapsed::Age(_) => 2 + RUN_SELECTOR,
            Elapsed::Silent { .. } => 3,
        },
        Expr::InFlight(_) => 1 + RUN_SELECTOR,
        Expr::Sustained { cond, .. } | Expr::Occurrences { cond, .. } => 2 + of_cond(cond),
        Expr::Binary { left, right, .. } => 2 + of_expr(left).max(of_expr(right)),
        Expr::Abs(inner) => 1 + of_expr(inner),
        Expr::Min(all) | Expr::Max(all) => 2 + all.iter().map(of_expr).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::parse::parse;
    use super::super::{Checked, Checker};
    use super::*;
    use crate::core::record::Control;
    use crate::core::rule::RuleSet;
    use crate::pipeline::load_files;
    use serde_json::{Value, json};

    /// Counts the levels of the real JSON.
    fn levels(value: &Value) -> usize {
        match value {
            Value::Array(all) => 1 + all.iter().map(levels).max().unwrap_or(0),
            Value::Object(all) => 1 + all.values().map(levels).max().unwrap_or(0),
            _ => 0,
        }
    }

    #[test]
    fn levels_are_those_of_the_json() {
        for text in [
            "quantile(0.99, a_ms[5m]) by (source) > 1s",
            "change(p95(a_ms[5m]), 1h) > 10%",
            "regression(p95(a_ms[5m]) by (source), season(week, 4)) > 10%",
            "forecast(max(a_ms[5m]), 6h, 4h) > 1s",
            "correlation(p95(a_ms[1m]) by (s), p95(b_ms[1m]) by (s), season(day, 2)) > 0.9",
            r#"idle(pipeline=~"p.*") > learned"#,
            r#"in_flight(pipeline=~"p.*") > 5"#,
            "silent(a_ms) > 5m",
            "sustained(p99(a_ms[1m]) > 1s, 1h) > 50%",
            "abs(p95(a_ms[5m]) by (s)) + clamp(p95(b_ms[5m]) by (s), 1ms, 2s) * 2 > 1",
            "p95(a_ms[5m]) by (s) > 1 and p95(b_ms[5m]) by (s) > 1 or avg(c_ms[5m]) by (s) > 1",
        ] {
            let checked = parse(text).and_then(|parsed| Checker::default().check(&parsed.term));
            let checked = checked.unwrap_or_else(|error| panic!("{text}: {}", error.message));
            let json = match &checked {
                Checked::Value(typed) => json!(typed.expr),
                Checked::Condition(cond, _) => json!(cond),
            };
            assert!(of(&checked) >= levels(&json), "{text}: {} for {json}", of(&checked));
            assert!(of(&checked) <= levels(&json) + 2, "{text}: {} for {json}", of(&checked));
        }
    }

    fn rules(expr: &str) -> Option<RuleSet> {
        let text = format!("rules:\n  - id: r\n    expr: '{expr}'\n    severity: info\n");
        load_files(vec![("f.yaml".into(), text)]).rules
    }

    /// Whether a rule set can be read back from the log and from a line of an export.
    fn is_read_back(set: RuleSet) -> bool {
        let control = Control::Rules(Box::new(set));
        let line = json!({"seq": 1, "control": control}).to_string();
        let stored = serde_json::to_string(&control).expect("plain data");
        serde_json::from_str::<Control>(&stored).is_ok_and(|read| read == control)
            && serde_json::from_str::<Line>(&line).is_ok_and(|read| read.control == control)
    }

    #[derive(serde::Deserialize)]
    struct Line {
        control: Control,
    }

    #[test]
    fn every_expression_that_is_taken_is_read_back() {
        let ratio = |n: usize| format!("count(e{n}[5m]) by (s) / count(r{n}[5m]) by (s) > 1%");
        let chain = |count: usize| (0..count).map(ratio).collect::<Vec<_>>().join(" or ");
        let set = rules(&chain(50)).expect("fifty operands are what people write");
        assert!(is_read_back(set));
        assert!(rules(&chain(70)).is_none());
        // The unit of each operand differs from the one before, so each conversion adds a level.
        let units = |count: usize| {
            let nested = (0..count).fold("avg(z_s[5m])".to_string(), |inner, n| {
                let unit = ["ms", "s"][n % 2];
                format!("avg(z_{unit}[5m]) + ({inner})")
            });
            format!("{nested} > 1").replace("[5m])", "[5m]) by (s)")
        };
        let (mut taken, mut refused) = (0, 0);
        for count in 1..80 {
            match rules(&units(count)) {
                Some(set) => {
                    assert!(is_read_back(set), "{count}");
                    taken += 1;
                }
                None => refused += 1,
            }
        }
        assert!(taken > 10 && refused > 10, "{taken} taken, {refused} refused");
    }
}
