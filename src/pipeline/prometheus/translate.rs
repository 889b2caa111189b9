//! PromQL's tree to an expression of ours.

use super::promql::{Node, Vector, parse};
use crate::core::Span;
use std::collections::BTreeSet;

/// What came of one expression.
#[derive(Debug, Default, PartialEq)]
pub struct Translation {
    pub expr: String,
    /// Metrics of which increments are taken.
    pub cumulative: BTreeSet<String>,
    /// What differs.
    pub notes: BTreeSet<String>,
}

/// Prometheus looks back so far for the newest sample.
const LOOKBACK: Span = Span::from_mins(5);

/// A line needs twenty windows.
const LINE_WINDOWS: i64 = 20;

/// `is_condition`: an alert; else a record.
pub fn translate(text: &str, is_condition: bool) -> Result<Translation, String> {
    let node = parse(text)?;
    let mut translator = Translator(Translation::default());
    let expr = match is_condition {
        true => translator.condition(&node)?,
        false => translator.value(&node)?,
    };
    Ok(Translation { expr, ..translator.0 })
}

struct Translator(Translation);

type Said = Result<String, String>;

impl Translator {
    fn condition(&mut self, node: &Node) -> Said {
        match node {
            Node::Binary { op: op @ ("and" | "or" | "unless"), left, right } => {
                Ok(format!("({}) {op} ({})", self.condition(left)?, self.condition(right)?))
            }
            Node::Binary { op: op @ ("==" | "!=" | ">=" | "<=" | ">" | "<"), left, right } => {
                Ok(format!("{} {op} {}", self.value(left)?, self.value(right)?))
            }
            Node::Call { name, args } if name == "absent" || name == "absent_over_time" => {
                let [Node::Vector(vector)] = args.as_slice() else {
                    return Err(format!("`{name}` of an expression has no counterpart"));
                };
                let range = vector.range.unwrap_or(LOOKBACK);
                self.note("`silent` knows only series that were seen, or are declared");
                Ok(format!("silent({}) > {range}", selector(vector, None)))
            }
            _ => Err("it is no comparison: nothing says when it is bad".into()),
        }
    }

    fn value(&mut self, node: &Node) -> Said {
        match node {
            Node::Number(number) => Ok(number.to_string()),
            Node::Vector(vector) => Ok(format!("last({})", selector(vector, Some(LOOKBACK)))),
            Node::Binary { op: op @ ("+" | "-" | "*" | "/"), left, right } => {
                Ok(format!("({} {op} {})", self.value(left)?, self.value(right)?))
            }
            Node::Binary { op, .. } => Err(format!("`{op}` within a value has no counterpart")),
            Node::Call { name, args } => self.call(name, args, ""),
            Node::Aggregation { op, by, args } => self.aggregation(op, by, args),
        }
    }

    /// A function; `by`: the aggregation around it.
    fn call(&mut self, name: &str, args: &[Node], by: &str) -> Said {
        match (name, args) {
            ("abs", [value]) => Ok(format!("abs({})", self.value(value)?)),
            ("clamp", [value, low, high]) => {
                Ok(format!("clamp({}, {}, {})", self.value(value)?, self.value(low)?, self.value(high)?))
            }
            ("clamp_min", [value, low]) => Ok(format!("max({}, {})", self.value(value)?, self.value(low)?)),
            ("clamp_max", [value, high]) => Ok(format!("min({}, {})", self.value(value)?, self.value(high)?)),
            ("quantile_over_time", [Node::Number(q), Node::Vector(of)]) => {
                Ok(format!("quantile({q}, {}){by}", ranged(of)?))
            }
            ("histogram_quantile", [Node::Number(q), inner]) => self.histogram_quantile(*q, inner),
            ("predict_linear", [Node::Vector(of), ahead]) => self.predict(of, ahead, by),
            ("rate" | "irate", [Node::Vector(of)]) => {
                self.0.cumulative.insert(of.name.clone());
                if name == "irate" {
                    self.note("`irate` is said as `rate` over the whole range");
                }
                Ok(format!("rate({}){by}", ranged(of)?))
            }
            ("increase", [Node::Vector(of)]) => {
                self.0.cumulative.insert(of.name.clone());
                self.note("`increase` is the sum of the increments, not extrapolated");
                Ok(format!("sum({}){by}", ranged(of)?))
            }
            (_, [Node::Vector(of)]) if over_time(name).is_some() => {
                Ok(format!("{}({}){by}", over_time(name).unwrap_or_default(), ranged(of)?))
            }
            ("deriv" | "delta" | "idelta", _) => {
                Err(format!("`{name}` has no counterpart; `trend(agg, period)` gives a slope per hour"))
            }
            ("time" | "timestamp", _) => {
                Err(format!("`{name}` has no counterpart; `silent(…)` and `age(…)` measure time"))
            }
            _ => Err(format!("`{name}` has no counterpart")),
        }
    }

