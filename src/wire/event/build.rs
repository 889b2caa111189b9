//! Construction of events from fields: every field is validated, and every refusal has a reason.

use super::fields::{Column, Fields, Labels as RawLabels, Value};
use super::histogram;
use super::times::{Phase, times};
use crate::core::Timestamp;
use crate::core::event::{
    Event, GateEvent, HistogramEvent, Observation, RunEvent, RunStatus, Samples, StageEvent, StageStatus,
};
use crate::core::vocab::counters::Refusal;
use crate::core::vocab::identity::{Identity, IdentityError, Labels, SeriesRef, check_name};
use crate::core::vocab::limits::NAME_BYTES_MAX;
use crate::core::vocab::unit::Unit;
use crate::wire::time;
use hashbrown::HashTable;
use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;

/// An event that was refused before it reached the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEvent {
    /// Its index in the payload, from 0.
    pub index: usize,
    pub reason: Refusal,
    pub message: String,
}

impl BadEvent {
    pub fn new(index: usize, reason: Refusal, message: impl Into<String>) -> BadEvent {
        BadEvent { index, reason, message: message.into() }
    }

    /// The refusal of a payload that cannot be split into events.
    pub fn payload(error: &serde_json::Error) -> BadEvent {
        BadEvent::new(0, Refusal::BadPayload, error.to_string())
    }

    /// The refusal of a JSON event. Bytes that are not JSON are a bad payload; JSON that is not an event is a
    /// bad event.
    pub fn json(index: usize, error: &serde_json::Error) -> BadEvent {
        let reason = if error.is_data() { Refusal::BadEvent } else { Refusal::BadPayload };
        BadEvent::new(index, reason, error.to_string())
    }
}

/// Builds events, and gives each new identity (source, name, labels and unit) a number.
#[derive(Debug)]
pub(super) struct Builder {
    number: usize,
    all: Vec<Arc<Identity>>,     // by number
    taken: usize,                // how many identities were already returned to the reader
    by_identity: HashTable<u32>, // numbers; a map keyed by identities is ten times as large
    texts: HashSet<Arc<str>, foldhash::fast::FixedState>,
    text_bytes: usize, // total length of `texts`
    /// Whether the cells of valid histograms are kept.
    is_keeping_cells: bool,
    /// Number of cells that histograms of this payload may still have.
    cells_left: usize,
    /// Whether a histogram exceeded the number of cells left.
    pub has_too_many_cells: bool,
}

/// Maximum number of cells (bucket and count) of all histograms of a payload: 4 × 2^20 × 16 B = 64 MiB. Counts of
/// real values deflate to no less than a quarter, so 1 MiB of base64 holds at most 3 million of them. Equal counts
/// deflate further: 30 million would fit.
const CELLS_PER_PAYLOAD_MAX: usize = 4 << 20;

/// Identities that a decoder holds before it resets its table: 1,000,000 × about 300 B = 300 MB at worst.
const IDENTITIES_MAX: usize = 1_000_000;

/// Maximum bytes of all interned texts: a million texts of 256 bytes. The texts of refused events count too.
const TEXT_BYTES_MAX: usize = 256 << 20;

fn hash_of(identity: &Identity) -> u64 {
    foldhash::fast::FixedState::default().hash_one(identity)
}

pub(super) type FieldResult<T> = Result<T, String>;

impl Builder {
    pub(super) fn new(number: usize) -> Builder {
        Builder {
            number,
            all: Vec::new(),
            taken: 0,
            by_identity: HashTable::new(),
            texts: HashSet::default(),
            text_bytes: 0,
            is_keeping_cells: true,
            cells_left: CELLS_PER_PAYLOAD_MAX,
            has_too_many_cells: false,
        }
    }

