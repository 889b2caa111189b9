//! Names of NATS subjects and streams (CONTRACT §5).
//!
//! A token outside `[A-Za-z0-9_-]` is escaped byte by byte as `=XX`, so that names of sources and
//! rules can hold dots and spaces and a subject still has as many tokens as it should.

use crate::core::alert::Severity;
use crate::wire::event::Codec;
use serde::Deserialize;
use std::borrow::Cow;

/// The subjects of one deployment and partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects {
    root: String,
    partition: u32,
}

/// The fields of an event that its subject is made of.
#[derive(Debug, Default, Deserialize)]
struct Routed<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pipeline: Option<Cow<'a, str>>,
    #[serde(borrow)]
    stage: Option<Cow<'a, str>>,
    #[serde(borrow)]
    gate: Option<Cow<'a, str>>,
}

/// What a subject of the event stream says of its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    Events,
    Tick,
    Control,
}

impl Subjects {
    /// `root`: `sg.v1` unless a deployment chose another one.
    pub fn new(root: &str, partition: u32) -> Subjects {
        Subjects { root: root.into(), partition }
    }

    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// `SG_EVENTS_0`
    pub fn events_stream(&self) -> String {
        format!("SG_EVENTS_{}", self.partition)
    }

    pub fn alerts_stream(&self) -> &'static str {
        "SG_ALERTS"
    }

    /// What the event stream of a deployment with one partition takes.
    pub fn events(&self) -> Vec<String> {
        let public = ["metric", "stage", "gate"].map(|kind| format!("{}.{kind}.>", self.root));
        public.into_iter().chain([format!("{}.p.{}.>", self.root, self.partition)]).collect()
    }

    /// What the alert stream takes.
    pub fn alerts(&self) -> Vec<String> {
        ["alert", "action", "shadow"].map(|kind| format!("{}.{kind}.>", self.root)).into()
    }

    /// The subject of an event as a producer would choose it; of what is no event, our own.
    pub fn of_event(&self, json: &str) -> String {
        let found: Routed<'_> = serde_json::from_str(json).unwrap_or_default();
        let join = |kind: &str, first: &str, second: &str| {
            format!("{}.{kind}.{}.{}", self.root, escape(first), escape(second))
        };
        match (&*found.r#type, found.source, found.name, found.pipeline, found.stage, found.gate) {
            ("metric" | "samples" | "histogram", Some(source), Some(name), ..) => {
                join("metric", &source, &name)
            }
            ("stage", _, _, Some(pipeline), Some(stage), _) => join("stage", &pipeline, &stage),
            ("run", _, _, Some(pipeline), ..) => join("stage", &pipeline, "_run"),
            ("gate", _, _, Some(pipeline), _, Some(gate)) => join("gate", &pipeline, &gate),
            _ => self.own_events(),
        }
    }

    /// Where events go that came in over HTTP.
    pub fn own_events(&self) -> String {
        format!("{}.p.{}.events", self.root, self.partition)
    }

    pub fn tick(&self) -> String {
        format!("{}.p.{}.tick", self.root, self.partition)
    }

    pub fn control(&self) -> String {
        format!("{}.p.{}.control", self.root, self.partition)
    }

    /// Transition number `number`: each has a subject of its own.
    pub fn alert(&self, severity: Severity, rule: &str, number: u64) -> String {
        format!("{}.alert.{}.{}.{}.{number}", self.root, severity.name(), escape(rule), self.partition)
    }

    /// All transitions of this partition.
    pub fn any_alert(&self) -> String {
        format!("{}.alert.*.*.{}.*", self.root, self.partition)
    }

    /// The number of a transition, from its subject.
    pub fn alert_number(subject: &str) -> Option<u64> {
        subject.rsplit('.').next()?.parse().ok()
    }

    /// What a message of the event stream is.
    pub fn said(&self, subject: &str) -> Said {
        if subject == self.tick() {
            Said::Tick
        } else if subject == self.control() {
            Said::Control
        } else {
            Said::Events
        }
    }
}

/// How a message's payload is written. An unknown content type is read as JSON, which refuses it.
pub fn codec(content_type: Option<&str>) -> Codec {
    Codec::from_content_type(content_type).unwrap_or(Codec::Json)
}

/// One token of a subject.
pub fn escape(token: &str) -> String {
    let mut escaped = String::with_capacity(token.len());
    for byte in token.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("={byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_those_of_the_contract() {
        let subjects = Subjects::new("sg.v1", 0);
        assert_eq!(
            subjects.alert(Severity::Critical, "p99 > 1s", 7),
            "sg.v1.alert.critical.p99=20=3E=201s.0.7"
        );
        assert_eq!(Subjects::alert_number("sg.v1.alert.critical.x.0.7"), Some(7));
        assert_eq!(subjects.said("sg.v1.p.0.tick"), Said::Tick);
        assert_eq!(subjects.said("sg.v1.metric.checkout.latency_ms"), Said::Events);
        assert_eq!(escape("a.b"), "a=2Eb");
        let metric = r#"{"type":"metric","source":"a.b","name":"c","value":1}"#;
        assert_eq!(subjects.of_event(metric), "sg.v1.metric.a=2Eb.c");
        assert_eq!(subjects.of_event(r#"{"type":"run","pipeline":"p"}"#), "sg.v1.stage.p._run");
        assert_eq!(subjects.of_event("nonsense"), "sg.v1.p.0.events");
    }
}
