//! The machine's clock is wrong for some seconds: no event is lost, and no operator has to act.
//!
//! The tests run once within this process with a clock of their own, and once with the binary under
//! libfaketime, which changes its time of day.

use super::answer::{self, Answer, get};
use super::edge::{now_ms, pause};
use super::service::{Service as Process, binary, spawn};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use streamgauge::adapters::clock::SystemClock;
use streamgauge::adapters::embedded::Embedded;
use streamgauge::app::embedded::{self, EmbeddedParts};
use streamgauge::app::service::{Files, HttpSettings, Service};
use streamgauge::core::vocab::limits::Limits;
use streamgauge::core::{Span, Timestamp};
use streamgauge::driver::ports::Clock;
use tokio::runtime::Runtime;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// The deadline for everything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// The machine's clock plus an error in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct WrongClock(Arc<AtomicI64>);

impl WrongClock {
    pub fn go_wrong_by(&self, ms: i64) {
        self.0.store(ms, Ordering::SeqCst);
    }
}

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        SystemClock.now() + Span::from_ms(self.0.load(Ordering::SeqCst))
    }

    fn running(&self) -> Duration {
        SystemClock.running()
    }

    fn pause(&self, time: Duration) {
        SystemClock.pause(time);
    }
}

/// Polls until the condition holds.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not happen");
        pause();
    }
}

/// Starts the service in this process. It retries, because a service that has just ended may still hold its
/// data.
pub fn start(runtime: &Runtime, data_dir: &Path, clock: &WrongClock) -> Service<Embedded> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let parts = EmbeddedParts {
            data_dir,
            door: HttpSettings { listen: SocketAddr::from(([127, 0, 0, 1], 0)), access: Arc::default() },
            limits: Limits::default(),
            rules: Files::default(),
            clock: clock.clone(),
            publish: Box::new(|_| {}),
            receivers: None,
        };
        match runtime.block_on(embedded::start(parts)) {
            Ok(service) => return service,
            Err(error) => assert!(Instant::now() < deadline, "{error:#}"),
        }
        pause();
    }
}

pub fn stop(runtime: &Runtime, service: Service<Embedded>) {
    runtime.block_on(service.drain(Duration::from_secs(5))).expect("it ends");
}

/// A producer, with the service that it sends to and the number of events it sent per source.
struct Sender {
    url: String,
    sent: BTreeMap<String, u64>,
}

impl Sender {
    fn send(&mut self, source: &str, time: u64) {
        let event =
            json!({"type": "metric", "time": time, "source": source, "name": "latency_ms", "value": 1});
        let body = Value::Array(vec![event; 5]).to_string();
        let answer = answer::post(&format!("{}/api/v1/events", self.url), &body);
        assert_eq!(answer.status, 202, "{answer:?}");
        *self.sent.entry(source.into()).or_default() += 5;
    }

    /// Counts the values in the windows of each source.
    fn counted(&self) -> BTreeMap<String, u64> {
        // The range extends past the 2 h jump, because a window lies at the times of its events.
        let range = format!("from=-24h&to={}", now_ms() as i64 + 3 * HOUR_MS);
        let found = get(&format!("{}/api/v1/windows?name=latency_ms&window=1m&{range}", self.url)).json();
        let mut counts = BTreeMap::new();
        for window in found["windows"].as_array().cloned().unwrap_or_default() {
            let source = window["source"].as_str().expect("a source").to_string();
            *counts.entry(source).or_default() += window["count"].as_u64().expect("a count");
        }
        counts
    }

    fn wait_for_all(&self) {
        wait_until("what was sent", || self.counted() == self.sent);
        let metrics = get(&format!("{}/metrics", self.url)).body;
        assert!(metrics.contains("streamgauge_events_refused_total{reason=\"too_late\"} 0"), "{metrics}");
        assert!(metrics.contains("streamgauge_events_refused_total{reason=\"future\"} 0"), "{metrics}");
    }

    fn ready(&self) -> Answer {
        get(&format!("{}/readyz", self.url))
    }

    /// Waits until readiness reports that new records wait, and that the cause is a jump of the clock.
    fn wait_for_word_of_the_jump(&self) {
        wait_until("word of the jump", || {
            let ready = self.ready();
            ready.status == 503 && ready.message().contains("clock has jumped")
        });
    }
}

