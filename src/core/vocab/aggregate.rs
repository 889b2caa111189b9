//! Aggregates: the functions that turn the observations of a window into one value.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Aggregate {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    Last,
    Stddev,
    /// Rates are per second, of the sum (cumulative metrics) or of the count.
    RateOfSum,
    RateOfCount,
    Quantile(f64),
}

/// Quantiles that have a name of their own.
const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)];

impl Aggregate {
    /// Whether the aggregate of an empty window is zero.
    pub fn is_zero_of_nothing(self) -> bool {
        matches!(self, Aggregate::Count | Aggregate::Sum | Aggregate::RateOfCount | Aggregate::RateOfSum)
    }

    /// Returns the aggregate of `what` as written in a rule.
    pub fn of(self, what: &str) -> String {
        let name = match self {
            Aggregate::Count => "count",
            Aggregate::Sum => "sum",
            Aggregate::Avg => "avg",
            Aggregate::Min => "min",
            Aggregate::Max => "max",
            Aggregate::Last => "last",
            Aggregate::Stddev => "stddev",
            Aggregate::RateOfSum | Aggregate::RateOfCount => "rate",
            Aggregate::Quantile(q) => {
                let named = QUANTILES.into_iter().find(|(_, known)| *known == q);
                return named
                    .map_or_else(|| format!("quantile({q}, {what})"), |(name, _)| format!("{name}({what})"));
            }
        };
        format!("{name}({what})")
    }
}
