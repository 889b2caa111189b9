//! Rate limit of a receiver: an hourly and a daily token bucket.
//!
//! Formula: a bucket of n tokens refills evenly by n per period; a message takes one token of each bucket.
//! Cost: O(1).
//! Rejected: counting within clock hours (twice the limit can pass around each full hour).

use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

/// The token bucket of one period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tokens {
    most: f64,
    period: Span,
    left: f64,
    at: Timestamp,
}

/// All limits of a receiver; without a bucket there is no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bucket(Vec<Tokens>);

impl Bucket {
    /// Returns full buckets.
    pub(crate) fn new(per_hour: Option<u32>, per_day: Option<u32>, now: Timestamp) -> Bucket {
        let limits = [(per_hour, Span::from_hours(1)), (per_day, Span::from_hours(24))];
        let full = |(most, period): (Option<u32>, Span)| {
            most.map(|most| Tokens { most: f64::from(most), period, left: f64::from(most), at: now })
        };
        Bucket(limits.into_iter().filter_map(full).collect())
    }

    /// Carries over the tokens left under the previous limits.
    pub(crate) fn after(self, before: &Bucket) -> Bucket {
        let left = |tokens: Tokens| match before.0.iter().find(|known| known.period == tokens.period) {
            Some(known) => Tokens { left: known.left.min(tokens.most), at: known.at, ..tokens },
            None => tokens,
        };
        Bucket(self.0.into_iter().map(left).collect())
    }

    /// Returns when the next message may be sent; `now` or earlier means at once.
    pub(crate) fn next(&self, now: Timestamp) -> Timestamp {
        self.0.iter().map(|tokens| tokens.next(now)).max().unwrap_or(now)
    }

    /// Adapts to a clock that was set back: refill times that now lie in the future are set to `now`.
    /// Otherwise no token would be added until the clock reaches them.
    pub(crate) fn bound_times(&mut self, now: Timestamp) {
        self.0.iter_mut().for_each(|tokens| tokens.at = tokens.at.min(now));
    }

    /// Returns how many messages may be sent now.
    pub(crate) fn left(&self, now: Timestamp) -> f64 {
        self.0.iter().map(|tokens| tokens.filled(now)).fold(f64::INFINITY, f64::min)
    }

    /// Takes a token from each bucket.
    pub(crate) fn take(&mut self, now: Timestamp) {
        for tokens in &mut self.0 {
            tokens.left = (tokens.filled(now) - 1.0).max(0.0);
            tokens.at = now;
        }
    }
}

impl Tokens {
    fn filled(&self, now: Timestamp) -> f64 {
        let share = (now - self.at).ms().max(0) as f64 / self.period.ms() as f64;
        (self.left + self.most * share).min(self.most)
    }

    fn next(&self, now: Timestamp) -> Timestamp {
        let missing = 1.0 - self.filled(now);
        if missing <= 0.0 {
            return now;
        }
        now + Span::from_ms((missing / self.most * self.period.ms() as f64).ceil() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_an_hour_and_no_more() {
        let start = Timestamp::clamped(0);
        let mut bucket = Bucket::new(Some(4), Some(6), start);
        for _ in 0..4 {
            assert_eq!(bucket.next(start), start);
            bucket.take(start);
        }
        let next = bucket.next(start);
        assert_eq!(next, start + Span::from_mins(15));
        bucket.take(next);
        // After six messages the daily limit applies: a sixth of a day, less what was refilled meanwhile.
        bucket.take(next + Span::from_mins(15));
        assert!(bucket.next(next + Span::from_mins(15)) > start + Span::from_hours(3));
        assert_eq!(Bucket::new(None, None, start).next(start), start);
    }

    #[test]
    fn a_new_limit_does_not_fill_the_bucket() {
        let start = Timestamp::clamped(0);
        let mut bucket = Bucket::new(Some(2), None, start);
        bucket.take(start);
        bucket.take(start);
        let again = Bucket::new(Some(60), None, start).after(&bucket);
        assert_eq!(again.next(start), start + Span::from_mins(1));
    }
}
