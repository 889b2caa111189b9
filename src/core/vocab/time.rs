//! Instants and spans of the log, in whole milliseconds.
//!
//! Intuition: the engine never reads a clock; every instant it knows came with a record. So an instant is a
//! number that can be stored, compared between processes and computed with.
//! Invariant: arithmetic saturates within [`Timestamp::MIN`, `Timestamp::MAX`]; no input makes it wrap.
//! Rejected: `std::time::Instant` (it cannot be stored) and chrono types (instants need no calendar
//! arithmetic).

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// An instant: milliseconds since 1970-01-01T00:00:00Z, between the years 0 and 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        i64::deserialize(deserializer).map(Timestamp::clamped)
    }
}

/// A length of time in milliseconds. A difference of instants may be negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(i64);

impl Timestamp {
    /// 0000-01-01T00:00:00Z, also used as "never".
    pub const MIN: Timestamp = Timestamp(-62_167_219_200_000);
    /// 9999-12-31T23:59:59.999Z, also used as "not scheduled".
    pub const MAX: Timestamp = Timestamp(253_402_300_799_999);

    /// The instant `ms` milliseconds after the epoch, or `None` outside the years 0 to 9999.
    pub fn from_ms(ms: i64) -> Option<Timestamp> {
        (Self::MIN.0..=Self::MAX.0).contains(&ms).then_some(Timestamp(ms))
    }

    /// Like [`Self::from_ms`], but clamped into the range.
    pub const fn clamped(ms: i64) -> Timestamp {
        if ms < Self::MIN.0 {
            Self::MIN
        } else if ms > Self::MAX.0 {
            Self::MAX
        } else {
            Timestamp(ms)
        }
    }

    /// Milliseconds since the epoch.
    pub const fn ms(self) -> i64 {
        self.0
    }

    /// The latest multiple of `step` (counted from the epoch) at or before this instant.
    #[inline]
    pub fn floor(self, step: Span) -> Timestamp {
        debug_assert!(step.0 > 0);
        Timestamp::clamped(self.0 - self.0.rem_euclid(step.0))
    }

    /// The earliest multiple of `step` at or after this instant.
    pub fn ceil(self, step: Span) -> Timestamp {
        let floor = self.floor(step);
        if floor == self { self } else { floor + step }
    }

    /// The earliest multiple of `step` strictly after this instant.
    #[inline]
    pub fn next(self, step: Span) -> Timestamp {
        self.floor(step) + step
    }

    /// The number of whole steps between the epoch and this instant, rounded down.
    #[inline]
    pub fn index(self, step: Span) -> i64 {
        self.0.div_euclid(step.0)
    }
}

impl Span {
    pub const ZERO: Span = Span(0);
    pub const MILLISECOND: Span = Span(1);

    pub const fn from_ms(ms: i64) -> Span {
        Span(ms)
    }
    pub const fn from_secs(secs: i64) -> Span {
        Span(secs * 1_000)
    }
    pub const fn from_mins(mins: i64) -> Span {
        Span(mins * 60_000)
    }
    pub const fn from_hours(hours: i64) -> Span {
        Span(hours * 3_600_000)
    }
    pub const fn ms(self) -> i64 {
        self.0
    }
    pub fn secs_f64(self) -> f64 {
        self.0 as f64 / 1_000.0
    }
    pub fn is_positive(self) -> bool {
        self.0 > 0
    }
}

impl std::ops::Add<Span> for Timestamp {
    type Output = Timestamp;
    #[inline]
    fn add(self, span: Span) -> Timestamp {
        Timestamp::clamped(self.0.saturating_add(span.0))
    }
}

impl std::ops::Sub<Span> for Timestamp {
    type Output = Timestamp;
    #[inline]
    fn sub(self, span: Span) -> Timestamp {
        Timestamp::clamped(self.0.saturating_sub(span.0))
    }
}

impl std::ops::Sub for Timestamp {
    type Output = Span;
    #[inline]
    fn sub(self, earlier: Timestamp) -> Span {
        Span(self.0 - earlier.0)
    }
}