    fn aggregation(&mut self, op: &str, by: &[String], args: &[Node]) -> Said {
        let [inner] = args else { return Err(format!("`{op}` with a parameter has no counterpart")) };
        let of = format!(" by ({})", by.join(", "));
        match (op, inner) {
            ("sum", Node::Call { name, args }) if adds_up(name) => self.call(name, args, &of),
            ("min" | "max" | "avg", Node::Call { name, args }) if *name == format!("{op}_over_time") => {
                if op == "avg" {
                    self.note("the average is over all observations, not over the series' averages");
                }
                self.call(name, args, &of)
            }
            ("max" | "min" | "avg" | "stddev", Node::Vector(vector)) => {
                let range = Span::from_mins(1);
                self.note("a current value is one of the last minute");
                Ok(format!("{op}({}){of}", selector(vector, Some(range))))
            }
            ("sum" | "count", Node::Vector(_)) => Err(format!(
                "`{op}` of current values has no counterpart: values of one key are observations, not series"
            )),
            _ => Err(format!("`{op}` of this has no counterpart; record the inner part")),
        }
    }

    /// `histogram_quantile(q, sum by (le, …) (rate(x_bucket[W])))`: histograms are native here.
    fn histogram_quantile(&mut self, q: f64, inner: &Node) -> Said {
        let (rate, by) = match inner {
            Node::Aggregation { op, by, args } if op == "sum" => match args.as_slice() {
                [inner] => (inner, Some(by)),
                _ => return Err("`histogram_quantile` of this has no counterpart".into()),
            },
            other => (other, None),
        };
        let Node::Call { name, args } = rate else {
            return Err("`histogram_quantile` of this has no counterpart".into());
        };
        let ("rate" | "irate" | "increase", [Node::Vector(of)]) = (name.as_str(), args.as_slice()) else {
            return Err("`histogram_quantile` of this has no counterpart".into());
        };
        let name = of.name.strip_suffix("_bucket").unwrap_or(&of.name).to_string();
        self.note("histograms are native: send the observations themselves, not buckets");
        let of = Vector { name, ..of.clone() };
        let labels = |by: &Vec<String>| {
            let rest: Vec<&str> = by.iter().filter(|label| *label != "le").map(String::as_str).collect();
            format!(" by ({})", rest.join(", "))
        };
        Ok(format!("quantile({q}, {}){}", ranged(&of)?, by.map(labels).unwrap_or_default()))
    }

    fn predict(&mut self, of: &Vector, ahead: &Node, by: &str) -> Said {
        let period = of.range.ok_or("a range is missing")?;
        let ahead = Span::from_ms((seconds(ahead)? * 1e3) as i64);
        let window = [Span::from_mins(5), Span::from_mins(1), Span::from_secs(10)];
        let window = window.into_iter().find(|window| *window * LINE_WINDOWS <= period);
        let window = window.ok_or("a forecast needs twenty windows of its past")?;
        self.note("a forecast follows the Theil-Sen line, which outliers do not move");
        let of = Vector { range: None, ..of.clone() };
        Ok(format!("forecast(avg({}){by}, {period}, {ahead})", selector(&of, Some(window))))
    }

    fn note(&mut self, text: &str) {
        self.0.notes.insert(text.into());
    }
}

/// The value of arithmetic on numbers, such as `4 * 3600`.
fn seconds(node: &Node) -> Result<f64, String> {
    match node {
        Node::Number(number) => Ok(*number),
        Node::Binary { op, left, right } => {
            let (a, b) = (seconds(left)?, seconds(right)?);
            match *op {
                "*" => Ok(a * b),
                "+" => Ok(a + b),
                "-" => Ok(a - b),
                "/" if b != 0.0 => Ok(a / b),
                _ => Err("how far ahead must be a number of seconds".into()),
            }
        }
        _ => Err("how far ahead must be a number of seconds".into()),
    }
}

/// Whether the sum over series is what one gets over all observations.
fn adds_up(name: &str) -> bool {
    matches!(name, "rate" | "irate" | "increase" | "sum_over_time" | "count_over_time")
}

fn over_time(name: &str) -> Option<&'static str> {
    Some(match name {
        "avg_over_time" => "avg",
        "min_over_time" => "min",
        "max_over_time" => "max",
        "sum_over_time" => "sum",
        "count_over_time" => "count",
        "last_over_time" => "last",
        "stddev_over_time" => "stddev",
        _ => return None,
    })
}

fn ranged(vector: &Vector) -> Said {
    let range = vector.range.ok_or_else(|| format!("`{}` needs a range", vector.name))?;
    Ok(selector(vector, Some(range)))
}

fn selector(vector: &Vector, window: Option<Span>) -> String {
    let matchers = match vector.matchers.is_empty() {
        true => String::new(),
        false => format!("{{{}}}", vector.matchers.join(",")),
    };
    let window = window.map_or(String::new(), |window| format!("[{window}]"));
    format!("{}{matchers}{window}", vector.name)
}
