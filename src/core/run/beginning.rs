//! The beginning of a run, and whether it is certain.
//!
//! Intuition: a run begins with its first event, but that event may be missing: refused, lost with a part of
//! the log, or still on its way. The start that the run itself states, the starts of its stages, and the
//! evidence of something earlier are therefore kept apart.
//! Invariant: a beginning is certain only if nothing known of the run is earlier, so no duration is derived
//! that is too short. Rejected: taking the earliest event, whatever its status, because a run of which only
//! the end is known would then have a duration of zero.

use crate::core::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What is known about the beginning of a run, or of a run's stay in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Beginning {
    /// Time of the earliest stage or run event; MAX before the first.
    pub first: Timestamp,
    /// The earliest time at which a run event states that the run was queued or started.
    stated: Option<Timestamp>,
    /// The earliest time at which a stage was queued, started or skipped. Unlike progress or an end, such an
    /// event does not imply an earlier one.
    begun: Option<Timestamp>,
    /// The time of the earliest refused event; the run existed by then.
    refused: Option<Timestamp>,
    /// Whether the first event may be missing: records were lost shortly before the run was first seen, or
    /// its end arrived before its beginning was certain.
    is_doubtful: bool,
}

impl Default for Beginning {
    fn default() -> Beginning {
        Beginning { first: Timestamp::MAX, stated: None, begun: None, refused: None, is_doubtful: false }
    }
}

impl Beginning {
    /// Restores a beginning from its times; nothing was refused and nothing is doubtful.
    pub(super) fn restored(
        first: Timestamp,
        stated: Option<Timestamp>,
        begun: Option<Timestamp>,
    ) -> Beginning {
        Beginning { first, stated, begun, ..Beginning::default() }
    }

    /// Records that the run had an event at this time.
    pub(super) fn note(&mut self, time: Timestamp) {
        self.first = self.first.min(time);
    }

    /// Records that a run event states that the run was queued or started at this time.
    pub(super) fn state(&mut self, time: Timestamp) {
        self.note(time);
        self.stated = earliest(self.stated, time);
    }

    /// Records that a stage was queued, started or skipped at this time. `is_first`: the stage is the first
    /// declared one, so nothing precedes it.
    pub(super) fn open(&mut self, time: Timestamp, is_first: bool) {
        self.note(time);
        self.begun = earliest(self.begun, time);
        self.is_doubtful &= !is_first;
    }

    /// Records that an event of this time was refused.
    pub(super) fn refuse(&mut self, time: Timestamp) {
        self.refused = earliest(self.refused, time);
    }

    /// Marks the beginning as doubtful if no event is known yet: the first one may be among lost records.
    pub(super) fn doubt(&mut self) {
        self.is_doubtful |= self.first == Timestamp::MAX;
    }

    /// Marks the beginning as doubtful. From here on only a stated start or the first declared stage makes it
    /// certain.
    pub(super) fn distrust(&mut self) {
        self.is_doubtful = true;
    }

    /// Returns the beginning if it is certain. `needs_stated`: run events of this pipeline state the start,
    /// so stage events alone do not suffice.
    pub(super) fn certain(&self, needs_stated: bool) -> Option<Timestamp> {
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
