//! Engine snapshots as bytes: a MessagePack array, whose first element is the version, and a checksum.
//!
//! Invariant: only snapshots that [`encode`] wrote, in this binary or an older one, are decoded. A snapshot of a
//! newer binary is refused. The checksum reveals damaged bytes: an engine contains many indexes that refer to other
//! parts of it, so damaged bytes could still decode and cause wrong results or a panic much later. Rejected: checking
//! every index while decoding (as much code as the engine itself, and a damaged value would not be found).

use crate::core::Engine;
use crate::core::engine::snapshot::{Snapshot, SnapshotV19, VERSION};
use crate::core::vocab::limits::Limits;
use xxhash_rust::xxh3::xxh3_64;

/// Length of the checksum, xxh3-64, little-endian.
const CHECKSUM_BYTES: usize = 8;

/// The oldest version that is read. It is also the only one without a checksum.
const OLDEST: u32 = 19;

/// The reason why an engine cannot be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the snapshot is damaged: its checksum does not match")]
    Damaged,
    #[error("the snapshot cannot be decoded; was it damaged?")]
    Decode(#[source] rmp_serde::decode::Error),
    #[error(
        "the snapshot has version {found}, and this binary reads {OLDEST} to {VERSION}: a newer streamgauge wrote it; \
         install that release again, or start from a backup or an empty data dir"
    )]
    Newer { found: u32 },
    #[error(
        "the snapshot has version {found}, and this binary reads {OLDEST} to {VERSION}: start a release between the two \
         first, which converts it, or start from an empty data dir"
    )]
    Older { found: u32 },
}

/// Encodes the engine's state.
pub fn encode(engine: &Engine) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let mut bytes = rmp_serde::to_vec(engine)?;
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    Ok(bytes)
}

/// Verifies the checksum, if there is one, and returns the version and the state without the checksum.
pub fn check(bytes: &[u8]) -> Result<(u32, &[u8]), RestoreError> {
    match version(bytes) {
        Some(OLDEST) => return Ok((OLDEST, bytes)),
        Some(found) if found < OLDEST => return Err(RestoreError::Older { found }),
        _ => {}
    }
    let (state, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(RestoreError::Damaged)?;
    let is_whole = xxh3_64(state).to_le_bytes() == *checksum;
    match version(state) {
        Some(VERSION) if is_whole => Ok((VERSION, state)),
        Some(found) if is_whole && found > VERSION => Err(RestoreError::Newer { found }),
        _ => Err(RestoreError::Damaged),
    }
}

/// Returns the version, which is the first element of the array.
fn version(mut bytes: &[u8]) -> Option<u32> {
    rmp::decode::read_array_len(&mut bytes).ok()?;
    rmp::decode::read_int(&mut bytes).ok()
}

/// Restores the engine from the output of [`encode`], or from the snapshot of an older binary.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Engine, RestoreError> {
    let snapshot: Snapshot = match check(bytes)? {
        (OLDEST, state) => rmp_serde::from_slice::<SnapshotV19>(state).map(Snapshot::from),
        (_, state) => rmp_serde::from_slice(state),
    }
    .map_err(RestoreError::Decode)?;
    Ok(Engine::restore(snapshot, limits))
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
            let decoded = decode(&damaged, Limits::default());
            assert!(matches!(decoded, Err(RestoreError::Damaged | RestoreError::Older { .. })), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], Limits::default()).is_err(), "{length} bytes");
        }
    }
}
