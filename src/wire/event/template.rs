//! Lines as forms with two blanks: the time and the value.
//!
//! Intuition: a producer writes the lines of its series in the same order again and again. So
//! after the line of one identity, the line that came next last time is tried first: if its bytes
//! around the blanks are there, only the blanks have to be read.
//! Invariant: a form comes from a line that the slow path took, and a filled-in form is that line
//! with another time and value; a wrong guess costs one comparison and changes nothing.

use super::numbers;
use crate::core::Timestamp;
use crate::core::event::Observation;
use crate::core::identity::Who;
use crate::wire::time;
use std::ops::Range;

/// The bytes of a line around its blanks.
#[derive(Debug)]
pub struct Template {
    head: Box<[u8]>,
    middle: Box<[u8]>,
    tail: Box<[u8]>,
    is_time_first: bool,
    who: Who,
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

impl Default for Clock {
    fn default() -> Clock {
        Clock { text: [0; PLAIN_MAX], length: 0, time: Timestamp::MIN }
    }
}

impl Template {
    /// The form of a line, given where its time and its value stand.
    pub fn new(line: &[u8], time: &Range<usize>, value: &Range<usize>, who: Who) -> Option<Template> {
        let is_time_first = time.start < value.start;
        let (first, second) = if is_time_first { (time, value) } else { (value, time) };
        Some(Template {
            head: line.get(..first.start)?.into(),
            middle: line.get(first.end..second.start)?.into(),
            tail: line.get(second.end..)?.into(),
            is_time_first,
            who,
        })
    }

    /// Fills in the form; `None` if the line is another one.
    #[inline]
    pub fn read(&self, line: &[u8], clock: &mut Clock) -> Option<Observation> {
        let rest = line.strip_prefix(&*self.head)?;
        let (time, value, rest) = if self.is_time_first {
            let (time, length) = clock.read(rest)?;
            let rest = rest.get(length..)?.strip_prefix(&*self.middle)?;
            let (value, length) = numbers::read(rest)?;
            (time, value, rest.get(length..)?)
        } else {
            let (value, length) = numbers::read(rest)?;
            let rest = rest.get(length..)?.strip_prefix(&*self.middle)?;
            let (time, length) = clock.read(rest)?;
            (time, value, rest.get(length..)?)
        };
        (*rest == *self.tail).then_some(Observation { who: self.who, time, value })
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

/// A whole number of milliseconds; a fraction is none.
#[inline]
fn read_ms(bytes: &[u8]) -> Option<(Timestamp, usize)> {
    let (ms, length) = numbers::read(bytes)?;
    let is_whole = !bytes.get(..length)?.contains(&b'.');
    is_whole.then_some((Timestamp::from_ms(ms as i64)?, length))
}