    /// A builder for events that are validated but not recorded.
    pub(super) fn without_cells(number: usize) -> Builder {
        Builder { is_keeping_cells: false, ..Builder::new(number) }
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Starts a new payload.
    pub(super) fn begin(&mut self) {
        (self.cells_left, self.has_too_many_cells) = (CELLS_PER_PAYLOAD_MAX, false);
    }

    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= IDENTITIES_MAX
            || self.texts.len() >= 4 * IDENTITIES_MAX
            || self.text_bytes >= TEXT_BYTES_MAX
    }

    pub(super) fn take_found(&mut self) -> Vec<Arc<Identity>> {
        let found = self.all[self.taken..].to_vec();
        self.taken = self.all.len();
        found
    }

    /// Builds the event with this index in a payload.
    pub(super) fn build(&mut self, index: usize, fields: &Fields<'_>) -> Result<Event, BadEvent> {
        self.event(fields).map_err(|message| BadEvent::new(index, Refusal::BadEvent, message))
    }

    fn event(&mut self, fields: &Fields<'_>) -> FieldResult<Event> {
        match text("type", &fields.r#type)? {
            "metric" => self.metric(fields),
            "samples" => self.samples(fields),
            "histogram" => self.histogram(fields),
            "stage" => self.stage(fields),
            "run" => self.run(fields),
            "gate" => self.gate(fields),
            other => Err(format!(
                "type `{}` is not known; it is one of metric, samples, histogram, stage, run, gate",
                shorten(other)
            )),
        }
    }

    fn metric(&mut self, fields: &Fields<'_>) -> FieldResult<Event> {
        let observation = Observation {
            time: instant("time", &fields.time)?,
            value: number("value", &fields.value)?,
            who: self.who(fields)?,
        };
        Ok(match id(fields)? {
            Some(id) => Event::Identified(Box::new((observation, id))),
            None => Event::Metric(observation),
        })
    }

    fn samples(&mut self, fields: &Fields<'_>) -> FieldResult<Event> {
        let (times, values) = (column("times", &fields.times)?, column("values", &fields.values)?);
        if times.len() != values.len() {
            return Err(format!("{} times but {} values", times.len(), values.len()));
        }
        if times.is_empty() {
            return Err("there is no value in `values`".into());
        }
        let (times, values) = (column_times(times)?, column_values(values)?);
        let columns = times.into_iter().zip(values).collect();
        Ok(Event::Samples(Box::new(Samples { columns, who: self.who(fields)? })))
    }

    fn histogram(&mut self, fields: &Fields<'_>) -> FieldResult<Event> {
        let time = instant("time", &fields.time)?;
        let scale = match fields.scale {
            None | Some(Value::Null) => 1.0,
            _ => number("scale", &fields.scale)?,
        };
        let cells = match &fields.hdr {
            Some(Value::Text(text)) => histogram::from_base64(text, scale)?,
            Some(Value::Bytes(bytes)) => histogram::from_bytes(bytes, scale)?,
            other => return Err(wrong("hdr", "base64 of an HdrHistogram", other)),
        };
        let histogram::Cells { mut cells, min, max } = cells;
        let Some(left) = self.cells_left.checked_sub(cells.len()) else {
            self.has_too_many_cells = true;
            let most = CELLS_PER_PAYLOAD_MAX;
            return Err(format!(
                "the histograms of a payload have more than {most} counts; send fewer together"
            ));
        };
        self.cells_left = left;
        let who = self.who(fields)?;
        if !self.is_keeping_cells {
            cells = Vec::new();
        }
        Ok(Event::Histogram(Box::new(HistogramEvent { who, time, cells, min, max })))
    }

