//! Decoding of HdrHistogram V2 into cells (bucket and count), at a cost proportional to the received bytes.
//!
//! Intuition: the encoding is a header and a list of counts in which runs of empty buckets are abbreviated. The
//! header states a range. A dense array of that range may take gigabytes although the list takes a hundred bytes. The
//! decoder therefore reads the list and makes one cell for each count above zero. Invariant: memory and time follow
//! from the received bytes, never from a length or range that they state. Source: HdrHistogram's
//! `EncodableHistogram`, version 2, and its counts-array arithmetic.
//! Rejected: the reader of the `hdrhistogram` crate, which allocates what the header states (tests compare
//! with it).

use std::io::Read;

/// The counts of one histogram, ascending by value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cells {
    pub layout: Layout,
    /// (index in the counts array, count) of each bucket with a count above zero.
    pub cells: Vec<(u32, u64)>,
}

/// The mapping from indexes in the counts array, called places, to values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub digits: u8, // in [0, 5]
    unit_bits: u32, // log2 of the lowest discernible value, rounded down
    half_bits: u32, // log2 of half the sub-buckets of a bucket
    places: u32,    // length of the counts array
}

/// The reason why bytes cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CellsError {
    #[error("hdr is cut off")]
    Cut,
    #[error("hdr is no HdrHistogram V2: it begins with {0:#010x}")]
    Cookie(u32),
    #[error("hdr states {0}, which no HdrHistogram V2 has")]
    Header(&'static str),
    #[error("hdr holds more counts than its range has")]
    TooLong,
    #[error("hdr has a count below zero, or too large")]
    Count,
    #[error("hdr cannot be inflated: {0}")]
    Deflate(String),
    #[error("hdr inflates to more than {0} bytes, which is too much for its size")]
    Bomb(usize),
}

const PLAIN_COOKIE: u32 = 0x1c84_9303 | 0x10;
const DEFLATED_COOKIE: u32 = 0x1c84_9304 | 0x10;

/// Bytes before the counts.
const HEADER_BYTES: usize = 40;

/// Limits on the inflated size: 64 times the received size, but at least 4 KiB and at most 1 MiB. Counts of real
/// values never deflate to less than a 64th. 2^16 counts of 9 bytes fit in 1 MiB.
const INFLATED_BYTES_MAX: usize = 1 << 20;
const INFLATED_TIMES_MAX: usize = 64;
const INFLATED_BYTES_MIN: usize = 4 << 10;

/// Decodes V2 or V2 + deflate as producers send it.
pub fn read(bytes: &[u8]) -> Result<Cells, CellsError> {
    let max = (bytes.len() * INFLATED_TIMES_MAX).clamp(INFLATED_BYTES_MIN, INFLATED_BYTES_MAX);
    read_within(bytes, max)
}

/// Decodes histograms from our own store, without the limit relative to the received size: equal counts deflate to a
/// thousandth.
pub fn read_stored(bytes: &[u8]) -> Result<Cells, CellsError> {
    read_within(bytes, INFLATED_BYTES_MAX)
}

fn read_within(bytes: &[u8], inflated_max: usize) -> Result<Cells, CellsError> {
    match number(bytes, 0)? {
        PLAIN_COOKIE => read_plain(bytes),
        DEFLATED_COOKIE => read_plain(&inflate(bytes.get(8..).ok_or(CellsError::Cut)?, inflated_max)?),
        other => Err(CellsError::Cookie(other)),
    }
}

fn inflate(deflated: &[u8], max: usize) -> Result<Vec<u8>, CellsError> {
    let mut plain = Vec::new();
    let read = flate2::read::ZlibDecoder::new(deflated).take(max as u64 + 1).read_to_end(&mut plain);
    read.map_err(|error| CellsError::Deflate(error.to_string()))?;
    if plain.len() > max { Err(CellsError::Bomb(max)) } else { Ok(plain) }
}

fn number(bytes: &[u8], at: usize) -> Result<u32, CellsError> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map(u32::from_be_bytes).ok_or(CellsError::Cut)
}

fn wide(bytes: &[u8], at: usize) -> Result<u64, CellsError> {
    Ok(u64::from(number(bytes, at)?) << 32 | u64::from(number(bytes, at + 4)?))
}

