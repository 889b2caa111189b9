//! Templates of lines: a line with a slot for the time and a slot for the value.
//!
//! Intuition: a producer writes the lines of its series in the same order again and again. After the line of
//! one identity, the template of the line that followed last time is tried first. If the bytes around its
//! slots match, only the slots have to be parsed.
//! Invariant: a template comes from a line that the slow path accepted, and a matching line differs from it
//! only in time and value. A wrong guess costs one comparison and changes nothing.

use super::numbers;
use crate::core::Timestamp;
use crate::wire::time;
use std::ops::Range;

/// The positions of the two slots of a line. The other bytes of the line are stored as one piece, without the slots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Template {
    first: u32,  // bytes before the first slot
    second: u32, // bytes before the second slot, counted from the beginning without the first slot
    is_time_first: bool,
}

/// A cache of the time parsed last: many series have a value at the same instant.
#[derive(Debug)]
pub(super) struct Clock {
    text: [u8; PLAIN_MAX],
    length: usize, // of the used part of `text`, at most PLAIN_MAX
    time: Timestamp,
}

/// Length of `YYYY-MM-DDTHH:MM:SS.mmmZ`.
const PLAIN_MAX: usize = 24;

/// The initial content of the cache. If it were empty, an empty string would match it and count as a time.
const EPOCH: &[u8] = b"1970-01-01T00:00:00Z";

impl Default for Clock {
    fn default() -> Clock {
        let mut text = [0; PLAIN_MAX];
        text[..EPOCH.len()].copy_from_slice(EPOCH);
        Clock { text, length: EPOCH.len(), time: Timestamp::clamped(0) }
    }
}

impl Template {
    /// Returns the template of a line, given the positions of its time and value, and the bytes around these.
    pub(super) fn new(
        line: &[u8],
        time: &Range<usize>,
        value: &Range<usize>,
    ) -> Option<(Template, Box<[u8]>)> {
        let is_time_first = time.start < value.start;
        let (a, b) = if is_time_first { (time, value) } else { (value, time) };
        let parts = [line.get(..a.start)?, line.get(a.end..b.start)?, line.get(b.end..)?];
        let (first, second) = (parts[0].len() as u32, (parts[0].len() + parts[1].len()) as u32);
        Some((Template { first, second, is_time_first }, parts.concat().into()))
    }

    /// Matches a line and parses its slots; returns `None` if the line does not match. `bytes` is the second
    /// result of [`Self::new`].
    #[inline]
    pub(super) fn read(&self, bytes: &[u8], line: &[u8], clock: &mut Clock) -> Option<(Timestamp, f64)> {
        let (head, rest) = bytes.split_at_checked(self.first as usize)?;
        let (middle, tail) = rest.split_at_checked((self.second - self.first) as usize)?;
        let rest = line.strip_prefix(head)?;
        let (time, value, rest) = if self.is_time_first {
            let (time, length) = clock.read(rest)?;
            let rest = rest.get(length..)?.strip_prefix(middle)?;
            let (value, length) = numbers::read(rest)?;
            (time, value, rest.get(length..)?)
        } else {
            let (value, length) = numbers::read(rest)?;
            let rest = rest.get(length..)?.strip_prefix(middle)?;
            let (time, length) = clock.read(rest)?;
            (time, value, rest.get(length..)?)
        };
        (*rest == *tail).then_some((time, value))
    }
}

impl Clock {
    /// Reads a quoted time or epoch milliseconds; returns the time and its length in bytes.
    #[inline]
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<(Timestamp, usize)> {
        let Some(text) = bytes.strip_prefix(b"\"") else { return read_ms(bytes) };
        if let Some((known, rest)) = text.split_at_checked(self.length)
            && *known == self.text[..self.length]
            && rest.first() == Some(&b'"')
        {
            return Some((self.time, self.length + 2));
        }
        let length = text.iter().take(PLAIN_MAX + 1).position(|byte| *byte == b'"')?;
        let text = text.get(..length)?;
        self.time = time::parse(text)?;
        self.text[..length].copy_from_slice(text);
        self.length = length;
        Some((self.time, length + 2))
    }
}

/// Reads a whole number of milliseconds. A fraction, or a number that seems to be in another unit, is
/// refused.
#[inline]
fn read_ms(bytes: &[u8]) -> Option<(Timestamp, usize)> {
    let (ms, length) = numbers::read(bytes)?;
    let is_whole = !bytes.get(..length)?.contains(&b'.');
    is_whole.then_some((time::of_number(ms as i64).ok()?, length))
}