    fn stage(&mut self, fields: &Fields<'_>) -> FieldResult<Event> {
        let status = text("status", &fields.status)?;
        let status = StageStatus::from_name(status).ok_or_else(|| unknown_status(status))?;
        let attempt = match &fields.attempt {
            None | Some(Value::Null) => 1,
            Some(Value::Integer(attempt)) if (1..=i64::from(u32::MAX)).contains(attempt) => *attempt as u32,
            other => return Err(wrong("attempt", "a whole number from 1", other)),
        };
        // These fields are not used, but they must be valid if they are present.
        optional_source(fields)?;
        optional_number("progress", &fields.progress)?;
        id(fields)?;
        let time = instant("time", &fields.time)?;
        let phase = Phase::new(status == StageStatus::Queued, status.is_terminal());
        Ok(Event::Stage(Box::new(StageEvent {
            time,
            times: times(fields, time, phase)?,
            pipeline: self.name("pipeline", &fields.pipeline)?,
            run: run(fields)?,
            stage: self.name("stage", &fields.stage)?,
            status,
            attempt,
            labels: self.labels(fields)?,
        })))
    }

    fn run(&mut self, fields: &Fields<'_>) -> FieldResult<Event> {
        let status = text("status", &fields.status)?;
        let status = RunStatus::from_name(status).ok_or_else(|| unknown_status(status))?;
        optional_source(fields)?;
        self.labels(fields)?;
        let time = instant("time", &fields.time)?;
        let phase = Phase::new(status == RunStatus::Queued, status.is_terminal());
        Ok(Event::Run(Box::new(RunEvent {
            time,
            times: times(fields, time, phase)?,
            pipeline: self.name("pipeline", &fields.pipeline)?,
            run: run(fields)?,
            status,
            id: id(fields)?,
        })))
    }

    fn gate(&mut self, fields: &Fields<'_>) -> FieldResult<Event> {
        let is_passed = match text("status", &fields.status)? {
            "passed" => true,
            "failed" => false,
            other => return Err(unknown_status(other)),
        };
        optional_source(fields)?;
        self.labels(fields)?;
        optional_number("value", &fields.value)?;
        optional_number("threshold", &fields.threshold)?;
        Ok(Event::Gate(Box::new(GateEvent {
            time: instant("time", &fields.time)?,
            pipeline: self.name("pipeline", &fields.pipeline)?,
            run: run(fields)?,
            gate: self.name("gate", &fields.gate)?,
            is_passed,
            id: id(fields)?,
        })))
    }

    /// Returns the reference to the identity that the fields name; a new identity gets the next number.
    fn who(&mut self, fields: &Fields<'_>) -> FieldResult<SeriesRef> {
        let unit = match &fields.unit {
            None | Some(Value::Null) => None,
            Some(Value::Text(unit)) if unit.is_empty() => None,
            Some(Value::Text(unit)) => {
                check_name("unit", unit).map_err(|error| error.to_string())?;
                Some(Unit::from_name(unit))
            }
            other => return Err(wrong("unit", "a text", other)),
        };
        let source = self.name("source", &fields.source)?;
        let name = self.name("name", &fields.name)?;
        let identity =
            Identity::new(source, name, self.labels(fields)?, unit).map_err(|error| error.to_string())?;
        let hash = hash_of(&identity);
        if let Some(number) = self.by_identity.find(hash, |number| *self.all[*number as usize] == identity) {
            return Ok(SeriesRef::new(self.number, *number as usize));
        }
        let (who, number) = (SeriesRef::new(self.number, self.all.len()), self.all.len() as u32);
        self.all.push(Arc::new(identity));
        self.by_identity.insert_unique(hash, number, |number| hash_of(&self.all[*number as usize]));
        Ok(who)
    }

