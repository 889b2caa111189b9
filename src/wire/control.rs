//! Decoding of control records, and their compression.
//!
//! Intuition: a broker takes messages of a bounded size, and the rules of a set, compiled, are twenty times as
//! long as their text. A record that is too long is compressed with gzip, whose first bytes no JSON has.
//! Invariant: a control that [`decode`] returns can be put into force. A refused control only advances the
//! log time, both live and in a replay of an export.

use crate::core::record::Control;
use crate::core::rule::sound::Unsound;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::io::{Read, Write};

/// The reason why bytes are not a control record.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("no control: {0}")]
    Json(#[from] serde_json::Error),
    #[error("no rule set that can be judged: {0}")]
    Unsound(#[from] Unsound),
}

/// Encodes a control record.
pub fn encode(control: &Control) -> Vec<u8> {
    // A control is plain data and always serialises.
    serde_json::to_vec(control).unwrap_or_default()
}

/// Decodes a control record.
pub fn decode(json: &[u8]) -> Result<Control, ControlError> {
    let control: Control = serde_json::from_slice(json)?;
    check(&control)?;
    Ok(control)
}

/// The longest control record, inflated: 16 MiB of rule files, compiled, and room.
const INFLATED_BYTES_MAX: u64 = 256 << 20;

/// The first bytes of gzip data.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Compresses a control record that is longer than `room`. The result may still be too long.
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

/// Returns the control record as JSON. Damaged or endless data stay as they are, and [`decode`] refuses them.
pub fn unpacked(payload: &[u8]) -> Vec<u8> {
    let mut json = Vec::new();
    let is_whole = payload.starts_with(&GZIP) && {
        let read = GzDecoder::new(payload).take(INFLATED_BYTES_MAX).read_to_end(&mut json);
        read.is_ok_and(|bytes| (bytes as u64) < INFLATED_BYTES_MAX)
    };
    if is_whole { json } else { payload.to_vec() }
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
        let json = vec![b' '; 100_000];
        assert_eq!(packed(json.clone(), 100_000), json);
        let packed = packed(json.clone(), 99_999);
        assert!(packed.len() < 1_000 && unpacked(&packed) == json);
        assert_eq!(unpacked(&packed[..50]), &packed[..50], "it was cut");
        assert_eq!(unpacked(b"{}"), b"{}");
    }
}
