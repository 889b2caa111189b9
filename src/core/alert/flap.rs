//! Flapping: detection of keys whose condition changes all the time.
//!
//! Intuition: Nagios' rule on the log time. The states of a key at the last 21 whole minutes give 20 places
//! at which it may have changed. A key begins to flap when more than half of them are changes, and stops when
//! fewer than a quarter are.
//! Rejected: counting transitions, because `for` and cooldown hide the flapping; weights for newer changes,
//! because they give a number that an operator cannot check by hand.

use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};

const MINUTES: u32 = 21;
const PLACES: u32 = MINUTES - 1;

/// The states of one key in the last minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flaps {
    /// Bit n is set if the condition was met n minutes before `minute`.
    states: u32,
    minute: i64,
    is_met: bool,
    pub is_flapping: bool,
}

impl Flaps {
    pub(crate) fn new(at: Timestamp) -> Flaps {
        Flaps { states: 0, minute: minute(at), is_met: false, is_flapping: false }
    }

    /// Adds an observation at a grid point. Until then the previous observation held.
    pub(crate) fn observe(&mut self, is_met: bool, at: Timestamp) {
        let now = minute(at);
        // Earlier minutes are skipped, because they would be shifted out of `states`.
        self.minute = self.minute.max(now - i64::from(MINUTES));
        while self.minute < now {
            self.minute += 1;
            let is_here = self.minute == now && at.floor(Span::from_mins(1)) == at;
            let state = if is_here { is_met } else { self.is_met };
            self.states = (self.states << 1 | u32::from(state)) & ((1 << MINUTES) - 1);
            let changes = ((self.states ^ (self.states >> 1)) & ((1 << PLACES) - 1)).count_ones();
            self.is_flapping = match self.is_flapping {
                true => changes * 4 >= PLACES,
                false => changes * 2 > PLACES,
            };
        }
        self.is_met = is_met;
    }

    /// Returns whether nothing needs to be remembered any more.
    pub(crate) fn is_over(&self) -> bool {
        self.states == 0 && !self.is_met
    }
}

fn minute(at: Timestamp) -> i64 {
    at.index(Span::from_mins(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_flaps_above_a_half_until_below_a_quarter() {
        let at = |mins: i64| Timestamp::clamped(mins * 60_000);
        let mut flaps = Flaps::new(at(0));
        for mins in 1..=10 {
            flaps.observe(mins % 2 == 1, at(mins));
        }
        assert!(!flaps.is_flapping, "ten changes of twenty are not more than half");
        flaps.observe(true, at(11));
        assert!(flaps.is_flapping);
        flaps.observe(true, at(26));
        assert!(flaps.is_flapping, "five are left");
        flaps.observe(true, at(27));
        assert!(!flaps.is_flapping);
        flaps.observe(false, at(29));
        flaps.observe(false, at(60));
        assert!(flaps.is_over());
    }

    #[test]
    fn what_happens_within_a_minute_is_not_seen() {
        let mut flaps = Flaps::new(Timestamp::clamped(0));
        for secs in 1..1_200 {
            flaps.observe(secs % 60 == 30, Timestamp::clamped(secs * 1_000));
        }
        assert!(flaps.is_over());
    }
}