fn read_plain(bytes: &[u8]) -> Result<Cells, CellsError> {
    if number(bytes, 0)? != PLAIN_COOKIE {
        return Err(CellsError::Cookie(number(bytes, 0)?));
    }
    let (length, offset, digits) = (number(bytes, 4)?, number(bytes, 8)?, number(bytes, 12)?);
    let (low, high, ratio) = (wide(bytes, 16)?, wide(bytes, 24)?, wide(bytes, 32)?);
    if offset != 0 {
        return Err(CellsError::Header("an offset"));
    }
    if f64::from_bits(ratio) != 1.0 {
        return Err(CellsError::Header("a ratio"));
    }
    let layout = Layout::new(low, high, digits)?;
    let counts = bytes.get(HEADER_BYTES..).ok_or(CellsError::Cut)?;
    let counts = counts.get(..length as usize).ok_or(CellsError::Cut)?;
    Ok(Cells { layout, cells: cells(counts, layout.places)? })
}

/// Walks the list of numbers: each is a count, or a negated run length of empty buckets.
fn cells(mut counts: &[u8], places: u32) -> Result<Vec<(u32, u64)>, CellsError> {
    let (mut cells, mut place) = (Vec::new(), 0u32);
    while !counts.is_empty() {
        let (count, rest) = varint(counts)?;
        counts = rest;
        if count < 0 {
            let run = u32::try_from(count.unsigned_abs()).map_err(|_| CellsError::TooLong)?;
            place = place.checked_add(run).filter(|place| *place <= places).ok_or(CellsError::TooLong)?;
            continue;
        }
        if place >= places {
            return Err(CellsError::TooLong);
        }
        if count > 0 {
            cells.push((place, count as u64));
        }
        place += 1;
    }
    Ok(cells)
}

/// Reads a number in zigzag encoding, seven bits per byte, low bits first; a ninth byte has eight bits.
fn varint(bytes: &[u8]) -> Result<(i64, &[u8]), CellsError> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        if at == 8 {
            value |= u64::from(*byte) << 56;
        } else {
            value |= u64::from(byte & 0x7f) << (7 * at);
        }
        if at == 8 || byte & 0x80 == 0 {
            return Ok(((value >> 1) as i64 ^ -((value & 1) as i64), &bytes[at + 1..]));
        }
    }
    Err(CellsError::Cut)
}

impl Layout {
    fn new(low: u64, high: u64, digits: u32) -> Result<Layout, CellsError> {
        let digits = u8::try_from(digits).ok().filter(|digits| *digits <= 5);
        let digits = digits.ok_or(CellsError::Header("more than five digits"))?;
        if low == 0 || low > u64::MAX / 2 || high / 2 < low {
            return Err(CellsError::Header("a range"));
        }
        let unit_bits = low.ilog2();
        // A bucket has as many sub-buckets as the next power of two at or above 2 × 10^digits. The counts array holds
        // the lower half of the sub-buckets only for the first bucket; in any other bucket it would repeat the values
        // of the bucket before.
        let sub_bits = (2 * 10u64.pow(u32::from(digits))).next_power_of_two().ilog2();
        if unit_bits + sub_bits > 63 {
            return Err(CellsError::Header("a range"));
        }
        let half_bits = sub_bits - 1;
        let (mut above, mut buckets) = (1u64 << (sub_bits + unit_bits), 1u32);
        while above <= high {
            buckets += 1;
            match above.checked_mul(2) {
                Some(next) => above = next,
                None => break,
            }
        }
        Ok(Layout { digits, unit_bits, half_bits, places: (buckets + 1) << half_bits })
    }

    /// Returns whether each index denotes the same values as in the layout with this precision and lowest value 1.
    pub fn is_plain(&self, digits: u8) -> bool {
        self.digits == digits && self.unit_bits == 0
    }

    /// Returns the smallest value that is counted at this index of the counts array.
    pub fn lowest(&self, place: u32) -> u64 {
        let (sub, bits) = self.split(place);
        sub << bits
    }

    /// Returns the greatest value that is counted at this index of the counts array.
    pub fn highest(&self, place: u32) -> u64 {
        let (sub, bits) = self.split(place);
        (sub << bits) + ((1 << bits) - 1)
    }

    /// Returns the middle of the range of values that are counted at this index of the counts array.
    pub fn median(&self, place: u32) -> u64 {
        let (sub, bits) = self.split(place);
        (sub << bits) + ((1 << bits) >> 1)
    }

