//! The fast path for JSON metrics: no syntax tree, no allocation, no comparison of strings field by field.
//!
//! Intuition: in the lines of a metric only time and value change; source, name, unit and labels repeat byte
//! for byte. The line is therefore scanned once for the positions of its fields, and the raw bytes of the
//! identity are looked up. A hit means that the slow path read and validated exactly these bytes before.
//! Invariant: a line is accepted only if the slow path would return the same event. For anything else
//! (escapes, other keys, a duplicate key, an unusual number) the result is `None`, and the slow path decides.
//! Rejected: a general JSON scanner, because four fifths of its work would be on bytes seen before.

use super::build::Builder;
use super::template::{Clock, Template};
use super::{fields, numbers};
use crate::core::Timestamp;
use crate::core::event::{Event, Observation};
use crate::core::vocab::identity::SeriesRef;
use hashbrown::HashTable;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// A metric read from a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Read {
    pub observation: Observation,
    pub ingest_time: Option<Timestamp>,
}

/// The identities that the slow path has accepted, found by their raw bytes.
#[derive(Debug, Default)]
pub(super) struct Memory {
    by_bytes: HashTable<u32>,
    entries: Vec<Entry>,
    kept_bytes: usize, // total length of the entries' `bytes`
    clock: Clock,
    /// The index of the entry that matched the previous line.
    last: usize,
}

/// Maximum bytes of a line or identity that is kept. A line with twenty labels has about 1,000 bytes. The slow path
/// reads a longer line each time.
const ENTRY_BYTES_MAX: usize = 4 << 10;

/// Maximum bytes of all kept lines and identities together: a million lines of 256 bytes.
const KEPT_BYTES_MAX: usize = 256 << 20;

#[derive(Debug)]
struct Entry {
    hash: u64,
    bytes: Box<[u8]>, // the line without time and value; the identity if there is no template
    identity: [(u32, u32); 4], // the positions of source, name, unit and labels in `bytes`
    who: SeriesRef,
    template: Option<Template>,
    next: usize, // index of the entry whose line followed last time
}

/// The fields of a line and their positions.
#[derive(Debug, Default)]
struct Scan<'a> {
    is_metric: bool,
    source: Option<&'a [u8]>,
    name: Option<&'a [u8]>,
    unit: Option<&'a [u8]>,
    labels: Option<&'a [u8]>, // including the braces
    time: Option<Timestamp>,
    ingest_time: Option<Timestamp>,
    has_seq: bool,
    value: Option<f64>,
    time_at: Range<usize>,
    value_at: Range<usize>,
}

impl Memory {
    /// Reads a metric whose identity was learned before.
    #[inline]
    pub(super) fn read(&mut self, line: &[u8]) -> Option<Read> {
        let next = self.entries.get(self.last)?.next;
        if let Some(entry) = self.entries.get(next)
            && let Some(template) = &entry.template
            && let Some((time, value)) = template.read(&entry.bytes, line, &mut self.clock)
        {
            self.last = next;
            return Some(Read {
                observation: Observation { who: entry.who, time, value },
                ingest_time: None,
            });
        }
        self.read_by_scan(line)
    }

    fn read_by_scan(&mut self, line: &[u8]) -> Option<Read> {
        let scan = scan(line, &mut self.clock)?;
        let (time, value) = (scan.time?, scan.value?);
        let place = self.find(&scan)?;
        self.entries[self.last].next = place;
        self.last = place;
        let who = self.entries[place].who;
        Some(Read { observation: Observation { who, time, value }, ingest_time: scan.ingest_time })
    }

    /// Returns whether the memory is full, so that nothing more is learned.
    pub(super) fn is_full(&self) -> bool {
        self.kept_bytes >= KEPT_BYTES_MAX
    }

