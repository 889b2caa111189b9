//! A packed pane: small, and slow to change.
//!
//! Intuition: an open 1h window changes once in five minutes, and the open 1h windows hold most of the memory
//! of 100,000 quiet series. The filled buckets are a list of ascending numbers with small counts. Stored as
//! distances between neighbours, of one or two bytes each, they take half the memory.
//! Invariant: packing and unpacking change no count. Rejected: packing 1m windows, too (they change with each
//! value), and general compression (slower, and no smaller on such lists).

use super::histogram::Histogram;
use super::pane::Pane;
use serde::{Deserialize, Serialize};

/// A pane whose histogram of the values >= 0 is stored as packed bytes if it is sparse.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PackedPane {
    /// The pane; its histogram of the values >= 0 is empty while `cells` holds that histogram.
    rest: Pane,
    #[serde(with = "bytes")]
    cells: Box<[u8]>,
}

impl PackedPane {
    /// Unpacks the pane, changes it and packs it again.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Pane)) {
        let mut pane = std::mem::take(self).into_pane();
        change(&mut pane);
        let cells = pane.take_cells();
        *self = PackedPane { rest: pane, cells };
    }

    pub(crate) fn into_pane(self) -> Pane {
        let mut pane = self.rest;
        // `Pane::take_cells` wrote the cells, so they are intact. If they were damaged, the count, the sum
        // and the extremes in `rest` would still be valid.
        if let Some(histogram) = Histogram::from_cells(&self.cells).filter(|found| !found.is_empty()) {
            pane.put_back(histogram);
        }
        pane
    }
}

/// Serialises a byte slice as one byte string; by default, serde writes a list of numbers.
pub(in crate::core) mod bytes {
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(in crate::core) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(in crate::core) fn deserialize<'de, D: Deserializer<'de>, T: From<Box<[u8]>>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor).map(T::from)
    }

    struct BytesVisitor;

    impl Visitor<'_> for BytesVisitor {
        type Value = Box<[u8]>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Box<[u8]>, E> {
            Ok(bytes.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::histogram::layout::Digits;
    use super::super::pane::{Sample, Shape};
    use super::*;
    use crate::core::Timestamp;
    use crate::core::vocab::unit::Unit;

    #[test]
    fn packing_changes_nothing_and_takes_half_the_room() {
        let shape = Shape { digits: Digits::Two, resolution: Unit::resolution(Some(&Unit::Ms)) };
        let (mut plain, mut packed) = (Pane::default(), PackedPane::default());
        for n in 0..360i64 {
            let value = (n * 61 % 997) as f64 - 20.0;
            let sample = Sample::new(shape, value, Timestamp::clamped(n));
            plain.record(sample);
            packed.change(|pane| pane.record(sample));
        }
        assert!(packed.cells.len() * 2 < plain.positive().heap_bytes() + 64, "{}", packed.cells.len());
        assert_eq!(packed.into_pane(), plain);
    }
}
