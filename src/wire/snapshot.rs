//! Snapshots of an engine as bytes: MessagePack arrays, refused when the version differs.

use crate::core::Engine;
use crate::core::engine::snapshot::{Snapshot, SnapshotError};
use crate::core::limits::Limits;

/// Why bytes did not become an engine.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("the snapshot cannot be read; was it written by another version?")]
    Decode(#[source] rmp_serde::decode::Error),
    #[error(transparent)]
    Version(SnapshotError),
}

/// The engine's state as bytes.
pub fn encode(engine: &Engine) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec(engine)
}

/// The engine that [`encode`] wrote.
pub fn decode(bytes: &[u8], limits: Limits) -> Result<Engine, RestoreError> {
    let snapshot: Snapshot = rmp_serde::from_slice(bytes).map_err(RestoreError::Decode)?;
    Engine::restore(snapshot, limits).map_err(RestoreError::Version)
}
