//! Jumps of a log's clock: believed when they last.
//!
//! Intuition: a log stamps its records with the clock of some machine, and such a clock may be wrong for a few
//! seconds. A stamp that is believed cannot be taken back: whatever is stamped right afterwards would be too late for
//! as long as the jump was wide. So records behind a jump wait until one is stamped 15 s later, which says that
//! time has indeed passed; if one comes with a stamp as before the jump, the clock was wrong, and they count as of
//! then. Invariant: what becomes of a record follows from the stamps of the log alone, so live, restart and replay
//! agree; records keep their order. A log that was silent for longer than the skew is a jump, too: its first 15 s
//! are judged 15 s later, at their own times, and nothing of it is lost.
//! Rejected: the machine's own clock as a witness (it is the one that may be wrong, and a replay has none).

use super::time::{Span, Timestamp};
use std::collections::VecDeque;

/// Time that a jump has to last, by its own stamps.
pub const LASTS: Span = Span::from_secs(15);

/// Records that may wait, and their bytes: with more of them, time has passed. 65,536 × about 1 KiB = 64 MiB.
const RECORDS_MAX: usize = 65_536;
const BYTES_MAX: usize = 64 << 20;

/// Records behind a jump, waiting for what comes of it.
#[derive(Debug)]
pub struct Jump<T> {
    waiting: VecDeque<(T, Timestamp)>,
    bytes: usize,
}

impl<T> Default for Jump<T> {
    fn default() -> Jump<T> {
        Jump { waiting: VecDeque::new(), bytes: 0 }
    }
}

/// Decisions about the records that wait and the one that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing waits, and the stamp is as expected.
    Fine,
    /// The record has to wait.
    Wait,
    /// The jump has lasted: those that wait count at their own times; then this one.
    Lasted,
    /// The clock was wrong: those that wait count at the time before the jump; then this one.
    Wrong,
}

impl<T> Jump<T> {
    /// Judges a stamp against the newest time of the log, `None` before its first record.
    #[inline]
    pub fn judge(&self, now: Option<Timestamp>, stamp: Timestamp, max_skew: Span) -> Verdict {
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

    /// Lets a record of so many bytes wait.
    pub fn wait(&mut self, record: T, stamp: Timestamp, bytes: usize) {
        self.waiting.push_back((record, stamp));
        self.bytes += bytes;
    }

    /// Those that wait, with their stamps, in order; none waits afterwards.
    pub fn take(&mut self) -> VecDeque<(T, Timestamp)> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// The newest one that waits.
    pub fn newest(&self) -> Option<&T> {
        self.waiting.back().map(|(record, _)| record)
    }

    /// The stamp to which the clock has jumped.
    pub fn to(&self) -> Option<Timestamp> {
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
