//! Servers that are unavailable at the start, later, or forever: what the service reports meanwhile, and
//! how it ends.

use crate::answer::{self, Answer, get, quickly};
use crate::edge::{now_ms, pause};
use crate::servers::{Servers, Worker, wait_for, wait_with_log};
use serde_json::{Value, json};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time limits for answers to a probe and to any other request, whatever is unavailable.
const PROBED_WITHIN: Duration = Duration::from_millis(300);
const ANSWERED_WITHIN: Duration = Duration::from_millis(500);

/// Time limit for the very first answer, before the outage is detected.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// Time that the process has to end, and the allowance for a busy machine.
const GRACE: &str = "3s";
const ENDED_WITHIN: Duration = Duration::from_millis(3_800);

/// Maximum lines of the log about one unavailable server: retries are not logged one by one.
const LINES_MAX: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Away {
    Nats,
    Redis,
    Both,
}

impl Away {
    fn has_nats(self) -> bool {
        self != Away::Redis
    }

    fn has_redis(self) -> bool {
        self != Away::Nats
    }

    /// Kills the servers with kill -9.
    fn take(self, servers: &mut Servers) {
        if self.has_nats() {
            servers.nats = None;
        }
        if self.has_redis() {
            servers.redis = None;
        }
    }

    fn bring_back(self, servers: &mut Servers) {
        if self.has_nats() {
            servers.start_nats();
        }
        if self.has_redis() {
            servers.start_redis();
        }
    }

    /// The servers' addresses as they are displayed.
    fn places(self, servers: &Servers) -> Vec<String> {
        let nats = self.has_nats().then(|| servers.nats_url());
        let redis = self.has_redis().then(|| format!("redis://127.0.0.1:{}", servers.redis_port));
        nats.into_iter().chain(redis).collect()
    }
}

fn start(servers: &Servers) -> Worker {
    let mut command = servers.command("1s", 1);
    command.args(["--grace", GRACE]);
    Worker::start(command)
}

fn events(count: usize) -> String {
    let event =
        json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms", "value": 1});
    Value::Array(vec![event; count]).to_string()
}

/// Sends events without a retry. Returns how many were acknowledged.
fn send(worker: &Worker, count: usize) -> u64 {
    let answer = answer::post(&format!("{}/api/v1/events", worker.url), &events(count));
    if answer.status == 202 { count as u64 } else { 0 }
}

fn wait_until_ready(worker: &Worker) {
    wait_for("readiness", worker, || (get(&format!("{}/readyz", worker.url)).status == 200).then_some(()));
}

fn wait_for_count(worker: &Worker, wanted: u64) {
    wait_for("exact counts", worker, || {
        worker.counts().filter(|counts| counts.get("s-0").copied().unwrap_or(0) == wanted)
    });
}

/// Asserts that a probe names an unavailable server by its address, with the time since when.
fn assert_named(ready: &Answer, place: &str, killed_ms: u64) {
    assert_eq!(ready.status, 503, "{ready:?}");
    let details = &ready.json()["error"]["details"]["outages"];
    let outage = details.as_array().and_then(|all| all.iter().find(|outage| outage["place"] == place));
    let outage = outage.unwrap_or_else(|| panic!("{place} is not named: {ready:?}"));
    let since = outage["since"].as_str().and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
    let since = since.unwrap_or_else(|| panic!("no time: {ready:?}")).timestamp_millis() as u64;
    // The time is converted to this machine's clock, so a few milliseconds are rounding.
    assert!((killed_ms.saturating_sub(100)..=now_ms()).contains(&since), "since {since}: {ready:?}");
}

/// Each GET of the API, with its required parameters.
fn reads(worker: &Worker) -> Vec<String> {
    let document = get(&format!("{}/openapi.json", worker.url)).json();
    let mut reads = Vec::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        if !operations["get"].is_object() || path.contains('{') {
            continue;
        }
        let parameters = operations["get"]["parameters"].as_array().cloned().unwrap_or_default();
        let needed = parameters.iter().filter(|one| one["required"] == true);
        let needed = needed.filter_map(|one| Some(format!("{}=busy", one["name"].as_str()?)));
        reads.push(format!("{path}?{}", needed.collect::<Vec<_>>().join("&")));
    }
    assert!(reads.len() > 10, "{reads:?}");
    reads
}

