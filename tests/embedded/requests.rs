//! Requests that are repeated, mistyped, or hold events that will not count: what the answer reports.

use super::answer::{self, Answer, ask, get};
use super::edge::now_ms;
use super::rules;
use super::service::{Service, start};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn event(source: &str, time: u64) -> Value {
    json!({"type": "metric", "time": time, "source": source, "name": "latency_ms", "value": 1})
}

fn post(url: &str, key: &str, body: &str) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    ask("POST", &format!("{url}/api/v1/events"), &headers, Some(body))
}

/// Counts the values of a source in its windows, after everything sent before is applied.
fn count(service: &Service, source: &str) -> u64 {
    let marker = format!("behind-{source}-{}", now_ms());
    let sent = answer::post(&format!("{}/api/v1/events", service.url), &event(&marker, now_ms()).to_string());
    assert_eq!(sent.status, 202, "{sent:?}");
    let of = |found: &Value, source: &str| -> u64 {
        let windows = found["windows"].as_array().map(Vec::as_slice).unwrap_or_default();
        let own = windows.iter().filter(|window| window["source"] == source);
        own.filter_map(|window| window["count"].as_u64()).sum()
    };
    let path = "/api/v1/windows?name=latency_ms&window=1h";
    let found = service.wait_for(path, |found| of(found, &marker) == 1);
    of(&found, source)
}

/// Goal: a request that is repeated, at the same time or later, is carried out once, and every client with
/// its idempotency key gets the same answer; a key belongs to one body. Method: sixteen clients at once
/// with one key, small and large payloads.
#[test]
fn requests_with_one_key_are_recorded_once() {
    const CLIENTS: usize = 16;
    let dir = tempfile::tempdir().expect("a directory");
    let service = start(&dir.path().join("data"), &rules(dir.path()));
    let url = service.url.as_str();
    for size in [1u64, 400] {
        let source = format!("s-{size}");
        let body = Value::Array(vec![event(&source, now_ms()); size as usize]).to_string();
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let (source, body) = (source.as_str(), body.as_str());
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| scope.spawn(move || post(url, source, body))).collect();
            clients.into_iter().map(|client| client.join().expect("no panic")).collect()
        });
        let told: BTreeSet<(u16, &str)> = answers.iter().map(|one| (one.status, one.body.as_str())).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((answers[0].status, &answers[0].json()["accepted"]), (202, &json!(size)));
        assert_eq!(post(url, &source, &body).body, answers[0].body, "later, too");
        let other = post(url, &source, &event(&source, now_ms()).to_string());
        assert_eq!(other.status, 422, "{other:?}");
        assert!(other.message().contains("Idempotency-Key"), "{other:?}");
        assert_eq!(
            count(&service, &source),
            size,
            "{CLIENTS} clients with one key, one more, and another body"
        );
    }
    // A failed request does not use up its key.
    assert_eq!(post(url, "again", "{\"type\": 1}").status, 400);
    assert_eq!(post(url, "again", &event("again", now_ms()).to_string()).status, 202);
    let long = "k".repeat(257);
    for key in ["", long.as_str()] {
        assert_eq!(post(url, key, &event("again", now_ms()).to_string()).status, 400);
    }
    assert_eq!(count(&service, "again"), 1);
    assert_eq!(service.stop(), Some(0));
}

/// Goal: a client that does not know the result of its request repeats it, also after a restart of the
/// process. No event is recorded twice, and another body under the same key is refused. Method: requests
/// that race with kill -9.
#[test]
fn requests_with_one_key_are_recorded_once_through_kill_9() {
    const KILLS: u64 = 8;
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let bodies: Vec<String> =
        (0..KILLS).map(|n| json!([event("k", now_ms()), event("k", now_ms() + n), {}]).to_string()).collect();
    for (n, body) in bodies.iter().enumerate() {
        let mut service = start(&data, &rules(dir.path()));
        let answer = post(&service.url, &format!("sure-{n}"), body);
        assert_eq!(answer.status, 202, "{answer:?}");
        let (url, key, body) = (service.url.clone(), format!("racing-{n}"), body.clone());
        let racing = std::thread::spawn(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            // The test needs requests whose answer is uncertain, so the result is ignored.
            let _ = agent.post(format!("{url}/api/v1/events")).header("idempotency-key", &key).send(&body);
        });
        std::thread::sleep(std::time::Duration::from_millis(n as u64 / 2));
        service.child.kill().expect("kill -9");
        service.child.wait().expect("it is dead");
        racing.join().expect("no panic");
    }
    let service = start(&data, &rules(dir.path()));
    for (n, body) in bodies.iter().enumerate() {
        for kind in ["sure", "racing"] {
            for _ in 0..2 {
                let again = post(&service.url, &format!("{kind}-{n}"), body);
                assert_eq!((again.status, &again.json()["accepted"]), (202, &json!(2)), "{again:?}");
                assert_eq!(again.json()["refused"][0]["index"], 2, "{again:?}");
            }
        }
        let other = post(&service.url, &format!("sure-{n}"), &event("k", now_ms()).to_string());
        assert_eq!(other.status, 422, "{other:?}");
    }
    assert_eq!(count(&service, "k"), 4 * KILLS);
    assert_eq!(service.stop(), Some(0));
}

