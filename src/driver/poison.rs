//! The pace of an owner after earlier owners have died.
//!
//! Intuition: a poison record, which kills the process, would kill every owner in turn. An owner whose
//! predecessor died young commits every few records, so that the next one knows roughly where the record is.
//! If that owner dies as well, the third notes before each record which one it is about to apply. A record at
//! which three owners died is left out and reported.
//! Invariant: a record that is left out is in the commit and in the dead letters, so every worker that
//! applies the log again leaves out the same record. Rejected: leaving out the record after the last commit
//! (it may be a healthy record ahead of the poison record), and careful steps from the first death on (most
//! deaths have other reasons).

use std::time::Duration;

/// An owner that lived this long died for another reason.
const CALM_AFTER: Duration = Duration::from_secs(10);

/// Deaths at one record after which the record is left out.
pub(super) const DEATHS_MAX: u32 = 3;

/// Records between two commits of an owner that takes short steps. Noting twice as many takes a second if
/// each write goes to the disk.
const STEP_RECORDS: u32 = 100;

/// Records that are noted one by one. The steps of the owner before were shorter, so the poison record is
/// among these.
const NAMED_RECORDS: u32 = 2 * STEP_RECORDS;

/// The pace of one session.
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

    /// Whether batches are applied as they come, without short steps.
    pub(super) fn is_fast(&self) -> bool {
        self.tries <= 1
    }

    /// Whether the next record is to be noted in the store before it is applied.
    pub(super) fn names_next(&mut self) -> bool {
        if self.tries <= 2 || self.named >= NAMED_RECORDS {
            return false;
        }
        self.named += 1;
        true
    }

    /// Whether records are being noted.
    pub(super) fn is_naming(&self) -> bool {
        self.named > 0
    }

    /// Counts a record. Returns whether a commit is due.
    pub(super) fn is_step_over(&mut self) -> bool {
        self.steps += 1;
        !self.is_fast() && self.steps.is_multiple_of(STEP_RECORDS)
    }

    /// Returns whether this owner has lived long enough for the next one to be fast; true only once.
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
