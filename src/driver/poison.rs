//! Slows down an owner after earlier owners have died, in order to find a poison record.
//!
//! Intuition: a poison record crashes the process that applies it, so it would crash every owner in turn. If the
//! previous owner died early, the next owner commits every `STEP_RECORDS` records, so that the position of the poison
//! record is roughly known. If that owner dies as well, the third one stores the number of each record before it
//! applies the record. A record at which three owners died is skipped and reported.
//! Invariant: the commit and the dead letters contain each skipped record, so every worker that applies the log again
//! skips the same records. Rejected: skipping the record after the last commit (it may be a healthy record ahead of
//! the poison record), and storing each number from the first death on (most deaths have other reasons).

use std::time::Duration;

/// Lifetime after which the death of an owner is not attributed to a poison record.
const CALM_AFTER: Duration = Duration::from_secs(10);

/// Number of owners that died at a record after which the record is skipped.
pub(super) const DEATHS_MAX: u32 = 3;

/// Records between two commits of an owner whose predecessor died early. A later owner stores the numbers of twice as
/// many records one by one, which takes a second if each write goes to the disk.
const STEP_RECORDS: u32 = 100;

/// Records whose numbers are stored one by one before they are applied. The previous owner committed every
/// `STEP_RECORDS` records, so the poison record is among these.
const NAMED_RECORDS: u32 = 2 * STEP_RECORDS;

/// The pace of one session: how often it commits, and whether it stores the number of each record.
#[derive(Debug)]
pub(super) struct PoisonGuard {
    /// Consecutive take-overs of owners that did not live long, this one included.
    tries: u32,
    named: u32,
    steps: u32,
    begun: Duration,
}

impl PoisonGuard {
    pub(super) fn new(tries: u32, begun: Duration) -> PoisonGuard {
        if tries > 1 {
            tracing::warn!(
                tries,
                "the previous owners died or lost the lease early; this worker commits every few records"
            );
        }
        PoisonGuard { tries, named: 0, steps: 0, begun }
    }

    /// Whether batches are applied without extra commits in between.
    pub(super) fn is_fast(&self) -> bool {
        self.tries <= 1
    }

    /// Returns whether the number of the next record is to be stored before the record is applied.
    pub(super) fn names_next(&mut self) -> bool {
        if self.tries <= 2 || self.named >= NAMED_RECORDS {
            return false;
        }
        self.named += 1;
        true
    }

    /// Whether this owner stores the numbers of records before it applies them.
    pub(super) fn is_naming(&self) -> bool {
        self.named > 0
    }

    /// Counts a record. Returns whether a commit is due.
    pub(super) fn is_step_over(&mut self) -> bool {
        self.steps += 1;
        !self.is_fast() && self.steps.is_multiple_of(STEP_RECORDS)
    }

    /// Returns true once, when this owner has lived for `CALM_AFTER`. It then continues at full speed, and its death
    /// would not slow down the next owner.
    pub(super) fn is_calm(&mut self, now: Duration) -> bool {
        let is_calm = self.tries > 0 && now.saturating_sub(self.begun) >= CALM_AFTER;
        if is_calm {
            *self = PoisonGuard { tries: 0, named: 0, ..*self };
        }
        is_calm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_owner_in_a_row_names_records_until_it_has_lived_for_a_while() {
        assert!(PoisonGuard::new(1, Duration::ZERO).is_fast());
        let mut second = PoisonGuard::new(2, Duration::ZERO);
        assert!(!second.is_fast() && !second.names_next());
        assert_eq!((0..250).filter(|_| second.is_step_over()).count(), 2);
        let mut third = PoisonGuard::new(3, Duration::ZERO);
        assert_eq!((0..5_000).filter(|_| third.names_next()).count(), 200);
        assert!(!third.is_calm(Duration::from_secs(9)) && third.is_calm(Duration::from_secs(10)));
        assert!(third.is_fast() && !third.names_next() && !third.is_calm(Duration::from_secs(99)));
    }
}
