//! Sealed windows that may still be corrected, kept in temporary files.
//!
//! Intuition: a sealed window may be corrected as long as late events are accepted (by default an hour), but few
//! windows are. All these windows would take more memory than everything else. So they are written to a file when
//! they are sealed, in blocks of one size and start, and are read back only when a late event arrives. Invariant: the
//! index of a block ascends by series id. A corrected window stays in memory with its revision until no further
//! correction can come.

use crate::core::measure::pane::Pane;
use crate::core::measure::window::{Correction, Sealed, WindowKey, WindowSize};
use crate::core::{Span, Timestamp};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The sealed windows that ended within the last `max_lateness`, so that they may still be corrected.
#[derive(Debug)]
pub(crate) struct SealedWindows {
    max_lateness: Span,
    segment: Option<Segment>,
    blocks: BTreeMap<(WindowSize, Timestamp), Vec<Block>>,
    corrected: BTreeMap<(WindowSize, Timestamp, u64), (Pane, u32)>,
    building: Option<Building>,
}

/// A temporary file that holds several blocks. It is deleted when the last of them is dropped.
#[derive(Debug, Clone)]
struct Segment {
    file: Arc<File>,
    length: u64,
}

#[derive(Debug)]
struct Block {
    file: Arc<File>,
    bytes_at: u64,
    index_at: u64,
    count: u64,
}

#[derive(Debug)]
struct Building {
    place: (WindowSize, Timestamp),
    bytes: Vec<u8>,
    index: Vec<(u64, u64, u32)>, // series id, offset in bytes, length
}

/// Bytes that a block reaches in memory before it is written.
const BLOCK_BYTES: usize = 2 << 20;

/// Bytes that a segment reaches before the next one is begun.
const SEGMENT_BYTES: u64 = 256 << 20;

/// Bytes of an index entry: id, offset, length.
const ENTRY_BYTES: usize = 20;

impl SealedWindows {
    pub(crate) fn new(max_lateness: Span) -> SealedWindows {
        SealedWindows {
            max_lateness,
            segment: None,
            blocks: BTreeMap::new(),
            corrected: BTreeMap::new(),
            building: None,
        }
    }

    /// Keeps a window that was just sealed.
    pub(crate) fn keep(&mut self, sealed: &Sealed) -> io::Result<()> {
        let place = (sealed.key.size, sealed.key.start);
        let is_other = |building: &Building| building.place != place || building.bytes.len() > BLOCK_BYTES;
        if self.building.as_ref().is_some_and(is_other) {
            self.finish_block(sealed.at)?;
        }
        let building =
            self.building.get_or_insert_with(|| Building { place, bytes: Vec::new(), index: Vec::new() });
        let offset = building.bytes.len() as u64;
        rmp_serde::encode::write(&mut building.bytes, &sealed.pane).map_err(io::Error::other)?;
        let length = building.bytes.len() as u64 - offset;
        building.index.push((sealed.key.series.id, offset, length as u32));
        Ok(())
    }

    /// Merges a correction. Returns the whole window with its new revision.
    pub(crate) fn correct(&mut self, correction: &Correction) -> io::Result<(Pane, u32)> {
        self.finish_block(correction.at)?;
        let WindowKey { series, size, start, .. } = &correction.key;
        let place = (*size, *start, series.id);
        if !self.corrected.contains_key(&place) {
            let stored = self.read(*size, *start, series.id)?.unwrap_or_default();
            self.corrected.insert(place, (stored, 0));
        }
        let (pane, revision) = self.corrected.entry(place).or_default();
        pane.merge(&correction.part);
        *revision += 1;
        Ok((pane.clone(), *revision))
    }

    /// Writes the block that is being built, and drops the windows that can no longer be corrected.
    fn finish_block(&mut self, now: Timestamp) -> io::Result<()> {
        let Some(building) = self.building.take() else { return Ok(()) };
        self.expire(now);
        let Building { place, mut bytes, mut index } = building;
        index.sort_unstable();
        let index_offset = bytes.len() as u64;
        for (id, offset, length) in &index {
            bytes.extend_from_slice(&id.to_be_bytes());
            bytes.extend_from_slice(&offset.to_be_bytes());
            bytes.extend_from_slice(&length.to_be_bytes());
        }
        let segment = match self.segment.take().filter(|segment| segment.length < SEGMENT_BYTES) {
            Some(segment) => segment,
            None => Segment { file: Arc::new(tempfile::tempfile()?), length: 0 },
        };
        segment.file.write_all_at(&bytes, segment.length)?;
        let block = Block {
            file: segment.file.clone(),
            bytes_at: segment.length,
            index_at: segment.length + index_offset,
            count: index.len() as u64,
        };
        self.blocks.entry(place).or_default().push(block);
        self.segment = Some(Segment { length: segment.length + bytes.len() as u64, ..segment });
        Ok(())
    }

    fn expire(&mut self, now: Timestamp) {
        let max_lateness = self.max_lateness;
        // A correction of a 1h window may come for its last minute, so the lateness counts from the window's
        // end.
        let is_open = |size: WindowSize, start: Timestamp| start + size.span() + max_lateness >= now;
        self.blocks.retain(|(size, start), _| is_open(*size, *start));
        self.corrected.retain(|(size, start, _), _| is_open(*size, *start));
    }

    fn read(&self, size: WindowSize, start: Timestamp, id: u64) -> io::Result<Option<Pane>> {
        for block in self.blocks.get(&(size, start)).into_iter().flatten() {
            let Some((offset, length)) = block.find(id)? else { continue };
            let mut bytes = vec![0; length as usize];
            block.file.read_exact_at(&mut bytes, block.bytes_at + offset)?;
            return rmp_serde::from_slice(&bytes).map(Some).map_err(io::Error::other);
        }
        Ok(None)
    }
}

impl Block {
    /// Returns offset and length of a series' window within the block's bytes.
    fn find(&self, id: u64) -> io::Result<Option<(u64, u32)>> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            let (found, offset, length) = self.entry(middle)?;
            match found.cmp(&id) {
                std::cmp::Ordering::Equal => return Ok(Some((offset, length))),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    fn entry(&self, at: u64) -> io::Result<(u64, u64, u32)> {
        let mut bytes = [0; ENTRY_BYTES];
        self.file.read_exact_at(&mut bytes, self.index_at + at * ENTRY_BYTES as u64)?;
        let [i0, i1, i2, i3, i4, i5, i6, i7, o0, o1, o2, o3, o4, o5, o6, o7, l0, l1, l2, l3] = bytes;
        Ok((
            u64::from_be_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
            u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]),
            u32::from_be_bytes([l0, l1, l2, l3]),
        ))
    }
}
