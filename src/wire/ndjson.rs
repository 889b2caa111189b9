//! Lines of a log file: `replay` reads them and `export` writes them.
//!
//! A line is either a plain event or a record of an exported log. A record has `seq`, `ingest_time` and one of these
//! contents: the fields of a single event, several events under `events`, a payload as base64 under `raw`, `tick`,
//! `control`, `gap`, `poison`, or `partials`.

use super::control;
use super::event::split::split;
use super::event::{BadEvent, Codec, Decoded, Decoder, fields};
use crate::core::Timestamp;
use crate::core::event::Event;
use crate::core::measure::partial::Partials;
use crate::core::record::Control;
use crate::core::vocab::counters::Refusal;
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Maximum length of a line in bytes. An event has at most 1 MiB; the rest is room for the text around it.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// Maximum length of an exported record in bytes. 1 MiB of MessagePack becomes at most 6 MiB of JSON, because an
/// element such as `false,` takes one byte in MessagePack. A control record with 10,000 rules has 25 MB.
pub const RECORD_BYTES_MAX: usize = 32 << 20;

/// The first bytes of each exported line.
const RECORD: &[u8] = b"{\"seq\":";

/// Returns the maximum length of a line that begins with these bytes.
pub fn bytes_max(beginning: &[u8]) -> usize {
    if beginning.starts_with(RECORD) { RECORD_BYTES_MAX } else { LINE_BYTES_MAX }
}

/// One line, decoded.
#[derive(Debug)]
pub struct Line {
    /// The line number in the input, from 1; blank lines count. 0 if lines are not counted.
    pub number: u64,
    /// The timestamp that the log assigned; `None` in a plain file.
    pub ingest_time: Option<Timestamp>,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    One(Event),
    Many(Box<Decoded>),
    Tick,
    Control(Box<Control>),
    /// Lost records: the first and last sequence number.
    Gap(u64, u64),
    /// A poison record: it was skipped because it crashed its workers.
    Poison,
    /// Message `number` of partition `from` to the aggregate partition.
    Partials {
        from: u32,
        number: u64,
        partials: Box<Partials>,
    },
}

impl Content {
    /// Returns the valid events of a line; the slice is empty for any other content.
    pub fn events(&self) -> &[Event] {
        match self {
            Content::One(event) => std::slice::from_ref(event),
            Content::Many(decoded) => &decoded.events,
            _ => &[],
        }
    }

    /// Returns the largest event time.
    pub fn time_max(&self) -> Option<Timestamp> {
        self.events().iter().filter_map(Event::time_max).max()
    }
}

/// The fields that only a record of an exported log has.
#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    events: Option<Vec<&'a RawValue>>,
    #[serde(default)]
    raw: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    control: Option<Box<Control>>,
    #[serde(default)]
    gap: Option<Gap>,
    #[serde(default)]
    poison: bool,
    #[serde(default)]
    partials: Option<Parcelled>,
}

/// A range of lost records.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Gap {
    pub from: u64,
    pub to: u64,
}

/// Decodes one line. A line with more bytes than [`bytes_max`] is refused whatever it contains; a reader
/// passes only the beginning of a longer line.
#[inline]
pub fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Line {
    if bytes.len() > LINE_BYTES_MAX && bytes.len() > bytes_max(bytes) {
        return too_large(bytes);
    }
    if let Some(read) = decoder.fast_line(bytes) {
        let content = Content::One(Event::Metric(read.observation));
        return Line { number: 0, ingest_time: read.ingest_time, content };
    }
    let (ingest_time, content) = decode_slowly(decoder, bytes);
    Line { number: 0, ingest_time, content: content.unwrap_or_else(refused) }
}

fn refused(bad: BadEvent) -> Content {
    Content::Many(Box::new(Decoded { events: Vec::new(), bad: vec![bad] }))
}

/// Refuses a line that is too long. It keeps the ingest time of a record, because refused records advance the
/// log time too.
fn too_large(beginning: &[u8]) -> Line {
    let message = format!("the line has more than {} MiB; it is left out", bytes_max(beginning) >> 20);
    let content = refused(BadEvent::new(0, Refusal::TooLarge, message));
    Line { number: 0, ingest_time: stamped(beginning), content }
}

