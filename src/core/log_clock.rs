//! Jumps of a log's clock: accepted only if they last.
//!
//! Intuition: a machine's clock stamps the records of a log, and this clock may be wrong for a few seconds.
//! Log time never goes back. If a stamp two hours ahead were accepted, all records of the next two hours would
//! be too late. So the records after a forward jump wait. A record stamped at least 15 s after the first
//! waiting record confirms the jump, and the waiting records get their own times. A record stamped as if
//! before the jump shows that the clock was wrong, and the waiting records get the time before the jump.
//! Invariant: the decision about a record follows from the stamps of the log alone, so live processing,
//! restart and replay agree; records keep their order. A log that was silent for longer than `max_skew` also
//! shows a jump: the records of its first 15 s are judged 15 s later, at their own times, and none is lost.
//! Rejected: the machine's own clock as a witness (it may be the wrong one, and a replay has none).

use crate::core::vocab::time::{Span, Timestamp};
use std::collections::VecDeque;

/// Time that a jump must last before it is accepted, measured between the stamps after the jump.
pub(crate) const LASTS: Span = Span::from_secs(15);

/// Maximum number of waiting records, and of their bytes. At either bound the jump is accepted, so that memory
/// stays bounded: 65,536 × about 1 KiB = 64 MiB.
const RECORDS_MAX: usize = 65_536;
const BYTES_MAX: usize = 64 << 20;

/// The records after a jump, which wait for the decision about the jump.
#[derive(Debug)]
pub(crate) struct Jump<T> {
    waiting: VecDeque<(T, Timestamp)>,
    bytes: usize,
}

impl<T> Default for Jump<T> {
    fn default() -> Jump<T> {
        Jump { waiting: VecDeque::new(), bytes: 0 }
    }
}

/// The decision about the waiting records and the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No record waits, and the stamp is as expected.
    Fine,
    /// The record has to wait.
    Wait,
    /// The jump has lasted. The waiting records are processed at their own times, then this one.
    Lasted,
    /// The clock was wrong. The waiting records are processed at the time before the jump, then this one.
    Wrong,
}

impl<T> Jump<T> {
    /// Judges a stamp against the newest log time, which is `None` before the first record.
    #[inline]
    pub(crate) fn judge(&self, now: Option<Timestamp>, stamp: Timestamp, max_skew: Span) -> Verdict {
        let is_ahead = now.is_some_and(|now| stamp > now + max_skew);
        match (is_ahead, self.waiting.front()) {
            (false, None) => Verdict::Fine,
            (false, Some(_)) => Verdict::Wrong,
            (true, None) => Verdict::Wait,
            (true, Some((_, first))) => {
                let has_lasted =
                    stamp >= *first + LASTS || self.waiting.len() >= RECORDS_MAX || self.bytes >= BYTES_MAX;
                if has_lasted { Verdict::Lasted } else { Verdict::Wait }
            }
        }
    }

    /// Adds a waiting record of this many bytes.
    pub(crate) fn wait(&mut self, record: T, stamp: Timestamp, bytes: usize) {
        self.waiting.push_back((record, stamp));
        self.bytes += bytes;
    }

    /// Removes the waiting records and returns them with their stamps, in order.
    pub(crate) fn take(&mut self) -> VecDeque<(T, Timestamp)> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// The newest waiting record.
    pub(crate) fn newest(&self) -> Option<&T> {
        self.waiting.back().map(|(record, _)| record)
    }

    /// The stamp to which the clock has jumped.
    pub(crate) fn to(&self) -> Option<Timestamp> {
        self.waiting.front().map(|(_, stamp)| *stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Span = Span::from_mins(5);

    /// The effective time of each record, in seconds.
    fn effective(stamps: &[i64]) -> Vec<i64> {
        let (mut jump, mut now, mut out) = (Jump::default(), None::<Timestamp>, Vec::new());
        let mut take = |now: &mut Option<Timestamp>, stamp: Timestamp| {
            *now = Some(now.map_or(stamp, |now| now.max(stamp)));
            out.push(now.map_or(0, Timestamp::ms) / 1_000);
        };
        for secs in stamps {
            let stamp = Timestamp::clamped(secs * 1_000);
            let verdict = jump.judge(now, stamp, SKEW);
            if verdict == Verdict::Wait {
                jump.wait((), stamp, 1);
                continue;
            }
            for (_, waiting) in jump.take() {
                let at = if verdict == Verdict::Wrong { now.unwrap_or(waiting) } else { waiting };
                take(&mut now, at);
            }
            take(&mut now, stamp);
        }
        for (_, waiting) in jump.take() {
            take(&mut now, waiting);
        }
        out
    }

    #[test]
    fn a_clock_that_is_wrong_for_seconds_moves_nothing() {
        let hours = 2 * 3_600;
        assert_eq!(effective(&[0, 1, hours, hours + 2, 4, 5]), [0, 1, 1, 1, 4, 5]);
        let days = 400 * 86_400;
        assert_eq!(effective(&[0, days, 3]), [0, 0, 3]);
    }

    #[test]
    fn a_jump_that_lasts_is_believed_from_its_beginning() {
        assert_eq!(effective(&[0, 1_000, 1_030, 1_060, 1_061]), [0, 1_000, 1_030, 1_060, 1_061]);
        assert_eq!(effective(&[0, 1_000]), [0, 1_000], "nothing contradicts it");
        assert_eq!(effective(&[1_000, 5, 1_001]), [1_000, 1_000, 1_001], "the first record is believed");
    }

    #[test]
    fn many_records_say_that_time_has_passed() {
        let mut jump = Jump::default();
        let (now, stamp) = (Some(Timestamp::clamped(0)), Timestamp::clamped(3_600_000));
        jump.wait((), stamp, BYTES_MAX);
        assert_eq!(jump.judge(now, stamp, SKEW), Verdict::Lasted);
    }
}
