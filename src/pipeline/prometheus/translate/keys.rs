//! The keys that an expression has values for, as far as the rule file determines them.

use crate::pipeline::prometheus::ast::Matching;
use std::collections::BTreeSet;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Keys {
    /// A number, which has a value for every key.
    Any,
    /// Each series of this name is a key.
    Series(String),
    By(BTreeSet<String>),
}

impl Keys {
    /// Returns the common keys of two operands. Prometheus matches on all labels, or on those that the
    /// operator names; here values meet on equal keys, so both must give the same result.
    pub(super) fn meet(&self, other: &Keys, matching: &Matching) -> Result<Keys, String> {
        let keys = match (self, other) {
            (Keys::Any, keys) | (keys, Keys::Any) => return Ok(keys.clone()),
            (a, b) if a == b => a,
            (a, b) => {
                return Err(format!(
                    "one side has {}, the other {}: here values meet on equal keys",
                    a.words(),
                    b.words()
                ));
            }
        };
        if matching.group.as_ref().is_some_and(|labels| !labels.is_empty()) {
            return Err("labels that `group_left` or `group_right` carries over have no counterpart".into());
        }
        let Some((is_on, labels)) = &matching.labels else { return Ok(keys.clone()) };
        let is_whole = match keys {
            Keys::By(all) if *is_on => {
                all.iter().all(|label| labels.contains(label))
                    && labels.iter().all(|label| all.contains(label))
            }
            Keys::By(all) => labels.iter().all(|label| !all.contains(label)),
            _ => false,
        };
        let word = if *is_on { "on" } else { "ignoring" };
        match is_whole {
            true => Ok(keys.clone()),
            false => Err(format!("`{word}` has no counterpart: here values meet on equal keys")),
        }
    }

    fn words(&self) -> String {
        match self {
            Keys::Any => "no keys".into(),
            Keys::Series(name) => format!("a key per series of `{name}`"),
            Keys::By(labels) if labels.is_empty() => "one key over all".into(),
            Keys::By(labels) => {
                let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                format!("keys by ({})", labels.join(", "))
            }
        }
    }
}
