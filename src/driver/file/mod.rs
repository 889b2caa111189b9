//! A log in files: read, decoded on several threads, and stamped in order.

mod block;
mod gzip;
mod inflate;
pub mod input;
pub mod merge;
pub mod reader;
pub mod sort;
pub mod stamp;
mod zstd;

use crate::core::vocab::identity::Identity;
use crate::wire::ndjson::Line;
use std::sync::Arc;

/// A sequence of lines, decoded.
#[derive(Debug)]
pub struct Chunk {
    /// The number of the decoder that decoded it.
    pub decoder: usize,
    /// Whether that decoder cleared its table of identities before this chunk.
    pub is_anew: bool,
    /// The identities found in this chunk, in the order of their numbers.
    pub found: Vec<Arc<Identity>>,
    pub lines: Vec<Line>,
    /// Bytes of text that the chunk was decoded from.
    pub bytes: u64,
}
