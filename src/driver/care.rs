//! How fast an owner dares to go, after others before it died.
//!
//! Intuition: a record that kills the process would kill every owner in turn. An owner whose
//! predecessor died young commits every few records, so that the next one knows about where; if that
//! one dies, too, the third says before each record which one it is about to apply. Who dies three
//! times at the same record leaves it out, and everybody is told.
//! Invariant: what is left out is in the commit and in the dead letters, so whoever applies the log again
//! leaves out the same. Rejected: leaving out the record after the last commit (it may be the one before
//! the bad one's batch), and careful steps from the first death on (most deaths have other reasons).

use std::time::Duration;

/// An owner that lived for so long died of something else.
const CALM_AFTER: Duration = Duration::from_secs(10);

/// Deaths at one record after which it is left out.
pub(super) const DEATHS_MAX: u32 = 3;

/// Records between two commits of an owner that takes short steps; naming twice as many takes a second
/// where each write goes to the disk.
const STEP_RECORDS: u32 = 100;

/// Records named one by one: the steps before were shorter.
const NAMED_RECORDS: u32 = 2 * STEP_RECORDS;

/// The pace of one term.
#[derive(Debug)]
pub(super) struct Care {
    /// Take-overs in a row after which the owner died young, this one included.
    tries: u32,
    named: u32,
    steps: u32,
    begun: Duration,
}

impl Care {
    pub(super) fn new(tries: u32, begun: Duration) -> Care {
        if tries > 1 {
            tracing::warn!(
                tries,
                "the last owners did not keep the partition for long: they died, or lost the lease; going on in short steps"
            );
        }
        Care { tries, named: 0, steps: 0, begun }
    }

    /// Whether batches are applied as they come.
    pub(super) fn is_fast(&self) -> bool {
        self.tries <= 1
    }

    /// Whether the next record is to be named before it is applied.
    pub(super) fn names_next(&mut self) -> bool {
        if self.tries <= 2 || self.named >= NAMED_RECORDS {
            return false;
        }
        self.named += 1;
        true
    }

    /// Whether records are being named.
    pub(super) fn is_naming(&self) -> bool {
        self.named > 0
    }

    /// Counts a record; whether it is time for a commit.
    pub(super) fn is_step_over(&mut self) -> bool {
        self.steps += 1;
        !self.is_fast() && self.steps.is_multiple_of(STEP_RECORDS)
    }

    /// Whether this owner has lived long enough for the next one to be unworried; says so once.
    pub(super) fn is_calm(&mut self, now: Duration) -> bool {
        let is_calm = self.tries > 0 && now.saturating_sub(self.begun) >= CALM_AFTER;
        if is_calm {
            *self = Care { tries: 0, named: 0, ..*self };
        }
        is_calm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_owner_in_a_row_names_records_until_it_has_lived_for_a_while() {
        assert!(Care::new(1, Duration::ZERO).is_fast());
        let mut second = Care::new(2, Duration::ZERO);
        assert!(!second.is_fast() && !second.names_next());
        assert_eq!((0..250).filter(|_| second.is_step_over()).count(), 2);
        let mut third = Care::new(3, Duration::ZERO);
        assert_eq!((0..5_000).filter(|_| third.names_next()).count(), 200);
        assert!(!third.is_calm(Duration::from_secs(9)) && third.is_calm(Duration::from_secs(10)));
        assert!(third.is_fast() && !third.names_next() && !third.is_calm(Duration::from_secs(99)));
    }
}
