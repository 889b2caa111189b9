//! Engine snapshots as bytes: a MessagePack array followed by a checksum. A snapshot of another version is
//! refused.
//!
//! Invariant: only the output of [`encode`] is decoded. An engine contains many indexes that refer to other
//! parts of it, so damaged bytes could still decode and cause wrong results or a panic much later. Rejected:
//! checking every index while decoding (as much code as the engine itself, and a damaged value would not be
//! found).

use crate::core::Engine;
use crate::core::engine::snapshot::{Snapshot, SnapshotError};
use crate::core::limits::Limits;
use xxhash_rust::xxh3::xxh3_64;

/// Length of the checksum, xxh3-64, little-endian.
const CHECKSUM_BYTES: usize = 8;

/// The reason why an engine cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the snapshot is not what was written; was it damaged, or written by another version?")]
    Damaged,
    #[error("the snapshot cannot be read; was it written by another version?")]
    Decode(#[source] rmp_serde::decode::Error),
    #[error(transparent)]
    Version(SnapshotError),
}

/// Encodes the engine's state.
pub fn encode(engine: &Engine) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let mut bytes = rmp_serde::to_vec(engine)?;
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    Ok(bytes)
}

/// Verifies the checksum and returns the state without it.
pub fn check(bytes: &[u8]) -> Result<&[u8], RestoreError> {
    let (state, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(RestoreError::Damaged)?;
    let is_whole = xxh3_64(state).to_le_bytes() == *checksum;
    is_whole.then_some(state).ok_or(RestoreError::Damaged)
}

/// Restores the engine from the output of [`encode`].
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Engine, RestoreError> {
    let state = check(bytes)?;
    let snapshot: Snapshot = rmp_serde::from_slice(state).map_err(RestoreError::Decode)?;
    Engine::restore(snapshot, limits).map_err(RestoreError::Version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_with_one_bit_changed_is_none() {
        let bytes = encode(&Engine::new(Limits::default())).expect("memory");
        assert!(decode(&bytes, Limits::default()).is_ok());
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&damaged, Limits::default()), Err(RestoreError::Damaged)), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], Limits::default()).is_err(), "{length} bytes");
        }
    }
}