    /// Remembers the identity of a line that the slow path accepted.
    pub(super) fn learn(&mut self, line: &[u8], event: &Event, builder: &mut Builder) {
        let Event::Metric(observation) = event else { return };
        let Some(scan) = scan(line, &mut self.clock) else { return };
        if self.find(&scan).is_some() || builder.is_full() || self.is_full() {
            return;
        }
        // The scan ends the labels at the first `}`, which may be inside a string. The labels are those that the slow
        // path read only if this span is a complete object.
        if scan.labels.is_some_and(|labels| serde_json::from_slice::<fields::Value<'_>>(labels).is_err()) {
            return;
        }
        let Some(hash) = scan.hash() else { return };
        // Whitespace can make a line arbitrarily long. Of a long line only the identity is kept.
        let is_plain = scan.ingest_time.is_none() && !scan.has_seq && line.len() <= ENTRY_BYTES_MAX;
        let form = if is_plain { Template::new(line, &scan.time_at, &scan.value_at) } else { None };
        let (template, bytes) = match form {
            Some((template, bytes)) => (Some(template), bytes),
            None => (None, scan.identity().concat().into()),
        };
        if bytes.len() > ENTRY_BYTES_MAX {
            return;
        }
        let Some(identity) = places(&bytes, &scan.identity()) else { return };
        self.kept_bytes += bytes.len();
        let place = self.entries.len();
        if let Some(before) = self.entries.get_mut(self.last) {
            before.next = place;
        }
        self.last = place;
        self.entries.push(Entry { hash, bytes, identity, who: observation.who, template, next: 0 });
        let entries = &self.entries;
        self.by_bytes.insert_unique(hash, place as u32, |place| entries[*place as usize].hash);
    }

    #[inline]
    fn find(&self, scan: &Scan<'_>) -> Option<usize> {
        let hash = scan.hash()?;
        let identity = scan.identity();
        let place = self.by_bytes.find(hash, |place| self.entries[*place as usize].is(&identity))?;
        Some(*place as usize)
    }
}

impl Entry {
    #[inline]
    fn is(&self, identity: &[&[u8]; 4]) -> bool {
        self.identity.iter().zip(identity).all(|((start, end), part)| {
            self.bytes.get(*start as usize..*end as usize).is_some_and(|known| known == *part)
        })
    }
}

/// Returns the position of each part of an identity in `bytes`.
fn places(bytes: &[u8], identity: &[&[u8]; 4]) -> Option<[(u32, u32); 4]> {
    let mut places = [(0, 0); 4];
    for (place, part) in places.iter_mut().zip(identity) {
        let start = memchr::memmem::find(bytes, part)?;
        *place = (start as u32, (start + part.len()) as u32);
    }
    Some(places)
}

impl<'a> Scan<'a> {
    #[inline]
    fn identity(&self) -> [&'a [u8]; 4] {
        [self.source, self.name, self.unit, self.labels].map(Option::unwrap_or_default)
    }

    /// Returns `None` if the line names no identity.
    #[inline]
    fn hash(&self) -> Option<u64> {
        let (source, name) = (self.source?, self.name?);
        if !self.is_metric {
            return None;
        }
        let labels = xxh3_64(self.labels.unwrap_or_default());
        let unit = self.unit.map_or(0, |unit| xxh3_64(unit).rotate_left(41) | 1);
        Some(labels.rotate_left(7) ^ xxh3_64(source) ^ xxh3_64(name).rotate_left(21) ^ unit)
    }
}

/// Finds the fields of one object. Returns `None` for a line that only the slow path can read.
#[inline]
fn scan<'a>(line: &'a [u8], clock: &mut Clock) -> Option<Scan<'a>> {
    let mut scan = Scan::default();
    let mut at = skip_space(line, 0);
    if line.get(at) != Some(&b'{') {
        return None;
    }
    at += 1;
    loop {
        at = skip_space(line, at);
        let (key, after) = read_text(line, at)?;
        at = skip_space(line, after);
        if line.get(at) != Some(&b':') {
            return None;
        }
        at = scan.field(key, line, skip_space(line, at + 1), clock)?;
        at = skip_space(line, at);
        match line.get(at) {
            Some(b',') => at += 1,
            Some(b'}') => break,
            _ => return None,
        }
    }
    (skip_space(line, at + 1) == line.len()).then_some(scan)
}