impl std::ops::Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

impl std::ops::AddAssign for Span {
    fn add_assign(&mut self, other: Span) {
        *self = *self + other;
    }
}

impl std::ops::Sub for Span {
    type Output = Span;
    fn sub(self, other: Span) -> Span {
        Span(self.0.saturating_sub(other.0))
    }
}

impl std::ops::Mul<i64> for Span {
    type Output = Span;
    fn mul(self, factor: i64) -> Span {
        Span(self.0.saturating_mul(factor))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// RFC 3339 in UTC. The milliseconds are written only if they are not zero.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, in_day) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (year, month, date) = civil_from_days(day);
        let (secs, ms) = (in_day / 1_000, in_day % 1_000);
        let (h, m, s) = (secs / 3_600, secs / 60 % 60, secs % 60);
        write!(f, "{year:04}-{month:02}-{date:02}T{h:02}:{m:02}:{s:02}")?;
        if ms > 0 {
            write!(f, ".{ms:03}")?;
        }
        f.write_str("Z")
    }
}

/// The notation of Prometheus: `1h30m`, `500ms`, `0s`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        for (unit, ms) in SPAN_UNITS {
            if rest >= ms {
                write!(f, "{}{unit}", rest / ms)?;
                rest %= ms;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const SPAN_UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl std::str::FromStr for Span {
    type Err = SpanError;

    /// Reads Prometheus durations: `1h30m`, `500ms`, `1d`, `1w`; also a bare `0`.
    fn from_str(text: &str) -> Result<Span, SpanError> {
        if text == "0" {
            return Ok(Span::ZERO);
        }
        let mut rest = text;
        let mut total = 0i64;
        let mut unit_max = u64::MAX;
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, tail) = rest.split_at(digits);
            let letters = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
            let (unit, after) = tail.split_at(letters);
            let (_, ms) = SPAN_UNITS.iter().find(|(name, _)| *name == unit).ok_or(SpanError)?;
            // Units must descend from left to right, each used once: `1m1h` is a typing error.
            if *ms >= unit_max {
                return Err(SpanError);
            }
            unit_max = *ms;
            let part = number.parse::<i64>().ok().and_then(|n| n.checked_mul(*ms as i64));
            total = part.and_then(|p| total.checked_add(p)).ok_or(SpanError)?;
            rest = after;
        }
        if text.is_empty() || total > SPAN_MAX.0 {
            return Err(SpanError);
        }
        Ok(Span(total))
    }
}

/// Ten years: longer than any window or timer, and too short to overflow when added.
pub(crate) const SPAN_MAX: Span = Span::from_hours(24 * 366 * 10);

/// The error of a text that is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a duration; write it like 30s, 5m, 1h30m or 7d, and no longer than ten years")]
pub struct SpanError;

/// Days since the epoch to (year, month, day), proleptic Gregorian.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// (year, month, day) to days since the epoch; the inverse of `civil_from_days`.
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_print_as_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (1_793_491_200_000, "2026-11-01T00:00:00Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ];
        for (ms, text) in cases {
            assert_eq!(Timestamp::clamped(ms).to_string(), text);
        }
        assert_eq!(Timestamp::MIN.to_string(), "0000-01-01T00:00:00Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn days_and_dates_are_inverse() {
        for days in (-700_000..2_900_000).step_by(97) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
    }

    #[test]
    fn spans_read_and_print() {
        for text in ["0s", "500ms", "1h30m", "1d", "2w3d", "1m1ms"] {
            assert_eq!(text.parse::<Span>().expect(text).to_string(), text);
        }
        for text in ["", "5", "m", "1m1h", "1.5h", "99999999w", "1m 1s", "5min", "1m1m"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_grid_of_negative_times_is_the_same_grid() {
        let step = Span::from_secs(10);
        assert_eq!(Timestamp(-1).floor(step), Timestamp(-10_000));
        assert_eq!(Timestamp(0).next(step), Timestamp(10_000));
        assert_eq!(Timestamp(10_000).ceil(step), Timestamp(10_000));
    }
}
