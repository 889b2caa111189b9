//! Sealed windows that a late observation may still change, stored as bytes.
//!
//! Intuition: nearly none of these windows ever changes again, but an hour of panes is most of the memory of
//! a quiet key. A pane of one value takes a dozen bytes here instead of two hundred.
//! Invariant: unpacking returns exactly what was packed.
//! Rejected: dropping sealed windows (a late value would have no pane to be added to), and
//! [`crate::core::measure::packed`], which packs only the buckets: these panes have few buckets, and there
//! are sixty panes per key.

use super::group::Trail;
use crate::core::measure::histogram::{Histogram, read_varint, write_varint};
use crate::core::measure::pane::{Pane, Plain};
use crate::core::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Sealed windows of one key, ascending by index; each record is its index, the length of its bytes, and
/// the bytes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct SealedPanes {
    #[serde(with = "crate::core::measure::packed::bytes")]
    records: Vec<u8>,
    /// The number of bytes at the beginning that belong to dropped windows.
    gone: usize,
    /// Index of the newest window ever stored. Nearly all requested windows are newer, so a lookup ends
    /// here.
    newest: Option<i64>,
    /// A lower bound on the indexes of the stored windows; `None` if unknown.
    since: Option<i64>,
}

/// Number of windows that are dropped in one batch, because each drop must fetch the oldest window from
/// memory. So up to eight windows more than the default of sixty are kept.
const GONE_TOGETHER: i64 = 8;

/// The bytes of dropped windows are removed once they make up at least a sixth of all bytes.
const GONE_SHARE: usize = 6;

/// Estimated bytes of a record without its buckets: the header and the numbers of the pane.
const ROOM: usize = 96;
/// Estimated bytes of one bucket, which suffice for a count of up to 16,383.
const CELL: usize = 4;

/// The position of one record.
struct RecordSpan {
    index: i64,
    /// The record with its header.
    whole: Range<usize>,
    bytes: Range<usize>,
}

impl SealedPanes {
    pub(super) fn put(&mut self, trail: &Trail) {
        let is_newest = self.newest.is_none_or(|newest| trail.index > newest);
        let later = if is_newest { None } else { self.places().find(|place| place.index > trail.index) };
        let at = later.map_or(self.records.len(), |place| place.whole.start);
        self.newest = self.newest.max(Some(trail.index));
        self.since = self.since.map(|since| since.min(trail.index));
        self.make_room(ROOM + CELL * trail.pane.buckets());
        let end = self.records.len();
        pack(trail, &mut self.records);
        let len = self.records.len() - end;
        write_varint(&mut self.records, trail.index as u64);
        write_varint(&mut self.records, len as u64);
        // The first rotation moves the header before the body; the second one moves the record to its place
        // by index.
        self.records[end..].rotate_left(len);
        let whole = self.records.len() - end;
        self.records[at..].rotate_right(whole);
    }

    /// Reserves capacity for `needed` bytes and an eighth more. Doubling would leave up to half of the buffer
    /// empty.
    fn make_room(&mut self, needed: usize) {
        if needed > self.records.capacity() - self.records.len() {
            self.records.reserve_exact(needed + self.records.len() / 8);
        }
    }

    /// Removes and returns the window of a late observation; `None` if it is not stored.
    pub(super) fn take(&mut self, index: i64) -> Option<Trail> {
        if self.newest.is_none_or(|newest| index > newest) {
            return None;
        }
        let place = self.places().find(|place| place.index == index)?;
        let trail = unpack(index, &self.records[place.bytes]);
        self.records.drain(place.whole);
        trail
    }

    /// Drops the windows before `index`, which accept no more observations. It may delay this to drop them in
    /// batches.
    pub(super) fn drop_before(&mut self, index: i64) {
        if self.newest.is_none_or(|newest| newest < index) {
            (self.records, self.gone) = (Vec::new(), 0);
            return;
        }
        if self.since.is_some_and(|since| index < since + GONE_TOGETHER) {
            return;
        }
        self.since = Some(index);
        let kept = self.places().find(|place| place.index >= index);
        self.gone = kept.map_or(self.records.len(), |place| place.whole.start);
        // Removing bytes moves all kept bytes, so it is done for several windows at a time.
        if self.gone * GONE_SHARE >= self.records.len() {
            self.records.drain(..std::mem::take(&mut self.gone));
        }
    }

    /// Reads the last byte to prefetch it; see [`super::prefetch`].
    pub(super) fn prefetch(&self) -> u64 {
        self.records.last().map_or(0, |last| u64::from(*last))
    }

    /// Returns the indexes of the stored windows.
    pub(super) fn indexes(&self) -> impl Iterator<Item = i64> + '_ {
        self.places().map(|place| place.index)
    }

    /// Iterates over the records; ends early where the bytes are damaged.
    fn places(&self) -> impl Iterator<Item = RecordSpan> + '_ {
        let mut at = self.gone;
        std::iter::from_fn(move || {
            let mut rest = self.records.get(at..)?;
            let index = read_varint(&mut rest)? as i64;
            let len = usize::try_from(read_varint(&mut rest)?).ok().filter(|len| *len <= rest.len())?;
            let start = self.records.len() - rest.len();
            let place = RecordSpan { index, whole: at..start + len, bytes: start..start + len };
            at = start + len;
            Some(place)
        })
    }
}