/// Counts the values per source in the windows that a replay of the exported log writes.
fn replayed(data_dir: &Path, dir: &Path) -> BTreeMap<String, u64> {
    let (log, windows) = (dir.join("export.ndjson"), dir.join("windows.ndjson"));
    // A service in this process that has just ended may still hold its data.
    wait_until("the export", || {
        let export = binary().args(["export", "--data-dir"]).arg(data_dir).output().expect("runs");
        std::fs::write(&log, export.stdout).expect("writable");
        export.status.success()
    });
    // The replay runs in a directory that has no directory of rules.
    let mut replay = binary();
    replay.current_dir(data_dir).arg("replay").arg(&log).arg("--windows-out").arg(&windows);
    let replay = replay.output().expect("runs");
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    // The last row of each window is the valid one.
    let mut last = BTreeMap::new();
    for line in std::fs::read_to_string(windows).expect("readable").lines() {
        let window: Value = serde_json::from_str(line).expect("JSON");
        if window["window"] == "1m" && window["name"] == "latency_ms" {
            let source = window["source"].as_str().expect("a source").to_string();
            last.insert((source, window["start"].to_string()), window["count"].as_u64().expect("a count"));
        }
    }
    let mut counts = BTreeMap::new();
    for ((source, _), count) in last {
        *counts.entry(source).or_default() += count;
    }
    counts
}

/// Goal: a clock that is wrong for seconds loses nothing. Events that are sent with true times before,
/// during and after the error are in the windows, also after restarts in between, and a replay agrees.
/// Method: a clock of the test's own.
fn heals(jump_ms: i64) {
    let (runtime, dir) = (Runtime::new().expect("a runtime"), tempfile::tempdir().expect("a directory"));
    let (data_dir, clock) = (dir.path().join("data"), WrongClock::default());
    let service = start(&runtime, &data_dir, &clock);
    let mut sender = Sender { url: format!("http://{}", service.address), sent: BTreeMap::new() };
    sender.send("before", now_ms());
    sender.wait_for_all();
    clock.go_wrong_by(jump_ms);
    // The error lasts longer than a tick, because the wrong clock stamps ticks too.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_500) {
        sender.send("meanwhile", now_ms());
        sender.wait_for_word_of_the_jump();
    }
    assert!(!sender.counted().contains_key("meanwhile"), "nobody knows yet what becomes of it");
    stop(&runtime, service);
    let service = start(&runtime, &data_dir, &clock);
    sender.url = format!("http://{}", service.address);
    sender.wait_for_word_of_the_jump();
    sender.send("after a restart", now_ms());
    clock.go_wrong_by(0);
    sender.send("after", now_ms());
    sender.wait_for_all();
    wait_until("readiness", || sender.ready().status == 200);
    stop(&runtime, service);
    let service = start(&runtime, &data_dir, &clock);
    sender.url = format!("http://{}", service.address);
    sender.wait_for_all();
    sender.send("at last", now_ms());
    sender.wait_for_all();
    wait_until("readiness", || sender.ready().status == 200);
    stop(&runtime, service);
    assert_eq!(replayed(&data_dir, dir.path()), sender.sent);
}

#[test]
fn a_clock_that_is_two_hours_ahead_for_seconds_costs_nothing() {
    heals(2 * HOUR_MS);
}

#[test]
fn a_clock_that_is_a_year_ahead_for_seconds_costs_nothing() {
    heals(400 * DAY_MS);
}

/// Goal: a service that starts with a right clock is not misled if its first event ever comes under a wrong
/// one. Method: nothing is sent before the error.
#[test]
fn a_first_event_under_a_wrong_clock_costs_nothing() {
    let (runtime, dir) = (Runtime::new().expect("a runtime"), tempfile::tempdir().expect("a directory"));
    let clock = WrongClock::default();
    let service = start(&runtime, dir.path(), &clock);
    let mut sender = Sender { url: format!("http://{}", service.address), sent: BTreeMap::new() };
    clock.go_wrong_by(2 * HOUR_MS);
    sender.send("meanwhile", now_ms());
    sender.wait_for_word_of_the_jump();
    clock.go_wrong_by(0);
    sender.send("after", now_ms());
    sender.wait_for_all();
    wait_until("readiness", || sender.ready().status == 200);
    stop(&runtime, service);
}