    fn labels(&mut self, fields: &Fields<'_>) -> FieldResult<Labels> {
        let raw: &RawLabels<'_> = match &fields.labels {
            None | Some(Value::Null) => return Ok(Labels::default()),
            Some(Value::Labels(raw)) => raw,
            other => return Err(wrong("labels", "an object of texts", other)),
        };
        if let Some(name) = &raw.ill_typed {
            return Err(format!("label `{}` is not a text", shorten(name)));
        }
        if raw.count > raw.pairs.len() && raw.count > crate::core::vocab::limits::LABELS_MAX {
            return Err(IdentityError::TooManyLabels { count: raw.count }.to_string());
        }
        let pairs = raw.pairs.iter().map(|(name, value)| (self.share(name), self.share(value)));
        Labels::new(pairs.collect()).map_err(|error| error.to_string())
    }

    /// Reads a required name. Many events share it, so it is interned.
    fn name(&mut self, what: &'static str, value: &Option<Value<'_>>) -> FieldResult<Arc<str>> {
        let name = text(what, value)?;
        check_name(what, name).map_err(|error| error.to_string())?;
        Ok(self.share(name))
    }

    /// Interns a text. A text too long for any event is not kept, because the event that contains it is
    /// refused.
    fn share(&mut self, text: &str) -> Arc<str> {
        if text.len() > NAME_BYTES_MAX {
            return text.into();
        }
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        let shared: Arc<str> = text.into();
        self.text_bytes += text.len();
        self.texts.insert(shared.clone());
        shared
    }
}

fn text<'a>(name: &str, value: &'a Option<Value<'_>>) -> FieldResult<&'a str> {
    match value {
        Some(Value::Text(text)) => Ok(text),
        other => Err(wrong(name, "a text", other)),
    }
}

fn id(fields: &Fields<'_>) -> FieldResult<Option<Box<str>>> {
    match &fields.id {
        None | Some(Value::Null) => Ok(None),
        id => Ok(Some(identifier("id", id)?.into())),
    }
}

/// Reads the required id of a run. Few events share it, so it is not interned.
fn run(fields: &Fields<'_>) -> FieldResult<Arc<str>> {
    Ok(identifier("run", &fields.run)?.into())
}

/// Reads an identifier. GitHub and GitLab send ids as whole numbers, which stand for their decimal text.
fn identifier<'a>(what: &'static str, value: &'a Option<Value<'_>>) -> FieldResult<Cow<'a, str>> {
    let name = match value {
        Some(Value::Text(name)) => Cow::Borrowed(&**name),
        Some(Value::Integer(number)) => Cow::Owned(number.to_string()),
        other => return Err(wrong(what, "a text or a whole number below 2^63", other)),
    };
    check_name(what, &name).map_err(|error| error.to_string())?;
    Ok(name)
}

/// Validates the optional source of a stage, run or gate. It is not used, because the series of such an event have
/// the pipeline as their source.
fn optional_source(fields: &Fields<'_>) -> FieldResult<()> {
    match &fields.source {
        None | Some(Value::Null) => Ok(()),
        source => check_name("source", text("source", source)?).map_err(|error| error.to_string()),
    }
}

fn optional_number(name: &str, value: &Option<Value<'_>>) -> FieldResult<()> {
    match value {
        None | Some(Value::Null) => Ok(()),
        _ => number(name, value).map(drop),
    }
}

fn number(name: &str, value: &Option<Value<'_>>) -> FieldResult<f64> {
    match value {
        Some(value) => number_of(name, value),
        None => Err(wrong(name, "a number", &None)),
    }
}

fn number_of(name: &str, value: &Value<'_>) -> FieldResult<f64> {
    match value {
        Value::Integer(number) => Ok(*number as f64),
        Value::Float(number) if number.is_finite() => Ok(*number),
        Value::Float(number) => Err(format!("{name} is {number}; only finite numbers are taken")),
        other => Err(wrong_type(name, "a number", other)),
    }
}

pub(super) fn instant(name: &str, value: &Option<Value<'_>>) -> FieldResult<Timestamp> {
    match value {
        Some(value) => instant_of(name, value),
        None => Err(wrong(name, TIME, &None)),
    }
}

const TIME: &str = "an RFC 3339 time or epoch milliseconds";

/// Reads the ingest time that a log assigned to a record, in the full range of timestamps.
pub fn stamp_of(name: &str, value: &Value<'_>) -> FieldResult<Timestamp> {
    match value {
        Value::Integer(ms) => {
            let outside = || format!("{name} {ms} is outside the years 0 to 9999; it is in milliseconds");
            Timestamp::from_ms(*ms).ok_or_else(outside)
        }
        other => instant_of(name, other),
    }
}