/// Returns the ingest time of an exported record whose end may be missing.
fn stamped(beginning: &[u8]) -> Option<Timestamp> {
    /// Upper bound for the length of `seq`, partition and time: 20 + 2 × 10 digits, 30 characters of time,
    /// and names.
    const STAMP_BYTES: usize = 256;
    let head = &beginning[..beginning.len().min(STAMP_BYTES)];
    let at = memchr::memmem::find(head.strip_prefix(RECORD)?, b",\"ingest_time\":\"")?;
    let text = &head[RECORD.len() + at + b",\"ingest_time\":\"".len()..];
    crate::wire::time::parse(&text[..memchr::memchr(b'"', text)?])
}

/// The refusal of bytes that are not JSON.
fn unreadable(bytes: &[u8], error: &serde_json::Error) -> BadEvent {
    if is_utf16(bytes) {
        let message = "this is UTF-16; convert the file to UTF-8, as in `iconv -f UTF-16 -t UTF-8`";
        return BadEvent::new(0, Refusal::BadPayload, message);
    }
    BadEvent::json(0, error)
}

/// Returns whether the bytes begin with a UTF-16 byte order mark, or about every second byte is zero, as in
/// UTF-16 of ASCII text.
fn is_utf16(bytes: &[u8]) -> bool {
    /// Bytes checked; enough to see the pattern.
    const LOOKED_AT: usize = 64;
    let head = &bytes[..bytes.len().min(LOOKED_AT)];
    let zeros = head.iter().filter(|byte| **byte == 0).count();
    let is_every_other = head.len() >= 4 && zeros * 5 >= head.len() * 2 && zeros * 5 <= head.len() * 3;
    is_every_other || head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff")
}

/// Decodes a line that the fast path does not handle. A refused event keeps its ingest time, because the
/// record advances the log time all the same.
fn decode_slowly(decoder: &mut Decoder, bytes: &[u8]) -> (Option<Timestamp>, Result<Content, BadEvent>) {
    let found = match fields::from_json(bytes) {
        Ok(found) => found,
        Err(error) => return (None, Err(unreadable(bytes, &error))),
    };
    let ingest_time = match &found.ingest_time {
        None | Some(fields::Value::Null) => Ok(None),
        Some(value) => super::event::stamp_of("ingest_time", value).map(Some),
    };
    match ingest_time {
        Ok(ingest_time) => (ingest_time, content(decoder, bytes, &found)),
        Err(message) => (None, Err(BadEvent::new(0, Refusal::BadEvent, message))),
    }
}

fn content(decoder: &mut Decoder, bytes: &[u8], found: &fields::Fields<'_>) -> Result<Content, BadEvent> {
    if found.r#type.is_some() {
        let event = decoder.build(0, found)?;
        decoder.learn(bytes, &event);
        Ok(Content::One(event))
    } else if found.tick.is_some() {
        Ok(Content::Tick)
    } else {
        enveloped(decoder, bytes)
    }
}

fn enveloped(decoder: &mut Decoder, bytes: &[u8]) -> Result<Content, BadEvent> {
    let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|error| BadEvent::json(0, &error))?;
    let mut decoded = Box::<Decoded>::default();
    if let Some(control) = envelope.control {
        control::check(&control).map_err(|error| BadEvent::new(0, Refusal::BadPayload, error.to_string()))?;
        return Ok(Content::Control(control));
    }
    if let Some(gap) = envelope.gap.filter(|gap| gap.from <= gap.to) {
        return Ok(Content::Gap(gap.from, gap.to));
    }
    if envelope.poison {
        return Ok(Content::Poison);
    }
    if let Some(message) = envelope.partials {
        let unread = || BadEvent::new(0, Refusal::BadPayload, "these partials are of another version");
        return message.content().ok_or_else(unread);
    }
    if let Some(events) = envelope.events {
        decoder.begin();
        for (index, event) in events.into_iter().enumerate() {
            decoder.json_one(index, event.get().as_bytes(), &mut decoded);
        }
    } else if let Some(raw) = envelope.raw {
        let bytes = base64::engine::general_purpose::STANDARD.decode(raw);
        let bytes = bytes.map_err(|error| BadEvent::new(0, Refusal::BadPayload, error.to_string()))?;
        let codec = Codec::from_content_type(envelope.content_type.as_deref()).unwrap_or(Codec::Json);
        decoder.payload(codec, &bytes, &mut decoded);
    } else {
        return Err(BadEvent::new(0, Refusal::BadEvent, "`type` is missing; it says what the event is"));
    }
    Ok(Content::Many(decoded))
}