/// Goal: a client learns why its body is refused, also if it sends all of it before it reads the answer.
/// Method: a body above the limit, and a large one with a foreign host name, over a plain socket.
#[test]
fn whoever_sends_too_much_hears_so() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().expect("a directory");
    let service = start(&dir.path().join("data"), &rules(dir.path()));
    let address = service.url.strip_prefix("http://").expect("an address");
    for (host, bytes, status) in [(address, 3usize << 20, "413"), ("example.org", 1 << 20, "403")] {
        let mut socket = std::net::TcpStream::connect(address).expect("it listens");
        let head = format!("POST /api/v1/events HTTP/1.1\r\nHost: {host}\r\nContent-Length: {bytes}\r\n\r\n");
        socket.write_all(head.as_bytes()).expect("taken");
        socket.write_all(&vec![b'x'; bytes]).expect("taken whole");
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"));
    }
    assert_eq!(service.stop(), Some(0));
}

/// The names that a refusal lists after "known here:".
fn listed(message: &str) -> BTreeSet<String> {
    let rest = message.split_once("known here:").map_or("", |(_, rest)| rest);
    let words = rest.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
    words.filter(|word| !word.is_empty() && *word != "or").map(str::to_string).collect()
}

/// Goal: a mistyped parameter is never ignored. Method: each GET of the OpenAPI document with an unknown
/// parameter; the refusal lists the documented ones.
#[test]
fn an_unknown_parameter_of_any_read_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let service = start(&dir.path().join("data"), &rules(dir.path()));
    let document = get(&format!("{}/openapi.json", service.url)).json();
    let mut seen = 0;
    for (path, operations) in document["paths"].as_object().expect("paths") {
        let operation = &operations["get"];
        if !operation.is_object() || path.contains('{') {
            continue;
        }
        let all = operation["parameters"].as_array().cloned().unwrap_or_default();
        let name = |one: &Value| one["name"].as_str().expect("a name").to_string();
        let needed = all.iter().filter(|one| one["required"] == true);
        let needed: String = needed.map(|one| format!("&{}=many", name(one))).collect();
        let found = get(&format!("{}{path}?nonsense=1{needed}", service.url));
        seen += 1;
        if path == "/api/v1/explain" {
            // Further parameters are labels there, and no key has this label.
            assert!(matches!(found.status, 400 | 404), "{path}: {found:?}");
            continue;
        }
        assert_eq!(found.status, 400, "{path}: {found:?}");
        assert!(found.message().contains("nonsense"), "{path}: {found:?}");
        let documented: BTreeSet<String> = all.iter().map(name).collect();
        assert_eq!(listed(&found.message()), documented, "{path}: {found:?}");
    }
    assert!(seen > 10, "only {seen} were asked");
    assert_eq!(service.stop(), Some(0));
}

/// Goal: a client that sends events that will not count learns it at once, with the place and the reason of
/// each. Method: one payload with a current event, an old one, one of tomorrow and an invalid one; then
/// times in other units.
#[test]
fn events_that_will_not_count_are_named_in_the_answer() {
    const HOUR_MS: u64 = 3_600_000;
    let dir = tempfile::tempdir().expect("a directory");
    let service = start(&dir.path().join("data"), &rules(dir.path()));
    let url = format!("{}/api/v1/events", service.url);
    let now = now_ms();
    let all = json!([event("a", now), event("a", now - 3 * HOUR_MS), {"type": "nothing"}, event("a", now + HOUR_MS)]);
    let found = answer::post(&url, &all.to_string());
    let places = |field: &str| -> Vec<(u64, String)> {
        let all = found.json()[field].as_array().cloned().unwrap_or_default();
        let place = |one: &Value| {
            assert!(one["message"].as_str().is_some_and(|message| !message.is_empty()), "{one}");
            (one["index"].as_u64().expect("a place"), one["reason"].as_str().expect("a reason").to_string())
        };
        all.iter().map(place).collect()
    };
    assert_eq!((found.status, &found.json()["accepted"]), (202, &json!(3)));
    assert_eq!(places("doubtful"), [(1, "too_late".to_string()), (3, "future".to_string())]);
    assert_eq!(places("refused"), [(2, "bad_event".to_string())]);
    // The engine refuses the events that the answer called doubtful.
    service.wait_for("/api/v1/dead", |found| {
        let reasons = found["dead"].to_string();
        reasons.contains("too_late") && reasons.contains("future") && reasons.contains("bad_event")
    });
    assert_eq!(count(&service, "a"), 1);
    for (time, unit) in
        [(now / 1_000, "seconds"), (now * 1_000, "microseconds"), (now * 1_000_000, "nanoseconds")]
    {
        let refused = answer::post(&url, &event("a", time).to_string());
        assert_eq!(refused.status, 400, "{unit}: {refused:?}");
        let told = &refused.json()["error"]["details"]["refused"][0];
        assert_eq!(told["reason"], "bad_event", "{refused:?}");
        assert!(told["message"].as_str().is_some_and(|message| message.contains(unit)), "{refused:?}");
    }
    assert_eq!(service.stop(), Some(0));
}
