//! The limit of a condition as its author wrote it: `> 1%`, `> learned`, `> upper(…)`.
//!
//! Invariant: an alert shows the limit as the rule states it, so the author recognizes it. A comparison that begins
//! with its number, such as `5 < x`, is shown as `> 5`.
//! Rejected: the limit in the value's unit (0.01 for `1%`).

use super::expr::parse::{Term, TermKind};
use crate::core::rule::Level;
use crate::core::vocab::comparison::Comparison;

/// Sets the threshold text of the levels of a condition to the limit as it is written in the expression.
pub(super) fn as_written(mut levels: Vec<Level>, term: &Term, text: &str) -> Vec<Level> {
    for level in levels.iter_mut().filter(|level| level.condition.is_none()) {
        if let Some(written) = written(term, text) {
            level.threshold = written.into();
        }
    }
    levels
}

/// Returns the limit of the leftmost comparison.
fn written(term: &Term, text: &str) -> Option<String> {
    match &term.kind {
        TermKind::Logic(_, left, _) => written(left, text),
        TermKind::Compare(op, left, right) if is_number(left) && !is_number(right) => {
            limit(op.mirrored(), left, text)
        }
        TermKind::Compare(op, _, right) => limit(*op, right, text),
        _ => None,
    }
}

fn limit(op: Comparison, of: &Term, text: &str) -> Option<String> {
    let words: Vec<&str> = text.get(of.at.start..of.at.end)?.split_whitespace().collect();
    Some(format!("{} {}", op.symbol(), balanced(&words.join(" "))))
}

/// Adds missing parentheses: the span of a term excludes the parentheses around its first and last part.
fn balanced(text: &str) -> String {
    let count = |c: char| text.chars().filter(|other| *other == c).count();
    let (open, closed) = (count('('), count(')'));
    format!("{}{text}{}", "(".repeat(closed.saturating_sub(open)), ")".repeat(open.saturating_sub(closed)))
}

fn is_number(term: &Term) -> bool {
    match &term.kind {
        TermKind::Number(_) => true,
        TermKind::Negative(inner) => is_number(inner),
        TermKind::Arithmetic(_, left, right) => is_number(left) && is_number(right),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::expr::parse::parse;

    #[test]
    fn a_limit_is_what_stands_in_the_rule() {
        let cases = [
            ("count(e[5m]) / count(r[5m]) > 1%", "> 1%"),
            ("p99(latency_ms[1m]) by (source) > 1s", "> 1s"),
            ("p99 > 1000ms for 5 minutes", "> 1000ms"),
            ("0.9 < avg(x[1m])", "> 0.9"),
            ("-5 >= avg(x[1m])", "<= -5"),
            ("idle(pipeline=\"p\") > learned and idle(pipeline=\"p\") > 2m", "> learned"),
            ("(avg(a[1m]) > 100) unless (avg(b[1m]) > 0)", "> 100"),
            ("avg(a[1m]) > upper(avg(a[1m]) by (s),\n  24h, 3)", "> upper(avg(a[1m]) by (s), 24h, 3)"),
            ("avg(a[1m]) > (avg(b[1m]) + 1) * 2", "> (avg(b[1m]) + 1) * 2"),
        ];
        for (text, limit) in cases {
            let parsed = parse(text).expect(text);
            assert_eq!(written(&parsed.term, text).as_deref(), Some(limit), "{text}");
        }
    }
}
