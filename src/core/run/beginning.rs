//! When a run began, and whether that is certain.
//!
//! Intuition: a run begins with its first event, but an event may be missing: refused, lost with a part of
//! the log, or still on its way. So what the run itself says of its beginning, what its stages say, and what
//! shows that something came before are kept apart.
//! Invariant: a beginning is certain only if nothing known of the run is earlier; a duration that would be
//! too short is none. Rejected: the earliest event, whatever it is: a run of which only the end is known
//! would have lasted no time at all.

use super::super::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What is known of when a run began.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Beginning {
    /// Time of its earliest stage or run event; MAX before the first.
    pub first: Timestamp,
    /// The earliest time at which the run itself says that it was queued or started.
    stated: Option<Timestamp>,
    /// The earliest event of a stage before which there need not have been another one.
    begun: Option<Timestamp>,
    /// The earliest event that was refused: the run was there already.
    refused: Option<Timestamp>,
    /// Its first event may be missing: records were lost shortly before it was seen, or its end came first.
    is_doubtful: bool,
}

impl Default for Beginning {
    fn default() -> Beginning {
        Beginning { first: Timestamp::MAX, stated: None, begun: None, refused: None, is_doubtful: false }
    }
}

impl Beginning {
    /// Something of the run happened then.
    pub fn note(&mut self, time: Timestamp) {
        self.first = self.first.min(time);
    }

    /// The run itself says that it was queued or started then.
    pub fn state(&mut self, time: Timestamp) {
        self.note(time);
        self.stated = earliest(self.stated, time);
    }

    /// A stage was queued, started or skipped then; `is_first`: the first of those that were declared.
    pub fn open(&mut self, time: Timestamp, is_first: bool) {
        self.note(time);
        self.begun = earliest(self.begun, time);
        self.is_doubtful &= !is_first;
    }

    /// An event of this time was refused.
    pub fn refuse(&mut self, time: Timestamp) {
        self.refused = earliest(self.refused, time);
    }

    /// Its first event may be among records that were lost.
    pub fn doubt(&mut self) {
        self.is_doubtful |= self.first == Timestamp::MAX;
    }

    /// From here on only what is surely the first event says when it began.
    pub fn distrust(&mut self) {
        self.is_doubtful = true;
    }

    /// When it began, if that is certain. `needs_stated`: runs of its pipeline say it themselves.
    pub fn certain(&self, needs_stated: bool) -> Option<Timestamp> {
        let start = match (self.stated, self.begun) {
            (Some(stated), begun) => begun.map_or(stated, |begun| begun.min(stated)),
            (None, _) if needs_stated || self.is_doubtful => return None,
            (None, begun) => begun?,
        };
        let is_first = start <= self.first && self.refused.is_none_or(|refused| start <= refused);
        is_first.then_some(start)
    }
}

fn earliest(known: Option<Timestamp>, time: Timestamp) -> Option<Timestamp> {
    Some(known.map_or(time, |known| known.min(time)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::*;

    #[test]
    fn a_beginning_is_certain_only_if_nothing_is_before_it() {
        let mut beginning = Beginning::default();
        beginning.note(at(30));
        assert_eq!(beginning.certain(false), None, "an end is no beginning");
        beginning.open(at(10), false);
        assert_eq!((beginning.certain(false), beginning.certain(true)), (Some(at(10)), None));
        beginning.refuse(at(20));
        assert_eq!(beginning.certain(false), Some(at(10)), "a later event was refused");
        beginning.refuse(at(5));
        assert_eq!(beginning.certain(false), None);
        beginning.state(at(0));
        assert_eq!(beginning.certain(true), Some(at(0)));
        beginning.note(at(-1));
        assert_eq!(beginning.certain(true), None, "something came before");
    }

    #[test]
    fn after_a_loss_the_beginning_must_be_said() {
        let lost = || {
            let mut beginning = Beginning::default();
            beginning.doubt();
            beginning
        };
        let mut beginning = lost();
        beginning.open(at(10), false);
        assert_eq!(beginning.certain(false), None);
        beginning.open(at(8), true);
        assert_eq!(beginning.certain(false), Some(at(8)), "nothing is before the first stage");
        let mut beginning = lost();
        beginning.state(at(3));
        assert_eq!(beginning.certain(false), Some(at(3)));
        beginning.doubt();
        assert_eq!(beginning.certain(false), Some(at(3)), "it was known before");
    }
}
