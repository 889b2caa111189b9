//! Messages to the aggregate partition: MessagePack of [`Partials`], read and written by workers only.

use crate::core::measure::partial::Partials;

/// Decodes a message to the aggregate partition. An error means that workers of two incompatible versions are
/// running.
pub fn decode(bytes: &[u8]) -> Result<Partials, rmp_serde::decode::Error> {
    rmp_serde::from_slice(bytes)
}

pub fn encode(partials: &Partials) -> Vec<u8> {
    // Partials are plain data and always serialise.
    rmp_serde::to_vec(partials).unwrap_or_default()
}
