//! Signals of the first moments: a supervisor that reloads what it has just started does not end it.

use super::edge::pause;
use super::rules;
use super::service::{binary, spawn};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Milliseconds after each of which SIGHUP comes again.
const PAUSES_MS: [u64; 7] = [0, 1, 2, 5, 10, 20, 50];

fn hang_up(pid: &str) {
    assert!(Command::new("kill").args(["-HUP", pid]).status().expect("kill").success(), "{pid} is dead");
}

/// Whether a process is the binary, and heeds SIGHUP instead of dying of it.
fn is_heeding(pid: &str) -> bool {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // SIGHUP is signal 1: the lowest bit.
    exe.file_name().is_some_and(|name| name == "streamgauge") && caught & 1 == 1
}

/// Sends SIGHUP again and again to a process that still reads its configuration, which comes afterwards.
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
    // Whoever reads has waited for this.
    let mut file = std::fs::File::options().write(true).open(fifo).expect("it still reads");
    file.write_all(config.as_bytes()).expect("it still reads");
    pid
}

/// Goal: SIGHUP never ends the process, however early it comes, and means what it says once there are rules.
/// Method: a configuration that comes through a pipe: until it is there the process has done nothing else than to
/// catch signals. (Before its first instruction no process can: a parent that hangs up then must expect an end.)
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
