//! Encoding and decoding of histograms as HdrHistogram V2 + deflate, which the HdrHistogram libraries of all
//! languages read.
//!
//! Invariant: the buckets of a pane are those of the HdrHistogram library, so a pane that was written and read back
//! holds the same counts in the same buckets.

use crate::core::measure::histogram::Histogram;
use crate::core::measure::histogram::layout::Digits;
use crate::core::vocab::limits::STEPS_MAX;
use crate::wire::hdr_cells;
use flate2::{Compress, Compression, FlushCompress, Status};

/// The reason why stored bytes are not a valid histogram.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode a stored histogram: {0}; check that only streamgauge writes it")]
pub struct HdrError(String);

/// Encodes histograms of one precision. Its buffers are reused, because one histogram per series is encoded each
/// minute, for example 100,000.
pub struct Writer {
    digits: Digits,
    plain: Vec<u8>,
    deflate: Compress,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("digits", &self.digits).finish_non_exhaustive()
    }
}

/// The first four bytes of the encodings (HdrHistogram's `EncodableHistogram`, version 2; 0x10: counts of
/// variable length).
const PLAIN_COOKIE: u32 = 0x1c84_9303 | 0x10;
const DEFLATED_COOKIE: u32 = 0x1c84_9304 | 0x10;

/// Bytes of the header, and the offset of the header field that states the length of the data.
const HEADER_BYTES: usize = 40;
const LENGTH_AT: usize = 4;

impl Writer {
    pub fn new(digits: Digits) -> Writer {
        Writer { digits, plain: Vec::new(), deflate: Compress::new(Compression::fast(), true) }
    }

    /// Encodes a histogram. The recorded values are steps of the metric's resolution.
    pub fn bytes(&mut self, histogram: &Histogram) -> Result<Vec<u8>, HdrError> {
        self.encode(histogram);
        self.deflate.reset();
        let mut bytes = Vec::with_capacity(self.plain.len() / 2 + 64);
        bytes.extend(DEFLATED_COOKIE.to_be_bytes());
        bytes.extend([0; 4]);
        loop {
            let from = self.deflate.total_in() as usize;
            let done = self.deflate.compress_vec(&self.plain[from..], &mut bytes, FlushCompress::Finish);
            match done.map_err(|error| HdrError(error.to_string()))? {
                Status::StreamEnd => break,
                Status::Ok | Status::BufError => bytes.reserve(self.plain.len() + 64),
            }
        }
        let length = (bytes.len() - 8) as u32;
        bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
        Ok(bytes)
    }

    /// Encodes version 2 without deflate: a header, then the counts from bucket 0 to the highest filled one,
    /// each run of two or more empty buckets as one negative number. The buckets are the library's, so a
    /// bucket's number is its index in the counts array.
    fn encode(&mut self, histogram: &Histogram) {
        let plain = &mut self.plain;
        plain.clear();
        plain.extend(PLAIN_COOKIE.to_be_bytes());
        plain.extend([0; 8]); // length of the counts, and the normalizing offset, which stays 0
        plain.extend(u32::from(self.digits.count()).to_be_bytes());
        plain.extend(1u64.to_be_bytes());
        plain.extend(STEPS_MAX.to_be_bytes());
        plain.extend(1f64.to_be_bytes());
        let mut next = 0;
        for (bucket, count) in histogram.iter() {
            match i64::from(bucket) - next {
                0 => {}
                1 => write_number(plain, 0),
                run => write_number(plain, -run),
            }
            write_number(plain, count.min(i64::MAX as u64) as i64);
            next = i64::from(bucket) + 1;
        }
        let length = (plain.len() - HEADER_BYTES) as u32;
        plain[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
    }
}

/// Writes a number in zigzag encoding, seven bits per byte, low bits first; a ninth byte has eight bits.
fn write_number(out: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)) as u64;
    for _ in 0..8 {
        if rest < 0x80 {
            return out.push(rest as u8);
        }
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Decodes what [`Writer::bytes`] wrote.
pub fn read(digits: Digits, bytes: &[u8]) -> Result<Histogram, HdrError> {
    let found = hdr_cells::read_stored(bytes).map_err(|error| HdrError(error.to_string()))?;
    let mut histogram = Histogram::default();
    for (place, count) in found.cells {
        let steps = found.layout.lowest(place).min(STEPS_MAX);
        histogram.add(digits.bucket(steps), count);
    }
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram as Hdr;
    use hdrhistogram::serialization::{Serializer, V2Serializer};

    /// Goal: the encoder writes what the library writes. Method: compares the bytes before deflate.
    #[test]
    fn the_encoding_is_the_librarys() {
        for digits in [Digits::Two, Digits::Three] {
            let mut writer = Writer::new(digits);
            let mut theirs = Hdr::<u64>::new_with_bounds(1, STEPS_MAX, digits.count()).expect("bounds");
            let mut ours = Histogram::default();
            for n in 0..3_000u64 {
                let (steps, count) = ((n * n * 7_919) % STEPS_MAX, if n == 7 { 1 << 55 } else { n * n + 1 });
                ours.add(digits.bucket(steps), count);
                theirs.record_n(steps, count).expect("in range");
            }
            let mut bytes = Vec::new();
            V2Serializer::new().serialize(&theirs, &mut bytes).expect("memory");
            writer.encode(&ours);
            assert_eq!(writer.plain, bytes);
        }
    }

    #[test]
    fn what_was_written_is_read_back_bucket_for_bucket() {
        for digits in [Digits::Two, Digits::Three] {
            let mut writer = Writer::new(digits);
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

    /// Equal counts deflate so well that the decoder once refused the bytes as a decompression bomb.
    #[test]
    fn a_histogram_with_one_value_in_each_bucket_is_read_back() {
        for digits in [Digits::Two, Digits::Three] {
            let mut histogram = Histogram::default();
            (0..digits.buckets()).for_each(|bucket| histogram.record(bucket));
            let bytes = Writer::new(digits).bytes(&histogram).expect("in range");
            assert_eq!(read(digits, &bytes).expect("own bytes"), histogram, "{} bytes", bytes.len());
        }
    }
}
