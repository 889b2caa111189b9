//! Aggregations over series.
//!
//! Intuition: in streamgauge, `by` merges the series of a key and aggregates all their observations. In PromQL, an
//! aggregation takes one value of each series. The results are equal only for sums of increments, minima of minima
//! and maxima of maxima.

use super::super::ast::{Grouping, Node, Vector};
use super::said::Value;
use super::series::labels;
use super::{LOOKBACK, NOW, Translated, Translator};

impl Translator<'_> {
    pub(super) fn aggregation(&mut self, op: &str, grouping: &Grouping, args: &[Node]) -> Translated {
        let [inner] = args else { return Err(format!("`{op}` with a parameter has no counterpart")) };
        let by = match grouping {
            Grouping::By(by) => labels(by)?,
            Grouping::Without(_) => {
                return Err("`without` has no counterpart; name the labels with `by`".into());
            }
        };
        match (op, inner) {
            ("sum", Node::Call { name, args }) if adds_up(name) => self.of_range(name, args, by),
            ("min" | "max" | "avg", Node::Call { name, args }) if *name == format!("{op}_over_time") => {
                if op == "avg" {
                    self.note("the average is over all values, not over the averages of the series");
                }
                self.of_range(name, args, by)
            }
            // A sum of sums is a sum, and an extreme of extremes is an extreme.
            ("sum" | "min" | "max", Node::Aggregation { op: same, grouping: Grouping::By(finer), args })
                if same == op && by.iter().all(|label| finer.contains(label)) =>
            {
                labels(finer)?;
                self.aggregation(op, grouping, args)
            }
            ("max" | "min" | "avg", Node::Vector(of)) if of.range.is_none() => self.of_current(op, of, by),
            ("sum" | "count" | "group" | "stddev" | "stdvar", Node::Vector(_)) => Err(format!(
                "`{op}` of current values has no counterpart: the values of one key are observations, not series"
            )),
            _ => {
                // An error in the inner expression is reported first.
                self.value(inner)?;
                Err(format!("`{op}` of this has no counterpart; record the inner part"))
            }
        }
    }

    /// Translates an aggregation that equals the function over all observations of the key.
    fn of_range(&mut self, name: &str, args: &[Node], by: &[String]) -> Translated {
        match args {
            [Node::Vector(of)] => self.over_range(name, of, Some(by)),
            [other] => {
                self.value(other)?;
                Err(super::no_function(name))
            }
            _ => Err(super::no_function(name)),
        }
    }

    fn of_current(&mut self, op: &str, of: &Vector, by: &[String]) -> Translated {
        let is_record = self.gauge(of)?;
        if is_record && op == "avg" {
            return Err(
                "`avg` of a recorded series has no counterpart: its values come when they change".into()
            );
        }
        self.note(format!(
            "`{op}` is over all values of the last minute, not over the newest of each series"
        ));
        self.out.current.insert(of.name.clone());
        if !is_record {
            self.out.patience = LOOKBACK - NOW;
        }
        let value = self.leaf(&format!("{op}("), of, NOW, Some(by))?;
        Ok(Value { current: [op.to_string()].into(), ..value })
    }

    /// Translates `histogram_quantile(q, sum by (le, …) (rate(x_bucket[W])))`; the observations themselves
    /// are kept here, so no buckets are needed.
    pub(super) fn histogram_quantile(&mut self, q: f64, inner: &Node) -> Translated {
        let none = || "`histogram_quantile` of this has no counterpart".to_string();
        let (rate, by) = match inner {
            Node::Aggregation { op, grouping: Grouping::By(by), args } if op == "sum" => {
                let [inner] = args.as_slice() else { return Err(none()) };
                (inner, Some(labels(by)?))
            }
            other => (other, None),
        };
        let Node::Call { name, args } = rate else { return Err(none()) };
        let ("rate" | "increase", [Node::Vector(of)]) = (name.as_str(), args.as_slice()) else {
            return Err(none());
        };
        let range = of.range.ok_or_else(none)?;
        let (base, by) = buckets(of, by)?;
        if self.is_record(of)? {
            return Err(none());
        }
        let base = Vector { name: base, ..of.clone() };
        if self.gauge(&base)? {
            return Err(none());
        }
        if !(0.0..=1.0).contains(&q) {
            return Err(format!("`{q}` is no quantile; it is between 0 and 1"));
        }
        self.out.observed.insert(base.name.clone());
        self.note(format!("send the observations of `{}` themselves, not its buckets", base.name));
        self.leaf(&format!("quantile({q}, "), &base, range, by.as_deref())
    }
}

/// Returns the name of the observed metric, and the labels without `le`.
fn buckets(of: &Vector, by: Option<&[String]>) -> Result<(String, Option<Vec<String>>), String> {
    if of.matchers.iter().any(|matcher| matcher.label == "le") {
        return Err("a matcher of `le` has no counterpart: there are no buckets here".into());
    }
    let classic = of.name.strip_suffix("_bucket");
    if classic.is_some() && by.is_some_and(|by| !by.iter().any(|label| label == "le")) {
        return Err("without `le` there are no buckets to take a quantile of".into());
    }
    let rest = by.map(|by| by.iter().filter(|label| *label != "le").cloned().collect());
    Ok((classic.unwrap_or(&of.name).to_string(), rest))
}

/// Whether the sum over series equals the function over all observations.
fn adds_up(name: &str) -> bool {
    matches!(name, "rate" | "irate" | "increase" | "sum_over_time" | "count_over_time")
}