/// A record of the log as one line of an export.
#[derive(Debug, Serialize)]
pub struct Exported<'a> {
    pub seq: u64,
    /// Present only if the deployment has several partitions.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub partition: Option<OfPartition>,
    #[serde(with = "crate::core::alert::transition::rfc3339")]
    pub ingest_time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tick: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<&'a Control>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poison: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partials: Option<Parcelled>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<&'static str>,
}

/// A message to the aggregate partition, its bytes as base64.
#[derive(Debug, Serialize, Deserialize)]
pub struct Parcelled {
    from: u32,
    number: u64,
    bytes: String,
}

impl Parcelled {
    fn content(self) -> Option<Content> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(self.bytes).ok()?;
        let partials = super::partial::decode(&bytes).ok()?;
        Some(Content::Partials { from: self.from, number: self.number, partials: Box::new(partials) })
    }
}

/// The log to which a record belongs, as fields of an exported line. The log of the aggregate partition has the index
/// after that of the last partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfPartition {
    pub partition: u32,
    pub partitions: u32,
}

impl OfPartition {
    /// Parses the fields at the beginning of an exported line, where an export writes them.
    pub fn of_line(line: &[u8]) -> Option<OfPartition> {
        let rest = line.strip_prefix(RECORD)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let rest = rest[digits..].strip_prefix(b",\"partition\":")?;
        let text = std::str::from_utf8(&rest[..rest.len().min(40)]).ok()?;
        let (partition, rest) = text.split_once(",\"partitions\":")?;
        let (partitions, _) = rest.split_once(',')?;
        Some(OfPartition { partition: partition.parse().ok()?, partitions: partitions.parse().ok()? })
    }
}

impl<'a> Exported<'a> {
    fn empty(seq: u64, ingest_time: Timestamp) -> Exported<'a> {
        Exported {
            seq,
            partition: None,
            ingest_time,
            tick: None,
            control: None,
            gap: None,
            poison: None,
            partials: None,
            events: None,
            raw: None,
            content_type: None,
        }
    }

    pub fn tick(seq: u64, ingest_time: Timestamp) -> Exported<'a> {
        Exported { tick: Some(true), ..Exported::empty(seq, ingest_time) }
    }

    /// The lost records `from` to `to`, which precede the record with this ingest time.
    pub fn gap(from: u64, to: u64, ingest_time: Timestamp) -> Exported<'a> {
        Exported { gap: Some(Gap { from, to }), ..Exported::empty(from, ingest_time) }
    }

    /// A poison record that was skipped; its bytes are among the dead letters.
    pub fn poison(seq: u64, ingest_time: Timestamp) -> Exported<'a> {
        Exported { poison: Some(true), ..Exported::empty(seq, ingest_time) }
    }

    /// A message of partition `from` to the aggregate partition.
    pub fn partials(seq: u64, ingest_time: Timestamp, from: u32, number: u64, bytes: &[u8]) -> Exported<'a> {
        let bytes = base64::engine::general_purpose::STANDARD.encode(bytes);
        Exported { partials: Some(Parcelled { from, number, bytes }), ..Exported::empty(seq, ingest_time) }
    }

    pub fn control(seq: u64, ingest_time: Timestamp, control: &'a Control) -> Exported<'a> {
        Exported { control: Some(control), ..Exported::empty(seq, ingest_time) }
    }

    /// A payload of events, each as JSON. A payload that cannot be split, or has an event with a line break, is
    /// exported as base64.
    pub fn events(seq: u64, ingest_time: Timestamp, codec: Codec, payload: &[u8]) -> Exported<'a> {
        let empty = Exported::empty(seq, ingest_time);
        // An exported line must not contain a line break.
        let is_one_line =
            |events: &Vec<Box<RawValue>>| events.iter().all(|event| !event.get().contains('\n'));
        match split(codec, payload).filter(is_one_line) {
            Some(events) => Exported { events: Some(events), ..empty },
            None => Exported {
                raw: Some(base64::engine::general_purpose::STANDARD.encode(payload)),
                content_type: Some(codec.content_type()),
                ..empty
            },
        }
    }
}

