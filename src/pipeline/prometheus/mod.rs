//! Rules of Prometheus, as far as they can be said here, and promtool's tests of them.
//!
//! Intuition: most rules people have are a rate, a ratio or a quantile against a limit, and those exist here under
//! the same names; but the same words read other things. There a rule reads one sample of each series at each
//! evaluation, here it reads all observations of a window. So a construct is converted only where both come to the
//! same, and the table says when. Invariant: what is converted is compiled like any file, so it runs; what differs
//! a little has a note; everything else is left out with the reason, and so is whatever reads it. Rejected:
//! evaluating PromQL itself (windows of observations are no samples of a scrape), and passing on what only looks
//! alike (a rule that fires for something else is worse than none).
//!
//! | there | here | equal when |
//! |---|---|---|
//! | `x > 5` | `last(x[5m]) > 5` | to the evaluations: here a value between two of them is seen, too; `x` is no counter: not read by `rate`, `increase`, … anywhere, not named `_total` or `_bucket`; a series that ends without a marker is seen for the 5 minutes of Prometheus' lookback, one with a marker, too |
//! | `5 < x` | `last(x[5m]) > 5` | always: the value shown is that of the series |
//! | `x < +Inf`, `x != NaN` | below the greatest number | always: values are finite here; what is never met is refused |
//! | `rate(x[5m]) > 0.5` | the same, `x` cumulative | to the edges of the window: nothing is extrapolated, the oldest pane (a fifth at most) is not whole |
//! | `increase(x[1h])` | `sum(x[1h])`, `x` cumulative | noted: not extrapolated |
//! | `sum by (a) (rate(x[5m]))`, `increase`, `sum_over_time`, `count_over_time` | `rate(x[5m]) by (a)`, … | sums of sums are sums |
//! | `max by (a) (max_over_time(x[5m]))`, `min` | `max(x[5m]) by (a)` | extremes of extremes are extremes |
//! | `avg by (a) (avg_over_time(x[5m]))` | `avg(x[5m]) by (a)` | noted: over values, not series |
//! | `max by (a) (x)`, `min`, `avg` | `max(x[1m]) by (a)` | noted: over the values of a minute; two different ones in one value or comparison are refused (their distance is also that of one series from itself) |
//! | `sum(x)`, `count(x)`, `stddev(x)`, `topk(…)`, `quantile(q, x)`, … | – | refused: values of one key are observations, not series |
//! | `sum by (a) (sum by (a, b) (…))`, `min`, `max` | the outer one | the inner labels contain the outer ones |
//! | `avg_over_time`, `min_…`, `max_…`, `sum_…`, `count_…`, `last_…`, `stddev_…` | `avg(x[W])`, … | `x` is no counter |
//! | `quantile_over_time(q, x[W])` | `quantile(q, x[W])` | noted: one of the values to 1 % or a step of its unit, not interpolated |
//! | `histogram_quantile(q, sum by (le, a) (rate(x_bucket[W])))` | `quantile(q, x[W]) by (a)` | noted: observations are sent instead of buckets |
//! | `predict_linear(x[6h], t)` | `forecast(avg(x[5m]), 6h, t)` | noted: Theil–Sen instead of least squares |
//! | `abs`, `clamp`, `clamp_min`, `clamp_max` | `abs`, `clamp`, `max`, `min` | limits are numbers |
//! | `+ - * /` | the same | equal keys; no two units by name that would be converted; noted for `/`: a division by zero is unknown |
//! | comparisons of two values | the same | as above |
//! | no value: `rate(x[5m]) == 0` | `… and count(x[5m]) > 0` | `rate`, `sum`, `count` of nothing are zero here: where the comparison holds for it, the data must be there |
//! | `a and b`, `a or b` | the same | equal keys; noted for `or`: the value shown is that of the left side |
//! | `a unless b` | `(a) unless (b and count(…) > 0)` | equal keys; without data `b` is a no, not unknown |
//! | `on (…)`, `ignoring (…)`, `group_left` | nothing | they name just the labels that both sides have; nothing is carried over |
//! | `absent(x{a="b"})` | `count(x{a="b"}[5m]) by () == 0`, a declared series, the label `a` | the matchers let a series with just the labels of the `=` pass; the whole rule |
//! | `record:` | `record:` | one expression a name, no `labels:`; what is zero of nothing is divided by `min(1, count(…))`, so that no data is no value; its unit is the one its name says |
//! | a recorded series | `last(r[1m])`, `max`, `min`, `last_over_time` | it is converted itself; what weighs values (`avg_over_time`, `rate`, …) is refused: they come when they change |
//! | label matchers, `by` | the same | `name` is called `exported_name` and `source` is left out (here both are fields of the event); the metric by its name; patterns are rewritten where RE2 means something else by them |
//! | `for`, `keep_firing_for` | the same | held time instead of evaluations; while it is pending, a gap in the data begins `for` anew only beyond the larger of it and 5 minutes |
//! | no data while firing | `on_unknown: clear_after …` | as long as Prometheus looks back, or `keep_firing_for` |
//! | `labels:` | the same; `severity` is one of ours | no templates; none that replaces a label of the series |
//! | `summary`, `description` or `message`, `runbook_url` | `summary`, `runbook` | labels, the value and its filters; the other annotations are noted |
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

/// What came of some rule files.
#[derive(Debug, Default)]
pub struct Converted {
    pub rules: Vec<RuleOut>,
    pub records: Vec<RecordOut>,
    /// What could not be said, and why.
    pub left_out: Vec<Remark>,
    /// What is said, but differs, and how.
    pub notes: Vec<Remark>,
    /// Whether these rules have a label that is called there as `name` is here.
    pub has_exported: bool,
}

/// Something to say of a rule.
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

/// Converts rule files given as (name, text); a file that cannot be read ends it.
pub fn convert(files: &[(String, String)]) -> Result<Converted, String> {
    document::read(files).map(resolve::resolve)
}

impl Converted {
    /// As a pipeline file.
    pub fn yaml(&self) -> String {
        let records: Vec<&RecordOut> = self.records.iter().collect();
        let rules: Vec<&RuleOut> = self.rules.iter().collect();
        out::yaml(&records, &rules)
    }

    /// How many of which came of it.
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
