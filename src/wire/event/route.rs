//! Routing of a payload: it is split into one payload for each partition to which its events belong.

use super::Codec;
use super::split::split;
use crate::core::vocab::partition::partition_of;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The fields that determine an event's partition.
#[derive(Debug, Default, Deserialize)]
struct Bound<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pipeline: Option<Cow<'a, str>>,
}

impl Bound<'_> {
    /// Returns the event's partition. A run, stage or gate may have a source too, but its pipeline determines
    /// the partition.
    fn partition(self, partitions: u32) -> u32 {
        let name =
            if matches!(&*self.r#type, "stage" | "run" | "gate") { self.pipeline } else { self.source };
        partition_of(&name.unwrap_or_default(), partitions)
    }
}

/// Returns the partition to which an event belongs. Anything that is not an event belongs to the partition of
/// the empty name.
pub(crate) fn partition_of_event(json: &str, partitions: u32) -> u32 {
    let bound: Bound<'_> = serde_json::from_str(json).unwrap_or_default();
    bound.partition(partitions)
}

/// Splits a payload by partition; within a partition, events keep their order. A payload that cannot be split
/// is sent whole to the first partition, which refuses it with a reason.
pub(crate) fn route(codec: Codec, payload: Vec<u8>, partitions: u32) -> Vec<(u32, Codec, Vec<u8>)> {
    if partitions <= 1 {
        return vec![(0, codec, payload)];
    }
    let Some(events) = split(codec, &payload) else { return vec![(0, codec, payload)] };
    let mut parts: BTreeMap<u32, Vec<&RawValue>> = BTreeMap::new();
    for event in &events {
        parts.entry(partition_of_event(event.get(), partitions)).or_default().push(event);
    }
    // Raw JSON always serialises.
    let array = |events: Vec<&RawValue>| serde_json::to_vec(&events).unwrap_or_default();
    parts.into_iter().map(|(partition, events)| (partition, Codec::Json, array(events))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_go_where_their_source_or_pipeline_belongs() {
        let payload = br#"[{"type":"metric","source":"a","v":1},
            {"type":"run","pipeline":"b","source":"a"},{"source":"a","v":2}]"#;
        let routed = route(Codec::Json, payload.to_vec(), 8);
        let of = |name: &str| {
            let place = partition_of(name, 8);
            let lines =
                routed.iter().find(|(partition, ..)| *partition == place).map(|(.., lines)| lines.clone());
            String::from_utf8(lines.expect("a part")).expect("UTF-8")
        };
        assert_ne!(partition_of("a", 8), partition_of("b", 8));
        assert!(of("a").contains("\"v\":1") && of("a").contains("\"v\":2"));
        assert!(of("b").contains("pipeline"));
        assert_eq!(route(Codec::Json, b"x".to_vec(), 8), [(0, Codec::Json, b"x".to_vec())]);
    }
}
