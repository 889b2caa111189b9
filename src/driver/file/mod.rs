//! A log in files: read, decoded on as many threads as there are, stamped in order.

pub mod merge;
pub mod reader;
pub mod stamp;

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
    /// Bytes of input it was made of, before decompression where there was any.
    pub bytes: u64,
}
