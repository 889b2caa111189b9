//! Encoding of alerts: one JSON object for each transition, and one for each value of a `record:` series.

use crate::core::Timestamp;
use crate::core::alert::Transition;
use crate::core::alert::transition::rfc3339;
use crate::core::effect::Recorded;
use crate::core::vocab::key::Key;
use serde::Serialize;

/// A value of a `record:` series, serialized as one line.
#[derive(Debug, Serialize)]
pub struct RecordLine<'a> {
    name: &'a str,
    key: &'a Key,
    #[serde(with = "rfc3339")]
    time: Timestamp,
    value: f64,
}

impl<'a> RecordLine<'a> {
    pub fn new(recorded: &'a Recorded) -> RecordLine<'a> {
        RecordLine { name: &recorded.name, key: &recorded.key, time: recorded.time, value: recorded.value }
    }
}

/// Returns a transition as one line of JSON.
pub fn line(transition: &Transition) -> String {
    // Texts, numbers and maps with text keys always serialise.
    serde_json::to_string(transition).unwrap_or_default()
}
