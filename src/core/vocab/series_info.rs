//! The identity of a series as outputs state it, and its number.

use super::identity::{Identity, Labels};
use super::pipeline::{PIPELINE, is_of_pipeline};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The source of a recorded series whose key has no `source` label.
pub const RECORD_SOURCE: &str = "_record";

/// The identity of a series, as outputs state it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesInfo {
    /// xxh3-64 of the canonical JSON of the identity.
    pub id: u64,
    pub source: Arc<str>,
    pub name: Arc<str>,
    pub labels: Labels,
}

impl SeriesInfo {
    pub(in crate::core) fn new(identity: &Identity) -> SeriesInfo {
        SeriesInfo {
            id: series_id(&identity.source, &identity.name, &identity.labels),
            source: identity.source.clone(),
            name: identity.name.clone(),
            labels: identity.labels.clone(),
        }
    }

    /// The value of a label. `source` and `name` count as labels. `pipeline` is by default the source of a
    /// series that is derived from stage, run and gate events.
    pub fn label(&self, name: &str) -> Option<&Arc<str>> {
        match name {
            "source" => Some(&self.source),
            "name" => Some(&self.name),
            PIPELINE => {
                let source = || is_of_pipeline(&self.name).then_some(&self.source);
                self.labels.get(PIPELINE).or_else(source)
            }
            other => self.labels.get(other),
        }
    }
}

/// xxh3-64 over the JSON array `[source,name,[[label,value],…]]` without spaces.
pub fn series_id(source: &str, name: &str, labels: &Labels) -> u64 {
    // Strings and arrays of strings always serialise.
    let json = serde_json::to_string(&(source, name, labels)).unwrap_or_default();
    xxhash_rust::xxh3::xxh3_64(json.as_bytes())
}
