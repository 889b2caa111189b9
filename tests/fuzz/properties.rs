//! Properties that hold for any bytes: one function per decoder, shared by the seeded run of the tests and
//! the long runs of cargo-fuzz.
//!
//! Intuition: "does not panic" finds few faults in a memory-safe language. Each property therefore also
//! compares results: two ways of reading the same bytes must agree, and written data must be read back
//! unchanged. Invariant: a property fails only where the code is wrong, whatever the bytes are.
#![allow(dead_code, reason = "each target of cargo-fuzz has one of them")]

use base64::Engine as _;
use hdrhistogram::serialization::Deserializer;
use serde_json::{Value, json};
use std::sync::Arc;
use streamgauge::core::event::Event;
use streamgauge::core::measure::histogram::Histogram;
use streamgauge::core::measure::histogram::layout::Digits;
use streamgauge::core::record::{Body, Control, Record};
use streamgauge::core::rule::RuleSet;
use streamgauge::core::vocab::counters::Refusal;
use streamgauge::core::vocab::identity::{Identity, IdentityTable, SeriesRef};
use streamgauge::core::vocab::limits::{LABELS_MAX, Limits, NAME_BYTES_MAX};
use streamgauge::core::vocab::partition::{Partition, escape};
use streamgauge::core::vocab::unit::Unit;
use streamgauge::core::{Effects, Engine, Span, Timestamp};
use streamgauge::http::{encoding, params};
use streamgauge::pipeline::expr::check::{Checked, Checker, matchers};
use streamgauge::pipeline::expr::parse::{parse, parse_level};
use streamgauge::pipeline::expr::{ExprError, literal};
use streamgauge::pipeline::prometheus::{self, suite};
use streamgauge::pipeline::{Diagnostic, ask, diagnostic, load::load_rules, load_files};
use streamgauge::wire::event::{Codec, Decoded, Decoder, elements};
use streamgauge::wire::hdr_cells::{self, Cells};
use streamgauge::wire::ndjson::{self, Content, Exported, OfPartition};
use streamgauge::wire::printable::{printable, printable_json, printable_lines};
use streamgauge::wire::{address, control, hdr, partial, row, snapshot, time as clock};

/// 2026-11-01T00:00:00Z
pub const START: Timestamp = Timestamp::clamped(1_793_491_200_000);

/// Lines whose identities a decoder has learned before: `NUMBERED` has times as numbers, `WRITTEN` as
/// texts.
const NUMBERED: &str = r#"{"type":"metric","time":1793491200000,"source":"a","name":"b","value":1}
{"type":"metric","source":"checkout","name":"latency_ms","labels":{"host":"h1"},"value":41.13,"time":1793491200000,"unit":"ms"}"#;
const WRITTEN: &str = r#"{"type":"metric","time":"2026-11-01T00:00:00Z","source":"a","name":"b","value":1}
{"type":"metric","time":"2026-11-01T00:00:00.123Z","source":"checkout","name":"latency_ms","value":41.13,"unit":"ms","labels":{"host":"h1"}}"#;

/// Largest total size of the messages of one payload: 1,000 refusals are described, and each message may
/// repeat a key of up to 1,024 B.
const MESSAGES_BYTES_MAX: usize = 1_000 * 1_024;

/// Longest input that is read several times and compared: the time limit is meant for a single reading.
const COMPARED_BYTES_MAX: usize = 8 << 10;

/// A histogram may inflate to at most 64 times its input, or to 4 KiB if the input is short.
const INFLATES_TIMES: usize = 64;
const INFLATES_BYTES_MIN: usize = 4 << 10;

/// A decoder with the identities that it has numbered so far.
struct Reader {
    decoder: Decoder,
    directory: IdentityTable,
}

/// Events and refusals decoded from some bytes, in an order and wording independent of the decoder's state.
#[derive(Debug, Default, PartialEq)]
struct Told {
    events: Vec<String>,
    bad: Vec<(usize, Refusal)>,
}

impl Reader {
    fn new() -> Reader {
        Reader { decoder: Decoder::new(0), directory: IdentityTable::default() }
    }

    /// Returns a reader that has already read some lines.
    fn knowing(lines: &str) -> Reader {
        let mut reader = Reader::new();
        reader.payload(Codec::Ndjson, lines.as_bytes());
        reader
    }

