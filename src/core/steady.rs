//! A time of day that does not jump: for whoever counts hours on a machine whose clock may be wrong for a while.
//!
//! Intuition: the running clock says how much time has passed, the wall clock says what time it is. Where the wall
//! clock is suddenly far ahead, the running clock is believed until that has lasted; a machine that slept is ahead for
//! good. Invariant: an interval is never over before its time because of a jump that lasts less than [`LASTS`].
//! A wall clock that goes back is followed at once: whoever holds times of the future has to let go of them.
//! Rejected: the running clock alone (a machine that slept would count from before), the wall clock alone (seconds of
//! a wrong clock gave up messages as hours old).

use super::time::{Span, Timestamp};

/// Steps of a wall clock that are followed at once.
const STEP_MAX: Span = Span::from_mins(1);

/// Time that a greater step forward has to last.
const LASTS: Span = Span::from_mins(1);

/// A wall clock and a running clock, read together.
#[derive(Debug, Default)]
pub struct Steady {
    /// Both as they were read last; none before the first time.
    last: Option<(Timestamp, Span)>,
    /// Since when the wall clock is far ahead, by the running clock.
    ahead_since: Option<Span>,
}

impl Steady {
    /// The time of day, given what both clocks say; `running` never goes back.
    pub fn read(&mut self, wall: Timestamp, running: Span) -> Timestamp {
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

    /// What is read at (wall, running), all in seconds.
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
