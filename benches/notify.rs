//! An alert storm with receivers of which some are broken. `cargo bench --bench notify`.
//!
//! One process over its embedded log: 5,000 alerts within about ten seconds, and their ends. Three healthy
//! webhooks receive each transition, one receives grouped messages, one answers 500 and one never answers;
//! the last two are repaired after the storm. The targets run in this process, on the same cores.
//!
//! `cargo bench --bench notify -- dead 3600`: one receiver that does not answer for so many seconds, while
//! ten alerts begin and end each second. It prints the memory each minute, and checks that everything is
//! delivered after the repair.

#[allow(dead_code)] // shared with tests/embedded
#[path = "../tests/embedded/edge.rs"]
mod edge;
#[allow(dead_code)] // shared with tests/embedded
#[path = "../tests/embedded/sink.rs"]
mod sink;

use edge::now_ms;
use serde_json::{Value, json};
use sink::{Mood, Reply, Sink, Taken};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The number of alerts is rules times sources. A rule publishes up to 1,000 alerts; further ones are only
/// counted.
const RULES: usize = 5;
const SOURCES: usize = 1_000;
const ALERTS: usize = RULES * SOURCES;

/// Alerts that begin at once.
const AT_ONCE: usize = 50;

/// The deadline for everything that the benchmark waits for.
const PATIENCE: Duration = Duration::from_secs(400);

static IS_MENDED: AtomicBool = AtomicBool::new(false);

struct Service {
    child: Child,
    url: String,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Alerts that begin each second while a receiver is dead.
const DEAD_RATE: usize = 10;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    match words.iter().position(|word| word == "dead") {
        Some(at) => dead(words.get(at + 1).and_then(|text| text.parse().ok()).expect("dead SECONDS")),
        None => broken(),
    }
}

/// Runs one receiver that does not answer for `seconds`.
fn dead(seconds: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let sink = Sink::start(silent);
    let service = start(dir.path(), [("silent", &sink, "event")].into_iter());
    let begun = Instant::now();
    for second in 0..seconds {
        let first = second * DEAD_RATE;
        let some: Vec<(usize, usize)> =
            (first..first + DEAD_RATE).map(|alert| (alert % RULES, alert / RULES % SOURCES)).collect();
        cause(&service, &some);
        if second % 60 == 59 {
            println!(
                "after {} min: {} MiB, {}",
                (second + 1) / 60,
                resident(&service) >> 20,
                waiting(&service)
            );
        }
        std::thread::park_timeout(Duration::from_secs(second as u64 + 1).saturating_sub(begun.elapsed()));
    }
    IS_MENDED.store(true, Ordering::SeqCst);
    let mended = Instant::now();
    let taken = wait_for(&service, &sink, 2 * seconds * DEAD_RATE);
    println!("has caught up {:.1} s after it was mended", mended.elapsed().as_secs_f64());
    each("silent", &taken, seconds * DEAD_RATE);
}

fn silent(_: usize) -> Reply {
    if IS_MENDED.load(Ordering::SeqCst) { Reply::Status(200) } else { Reply::Hang }
}

fn broken() {
    let dir = tempfile::tempdir().expect("a directory");
    let fine: Mood = |_| Reply::Status(200);
    let refusing: Mood = |_| Reply::Status(if IS_MENDED.load(Ordering::SeqCst) { 200 } else { 500 });
    let all = [
        ("first", "event", fine),
        ("second", "event", fine),
        ("third", "event", fine),
        ("groups", "alertmanager", fine),
        ("refusing", "event", refusing),
        ("silent", "event", silent as Mood),
    ];
    let sinks: Vec<(&str, Sink)> = all.iter().map(|(name, _, mood)| (*name, Sink::start(*mood))).collect();
    let formats = all.iter().map(|(_, format, _)| *format);
    let service =
        start(dir.path(), sinks.iter().zip(formats).map(|((name, sink), format)| (*name, sink, format)));
    let begun = Instant::now();
    storm(&service);
    println!("{ALERTS} alerts were caused within {:.1} s", begun.elapsed().as_secs_f64());
    for (name, sink) in &sinks[..3] {
        let taken = wait_for(&service, sink, 2 * ALERTS);
        each(name, &taken, ALERTS);
    }
    groups(&service, &sinks[3].1);
    println!("memory with two receivers that took nothing: {} MiB", resident(&service) >> 20);
    IS_MENDED.store(true, Ordering::SeqCst);
    let mended = Instant::now();
    for (name, sink) in &sinks[4..] {
        let taken = wait_for(&service, sink, 2 * ALERTS);
        println!("{name}: has caught up {:.1} s after it was mended", mended.elapsed().as_secs_f64());
        each(name, &taken, ALERTS);
    }
}

