//! Names of NATS subjects and streams.
//!
//! With one partition, its stream takes the public subjects directly. With several, the broker maps the
//! public subjects to the partitions, or the producer publishes to the partition's own subjects.

use crate::core::measure::window::WindowSize;
use crate::core::vocab::partition::{Partition, escape, partition_of};
use crate::core::vocab::severity::Severity;
use crate::wire::event::Codec;
use crate::wire::event::route::partition_of_event;
use serde::Deserialize;
use std::borrow::Cow;

/// The kinds of events in public subjects, which begin with the root and the kind.
const KINDS: [&str; 3] = ["metric", "stage", "gate"];

/// The subjects of one deployment and partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subjects {
    root: String,
    partition: Partition,
}

/// The fields of an event from which its subject is built.
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

/// The kind of a message of the event stream, derived from its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageKind {
    Events,
    Tick,
    Control,
    /// Message `number` of partition `from` to the aggregate partition.
    Partials {
        from: u32,
        number: u64,
    },
}

/// The subjects of an event stream on which only this program publishes. They determine the kind of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    tick: String,
    control: String,
    /// The prefix of the subjects of messages to the aggregate partition. Only the stream of that partition has it.
    partials_prefix: Option<String>,
}

impl Own {
    /// Returns the kind of a message.
    #[inline]
    pub(crate) fn said(&self, subject: &str) -> MessageKind {
        if subject == self.tick {
            MessageKind::Tick
        } else if subject == self.control {
            MessageKind::Control
        } else {
            self.partials(subject).unwrap_or(MessageKind::Events)
        }
    }

    /// Returns whether this is the stream of the aggregate partition, whose messages are signed.
    pub(crate) fn has_partials(&self) -> bool {
        self.partials_prefix.is_some()
    }

    fn partials(&self, subject: &str) -> Option<MessageKind> {
        let (from, number) = subject.strip_prefix(self.partials_prefix.as_ref()?)?.split_once('.')?;
        Some(MessageKind::Partials { from: from.parse().ok()?, number: number.parse().ok()? })
    }
}

impl Subjects {
    /// `root` is `sg.v1` unless the deployment configures another one.
    pub(crate) fn new(root: &str, partition: Partition) -> Subjects {
        Subjects { root: root.into(), partition }
    }

    /// The stream of this partition's log, such as `SG_EVENTS_0`; `SG_AGG` for the aggregate partition.
    pub(crate) fn events_stream(&self) -> String {
        match self.partition.is_aggregate() {
            true => self.partials_stream().into(),
            false => format!("SG_EVENTS_{}", self.partition.index),
        }
    }

