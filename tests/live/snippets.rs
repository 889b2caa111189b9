//! The Python programs of the documentation, run as a reader would.

use crate::servers::{Servers, wait_for};
use std::process::Command;

/// The first Python program of a page.
fn program(page: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = std::fs::read_to_string(path).expect("a page");
    let block = text.split("```python\n").nth(1).expect("a program");
    block.split("```").next().unwrap_or_default().to_string()
}

/// The Python interpreter with the libraries, which tests/run.sh installs.
pub fn python() -> String {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/target/python/bin/python");
    if std::path::Path::new(ours).exists() { ours.into() } else { "python3".into() }
}

#[test]
fn a_publisher_and_a_reader_in_another_language() {
    let publisher = program("operate/nats-and-redis.md");
    let reader = program("reference/redis-keys.md");
    let servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    let run = |program: &str| {
        let mut command = Command::new(python());
        command.args(["-c", program]).env("NATS_URL", servers.nats_url());
        command.env("REDIS_URL", format!("redis://127.0.0.1:{}", servers.redis_port));
        let output = command.output().expect("python3");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run(&publisher);
    // If a minute ends while events are published, they fall into two windows.
    let count = |told: &str| -> u64 {
        let rows = told.lines().filter(|line| line.starts_with("checkout latency_ms"));
        rows.filter_map(|row| row.split_whitespace().nth(4)?.parse::<u64>().ok()).sum()
    };
    wait_for("the windows", &worker, || (count(&run(&reader)) == 100).then_some(()));
}
