//! Properties that hold for any input, checked against references that are too simple to be wrong.

mod decoding;
mod judging;

use proptest::prelude::*;
use std::collections::BTreeMap;
use streamgauge::core::alert::Transition;
use streamgauge::core::effect::WindowEffect;
use streamgauge::core::event::{Event, Observation};
use streamgauge::core::measure::histogram::Histogram;
use streamgauge::core::measure::histogram::layout::Digits;
use streamgauge::core::measure::pane::{Pane, Shape};
use streamgauge::core::measure::window::{WindowKey, WindowSize};
use streamgauge::core::record::{Body, Record};
use streamgauge::core::vocab::identity::{Identity, IdentityTable, Labels, SeriesRef};
use streamgauge::core::vocab::key::Key;
use streamgauge::core::vocab::limits::{Backfill, Limits};
use streamgauge::core::vocab::unit::Unit;
use streamgauge::core::{Effects, Engine, Inspect, Timestamp};
use streamgauge::pipeline::load_files;
use streamgauge::wire::event::{Codec, Decoded, Decoder};
use streamgauge::wire::snapshot;

const START_MS: i64 = 1_793_491_200_000;

fn directory() -> IdentityTable {
    let mut directory = IdentityTable::default();
    let identity = |n: usize| {
        let labels = Labels::of([("host", "h")]);
        Identity::new(format!("s-{n}").into(), "latency_ms".into(), labels, Some(Unit::Ms)).expect("valid")
    };
    directory.learn(0, (0..3).map(|n| identity(n).into()));
    directory
}

fn shape() -> Shape {
    Shape { digits: Digits::Two, resolution: Unit::resolution(Some(&Unit::Ms)) }
}

/// (ingest offset ms, lag ms, series, value)
type Input = (i64, i64, usize, f64);

fn inputs(lag_max: i64) -> impl Strategy<Value = Vec<Input>> {
    prop::collection::vec((0..600_000i64, 0..lag_max, 0..3usize, -50.0..5_000.0f64), 1..200).prop_map(
        |mut all| {
            all.sort_by_key(|input| input.0);
            all
        },
    )
}

fn record(input: &Input) -> (Timestamp, Event) {
    let (at, lag, series, value) = *input;
    let time = Timestamp::clamped(START_MS + at - lag);
    (
        Timestamp::clamped(START_MS + at),
        Event::Metric(Observation { who: SeriesRef::new(0, series), time, value }),
    )
}

fn handle(engine: &mut Engine, seq: usize, stamp: Timestamp, events: &[Event], out: &mut Effects) {
    let record = Record { seq: seq as u64, stamp, limit: None, bad: &[], body: Body::Events(events) };
    engine.handle(&record, &directory(), out);
}

type Windows = BTreeMap<(WindowSize, String, i64), Pane>;

/// All windows at the end, with corrections merged and open windows included.
fn windows(engine: &mut Engine, out: &mut Effects) -> Windows {
    let mut windows = Windows::new();
    engine.finish(out);
    for effect in &out.windows {
        let (key, pane) = match effect {
            WindowEffect::Sealed(sealed) => (&sealed.key, &sealed.pane),
            WindowEffect::Correction(correction) => (&correction.key, &correction.part),
        };
        windows.entry((key.size, key.series.source.to_string(), key.start.ms())).or_default().merge(pane);
    }
    for (key, pane) in engine.open_windows() {
        windows.entry((key.size, key.series.source.to_string(), key.start.ms())).or_default().merge(&pane);
    }
    windows
}

