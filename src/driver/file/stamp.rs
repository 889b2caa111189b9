//! Ingest times for the lines of a plain file.
//!
//! Intuition: no broker has stamped the lines of a file, so its clock is the largest event time so far. One
//! absurd time must not advance that clock: a line that jumps far ahead is accepted only if the next line
//! confirms it.
//! Invariant: stamps never go back; of the lines without an ingest time, at most one is held back, waiting
//! for the next. Lines of an exported log wait behind a jump as in a live log, bounded by [`Jump`].

use crate::core::log_clock::{Jump, Verdict};
use crate::core::vocab::limits::Limits;
use crate::core::{Span, Timestamp};
use crate::wire::ndjson::{Content, Line};

/// Assigns ingest times to lines.
#[derive(Debug)]
pub(crate) struct Stamper {
    max_skew: Span,
    max_lateness: Span,
    largest: Option<Timestamp>,
    held: Option<(Line, Timestamp)>, // an unconfirmed jump, with its largest event time
    jump: Jump<Line>,                // of lines that have an ingest time
}

/// A line with its stamp.
#[derive(Debug)]
pub(crate) struct Stamped {
    pub line: Line,
    pub stamp: Timestamp,
    /// Values later than this are refused as `future`, even if the stamp would allow them.
    pub limit: Option<Timestamp>,
}

impl Stamper {
    pub(crate) fn new(limits: &Limits) -> Stamper {
        let (max_skew, max_lateness) = (limits.max_skew, limits.max_lateness);
        Stamper { max_skew, max_lateness, largest: None, held: None, jump: Jump::default() }
    }

    /// Returns the stamp of a line that needs no check: one event, not too far ahead of the clock, while no
    /// line waits.
    #[inline]
    pub(crate) fn plain(&mut self, line: &Line) -> Option<Timestamp> {
        let (Content::One(event), None, None, None, Some(largest)) =
            (&line.content, line.ingest_time, &self.held, self.jump.to(), self.largest)
        else {
            return None;
        };
        let time = event.time_max().filter(|time| *time <= largest + self.max_skew)?;
        let stamp = largest.max(time);
        self.largest = Some(stamp);
        Some(stamp)
    }

    /// Takes the next line; passes the lines that can be stamped now to `out`.
    pub(crate) fn push(&mut self, line: Line, out: &mut impl FnMut(Stamped)) {
        match self.plain(&line) {
            Some(stamp) => out(Stamped { line, stamp, limit: None }),
            None => self.push_uncommon(line, out),
        }
    }

    /// Passes on the lines that were held back, because no line follows that could contradict them.
    pub(crate) fn finish(&mut self, out: &mut impl FnMut(Stamped)) {
        self.settle(Verdict::Lasted, out);
        if let Some((line, time)) = self.held.take() {
            self.believe(line, time, out);
        }
    }

    /// Stamps a line of an exported log, whose clock is guarded in the same way as that of a live log.
    fn logged(&mut self, line: Line, stamp: Timestamp, out: &mut impl FnMut(Stamped)) {
        if let Some((line, time)) = self.held.take() {
            self.believe(line, time, out);
        }
        let verdict = self.jump.judge(self.largest, stamp, self.max_skew);
        if verdict == Verdict::Wait {
            return self.jump.wait(line, stamp, 0);
        }
        self.settle(verdict, out);
        self.believe(line, stamp, out);
    }

    /// Passes on the lines that wait behind a jump, stamped according to the verdict on the jump.
    fn settle(&mut self, verdict: Verdict, out: &mut impl FnMut(Stamped)) {
        for (line, stamp) in self.jump.take() {
            let stamp = if verdict == Verdict::Wrong { self.largest.unwrap_or(stamp) } else { stamp };
            self.believe(line, stamp, out);
        }
    }