    fn payload(&mut self, codec: Codec, bytes: &[u8]) -> Told {
        let mut decoded = Decoded::default();
        self.decoder.payload(codec, bytes, &mut decoded);
        self.told(&decoded)
    }

    fn told(&mut self, decoded: &Decoded) -> Told {
        let message_bytes: usize = decoded.bad.iter().map(|bad| bad.message.len()).sum();
        assert!(message_bytes <= MESSAGES_BYTES_MAX, "{message_bytes} bytes of messages");
        let events = decoded.events.iter().map(|event| self.named(event)).collect();
        Told { events, bad: decoded.bad.iter().map(|bad| (bad.index, bad.reason)).collect() }
    }

    /// Formats an event with its identity in place of the number that this decoder assigned to it.
    fn named(&mut self, event: &Event) -> String {
        self.directory.learn(0, self.decoder.take_found());
        let mut event = event.clone();
        let who = match &mut event {
            Event::Metric(one) => Some(&mut one.who),
            Event::Identified(one) => Some(&mut one.0.who),
            Event::Samples(one) => Some(&mut one.who),
            Event::Histogram(one) => Some(&mut one.who),
            Event::Stage(_) | Event::Run(_) | Event::Gate(_) => None,
        };
        let number = who.map(|who| std::mem::replace(who, SeriesRef::new(0, 0)));
        let identity = number.map(|number| self.directory.get(number).expect("it was found").clone());
        is_valid(&event, identity.as_ref());
        format!("{identity:?} {event:?}")
    }

    /// Formats the content of a line.
    fn content(&mut self, content: &Content) -> Told {
        match content {
            Content::One(event) => Told { events: vec![self.named(event)], bad: Vec::new() },
            Content::Many(decoded) => self.told(decoded),
            other => Told { events: vec![format!("{other:?}")], bad: Vec::new() },
        }
    }
}

/// Asserts the invariants that `core::event` guarantees for every event.
fn is_valid(event: &Event, identity: Option<&Arc<Identity>>) {
    if let Some(identity) = identity {
        let names: Vec<&str> = identity.labels.iter().map(|(name, _)| &**name).collect();
        let is_short = |text: &str| text.len() <= NAME_BYTES_MAX;
        assert!(names.len() <= LABELS_MAX && names.is_sorted(), "{names:?}");
        assert!(identity.labels.iter().all(|(name, value)| is_short(name) && is_short(value)));
        assert!(is_short(&identity.source) && is_short(&identity.name));
        assert!(!identity.source.is_empty() && !identity.name.is_empty());
    }
    match event {
        Event::Metric(one) => assert!(one.value.is_finite()),
        Event::Identified(one) => assert!(one.0.value.is_finite()),
        Event::Samples(all) => assert!(all.columns.iter().all(|(_, value)| value.is_finite())),
        Event::Histogram(all) => {
            assert!(all.cells.iter().all(|(value, count)| value.is_finite() && *count > 0));
            assert!(all.min <= all.max && all.max.is_finite());
        }
        Event::Stage(_) | Event::Run(_) | Event::Gate(_) => {}
    }
}

pub fn events_json(bytes: &[u8]) {
    events(Codec::Json, bytes);
}

pub fn events_ndjson(bytes: &[u8]) {
    events(Codec::Ndjson, bytes);
}

pub fn events_msgpack(bytes: &[u8]) {
    events(Codec::MessagePack, bytes);
}

/// Asserts that the decoded events do not depend on what the decoder read before, and that reading the
/// exported record gives the same events.
fn events(codec: Codec, bytes: &[u8]) {
    let told = Reader::new().payload(codec, bytes);
    assert!(told.events.len() + told.bad.len() <= bytes.len() + 1, "more events than bytes");
    if bytes.len() > COMPARED_BYTES_MAX {
        return;
    }
    if let Some(alone) = alone(codec, bytes) {
        assert_eq!(told, alone, "an event alone, and among others");
    }
    for known in [NUMBERED, WRITTEN] {
        let mut reader = Reader::knowing(known);
        assert_eq!(reader.payload(codec, bytes), told, "after {known}");
        assert_eq!(reader.payload(codec, bytes), told, "for the second time, after {known}");
    }
    for partition in [None, Some(OfPartition { partition: 3, partitions: 8 })] {
        let record = Exported { partition, ..Exported::events(7, START, codec, bytes) };
        let text = record.text();
        assert!(!text.contains('\n'), "a record is one line: {text}");
        let mut reader = Reader::new();
        let line = ndjson::decode(&mut reader.decoder, text.as_bytes());
        assert_eq!(line.ingest_time, Some(START), "{text}");
        assert_eq!(reader.content(&line.content), told, "{text}");
    }
}