impl Exported<'_> {
    /// Returns the text of the line. A single event is written beside `seq` and `ingest_time`, unless it has
    /// fields of these names itself or the line would not be read as an event.
    pub fn text(&self) -> String {
        if let Some([event]) = self.events.as_deref()
            && let Some(fields) = event.get().trim().strip_prefix('{')
            && !["\"seq\"", "\"ingest_time\"", "\\u"].iter().any(|taken| fields.contains(taken))
        {
            let partition = self.partition.map_or(String::new(), |of| {
                format!("\"partition\":{},\"partitions\":{},", of.partition, of.partitions)
            });
            let (seq, time) = (self.seq, self.ingest_time);
            let text = format!("{{\"seq\":{seq},{partition}\"ingest_time\":\"{time}\",{fields}");
            // An event may have its own field `partition`; the duplicate key would make the line invalid.
            if fields::from_json(text.as_bytes()).is_ok_and(|found| found.r#type.is_some()) {
                return text;
            }
        }
        // Numbers, texts and raw JSON always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_an_export_are_read_back() {
        let mut decoder = Decoder::new(0);
        let mut read = |text: &str| decode(&mut decoder, text.as_bytes());
        let tick = read(r#"{"seq":7,"ingest_time":"2026-11-01T00:00:00Z","tick":true}"#);
        assert!(matches!(tick.content, Content::Tick) && tick.ingest_time.is_some());
        let event = r#"{"type":"metric","time":1793491200000,"source":"a","name":"b","value":1}"#;
        let many = read(&format!(r#"{{"seq":8,"ingest_time":5,"events":[{event},{event},{{}}]}}"#));
        let Content::Many(decoded) = many.content else { panic!("many events") };
        assert_eq!((decoded.events.len(), decoded.bad.len(), decoded.bad[0].index), (2, 1, 2));
        let raw = read(r#"{"seq":9,"ingest_time":5,"raw":"eA==","content_type":"application/json"}"#);
        let Content::Many(decoded) = raw.content else { panic!("a bad payload") };
        assert_eq!(decoded.bad[0].reason, Refusal::BadPayload);
    }

    #[test]
    fn a_lone_event_stands_beside_its_position() {
        let event = br#"{"type":"metric","time":1793491200000,"source":"a","name":"b","value":1}"#;
        let text = Exported::events(7, Timestamp::clamped(5), Codec::Json, event).text();
        assert!(
            text.starts_with(r#"{"seq":7,"ingest_time":"1970-01-01T00:00:00.005Z","type":"metric""#),
            "{text}"
        );
        let line = decode(&mut Decoder::new(0), text.as_bytes());
        assert!(matches!(line.content, Content::One(_)) && line.ingest_time == Some(Timestamp::clamped(5)));
        let taken = br#"{"type":"metric","time":1793491200000,"source":"a","name":"b","value":1,"seq":3}"#;
        assert!(
            Exported::events(7, Timestamp::clamped(5), Codec::Json, taken).text().contains("\"events\":[")
        );
    }

    fn refusal(bytes: &[u8]) -> (Refusal, String, Option<Timestamp>) {
        let line = decode(&mut Decoder::new(0), bytes);
        let Content::Many(decoded) = line.content else { panic!("refused") };
        assert_eq!((decoded.events.len(), decoded.bad.len()), (0, 1));
        (decoded.bad[0].reason, decoded.bad[0].message.clone(), line.ingest_time)
    }

    #[test]
    fn each_refusal_has_the_reason_that_is_its_own() {
        let of = |bytes: &[u8]| refusal(bytes).0;
        for unreadable in [&b"garbage"[..], b"{\"type\":", b"\x00\x00", b"{} {}"] {
            assert_eq!(of(unreadable), Refusal::BadPayload, "{unreadable:?}");
        }
        let ill_stamped =
            br#"{"type":"metric","time":1793491200000,"source":"a","name":"b","value":1,"ingest_time":"x"}"#;
        for no_event in [&b"{}"[..], b"42", b"[]", b"{\"type\":7}", b"{\"type\":\"metric\"}", ill_stamped] {
            assert_eq!(of(no_event), Refusal::BadEvent, "{no_event:?}");
        }
        let event = br#"{"type":"metric","time":1793491200000,"source":"a","name":"b","value":1}"#;
        let mut padded = event.to_vec();
        padded.resize(LINE_BYTES_MAX, b' ');
        assert!(matches!(decode(&mut Decoder::new(0), &padded).content, Content::One(_)));
        padded.push(b' ');
        assert_eq!(of(&padded), Refusal::TooLarge);
    }

    #[test]
    fn a_record_may_be_longer_and_keeps_its_time_when_it_is_too_long() {
        let mut record =
            br#"{"seq":8,"partition":0,"partitions":2,"ingest_time":"2026-11-01T00:00:00Z","#.to_vec();
        record.extend_from_slice(br#""tick":true"#);
        record.resize(LINE_BYTES_MAX + 1, b' ');
        record.push(b'}');
        assert!(matches!(decode(&mut Decoder::new(0), &record).content, Content::Tick));
        record.resize(RECORD_BYTES_MAX + 1, b' ');
        let (reason, _, time) = refusal(&record);
        assert_eq!(reason, Refusal::TooLarge);
        assert_eq!(time, crate::wire::time::parse(b"2026-11-01T00:00:00Z"));
    }

    #[test]
    fn utf16_is_named() {
        let text = "{\"type\":\"metric\"}\r";
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let marked = [&b"\xff\xfe"[..], &little].concat();
        // A line after the first begins with the second byte of the preceding line break.
        let later = [&b"\0"[..], &little].concat();
        for bytes in [marked, later, big] {
            assert!(refusal(&bytes).1.contains("UTF-16"), "{bytes:?}");
        }
        assert!(!refusal(b"garbage").1.contains("UTF-16") && !refusal(&[0; 64]).1.contains("UTF-16"));
    }

    #[test]
    fn messagepack_is_exported_as_json_only_where_that_is_the_same() {
        let plain =
            rmp_serde::to_vec_named(&serde_json::json!({"type": "metric", "value": 0.1})).expect("memory");
        let line = Exported::events(1, Timestamp::clamped(0), Codec::MessagePack, &plain);
        assert!(line.events.is_some());
        let nan = [&[0x81, 0xa5][..], b"value", &[0xcb], &f64::NAN.to_be_bytes()].concat();
        let line = Exported::events(1, Timestamp::clamped(0), Codec::MessagePack, &nan);
        assert!(line.events.is_none() && line.raw.is_some());
    }

    /// Counts the valid and refused events of a payload after export and re-import, in a deployment of
    /// several partitions.
    fn read_back(codec: Codec, payload: &[u8]) -> (usize, usize) {
        let partition = Some(OfPartition { partition: 3, partitions: 8 });
        let record = Exported { partition, ..Exported::events(1, Timestamp::clamped(0), codec, payload) };
        match decode(&mut Decoder::new(0), record.text().as_bytes()).content {
            Content::One(_) => (1, 0),
            Content::Many(decoded) => (decoded.events.len(), decoded.bad.len()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_event_with_a_partition_of_its_own_is_still_one() {
        let event = |more: &str| {
            format!(r#"{{"type":"metric","time":1793491200000,"source":"a","name":"b","value":1{more}}}"#)
        };
        let many: String = (0..256).map(|n| format!(r#","f{n}":{n}"#)).collect();
        for more in ["", r#","partition":1"#, r#","partitions":1"#, &many] {
            assert_eq!(read_back(Codec::Json, event(more).as_bytes()), (1, 0), "{more}");
        }
    }

    #[test]
    fn a_label_that_stands_twice_in_messagepack_stands_twice_in_the_export() {
        let packed = |labels: &[u8]| {
            let event = serde_json::json!({"type": "metric", "time": 1_793_491_200_000u64, "source": "a",
                "name": "b", "value": 1});
            let mut packed = rmp_serde::to_vec_named(&event).expect("memory");
            packed[0] += 1;
            [&packed[..], b"\xa6labels", labels].concat()
        };
        let of = |labels: &[u8]| read_back(Codec::MessagePack, &packed(labels));
        assert_eq!(of(b"\x82\xa1b\xa11\xa1a\xa12"), (1, 0));
        assert_eq!(of(b"\x82\xa1a\xa11\xa1a\xa12"), (0, 1), "refused live, so refused in a replay");
        let line = |labels: &[u8]| {
            Exported::events(1, Timestamp::clamped(0), Codec::MessagePack, &packed(labels)).raw.is_some()
        };
        assert!(line(b"\x82\xa1a\xa11\xa1a\xc0") && !line(b"\x82\xa1b\xa11\xa1a\xc0"));
    }
}