impl<'a> Scan<'a> {
    /// Reads the value of one field and returns its end.
    #[inline]
    fn field(&mut self, key: &[u8], line: &'a [u8], at: usize, clock: &mut Clock) -> Option<usize> {
        match key {
            b"type" => {
                let (kind, after) = read_text(line, at)?;
                (!std::mem::replace(&mut self.is_metric, true) && kind == b"metric").then_some(after)
            }
            b"source" => put_text(&mut self.source, line, at),
            b"name" => put_text(&mut self.name, line, at),
            b"unit" => put_text(&mut self.unit, line, at),
            b"time" => {
                let end = put_time(&mut self.time, line, at, clock)?;
                self.time_at = at..end;
                Some(end)
            }
            b"ingest_time" => put_time(&mut self.ingest_time, line, at, clock),
            b"value" => {
                let (value, length) = numbers::read(line.get(at..)?)?;
                self.value_at = at..at + length;
                self.value.replace(value).is_none().then_some(at + length)
            }
            b"labels" => {
                let length = object_length(line.get(at..)?)?;
                let labels = line.get(at..at + length)?;
                self.labels.replace(labels).is_none().then_some(at + length)
            }
            b"seq" => {
                let (_, length) = numbers::read(line.get(at..)?)?;
                (!std::mem::replace(&mut self.has_seq, true)).then_some(at + length)
            }
            _ => None,
        }
    }
}

/// Returns the length up to the first closing brace. Whether that brace closes the object is checked when the
/// line is learned.
#[inline]
fn object_length(bytes: &[u8]) -> Option<usize> {
    (bytes.first() == Some(&b'{')).then_some(())?;
    memchr::memchr(b'}', bytes).map(|close| close + 1)
}

#[inline]
fn put_text<'a>(slot: &mut Option<&'a [u8]>, line: &'a [u8], at: usize) -> Option<usize> {
    let (text, after) = read_text(line, at)?;
    slot.replace(text).is_none().then_some(after)
}

#[inline]
fn put_time(slot: &mut Option<Timestamp>, line: &[u8], at: usize, clock: &mut Clock) -> Option<usize> {
    let (time, length) = clock.read(line.get(at..)?)?;
    slot.replace(time).is_none().then_some(at + length)
}

/// Returns the bytes of a string without its quotes, and its end. Returns `None` if it has an escape.
#[inline]
fn read_text(line: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = line.get(at..)?;
    if rest.first() != Some(&b'"') {
        return None;
    }
    let length = rest[1..].iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    (rest[1 + length] == b'"').then(|| (&rest[1..=length], at + length + 2))
}

#[inline]
fn skip_space(line: &[u8], mut at: usize) -> usize {
    while matches!(line.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A padded line was once kept with all its whitespace, a megabyte for each series.
    #[test]
    fn what_is_padded_is_not_kept() {
        let (mut builder, mut memory) = (Builder::new(0), Memory::default());
        let mut is_known = |name: &str, labels: &str, blanks: usize| {
            let blanks = " ".repeat(blanks);
            let line = format!(
                r#"{{"type":"metric","time":1793491200000,"source":"s","name":"{name}","labels":{labels},"value":1{blanks}}}"#
            );
            let fields = fields::from_json(line.as_bytes()).expect("JSON");
            let event = builder.build(0, &fields).expect("an event");
            memory.learn(line.as_bytes(), &event, &mut builder);
            (memory.read(line.as_bytes()).is_some(), memory.kept_bytes < 1_000)
        };
        assert_eq!(is_known("a", "{}", 0), (true, true));
        assert_eq!(is_known("b", "{}", 1 << 20), (true, true));
        assert_eq!(is_known("c", &format!("{{{}}}", " ".repeat(1 << 20)), 0), (false, true));
    }
}
