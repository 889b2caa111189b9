//! Converts Prometheus rules to a pipeline file where an equivalent exists, and reads promtool's tests of such
//! rules.
//!
//! Intuition: most rules compare a rate, a ratio or a quantile with a limit, and these exist here under the
//! same names. But the same names read different data: Prometheus reads one sample of each series at each
//! evaluation, while streamgauge reads all observations of a window. A construct is therefore converted only
//! if both give the same result; the table below states the conditions.
//! Invariant: a converted rule compiles like any file. A rule that differs slightly has a note. Every other
//! rule is left out with a reason, and so is every rule that reads it.
//! Rejected: evaluating PromQL itself (windows of observations are not the samples of a scrape), and
//! converting constructs that only look similar (a rule that fires for another reason is worse than none).
//!
//! | Prometheus | streamgauge | equivalent if |
//! |---|---|---|
//! | `x > 5` | `last(x[5m]) > 5` | up to the times of evaluation: here a value between two evaluations is seen too; `x` is no counter: no rule reads it with `rate`, `increase`, …, and its name does not end in `_total` or `_bucket`; a series that ends is seen for the 5 minutes of Prometheus' lookback, with or without a staleness marker |
//! | `5 < x` | `last(x[5m]) > 5` | always: the alert shows the value of the series |
//! | `x < +Inf`, `x != NaN` | `<=` the greatest finite number | always: values are finite here; a comparison that is never met is refused |
//! | `rate(x[5m]) > 0.5` | the same, `x` cumulative | up to the edges of the window: increments are not extrapolated, and the oldest pane (at most a fifth of the window) is incomplete |
//! | `increase(x[1h])` | `sum(x[1h])`, `x` cumulative | noted: not extrapolated |
//! | `sum by (a) (rate(x[5m]))`, `increase`, `sum_over_time`, `count_over_time` | `rate(x[5m]) by (a)`, … | always: a sum of sums is a sum |
//! | `max by (a) (max_over_time(x[5m]))`, `min` | `max(x[5m]) by (a)` | always: a maximum of maxima is a maximum |
//! | `avg by (a) (avg_over_time(x[5m]))` | `avg(x[5m]) by (a)` | noted: the average is over values, not over series |
//! | `max by (a) (x)`, `min`, `avg` | `max(x[1m]) by (a)` | noted: over the values of a minute; two different aggregations in one value or comparison are refused (over a minute, their difference is also the movement of a single series) |
//! | `sum(x)`, `count(x)`, `stddev(x)`, `topk(…)`, `quantile(q, x)`, … | – | refused: the values of one key are observations, not series |
//! | `sum by (a) (sum by (a, b) (…))`, `min`, `max` | the outer aggregation | the inner labels contain the outer ones |
//! | `avg_over_time`, `min_…`, `max_…`, `sum_…`, `count_…`, `last_…`, `stddev_…` | `avg(x[W])`, … | `x` is no counter |
//! | `quantile_over_time(q, x[W])` | `quantile(q, x[W])` | noted: the quantile is one of the values to 1 % or a step of its unit, not interpolated |
//! | `histogram_quantile(q, sum by (le, a) (rate(x_bucket[W])))` | `quantile(q, x[W]) by (a)` | noted: the producer sends observations instead of buckets |
//! | `predict_linear(x[6h], t)` | `forecast(avg(x[5m]), 6h, t)` | noted: Theil–Sen instead of least squares |
//! | `abs`, `clamp`, `clamp_min`, `clamp_max` | `abs`, `clamp`, `max`, `min` | the limits are numbers |
//! | `+ - * /` | the same | equal keys; the names do not imply two units that would be converted; noted for `/`: a division by zero is unknown |
//! | comparisons of two values | the same | as for arithmetic |
//! | no value: `rate(x[5m]) == 0` | `… and count(x[5m]) > 0` | `rate`, `sum` and `count` without data are zero here; if the comparison holds for zero, the condition demands data |
//! | `a and b`, `a or b` | the same | equal keys; noted for `or`: the alert shows the value of the left side |
//! | `a unless b` | `(a) unless (b and count(…) > 0)` | equal keys; without data `b` is false, not unknown |
//! | `on (…)`, `ignoring (…)`, `group_left` | nothing | they leave exactly the labels that both sides have; no label is carried over |
//! | `absent(x{a="b"})` | `count(x{a="b"}[5m]) by () == 0`, a declared series, the label `a` | the matchers match a series that has only the labels of the `=` matchers; `absent` is the whole rule |
//! | `record:` | `record:` | one expression per name, no `labels:`; a value that is zero without data is divided by `min(1, count(…))`, so that it has no value then; its unit is the one that its name implies |
//! | a recorded series | `last(r[1m])`, `max`, `min`, `last_over_time` | the record is converted itself; functions that weigh values (`avg_over_time`, `rate`, …) are refused, because a record has a value when it changes |
//! | label matchers, `by` | the same | `name` is renamed to `exported_name`, and a rule that reads `source` is left out (here both are fields of the event); the metric has a name; a pattern is rewritten where RE2 interprets it differently |
//! | `for`, `keep_firing_for` | the same | the time held counts, not evaluations; while an alert is pending, a gap in the data restarts `for` only if it is longer than both `for` and 5 minutes |
//! | no data while firing | `on_unknown: clear_after …` | the alert is cleared when Prometheus' lookback would end, or after `keep_firing_for` if that is longer |
//! | `labels:` | the same; `severity` is mapped to info, warning or critical | no templates; no label replaces a label of the series |
//! | `summary`, `description` or `message`, `runbook_url` | `summary`, `runbook` | the text has only labels, the value and its filters; other annotations are noted |
//! | group `interval`, `limit`, `query_offset` | – | noted |
//! | `bool`, `%`, `^`, `atan2`, `without`, `offset`, `@`, subqueries, `irate`, `delta`, `deriv`, `changes`, `time`, `vector`, `label_replace`, any other function, `ALERTS` | – | refused |

