//! The embedded service as a real process: kill -9 under load, export and replay, a complete scenario.

mod access;
#[allow(dead_code)] // shared with tests/live, which needs all of it
mod answer;
mod clock;
mod damage;
mod edge;
mod fixture;
mod hostile;
mod operating;
mod poison;
mod reference;
mod requests;
mod service;
mod signals;
#[allow(dead_code)] // shared with tests/live and benches/notify.rs
mod sink;
mod telling;
mod upgrade;

use edge::now_ms;
use serde_json::{Value, json};
use service::{binary, post, spawn, start};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

fn rules(dir: &Path) -> PathBuf {
    let path = dir.join("pipelines");
    std::fs::create_dir_all(&path).expect("a directory");
    let text = "version: 1
rules:
  - { id: slow, expr: 'p99(latency_ms[1m]) by (source) > 100ms', for: 2s, severity: warning, min_count: 10 }
  - { id: many, expr: 'count(latency_ms[10s]) by (source) > 50', severity: info, keep_firing_for: 1s }
";
    std::fs::write(path.join("rules.yaml"), text).expect("writable");
    path
}

fn batch(first: u64, size: u64) -> String {
    let now = now_ms();
    let events = (first..first + size).map(|n| {
        json!({"type": "metric", "time": now, "source": format!("s-{}", n % 3), "name": "latency_ms",
            "value": 50 + n % 400, "id": format!("e-{n}")})
    });
    Value::Array(events.collect()).to_string()
}

/// Goal: every event answered with 202 counts exactly once, and no transition is lost or repeated. Method:
/// a producer that repeats requests without an answer; the process is killed while it sends.
#[test]
fn nothing_is_lost_or_doubled_by_kill_9() {
    const KILLS: u64 = 50;
    const BATCH: u64 = 20;
    let dir = tempfile::tempdir().expect("a directory");
    let (data, pipelines) = (dir.path().join("data"), rules(dir.path()));
    let (mut sent, mut seed) = (0u64, 7u64);
    for _ in 0..KILLS {
        let mut service = start(&data, &pipelines);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        for _ in 0..(seed >> 33) % 12 {
            post(&service.url, &batch(sent, BATCH)).expect("acknowledged");
            sent += BATCH;
        }
        // This request races with the kill. Whether it was stored is unknown, so it is sent again.
        let (url, body) = (service.url.clone(), batch(sent, BATCH));
        let racing = std::thread::spawn(move || post(&url, &body));
        service.child.kill().expect("kill -9");
        service.child.wait().expect("it is dead");
        let _ = racing.join();
    }
    let service = start(&data, &pipelines);
    post(&service.url, &batch(sent, BATCH)).expect("acknowledged");
    sent += BATCH;
    let mut counted = 0;
    let mut query = |source: &str| {
        let path = format!("/api/v1/windows?source={source}&name=latency_ms&window=1h");
        let windows = service.json(&path)["windows"].as_array().cloned().unwrap_or_default();
        counted += windows.iter().filter_map(|window| window["count"].as_u64()).sum::<u64>();
    };
    ["s-0", "s-1", "s-2"].into_iter().for_each(&mut query);
    assert_eq!(counted, sent, "events in the windows against the producer's ledger");
    service.wait_for("/api/v1/alerts?rule=slow&state=firing", |found| {
        found["alerts"].as_array().is_some_and(|alerts| alerts.len() == 3)
    });
    let alerts = service.get("/api/v1/alerts/log");
    assert_eq!(service.stop(), Some(0));
    assert_no_gap(&alerts);
    // The export also contains changes of the last tick before the end.
    let given = ["--pipelines", &pipelines.display().to_string()].map(str::to_string);
    let replayed_with = |more: &[&str]| replayed(&data, dir.path(), more);
    assert!(replayed_with(&[&given[0], &given[1]]).starts_with(&alerts));
    assert!(replayed_with(&[]).starts_with(&alerts), "with the rules that the log itself holds");
}

