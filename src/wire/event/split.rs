//! Splitting of a payload into its events, each as JSON.

use super::{Codec, elements, fields};
use serde_json::value::RawValue;

/// Splits a payload into events as JSON. Returns `None` if a part is not JSON or has no faithful JSON form.
pub(crate) fn split(codec: Codec, payload: &[u8]) -> Option<Vec<Box<RawValue>>> {
    let one = match codec {
        Codec::Json | Codec::Ndjson => |bytes: &[u8]| serde_json::from_slice(bytes).ok(),
        Codec::MessagePack => transcode,
    };
    elements(codec, payload)?.into_iter().map(one).collect()
}

/// Converts a MessagePack map to JSON, if reading the JSON gives the same event.
fn transcode(bytes: &[u8]) -> Option<Box<RawValue>> {
    let value: serde_json::Value = rmp_serde::from_slice(bytes).ok()?;
    let json = serde_json::value::to_raw_value(&value).ok()?;
    let packed = fields::from_msgpack(bytes).ok()?;
    let labels = fields::from_json(json.get().as_bytes()).ok()?.label_count();
    // NaN and binary data have no JSON form, and JSON keeps only one of the values of a duplicate label. A payload
    // with such an event is not split.
    (packed.is_plain() && packed.label_count() == labels).then_some(json)
}
