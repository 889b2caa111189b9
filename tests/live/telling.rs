//! Alerts over the broker reach their receivers, whichever process delivers them.

use crate::edge::{now_ms, wait_for_early_in_pane};
use crate::servers::{Servers, Worker, wait_for};
use crate::sink::{Reply, Sink, secret};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Sources whose alerts fire at once in each round, and rounds that end with a kill.
const SOURCES: usize = 20;
const KILLS: usize = 8;

fn burst(worker: &Worker, round: usize) {
    wait_for_early_in_pane();
    let event = |at: usize| {
        json!({"type": "samples", "source": format!("r{round}-{at}"), "name": "latency_ms",
            "times": vec![now_ms(); 250], "values": vec![1; 250]})
    };
    let all: Vec<Value> = (0..SOURCES).map(event).collect();
    let sent = ureq::post(format!("{}/api/v1/events", worker.url)).send(Value::Array(all).to_string());
    assert_eq!(sent.expect("accepted").status(), 202);
}

fn redrive(worker: &Worker, receiver: &str) -> Result<(), String> {
    let asked = ureq::post(format!("{}/api/v1/receivers/{receiver}/redrive", worker.url)).send_empty();
    asked.map(drop).map_err(|error| error.to_string())
}

/// Goal: several instances deliver each transition in order and once; a kill repeats at most one message
/// per receiver, and loses none. Method: two processes that only notify; the holder of the lease is killed
/// while alerts arrive, and another process is started.
#[test]
fn two_instances_deliver_once_through_kills() {
    let servers = Servers::start("everysec");
    let dir = tempfile::tempdir().expect("a directory");
    let (file, config) = (dir.path().join("alerts.ndjson"), dir.path().join("streamgauge.yaml"));
    let text = format!(
        "receivers: [{{ name: file, log: {{ path: {file:?} }} }}]
route: {{ receiver: log, routes: [{{ receiver: file, matchers: ['rule=\"busy\"'] }}] }}\n"
    );
    std::fs::write(&config, text).expect("writable");
    let start = |role: &str| {
        // Twenty tests share two cores: shorter leases expire before they can be renewed.
        let mut command = servers.command("3s", 1);
        command.args(["--role", role, "--config"]).arg(&config);
        Worker::start(command)
    };
    let told = || {
        let mut told: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
        for line in std::fs::read_to_string(&file).unwrap_or_default().lines() {
            let Ok(alert) = serde_json::from_str::<Value>(line) else { continue };
            let (id, state) = (alert["id"].as_str().unwrap_or(""), alert["state"].as_str().unwrap_or(""));
            told.entry(id.into()).or_default().push((alert["seq"].as_u64().unwrap_or(9), state.into()));
        }
        told
    };
    let owner = start("ingest,api");
    wait_for("readiness", &owner, || owner.get("/readyz"));
    let mut notifiers = vec![start("notify"), start("notify")];
    let holder = |all: &[Worker]| {
        let has = |one: &Worker| one.metric("streamgauge_notify_leased{receiver=\"file\"} ") == Some(1);
        all.iter().position(has)
    };
    for round in 0..KILLS {
        let at = wait_for("a lease", &notifiers[0], || holder(&notifiers));
        assert_eq!(redrive(&notifiers[at], "file"), Ok(()));
        let elsewhere = redrive(&notifiers[1 - at], "file").expect_err("it only waits there");
        assert!(elsewhere.contains("409"), "{elsewhere}");
        let before = told().len();
        burst(&owner, round);
        wait_for("the first of them", &notifiers[at], || (told().len() > before).then_some(()));
        let mut killed = notifiers.remove(at);
        killed.process.0.kill().expect("kill -9");
        killed.process.0.wait().expect("it is dead");
        notifiers.push(start("notify"));
    }
    let is_over = |one: &Vec<(u64, String)>| one.last().is_some_and(|(_, state)| state == "resolved");
    wait_for("the end of all", &notifiers[0], || {
        let told = told();
        (told.len() == KILLS * SOURCES && told.values().all(is_over)).then_some(())
    });
    let told = told();
    assert!(told.values().all(|one| one.is_sorted() && one[0].0 == 0), "{told:?}");
    let repeats: usize = told.values().map(|one| one.windows(2).filter(|two| two[0] == two[1]).count()).sum();
    assert!(repeats <= KILLS, "{repeats} repeats in {KILLS} kills");
    assert!(notifiers.into_iter().all(|one| one.stop() == Some(0)) && owner.stop() == Some(0));
}

/// Goal: an attempt may last longer than the lease. Method: a program that takes twice as long; no message
/// reaches it twice, and none runs on after the process has ended.
#[test]
fn an_attempt_may_last_longer_than_the_lease() {
    let servers = Servers::start("everysec");
    let dir = tempfile::tempdir().expect("a directory");
    let (program, told, config) =
        (dir.path().join("slow.sh"), dir.path().join("told"), dir.path().join("streamgauge.yaml"));
    let script = format!("#!/bin/sh\nread -r line\necho \"$$ $line\" >> {}\nsleep 4\n", told.display());
    std::fs::write(&program, script).expect("writable");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    let text = format!(
        "receivers: [{{ name: slow, exec: {{ program: {program:?}, timeout: 20s }} }}]
route: {{ receiver: log, routes: [{{ receiver: slow, matchers: ['source=~\"r0-[01]\"', 'rule=\"busy\"'] }}] }}\n"
    );
    std::fs::write(&config, text).expect("writable");
    let mut command = servers.command("2s", 1);
    command.args(["--grace", "3s", "--config"]).arg(&config);
    let worker = Worker::start(command);
    wait_for("readiness", &worker, || worker.get("/readyz"));
    burst(&worker, 0);
    let lines = || std::fs::read_to_string(&told).unwrap_or_default();
    wait_for("the third message", &worker, || (lines().lines().count() >= 3).then_some(()));
    worker.stop();
    let lines = lines();
    let (pids, messages): (Vec<&str>, Vec<&str>) =
        lines.lines().filter_map(|line| line.split_once(' ')).unzip();
    let distinct: std::collections::BTreeSet<&&str> = messages.iter().collect();
    assert_eq!(distinct.len(), messages.len(), "{lines}");
    let is_alive = |pid: &&str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !status.is_empty() && !status.contains(") Z")
    };
    assert!(!pids.iter().any(is_alive), "{lines}");
}

