//! Signals right after the start: a supervisor that reloads a process it has just started does not end it.

use super::answer::{self, ask, get};
use super::edge::{now_ms, pause};
use super::rules;
use super::service::{Service, binary, spawn, start};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// SIGHUP is sent again after each of these pauses, in milliseconds.
const PAUSES_MS: [u64; 7] = [0, 1, 2, 5, 10, 20, 50];

fn hang_up(pid: &str) {
    assert!(Command::new("kill").args(["-HUP", pid]).status().expect("kill").success(), "{pid} is dead");
}

/// Whether a process is the binary and catches SIGHUP.
fn is_heeding(pid: &str) -> bool {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // SIGHUP is signal 1, the lowest bit.
    exe.file_name().is_some_and(|name| name == "streamgauge") && caught & 1 == 1
}

/// Sends SIGHUP repeatedly to a process that waits for its configuration, then writes the configuration.
fn hang_up_until_configured(pid_file: &Path, fifo: &Path, config: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    let pid = loop {
        let pid = std::fs::read_to_string(pid_file).unwrap_or_default().trim().to_string();
        if !pid.is_empty() && is_heeding(&pid) {
            break pid;
        }
        assert!(Instant::now() < deadline, "the configuration is read before signals are heeded");
        pause();
    };
    let begun = Instant::now();
    for ms in PAUSES_MS {
        hang_up(&pid);
        while begun.elapsed() < Duration::from_millis(ms) {
            pause();
        }
    }
    // The process waits in its read until this is written.
    let mut file = std::fs::File::options().write(true).open(fifo).expect("it still reads");
    file.write_all(config.as_bytes()).expect("it still reads");
    pid
}

/// Goal: SIGHUP never ends the process, however early it arrives, and reloads the rules once there are
/// some. Method: a configuration that comes through a pipe; until it is written, the process has only
/// installed its signal handlers. (A SIGHUP before the first instruction of the process does end it; no
/// process can prevent that.)
#[test]
fn a_hangup_of_the_first_moments_ends_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let (pid_file, fifo) = (dir.path().join("pid"), dir.path().join("streamgauge.yaml"));
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let pipelines = rules(dir.path());
    let config = format!("data_dir: {:?}\npipelines: {pipelines:?}\n", dir.path().join("data"));
    let mut command = Command::new("bash");
    command.arg("-c").arg("echo $$ > \"$0\"; exec \"$@\"").arg(&pid_file).arg(binary().get_program());
    command.args(["run", "--listen", "127.0.0.1:0", "--config"]).arg(&fifo).env("RUST_LOG", "info");
    command.env_remove("NATS_URL").env_remove("REDIS_URL");
    let hanging_up = std::thread::spawn(move || hang_up_until_configured(&pid_file, &fifo, &config));
    let service = spawn(command);
    let pid = hanging_up.join().expect("it lived");
    for _ in 0..3 {
        hang_up(&pid);
        assert_eq!(service.get("/healthz"), "ok\n");
    }
    std::fs::write(
        pipelines.join("more.yaml"),
        "rules: [{ id: more, expr: 'max(x[1m]) by (source) > 5', severity: info }]\n",
    )
    .expect("writable");
    hang_up(&pid);
    service.wait_for("/api/v1/rules", |found| {
        found["rules"].as_array().is_some_and(|all| all.iter().any(|rule| rule["id"] == "more"))
    });
    assert_eq!(service.stop(), Some(0));
}

/// Goal: a full log pipe blocks nothing. Method: audit lines of twenty times the capacity of a pipe that is
/// not read; then an event, readiness, the count of dropped lines, and SIGTERM.
#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut service = start(&dir.path().join("data"), &rules(dir.path()));
    let url = |path: &str| format!("{}{path}", service.url);
    for n in 0..9_000 {
        let gone = ask("DELETE", &url(&format!("/api/v1/silences/none{n}")), &[], None);
        assert_eq!(gone.status, 404, "{gone:?}");
    }
    let event = json!({"type": "metric", "time": now_ms(), "source": "a", "name": "latency_ms", "value": 1});
    assert_eq!(answer::post(&url("/api/v1/events"), &event.to_string()).status, 202);
    assert_eq!(get(&url("/readyz")).status, 200);
    let metrics = get(&url("/metrics")).body;
    let dropped = metrics.lines().find_map(|line| line.strip_prefix("streamgauge_log_lines_dropped_total "));
    assert!(dropped.is_some_and(|count| count != "0"), "{metrics}");
    terminate(&service);
    let begun = Instant::now();
    let code = service.child.wait().expect("a child").code();
    assert!(code == Some(0) && begun.elapsed() < Duration::from_secs(10), "{code:?} {:?}", begun.elapsed());
}

fn terminate(service: &Service) {
    Command::new("kill").args(["-TERM", &service.child.id().to_string()]).status().expect("kill");
}

/// Goal: a limit on the file size acts like a full disk and does not end the process. Method: a limit, and
/// events until they are refused; all acknowledged events are there after a restart without the limit.
#[test]
fn a_file_that_may_not_grow_is_a_full_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, pipelines) = (dir.path().join("data"), rules(dir.path()));
    let mut limited = Command::new("sh");
    // In blocks of 512 or 1,024 bytes: 3 or 6 MB.
    limited.args(["-c", "ulimit -f 6000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_streamgauge")]);
    limited
        .args(["run", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .arg("--pipelines")
        .arg(&pipelines);
    let mut service = spawn(limited);
    let events = |count: usize| {
        let (time, name) = (now_ms(), "latency_ms");
        let event = json!({"type": "metric", "time": time, "source": "a", "name": name, "value": 1});
        json!(vec![event; count]).to_string()
    };
    let mut taken = 0;
    loop {
        let sent = answer::post(&format!("{}/api/v1/events", service.url), &events(2_000));
        if sent.status == 503 {
            break;
        }
        assert!(sent.status == 202 && taken < 200_000, "{sent:?}");
        taken += 2_000;
    }
    assert_eq!(service.status("/readyz"), 503);
    assert_eq!(service.status("/healthz"), 200);
    service.child.kill().expect("kill -9");
    service.child.wait().expect("it is dead");
    let service = start(&data, &pipelines);
    service.wait_for("/api/v1/windows?name=latency_ms&window=1h", |found| {
        found["windows"]
            .as_array()
            .is_some_and(|all| all.iter().filter_map(|window| window["count"].as_u64()).sum::<u64>() == taken)
    });
    assert_eq!(service.stop(), Some(0));
}
