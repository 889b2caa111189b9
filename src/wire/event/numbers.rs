//! Exact parsing of decimal numbers, without a library call if the result is certain to be exact.

/// 10^0 to 10^22: the powers of ten that a double represents exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Whole numbers up to 2^53 are exact as doubles.
const EXACT_MAX: u64 = 1 << 53;

/// Reads a JSON number at the start of `bytes`; returns the number and its length in bytes. Returns `None` if there
/// is no number, or if its nearest double cannot be found by one exact division (Clinger 1990). The caller then uses
/// the library.
#[inline]
pub(super) fn read(bytes: &[u8]) -> Option<(f64, usize)> {
    let (is_negative, mut at) = match bytes.first() {
        Some(b'-') => (true, 1),
        _ => (false, 0),
    };
    let begin = at;
    let mut mantissa = 0u64;
    while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
        mantissa = mantissa.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        at += 1;
    }
    let whole_digits = at - begin;
    if whole_digits == 0 || (whole_digits > 1 && bytes[begin] == b'0') {
        return None;
    }
    let mut fraction_digits = 0;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let begin = at;
        while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
            mantissa = mantissa.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
            at += 1;
        }
        fraction_digits = at - begin;
        if fraction_digits == 0 {
            return None;
        }
    }
    if mantissa > EXACT_MAX || matches!(bytes.get(at), Some(b'e' | b'E')) {
        return None;
    }
    let value = mantissa as f64 / POWERS.get(fraction_digits)?;
    Some((if is_negative { -value } else { value }, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_the_library_reads() {
        for text in ["0", "-0", "41.13", "-1.5", "9007199254740992", "0.000001", "123456789.123456", "100"] {
            let (value, length) = read(text.as_bytes()).expect(text);
            assert_eq!(value.to_bits(), text.parse::<f64>().expect(text).to_bits(), "{text}");
            assert_eq!(length, text.len());
        }
    }

    #[test]
    fn what_is_no_json_number_or_not_certain_is_left_to_others() {
        for text in ["", "-", ".5", "5.", "01", "1e5", "9007199254740993", "0.00000000000000000000001", "+1"]
        {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
    }
}