/// Decodes each event of a payload with a fresh decoder. Returns none for MessagePack, where one array may
/// hold more than one event.
fn alone(codec: Codec, bytes: &[u8]) -> Option<Told> {
    let elements = elements(codec, bytes).filter(|_| codec != Codec::MessagePack)?;
    let mut all = Told::default();
    for (index, element) in elements.into_iter().enumerate() {
        let (mut reader, mut decoded) = (Reader::new(), Decoded::default());
        reader.decoder.json_one(index, element, &mut decoded);
        let told = reader.told(&decoded);
        all.events.extend(told.events);
        all.bad.extend(told.bad);
    }
    Some(all)
}

/// A line of a file decodes the same whatever was read before, and a control record in it survives another
/// export.
pub fn line(bytes: &[u8]) {
    let read = |mut reader: Reader| {
        let line = ndjson::decode(&mut reader.decoder, bytes);
        if let Content::Control(control) = &line.content {
            is_kept(control);
        }
        (line.ingest_time, reader.content(&line.content))
    };
    let told = read(Reader::new());
    for known in [NUMBERED, WRITTEN] {
        assert_eq!(read(Reader::knowing(known)), told, "after {known}");
    }
    OfPartition::of_line(bytes);
}

/// Asserts that a control record is read back unchanged from the log and from a line of an export.
fn is_kept(control: &Control) {
    let stored = serde_json::to_string(control).expect("plain data");
    let read: Control = serde_json::from_str(&stored).unwrap_or_else(|error| panic!("{error}: {stored}"));
    assert_eq!(read, *control);
    let text = Exported::control(1, START, control).text();
    match ndjson::decode(&mut Decoder::new(0), text.as_bytes()).content {
        Content::Control(read) => assert_eq!(*read, *control),
        other => panic!("{other:?} of {text}"),
    }
}

/// Asserts that a rule set, and its parts in a deployment of several partitions, survives the log and a
/// snapshot and can be evaluated.
fn is_lived_with(set: RuleSet) {
    for part in [Partition { index: 1, count: 2 }, Partition::aggregate(2)] {
        is_kept(&Control::Rules(Box::new(set.within(part))));
    }
    let control = Control::Rules(Box::new(set));
    is_kept(&control);
    let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
    for (seq, body) in [(1, Body::Control(&control)), (2, Body::Tick)] {
        let stamp = START + Span::from_mins(1) * seq;
        let record = Record { seq: seq as u64, stamp, limit: None, bad: &[], body };
        engine.handle(&record, &IdentityTable::default(), &mut out);
    }
    let bytes = snapshot::encode(&engine).expect("memory");
    let restored = snapshot::decode(&bytes, Limits::default()).expect("its own bytes");
    assert_eq!(snapshot::encode(&restored).expect("memory"), bytes);
}

/// One rule set per function, so that mutations reach the parameters of every function.
const RULES: [&str; 11] = [
    "p99(a_ms[5m]) by (source) > 1s",
    "regression(p95(a_ms[1m]) by (source), 10m) > 10%",
    "anomaly(avg(a_ms[1m]) by (source), season(day, 3)) > 1",
    "regression(avg(a_ms[1m]) by (source), deploys(4)) > 10%",
    "correlation(avg(a_ms[1m]) by (source), count(a_ms[1m]) by (source), 1h) > 0.5",
    "change(avg(a_ms[1m]) by (source), 10m) > 10%",
    "sustained(max(a_ms[1m]) by (source) > 10ms, 10m) > 50%",
    "occurrences(max(a_ms[1m]) > 10ms, 10m) > 2 and silent(a_ms) > 10s",
    "idle(pipeline=\"release\") > learned",
    "age(pipeline=\"release\") > 1m or in_flight(pipeline=\"release\") > 3",
    "upper(avg(a_ms[1m]) by (source), 10m, 3) < max(a_ms[1m]) by (source)",
];

