//! Messages that the client library cannot parse: subjects that are not UTF-8, and malformed headers. The
//! broker accepts them from any client that may publish.

use crate::answer::{self, get};
use crate::edge::now_ms;
use crate::servers::{Servers, Worker, wait_for};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A raw connection to the broker that can send what no client library sends.
pub struct Raw(BufReader<TcpStream>);

impl Raw {
    fn connect(servers: &Servers) -> Raw {
        Raw::connect_as(servers, "", "")
    }

    pub fn connect_as(servers: &Servers, user: &str, password: &str) -> Raw {
        let address = servers.nats_url().trim_start_matches("nats://").to_string();
        let stream = TcpStream::connect(address).expect("a broker");
        stream.set_nodelay(true).expect("a socket");
        let mut raw = Raw(BufReader::new(stream));
        let options = json!({"verbose": false, "headers": true, "user": user, "pass": password});
        raw.send(format!("CONNECT {options}\r\n").as_bytes());
        raw
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("sent");
    }

    /// Waits until the broker has taken everything sent before.
    fn flush(&mut self) {
        self.send(b"PING\r\n");
        let mut line = String::new();
        while !line.starts_with("PONG") {
            line.clear();
            assert!(self.0.read_line(&mut line).expect("the broker answers") > 0, "it hung up");
            assert!(!line.starts_with("-ERR"), "{line}");
        }
    }

    pub fn publish(&mut self, subject: &[u8], reply: &[u8], headers: &[u8], payload: &str) {
        let sizes = format!("{} {}", headers.len(), headers.len() + payload.len());
        let (verb, sizes) = match headers {
            [] => ("PUB", payload.len().to_string()),
            _ => ("HPUB", sizes),
        };
        let parts = [verb.as_bytes(), subject, reply, sizes.as_bytes()];
        let head: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        self.send(&[&head.join(&b' ')[..], b"\r\n", headers, payload.as_bytes(), b"\r\n"].concat());
        self.flush();
    }
}

