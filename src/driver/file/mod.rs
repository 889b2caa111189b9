//! A log in files: read, decoded on several threads, and stamped in order.

mod block;
mod gzip;
mod inflate;
pub(crate) mod input;
pub(crate) mod merge;
pub(crate) mod reader;
pub(crate) mod sort;
pub(crate) mod stamp;
mod zstd;

use crate::core::vocab::identity::Identity;
use crate::wire::ndjson::Line;
use std::sync::Arc;

/// A sequence of lines, decoded.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The number of the decoder that decoded it.
    pub decoder: usize,
    /// Whether that decoder cleared its table of identities before this chunk.
    pub is_anew: bool,
    /// The identities found in this chunk, in the order of their numbers.
    pub found: Vec<Arc<Identity>>,
    pub lines: Vec<Line>,
}
