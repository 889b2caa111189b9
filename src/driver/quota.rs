//! The number of partitions that this process may hold, and the number that it holds.
//!
//! Invariant: a process never takes more partitions than its limit. If the limit falls below the number that it
//! holds, it gives up exactly the surplus. If the limits of all processes add up to at least the number of
//! partitions, each partition finds an owner.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone)]
pub struct OwnershipQuota(Arc<Mutex<Places>>);

#[derive(Debug)]
struct Places {
    limit: usize,
    held: usize,
}

/// The right to hold one partition. It is free again when this value is dropped.
#[derive(Debug)]
pub struct Permit {
    share: OwnershipQuota,
    is_given_up: bool,
}

impl OwnershipQuota {
    pub fn new(limit: usize) -> OwnershipQuota {
        OwnershipQuota(Arc::new(Mutex::new(Places { limit, held: 0 })))
    }

    pub fn set_limit(&self, limit: usize) {
        self.places().limit = limit;
    }

    pub fn held(&self) -> usize {
        self.places().held
    }

    /// Takes a permit if one is free and `acquire` obtains the partition. The lock is held during `acquire`,
    /// because two partitions must not take the last permit together.
    pub fn take<T, E>(
        &self,
        acquire: impl FnOnce() -> Result<Option<T>, E>,
    ) -> Result<Option<(T, Permit)>, E> {
        let mut places = self.places();
        if places.held >= places.limit {
            return Ok(None);
        }
        let Some(taken) = acquire()? else { return Ok(None) };
        places.held += 1;
        Ok(Some((taken, Permit { share: self.clone(), is_given_up: false })))
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Returns whether this partition must be given up, because the process holds more than its limit. The permit
    /// then no longer counts as held.
    pub fn give_up_surplus(&mut self) -> bool {
        let mut places = self.share.places();
        if !self.is_given_up && places.held > places.limit {
            places.held -= 1;
            self.is_given_up = true;
        }
        self.is_given_up
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_given_up {
            self.share.places().held -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_share_is_taken_and_the_surplus_is_given_up_once() {
        let share = OwnershipQuota::new(2);
        let take = || share.take(|| Ok::<_, ()>(Some(()))).expect("no error").map(|(_, permit)| permit);
        let (mut first, mut second) = (take().expect("room"), take().expect("room"));
        assert!(take().is_none());
        share.set_limit(1);
        assert!(first.give_up_surplus() && !second.give_up_surplus() && first.give_up_surplus());
        drop(first);
        assert_eq!(share.held(), 1);
        drop(second);
        assert!(take().is_some() && share.take(|| Ok::<Option<()>, ()>(None)).expect("no error").is_none());
    }
}
