//! Retry of messages: exponential backoff with jitter and a circuit breaker.
//!
//! Formula: 1 s, doubled each time up to five minutes, times a pseudo-random factor of 0.5 to 1; a longer
//! `Retry-After` takes precedence. From [`OPEN_AFTER`] failures in a row the circuit is open. During a backoff no
//! other message is tried, so one message tests the receiver for all.

use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Backoff after the first failure, and the longest one.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// The longest `Retry-After` that is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// Failures in a row that open the circuit.
pub(super) const OPEN_AFTER: u32 = 5;

/// The failures since the last success.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempts {
    pub failed: u32,
}

impl Attempts {
    /// Counts a failure; returns how long to wait.
    pub fn fail(&mut self, name: &str, after: Option<Duration>) -> Duration {
        self.failed = self.failed.saturating_add(1);
        let doubled = FIRST.saturating_mul(1 << (self.failed - 1).min(16)).min(LONGEST);
        // Jitter from the receiver's name and the attempt, so that receivers do not retry at the same time.
        let chance = xxh3_64_with_seed(name.as_bytes(), u64::from(self.failed)) as f64 / u64::MAX as f64;
        let wait = doubled.mul_f64(0.5 + chance / 2.0);
        after.map_or(wait, |after| wait.max(after.min(RETRY_AFTER_MAX)))
    }

    /// Returns whether the circuit is open.
    pub fn is_open(&self) -> bool {
        self.failed >= OPEN_AFTER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_longer_each_time_and_as_long_as_it_is_told() {
        let mut attempts = Attempts::default();
        let waits: Vec<Duration> = (0..12).map(|_| attempts.fail("ops", None)).collect();
        for (at, wait) in waits.iter().enumerate() {
            let full = Duration::from_secs(1 << at).min(LONGEST);
            assert!(*wait >= full / 2 && *wait <= full, "{at}: {wait:?}");
        }
        assert!(attempts.is_open());
        let mut other = Attempts::default();
        assert_ne!(other.fail("dev", None), waits[0]);
        assert_eq!(other.fail("dev", Some(Duration::from_secs(30))), Duration::from_secs(30));
        assert_eq!(other.fail("dev", Some(Duration::from_secs(86_400))), RETRY_AFTER_MAX);
    }
}