/// The events of a run of 90 minutes with their times, in milliseconds.
fn nightly(id: &str, began: i64) -> Vec<(i64, String)> {
    let event = |fields: &str, after: i64| {
        let time = began + after;
        (time, format!(r#"{{"time":{time},"pipeline":"p","run":"{id}",{fields}}}"#))
    };
    vec![
        event(r#""type":"run","status":"started""#, 0),
        event(r#""type":"stage","stage":"build","status":"started""#, 1_000),
        event(r#""type":"stage","stage":"build","status":"succeeded""#, 1_801_000),
        event(r#""type":"stage","stage":"test","status":"started""#, 1_811_000),
        event(r#""type":"stage","stage":"test","status":"succeeded""#, 5_399_000),
        event(r#""type":"run","status":"succeeded""#, 5_400_000),
    ]
}

/// All values of a derived series, ascending. No two of them may fall into one minute.
fn values(engine: &Engine, out: &Effects, name: &str) -> Vec<f64> {
    let mut values = Vec::new();
    let mut take = |key: &WindowKey, pane: &Pane| {
        if key.size == WindowSize::Minute && *key.series.name == *name {
            assert_eq!(pane.count, 1);
            values.push(pane.min);
        }
    };
    for effect in &out.windows {
        match effect {
            WindowEffect::Sealed(sealed) => take(&sealed.key, &sealed.pane),
            WindowEffect::Correction(correction) => take(&correction.key, &correction.part),
        }
    }
    engine.open_windows().for_each(|(key, pane)| take(&key, &pane));
    values.sort_by(f64::total_cmp);
    values
}

fn rules() -> streamgauge::core::rule::RuleSet {
    let text = "version: 1
record:
  - { name: p50_ms, expr: 'p50(latency_ms[1m]) by (source)' }
rules:
  - { id: a, expr: 'p99(latency_ms[1m]) by (source)', levels: { warning: '> 2s', critical: '> 4s' }, reset: { warning: '< 1s' }, for: 3s, keep_firing_for: 5s, cooldown: 20s }
  - { id: b, expr: 'avg(latency_ms[5m]) > 2500', severity: warning, on_unknown: clear_after 1m }
  - { id: c, expr: 'silent(latency_ms) > 30s', severity: info }
  - { id: d, expr: 'sustained(max(latency_ms[10s]) by (source) > 3s, 1m) > 20%', severity: info }
  - { id: e, expr: 'last(p50_ms[1m]) by (source) > 2s unless count(latency_ms[1m]) by (source) < 2', severity: info }
  - { id: f, expr: 'regression(avg(latency_ms[10s]) by (source), 5m) > 10%', severity: info }
  - { id: g, expr: 'regression(p95(latency_ms[10s]) by (source), 4m) > 10%', severity: info }
  - { id: h, expr: 'trend(avg(latency_ms[10s]) by (source), 3m) > 100s', severity: info }
  - { id: i, expr: 'max(latency_ms[10s]) by (source) > upper(max(latency_ms[10s]) by (source), 2m, 1)', severity: info }
";
    let loaded = load_files(vec![("rules".into(), text.into())]);
    assert!(loaded.rules.is_some(), "{:?}", loaded.diagnostics);
    loaded.rules.expect("checked")
}

/// The alert log of some inputs. With `looks`, alerts and explanations are read after each record.
fn told(inputs: &[Input], looks: bool) -> Vec<Transition> {
    let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
    engine.load(rules(), &mut out);
    let ids: Vec<String> = rules().rules.iter().map(|rule| rule.id.to_string()).collect();
    for (seq, input) in inputs.iter().enumerate() {
        let (stamp, event) = record(input);
        handle(&mut engine, seq, stamp, std::slice::from_ref(&event), &mut out);
        if looks {
            Inspect::new(&mut engine).active_alerts();
            let key = Key::new(vec![("source".into(), format!("s-{}", input.2).into())]);
            for id in &ids {
                let _ = Inspect::new(&mut engine).explain(id, &key);
            }
        }
    }
    out.transitions
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Reading alerts or explanations changes nothing, because the log does not record when users read.
    #[test]
    fn looking_changes_nothing(inputs in inputs(20_000)) {
        prop_assert_eq!(told(&inputs, true), told(&inputs, false));
    }

    /// Windows equal a naive reference, for any order within lateness and for late corrections.
    #[test]
    fn windows_are_those_of_a_naive_reference(inputs in inputs(200_000)) {
        let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
        let mut reference = BTreeMap::<(WindowSize, String, i64), Vec<(i64, f64)>>::new();
        for (seq, input) in inputs.iter().enumerate() {
            let (stamp, event) = record(input);
            handle(&mut engine, seq, stamp, std::slice::from_ref(&event), &mut out);
            let Event::Metric(observation) = event else { unreachable!() };
            for size in WindowSize::ALL {
                let start = observation.time.floor(size.span()).ms();
                let key = (size, format!("s-{}", input.2), start);
                reference.entry(key).or_default().push((observation.time.ms(), input.3));
            }
        }
        prop_assert!(engine.counters().is_conserved());
        prop_assert_eq!(engine.counters().refused_total(), 0);
        let found = windows(&mut engine, &mut out);
        prop_assert_eq!(found.len(), reference.len());
        for (key, values) in reference {
            let pane = &found[&key];
            prop_assert_eq!(pane.count, values.len() as u64);
            let sum: f64 = values.iter().map(|(_, value)| value).sum();
            prop_assert!((pane.sum - sum).abs() <= 1e-9 * sum.abs().max(1e4));
            let newest = values.iter().map(|(time, _)| *time).max().unwrap_or(0);
            let last = values.iter().rev().find(|(time, _)| *time == newest).map(|(_, value)| *value);
            prop_assert_eq!(pane.last(), last);
            let mut sorted: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
            sorted.sort_by(f64::total_cmp);
            prop_assert_eq!((pane.min, pane.max), (sorted[0], sorted[sorted.len() - 1]));
            for q in [0.0, 0.5, 0.9, 0.99, 1.0] {
                let exact = sorted[((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1];
                let got = pane.quantile(shape(), q).unwrap_or(f64::NAN);
                prop_assert!((got - exact).abs() <= exact.abs() * 0.01 + 0.001, "q {}: {} for {}", q, got, exact);
            }
        }
    }

    /// A duration is the true one or none, however late, early or out of order the events of a run arrive,
    /// and whether they arrive at all. It exists if both of its ends were accepted.
    #[test]
    fn no_run_is_shorter_than_it_was(lags in prop::collection::vec(prop::option::of(-900_000..7_200_000i64), 6)) {
        let limits = Limits { backfill: Backfill::Now, ..Limits::default() };
        let is_taken = |at: usize| lags[at].is_some_and(|lag| lag >= -limits.max_skew.ms());
        let (mut engine, mut out) = (Engine::new(limits.clone()), Effects::default());
        let told = nightly("told", START_MS + 36_000_000).into_iter().zip(&lags);
        let told = told.filter_map(|((time, json), lag)| Some((time + (*lag)?, json)));
        let mut events: Vec<(i64, String)> = nightly("usual", START_MS).into_iter().chain(told).collect();
        events.sort_by_key(|(at, _)| *at);
        for (seq, (at, json)) in events.iter().enumerate() {
            let mut decoded = Decoded::default();
            Decoder::new(0).json_one(0, json.as_bytes(), &mut decoded);
            handle(&mut engine, seq, Timestamp::clamped(*at), &decoded.events, &mut out);
        }
        engine.finish(&mut out);
        prop_assert!(engine.counters().is_conserved());
        prop_assert_eq!(engine.counters().recorded + engine.counters().late + engine.counters().late_state,
            6 + (0..6).filter(|at| is_taken(*at)).count() as u64);
        let expected = |pairs: &[(usize, usize, f64)]| {
            let told = pairs.iter().filter(|(from, to, _)| is_taken(*from) && is_taken(*to));
            let mut all: Vec<f64> = pairs.iter().chain(told).map(|(_, _, secs)| *secs).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        prop_assert_eq!(values(&engine, &out, "run_duration_seconds"), expected(&[(0, 5, 5_400.0)]));
        let stages = expected(&[(1, 2, 1_800.0), (3, 4, 3_588.0)]);
        prop_assert_eq!(values(&engine, &out, "stage_duration_seconds"), stages);
    }

    /// 5m is the merge of its 1m windows and 1h of its 5m windows, bucket by bucket.
    #[test]
    fn coarser_windows_are_merges_of_finer_ones(inputs in inputs(20_000)) {
        let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
        for (seq, input) in inputs.iter().enumerate() {
            let (stamp, event) = record(input);
            handle(&mut engine, seq, stamp, &[event], &mut out);
        }
        let found = windows(&mut engine, &mut out);
        for (finer, coarser) in [(WindowSize::Minute, WindowSize::FiveMinutes), (WindowSize::FiveMinutes, WindowSize::Hour)] {
            let mut merged = Windows::new();
            for ((size, source, start), pane) in found.iter().filter(|((size, ..), _)| *size == finer) {
                let whole = Timestamp::clamped(*start).floor(coarser.span()).ms();
                prop_assert_eq!(*size, finer);
                merged.entry((coarser, source.clone(), whole)).or_default().merge(pane);
            }
            for (key, pane) in merged {
                prop_assert_eq!(found[&key].positive(), pane.positive());
                prop_assert_eq!(found[&key].negative(), pane.negative());
                prop_assert_eq!(found[&key].count, pane.count);
            }
        }
    }

    /// A snapshot taken after any record and restored continues as if nothing had happened.
    #[test]
    fn a_restart_at_any_record_changes_nothing(inputs in inputs(100_000), every in 1..7usize) {
        let run = |restart_every: Option<usize>| {
            let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
            engine.load(rules(), &mut out);
            let mut told = Vec::new();
            for (seq, input) in inputs.iter().enumerate() {
                let (stamp, event) = record(input);
                handle(&mut engine, seq, stamp, &[event], &mut out);
                told.push(format!("{out:?}"));
                out.clear();
                if restart_every.is_some_and(|every| seq % every == 0) {
                    let bytes = snapshot::encode(&engine).expect("memory");
                    engine = snapshot::decode(&bytes, Limits::default()).expect("own bytes");
                    assert_eq!(snapshot::encode(&engine).expect("memory"), bytes, "a snapshot of a restored engine");
                }
            }
            engine.finish(&mut out);
            told.push(format!("{out:?}"));
            (told, engine.counters().clone())
        };
        let (whole, cut) = (run(None), run(Some(every)));
        for (at, (expected, found)) in whole.0.iter().zip(&cut.0).enumerate() {
            prop_assert_eq!(expected, found, "after record {}", at);
        }
        prop_assert_eq!(whole.1, cut.1);
    }

    /// A window reads the same whether its view records values or receives another view's panes, and
    /// whether that other view existed from the start, was added by a reload or removed by one.
    #[test]
    fn a_view_fed_by_another_reads_the_same(inputs in inputs(200_000), reload_at in 0..200usize) {
        let coarse = "record:
  - { name: c, expr: 'count(latency_ms[5m]) by (source)' }
  - { name: q, expr: 'p90(latency_ms[5m]) by (source)' }
  - { name: m, expr: 'max(latency_ms[70s]) by (source)' }
  - { name: d, expr: 'change(count(latency_ms[1m]) by (source), 2m)' }
";
        let fine = "rules:\n  - { id: a, expr: 'p50(latency_ms[20s]) by (source) > 100', severity: info }\n";
        let set = |rules: &str| load_files(vec![("r".into(), format!("version: 1\n{rules}"))]).rules.expect("checked");
        let run = |first: &str, second: Option<&str>| {
            let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
            engine.load(set(first), &mut out);
            for (seq, input) in inputs.iter().enumerate() {
                if seq == reload_at && let Some(second) = second {
                    engine.load(set(second), &mut out);
                }
                let (stamp, event) = record(input);
                handle(&mut engine, seq, stamp, &[event], &mut out);
            }
            out.recorded.iter().map(|r| format!("{} {:?} {} {}", r.name, r.key, r.time, r.value)).collect::<Vec<_>>()
        };
        let (alone, both) = (run(coarse, None), format!("{coarse}{fine}"));
        prop_assert_eq!(&alone, &run(&both, None));
        prop_assert_eq!(&alone, &run(coarse, Some(&both)));
        prop_assert_eq!(&alone, &run(&both, Some(coarse)));
    }

    /// A baseline is the same whether its view keeps past windows itself, reads those of another view, or
    /// is shared with a rule that looks further back, and whether the other view existed from the start,
    /// was added by a reload or removed by one.
    #[test]
    fn a_view_led_by_another_learns_the_same(inputs in inputs(200_000), reload_at in 0..200usize) {
        let own = "  - { name: u, expr: 'upper(avg(latency_ms[10s]) by (source), 2m, 1)' }
  - { name: z, expr: 'robust_z(max(latency_ms[10s]) by (source), 3m)' }
  - { name: c, expr: 'regression_score(count(latency_ms[10s]) by (source), 4m)' }
  - { name: t, expr: 'trend(p90(latency_ms[10s]) by (source), 3m)' }
";
        let other = "  - { name: x, expr: 'regression(p95(latency_ms[10s]) by (source), 9m)' }
  - { name: x2, expr: 'zscore(avg(latency_ms[10s]) by (source), 9m)' }
  - { name: x3, expr: 'zscore(max(latency_ms[10s]) by (source), 1m)' }
  - { name: x4, expr: 'zscore(count(latency_ms[10s]) by (source), 9m)' }
  - { name: x5, expr: 'trend(p90(latency_ms[10s]) by (source), 20m)' }
";
        let set = |records: &str| {
            load_files(vec![("r".into(), format!("version: 1\nrecord:\n{records}"))]).rules.expect("checked")
        };
        let run = |first: &str, second: Option<&str>| {
            let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
            engine.load(set(first), &mut out);
            for (seq, input) in inputs.iter().enumerate() {
                if seq == reload_at && let Some(second) = second {
                    engine.load(set(second), &mut out);
                }
                let (stamp, event) = record(input);
                handle(&mut engine, seq, stamp, &[event], &mut out);
            }
            let own = out.recorded.iter().filter(|recorded| !recorded.name.starts_with('x'));
            own.map(|r| format!("{} {:?} {} {}", r.name, r.key, r.time, r.value)).collect::<Vec<_>>()
        };
        let led = format!("{other}{own}");
        prop_assert_eq!(run(own, None), run(&led, None));
        // A reload evaluates all keys once more.
        let reloaded = run(own, Some(own));
        prop_assert_eq!(&reloaded, &run(own, Some(&led)));
        prop_assert_eq!(&reloaded, &run(&led, Some(own)));
    }

    /// Sparse, dense and `hdrhistogram` agree bucket for bucket, whatever is merged.
    #[test]
    fn all_forms_of_a_histogram_agree(left in prop::collection::vec(0..1u64 << 42, 0..400), right in prop::collection::vec(0..200_000u64, 0..400)) {
        for digits in [Digits::Two, Digits::Three] {
            let mut reference = hdrhistogram::Histogram::<u64>::new_with_bounds(1, 1 << 42, digits.count()).expect("bounds");
            let (mut sparse, mut dense, mut other) = (Histogram::default(), Histogram::default(), Histogram::default());
            dense.make_dense();
            for value in &left {
                reference.record(*value).expect("in range");
                sparse.record(digits.bucket(*value));
                dense.record(digits.bucket(*value));
            }
            for value in &right {
                reference.record(*value).expect("in range");
                other.record(digits.bucket(*value));
            }
            sparse.merge(&other);
            dense.merge(&other);
            prop_assert_eq!(&sparse, &dense);
            let expected: Vec<(u64, u64)> = reference
                .iter_recorded()
                .map(|cell| (reference.lowest_equivalent(cell.value_iterated_to()), cell.count_at_value()))
                .collect();
            let found: Vec<(u64, u64)> = sparse.iter().map(|(bucket, count)| (digits.lowest(bucket), count)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

/// Goal: a source that stops leaves nothing behind, in memory or in snapshots. Method: two hundred sources send
/// twenty events with ids each, and nothing for a day and more.
#[test]
fn ids_of_sources_that_stopped_are_forgotten() {
    let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
    let (mut decoder, mut decoded, mut directory) =
        (Decoder::new(0), Decoded::default(), IdentityTable::default());
    let event = |n: u64| {
        let (source, time) = (n % 200, START_MS);
        format!(
            r#"{{"type":"metric","time":{time},"source":"s-{source}","name":"x","value":1,"id":"e-{n}"}}"#
        )
    };
    let payload = format!("[{}]", (0..4_000).map(event).collect::<Vec<_>>().join(","));
    decoder.payload(Codec::Json, payload.as_bytes(), &mut decoded);
    directory.learn(0, decoder.take_found());
    let mut seq = 0;
    let mut handle = |engine: &mut Engine, stamp, body| {
        seq += 1;
        out.clear();
        engine.handle(&Record { seq, stamp, limit: None, bad: &[], body }, &directory, &mut out);
    };
    handle(&mut engine, Timestamp::clamped(START_MS), Body::Events(&decoded.events));
    let bytes = |engine: &Engine| snapshot::encode(engine).expect("memory").len();
    let full = bytes(&engine);
    assert!(full > 4_000 * 16, "it holds the ids: {full} bytes");
    let end = Timestamp::clamped(START_MS + 26 * 3_600_000);
    while let Some(wake) = engine.next_wake().filter(|wake| *wake <= end) {
        handle(&mut engine, wake, Body::Tick);
    }
    assert!(bytes(&engine) < 4_000, "{} bytes are left of {full}", bytes(&engine));
}