/// Goal: an undelivered notification of one process is reported by another one, and so is its redrive.
/// Method: two processes with one receiver each; one receiver refuses messages at first, the other only
/// gets that report.
#[test]
fn what_cannot_be_delivered_is_told_by_another_process() {
    let servers = Servers::start("everysec");
    let dir = tempfile::tempdir().expect("a directory");
    let hook = Sink::start(|asked| Reply::Status(if asked < 2 { 400 } else { 200 }));
    let file = dir.path().join("alerts.ndjson");
    let start = |name: &str, role: &str, text: String| {
        let config = dir.path().join(name);
        std::fs::write(&config, text).expect("writable");
        let mut command = servers.command("3s", 1);
        command.args(["--role", role, "--config"]).arg(&config);
        Worker::start(command)
    };
    let failing = format!(
        "receivers: [{{ name: hook, webhook: {{ url: '{}', format: event, allow: [127.0.0.1] }} }}]
route: {{ receiver: log, routes: [{{ receiver: hook, matchers: ['source=\"r0-0\"', 'rule=\"busy\"'] }}] }}\n",
        hook.url
    );
    let listening = format!(
        "receivers: [{{ name: file, log: {{ path: {file:?} }} }}]
route: {{ receiver: log, routes: [{{ receiver: file, matchers: ['rule=\"_sg_undelivered\"'] }}] }}\n"
    );
    let (first, second) = (start("first", "all", failing), start("second", "notify", listening));
    wait_for("readiness", &first, || first.get("/readyz"));
    burst(&first, 0);
    let states = || {
        let lines = std::fs::read_to_string(&file).unwrap_or_default();
        let alerts = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut states: Vec<String> =
            alerts.map(|one| format!("{} {}", one["key"]["receiver"], one["state"])).collect();
        // If the store is slow, the newest message is repeated.
        states.dedup();
        states
    };
    wait_for("word of it", &second, || (states() == ["\"hook\" \"firing\""]).then_some(()));
    wait_for("the end", &first, || (hook.asked() == 2).then_some(()));
    let unknown = redrive(&second, "hook").expect_err("nobody knows it there");
    assert!(unknown.contains("404"), "{unknown}");
    assert_eq!(redrive(&first, "hook"), Ok(()));
    let over = ["\"hook\" \"firing\"", "\"hook\" \"resolved\""];
    wait_for("word of the end", &second, || (states() == over).then_some(()));
    wait_for("the beginning and the end", &first, || (hook.count() == 2).then_some(()));
    assert!([first, second].into_iter().all(|one| one.stop() == Some(0)));
}

/// Goal: the heartbeat covers every partition, once a minute. Method: three partitions, two processes that
/// only notify and both send the canary, and a target that listens.
#[test]
fn a_heartbeat_proves_all_partitions() {
    let servers = Servers::start("everysec");
    let (dir, outside) = (tempfile::tempdir().expect("a directory"), Sink::start(|_| Reply::Status(200)));
    let (url, config) = (dir.path().join("url"), dir.path().join("streamgauge.yaml"));
    secret(&url, &outside.url);
    let text = format!(
        "receivers: [{{ name: beat, heartbeat: {{ url: 'file:{}', allow: [127.0.0.1] }} }}]
route: {{ receiver: log, routes: [{{ receiver: beat, matchers: ['rule=\"canary\"'] }}] }}\n",
        url.display()
    );
    std::fs::write(&config, text).expect("writable");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/canary.yaml");
    let start = |role: &str| {
        let mut command = servers.command("3s", 3);
        std::fs::copy(&shipped, servers.dir.path().join("pipelines/canary.yaml")).expect("writable");
        command.args(["--role", role, "--config"]).arg(&config);
        Worker::start(command)
    };
    let owner = start("ingest,api");
    wait_for("readiness", &owner, || owner.get("/readyz"));
    let notifiers = [start("notify"), start("notify")];
    let taken = outside.wait_for(|taken| !taken.is_empty());
    assert_eq!(taken[0].body["partitions"], 3);
    let log = wait_for("the log", &owner, || owner.get("/api/v1/alerts/log"));
    for partition in 1..=3 {
        let began = format!("canary-{partition}-of-3-");
        let is_it = |line: &&str| line.contains(&began) && line.contains("\"change\":\"firing\"");
        assert_eq!(log.lines().filter(is_it).count(), 1, "two senders are one event: {log}");
    }
    assert_eq!(outside.count(), 1, "one beat a minute");
    assert!(notifiers.into_iter().all(|one| one.stop() == Some(0)) && owner.stop() == Some(0));
}
