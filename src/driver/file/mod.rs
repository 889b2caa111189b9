//! A log in files: read, decoded on as many threads as there are, stamped in order.

mod block;
mod gzip;
mod inflate;
pub mod input;
pub mod merge;
pub mod reader;
pub mod sort;
pub mod stamp;
mod zstd;

use crate::core::identity::Identity;
use crate::wire::line::Line;
use std::sync::Arc;

/// A run of lines, decoded.
#[derive(Debug)]
pub struct Chunk {
    /// Which decoder read it.
    pub decoder: usize,
    /// Whether that decoder started its table anew before this chunk.
    pub is_anew: bool,
    /// The identities it found in this chunk, in the order of their numbers.
    pub found: Vec<Arc<Identity>>,
    pub lines: Vec<Line>,
    /// Bytes of text it was made of.
    pub bytes: u64,
}