fn event(value: u64) -> String {
    let (time, of) = (now_ms(), r#""source":"s-0","name":"latency_ms""#);
    format!(r#"{{"type":"metric","time":{time},{of},"value":{value}}}"#)
}

const SUBJECT: &[u8] = b"sg.v1.metric.s-0.latency_ms";

/// Subjects and headers of events that the client library cannot parse.
const UNREADABLE: [(&[u8], &[u8]); 8] = [
    (b"sg.v1.metric.\xff.x", b""),
    (b"sg.v1.metric.\xff.x", b"NATS/1.0\r\nA: b\r\n\r\n"),
    (SUBJECT, b"NATS/1.0\r\nabc\r\n\r\n"),
    (SUBJECT, b"NATS/1.0\r\nA: \xff\xfe\r\n\r\n"),
    (SUBJECT, b"NATS/1.0\r\n\xff: a\r\n\r\n"),
    (SUBJECT, b"NATS/2.0\r\nA: b\r\n\r\n"),
    (SUBJECT, b"\x00\x01\x02\x03"),
    (SUBJECT, b"NATS/1.0 404 No Messages\r\n\r\n"),
];

fn wait_for_count(worker: &Worker, wanted: u64) {
    wait_for("the events", worker, || worker.counts().filter(|counts| counts.get("s-0") == Some(&wanted)));
}

/// Goal: any event that the broker accepts is counted, those behind it are too, and an export contains
/// them. Method: each kind alone and before a valid event, then a thousand of them; a kill -9 and another
/// worker after that.
#[test]
fn nobody_stops_a_log_with_a_message() {
    let servers = Servers::start("everysec");
    let mut worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    let (mut raw, mut wanted) = (Raw::connect(&servers), 0);
    for (subject, headers) in UNREADABLE {
        raw.publish(subject, b"", headers, &event(1));
        raw.publish(SUBJECT, b"", b"", &event(1));
        wanted += 2;
        wait_for_count(&worker, wanted);
    }
    let begun = Instant::now();
    for n in 0..1_000 {
        let (subject, headers) = UNREADABLE[n % 7];
        raw.publish(
            if n % 10 == 0 { SUBJECT } else { subject },
            b"",
            if n % 10 == 0 { b"" } else { headers },
            &event(1),
        );
    }
    wanted += 1_000;
    wait_for_count(&worker, wanted);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(get(&format!("{}/readyz", worker.url)).status, 200);
    let log = worker.log.lock().expect("no panic").clone();
    assert!(log.matches("\"WARN\"").count() < 10, "{log}");
    worker.process.0.kill().expect("kill -9");
    worker.process.0.wait().expect("it is dead");
    let worker = servers.worker("1s");
    raw.publish(SUBJECT, b"", b"", &event(1));
    wait_for_count(&worker, wanted + 1);
    assert_eq!(worker.stop(), Some(0));
    let mut export = std::process::Command::new("timeout");
    export.args(["60", env!("CARGO_BIN_EXE_streamgauge"), "export", "--nats", &servers.nats_url()]);
    let done = export.output().expect("coreutils");
    let text = String::from_utf8_lossy(&done.stdout);
    let events = text.lines().filter(|line| line.contains("s-0")).count() as u64;
    assert_eq!(
        (done.status.code(), events),
        (Some(0), wanted + 1),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// Goal: no message can keep an alert from its receivers. Method: the broker's own acknowledgements are
/// directed into the alert stream, under a subject that is not UTF-8; the alert behind them is delivered,
/// also after a kill -9 of the worker.
#[test]
fn nobody_silences_a_receiver_with_a_message() {
    let servers = Servers::start("everysec");
    let dir = tempfile::tempdir().expect("a directory");
    let (file, config) = (dir.path().join("alerts.ndjson"), dir.path().join("streamgauge.yaml"));
    let text =
        format!("receivers: [{{ name: file, log: {{ path: {file:?} }} }}]\nroute: {{ receiver: file }}\n");
    std::fs::write(&config, text).expect("writable");
    let start = || {
        let mut command = servers.command("1s", 1);
        command.arg("--config").arg(&config);
        Worker::start(command)
    };
    let told = |source: &str| {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.lines().any(|line| line.contains(source) && line.contains("firing"))
    };
    let slow = |source: &str| {
        let (time, name) = (now_ms(), "latency_ms");
        json!({"type": "metric", "time": time, "source": source, "name": name, "value": 2_000}).to_string()
    };
    let mut worker = start();
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    let mut raw = Raw::connect(&servers);
    for (round, source) in ["first", "second"].into_iter().enumerate() {
        for n in 0..100 {
            let reply =
                [&b"sg.v1.alert.critical.\xff.0."[..], (round * 100 + n).to_string().as_bytes()].concat();
            raw.publish(SUBJECT, &reply, b"", &event(1));
        }
        let sent = answer::post(&format!("{}/api/v1/events", worker.url), &slow(source));
        assert_eq!(sent.status, 202, "{sent:?}");
        wait_for("the alert", &worker, || told(source).then_some(()));
        worker.process.0.kill().expect("kill -9");
        worker.process.0.wait().expect("it is dead");
        worker = start();
        wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    }
    assert_eq!(worker.stop(), Some(0));
}

/// Goal: a control record of a newer version is not skipped, because its rules or acknowledgements would be missing.
/// Bytes that no version wrote are. Method: both are put into the log; an event comes behind each.
#[test]
fn a_control_of_a_newer_version_stops_its_partition_by_name() {
    let servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    let mut raw = Raw::connect(&servers);
    raw.publish(b"sg.v1.p.0.control", b"", b"", "{\"nonsense\":true}");
    raw.publish(SUBJECT, b"", b"", &event(1));
    wait_for_count(&worker, 1);
    raw.publish(b"sg.v1.p.0.control", b"", b"", "{\"v\":2,\"wonder\":{}}");
    raw.publish(SUBJECT, b"", b"", &event(1));
    let said = "is a control of version 2, and this binary reads up to 1";
    wait_for("word of it", &worker, || {
        let ready = get(&format!("{}/readyz", worker.url));
        (ready.status == 503 && ready.body.contains(said) && ready.body.contains("control record"))
            .then_some(())
    });
    assert_eq!(worker.stop(), Some(0));
}

/// Goal: a request with an invalid reply subject affects only requests over the broker. Method: a hundred a
/// second, while events are posted and readiness is checked.
#[test]
fn nobody_is_away_because_of_a_question() {
    let servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    wait_for("readiness", &worker, || (get(&format!("{}/readyz", worker.url)).status == 200).then_some(()));
    let mut raw = Raw::connect(&servers);
    for n in 0..200 {
        let subject: &[u8] = if n % 2 == 0 { b"$SRV.PING" } else { b"sg.v1.api.alerts" };
        raw.publish(subject, b"_INBOX.\xff.1", b"", "");
        let sent = answer::post(&format!("{}/api/v1/events", worker.url), &event(1));
        assert_eq!(sent.status, 202, "{sent:?}");
        let ready = get(&format!("{}/readyz", worker.url));
        assert_eq!(ready.status, 200, "{}", ready.body);
        std::thread::sleep(Duration::from_millis(10));
    }
    wait_for_count(&worker, 200);
    let log = worker.log.lock().expect("no panic").clone();
    assert!(log.matches("\"WARN\"").count() < 10, "{log}");
    assert_eq!(worker.stop(), Some(0));
}
