//! Decoding of events: JSON, NDJSON and MessagePack payloads become validated events.
//!
//! Intuition: producers send the same few identities millions of times. A line whose identity was seen
//! before, byte for byte, is read by `fast` without an allocation. Everything else is read by [`fields`],
//! which is slow, complete and the only path that refuses events.
//! Invariant: the fast path accepts only what the slow path accepts, with the same result.

mod build;
mod fast;
pub(crate) mod fields;
mod histogram;
pub(crate) mod msgpack;
mod numbers;
pub(crate) mod route;
pub(crate) mod split;
mod template;
mod times;

use crate::core::event::Event;
use crate::core::vocab::counters::Refusal;
use crate::core::vocab::identity::Identity;
use crate::core::vocab::limits::PAYLOAD_BYTES_MAX;
use build::Builder;
pub use build::{BadEvent, stamp_of};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;

/// The format of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Codec {
    Json,
    Ndjson,
    MessagePack,
}

impl Codec {
    /// Returns the codec of a `Content-Type`; JSON if it is absent, `None` if it is not supported.
    pub fn from_content_type(content_type: Option<&str>) -> Option<Codec> {
        let Some(content_type) = content_type else { return Some(Codec::Json) };
        let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match essence.as_str() {
            // `curl -d` sends `application/x-www-form-urlencoded` by default.
            "" | "application/json" | "application/x-www-form-urlencoded" => Some(Codec::Json),
            "application/x-ndjson" | "application/ndjson" => Some(Codec::Ndjson),
            "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => {
                Some(Codec::MessagePack)
            }
            _ => None,
        }
    }

    /// Returns the codec of a body. If no type is stated, or only the default type of `curl -d`, a body with
    /// JSON objects as lines is NDJSON.
    pub fn of_body(content_type: Option<&str>, body: &[u8]) -> Option<Codec> {
        let stated = Codec::from_content_type(content_type)?;
        let is_stated = content_type.is_some_and(|stated| !stated.contains("x-www-form-urlencoded"));
        if is_stated || stated != Codec::Json || !has_lines(body) {
            return Some(stated);
        }
        Some(Codec::Ndjson)
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Codec::Json => "application/json",
            Codec::Ndjson => "application/x-ndjson",
            Codec::MessagePack => "application/msgpack",
        }
    }
}

/// Maximum number of lines checked to detect NDJSON. The first lines may be cut off or malformed, so several are
/// checked.
const LINES_LOOKED_AT: usize = 16;

/// Returns whether a body is not JSON as a whole but has lines that are JSON objects.
fn has_lines(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    let is_json = |text: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    let is_object = |line: &[u8]| line.starts_with(b"{") && line.ends_with(b"}") && is_json(line);
    let lines = body.split(|byte| *byte == b'\n').take(LINES_LOOKED_AT);
    memchr::memchr(b'\n', body).is_some()
        && !body.starts_with(b"[")
        && lines.into_iter().any(|line| is_object(line.trim_ascii()))
        && !is_json(body)
}

/// The content of a payload: the valid and the refused events, each in the order of the payload.
#[derive(Debug, Default)]
pub struct Decoded {
    pub events: Vec<Event>,
    pub bad: Vec<BadEvent>,
}

/// Number of refusals of one payload that keep a message; further ones have only their reason.
const MESSAGES_MAX: usize = 1_000;

impl Decoded {
    fn refuse(&mut self, mut bad: BadEvent) {
        if self.bad.len() >= MESSAGES_MAX {
            bad.message = String::new();
        }
        self.bad.push(bad);
    }
}

/// Decodes payloads into events and remembers the identities it has seen.
#[derive(Debug)]
pub struct Decoder {
    builder: Builder,
    fast: fast::Memory,
}

/// Splits a payload into the bytes of its events, undecoded and in order. Returns `None` if it cannot be
/// split.
pub fn elements(codec: Codec, payload: &[u8]) -> Option<Vec<&[u8]>> {
    match codec {
        Codec::Json if payload.trim_ascii_start().first() == Some(&b'[') => {
            let events: Vec<&RawValue> = serde_json::from_slice(payload).ok()?;
            Some(events.into_iter().map(|event| event.get().as_bytes()).collect())
        }
        Codec::Json => Some(vec![payload]),
        Codec::Ndjson => {
            let lines = payload.split(|byte| *byte == b'\n');
            Some(lines.filter(|line| !line.trim_ascii().is_empty()).collect())
        }
        Codec::MessagePack => msgpack::elements(payload).ok(),
    }
}

impl Decoder {
    /// `number` distinguishes the decoders of one reader, in [0, 255].
    pub fn new(number: usize) -> Decoder {
        Decoder { builder: Builder::new(number), fast: fast::Memory::default() }
    }

    /// A decoder that validates events but drops the cells of histograms. Deflated histograms of a 1 MiB
    /// payload may have 64 MiB of cells, which would be held until the log confirms the append.
    pub fn judging() -> Decoder {
        Decoder { builder: Builder::without_cells(0), fast: fast::Memory::default() }
    }

