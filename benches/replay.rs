//! The cost of the engine alone: `samples` columns, many quiet series, many rules, a restart.
//!
//! `cargo bench` prints one line per figure. Whole-process comparisons with other systems are in
//! `benches/compare.sh`.

use std::time::Instant;
use streamgauge::core::event::{Event, Observation};
use streamgauge::core::record::{Body, Record};
use streamgauge::core::vocab::identity::{Identity, IdentityTable, Labels, SeriesRef};
use streamgauge::core::vocab::limits::Limits;
use streamgauge::core::vocab::unit::Unit;
use streamgauge::core::{Effects, Engine, Timestamp};
use streamgauge::pipeline::load_files;
use streamgauge::wire::event::{Codec, Decoded, Decoder};
use streamgauge::wire::snapshot;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const START_MS: i64 = 1_793_491_200_000;

fn main() {
    samples();
    many_rules();
    quiet_series();
}

/// The median of three runs of a function that returns seconds.
fn median(mut run: impl FnMut() -> f64) -> f64 {
    let mut times = [run(), run(), run()];
    times.sort_by(f64::total_cmp);
    times[1]
}

fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// A roughly log-normal value that is the same in every run.
fn value(seed: u64) -> f64 {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let sum: u64 = (0..4).map(|part| mixed >> (part * 16) & 0xffff).sum();
    (4.0 + (sum as f64 / 65_536.0 - 2.0)).exp()
}

fn apply(engine: &mut Engine, directory: &IdentityTable, at_ms: i64, events: &[Event], out: &mut Effects) {
    let stamp = Timestamp::clamped(at_ms);
    engine.handle(
        &Record { seq: 1, stamp, limit: None, bad: &[], body: Body::Events(events) },
        directory,
        out,
    );
}

/// MessagePack `samples` columns through decoding, windows and dirty marking, one core.
fn samples() {
    const COLUMNS: usize = 1_000;
    const LENGTH: usize = 1_000;
    let payload = |column: usize| {
        let base = START_MS + (column * 100) as i64;
        let times: Vec<i64> = (0..LENGTH).map(|n| base + n as i64).collect();
        let values: Vec<f64> = (0..LENGTH).map(|n| value((column * LENGTH + n) as u64)).collect();
        rmp_serde::to_vec_named(
            &serde_json::json!({"type": "samples", "source": format!("s-{}", column % 50),
            "name": "latency_ms", "times": times, "values": values}),
        )
        .expect("memory")
    };
    let payloads: Vec<Vec<u8>> = (0..COLUMNS).map(payload).collect();
    let seconds = median(|| {
        let rules = "version: 1\nrules:\n  - { id: a, expr: 'p99(latency_ms[1m]) by (source) > 10s', severity: info }\n";
        let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
        engine.load(load_files(vec![("r".into(), rules.into())]).rules.expect("checked"), &mut out);
        let (mut decoder, mut directory) = (Decoder::new(0), IdentityTable::default());
        let begun = Instant::now();
        for (column, payload) in payloads.iter().enumerate() {
            let mut decoded = Decoded::default();
            decoder.payload(Codec::MessagePack, payload, &mut decoded);
            directory.learn(0, decoder.take_found());
            apply(
                &mut engine,
                &directory,
                START_MS + (column * 100) as i64 + 1_000,
                &decoded.events,
                &mut out,
            );
        }
        assert_eq!(engine.counters().recorded, (COLUMNS * LENGTH) as u64);
        begun.elapsed().as_secs_f64()
    });
    println!(
        "samples columns, MessagePack, one core: {:.1} M observations/s",
        (COLUMNS * LENGTH) as f64 / seconds / 1e6
    );
}

fn identities(count: usize) -> IdentityTable {
    let mut directory = IdentityTable::default();
    let identity = |n: usize| {
        let host = format!("host-{n}");
        let labels = Labels::of([("host", host.as_str())]);
        Identity::new(format!("svc-{}", n % 50).into(), "latency_ms".into(), labels, Some(Unit::Ms))
            .expect("valid")
    };
    directory.learn(0, (0..count).map(|n| identity(n).into()));
    directory
}

/// 1,000 rules over 10,000 series of which 1 % change per second: share of one core.
fn many_rules() {
    const SERIES: usize = 10_000;
    const SECONDS: usize = 120;
    let rules: Vec<String> = (0..1_000)
        .map(|n| {
            format!("  - {{ id: r{n}, expr: 'p99(latency_ms[1m]) > {}', severity: info }}\n", 100_000 + n)
        })
        .collect();
    let text = format!("version: 1\nrules:\n{}", rules.concat());
    let directory = identities(SERIES);
    let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
    engine.load(load_files(vec![("r".into(), text)]).rules.expect("checked"), &mut out);
    let mut busy = 0.0;
    for second in 0..SECONDS {
        let at = START_MS + second as i64 * 1_000;
        let changed = (0..SERIES / 100).map(|n| (second * SERIES / 100 + n) % SERIES);
        let events: Vec<Event> = changed
            .map(|n| {
                Event::Metric(Observation {
                    who: SeriesRef::new(0, n),
                    time: Timestamp::clamped(at),
                    value: value((second * SERIES + n) as u64),
                })
            })
            .collect();
        let begun = Instant::now();
        apply(&mut engine, &directory, at, &events, &mut out);
        busy += begun.elapsed().as_secs_f64();
        out.clear();
    }
    println!(
        "1,000 rules × 10,000 series, 1 % change a second: {:.1} % of one core ({} evaluations a second)",
        busy / SECONDS as f64 * 100.0,
        engine.counters().evaluations / SECONDS as u64
    );
}

/// 100,000 series, one value per 10 s for an hour: memory, snapshot, restart.
fn quiet_series() {
    const SERIES: usize = 100_000;
    let directory = identities(SERIES);
    let before = resident_mib();
    let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
    for step in 0..360 {
        for n in 0..SERIES {
            let at = START_MS + step * 10_000 + (n / 10) as i64;
            let event = Event::Metric(Observation {
                who: SeriesRef::new(0, n),
                time: Timestamp::clamped(at),
                value: value(step as u64 * SERIES as u64 + n as u64),
            });
            apply(&mut engine, &directory, at, &[event], &mut out);
            out.clear();
        }
    }
    println!(
        "100,000 series × 360 values, all resolutions: {:.0} MiB resident in the engine",
        resident_mib() - before
    );
    let bytes = snapshot::encode(&engine).expect("memory");
    drop(engine);
    let begun = Instant::now();
    let restored = snapshot::decode(&bytes, Limits::default()).expect("own bytes");
    println!(
        "restart with {} live series: {:.2} s from a snapshot of {} MiB",
        restored.series().len(),
        begun.elapsed().as_secs_f64(),
        bytes.len() >> 20
    );
}
