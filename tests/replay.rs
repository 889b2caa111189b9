//! Replaying a log from files equals reading it live, whatever it contains and however many threads read
//! it.

use proptest::prelude::*;
use serde_json::json;
use std::path::Path;
use streamgauge::adapters::embedded::Embedded;
use streamgauge::app::export;
use streamgauge::core::record::Control;
use streamgauge::core::rule::RuleSet;
use streamgauge::core::vocab::limits::Limits;
use streamgauge::core::{Effects, Engine, Timestamp};
use streamgauge::driver::applier::Applier;
use streamgauge::driver::ports::{Entry, Logged, Numbers};
use streamgauge::driver::replay::{self, Options, Outputs};
use streamgauge::pipeline::load_files;
use streamgauge::wire::event::Codec;

const START_MS: i64 = 1_793_491_200_000;

fn rules() -> RuleSet {
    let text = "version: 1
record:
  - { name: p50_ms, expr: 'p50(latency_ms[1m]) by (source)' }
rules:
  - { id: a, expr: 'p99(latency_ms[1m]) by (source)', levels: { warning: '> 2s', critical: '> 4s' }, reset: { warning: '< 1s' }, for: 3s, keep_firing_for: 5s }
  - { id: b, expr: 'silent(latency_ms) > 30s', severity: info }
  - { id: c, expr: 'idle(pipeline=\"p\") > 20s', severity: warning }
  - { id: d, expr: 'last(p50_ms[1m]) by (source) > 1s', severity: info }
  - { id: e, expr: 'avg(stage_duration_seconds[5m]) by (stage) > 10s', severity: info }
";
    load_files(vec![("rules".into(), text.into())]).rules.expect("checked")
}

/// One event of a producer: kind, series, lag in ms, value.
type Sketch = (u8, u8, i64, f64);

fn event(sketch: &Sketch, stamp_ms: i64) -> serde_json::Value {
    let (kind, series, lag, value) = *sketch;
    let (time, source) = (stamp_ms - lag, format!("s-{}", series % 3));
    match kind % 8 {
        0..=3 => json!({"type": "metric", "time": time, "source": source, "name": "latency_ms", "value": value}),
        4 => json!({"type": "metric", "time": time, "source": source, "name": "latency_ms", "value": value,
            "id": format!("{}", value as i64 % 5)}),
        5 => json!({"type": "samples", "source": source, "name": "latency_ms", "times": [time, time + 700], "values": [value, 1]}),
        6 => {
            let status = ["queued", "started", "progress", "succeeded"][usize::from(series) % 4];
            json!({"type": "stage", "time": time, "pipeline": "p", "run": source, "stage": "build", "status": status})
        }
        _ => [
            json!({"type": "metric", "time": time, "source": "", "name": "x", "value": 1}),
            json!({"tick": true}),
            json!({"type": "metric", "time": time, "source": "s-0", "name": "latency_ms", "value": "high"}),
            json!({"seq": 3, "ingest_time": 5, "type": "metric", "time": time, "source": "s-0", "name": "latency_ms", "value": 5}),
            json!({"events": []}),
        ][usize::from(series) % 5]
            .clone(),
    }
}

fn sketches() -> impl Strategy<Value = Vec<Sketch>> {
    let lag = prop_oneof![8 => 0..20_000i64, 2 => 20_000..200_000i64, 1 => 3_000_000..8_000_000i64, 1 => -400_000..0i64];
    prop::collection::vec((any::<u8>(), any::<u8>(), lag, -5.0..6_000.0f64), 1..4)
}

/// The content of one record.
#[derive(Debug, Clone)]
enum Said {
    Events(u8, Vec<Sketch>),
    Garbage(Vec<u8>),
    Tick,
}

fn said() -> impl Strategy<Value = (i64, Said)> {
    let said = prop_oneof![
        12 => (0..5u8, sketches()).prop_map(|(codec, sketches)| Said::Events(codec, sketches)),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Said::Garbage),
        4 => Just(Said::Tick),
    ];
    (prop_oneof![6 => 0..3_000i64, 2 => 3_000..40_000i64], said)
}

fn payload(codec: u8, events: &[serde_json::Value]) -> Entry {
    let text = |separator: &str| events.iter().map(|e| e.to_string()).collect::<Vec<_>>().join(separator);
    match codec {
        0 => Entry::Events(Codec::Json, events[0].to_string().into_bytes()),
        1 => Entry::Events(Codec::Json, format!("[{}]", text(",")).into_bytes()),
        2 => Entry::Events(Codec::Ndjson, text("\n").into_bytes()),
        3 => Entry::Events(Codec::MessagePack, rmp_serde::to_vec_named(&events[0]).expect("memory")),
        _ => Entry::Events(Codec::MessagePack, rmp_serde::to_vec_named(events).expect("memory")),
    }
}

