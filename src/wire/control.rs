//! Decoding of control records, and their compression.
//!
//! Intuition: a broker limits the size of a message, and a compiled rule set is twenty times as long as its text. A
//! record that is too long is compressed with gzip. The reader recognises gzip by its first two bytes, with which no
//! JSON begins.
//! Invariant: a control that [`decode`] returns can be put into force. Bytes that no version
//! wrote only advance the log time, both live and in a replay of an export. A control record of a newer version stops
//! the partition, and stops an export.

use crate::core::record::Control;
use crate::core::rule::sound::Unsound;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::{BufReader, Read, Write};

/// The reason why bytes are not a control record.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("cannot decode a control record: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the rule set of a control record is invalid: {0}")]
    Unsound(#[from] Unsound),
    #[error("the control record has version {found}, and this binary reads up to {VERSION}")]
    Newer { found: u32 },
}

/// The version of control records that this binary writes, and the newest that it reads. A record of version 1 states
/// no version. A record of a later version states it as `v` beside its only other member.
pub const VERSION: u32 = 1;

/// The version that a record states. It is read only if the record cannot be parsed as a control.
#[derive(Deserialize)]
struct Stated {
    v: u32,
}

/// Encodes a control record.
pub fn encode(control: &Control) -> Vec<u8> {
    // A control is plain data and always serialises.
    serde_json::to_vec(control).unwrap_or_default()
}

/// Decodes a control record of the log: JSON, or JSON compressed by [`packed`]. Inflating and parsing run together,
/// so a record that is not a control is refused without being inflated as a whole.
pub fn decode(record: &[u8]) -> Result<Control, ControlError> {
    let control: Control = match parse(record) {
        Ok(control) => control,
        Err(error) => match parse::<Stated>(record) {
            Ok(Stated { v }) if v > VERSION => return Err(ControlError::Newer { found: v }),
            _ => return Err(error.into()),
        },
    };
    check(&control)?;
    Ok(control)
}

fn parse<T: DeserializeOwned>(record: &[u8]) -> Result<T, serde_json::Error> {
    match record.starts_with(&GZIP) {
        true => serde_json::from_reader(BufReader::new(GzDecoder::new(record).take(INFLATED_BYTES_MAX))),
        false => serde_json::from_slice(record),
    }
}

/// Maximum bytes of an inflated control record, so that a small record cannot inflate without limit. The rule files
/// have at most 16 MiB of text, which is longer once compiled.
const INFLATED_BYTES_MAX: u64 = 256 << 20;

/// The first bytes of gzip data.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Compresses a control record that has more than `room` bytes. The result may still be too long.
pub fn packed(json: Vec<u8>, room: usize) -> Vec<u8> {
    if json.len() <= room {
        return json;
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory cannot fail.
    match gzip.write_all(&json).and_then(|()| gzip.finish()) {
        Ok(packed) => packed,
        Err(_) => json,
    }
}

/// Checks a control that was decoded as part of another structure.
pub fn check(control: &Control) -> Result<(), Unsound> {
    match control {
        Control::Rules(rules) => rules.check_sound(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_record_is_compressed() {
        let control = Control::Unsilence { id: "s".repeat(100_000), by: "ops".into() };
        let json = encode(&control);
        assert_eq!(packed(json.clone(), json.len()), json);
        let packed = packed(json.clone(), json.len() - 1);
        assert!(packed.len() < 1_000 && decode(&packed).is_ok_and(|found| found == control));
        assert!(decode(&packed[..50]).is_err(), "it was cut");
        assert!(decode(b"{}").is_err());
    }

    #[test]
    fn a_record_of_a_later_version_is_told_from_garbage() {
        let newer = |record: &[u8]| matches!(decode(record), Err(ControlError::Newer { found: 2 }));
        assert!(newer(br#"{"v":2,"rules":{"everything":"new"}}"#));
        assert!(newer(br#"{"something":{"new":[1]},"v":2}"#));
        for garbage in [&b"{}"[..], b"nonsense", br#"{"v":1,"rules":{}}"#, br#"{"v":"2"}"#, br#"["v",2]"#] {
            assert!(decode(garbage).is_err() && !newer(garbage));
        }
    }
}
