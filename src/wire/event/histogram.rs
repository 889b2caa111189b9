//! `histogram` events: an HdrHistogram in base64, V2 or V2 + deflate.

use base64::Engine as _;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use std::io::Read;

/// What a histogram holds, in the event's unit.
#[derive(Debug, PartialEq)]
pub struct Cells {
    pub cells: Vec<(f64, u64)>,
    pub min: f64,
    pub max: f64,
}

/// Bytes that a deflated histogram may inflate to: 2^16 counters of 9 bytes, rounded up.
const INFLATED_BYTES_MAX: u64 = 1 << 20;

const DEFLATE_COOKIE: [u8; 4] = [0x1c, 0x84, 0x93, 0x14];

/// Reads base64 of V2 or V2 + deflate; `value = recorded × scale`.
pub fn from_base64(text: &str, scale: f64) -> Result<Cells, String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    from_bytes(&bytes.map_err(|error| format!("hdr is no base64: {error}"))?, scale)
}

/// Reads V2 or V2 + deflate bytes.
pub fn from_bytes(bytes: &[u8], scale: f64) -> Result<Cells, String> {
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(format!("scale is {scale}; it must be above zero"));
    }
    let plain = inflate(bytes)?;
    check_header(&plain)?;
    let decoded: Result<Histogram<u64>, _> = Deserializer::new().deserialize(&mut plain.as_slice());
    let histogram = decoded.map_err(|error| format!("hdr is no HdrHistogram V2: {error:?}"))?;
    if histogram.is_empty() {
        return Err("hdr is empty".into());
    }
    let cells = histogram.iter_recorded().map(|cell| {
        let value = histogram.median_equivalent(cell.value_iterated_to());
        (value as f64 * scale, cell.count_at_value())
    });
    Ok(Cells {
        cells: cells.collect(),
        min: histogram.min() as f64 * scale,
        max: histogram.max() as f64 * scale,
    })
}

/// The V2 bytes, inflated within bounds where they are deflated.
fn inflate(bytes: &[u8]) -> Result<Vec<u8>, String> {
    if bytes.get(..4) != Some(&DEFLATE_COOKIE[..]) {
        return Ok(bytes.to_vec());
    }
    let deflated = bytes.get(8..).ok_or("hdr is cut off")?;
    let mut plain = Vec::new();
    let read = flate2::read::ZlibDecoder::new(deflated).take(INFLATED_BYTES_MAX + 1).read_to_end(&mut plain);
    read.map_err(|error| format!("hdr cannot be inflated: {error}"))?;
    if plain.len() as u64 > INFLATED_BYTES_MAX {
        return Err(format!("hdr inflates to more than {INFLATED_BYTES_MAX} bytes"));
    }
    Ok(plain)
}

/// The range that a header states decides how much memory decoding takes: bound it first.
fn check_header(plain: &[u8]) -> Result<(), String> {
    const HEADER_BYTES: usize = 40;
    const DIGITS_MAX: u32 = 4;
    let Some(header) = plain.get(..HEADER_BYTES) else { return Err("hdr is cut off".into()) };
    let digits = u32::from_be_bytes([header[12], header[13], header[14], header[15]]);
    if digits > DIGITS_MAX {
        return Err(format!("hdr has {digits} digits; at most {DIGITS_MAX} are taken"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::{Serializer, V2DeflateSerializer, V2Serializer};

    fn sample() -> Histogram<u64> {
        let mut histogram = Histogram::new(2).expect("2 digits");
        [5, 5, 700, 41_130].iter().for_each(|value| histogram += *value);
        histogram
    }

    #[test]
    fn both_encodings_are_read() {
        let (mut plain, mut deflated) = (Vec::new(), Vec::new());
        V2Serializer::new().serialize(&sample(), &mut plain).expect("memory");
        V2DeflateSerializer::new().serialize(&sample(), &mut deflated).expect("memory");
        let cells = from_bytes(&plain, 0.001).expect("V2");
        assert_eq!(from_bytes(&deflated, 0.001), Ok(cells));
        let cells = from_bytes(&plain, 2.0).expect("V2");
        assert_eq!((cells.cells[0], cells.cells.len(), cells.min), ((10.0, 2), 3, 10.0));
    }

    #[test]
    fn damaged_and_hostile_bytes_are_refused() {
        let mut plain = Vec::new();
        V2Serializer::new().serialize(&sample(), &mut plain).expect("memory");
        for length in 0..plain.len() {
            let _ = from_bytes(&plain[..length], 1.0);
        }
        assert!(from_bytes(b"", 1.0).is_err());
        assert!(from_bytes(&plain, 0.0).is_err());
        assert!(from_base64("%%", 1.0).is_err());
        plain[15] = 5;
        assert!(from_bytes(&plain, 1.0).is_err());
    }
}
