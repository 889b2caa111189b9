//! Facts from all files that the translation of a single expression needs.
//!
//! Intuition: only other rules show whether `x > 5` compares a gauge or the total of a counter, and whether a
//! name is a metric or a recorded series.
//! Invariant: facts are learned from every expression that can be parsed, including those of rules that are
//! left out.

use super::ast::Node;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Metrics that an expression reads as counters.
    counters: BTreeSet<String>,
    /// Names of all series that expressions read.
    names: BTreeSet<String>,
    /// Recorded series: the reason why one is left out, or the units of the series it reads.
    pub records: BTreeMap<String, Result<BTreeSet<String>, String>>,
}

/// Suffixes that only counters have.
const COUNTERS: [&str; 2] = ["_total", "_bucket"];

/// Suffixes that counters and gauges have.
const PARTS: [&str; 2] = ["_count", "_sum"];

impl Facts {
    /// Learns facts from an expression.
    pub(super) fn learn(&mut self, node: &Node) {
        self.counters.extend(node.counters().into_iter().map(str::to_string));
        self.names.extend(node.names().into_iter().map(str::to_string));
    }

    /// Returns the reason why a metric must be a counter; `None` if it need not be one.
    pub(super) fn counter(&self, name: &str) -> Option<&'static str> {
        if self.counters.contains(name) {
            return Some("it is read by `rate` or `increase`");
        }
        if COUNTERS.iter().any(|suffix| name.ends_with(*suffix)) {
            return Some("its name says so");
        }
        let part = PARTS.iter().find_map(|suffix| name.strip_suffix(*suffix))?;
        let siblings = ["_bucket", "_count", "_sum"].map(|suffix| format!("{part}{suffix}"));
        let read = siblings.iter().filter(|sibling| self.names.contains(*sibling)).count();
        (read > 1).then_some("it is a part of a histogram or summary")
    }

    /// Whether a metric may be a counter although no fact shows it.
    pub(super) fn may_be_counter(&self, name: &str) -> bool {
        PARTS.iter().any(|suffix| name.ends_with(*suffix))
    }
}

#[cfg(test)]
mod tests {
    use super::super::promql::parse;
    use super::*;

    #[test]
    fn a_counter_is_known_by_its_use_its_name_or_its_siblings() {
        let mut facts = Facts::default();
        for text in ["rate(errors[5m]) > 1", "s_sum / s_count > 1", "pg_stat_activity_count > 5"] {
            facts.learn(&parse(text).expect("read"));
        }
        let cases = [
            ("errors", true),
            ("x_total", true),
            ("x_bucket", true),
            ("s_sum", true),
            ("s_count", true),
            ("pg_stat_activity_count", false),
            ("up", false),
        ];
        for (name, is_counter) in cases {
            assert_eq!(facts.counter(name).is_some(), is_counter, "{name}");
        }
        assert!(facts.may_be_counter("pg_stat_activity_count") && !facts.may_be_counter("up"));
    }
}