    fn push_uncommon(&mut self, line: Line, out: &mut impl FnMut(Stamped)) {
        if let Some(stamp) = line.ingest_time {
            return self.logged(line, stamp, out);
        }
        self.settle(Verdict::Lasted, out);
        let Some(time) = line.content.time_max() else {
            // The line contains no time, so it takes the current clock.
            let stamp = self.largest.or(self.held.as_ref().map(|(_, time)| *time));
            return out(Stamped { line, stamp: stamp.unwrap_or(Timestamp::MIN), limit: None });
        };
        if let Some((held, held_time)) = self.held.take() {
            if self.is_confirmed(held_time, time) {
                self.believe(held, held_time, out);
            } else {
                self.doubt(held, time, out);
            }
        }
        match self.largest {
            Some(largest) if time <= largest + self.max_skew => self.believe(line, time, out),
            _ => self.held = Some((line, time)),
        }
    }

    /// Returns whether the line after a jump confirms the jump.
    fn is_confirmed(&self, held: Timestamp, next: Timestamp) -> bool {
        match self.largest {
            Some(largest) => next > largest + self.max_skew,
            // There is no earlier line to compare with. The first line counts as unconfirmed if the next one is more
            // than `max_lateness` older.
            None => next + self.max_lateness >= held,
        }
    }

    fn believe(&mut self, line: Line, time: Timestamp, out: &mut impl FnMut(Stamped)) {
        let stamp = self.largest.map_or(time, |largest| largest.max(time));
        self.largest = Some(stamp);
        out(Stamped { line, stamp, limit: None });
    }

    /// Handles a jump that the next line does not confirm: values more than `max_skew` ahead of the clock are
    /// refused, the others are accepted.
    fn doubt(&mut self, line: Line, next: Timestamp, out: &mut impl FnMut(Stamped)) {
        let largest = self.largest.unwrap_or(next);
        let limit = largest + self.max_skew;
        let within = time_max_within(&line, limit).unwrap_or(largest);
        let stamp = largest.max(within);
        self.largest = Some(stamp);
        out(Stamped { line, stamp, limit: Some(limit) });
    }
}

/// Returns the largest event time of a line that is not past `limit`.
fn time_max_within(line: &Line, limit: Timestamp) -> Option<Timestamp> {
    line.content.events().iter().filter_map(|event| event.time_max_within(limit)).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::{Event, Observation};
    use crate::core::vocab::identity::SeriesRef;

    fn stamps(secs: &[i64]) -> Vec<(i64, i64, bool)> {
        let mut stamper = Stamper::new(&Limits::default());
        let mut stamped = Vec::new();
        let mut out = |s: Stamped| {
            let Content::One(event) = &s.line.content else { return };
            let time = event.time_max().map_or(0, Timestamp::ms) / 1_000;
            let is_refused = s.limit.is_some_and(|limit| limit.ms() / 1_000 < time);
            stamped.push((time, s.stamp.ms() / 1_000, is_refused));
        };
        for secs in secs {
            let time = Timestamp::clamped(secs * 1_000);
            let event = Event::Metric(Observation { who: SeriesRef::new(0, 0), time, value: 1.0 });
            stamper.push(Line { number: 0, ingest_time: None, content: Content::One(event) }, &mut out);
        }
        stamper.finish(&mut out);
        stamped
    }

    #[test]
    fn the_clock_of_a_file_is_its_largest_time() {
        assert_eq!(stamps(&[10, 5, 20]), [(10, 10, false), (5, 10, false), (20, 20, false)]);
    }

    #[test]
    fn a_jump_is_believed_when_the_next_line_agrees_or_there_is_none() {
        let real = stamps(&[0, 10_000, 10_001]);
        assert_eq!(real, [(0, 0, false), (10_000, 10_000, false), (10_001, 10_001, false)]);
        assert_eq!(stamps(&[0, 10_000])[1], (10_000, 10_000, false));
    }

    #[test]
    fn a_jump_that_nobody_confirms_does_not_move_the_clock() {
        assert_eq!(stamps(&[0, 1_000_000, 5]), [(0, 0, false), (1_000_000, 0, true), (5, 5, false)]);
    }

    #[test]
    fn a_first_line_from_the_future_is_refused() {
        assert_eq!(stamps(&[1_000_000, 5, 6]), [(1_000_000, 5, true), (5, 5, false), (6, 6, false)]);
        assert_eq!(stamps(&[3_000, 5])[0], (3_000, 3_000, false));
    }
}
