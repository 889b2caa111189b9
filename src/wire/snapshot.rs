//! Snapshots of an engine as bytes: MessagePack arrays with a checksum behind them, refused when the version differs.
//!
//! Invariant: only what [`encode`] wrote is read. An engine is full of numbers that stand for others, so what is
//! damaged would decode all the same and be wrong, or panic, much later. Rejected: checking every number on the way
//! in (as much code as the engine's, and no help where a value is damaged).

use crate::core::Engine;
use crate::core::engine::snapshot::{Snapshot, SnapshotError};
use crate::core::limits::Limits;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of the checksum, xxh3-64, low ones first.
const CHECKSUM_BYTES: usize = 8;

/// Why bytes did not become an engine.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the snapshot is not what was written; was it damaged, or written by another version?")]
    Damaged,
    #[error("the snapshot cannot be read; was it written by another version?")]
    Decode(#[source] rmp_serde::decode::Error),
    #[error(transparent)]
    Version(SnapshotError),
}

/// The engine's state as bytes.
pub fn encode(engine: &Engine) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let mut bytes = rmp_serde::to_vec(engine)?;
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    Ok(bytes)
}

/// Whether the bytes are what was written.
pub fn check(bytes: &[u8]) -> Result<&[u8], RestoreError> {
    let (state, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(RestoreError::Damaged)?;
    let is_whole = xxh3_64(state).to_le_bytes() == *checksum;
    is_whole.then_some(state).ok_or(RestoreError::Damaged)
}

/// The engine that [`encode`] wrote.
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