/// Each episode's transitions count from 0 without gaps or repeats.
fn assert_no_gap(alerts: &str) {
    let mut next = std::collections::BTreeMap::<String, u64>::new();
    for line in alerts.lines() {
        let alert: Value = serde_json::from_str(line).expect("JSON");
        let expected = next.entry(alert["id"].as_str().expect("an id").into()).or_default();
        assert_eq!(alert["seq"].as_u64(), Some(*expected), "{line}");
        *expected += 1;
    }
    assert!(!next.is_empty(), "no alert fired at all");
}

/// Returns the alert log of a replay of the exported log. The published log must be a prefix of it, because
/// both end with the record at which the service was stopped.
fn replayed(data: &Path, dir: &Path, more: &[&str]) -> String {
    let export = binary().arg("export").arg("--data-dir").arg(data).output().expect("export");
    assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
    let (log, alerts) = (dir.join("export.ndjson"), dir.join("alerts.ndjson"));
    std::fs::write(&log, export.stdout).expect("writable");
    let replay = binary()
        .current_dir(dir.join("data"))
        .arg("replay")
        .arg(&log)
        .arg("--alerts-out")
        .arg(&alerts)
        .args(more)
        .output()
        .expect("replay");
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    std::fs::read_to_string(alerts).expect("alerts")
}

#[test]
fn refusals_have_a_place_and_good_neighbours_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let service = start(&dir.path().join("data"), &rules(dir.path()));
    let good = json!({"type": "metric", "time": now_ms(), "source": "a", "name": "b", "value": 1});
    let bad = json!({"type": "metric", "time": now_ms(), "source": "", "name": "b", "value": 1});
    let answer = post(&service.url, &json!([good, bad, {"type": "nonsense"}]).to_string()).expect("202");
    assert_eq!((&answer["accepted"], &answer["refused"][0]["index"]), (&json!(1), &json!(1)));
    assert_eq!(answer["refused"][1]["reason"], "bad_event");
    let response = ureq::post(format!("{}/api/v1/events", service.url))
        .config()
        .http_status_as_error(false)
        .build()
        .send("{\"type\":1}")
        .expect("an answer");
    assert_eq!(response.status().as_u16(), 400);
    let series = service.wait_for("/api/v1/series?match=b", |found| found["series"][0]["source"] == "a");
    let id = series["series"][0]["id"].as_str().expect("an id").to_string();
    let windows = service.json(&format!("/api/v1/windows?series={id}&window=1m"));
    assert_eq!(windows["windows"][0]["count"], 1);
    assert!(service.get("/").contains("streamgauge"));
    assert!(service.get("/metrics").contains("streamgauge_events_refused_total{reason=\"bad_event\"} 3"));
    assert_eq!(service.get("/healthz"), "ok\n");
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn an_acknowledgement_is_a_record_of_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, pipelines) = (dir.path().join("data"), rules(dir.path()));
    let service = start(&data, &pipelines);
    let events: Vec<Value> = (0..60)
        .map(|n| json!({"type": "metric", "time": now_ms(), "source": "a", "name": "latency_ms", "value": n}))
        .collect();
    post(&service.url, &Value::Array(events).to_string()).expect("202");
    let firing =
        service.wait_for("/api/v1/alerts?rule=many", |found| found["alerts"][0]["state"] == "firing");
    let id = firing["alerts"][0]["id"].as_str().expect("an id").to_string();
    let acked = binary()
        .args(["alerts", "ack", &id, "--by", "ann", "--why", "on it", "--url", &service.url])
        .output();
    assert!(acked.expect("runs").status.success());
    service.wait_for("/api/v1/alerts?rule=many", |found| found["alerts"][0]["state"] == "acknowledged");
    let listed = binary().args(["alerts", "list", "--url", &service.url]).output().expect("runs");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("acknowledged"));
    let alerts = service.get("/api/v1/alerts/log");
    assert_eq!(service.stop(), Some(0));
    let replayed = replayed(&data, dir.path(), &[]);
    assert!(replayed.starts_with(&alerts) && replayed.contains("on it"));
}