fn start<'a>(dir: &std::path::Path, sinks: impl Iterator<Item = (&'a str, &'a Sink, &'a str)>) -> Service {
    let (mut receivers, mut routes) = (String::new(), String::new());
    for (name, sink, format) in sinks {
        receivers += &format!(
            "  - {{ name: {name}, webhook: {{ url: '{}', format: {format}, timeout: 1s, allow: [127.0.0.1] }} }}\n",
            sink.url
        );
        routes += &format!("    - {{ receiver: {name}, continue: true }}\n");
    }
    let config = format!(
        "receivers:\n{receivers}route:\n  receiver: log\n  group_by: [rule]\n  group_wait: 1s\n  group_interval: 5s\n  routes:\n{routes}"
    );
    let mut rules = "version: 1\nrules:\n".to_string();
    for rule in 0..RULES {
        rules += &format!(
            "  - {{ id: many{rule}, expr: 'count(m{rule}[10s]) by (source) > 50', severity: info, keep_firing_for: 1s }}\n"
        );
    }
    let pipelines = dir.join("pipelines");
    std::fs::create_dir_all(&pipelines).expect("writable");
    std::fs::write(pipelines.join("rules.yaml"), rules).expect("writable");
    std::fs::write(dir.join("streamgauge.yaml"), config).expect("writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.args(["run", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.join("data"));
    command.arg("--pipelines").arg(pipelines).arg("--config").arg(dir.join("streamgauge.yaml"));
    command.env_remove("NATS_URL").env_remove("REDIS_URL").env("RUST_LOG", "info");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let address = lines.by_ref().find_map(|line| {
        let entry: Value = serde_json::from_str(&line).ok()?;
        Some(entry["fields"]["address"].as_str()?.to_string())
    });
    std::thread::spawn(move || lines.for_each(drop));
    Service { child, url: format!("http://{}", address.expect("it listens")) }
}

/// Causes the alerts in batches, evenly over ten seconds.
fn storm(service: &Service) {
    let pause = Duration::from_secs(10) / (ALERTS / AT_ONCE) as u32;
    let alerts: Vec<(usize, usize)> =
        (0..SOURCES).flat_map(|source| (0..RULES).map(move |rule| (rule, source))).collect();
    for some in alerts.chunks(AT_ONCE) {
        let begun = Instant::now();
        cause(service, some);
        std::thread::park_timeout(pause.saturating_sub(begun.elapsed()));
    }
}

fn cause(service: &Service, alerts: &[(usize, usize)]) {
    // A value must be logged in the pane of ten seconds that its time belongs to; otherwise no trailing
    // window of ten seconds contains it.
    while !(200..9_500).contains(&(now_ms() % 10_000)) {
        edge::pause();
    }
    let event = |(rule, source): &(usize, usize)| {
        json!({"type": "samples", "source": format!("s{source}"), "name": format!("m{rule}"),
            "times": vec![now_ms(); 60], "values": vec![1; 60]})
    };
    let body = Value::Array(alerts.iter().map(event).collect()).to_string();
    let answer = ureq::post(format!("{}/api/v1/events", service.url)).send(body).expect("accepted");
    assert_eq!(answer.status(), 202);
}

fn wait_for(service: &Service, sink: &Sink, count: usize) -> Vec<Taken> {
    let deadline = Instant::now() + PATIENCE;
    while sink.count() < count {
        let is_late = Instant::now() >= deadline;
        assert!(!is_late, "it stays at {} of {count}: {}", sink.count(), counters(service));
        std::thread::park_timeout(Duration::from_millis(100));
    }
    sink.taken()
}

/// Metrics of the service, printed when an expected event does not happen.
fn counters(service: &Service) -> String {
    let mut answer = ureq::get(format!("{}/metrics", service.url)).call().expect("answers");
    let text = answer.body_mut().read_to_string().expect("text");
    let is_ours = |line: &&str| {
        ["notify", "transitions", "alerts", "late", "events"].iter().any(|part| line.contains(part))
    };
    let lines =
        text.lines().filter(|line| !line.starts_with('#') && !line.contains("bucket")).filter(is_ours);
    lines.collect::<Vec<&str>>().join("\n")
}

/// The service's metrics of the notifications that wait for the silent receiver.
fn waiting(service: &Service) -> String {
    let is_it = |line: &&str| line.contains("notify_waiting{") || line.contains("notify_full{");
    let of_it = |line: &&str| line.contains("silent");
    counters(service).lines().filter(is_it).filter(of_it).collect::<Vec<&str>>().join(", ")
}

/// Checks what a receiver of transitions got: all of them, in order, and how fast.
fn each(name: &str, taken: &[Taken], alerts: usize) {
    let mut told: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for one in taken {
        told.entry(one.body["id"].as_str().expect("an id"))
            .or_default()
            .push(one.body["seq"].as_u64().expect("a seq"));
    }
    assert!(told.values().all(|seqs| *seqs == [0, 1]), "{name}: in order, once");
    assert_eq!(told.len(), alerts);
    let mut late: Vec<i64> = taken
        .iter()
        .map(|one| {
            let at: chrono::DateTime<chrono::Utc> =
                one.body["at"].as_str().expect("a time").parse().expect("a time");
            one.at_ms as i64 - at.timestamp_millis()
        })
        .collect();
    late.sort_unstable();
    let (p50, p99) = (late[late.len() / 2], late[late.len() * 99 / 100]);
    // The busiest second shows the throughput; in the others the receiver waits for alerts.
    let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
    taken.iter().for_each(|one| *seconds.entry(one.at_ms / 1_000).or_default() += 1);
    let most = seconds.values().max().expect("some");
    println!(
        "{name}: {} transitions, each once and in order; from grid point to target p50 {p50} ms, p99 {p99} ms; \
         busiest second {most}",
        taken.len()
    );
}

/// Checks what a receiver of groups got: few messages that contain every alert.
fn groups(service: &Service, sink: &Sink) {
    let deadline = Instant::now() + PATIENCE;
    let ended = |taken: &[Taken]| -> usize {
        let mut all: BTreeMap<String, bool> = BTreeMap::new();
        for one in taken {
            for alert in one.body["alerts"].as_array().expect("alerts") {
                all.insert(alert["labels"].to_string(), alert["status"] == "resolved");
            }
        }
        all.values().filter(|is_over| **is_over).count()
    };
    while ended(&sink.taken()) < ALERTS {
        let taken = sink.taken();
        let of = |one: &Taken| {
            let alerts = one.body["alerts"].as_array().expect("alerts");
            let firing = alerts.iter().filter(|alert| alert["status"] == "firing").count();
            (one.at_ms % 1_000_000, firing, alerts.len() - firing)
        };
        let sizes: Vec<_> = taken.iter().map(of).collect();
        assert!(
            Instant::now() < deadline,
            "{} of {ALERTS} ends are told, in {sizes:?}: {}",
            ended(&taken),
            counters(service)
        );
        std::thread::park_timeout(Duration::from_millis(500));
    }
    println!("groups: {} alerts and their ends in {} messages", ALERTS, sink.taken().len());
}

/// Resident memory of the service in bytes.
fn resident(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.child.id())).expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
}