/// Control records that put these rules in force.
pub fn rule_controls() -> Vec<Control> {
    let of_rule = |expr: &&str| {
        let text = format!(
            "metrics: {{ a_ms: {{ unit: ms }} }}\nrules: [{{ id: r, expr: '{expr}', severity: info }}]\n"
        );
        let loaded = load_files(vec![("f.yaml".into(), text)]);
        let mut set = loaded.rules.expect("a file without errors");
        set.files.clear();
        Control::Rules(Box::new(set))
    };
    let gathering = |whole: Control| match whole {
        Control::Rules(set) => Control::Rules(Box::new(set.within(Partition { index: 0, count: 2 }))),
        other => other,
    };
    let all = RULES.iter().map(of_rule);
    all.chain([gathering(of_rule(&"p99(a_ms[5m]) > 1s"))]).collect()
}

/// The value that replaces a number, text or list of a control record.
fn instead(of: u8) -> Value {
    let numbers = [0, 1, -1, 59_999, 60_000, i64::from(u32::MAX), i64::MAX, i64::MIN];
    match of {
        0..=7 => numbers[of as usize].into(),
        8..=15 => (1i64 << (u32::from(of) * 3)).into(),
        16 => json!(1e308),
        17 => json!(-0.5),
        18 => json!(null),
        19 => json!(true),
        20 => json!(""),
        21 => json!("a_ms"),
        22 => json!([]),
        23 => json!([0]),
        24 => json!([1, 0]),
        25 => json!({}),
        _ => u64::from(of % 8).into(),
    }
}

/// Collects the leaf values of a JSON document in document order.
fn values<'v>(value: &'v mut Value, out: &mut Vec<&'v mut Value>) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(|one| values(one, out)),
        Value::Object(all) => all.values_mut().for_each(|one| values(one, out)),
        _ => out.push(value),
    }
}

/// Replaces some values of a control record of rules. The first byte selects the control; each change takes
/// two bytes for the place and one for the value.
fn changed(bytes: &[u8]) -> Option<Vec<u8>> {
    let (which, changes) = bytes.split_first()?;
    let mut control =
        serde_json::to_value(&rule_controls()[usize::from(*which) % (RULES.len() + 1)]).expect("plain data");
    for change in changes.chunks_exact(3).take(3) {
        let mut all = Vec::new();
        values(&mut control, &mut all);
        let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % all.len();
        *all[place] = instead(change[2] % 40);
    }
    serde_json::to_vec(&control).ok()
}