/// Asserts what clients see while servers are unavailable.
fn assert_told(worker: &Worker, servers: &Servers, away: Away, killed_ms: u64) {
    let at = |path: &str| format!("{}{path}", worker.url);
    assert_eq!(quickly(PROBED_WITHIN, || get(&at("/healthz"))).status, 200);
    let ready = quickly(PROBED_WITHIN, || get(&at("/readyz")));
    for place in away.places(servers) {
        assert_named(&ready, &place, killed_ms);
    }
    assert_eq!(quickly(ANSWERED_WITHIN, || get(&at("/metrics"))).status, 200);
    for path in reads(worker) {
        let answer = quickly(ANSWERED_WITHIN, || get(&at(&path)));
        assert!(matches!(answer.status, 200 | 400 | 404 | 503), "{path}: {answer:?}");
        let is_named = away.places(servers).iter().any(|place| answer.message().contains(place));
        assert!(answer.status != 503 || is_named, "{path} does not say what is away: {answer:?}");
    }
}

/// Asserts that events are refused while the broker is unavailable, with a time for the retry.
fn assert_refused(worker: &Worker) {
    let url = format!("{}/api/v1/events", worker.url);
    let answer = quickly(ANSWERED_WITHIN, || answer::post(&url, &events(1)));
    assert_eq!((answer.status, answer.retry_after.is_some()), (503, true), "{answer:?}");
}

/// Asserts that the log reports an unavailable server once, and not at each attempt.
fn assert_logged_once(worker: &Worker, servers: &Servers, away: Away) {
    let log = worker.log.lock().expect("no panic").clone();
    for place in away.places(servers) {
        let told = log.lines().filter(|line| line.contains("unavailable; waiting for it"));
        assert_eq!(told.filter(|line| line.contains(&place)).count(), 1, "{place}: {log}");
    }
    let is_about = |line: &&str| {
        ["IO error", "refused", "no answer", "cannot be reached", "end of file", "Broken pipe"]
            .iter()
            .any(|word| line.contains(word))
    };
    let about: Vec<&str> = log.lines().filter(is_about).collect();
    let count = away.places(servers).len() * LINES_MAX;
    assert!(about.len() <= count, "{} lines about it, as {:?}", about.len(), about.last());
}

/// Sends SIGTERM and asserts that the process ends in time with exit code 0.
fn assert_ends(mut worker: Worker) {
    worker.signal("-TERM");
    let begun = Instant::now();
    let code = loop {
        if let Some(status) = worker.process.0.try_wait().expect("a child") {
            break status.code();
        }
        assert!(begun.elapsed() < ENDED_WITHIN, "it does not end: {}", worker.log.lock().expect("no panic"));
        pause();
    };
    assert_eq!(code, Some(0), "{}", worker.log.lock().expect("no panic"));
    let log = worker.log.lock().expect("no panic");
    assert!(!log.contains("panicked"), "{log}");
}

/// Goal: a process that starts without its servers reports it at once, and ends on SIGTERM. Method: each
/// server stopped before the start; first one request, then requests of all kinds; SIGTERM.
fn starts_without(away: Away) {
    let mut servers = Servers::start("everysec");
    away.take(&mut servers);
    let killed_ms = now_ms();
    let worker = start(&servers);
    let first = get(&format!("{}/readyz", worker.url));
    assert_eq!(first.status, 503, "{first:?}");
    assert!(first.took < FIRST_WITHIN, "{first:?}");
    wait_for("the outage", &worker, || {
        let ready = get(&format!("{}/readyz", worker.url));
        away.places(&servers).iter().all(|place| ready.body.contains(place)).then_some(())
    });
    assert_told(&worker, &servers, away, killed_ms);
    if away.has_nats() {
        assert_refused(&worker);
    }
    // This leaves time for many retries.
    let begun = Instant::now();
    wait_for("retries", &worker, || (begun.elapsed() > Duration::from_secs(2)).then_some(()));
    assert_logged_once(&worker, &servers, away);
    assert_ends(worker);
}

#[test]
fn a_start_without_redis_is_told_at_once() {
    starts_without(Away::Redis);
}

#[test]
fn a_start_without_nats_is_told_at_once() {
    starts_without(Away::Nats);
}

#[test]
fn a_start_without_both_is_told_at_once() {
    starts_without(Away::Both);
}

