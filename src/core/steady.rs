//! A steady time of day, for code that counts hours on a machine whose clock may be wrong for a while.
//!
//! Intuition: the monotonic clock measures elapsed time, the wall clock states the time of day. When the wall
//! clock is suddenly far ahead, the monotonic clock is trusted until the difference has lasted for `LASTS`. A
//! difference that lasts is real: the machine was suspended. Invariant: a jump that lasts less than `LASTS`
//! never ends an interval early. A wall clock that steps back is followed at once, so code that has stored
//! times must move those in the future back to the present.
//! Rejected: the monotonic clock alone (it does not count the time of a suspend), the wall clock alone (a
//! clock that was wrong for seconds made messages look hours old, and they became dead letters).

use crate::core::vocab::time::{Span, Timestamp};

/// Largest forward step of the wall clock that [`Steady`] accepts immediately. It accepts a larger step only after
/// the step has lasted for [`LASTS`].
const STEP_MAX: Span = Span::from_mins(1);

/// Time that a larger forward step must last.
const LASTS: Span = Span::from_mins(1);

/// A wall clock and a monotonic clock, read together.
#[derive(Debug, Default)]
pub(crate) struct Steady {
    /// Both clocks at the last reading; `None` before the first.
    last: Option<(Timestamp, Span)>,
    /// The monotonic time at which the wall clock was first found more than `STEP_MAX` ahead.
    ahead_since: Option<Span>,
}

impl Steady {
    /// The time of day, given the wall clock and the monotonic clock (`running`).
    pub(crate) fn read(&mut self, wall: Timestamp, running: Span) -> Timestamp {
        let (at, before) = self.last.unwrap_or((wall, running));
        let expected = at + (running - before);
        if wall <= expected + STEP_MAX {
            self.ahead_since = None;
        }
        let is_ahead = wall > expected + STEP_MAX;
        let since = if is_ahead { *self.ahead_since.get_or_insert(running) } else { running };
        let now = match is_ahead && running - since < LASTS {
            true => expected,
            false => {
                self.ahead_since = None;
                wall
            }
        };
        self.last = Some((now, running));
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result for each (wall, running), all in seconds.
    fn read(all: &[(i64, i64)]) -> Vec<i64> {
        let mut clock = Steady::default();
        let one = |(wall, running): &(i64, i64)| {
            clock.read(Timestamp::clamped(wall * 1_000), Span::from_secs(*running)).ms() / 1_000
        };
        all.iter().map(one).collect()
    }

    #[test]
    fn a_wall_clock_is_followed_but_for_a_jump_that_does_not_last() {
        let hours = 5 * 3_600;
        assert_eq!(
            read(&[(100, 0), (110, 10), (hours, 14), (hours + 4, 18), (120, 20)]),
            [100, 110, 114, 118, 120]
        );
        assert_eq!(
            read(&[(100, 0), (hours, 5), (hours + 59, 64), (hours + 60, 65)]),
            [100, 105, 164, hours + 60]
        );
    }

    #[test]
    fn small_steps_and_steps_back_are_followed_at_once() {
        assert_eq!(read(&[(100, 0), (150, 1), (90, 2)]), [100, 150, 90]);
        assert_eq!(read(&[(9_000, 0), (100, 1), (101, 2)]), [9_000, 100, 101]);
    }
}