#[test]
fn a_clock_that_is_behind_for_seconds_costs_nothing() {
    let (runtime, dir) = (Runtime::new().expect("a runtime"), tempfile::tempdir().expect("a directory"));
    let clock = WrongClock::default();
    let service = start(&runtime, dir.path(), &clock);
    let mut sender = Sender { url: format!("http://{}", service.address), sent: BTreeMap::new() };
    for (source, wrong_ms) in
        [("before", 0), ("meanwhile", -2 * HOUR_MS), ("meanwhile", -400 * DAY_MS), ("after", 0)]
    {
        clock.go_wrong_by(wrong_ms);
        sender.send(source, now_ms());
        sender.wait_for_all();
        assert_eq!(sender.ready().status, 200, "{:?}", sender.ready());
    }
    stop(&runtime, service);
}

/// Goal: a jump of real time, as after a night without events, is accepted. Method: the clock keeps running
/// from the time it jumped to for longer than a minute; the events sent then carry those times.
#[test]
fn a_jump_that_lasts_is_believed() {
    let (runtime, dir) = (Runtime::new().expect("a runtime"), tempfile::tempdir().expect("a directory"));
    let clock = WrongClock::default();
    let service = start(&runtime, dir.path(), &clock);
    let mut sender = Sender { url: format!("http://{}", service.address), sent: BTreeMap::new() };
    sender.send("evening", now_ms());
    sender.wait_for_all();
    clock.go_wrong_by(2 * HOUR_MS);
    sender.send("morning", now_ms() + 2 * HOUR_MS as u64);
    sender.wait_for_word_of_the_jump();
    clock.go_wrong_by(2 * HOUR_MS + 61_000);
    sender.send("a minute later", now_ms() + 2 * HOUR_MS as u64 + 61_000);
    sender.wait_for_all();
    assert!(!sender.ready().message().contains("has jumped"), "{:?}", sender.ready());
    stop(&runtime, service);
}

/// Returns the distribution's libfaketime, which tests/run.sh installs.
fn library() -> PathBuf {
    let stated = std::env::var_os("SG_FAKETIME").map(PathBuf::from);
    let below = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found = below.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"));
    let found = stated.into_iter().chain(found).find(|path| path.exists());
    found.expect("libfaketime is not there: tests/run.sh installs it")
}

/// Starts the binary with a time of day whose offset to the true time is read from a file.
fn start_binary(dir: &Path, offset: &Path) -> Process {
    let mut command = binary();
    command.args(["run", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.join("data"));
    command.arg("--pipelines").arg(super::rules(dir));
    command.env("LD_PRELOAD", library()).env("FAKETIME_TIMESTAMP_FILE", offset).env("FAKETIME_NO_CACHE", "1");
    // Older and newer versions of libfaketime use different names. The monotonic clock stays true.
    command.env("DONT_FAKE_MONOTONIC", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    spawn(command)
}

/// Goal: the shipped process recovers in the same way. Method: libfaketime; two seconds of a wrong clock,
/// twice.
#[test]
fn the_process_gets_well_by_itself_when_the_machine_s_clock_was_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let offset = dir.path().join("offset");
    let go_wrong_by = |text: &str| {
        // The file is replaced atomically, because libfaketime reads it with each look at the clock.
        let new = dir.path().join("offset.new");
        std::fs::write(&new, text).expect("writable");
        std::fs::rename(&new, &offset).expect("writable");
    };
    go_wrong_by("+0");
    let service = start_binary(dir.path(), &offset);
    let mut sender = Sender { url: service.url.clone(), sent: BTreeMap::new() };
    wait_until("readiness", || sender.ready().status == 200);
    for text in ["+2h", "+400d"] {
        sender.send("before", now_ms());
        sender.wait_for_all();
        go_wrong_by(text);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            sender.send("meanwhile", now_ms());
            sender.wait_for_word_of_the_jump();
        }
        go_wrong_by("+0");
        sender.send("after", now_ms());
        sender.wait_for_all();
        wait_until("readiness", || sender.ready().status == 200);
    }
    assert_eq!(service.stop(), Some(0));
    let service = start_binary(dir.path(), &offset);
    sender.url = service.url.clone();
    sender.send("after a restart", now_ms());
    sender.wait_for_all();
    assert_eq!(service.stop(), Some(0));
    assert_eq!(replayed(&dir.path().join("data"), dir.path()), sender.sent);
}
