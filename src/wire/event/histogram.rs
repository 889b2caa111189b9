//! `histogram` events: an HdrHistogram in base64, V2 or V2 + deflate.

use crate::wire::hdr_cells;
use base64::Engine as _;

/// The cells of a histogram and its extremes, in the event's unit.
#[derive(Debug, PartialEq)]
pub(super) struct Cells {
    pub cells: Vec<(f64, u64)>,
    pub min: f64,
    pub max: f64,
}

/// Maximum number of values of one histogram: counts up to this are exact as floating-point numbers.
const VALUES_MAX: u64 = 1 << 53;

/// Decodes a base64-encoded HdrHistogram V2, plain or deflate-compressed. Each recorded value is multiplied
/// by `scale`.
pub(super) fn from_base64(text: &str, scale: f64) -> Result<Cells, String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    from_bytes(&bytes.map_err(|error| format!("hdr is no base64: {error}"))?, scale)
}

/// Decodes V2 or V2 + deflate bytes.
pub(super) fn from_bytes(bytes: &[u8], scale: f64) -> Result<Cells, String> {
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(format!("scale is {scale}; it must be above zero"));
    }
    let found = hdr_cells::read(bytes).map_err(|error| error.to_string())?;
    let (Some((first, _)), Some((last, _))) = (found.cells.first(), found.cells.last()) else {
        return Err("hdr is empty".into());
    };
    let total = found.cells.iter().try_fold(0u64, |sum, (_, count)| sum.checked_add(*count));
    if total.is_none_or(|total| total > VALUES_MAX) {
        return Err(format!("hdr holds more than {VALUES_MAX} values"));
    }
    let of = found.layout;
    let (min, max) = (of.lowest(*first) as f64 * scale, of.highest(*last) as f64 * scale);
    if !max.is_finite() {
        return Err(format!("scale {scale} makes values that are not finite"));
    }
    let cell = |(place, count): &(u32, u64)| (of.median(*place) as f64 * scale, *count);
    Ok(Cells { cells: found.cells.iter().map(cell).collect(), min, max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::{Serializer, V2DeflateSerializer, V2Serializer};

    fn sample() -> Histogram<u64> {
        let mut histogram = Histogram::new(2).expect("2 digits");
        [5, 5, 700, 41_130].iter().for_each(|value| histogram += *value);
        histogram
    }

    fn plain(histogram: &Histogram<u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(histogram, &mut bytes).expect("memory");
        bytes
    }

    #[test]
    fn both_encodings_are_read() {
        let (plain, mut deflated) = (plain(&sample()), Vec::new());
        V2DeflateSerializer::new().serialize(&sample(), &mut deflated).expect("memory");
        let cells = from_bytes(&plain, 0.001).expect("V2");
        assert_eq!(from_bytes(&deflated, 0.001), Ok(cells));
        let cells = from_bytes(&plain, 2.0).expect("V2");
        assert_eq!((cells.cells[0], cells.cells.len(), cells.min), ((10.0, 2), 3, 10.0));
    }

    #[test]
    fn damaged_and_hostile_bytes_are_refused() {
        let mut plain = plain(&sample());
        for length in 0..plain.len() {
            let _ = from_bytes(&plain[..length], 1.0);
        }
        assert!(from_bytes(b"", 1.0).is_err());
        assert!(from_bytes(&plain, 0.0).is_err() && from_bytes(&plain, f64::MAX).is_err());
        assert!(from_base64("%%", 1.0).is_err());
        plain[15] = 6;
        assert!(from_bytes(&plain, 1.0).is_err());
    }

    #[test]
    fn more_values_than_can_be_counted_are_refused() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 1_000, 2).expect("bounds");
        histogram.record_n(7, VALUES_MAX).expect("in range");
        assert!(from_bytes(&plain(&histogram), 1.0).is_ok());
        histogram.record_n(9, 1 << 62).expect("in range");
        assert!(from_bytes(&plain(&histogram), 1.0).is_err_and(|said| said.contains("values")));
    }
}
