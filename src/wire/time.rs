//! Timestamps as text: RFC 3339 with any offset, read to whole milliseconds.

use crate::core::Timestamp;
use crate::core::vocab::time::days_from_civil;

/// Parses RFC 3339; a fraction below a millisecond is truncated.
#[inline]
pub fn parse(text: &[u8]) -> Option<Timestamp> {
    parse_plain(text).or_else(|| parse_any(text))
}

/// Parses `YYYY-MM-DDTHH:MM:SS[.mmm]Z`, the form that nearly every producer writes, without a library call.
#[inline]
fn parse_plain(text: &[u8]) -> Option<Timestamp> {
    let (head, tail) = text.split_at_checked(19)?;
    let &[y1, y2, y3, y4, b'-', o1, o2, b'-', d1, d2, b'T', h1, h2, b':', m1, m2, b':', s1, s2] = head else {
        return None;
    };
    let millis = match tail {
        b"Z" => 0,
        &[b'.', a, b, c, b'Z'] => two(a, b)? * 10 + digit(c)?,
        _ => return None,
    };
    let (month, day) = (two(o1, o2)?, two(d1, d2)?);
    let (hour, minute, second) = (two(h1, h2)?, two(m1, m2)?, two(s1, s2)?);
    let year = two(y1, y2)? * 100 + two(y3, y4)?;
    // The validity of days after the 28th depends on the month, so the library parses them.
    let is_certain = (1..=12).contains(&month) && (1..=28).contains(&day);
    if !is_certain || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let secs = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Timestamp::from_ms(secs * 1_000 + millis)
}

fn parse_any(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    Timestamp::from_ms(time.timestamp_millis())
}

/// 2001-01-01 and 2100-01-01 in epoch milliseconds. A number outside this range is most likely in another
/// unit.
const EARLIEST_MS: i64 = 978_307_200_000;
const LATEST_MS: i64 = 4_102_444_800_000;

/// Reads an instant given in epoch milliseconds. The error names the unit that the number seems to have.
#[inline]
pub fn of_number(number: i64) -> Result<Timestamp, String> {
    let ms = Timestamp::from_ms(number).filter(|at| (EARLIEST_MS..LATEST_MS).contains(&at.ms()));
    ms.ok_or_else(|| hint(number))
}

/// Returns advice for a time that is a fractional number or a number in quotes.
#[cold]
pub fn number_hint(number: f64) -> String {
    // The cast is inexact beyond 2^53, but only the magnitude of such a number matters for the hint.
    match of_number(number as i64) {
        Ok(_) => "must be a whole number of epoch milliseconds, without quotes".into(),
        Err(hint) => format!("{hint}, a whole number without quotes"),
    }
}

#[cold]
fn hint(number: i64) -> String {
    let is_near = |ms: Option<i64>| ms.is_some_and(|ms| (EARLIEST_MS..LATEST_MS).contains(&ms));
    let unit = if is_near(number.checked_mul(1_000)) {
        "seconds; multiply it by 1,000"
    } else if is_near(Some(number / 1_000)) {
        "microseconds; divide it by 1,000"
    } else if is_near(Some(number / 1_000_000)) {
        "nanoseconds; divide it by 1,000,000"
    } else {
        return "is outside the years 2001 to 2099 as epoch milliseconds; write such a time as RFC 3339"
            .into();
    };
    format!("looks like {unit}: a time that is a number is in epoch milliseconds")
}

#[inline]
fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

#[inline]
fn two(tens: u8, ones: u8) -> Option<i64> {
    Some(digit(tens)? * 10 + digit(ones)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_reading_agree() {
        for text in [
            "2026-11-01T00:00:00Z",
            "2024-02-28T23:59:59.999Z",
            "1969-07-20T20:17:40Z",
            "0000-03-01T00:00:00.001Z",
        ] {
            assert_eq!(parse_plain(text.as_bytes()), parse_any(text.as_bytes()), "{text}");
            assert!(parse_plain(text.as_bytes()).is_some());
        }
    }

    #[test]
    fn a_number_of_another_unit_is_told_by_its_size() {
        assert_eq!(of_number(1_793_491_200_000).map(Timestamp::ms), Ok(1_793_491_200_000));
        let said = |number: i64| of_number(number).expect_err("another unit");
        assert!(said(1_793_491_200).contains("seconds; multiply"));
        assert!(said(1_793_491_200_000_000).contains("microseconds"));
        assert!(said(1_793_491_200_000_000_000).contains("nanoseconds"));
        for other in [0, 5, -1, i64::MIN, i64::MAX] {
            assert!(said(other).contains("2001"), "{other}");
        }
    }

    #[test]
    fn offsets_fractions_and_month_ends_are_read_and_nonsense_is_not() {
        let ms = |text: &str| parse(text.as_bytes()).map(Timestamp::ms);
        assert_eq!(ms("2026-11-01T02:30:00+02:30"), Some(1_793_491_200_000));
        assert_eq!(ms("2026-10-31T00:00:00.1239999Z"), Some(1_793_404_800_123));
        assert_eq!(ms("2026-02-29T00:00:00Z"), None);
        assert_eq!(ms("2026-13-01T00:00:00Z"), None);
        assert_eq!(ms("2026-11-01"), None);
        assert_eq!(ms("2026-11-01T25:00:00Z"), None);
    }
}
