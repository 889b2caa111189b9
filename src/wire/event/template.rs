//! Lines as forms with two blanks: the time and the value.
//!
//! Intuition: a producer writes the lines of its series in the same order again and again. So
//! after the line of one identity, the line that came next last time is tried first: if its bytes
//! around the blanks are there, only the blanks have to be read.
//! Invariant: a form comes from a line that the slow path took, and a filled-in form is that line
//! with another time and value; a wrong guess costs one comparison and changes nothing.

use super::numbers;
use crate::core::Timestamp;
use crate::wire::time;
use std::ops::Range;

/// Where the blanks of a line are: its bytes are kept without them, in one piece.
#[derive(Debug, Clone, Copy)]
pub struct Template {
    first: u32,  // bytes before the first blank
    second: u32, // bytes before the second blank, from the beginning
    is_time_first: bool,
}

/// The time read last: many series have a value of the same instant.
#[derive(Debug)]
pub struct Clock {
    text: [u8; PLAIN_MAX],
    length: usize, // of the bytes in use, at most PLAIN_MAX
    time: Timestamp,
}

/// Bytes of `YYYY-MM-DDTHH:MM:SS.mmmZ`.
const PLAIN_MAX: usize = 24;

/// What a clock has read that has read nothing: were it no text at all, an empty one would be a time.
const EPOCH: &[u8] = b"1970-01-01T00:00:00Z";

impl Default for Clock {
    fn default() -> Clock {
        let mut text = [0; PLAIN_MAX];
        text[..EPOCH.len()].copy_from_slice(EPOCH);
        Clock { text, length: EPOCH.len(), time: Timestamp::clamped(0) }
    }
}

impl Template {
    /// The form of a line, given where its time and its value stand, and the bytes around those.
    pub fn new(line: &[u8], time: &Range<usize>, value: &Range<usize>) -> Option<(Template, Box<[u8]>)> {
        let is_time_first = time.start < value.start;
        let (a, b) = if is_time_first { (time, value) } else { (value, time) };
        let parts = [line.get(..a.start)?, line.get(a.end..b.start)?, line.get(b.end..)?];
        let (first, second) = (parts[0].len() as u32, (parts[0].len() + parts[1].len()) as u32);
        Some((Template { first, second, is_time_first }, parts.concat().into()))
    }

    /// Fills in the form; `None` if the line is another one. `bytes`: what [`Self::new`] gave.
    #[inline]
    pub fn read(&self, bytes: &[u8], line: &[u8], clock: &mut Clock) -> Option<(Timestamp, f64)> {
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
    /// Reads a time with its quotes, or epoch milliseconds; returns it and the bytes it took.
    #[inline]
    pub fn read(&mut self, bytes: &[u8]) -> Option<(Timestamp, usize)> {
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

/// A whole number of milliseconds; a fraction is none, and neither is a number that seems to be of another unit.
#[inline]
fn read_ms(bytes: &[u8]) -> Option<(Timestamp, usize)> {
    let (ms, length) = numbers::read(bytes)?;
    let is_whole = !bytes.get(..length)?.contains(&b'.');
    is_whole.then_some((time::of_number(ms as i64).ok()?, length))
}
