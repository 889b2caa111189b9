//! Splitting of a MessagePack payload into its events, without decoding them.
//!
//! Intuition: skipping a value needs only its first byte and, for some types, a length. An array of events
//! can therefore be cut into slices, and one malformed event does not affect the others.

use crate::core::vocab::limits::NESTING_MAX;

/// The reason why a payload cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SplitError {
    #[error("the payload ends in the middle of a value")]
    CutOff,
    #[error("the payload goes on after its value")]
    Trailing,
    #[error("values are nested deeper than {NESTING_MAX}")]
    TooDeep,
    #[error("byte 0xc1 is not MessagePack")]
    Reserved,
}

/// Returns the events of a payload: the elements of an array, or a single value.
pub(crate) fn elements(bytes: &[u8]) -> Result<Vec<&[u8]>, SplitError> {
    let mut rest = bytes;
    let count = match rest.first() {
        Some(marker @ 0x90..=0x9f) => usize::from(marker & 0x0f),
        Some(0xdc) => length(rest, 2)?,
        Some(0xdd) => length(rest, 4)?,
        _ => {
            let size = skip(bytes, 0)?;
            return if size == bytes.len() { Ok(vec![bytes]) } else { Err(SplitError::Trailing) };
        }
    };
    rest = &rest[match rest[0] {
        0xdc => 3,
        0xdd => 5,
        _ => 1,
    }..];
    let mut elements = Vec::new();
    for _ in 0..count {
        let size = skip(rest, 0)?;
        elements.push(&rest[..size]);
        rest = &rest[size..];
    }
    if rest.is_empty() { Ok(elements) } else { Err(SplitError::Trailing) }
}

/// Returns the length of the value at the start of `bytes`.
fn skip(bytes: &[u8], depth: usize) -> Result<usize, SplitError> {
    if depth > NESTING_MAX {
        return Err(SplitError::TooDeep);
    }
    let marker = *bytes.first().ok_or(SplitError::CutOff)?;
    let size = match marker {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 1,
        0x80..=0x8f => return many(bytes, 1, 2 * usize::from(marker & 0x0f), depth),
        0x90..=0x9f => return many(bytes, 1, usize::from(marker & 0x0f), depth),
        0xa0..=0xbf => 1 + usize::from(marker & 0x1f),
        0xc1 => return Err(SplitError::Reserved),
        0xc4 | 0xd9 => 2 + length(bytes, 1)?,
        0xc5 | 0xda => 3 + length(bytes, 2)?,
        0xc6 | 0xdb => 5 + length(bytes, 4)?,
        0xc7 => 3 + length(bytes, 1)?,
        0xc8 => 4 + length(bytes, 2)?,
        0xc9 => 6 + length(bytes, 4)?,
        0xcc | 0xd0 => 2,
        0xcd | 0xd1 => 3,
        0xca | 0xce | 0xd2 => 5,
        0xcb | 0xcf | 0xd3 => 9,
        0xd4..=0xd8 => 2 + (1 << (marker - 0xd4)),
        0xdc => return many(bytes, 3, length(bytes, 2)?, depth),
        0xdd => return many(bytes, 5, length(bytes, 4)?, depth),
        0xde => return many(bytes, 3, 2 * length(bytes, 2)?, depth),
        0xdf => return many(bytes, 5, length(bytes, 4)?.saturating_mul(2), depth),
    };
    if size > bytes.len() { Err(SplitError::CutOff) } else { Ok(size) }
}

/// Returns the length of a value with a header of `header` bytes and `count` inner values.
fn many(bytes: &[u8], header: usize, count: usize, depth: usize) -> Result<usize, SplitError> {
    let mut size = header;
    for _ in 0..count {
        size += skip(bytes.get(size..).ok_or(SplitError::CutOff)?, depth + 1)?;
    }
    Ok(size)
}

/// Reads the big-endian length in the `width` bytes after the marker.
fn length(bytes: &[u8], width: usize) -> Result<usize, SplitError> {
    let digits = bytes.get(1..=width).ok_or(SplitError::CutOff)?;
    Ok(digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_cut_into_events() {
        let one = rmp_serde::to_vec_named(&serde_json::json!({"a": [1, 2.5, "x", null], "b": {"c": true}}));
        let one = one.expect("memory");
        assert_eq!(elements(&one), Ok(vec![&one[..]]));
        let three = [&[0x93][..], &one, &[0xc0], &one].concat();
        assert_eq!(elements(&three).map(|found| found.len()), Ok(3));
    }

    #[test]
    fn hostile_lengths_cost_nothing() {
        assert_eq!(elements(&[0xdd, 0xff, 0xff, 0xff, 0xff]), Err(SplitError::CutOff));
        assert_eq!(elements(&[0xdf, 0xff, 0xff, 0xff, 0xff]), Err(SplitError::CutOff));
        assert_eq!(elements(&[0x91; 200_000]), Err(SplitError::TooDeep));
        assert_eq!(elements(&[0xc0, 0xc0]), Err(SplitError::Trailing));
        assert_eq!(elements(&[]), Err(SplitError::CutOff));
    }
}