    /// Returns the identities found since the last call, in the order of their numbers.
    pub fn take_found(&mut self) -> Vec<Arc<Identity>> {
        self.builder.take_found()
    }

    /// Resets the decoder if its tables have grown too large; returns whether it did.
    pub fn trim(&mut self) -> bool {
        let is_full = self.builder.is_full() || self.fast.is_full();
        if is_full {
            *self = Decoder::new(self.builder.number());
        }
        is_full
    }

    /// Decodes a whole payload; a refused event does not affect the other events.
    pub fn payload(&mut self, codec: Codec, bytes: &[u8], out: &mut Decoded) {
        if bytes.len() > PAYLOAD_BYTES_MAX {
            let message = format!("{} bytes; at most {PAYLOAD_BYTES_MAX} are taken", bytes.len());
            return out.bad.push(BadEvent::new(0, Refusal::TooLarge, message));
        }
        self.begin();
        match codec {
            Codec::Json => self.json(bytes, out),
            Codec::Ndjson => self.ndjson(bytes, out),
            Codec::MessagePack => self.msgpack(bytes, out),
        }
    }

    /// Decodes one JSON object or an array of them.
    fn json(&mut self, bytes: &[u8], out: &mut Decoded) {
        match bytes.trim_ascii_start().first() {
            Some(b'[') => match serde_json::from_slice::<Vec<&RawValue>>(bytes) {
                Ok(elements) => {
                    for (index, element) in elements.into_iter().enumerate() {
                        self.json_one(index, element.get().as_bytes(), out);
                    }
                }
                Err(error) => out.bad.push(BadEvent::payload(&error)),
            },
            _ => {
                let before = out.bad.len();
                self.json_one(0, bytes, out);
                if let Some(bad) = out.bad.get_mut(before).filter(|bad| bad.message.starts_with("trailing")) {
                    bad.message += "; one event a line is application/x-ndjson";
                }
            }
        }
    }

    fn ndjson(&mut self, bytes: &[u8], out: &mut Decoded) {
        let (mut rest, mut index) = (bytes, 0);
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let (line, behind) = rest.split_at(end);
            rest = behind.get(1..).unwrap_or_default();
            if !line.trim_ascii_start().is_empty() {
                self.json_one(index, line, out);
                index += 1;
            }
        }
    }

    /// Starts a new payload for the events that are decoded one by one. The limit on histogram cells applies
    /// per payload.
    pub fn begin(&mut self) {
        self.builder.begin();
    }

    /// Returns whether histograms of the payload were refused because all of them together had too many
    /// cells.
    pub fn has_too_many_cells(&self) -> bool {
        self.builder.has_too_many_cells
    }

    /// Decodes one JSON object of a payload.
    #[inline]
    pub fn json_one(&mut self, index: usize, bytes: &[u8], out: &mut Decoded) {
        if let Some(event) = self.fast(bytes) {
            return out.events.push(event);
        }
        let made = match fields::from_json(bytes) {
            Ok(fields) => self.builder.build(index, &fields),
            Err(error) => Err(BadEvent::json(index, &error)),
        };
        match made {
            Ok(event) => {
                self.fast.learn(bytes, &event, &mut self.builder);
                out.events.push(event);
            }
            Err(bad) => out.refuse(bad),
        }
    }

    /// Reads a metric whose identity was seen before. `None` means only that the slow path has to decide.
    #[inline]
    pub fn fast(&mut self, line: &[u8]) -> Option<Event> {
        self.fast.read(line).map(|read| Event::Metric(read.observation))
    }

    /// Like [`Self::fast`], but also returns the ingest time of a line of an exported log.
    #[inline]
    pub fn fast_line(&mut self, line: &[u8]) -> Option<fast::Read> {
        self.fast.read(line)
    }

    /// Builds an event from fields that the caller has read. The event counts as a payload of its own. The fast path
    /// does not learn its line.
    pub fn build(&mut self, index: usize, fields: &fields::Fields<'_>) -> Result<Event, BadEvent> {
        self.begin();
        self.builder.build(index, fields)
    }

    /// Remembers a line that the slow path accepted, for the fast path.
    pub fn learn(&mut self, line: &[u8], event: &Event) {
        self.fast.learn(line, event, &mut self.builder);
    }

    fn msgpack(&mut self, bytes: &[u8], out: &mut Decoded) {
        let elements = match msgpack::elements(bytes) {
            Ok(elements) => elements,
            Err(error) => return out.bad.push(BadEvent::new(0, Refusal::BadPayload, error.to_string())),
        };
        for (index, element) in elements.into_iter().enumerate() {
            let made = match fields::from_msgpack(element) {
                Ok(fields) => self.builder.build(index, &fields),
                Err(error) => Err(BadEvent::new(index, Refusal::BadEvent, error.to_string())),
            };
            match made {
                Ok(event) => out.events.push(event),
                Err(bad) => out.refuse(bad),
            }
        }
    }
}

#[cfg(test)]
mod tests;