mod alert;
mod ast;
mod document;
mod duration;
mod facts;
mod lex;
mod notation;
mod out;
mod promql;
mod regex;
mod resolve;
pub mod suite;
mod template;
mod translate;

pub use alert::RuleOut;
pub use document::Origin;
pub use out::RecordOut;
use std::collections::BTreeSet;
use std::fmt;

/// The result of converting some rule files.
#[derive(Debug, Default)]
pub struct Converted {
    pub rules: Vec<RuleOut>,
    pub records: Vec<RecordOut>,
    /// The rules that are left out, each with the reason.
    pub left_out: Vec<Remark>,
    /// The differences of converted rules.
    pub notes: Vec<Remark>,
    /// Whether these rules have a label `exported_name`, which is the streamgauge name of Prometheus' label `name`.
    pub has_exported: bool,
}

/// A note about a rule, or the reason why it is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Remark {
    pub origin: Origin,
    pub text: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        write!(f, "{}: {shown}", self.origin)
    }
}

/// Converts rule files given as (name, text); returns an error if a file cannot be read.
pub fn convert(files: &[(String, String)]) -> Result<Converted, String> {
    document::read(files).map(resolve::resolve)
}

impl Converted {
    /// Formats the converted rules as a pipeline file.
    pub fn yaml(&self) -> String {
        let records: Vec<&RecordOut> = self.records.iter().collect();
        let rules: Vec<&RuleOut> = self.rules.iter().collect();
        out::yaml(&records, &rules)
    }

    /// Summarizes how many alerts and records are converted, noted and left out.
    pub fn summary(&self) -> String {
        let of = |word: &str, origins: Vec<&Origin>, is_alert: bool| {
            let noted: BTreeSet<String> = self.notes.iter().map(|note| note.origin.to_string()).collect();
            let noted = origins.iter().filter(|origin| noted.contains(&origin.to_string())).count();
            let left = self.left_out.iter().filter(|one| one.origin.is_alert == is_alert).count();
            format!("{word}: {} converted ({noted} noted), {left} left out", origins.len())
        };
        let alerts = of("alerts", self.rules.iter().map(|rule| &rule.origin).collect(), true);
        let records = of("records", self.records.iter().map(|record| &record.origin).collect(), false);
        format!("{alerts}; {records}")
    }
}

#[cfg(test)]
mod tests;