#[test]
fn a_data_dir_in_use_or_unwritable_is_a_clear_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, pipelines) = (dir.path().join("data"), rules(dir.path()));
    let _first = start(&data, &pipelines);
    let run = |data: &Path| {
        let output =
            binary().args(["run", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data).output().expect("runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).to_string()
    };
    assert!(run(&data).contains("in use by another process"));
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("writable");
    assert!(run(&file.join("below")).contains("cannot write to"));
}

/// Goal: a full disk leads to a clear refusal, the service recovers when there is room, and no acknowledged
/// event is lost. Method: a limit on the size of files that the process may write acts like a full disk.
#[test]
fn a_full_disk_refuses_and_heals() {
    const ROOM_BLOCKS: u64 = 6 << 10; // of 1,024 bytes
    let dir = tempfile::tempdir().expect("a directory");
    let (data, pipelines) = (dir.path().join("data"), rules(dir.path()));
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("trap '' XFSZ; ulimit -S -f {ROOM_BLOCKS}; exec \"$@\"")).arg("bash");
    command.arg(env!("CARGO_BIN_EXE_streamgauge")).args(["run", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(&data).arg("--pipelines").arg(&pipelines).env("RUST_LOG", "info");
    let mut service = spawn(command);
    let is_taken = |answer: &Option<Value>| answer.as_ref().is_some_and(|answer| answer["accepted"] == 500);
    let mut acknowledged = 0;
    let refusal = loop {
        let answer = post(&service.url, &batch(acknowledged, 500));
        match is_taken(&answer) {
            true => acknowledged += 500,
            false => break answer,
        }
        assert!(acknowledged < 1_000_000, "the disk is never full");
    };
    let refusal = refusal.unwrap_or_default().to_string();
    assert!(refusal.is_empty() || refusal.contains("full") || refusal == "null", "{refusal}");
    assert_full_is_told(&service.url, &batch(acknowledged, 500));
    let pid = service.child.id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status();
    assert!(raised.expect("prlimit").success());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_taken(&post(&service.url, &batch(acknowledged, 500))) {
        assert!(Instant::now() < deadline, "it does not heal");
    }
    acknowledged += 500;
    while answer::get(&format!("{}/readyz", service.url)).status != 200 {
        assert!(Instant::now() < deadline, "it is not ready");
    }
    service.child.kill().expect("kill -9");
    service.child.wait().expect("it is dead");
    let service = start(&data, &pipelines);
    let counted: u64 = ["s-0", "s-1", "s-2"]
        .into_iter()
        .flat_map(|source| {
            let path = format!("/api/v1/windows?source={source}&name=latency_ms&window=1h");
            service.json(&path)["windows"].as_array().cloned().unwrap_or_default()
        })
        .filter_map(|window| window["count"].as_u64())
        .sum();
    assert_eq!(counted, acknowledged);
    assert_eq!(service.stop(), Some(0));
}

/// While events cannot be written, refusals and readiness report a full disk.
fn assert_full_is_told(url: &str, body: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let refused = answer::post(&format!("{url}/api/v1/events"), body);
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.message().contains("full"), "{refused:?}");
        // Between the two requests a smaller record may have found room.
        let ready = answer::get(&format!("{url}/readyz"));
        if ready.status == 503 {
            assert!(ready.message().contains("full"), "{ready:?}");
            return;
        }
        assert!(Instant::now() < deadline, "nobody is told: {ready:?}");
    }
}