/// Goal: an outage is reported and waited for, and no acknowledged event is lost. Method: kill -9 of each
/// server under a working service; requests of all kinds; a restart; counts compared with the
/// acknowledgements.
fn survives_without(away: Away) {
    let mut servers = Servers::start("always");
    // A worker that starts before its servers would report an outage of its own.
    for port in [servers.nats_port, servers.redis_port] {
        wait_with_log("the servers", &Mutex::default(), || TcpStream::connect(("127.0.0.1", port)).ok());
    }
    let worker = start(&servers);
    wait_until_ready(&worker);
    let mut sent = send(&worker, 5);
    wait_for_count(&worker, 5);
    away.take(&mut servers);
    let killed_ms = now_ms();
    wait_for("the outage", &worker, || {
        let ready = get(&format!("{}/readyz", worker.url));
        away.places(&servers).iter().all(|place| ready.body.contains(place)).then_some(())
    });
    assert!(now_ms() - killed_ms < 3_000, "told {} ms later", now_ms() - killed_ms);
    assert_told(&worker, &servers, away, killed_ms);
    if away.has_nats() {
        assert_refused(&worker);
    } else {
        sent += send(&worker, 3);
        assert_eq!(sent, 8, "the broker is there: events are taken");
    }
    away.bring_back(&mut servers);
    wait_until_ready(&worker);
    let more = send(&worker, 7);
    assert_eq!(more, 7, "ready means that events are taken");
    wait_for_count(&worker, sent + more);
    let log = worker.log.lock().expect("no panic").clone();
    for place in away.places(&servers) {
        let told = log.lines().filter(|line| line.contains("available again") && line.contains(&place));
        assert_eq!(told.count(), 1, "{place}: {log}");
    }
    assert_logged_once(&worker, &servers, away);
    assert_ends(worker);
}

#[test]
fn redis_goes_and_comes_back() {
    survives_without(Away::Redis);
}

#[test]
fn nats_goes_and_comes_back() {
    survives_without(Away::Nats);
}

#[test]
fn both_go_and_come_back() {
    survives_without(Away::Both);
}

/// Goal: a process ends in time while both servers are unavailable, and the next process finds all
/// acknowledged events. Method: both servers killed under load, SIGTERM, then new servers and another
/// process.
#[test]
fn a_process_ends_while_both_are_away_and_loses_nothing() {
    let mut servers = Servers::start("always");
    let worker = start(&servers);
    wait_until_ready(&worker);
    let sent: u64 = (0..20).map(|_| send(&worker, 50)).sum();
    assert_eq!(sent, 1_000);
    Away::Both.take(&mut servers);
    assert_ends(worker);
    Away::Both.bring_back(&mut servers);
    let worker = start(&servers);
    wait_for_count(&worker, sent);
    assert_ends(worker);
}

/// Goal: a server that accepts connections but does not answer is also reported. Method: SIGSTOP; `/readyz`
/// until it names the server, then requests of all kinds.
fn is_told_of_one_that_hangs(away: Away) {
    /// Time limit of an answer before the outage is detected, and time limit of the detection.
    const CUT_WITHIN: Duration = Duration::from_secs(3);
    const KNOWN_WITHIN: Duration = Duration::from_secs(12);
    let servers = Servers::start("everysec");
    let worker = start(&servers);
    wait_until_ready(&worker);
    let stopped = if away.has_nats() { &servers.nats } else { &servers.redis };
    let pid = stopped.as_ref().expect("it runs").0.id().to_string();
    let kill = std::process::Command::new("kill").args(["-STOP", &pid]).status();
    assert!(kill.expect("kill").success());
    let (begun, stopped_ms) = (Instant::now(), now_ms());
    let ready = loop {
        let ready = get(&format!("{}/readyz", worker.url));
        assert!(ready.took < CUT_WITHIN, "{ready:?}");
        // Until the outage is detected, the service may be ready or busy.
        if ready.body.contains(&away.places(&servers)[0]) {
            break ready;
        }
        assert!(begun.elapsed() < KNOWN_WITHIN, "nobody notices: {ready:?}");
        let sent = answer::post(&format!("{}/api/v1/events", worker.url), &events(1));
        assert!(sent.took < CUT_WITHIN, "{sent:?}");
        assert!(sent.status == 202 || sent.retry_after.is_some(), "{sent:?}");
    };
    assert_named(&ready, &away.places(&servers)[0], stopped_ms);
    assert_told(&worker, &servers, away, stopped_ms);
    assert_ends(worker);
}

#[test]
fn redis_that_hangs_is_told() {
    is_told_of_one_that_hangs(Away::Redis);
}

#[test]
fn nats_that_hangs_is_told() {
    is_told_of_one_that_hangs(Away::Nats);
}
