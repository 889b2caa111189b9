//! Durations in the notation of Prometheus: `5m`, `1h30m`, `1y`, `0`.

use crate::core::Span;

/// A year in Prometheus.
const YEAR: Span = Span::from_hours(24 * 365);

/// The largest number of years, because a [`Span`] is at most ten years.
const YEARS_MAX: i64 = 9;

/// Reads a duration; a year is the only unit that [`Span`] does not parse itself.
pub(super) fn duration(text: &str) -> Option<Span> {
    let Some((years, rest)) = text.split_once('y') else { return text.parse().ok() };
    let is_count = !years.is_empty() && years.bytes().all(|byte| byte.is_ascii_digit());
    let years: i64 = years.parse().ok().filter(|years| is_count && *years <= YEARS_MAX)?;
    let rest = if rest.is_empty() { Span::ZERO } else { rest.parse().ok()? };
    Some(YEAR * years + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_prometheus() {
        let cases = [
            ("5m", Some(300)),
            ("1h30m", Some(5_400)),
            ("90s", Some(90)),
            ("1d", Some(86_400)),
            ("1y", Some(365 * 86_400)),
            ("1y1d", Some(366 * 86_400)),
            ("0", Some(0)),
            ("5", None),
            ("y", None),
            ("+1y", None),
            ("30m1h", None),
            ("1.5h", None),
            ("", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(duration(text), seconds.map(Span::from_secs), "{text}");
        }
    }
}