#[test]
fn a_configuration_file_is_read_and_late_events_are_kept_aside() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("streamgauge.yaml");
    let data = dir.path().join("data");
    let text =
        format!("data_dir: {}\nlimits: {{ allowed_lateness: 1s, late_policy: dead }}\n", data.display());
    std::fs::write(&config, text).expect("writable");
    let mut command = binary();
    command.args(["run", "--listen", "127.0.0.1:0", "--config"]).arg(&config).arg("--pipelines");
    command.arg(rules(dir.path()));
    let service = spawn(command);
    let event = |time: u64| json!({"type": "metric", "time": time, "source": "a", "name": "b", "value": 1});
    post(&service.url, &json!([event(now_ms()), event(now_ms() - 600_000)]).to_string()).expect("202");
    let dead = service.wait_for("/api/v1/dead", |found| found.to_string().contains("late"));
    assert!(dead.to_string().contains("\"index\":1"), "{dead}");
    assert!(service.get("/metrics").contains("streamgauge_events_dropped_total 1"));
    assert!(data.join("streamgauge.redb").exists());
    assert_eq!(service.stop(), Some(0));
    std::fs::write(&config, "data_dri: x\n").expect("writable");
    let refused = binary().args(["run", "--config"]).arg(&config).output().expect("runs");
    assert_eq!(refused.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("streamgauge.yaml:1:"));
    for (text, words) in [
        ("limits: { max_lateness: 1s }", "streamgauge.yaml: limits: the maximal lateness 1s"),
        ("partitions: 0", "`partitions` is 0"),
        ("limits: { series_max: -1 }", "streamgauge.yaml:1:23: this must be a whole number, at least 0"),
        ("nats: 5", "expected fields"),
        ("limits: {}\nlimits: {}", "`limits` stands twice"),
    ] {
        std::fs::write(&config, format!("{text}\n")).expect("writable");
        let refused = binary().args(["run", "--config"]).arg(&config).output().expect("runs");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(78) && said.contains(words), "{text}: {said}");
    }
    let servers = ["run", "--nats", "nats://:::4222:", "--redis", "redis://127.0.0.1:1"];
    let refused = binary().args(servers).output().expect("runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{said}");
    assert!(said.contains("no address of NATS"), "{said}");
    let servers = ["run", "--nats", "nats://127.0.0.1:1", "--redis", "http://user:secret@host"];
    let refused = binary().args(servers).output().expect("runs");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(78), "{said}");
    assert!(said.contains("no address of Redis") && !said.contains("secret"), "{said}");
}

#[test]
fn a_source_beyond_its_quota_waits_and_its_neighbour_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("streamgauge.yaml");
    let text = format!(
        "data_dir: {}/data\nlimits: {{ values_per_source_per_sec_max: 100 }}\n",
        dir.path().display()
    );
    std::fs::write(&config, text).expect("writable");
    let mut command = binary();
    command.args(["run", "--listen", "127.0.0.1:0", "--config"]).arg(&config).arg("--pipelines");
    command.arg(rules(dir.path()));
    let service = spawn(command);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let send = |source: &str, count: u64| {
        let event =
            |n: u64| json!({"type": "metric", "time": now_ms(), "source": source, "name": "b", "value": n});
        let body = json!((0..count).map(event).collect::<Vec<_>>()).to_string();
        let request = agent.post(format!("{}/api/v1/events", service.url));
        let mut response = request.content_type("application/json").send(body).expect("an answer");
        let retry_after = response.headers().get("retry-after").is_some();
        (response.status().as_u16(), retry_after, response.body_mut().read_to_string().expect("a body"))
    };
    assert_eq!(send("loud", 1_000).0, 202, "a full bucket lets one large request pass");
    let (status, retry_after, body) = send("loud", 1);
    assert!(status == 429 && retry_after && body.contains("`loud`"), "{status} {body}");
    assert_eq!(send("calm", 100).0, 202);
    let recorded = || service.get("/metrics").contains("streamgauge_events_recorded_total 1100");
    while !recorded() {
        edge::pause();
    }
    assert_eq!(service.stop(), Some(0));
}
