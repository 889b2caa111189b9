//! A store that answers but refuses writes: a replica after a failover, or a full store.

use crate::answer::{self, get};
use crate::edge::now_ms;
use crate::load::give_log_room;
use crate::servers::{Servers, Worker, free_port, tell_store, wait_for};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn send(worker: &Worker, count: usize) {
    let event =
        json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms", "value": 1});
    let body = Value::Array(vec![event; count]).to_string();
    let answer = answer::post(&format!("{}/api/v1/events", worker.url), &body);
    assert_eq!(answer.status, 202, "the broker takes what the store cannot: {answer:?}");
}

fn wait_until_ready(worker: &Worker) {
    wait_for("readiness", worker, || (get(&format!("{}/readyz", worker.url)).status == 200).then_some(()));
}

fn wait_for_count(worker: &Worker, wanted: u64) {
    wait_for("exact counts", worker, || worker.counts().filter(|counts| counts.get("s-0") == Some(&wanted)));
}

/// Waits until `/readyz` reports the outage of a server. Returns its beginning, in ms since 1970.
fn wait_for_outage(worker: &Worker, place: &str) -> i64 {
    wait_for("the outage", worker, || {
        let found = get(&format!("{}/readyz", worker.url)).json();
        let outage = &found["error"]["details"]["outages"][0];
        let since = chrono::DateTime::parse_from_rfc3339(outage["since"].as_str()?).ok()?;
        (outage["place"] == place).then(|| since.timestamp_millis())
    })
}

/// Asserts that the outage is one, however many reads succeed meanwhile: it is logged once and keeps its
/// beginning.
fn assert_lasts(worker: &Worker, place: &str, said: usize) {
    let since = wait_for_outage(worker, place);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        // The time is converted to this machine's clock, so a few milliseconds are rounding.
        let now = wait_for_outage(worker, place);
        assert!((now - since).abs() < 100, "it began at {since}, and again at {now}");
        assert!(worker.get("/api/v1/alerts/log").is_some(), "what can be read is answered");
    }
    let log = worker.log.lock().expect("no panic").clone();
    let told =
        log.lines().filter(|line| line.contains("unavailable; waiting for it") && line.contains(place));
    assert_eq!(told.count(), said, "{log}");
}

/// Goal: a store that refuses writes is waited for like an unavailable one: no exit, one line in the log,
/// and normal operation once it accepts writes again. Method: a replica without a master at the start, and
/// later; then a full store.
#[test]
fn a_store_that_refuses_to_write_is_waited_for() {
    let servers = Servers::start("everysec");
    let (place, nowhere) = (format!("redis://127.0.0.1:{}", servers.redis_port), free_port().to_string());
    tell_store(&servers, &["REPLICAOF", "127.0.0.1", &nowhere]);
    let mut worker = servers.worker("1s");
    wait_for_outage(&worker, &place);
    assert_lasts(&worker, &place, 1);
    assert!(worker.process.0.try_wait().expect("a child").is_none(), "it ends instead of waiting");
    tell_store(&servers, &["REPLICAOF", "NO", "ONE"]);
    wait_until_ready(&worker);
    send(&worker, 5);
    wait_for_count(&worker, 5);
    tell_store(&servers, &["REPLICAOF", "127.0.0.1", &nowhere]);
    send(&worker, 3);
    assert_lasts(&worker, &place, 2);
    tell_store(&servers, &["REPLICAOF", "NO", "ONE"]);
    wait_until_ready(&worker);
    wait_for_count(&worker, 8);
    tell_store(&servers, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    tell_store(&servers, &["CONFIG", "SET", "maxmemory", "1"]);
    send(&worker, 2);
    assert_lasts(&worker, &place, 3);
    tell_store(&servers, &["CONFIG", "SET", "maxmemory", "0"]);
    wait_until_ready(&worker);
    wait_for_count(&worker, 10);
    assert_eq!(worker.stop(), Some(0));
}

/// Goal: nothing is accepted that the broker cannot take. Method: a broker with a small `max_payload`; a body
/// above it, a rule set whose record fits only when it is compressed, and one that does not fit at all.
#[test]
fn what_the_broker_is_too_small_for_is_refused_or_compressed() {
    let servers = Servers::start_mapped("everysec", Some(b"max_payload: 65536\n".to_vec()));
    let worker = servers.worker("1s");
    wait_until_ready(&worker);
    let event =
        json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms", "value": 1});
    let body = Value::Array(vec![event; 1_000]).to_string();
    let answer = answer::post(&format!("{}/api/v1/events", worker.url), &body);
    assert!(answer.status == 413 && answer.body.contains("too_large"), "{answer:?}");
    send(&worker, 100);
    wait_for_count(&worker, 100);
    let rules = |count: usize, name: &str| {
        // Names that do not compress.
        let name_of = |n: usize| format!("x{:x}", (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let rule = |n: usize| {
            let expr = format!("max({}[1m]) by (source) > {n}", name_of(n));
            json!({"id": format!("r{n}"), "severity": "info", "expr": expr})
        };
        let text = json!({"rules": (0..count).map(rule).collect::<Vec<_>>()}).to_string();
        answer::post(&format!("{}/api/v1/rules?name={name}", worker.url), &text)
    };
    assert_eq!(rules(500, "some").status, 202);
    wait_for("the rules", &worker, || {
        let found = get(&format!("{}/api/v1/rules", worker.url)).json();
        (found["rules"].as_array()?.len() > 500).then_some(())
    });
    let answer = rules(5_000, "some");
    assert_eq!(answer.status, 413, "{:.300}", answer.body);
    assert!(answer.body.contains("max_payload"), "{}", answer.body);
    wait_until_ready(&worker);
    assert_eq!(worker.stop(), Some(0));
}

/// Goal: a process that owns no partition reports a full log as soon as it notices, and becomes ready again
/// by itself. Method: a process that only answers requests; the log is full, an event is sent, and there is
/// room again.
#[test]
fn a_log_without_room_is_said_by_whoever_met_it() {
    let servers = Servers::start("everysec");
    let (ingest, api) = (servers.worker_as("ingest"), servers.worker_as("api"));
    wait_for("ownership", &ingest, || (ingest.owned() == 1).then_some(()));
    wait_until_ready(&api);
    send(&api, 1);
    wait_for_count(&api, 1);
    assert_eq!(ingest.stop(), Some(0));
    give_log_room(&servers, Some(1));
    let event =
        json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms", "value": 1});
    let answer = answer::post(&format!("{}/api/v1/events", api.url), &event.to_string());
    assert_eq!(answer.status, 503, "{answer:?}");
    wait_for("the name of the log", &api, || {
        let found = get(&format!("{}/readyz", api.url));
        (found.status == 503 && found.body.contains("SG_EVENTS_0")).then_some(())
    });
    give_log_room(&servers, None);
    wait_until_ready(&api);
    let ingest = servers.worker_as("ingest");
    send(&api, 1);
    wait_for_count(&api, 2);
    assert_eq!(ingest.metric("streamgauge_events_received_total "), Some(2), "the look itself is no event");
    assert_eq!((ingest.stop(), api.stop()), (Some(0), Some(0)));
}