fn log(said: &[(i64, Said)]) -> Vec<Logged> {
    let control = serde_json::to_vec(&Control::Rules(Box::new(rules()))).expect("memory");
    let mut records =
        vec![Logged { seq: 1, stamp: Timestamp::clamped(START_MS), entry: Entry::Control(control) }];
    let mut at = START_MS;
    for (gap, said) in said {
        at += gap;
        let entry = match said {
            Said::Events(codec, sketches) => {
                let events: Vec<_> = sketches.iter().map(|sketch| event(sketch, at)).collect();
                payload(*codec, &events)
            }
            Said::Garbage(bytes) => Entry::Events(Codec::Json, bytes.clone()),
            Said::Tick => Entry::Tick,
        };
        records.push(Logged { seq: records.len() as u64 + 1, stamp: Timestamp::clamped(at), entry });
    }
    records
}

/// The alert log and the counters of a log that is read live.
fn live(records: &[Logged], data_dir: &Path) -> (String, String) {
    let store = Embedded::open(data_dir).expect("a database");
    let mut applier = Applier::new(Engine::new(Limits::default()), 0, 0, Numbers::default());
    for record in records {
        applier.apply(record, &store).expect("a store that answers");
    }
    let transitions = &applier.commit().transitions;
    let alerts = transitions.iter().map(|transition| format!("{}\n", transition.json)).collect();
    (alerts, format!("{:?}", applier.engine.counters()))
}

struct Replayed {
    windows: String,
    alerts: String,
    records: String,
    counters: String,
}

fn replayed(text: &str, threads: usize, given: Option<RuleSet>) -> Replayed {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("room");
    let mut engine = Engine::new(Limits::default());
    let log_rules = given.is_none();
    if let Some(rules) = given {
        engine.load(rules, &mut Effects::default());
    }
    let (mut windows, mut alerts, mut records) = (Vec::new(), Vec::new(), Vec::new());
    let options = Options {
        files: vec![file.path().into()],
        threads,
        sort: false,
        until: None,
        stop_at: None,
        log_rules,
    };
    let outputs = Outputs {
        windows: Some(Box::new(&mut windows)),
        alerts: Some(Box::new(&mut alerts)),
        records: Some(Box::new(&mut records)),
        ..Outputs::default()
    };
    let counters =
        format!("{:?}", replay::run(engine, &options, outputs).expect("a replay").engine.counters());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Replayed { windows: text(windows), alerts: text(alerts), records: text(records), counters }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Replaying the export of a log gives the alert log byte for byte, and the same counters.
    #[test]
    fn an_export_replayed_gives_the_alert_log(said in prop::collection::vec(said(), 1..120)) {
        let dir = tempfile::tempdir().expect("a directory");
        let records = log(&said);
        let (alerts, counters) = live(&records, dir.path());
        let lines = records.iter().map(|record| export::line(None, record) + "\n");
        let replayed = replayed(&lines.collect::<String>(), 2, None);
        prop_assert_eq!(alerts, replayed.alerts);
        prop_assert_eq!(counters, replayed.counters);
    }
}

/// Goal: no output depends on the number of threads. Method: a file of many blocks with disorder, jumps,
/// bad lines and identities that come and go, read by one, two and four threads.
#[test]
fn threads_change_nothing() {
    const LINES: u64 = 30_000;
    for seed in 1..=4u64 {
        let mut text = String::new();
        let mut mixed = seed;
        for n in 0..LINES {
            mixed = mixed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = |bits: u32, of: u64| (mixed >> bits) % of;
            let lag = if pick(50, 40) == 0 { 150_000 } else { pick(20, 9_000) as i64 };
            let kind = if pick(40, 30) == 0 { pick(33, 8) } else { pick(33, 4) } as u8;
            let sketch = (kind, pick(10, 256) as u8, lag, pick(25, 6_000) as f64);
            text.push_str(&event(&sketch, START_MS + n as i64 * 40).to_string());
            text.push_str(if pick(15, 500) == 0 { "\ngarbage\n" } else { "\n" });
        }
        let one = replayed(&text, 1, Some(rules()));
        assert!(!one.alerts.is_empty() && one.windows.contains("\"revision\":1") && !one.records.is_empty());
        for threads in [2, 4] {
            let other = replayed(&text, threads, Some(rules()));
            assert_eq!(one.alerts, other.alerts, "alerts, {threads} threads, seed {seed}");
            assert!(one.windows == other.windows, "windows, {threads} threads, seed {seed}");
            assert!(one.records == other.records, "records, {threads} threads, seed {seed}");
            assert_eq!(one.counters, other.counters, "counters, {threads} threads, seed {seed}");
        }
    }
}