    /// Splits an index of the counts array into its sub-bucket and the shift that scales the sub-bucket to a value.
    /// Indexes are below `places`, so the values fit in a `u64`.
    fn split(&self, place: u32) -> (u64, u32) {
        let (row, sub) = (place >> self.half_bits, u64::from(place) & ((1 << self.half_bits) - 1));
        match row {
            0 => (sub, self.unit_bits),
            row => (sub + (1 << self.half_bits), row - 1 + self.unit_bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer, V2Serializer};
    use proptest::prelude::*;

    fn encoded(histogram: &Histogram<u64>, is_deflated: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        if is_deflated {
            V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("memory");
        } else {
            V2Serializer::new().serialize(histogram, &mut bytes).expect("memory");
        }
        bytes
    }

    /// (lowest, median, highest, count) of each cell according to the library.
    fn theirs(histogram: &Histogram<u64>) -> Vec<(u64, u64, u64, u64)> {
        let cell = |value: u64, count| {
            let (lowest, highest) = (histogram.lowest_equivalent(value), histogram.highest_equivalent(value));
            (lowest, histogram.median_equivalent(value), highest, count)
        };
        histogram.iter_recorded().map(|one| cell(one.value_iterated_to(), one.count_at_value())).collect()
    }

    fn ours(cells: &Cells) -> Vec<(u64, u64, u64, u64)> {
        let of = cells.layout;
        let cell =
            |(place, count): &(u32, u64)| (of.lowest(*place), of.median(*place), of.highest(*place), *count);
        cells.cells.iter().map(cell).collect()
    }

    proptest! {
        /// Goal: the cells are the library's, for every range and precision. Method: random histograms,
        /// encoded by the library and decoded by both.
        #[test]
        fn cells_are_those_of_the_library(
            low in 1u64..5_000, digits in 0u8..=5, high_bits in 14u32..50,
            values in proptest::collection::vec((any::<u64>(), 1u64..1 << 40), 0..60),
            is_deflated: bool,
        ) {
            let high = 1u64 << high_bits;
            let mut histogram = Histogram::<u64>::new_with_bounds(low, high, digits).expect("bounds");
            for (value, count) in values {
                histogram.record_n(value % high, count).expect("in range");
            }
            let bytes = encoded(&histogram, is_deflated);
            match read(&bytes) {
                Ok(cells) => prop_assert_eq!(ours(&cells), theirs(&histogram)),
                // Empty counters of a large range deflate better than the limit allows.
                Err(error) => prop_assert!(is_deflated && matches!(error, CellsError::Bomb(_)), "{error}"),
            }
        }

        /// Goal: any bytes are read or refused, and the library reads the same where it can. Method: one
        /// random byte of a valid encoding is replaced.
        #[test]
        fn damaged_bytes_are_refused_or_read_alike(
            values in proptest::collection::vec(1u64..1 << 30, 1..20),
            at in 4usize..80, byte: u8,
        ) {
            let mut histogram = Histogram::<u64>::new_with_bounds(1, 1 << 30, 2).expect("bounds");
            values.iter().for_each(|value| histogram.record(*value).expect("in range"));
            let mut bytes = encoded(&histogram, false);
            let at = at % bytes.len();
            bytes[at] = byte;
            // The library allocates what the header states, so it decodes only headers that state little.
            let is_small = bytes[4..6] == [0, 0] && bytes[12..16] == [0, 0, 0, 2];
            if let (Ok(cells), true) = (read(&bytes), is_small)
                && let Ok(known) = Deserializer::new().deserialize::<u64, _>(&mut bytes.as_slice())
            {
                prop_assert_eq!(ours(&cells), theirs(&known));
            }
        }
    }

    #[test]
    fn a_header_costs_nothing() {
        let mut bytes = encoded(&Histogram::<u64>::new_with_bounds(1, 1 << 20, 2).expect("bounds"), false);
        bytes[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(read(&bytes), Err(CellsError::Cut), "four gigabytes are stated");
        let mut plain = bytes.clone();
        plain[4..8].copy_from_slice(&0u32.to_be_bytes());
        plain[24..32].copy_from_slice(&u64::MAX.to_be_bytes());
        plain[12..16].copy_from_slice(&5u32.to_be_bytes());
        assert!(read(&plain).expect("an empty one of the largest range").cells.is_empty());
        for length in 0..plain.len() {
            let _ = read(&plain[..length]);
        }
        let run = [&plain[..4], &[0, 0, 0, 9][..], &plain[8..HEADER_BYTES], &[0xff; 9][..]].concat();
        assert_eq!(read(&run), Err(CellsError::TooLong));
    }

    #[test]
    fn a_bomb_is_refused() {
        use std::io::Write;
        let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        deflate.write_all(&vec![0; 1 << 20]).expect("memory");
        let deflated = deflate.finish().expect("memory");
        let bytes = [&DEFLATED_COOKIE.to_be_bytes()[..], &[0; 4], &deflated].concat();
        assert!(matches!(read(&bytes), Err(CellsError::Bomb(_))));
    }
}
