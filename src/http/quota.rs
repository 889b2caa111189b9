//! The quota of values that one source may send in a second.
//!
//! Intuition: each source has a token bucket that holds two seconds' worth of values and fills at the
//! configured rate. A request is accepted or refused as a whole. A refusal states when the source has room
//! again, so the sender can keep the request and retry it without loss.
//! Invariant: the table is bounded. When it is full, sources with full buckets are removed. A new source that still
//! finds no room in the table is not limited.
//! Rejected: a limit in the engine (an event in the log is already acknowledged, so refusing it there would
//! lose it).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Maximum number of sources with a bucket: 10,000 × about 400 B with a long name = 4 MB.
const SOURCES_MAX: usize = 10_000;

/// Capacity of a bucket, in seconds at the configured rate. With two seconds, a source that sends once a second is
/// not refused because of jitter.
const BURST_SECS: f64 = 2.0;

/// The token bucket of one source. `room` is the number of values that the source may send at the time `at`; it is
/// negative while the source is in debt.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    room: f64,
    at: Instant,
}

/// The source that exceeded its quota, and the wait until it has room again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    pub source: Arc<str>,
    pub wait: Duration,
}

#[derive(Debug, Default)]
pub struct Quota {
    /// Values per second and source; `None` means no limit.
    per_sec: Option<u32>,
    buckets: Mutex<HashMap<Arc<str>, Bucket>>,
}

impl Quota {
    pub fn new(per_sec: Option<u32>) -> Quota {
        Quota { per_sec, ..Quota::default() }
    }

    /// Returns whether a quota is configured.
    pub fn is_limited(&self) -> bool {
        self.per_sec.is_some()
    }

    /// Takes the values of one request from the bucket of each source. If one source has no room, nothing is
    /// taken.
    ///
    /// A request may have more values than a bucket holds. It passes if the bucket is full, and the bucket's
    /// debt delays later requests.
    pub fn take(&self, values: &HashMap<Arc<str>, u64>, now: Instant) -> Result<(), Exceeded> {
        let Some(per_sec) = self.per_sec.map(f64::from) else { return Ok(()) };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        for (source, values) in values {
            let room = buckets.get(source).map_or(BURST_SECS * per_sec, |bucket| bucket.now(now, per_sec));
            let needed = (*values as f64).min(BURST_SECS * per_sec);
            if room < needed {
                let wait = Duration::from_secs_f64((needed - room) / per_sec);
                return Err(Exceeded { source: source.clone(), wait });
            }
        }
        if buckets.len() + values.len() > SOURCES_MAX {
            buckets.retain(|_, bucket| bucket.now(now, per_sec) < BURST_SECS * per_sec);
        }
        for (source, values) in values {
            let room = buckets.get(source).map_or(BURST_SECS * per_sec, |bucket| bucket.now(now, per_sec));
            let bucket = Bucket { room: room - *values as f64, at: now };
            if buckets.len() < SOURCES_MAX || buckets.contains_key(source) {
                buckets.insert(source.clone(), bucket);
            }
        }
        Ok(())
    }
}

impl Bucket {
    fn now(self, now: Instant, per_sec: f64) -> f64 {
        let filled = now.saturating_duration_since(self.at).as_secs_f64() * per_sec;
        (self.room + filled).min(BURST_SECS * per_sec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: &str, values: u64) -> HashMap<Arc<str>, u64> {
        HashMap::from([(Arc::from(source), values)])
    }

    #[test]
    fn a_source_that_sends_too_much_waits_and_another_does_not() {
        let (quota, now) = (Quota::new(Some(100)), Instant::now());
        assert_eq!(quota.take(&of("a", 200), now), Ok(()), "two seconds at once");
        let exceeded = quota.take(&of("a", 50), now).expect_err("it has no room");
        assert_eq!(exceeded, Exceeded { source: "a".into(), wait: Duration::from_millis(500) });
        assert_eq!(quota.take(&of("b", 50), now), Ok(()), "b has its own");
        assert_eq!(quota.take(&of("a", 50), now + Duration::from_millis(500)), Ok(()));
    }

    #[test]
    fn a_large_request_passes_once_and_is_paid_off() {
        let (quota, now) = (Quota::new(Some(100)), Instant::now());
        assert_eq!(quota.take(&of("a", 1_000), now), Ok(()));
        let wait = quota.take(&of("a", 1), now).expect_err("it has no room").wait;
        assert!(wait > Duration::from_secs(8), "{wait:?}");
    }

    #[test]
    fn the_table_is_bounded_and_no_quota_limits_nothing() {
        let (quota, now) = (Quota::new(Some(1)), Instant::now());
        for n in 0..2 * SOURCES_MAX {
            quota.take(&of(&n.to_string(), 2), now).expect("room");
        }
        assert!(quota.buckets.lock().expect("no panic").len() <= SOURCES_MAX);
        assert_eq!(Quota::default().take(&of("a", u64::MAX), now), Ok(()));
    }
}
