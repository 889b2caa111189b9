//! Checks the hysteresis of a level: no value may meet both the level and its `reset`, because the level would then
//! end as soon as it starts.

use crate::core::rule::Level;
use crate::core::vocab::comparison::{Compare, Comparison};

/// Returns a value that meets both a level and its reset, if there is one.
///
/// The two limits divide the number line into at most five parts; one value of each part is tried.
pub(super) fn met_by_both(level: Compare, reset: Compare) -> Option<f64> {
    let (low, high) = (level.limit.min(reset.limit), level.limit.max(reset.limit));
    let beyond = |limit: f64| limit.abs().max(1.0);
    let values = [low - beyond(low), low, low.midpoint(high), high, high + beyond(high)];
    values.into_iter().find(|value| level.holds(*value) && reset.holds(*value))
}

/// States in words on which side of its level a reset must lie.
pub(super) fn side(level: Compare, written: &str) -> String {
    let limit = written.trim_start_matches(['<', '>', '=', '!']).trim();
    match level.op {
        Comparison::Greater | Comparison::GreaterEqual => {
            format!("the reset lies below the level: `< {limit}` or less")
        }
        Comparison::Less | Comparison::LessEqual => {
            format!("the reset lies above the level: `> {limit}` or more")
        }
        Comparison::Equal => format!("the reset of this level is `!= {limit}`"),
        Comparison::NotEqual => format!("the reset of this level is `== {limit}`"),
    }
}

/// Returns two adjacent levels in the wrong order: the lower one is never reported, because a value that
/// meets it also meets the higher one. With equal limits on the same side, the lower level is reported only
/// if its `for` is shorter.
pub(super) fn out_of_order(levels: &[Level]) -> Option<(&Level, &Level)> {
    let is_weaker = |above: Compare, below: Compare| match (above.op, below.op) {
        (Comparison::Greater | Comparison::GreaterEqual, Comparison::Greater | Comparison::GreaterEqual) => {
            above.limit < below.limit
        }
        (Comparison::Less | Comparison::LessEqual, Comparison::Less | Comparison::LessEqual) => {
            above.limit > below.limit
        }
        _ => false,
    };
    levels.windows(2).find_map(|pair| {
        let (below, above) = (pair[0].condition?, pair[1].condition?);
        let is_alike = above.limit == below.limit && is_same_side(above, below);
        let is_never_told = is_alike && pair[1].pending_for <= pair[0].pending_for;
        (is_weaker(above, below) || is_never_told).then_some((&pair[0], &pair[1]))
    })
}

/// Whether a value that meets the lower level also meets the upper one, if both limits are equal.
fn is_same_side(above: Compare, below: Compare) -> bool {
    match (above.op, below.op) {
        (Comparison::GreaterEqual, Comparison::Greater) | (Comparison::LessEqual, Comparison::Less) => true,
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::load_files;

    fn said(levels: &str) -> Vec<(bool, String)> {
        let text = format!("rules:\n  - id: r\n    expr: avg(cpu_percent[1m]) by (host)\n    {levels}\n");
        let found = load_files(vec![("f.yaml".into(), text)]).diagnostics;
        found.into_iter().map(|one| (one.is_error, one.message)).collect()
    }

    #[test]
    fn a_reset_stands_on_the_other_side_of_its_level() {
        for (level, reset) in [
            ("> 10%", "> 20%"),
            ("> 10%", "< 15%"),
            ("> 10%", "> 5%"),
            (">= 10%", "<= 10%"),
            ("< 10%", "< 5%"),
            ("< 10%", "> 5%"),
            ("== 0", "< 5%"),
            ("!= 0", "> 1%"),
        ] {
            let found =
                said(&format!("levels: {{ warning: '{level}' }}\n    reset: {{ warning: '{reset}' }}"));
            assert!(found.len() == 1 && found[0].0, "{level} {reset}: {found:?}");
            assert!(found[0].1.contains("at once"), "{found:?}");
        }
        for (level, reset) in [
            ("> 10%", "< 5%"),
            ("> 10%", "< 10%"),
            ("> 10%", "<= 10%"),
            (">= 10%", "< 10%"),
            ("< 10%", "> 20%"),
            ("== 0", "> 0"),
            ("!= 0", "== 0"),
        ] {
            let found =
                said(&format!("levels: {{ warning: '{level}' }}\n    reset: {{ warning: '{reset}' }}"));
            assert!(found.is_empty(), "{level} {reset}: {found:?}");
        }
    }

    #[test]
    fn what_is_said_of_a_level_that_is_not_there_is_wrong() {
        let levels = "levels: { warning: '> 10%' }";
        for more in [
            "reset: { critical: '< 5%' }",
            "for: { critical: 5m }",
            "actions: { critical: [scale_up] }",
            "actions: { warnig: [scale_up] }",
        ] {
            let found = said(&format!("{levels}\n    {more}"));
            assert!(found.len() == 1 && found[0].0, "{more}: {found:?}");
        }
        for (levels, count) in [
            ("levels: { warning: '> 5%', critical: '> 5%' }", 1),
            ("levels: { warning: '< 5%', critical: '<= 5%' }", 1),
            ("levels: { warning: '<= 5%', critical: '< 5%' }", 0),
            ("levels: { warning: '> 5%', critical: '> 5%' }\n    for: { critical: 5m }", 0),
            ("levels: { warning: '> 5%', critical: '> 5%' }\n    for: { warning: 5m }", 1),
        ] {
            assert_eq!(said(levels).len(), count, "{levels}");
        }
        let found = said("levels: { warning: '> 50%', critical: '> 10%' }");
        assert!(found.len() == 1 && !found[0].0 && found[0].1.contains("critical"), "{found:?}");
    }

    #[test]
    fn a_rule_of_one_level_has_its_reset_checked_too() {
        let text = |reset: &str| {
            let text =
                format!("rules:\n  - {{ id: r, expr: 'avg(x[1m]) > 5', severity: info, reset: {reset} }}\n");
            load_files(vec![("f.yaml".into(), text)]).diagnostics.len()
        };
        assert_eq!((text("'< 4'"), text("'> 6'"), text("'< 6'")), (0, 1, 1));
        assert_eq!((text("{ info: '< 4' }"), text("{ critical: '< 4' }")), (0, 1));
    }
}