/// Flag in the first byte of a packed pane: the pane has a last value.
const HAS_LAST: u8 = 1;
/// Flag in the same byte: the pane has one value, which is the sum, both extremes and the last value.
const IS_ONE: u8 = 2;

fn pack(trail: &Trail, bytes: &mut Vec<u8>) {
    let pane = &trail.pane;
    let last = pane.last().zip(pane.last_time());
    let bits = pane.sum.to_bits();
    let is_one = pane.count == 1
        && [pane.min, pane.max, last.map_or(pane.sum, |(value, _)| value)].map(f64::to_bits) == [bits; 3];
    bytes.push(u8::from(last.is_some()) * HAS_LAST + u8::from(is_one) * IS_ONE);
    if let Some((_, time)) = last {
        write_varint(bytes, time.ms() as u64);
    }
    write_varint(bytes, pane.overflow);
    match is_one {
        true => write_floats(bytes, &[pane.sum]),
        false => {
            write_varint(bytes, pane.count);
            let last = last.map_or(0.0, |(value, _)| value);
            write_floats(bytes, &[pane.sum, pane.min, pane.max, trail.mean, trail.m2, last]);
        }
    }
    let negative = pane.negative().map(Histogram::cells).unwrap_or_default();
    write_varint(bytes, negative.len() as u64);
    bytes.extend(negative);
    pane.positive().write_cells(bytes);
}

fn write_floats(bytes: &mut Vec<u8>, values: &[f64]) {
    values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
}

fn read_float(bytes: &mut &[u8]) -> Option<f64> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(f64::from_le_bytes(*first))
}

/// Returns `None` if the bytes are damaged.
fn unpack(index: i64, mut bytes: &[u8]) -> Option<Trail> {
    let bytes = &mut bytes;
    let (flags, rest) = bytes.split_first()?;
    *bytes = rest;
    let time = match flags & HAS_LAST {
        0 => None,
        _ => Some(Timestamp::clamped(read_varint(bytes)? as i64)),
    };
    let overflow = read_varint(bytes)?;
    let (count, [sum, min, max, mean, m2, last]) = match flags & IS_ONE {
        0 => (read_varint(bytes)?, read_floats(bytes)?),
        _ => {
            let value = read_float(bytes)?;
            (1, [value, value, value, value, 0.0, value])
        }
    };
    let negative_len = usize::try_from(read_varint(bytes)?).ok()?;
    let (negative, positive) = bytes.split_at_checked(negative_len)?;
    let histogram = |cells: &[u8]| Histogram::from_cells(cells);
    let plain = Plain {
        count,
        sum,
        extremes: (count > 0).then_some((min, max)),
        last: time.map(|time| (last, time)),
        overflow,
    };
    let negative = if negative.is_empty() { None } else { Some(histogram(negative)?) };
    let pane = Pane::of(plain, histogram(positive)?, negative);
    Some(Trail { index, pane, mean, m2, is_open: false })
}

fn read_floats(bytes: &mut &[u8]) -> Option<[f64; 6]> {
    let mut values = [0.0; 6];
    for value in &mut values {
        *value = read_float(bytes)?;
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::measure::histogram::layout::Digits;
    use crate::core::measure::pane::{Sample, Shape};
    use crate::core::vocab::unit::Unit;

    fn trail(values: &[f64], has_spread: bool) -> Trail {
        let shape = Shape { digits: Digits::Two, resolution: Unit::resolution(Some(&Unit::Ms)) };
        let mut trail = Trail::new(7, false, None);
        for (at, value) in values.iter().enumerate() {
            trail.record(&Sample::new(shape, *value, Timestamp::clamped(at as i64)), true, has_spread);
        }
        trail
    }

    fn packed(trail: &Trail) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack(trail, &mut bytes);
        bytes
    }

    #[test]
    fn what_comes_out_is_what_went_in() {
        let many: Vec<f64> = (0..500).map(|n| f64::from(n * 61 % 997) - 20.0).collect();
        for values in [&[][..], &[5.0], &[-5.0], &[1e300], &[1.0, -2.0, 3.0], &many] {
            let before = trail(values, true);
            let mut sealed = SealedPanes::default();
            sealed.put(&before);
            let after = sealed.take(7).expect("it is there");
            assert_eq!((&after.pane, after.index), (&before.pane, 7));
            assert_eq!((after.mean, after.m2), (before.mean, before.m2));
            assert!(sealed.take(7).is_none());
        }
        assert!(packed(&trail(&[5.0], false)).len() <= 16);
        assert!(unpack(7, &packed(&trail(&many, true))[..40]).is_none());
    }

    #[test]
    fn windows_stand_in_order_and_leave_in_order() {
        let mut sealed = SealedPanes::default();
        for index in [3, 1, 2] {
            sealed.put(&Trail { index, ..trail(&[index as f64], false) });
        }
        sealed.drop_before(2);
        assert!(sealed.take(1).is_none());
        assert_eq!(sealed.take(2).map(|trail| trail.pane.sum), Some(2.0));
        assert_eq!(sealed.take(3).map(|trail| trail.pane.sum), Some(3.0));
    }
}
