//! Histograms out and back: HdrHistogram V2 + deflate, which its libraries in every language read.
//!
//! Invariant: buckets are the library's own, so a pane that was written and read back holds the
//! same counts in the same buckets.

use crate::core::histogram::Histogram;
use crate::core::histogram::layout::Digits;
use crate::core::limits::STEPS_MAX;
use hdrhistogram::Histogram as Hdr;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

/// Why bytes are no histogram of ours.
#[derive(Debug, thiserror::Error)]
#[error("a stored histogram cannot be read: {0}; was it written by something else?")]
pub struct HdrError(String);

/// Writes histograms of one precision, reusing its room.
pub struct Writer {
    digits: Digits,
    room: Hdr<u64>,
    serializer: V2DeflateSerializer,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("digits", &self.digits).finish_non_exhaustive()
    }
}

impl Writer {
    pub fn new(digits: Digits) -> Result<Writer, HdrError> {
        let room = Hdr::new_with_bounds(1, STEPS_MAX, digits.count());
        let room = room.map_err(|error| HdrError(error.to_string()))?;
        Ok(Writer { digits, room, serializer: V2DeflateSerializer::new() })
    }

    /// The histogram's bytes; the recorded values are steps of the metric's resolution.
    pub fn bytes(&mut self, histogram: &Histogram) -> Result<Vec<u8>, HdrError> {
        self.room.reset();
        for (bucket, count) in histogram.iter() {
            let recorded = self.room.record_n(self.digits.lowest(bucket), count);
            recorded.map_err(|error| HdrError(error.to_string()))?;
        }
        let mut bytes = Vec::new();
        let written = self.serializer.serialize(&self.room, &mut bytes);
        written.map_err(|error| HdrError(error.to_string()))?;
        Ok(bytes)
    }
}

/// Reads what [`Writer::bytes`] wrote.
pub fn read(digits: Digits, bytes: &[u8]) -> Result<Histogram, HdrError> {
    let decoded: Result<Hdr<u64>, _> = Deserializer::new().deserialize(&mut &*bytes);
    let decoded = decoded.map_err(|error| HdrError(format!("{error:?}")))?;
    let mut histogram = Histogram::default();
    for cell in decoded.iter_recorded() {
        let steps = decoded.lowest_equivalent(cell.value_iterated_to()).min(STEPS_MAX);
        histogram.add(digits.bucket(steps), cell.count_at_value());
    }
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_bucket_for_bucket() {
        for digits in [Digits::Two, Digits::Three] {
            let mut writer = Writer::new(digits).expect("bounds");
            let mut histogram = Histogram::default();
            for n in 0..4_000u64 {
                histogram.record(digits.bucket((n * n * 7_919) % STEPS_MAX));
            }
            histogram.add(digits.bucket(5), 1 << 33);
            for wanted in [&histogram, &Histogram::default()] {
                let bytes = writer.bytes(wanted).expect("in range");
                assert_eq!(&read(digits, &bytes).expect("own bytes"), wanted);
            }
        }
        assert!(read(Digits::Two, b"garbage").is_err());
    }
}
