//! PromQL words that the expression language does not have, each with a hint that names the equivalent.

use super::lex::TokenKind;

/// Returns a hint for an unexpected word, such as `offset` after a series.
pub(super) fn of_word(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "offset" => "compare with the past by `change(avg(x[5m]), 1d)` or `regression(p95(x[5m]), 24h)`",
        "without" => "name the labels that stay: `sum(x[5m]) by (source)`",
        "by" => "write it behind the aggregate: `sum(x[5m]) by (source)`",
        "on" | "ignoring" | "group_left" | "group_right" => {
            "values meet on equal keys: give both sides the same `by (…)`"
        }
        "bool" => {
            "a comparison is a condition here; `sustained(x > 1, 1h)` is the share of time that it held"
        }
        _ => return None,
    })
}

/// Returns a hint for a word that begins a modifier in place of a value: `on (…)`, `bool 1`. Alone, the word
/// may be the name of a series.
pub(super) fn of_modifier(word: &str, next: Option<&TokenKind>) -> Option<&'static str> {
    let is_modifier = match next {
        Some(TokenKind::Symbol("(")) => !matches!(word, "bool" | "offset"),
        Some(TokenKind::Number(_) | TokenKind::Name(_)) => word == "bool",
        _ => false,
    };
    of_word(word).filter(|_| is_modifier)
}

/// Returns a hint for an unexpected symbol.
pub(super) fn of_symbol(symbol: &str) -> Option<&'static str> {
    match symbol {
        ":" => Some("there are no subqueries: make the inner expression a `record:` series"),
        "%" => Some("a share is written against its number: `20%`"),
        "=" => Some("compare by `==`"),
        _ => None,
    }
}

/// Returns a hint for a function of PromQL.
pub(super) fn of_function(name: &str) -> Option<&'static str> {
    of_range_function(name).or(of_other_function(name))
}

fn of_range_function(name: &str) -> Option<&'static str> {
    Some(match name {
        "avg_over_time" => "write `avg(x[5m])`",
        "min_over_time" => "write `min(x[5m])`",
        "max_over_time" => "write `max(x[5m])`",
        "sum_over_time" => "write `sum(x[5m])`",
        "count_over_time" | "present_over_time" => "write `count(x[5m])`",
        "last_over_time" => "write `last(x[5m])`",
        "stddev_over_time" | "stdvar_over_time" | "stdvar" | "mad_over_time" => "write `stddev(x[5m])`",
        "quantile_over_time" => "write `quantile(0.9, x[5m])`, or `p90(x[5m])`",
        "histogram_quantile" => {
            "write `p99(x[5m]) by (source)` or `quantile(0.99, x[5m])`: they come from the values themselves"
        }
        "histogram_count" => "write `count(x[5m])`",
        "histogram_sum" => "write `sum(x[5m])`",
        "histogram_avg" => "write `avg(x[5m])`",
        "histogram_fraction" => {
            "write `sustained(p90(x[1m]) > 1, 1h)`, the share of time that a quantile was above 1"
        }
        "increase" => "write `sum(x[1h])`: with `temporality: cumulative` it is the increase of the counter",
        "irate" => "write `rate(x[1m])`",
        "delta" | "idelta" => {
            "write `change(last(x[5m]), 1h)`, the relative change, or `trend(avg(x[5m]), 1h)`"
        }
        "deriv" => "write `trend(avg(x[5m]), 1h)`, the slope an hour",
        "predict_linear" | "double_exponential_smoothing" | "holt_winters" => {
            "write `forecast(max(x[5m]), 6h, 4h)`, the value that the line of 6h reaches in 4h"
        }
        "changes" | "resets" => "write `occurrences(x > 1, 1h)`, how often a condition began to hold",
        _ => return None,
    })
}

fn of_other_function(name: &str) -> Option<&'static str> {
    Some(match name {
        "absent" | "absent_over_time" => {
            "write `silent(x) > 5m`: each series, seen or declared, that has no event for so long"
        }
        "topk" | "bottomk" | "limitk" | "limit_ratio" => {
            "there is no ranking: `max(x[5m]) by (source) > 10` judges each key by itself"
        }
        "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => {
            "a rule judges each key; none is first"
        }
        "count_values" | "group" => "write `count(x[5m]) by (label)`, one key for each value of the label",
        "label_replace" | "label_join" => "labels stay as they are; `by (…)` and matchers choose among them",
        "time" | "timestamp" | "hour" | "minute" | "month" | "year" | "day_of_week" | "day_of_month"
        | "day_of_year" | "days_in_month" => {
            "times since something are `silent(x)`, `idle(…)` and `age(…)`; times of day stand in `maintenance:`"
        }
        "clamp_min" => "write `max(x, 1)`",
        "clamp_max" => "write `min(x, 1)`",
        "vector" | "scalar" => "write the number or the aggregate alone",
        "avg_without" | "sum_without" | "without" => "name the labels that stay: `sum(x[5m]) by (source)`",
        "round" | "ceil" | "floor" | "exp" | "ln" | "log2" | "log10" | "sqrt" | "sgn" | "deg" | "rad" => {
            "compare the value itself; a summary has `{{ value | round }}`"
        }
        _ => return None,
    })
}