/// Reads a time given as text or as a whole number of milliseconds.
pub(super) fn instant_of(name: &str, value: &Value<'_>) -> FieldResult<Timestamp> {
    match value {
        Value::Integer(number) => time::of_number(*number).map_err(|hint| format!("{name} {number} {hint}")),
        Value::Text(text) => time::parse(text.as_bytes()).ok_or_else(|| match text.parse::<i64>() {
            Ok(number) => format!("{name} `{number}` is a text; {}", time::number_hint(number as f64)),
            Err(_) => format!("{name} `{}` is not {TIME}", shorten(text)),
        }),
        Value::Float(number) => Err(format!("{name} {number} {}", time::number_hint(*number))),
        other => Err(wrong_type(name, TIME, other)),
    }
}

fn column_times(column: &Column<'_>) -> FieldResult<Vec<Timestamp>> {
    match column {
        Column::Integers(all) => {
            let time =
                |number: &i64| time::of_number(*number).map_err(|hint| format!("times: {number} {hint}"));
            all.iter().map(time).collect()
        }
        Column::Floats(all) => {
            let first = all.first().copied().unwrap_or_default();
            Err(format!("times: {first} {}", time::number_hint(first)))
        }
        Column::Mixed(all) => all.iter().map(|time| instant_of("times", time)).collect(),
    }
}

fn column_values(column: &Column<'_>) -> FieldResult<Vec<f64>> {
    match column {
        Column::Integers(all) => Ok(all.iter().map(|number| *number as f64).collect()),
        Column::Floats(all) if all.iter().all(|number| number.is_finite()) => Ok(all.clone()),
        Column::Floats(_) => Err("some of the values are not finite; only finite numbers are taken".into()),
        Column::Mixed(all) => all.iter().map(|value| number_of("values", value)).collect(),
    }
}

fn column<'a, 'b>(name: &str, value: &'a Option<Value<'b>>) -> FieldResult<&'a Column<'b>> {
    match value {
        Some(Value::Column(column)) => Ok(column),
        other => Err(wrong(name, "an array", other)),
    }
}

fn unknown_status(status: &str) -> String {
    format!("status `{}` is not one of this type's", shorten(status))
}

fn wrong(name: &str, expected: &str, found: &Option<Value<'_>>) -> String {
    match found {
        None | Some(Value::Null) => format!("`{name}` is missing; it is {expected}"),
        Some(value) => wrong_type(name, expected, value),
    }
}

fn wrong_type(name: &str, expected: &str, found: &Value<'_>) -> String {
    let kind = match found {
        Value::Null => "null",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Text(_) => "a text",
        Value::Bytes(_) => "bytes",
        Value::Column(_) => "an array",
        Value::Labels(_) => "an object",
        Value::Other(kind) => kind,
    };
    format!("`{name}` is {kind}; it must be {expected}")
}

/// Shortens client text so that a message can repeat it.
fn shorten(text: &str) -> String {
    const SHOWN_CHARS: usize = 40;
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields;
    use super::*;

    /// Refused events once left labels of any length in the decoder's memory permanently.
    #[test]
    fn texts_that_no_event_may_have_are_not_kept() {
        let mut builder = Builder::new(0);
        let mut build = |label: &str| {
            let json = format!(
                r#"{{"type":"metric","time":1793491200000,"source":"s","name":"n","value":1,"labels":{label}}}"#
            );
            let fields = fields::from_json(json.as_bytes()).expect("JSON");
            let made = builder.build(0, &fields).is_ok();
            (made, builder.text_bytes)
        };
        let long = "x".repeat(1 << 20);
        assert_eq!(build(r#"{"a":"b"}"#), (true, 4));
        assert_eq!(build(&format!(r#"{{"a":"{long}"}}"#)), (false, 4));
        assert_eq!(build(&format!(r#"{{"{long}":"b"}}"#)), (false, 4));
    }
}