    pub(crate) fn partials_stream(&self) -> &'static str {
        "SG_AGG"
    }

    /// The subjects that the aggregate partition's stream takes.
    pub(crate) fn partials(&self) -> Vec<String> {
        vec![format!("{}.agg.>", self.root)]
    }

    /// The subject of message `number` of this partition to the aggregate partition.
    pub(crate) fn partials_subject(&self, number: u64) -> String {
        format!("{}.agg.{}.{number}", self.root, self.partition.index)
    }

    /// The pattern for the subjects of all messages of this partition to the aggregate partition.
    pub(crate) fn any_partials(&self) -> String {
        format!("{}.agg.{}.*", self.root, self.partition.index)
    }

    fn own(&self, partition: Partition) -> String {
        match partition.is_aggregate() {
            true => format!("{}.agg", self.root),
            false => format!("{}.p.{partition}", self.root),
        }
    }

    pub(crate) fn alerts_stream(&self) -> &'static str {
        "SG_ALERTS"
    }

    /// The subjects that this partition's event stream takes.
    pub(crate) fn events(&self) -> Vec<String> {
        let own = format!("{}.>", self.own(self.partition));
        let public = KINDS.map(|kind| format!("{}.{kind}.>", self.root));
        match self.partition.count {
            0 | 1 => public.into_iter().chain([own]).collect(),
            _ => vec![own],
        }
    }

    /// The broker's subject mapping from public subjects to partitions: (from, to).
    pub(crate) fn mapping(&self) -> [(String, String); 3] {
        let (root, count) = (&self.root, self.partition.count);
        KINDS.map(|kind| {
            let to = format!("{root}.p.{{{{partition({count},1)}}}}.{kind}.{{{{wildcard(1)}}}}.>");
            (format!("{root}.{kind}.*.>"), to)
        })
    }

    /// The subjects that the alert stream takes.
    pub(crate) fn alerts(&self) -> Vec<String> {
        ["alert", "action", "shadow"].map(|kind| format!("{}.{kind}.>", self.root)).into()
    }

    /// The pattern for the subjects of all transitions of all partitions.
    pub(crate) fn all_alerts(&self) -> String {
        format!("{}.alert.>", self.root)
    }

    /// Returns the partition to which an event belongs.
    pub(crate) fn partition_of_event(&self, json: &str) -> u32 {
        if self.partition.count <= 1 {
            return 0;
        }
        partition_of_event(json, self.partition.count)
    }

    /// The subject of an event as a producer would choose it. Anything that is not an event gets the
    /// partition's own subject.
    pub(crate) fn of_event(&self, json: &str) -> String {
        let found: Routed<'_> = serde_json::from_str(json).unwrap_or_default();
        let join = |kind: &str, first: &str, second: &str| {
            let count = self.partition.count;
            let partition = Partition { index: partition_of(first, count), count };
            let begin = if count > 1 { self.own(partition) } else { self.root.clone() };
            format!("{begin}.{kind}.{}.{}", escape(first), escape(second))
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

    /// The subject of events that were received over HTTP.
    pub(crate) fn own_events(&self) -> String {
        format!("{}.events", self.own(self.partition))
    }

    pub(crate) fn tick(&self) -> String {
        format!("{}.tick", self.own(self.partition))
    }

    pub(crate) fn control(&self) -> String {
        format!("{}.control", self.own(self.partition))
    }

    /// The subject of transition `number`; each transition has its own.
    pub(crate) fn alert(&self, severity: Severity, rule: &str, number: u64) -> String {
        let (root, partition) = (&self.root, self.partition);
        format!("{root}.alert.{}.{}.{partition}.{number}", severity.name(), escape(rule))
    }

    /// The pattern for the subjects of all transitions of this partition.
    pub(crate) fn any_alert(&self) -> String {
        format!("{}.alert.*.*.{}.*", self.root, self.partition)
    }

    /// The subject of an alert about the operation of this partition. Such alerts do not follow from the log, so each
    /// rule numbers them separately from the transitions of the partition.
    pub(crate) fn aside(&self, severity: Severity, rule: &str, number: u64) -> String {
        let (root, partition) = (&self.root, self.partition);
        format!("{root}.alert.{}.{}.ops-{partition}.{number}", severity.name(), escape(rule))
    }

    /// The pattern for the subjects of all alerts of one rule about the operation of this partition.
    pub(crate) fn any_aside(&self, rule: &str) -> String {
        format!("{}.alert.*.{}.ops-{}.*", self.root, escape(rule), self.partition)
    }

    /// The subject of an alert about a receiver, which the process that delivers to the receiver publishes. A
    /// repeated publication has the same number and therefore the same subject.
    pub(crate) fn aside_of_receiver(
        &self,
        severity: Severity,
        rule: &str,
        receiver: &str,
        number: u64,
    ) -> String {
        let (root, receiver) = (&self.root, escape(receiver));
        format!("{root}.alert.{}.{}.notify-{receiver}.{number}", severity.name(), escape(rule))
    }

    /// The subject of action `number`, which a transition requests.
    pub(crate) fn action(&self, action: &str, number: u64) -> String {
        format!("{}.action.{}.{}.{number}", self.root, escape(action), self.partition)
    }

    /// The pattern for the subjects of all actions of this partition.
    pub(crate) fn any_action(&self) -> String {
        format!("{}.action.*.{}.*", self.root, self.partition)
    }

    /// The subject of transition `number` of the shadow rules, which notify no receiver.
    pub(crate) fn shadow(&self, rule: &str, number: u64) -> String {
        format!("{}.shadow.{}.{}.{number}", self.root, escape(rule), self.partition)
    }

    pub(crate) fn any_shadow(&self) -> String {
        format!("{}.shadow.*.{}.*", self.root, self.partition)
    }

    /// The subject of refused events with this reason.
    pub(crate) fn dead(&self, reason: &str) -> String {
        format!("{}.dead.{reason}", self.root)
    }

    /// The subject of windows of this size and series.
    pub(crate) fn rollup(&self, size: WindowSize, source: &str, name: &str) -> String {
        format!("{}.rollup.{}.{}.{}", self.root, size.name(), escape(source), escape(name))
    }

    /// The streams of refused events and of windows, with the subjects that they take.
    pub(crate) fn asides(&self) -> [(&'static str, Vec<String>); 2] {
        [
            ("SG_DEAD", vec![format!("{}.dead.>", self.root)]),
            ("SG_ROLLUPS", vec![format!("{}.rollup.>", self.root)]),
        ]
    }

    /// Parses the number of a transition from its subject.
    pub(crate) fn alert_number(subject: &str) -> Option<u64> {
        subject.rsplit('.').next()?.parse().ok()
    }

    /// Returns the rule and the sender of an alert message. The messages of one rule and sender have ascending
    /// numbers.
    pub(crate) fn numbered_by(subject: &str) -> String {
        let mut tokens = subject.rsplit('.').skip(1);
        let (sender, rule) = (tokens.next().unwrap_or(""), tokens.next().unwrap_or(""));
        format!("{rule}.{sender}")
    }

    /// Returns the subjects by which messages of the event stream are classified.
    pub(crate) fn read_as(&self) -> Own {
        let partials_prefix = self.partition.is_aggregate().then(|| format!("{}.agg.", self.root));
        Own { tick: self.tick(), control: self.control(), partials_prefix }
    }
}

/// Returns the codec of a message's payload. A payload of unknown content type is read as JSON, which refuses
/// it.
pub(crate) fn codec(content_type: Option<&str>) -> Codec {
    Codec::from_content_type(content_type).unwrap_or(Codec::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_those_of_the_contract() {
        let subjects = Subjects::new("sg.v1", Partition::default());
        assert_eq!(
            subjects.alert(Severity::Critical, "p99 > 1s", 7),
            "sg.v1.alert.critical.p99=20=3E=201s.0.7"
        );
        assert_eq!(Subjects::alert_number("sg.v1.alert.critical.x.0.7"), Some(7));
        assert_eq!(subjects.read_as().said("sg.v1.p.0.tick"), MessageKind::Tick);
        assert_eq!(subjects.read_as().said("sg.v1.metric.checkout.latency_ms"), MessageKind::Events);
        let metric = r#"{"type":"metric","source":"a.b","name":"c","value":1}"#;
        assert_eq!(subjects.of_event(metric), "sg.v1.metric.a=2Eb.c");
        assert_eq!(subjects.of_event(r#"{"type":"run","pipeline":"p"}"#), "sg.v1.stage.p._run");
        assert_eq!(subjects.of_event("nonsense"), "sg.v1.p.0.events");
        let many = Subjects::new("sg.v1", Partition { index: 3, count: 8 });
        assert_eq!(many.events(), ["sg.v1.p.3.>"]);
        let partition = partition_of("a.b", 8);
        assert_eq!(many.of_event(metric), format!("sg.v1.p.{partition}.metric.a=2Eb.c"));
        let aggregate = Subjects::new("sg.v1", Partition::aggregate(8));
        assert_eq!(
            (many.partials_subject(7), aggregate.events_stream()),
            ("sg.v1.agg.3.7".into(), "SG_AGG".into())
        );
        assert_eq!(
            aggregate.read_as().said(&many.partials_subject(7)),
            MessageKind::Partials { from: 3, number: 7 }
        );
        assert_eq!(aggregate.read_as().said("sg.v1.agg.control"), MessageKind::Control);
        assert_eq!(aggregate.any_alert(), "sg.v1.alert.*.*.agg.*");
        assert_eq!(many.mapping()[0].0, "sg.v1.metric.*.>");
    }
}
