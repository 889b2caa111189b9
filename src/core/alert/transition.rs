//! A transition as it is published, with the evidence for it.

use super::display::Display;
use crate::core::mute::Suppressed;
use crate::core::vocab::key::Key;
use crate::core::vocab::severity::Severity;
use crate::core::vocab::time::Timestamp;
use crate::core::vocab::unit::Unit;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One published change of one alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "alert")]
pub struct Transition {
    /// The id of the episode: the rule, the hash of the key, and the start in epoch milliseconds.
    pub id: String,
    /// The number of the transition in the episode; 0 is `firing`.
    pub seq: u32,
    #[schemars(with = "String")]
    pub rule: Arc<str>,
    pub state: State,
    pub change: ChangeName,
    pub severity: Severity,
    /// The highest severity of the episode. It is part of the subject and of no payload.
    #[serde(skip, default = "lowest")]
    pub severity_highest: Severity,
    #[schemars(with = "BTreeMap<String, String>")]
    pub key: Arc<Key>,
    #[schemars(with = "BTreeMap<String, String>")]
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// The judged value; null if it is unknown.
    pub value: Option<f64>,
    #[schemars(with = "Option<String>")]
    pub unit: Option<Unit>,
    #[schemars(with = "String")]
    pub threshold: Arc<str>,
    /// The value and the threshold as text, in the author's unit.
    #[serde(default)]
    pub display: Display,
    #[serde(with = "rfc3339")]
    #[schemars(with = "String")]
    pub started_at: Timestamp,
    /// The grid point at which the alert changed.
    #[serde(with = "rfc3339")]
    #[schemars(with = "String")]
    pub at: Timestamp,
    /// The time of the newest input.
    #[serde(with = "rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub event_time: Option<Timestamp>,
    /// The time of the newest input, once there was none for five minutes.
    #[serde(with = "rfc3339::option", default)]
    #[schemars(with = "Option<String>")]
    pub no_data_since: Option<Timestamp>,
    #[serde(with = "rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub ended_at: Option<Timestamp>,
    pub reason: String,
    pub evidence: Evidence,
    pub escalation_level: u32,
    pub notify: Vec<String>,
    /// The person or team to whom the current escalation step hands the alert, in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<String>")]
    pub escalate_to: Option<Arc<str>>,
    pub acknowledged_by: Option<String>,
    pub suppressed_by: Option<Suppressed>,
    pub flapping: bool,
    #[schemars(with = "Vec<String>")]
    pub actions: Vec<Arc<str>>,
    pub summary: String,
    #[schemars(with = "Option<String>")]
    pub runbook: Option<Arc<str>>,
    #[schemars(with = "String")]
    pub rule_hash: Arc<str>,
}

impl Transition {
    /// Returns whether the episode continues after this transition.
    pub fn is_active(&self) -> bool {
        matches!(self.state, State::Firing | State::Acknowledged | State::Escalated)
    }

    /// Returns the end of the episode as resolved; `reason` states how the end is known.
    pub fn over(self, reason: String, at: Timestamp) -> Transition {
        Transition {
            seq: self.seq + 1,
            state: State::Resolved,
            change: ChangeName::Resolved,
            severity_highest: self.severity,
            value: None,
            display: self.display.without_value(),
            at,
            ended_at: Some(at),
            reason,
            ..self
        }
    }

    /// Returns the end of the episode as stale, because its further course is unknown.
    pub fn lost(self, at: Timestamp) -> Transition {
        Transition {
            seq: self.seq + 1,
            state: State::Stale,
            change: ChangeName::Stale,
            // The NATS subject contains the highest severity of the episode. A stored transition does not hold it,
            // so the last severity is used.
            severity_highest: self.severity,
            value: None,
            display: self.display.without_value(),
            at,
            ended_at: Some(at),
            reason: "records of the log were lost: nobody knows whether it still holds".into(),
            actions: Vec::new(),
            ..self
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A pending alert is shown only in lists of active alerts and is never published.
    Pending,
    Firing,
    Acknowledged,
    Escalated,
    Resolved,
    Stale,
}

impl State {
    /// Returns the name that published alerts use.
    pub fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Firing => "firing",
            State::Acknowledged => "acknowledged",
            State::Escalated => "escalated",
            State::Resolved => "resolved",
            State::Stale => "stale",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeName {
    Pending,
    Firing,
    Level,
    Acknowledged,
    Unacknowledged,
    Escalated,
    Suppressed,
    Unsuppressed,
    Resolved,
    Stale,
}

/// The evidence on which a decision rests.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// The inputs that were read, in the order of the expression.
    pub inputs: Vec<Input>,
    pub baseline: Baseline,
    pub window: Window,
}

/// One aggregate or function that was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    pub input: String,
    pub value: Option<f64>,
    /// The number of observations behind the value.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
    /// The reason why there is no value.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unknown: Option<String>,
}

/// The baseline with which a window was compared; empty if the rule learns nothing from the past.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Baseline {
    /// The name of the windows from which the baseline was learned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub median: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mean: Option<f64>,
    /// The standard deviation between windows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub spread: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub windows: Option<usize>,
    /// The test statistic, which had to pass `limit`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<f64>,
    /// The statistic with the strongest deviation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<String>,
    /// The p-value: how often chance alone gives a deviation as large.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p: Option<f64>,
    /// The version that was compared with the versions before it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deployed: Option<String>,
    /// The start of the detected change.
    #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<String>")]
    pub onset: Option<Timestamp>,
    /// The 95 % confidence interval of the slope, per hour.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interval: Option<[f64; 2]>,
    /// The time at which a line reaches the limit with which it is compared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reaches: Option<Reach>,
    /// The number of changes of the key's sealed windows by late events before the baseline was learned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revision: Option<u32>,
}

/// The time at which a line reaches a limit; with 95 % probability it is between `earliest` and `latest`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reach {
    pub limit: f64,
    #[serde(with = "rfc3339")]
    #[schemars(with = "String")]
    pub at: Timestamp,
    #[serde(with = "rfc3339")]
    #[schemars(with = "String")]
    pub earliest: Timestamp,
    /// The latest time; absent if the line may never reach the limit.
    #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<String>")]
    pub latest: Option<Timestamp>,
}

/// The trailing window that was read; empty for rules over runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Window {
    #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<String>")]
    pub start: Option<Timestamp>,
    #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none", default)]
    #[schemars(with = "Option<String>")]
    pub end: Option<Timestamp>,
}

fn lowest() -> Severity {
    Severity::Info
}

/// Serialization of timestamps as RFC 3339 text, for data that leaves the system.
pub mod rfc3339 {
    use super::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom("not an RFC 3339 time"))
    }

    fn parse(text: &str) -> Option<Timestamp> {
        let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
        Timestamp::from_ms(time.timestamp_millis())
    }

    pub mod option {
        use super::super::Timestamp;
        use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

        pub fn serialize<S: Serializer>(time: &Option<Timestamp>, s: S) -> Result<S::Ok, S::Error> {
            time.map(|time| time.to_string()).serialize(s)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
            let text = Option::<String>::deserialize(d)?;
            let parse =
                |text: &String| super::parse(text).ok_or_else(|| D::Error::custom("not an RFC 3339 time"));
            text.as_ref().map(parse).transpose()
        }
    }
}
