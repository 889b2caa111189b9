//! A poison record, which kills the process each time it is applied.

use super::edge::{now_ms, pause};
use super::service::{Service, binary, post};
use super::{replayed, rules};
use serde_json::json;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Time limit of the whole: six starts, each of which takes a second on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a process that aborts at the text `kills`.
fn start(data: &Path, pipelines: &Path, port: u16) -> Service {
    let mut command = binary();
    command.args(["run", "--listen", &format!("127.0.0.1:{port}"), "--data-dir"]).arg(data);
    command.arg("--pipelines").arg(pipelines).env("SG_TEST_POISON", "kills");
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts");
    Service::of(child, format!("http://127.0.0.1:{port}"))
}

/// Goal: a record that kills the process is left out after three deaths at it, affects nothing else, and is
/// reported; a replay of the export leaves it out, too. Method: a test hook that aborts at a certain text; a dead
/// process is started again, as systemd would.
#[test]
fn a_record_that_kills_is_left_out_after_a_few_deaths() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, pipelines) = (dir.path().join("data"), rules(dir.path()));
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let mut service = start(&data, &pipelines, port);
    let (begun, mut deaths, mut sent) = (Instant::now(), 0, 0);
    while sent < 50 {
        assert!(begun.elapsed() < PATIENCE, "{deaths} deaths, {sent} events");
        if service.child.try_wait().expect("a child").is_some() {
            deaths += 1;
            service = start(&data, &pipelines, port);
        }
        let note = if sent == 20 { "kills" } else { "" };
        let event = json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms",
            "value": 1, "note": note, "id": format!("e-{sent}")});
        // The process may die of the poison before it answers. A second copy would be a second poison record.
        let is_answered = post(&service.url, &event.to_string()).is_some();
        if is_answered || sent == 20 {
            sent += 1;
        } else {
            pause();
        }
    }
    assert_eq!(deaths, 5, "two in the dark, three at the record");
    let windows = "/api/v1/windows?name=latency_ms&window=1m&from=-10m";
    service.wait_for(windows, |found| {
        let counts = found["windows"].as_array().into_iter().flatten().map(|window| window["count"].as_u64());
        counts.flatten().sum::<u64>() == 49
    });
    service.wait_for("/api/v1/alerts?rule=_sg_poison", |found| found["alerts"][0]["state"] == "firing");
    let told = service.get("/api/v1/alerts/log");
    assert_eq!(service.stop(), Some(0));
    let replayed = replayed(&data, dir.path(), &[]);
    assert!(told.contains("_sg_poison") && replayed.contains("_sg_poison"), "{told}\n{replayed}");
}