/// The engine keeps running whatever a control record of a log holds: half an hour of a series and of runs
/// precedes it, and half an hour follows. Bytes that are not JSON describe how to change a valid control
/// record.
pub fn control(bytes: &[u8]) {
    let made = if bytes.starts_with(b"{") { Some(bytes.to_vec()) } else { changed(bytes) };
    let Some(Ok(control)) = made.map(|made| control::decode(&made)) else { return };
    is_kept(&control);
    let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
    let mut reader = Reader::new();
    for minute in 0..60u64 {
        let at = START + Span::from_mins(minute as i64);
        let line = |more: &str| format!(r#"{{"time":"{at}",{more}}}"#);
        let text = [
            line(r#""type":"metric","source":"s","name":"a_ms","unit":"ms","value":100"#),
            line(&format!(r#""type":"metric","source":"s","name":"a_ms","unit":"ms","value":{minute},"labels":{{"version":"{}"}}"#, minute / 10)),
            line(&format!(r#""type":"run","pipeline":"release","run":"{minute}","status":"started""#)),
        ]
        .join("\n");
        let mut decoded = Decoded::default();
        reader.decoder.payload(Codec::Ndjson, text.as_bytes(), &mut decoded);
        reader.directory.learn(0, reader.decoder.take_found());
        assert_eq!(decoded.bad.len(), 0, "{:?}", decoded.bad);
        let bodies = [(minute == 30).then_some(Body::Control(&control)), Some(Body::Events(&decoded.events))];
        for (place, body) in bodies.into_iter().flatten().enumerate() {
            let seq = minute * 2 + place as u64 + 1;
            let record = Record { seq, stamp: at, limit: None, bad: &[], body };
            engine.handle(&record, &reader.directory, &mut out);
            out.clear();
        }
    }
    let bytes = snapshot::encode(&engine).expect("memory");
    assert!(snapshot::decode(&bytes, Limits::default()).is_ok());
}

/// Reads bytes of an HdrHistogram, both directly and as the payload of an event.
pub fn histogram(bytes: &[u8]) {
    if let Ok(cells) = hdr_cells::read(bytes) {
        is_sound(&cells, bytes.len());
        let total = cells.cells.iter().try_fold(0u64, |sum, (_, count)| sum.checked_add(*count));
        if total.is_some_and(|total| total <= 1 << 53) {
            is_the_librarys(&cells, bytes);
            is_written_back(bytes);
        }
    }
    if let Some(histogram) = Histogram::from_cells(bytes) {
        assert!(histogram.iter().map(|(bucket, _)| bucket).is_sorted_by(|a, b| a < b));
        assert_eq!(Histogram::from_cells(&histogram.cells()), Some(histogram));
    }
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let event = json!({"type": "histogram", "time": START.ms(), "source": "a", "name": "b", "hdr": text,
        "scale": 0.5, "labels": {"host": "h1"}});
    events(Codec::Json, event.to_string().as_bytes());
}

fn is_sound(cells: &Cells, length: usize) {
    let most = (length * INFLATES_TIMES).max(INFLATES_BYTES_MIN);
    assert!(cells.cells.len() <= most, "{} cells of {length} bytes", cells.cells.len());
    assert!(cells.cells.is_sorted_by(|(a, _), (b, _)| a < b), "places ascend");
    let of = cells.layout;
    for (place, count) in &cells.cells {
        let (lowest, median, highest) = (of.lowest(*place), of.median(*place), of.highest(*place));
        assert!(lowest <= median && median <= highest && *count > 0, "{place}: {lowest} {median} {highest}");
    }
}

/// Compares the cells with those of the `hdrhistogram` crate. The crate allocates what a header states, so
/// it is called only if the stated range is small.
fn is_the_librarys(cells: &Cells, bytes: &[u8]) {
    let number = |at: usize| -> Option<u64> {
        let eight: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_be_bytes(eight))
    };
    let (Some(low), Some(high)) = (number(16), number(24)) else { return };
    let is_plain = bytes.starts_with(&[0x1c, 0x84, 0x93, 0x13]) && bytes[4..6] == [0, 0];
    if !is_plain || cells.layout.digits > 3 || low > 1 << 20 || high > 1 << 42 {
        return;
    }
    let Ok(known) = Deserializer::new().deserialize::<u64, _>(&mut &*bytes) else { return };
    let theirs = known.iter_recorded().map(|one| {
        let value = one.value_iterated_to();
        let (lowest, highest) = (known.lowest_equivalent(value), known.highest_equivalent(value));
        (lowest, known.median_equivalent(value), highest, one.count_at_value())
    });
    let of = cells.layout;
    let ours = cells
        .cells
        .iter()
        .map(|(place, count)| (of.lowest(*place), of.median(*place), of.highest(*place), *count));
    assert!(ours.eq(theirs), "{cells:?}");
}

/// Asserts that a histogram that was read is written and read back bucket for bucket.
fn is_written_back(bytes: &[u8]) {
    for digits in [Digits::Two, Digits::Three] {
        let Ok(histogram) = hdr::read(digits, bytes) else { continue };
        let written = hdr::Writer::new(digits).bytes(&histogram).expect("in range");
        assert_eq!(hdr::read(digits, &written).expect("its own bytes"), histogram);
    }
}

pub fn expression(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    if let Err(error) = parse_level(text) {
        is_within(&error, text);
    }
    if let Ok(selector) = matchers(text) {
        let written = selector.texts().join(",");
        assert_eq!(matchers(&written).as_ref(), Ok(&selector), "{written}");
    }
    let parsed = match parse(text) {
        Ok(parsed) => parsed,
        Err(error) => return is_within(&error, text),
    };
    let judged = match Checker::default().check(&parsed.term) {
        Err(error) => return is_within(&error, text),
        Ok(Checked::Value(_)) => "levels: { info: '> 1' }",
        Ok(Checked::Condition(..)) => "severity: info",
    };
    // A JSON string is also a YAML string.
    let rule = format!("rules:\n  - {{ id: r, expr: {}, {judged} }}\n", json!(text));
    if let Some(set) = load_files(vec![("f.yaml".into(), rule)]).rules {
        is_lived_with(set);
    }
}

/// Asserts that an error has a message and a place within the text.
fn is_within(error: &ExprError, text: &str) {
    assert!(error.at.start <= error.at.end && error.at.end <= text.len(), "{error:?}");
    assert!(!error.message.is_empty());
}

/// Texts that contain tests are compiled without running them: twelve characters of a test can stand for a
/// million values.
pub fn pipeline_yaml(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let files = vec![("f.yaml".to_string(), text.clone())];
    let loaded = if text.contains("tests") { load_rules(files) } else { load_files(files) };
    are_short(&loaded.diagnostics);
    if let Some(set) = loaded.rules {
        is_lived_with(set);
    }
}

/// Asserts that the number and the size of the diagnostics are bounded, whatever the text is.
fn are_short(found: &[Diagnostic]) {
    assert!(found.len() <= 102, "{} problems", found.len());
    for one in found {
        let shown = one.to_string();
        assert!(shown.len() <= 8 << 10, "{} bytes", shown.len());
        assert!(!shown.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')), "{shown:?}");
    }
}

/// Converts a PromQL expression or a whole rule file. A converted rule must be loadable.
pub fn promql(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    if text.contains("groups") {
        if let Ok(converted) = prometheus::convert(&[("f.yml".into(), text.into())]) {
            is_loadable(&converted);
        }
        return;
    }
    let rules = json!([{"alert": "A", "expr": text}, {"record": "r", "expr": text}]);
    let file = json!({"groups": [{"name": "g", "rules": rules}]}).to_string();
    // The text may hold characters that YAML does not accept.
    let Ok(converted) = prometheus::convert(&[("f.yml".into(), file)]) else { return };
    let left =
        |is_alert: bool| converted.left_out.iter().filter(|one| one.origin.is_alert == is_alert).count();
    assert_eq!((converted.rules.len() + left(true), converted.records.len() + left(false)), (1, 1));
    is_loadable(&converted);
}

fn is_loadable(converted: &prometheus::Converted) {
    if converted.rules.is_empty() && converted.records.is_empty() {
        return;
    }
    let yaml = converted.yaml();
    let loaded = load_files(vec![("converted".into(), yaml.clone())]);
    let errors: Vec<&Diagnostic> = loaded.diagnostics.iter().filter(|one| one.is_error).collect();
    assert!(errors.is_empty(), "{errors:?} in {yaml}");
    is_lived_with(loaded.rules.expect("without errors"));
}

/// The rules that every file name in a suite resolves to.
const SUITE_RULES: &str = "groups: [{ name: g, rules: [{ alert: A, expr: x > 1, for: 1m, labels: { severity: page } }, { record: r, expr: sum by (job) (rate(x_total[5m])) }] }]";

pub fn promtool_suite(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    if has_long_series(text) {
        return;
    }
    suite::is_suite(text);
    if let Ok(suite) = suite::read(text, |_| Ok(vec![("rules.yml".into(), SUITE_RULES.into())])) {
        for case in &suite.cases {
            assert!(case.inputs.is_sorted_by_key(|(at, _)| *at), "{}", case.name);
            assert!(case.checks.is_sorted_by_key(|check| check.at), "{}", case.name);
        }
    }
}

/// Whether the text contains a repetition such as `1x999999`: a series may have a million values, which
/// takes a gigabyte.
fn has_long_series(text: &str) -> bool {
    let counts = text.split('x').skip(1).filter_map(|rest| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        rest[..digits].parse::<u64>().ok()
    });
    // A count above a million is refused at once and costs nothing.
    counts.filter(|count| *count <= 1_000_000).sum::<u64>() > 100_000
}

pub fn time(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let again = |at: Timestamp| clock::parse(at.to_string().as_bytes());
    if let Some(at) = clock::parse(bytes) {
        assert_eq!(again(at), Some(at));
    }
    if let Some(eight) = bytes.first_chunk() {
        let at = Timestamp::clamped(i64::from_le_bytes(*eight));
        assert_eq!(again(at), Some(at));
    }
    if let Ok(number) = text.parse::<i64>() {
        match clock::of_number(number) {
            Ok(at) => assert_eq!(at.ms(), number),
            Err(hint) => assert!(!hint.is_empty()),
        }
    }
    if let Ok(span) = text.parse::<Span>() {
        assert_eq!(span.to_string().parse::<Span>(), Ok(span));
        assert!(span >= Span::ZERO && START + span > Timestamp::MIN);
    }
    if let Some(found) = literal::read(text) {
        assert!(found.value.is_finite());
    }
    let unit = Unit::from_name(text);
    assert_eq!(Unit::from_name(unit.name()), unit);
    if let Err(failure) = params::instant(text, START) {
        assert!(failure.message.len() <= 1_024, "{}", failure.message.len());
    }
}

/// Parses a silence, a maintenance window, intervals or matchers. An accepted one must survive the log.
pub fn silence(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let new = ask::New { id: "s", by: None };
    match ask::silence(text, new, START) {
        Ok(silence) => {
            assert!(silence.end > silence.start && silence.end > START);
            assert!(!silence.matchers.matchers.is_empty(), "it would hide everything");
            is_kept(&Control::Silence(silence));
        }
        Err(found) => are_short(&found),
    }
    match ask::maintenance(text, new) {
        Ok(maintenance) => {
            assert!(!maintenance.matchers.matchers.is_empty(), "it would hide everything");
            maintenance.plan.at(START);
            is_kept(&Control::Maintenance(maintenance));
        }
        Err(found) => are_short(&found),
    }
    match ask::intervals(text) {
        Ok(plan) => {
            plan.at(START);
        }
        Err(found) => are_short(&found),
    }
    if let Err(message) = ask::matchers(text) {
        assert!(message.len() <= 8 << 10);
    }
}

/// Decompressed bodies stay within the bound, whatever size they state.
pub fn encoding(bytes: &[u8]) {
    for name in ["gzip", "zstd"] {
        for max in [1 << 10, 1 << 20] {
            if let Ok(plain) = encoding::decode(Some(name), bytes, max) {
                assert!(plain.is_some_and(|plain| plain.len() <= max));
            }
        }
    }
}

/// Decodes what stores keep of the engine: a snapshot, partials, a window row.
pub fn snapshot(bytes: &[u8]) {
    if let Ok(engine) = snapshot::decode(bytes, Limits::default()) {
        assert_eq!(snapshot::encode(&engine).expect("memory"), bytes, "only what was written is read");
    }
    if let Ok(partials) = partial::decode(bytes) {
        let written = partial::encode(&partials);
        let read = partial::decode(&written).expect("its own bytes");
        assert_eq!(partial::encode(&read), written);
    }
    if let Ok(row) = row::Row::read(bytes) {
        let written = row.bytes();
        assert_eq!(row::Row::read(&written).expect("its own bytes").bytes(), written);
    }
}

/// No part of an address before its last `@` is shown, and an encoded password is decoded to the original.
pub fn url(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    address::without_password(text);
    address::credentials(text);
    if !text.contains("://") {
        let shown = address::without_password(&format!("nats://user:{text}@host.example:4222"));
        assert!(matches!(&*shown, "nats://host.example:4222" | "nats://…"), "{shown}");
    }
    let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let found = address::credentials(&format!("nats://ann:{encoded}@host"));
    assert_eq!(found, Some(("ann".into(), Some(text.into()))));
    let token = escape(text);
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'=')));
}

pub fn printable_text(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let shown = printable(text);
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert_eq!(printable(&shown), shown, "what is plain stays");
    let lines = printable_lines(text);
    assert!(!lines.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')), "{lines:?}");
    assert_eq!(lines.split('\n').count(), text.split('\n').count());
    let value = json!({"a": text, "b": [text]});
    for written in [value.to_string(), format!("{value:#}")] {
        let shown = printable_json(&written);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), value);
    }
    let clipped = diagnostic::clipped(text);
    assert!(clipped.chars().count() <= 500 && !clipped.contains(char::is_control));
}
