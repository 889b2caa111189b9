//! Servers that ask who comes, over TLS.

use crate::servers::{Servers, Worker, rules, wait_for};
use std::process::{Command, Stdio};

fn worker(servers: &Servers, password: &str) -> Worker {
    let dir = servers.dir.path();
    let redis = format!("rediss://sg:{password}@127.0.0.1:{}", servers.redis_port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.args(["run", "--listen", "127.0.0.1:0", "--nats", &servers.nats_url(), "--redis", &redis]);
    command.arg("--pipelines").arg(rules(dir)).env("RUST_LOG", "info").stderr(Stdio::piped());
    command.env("NATS_USER", "sg").env("NATS_PASSWORD", "secret");
    command.env("NATS_CA", dir.join("ca.pem")).env("REDIS_CA", dir.join("ca.pem"));
    Worker::start(command)
}

/// Goal: a deployment that is closed to others works, with no more rights than the README names, and no
/// password is in its log. Method: events in over HTTP, windows out; then a worker with a wrong password.
#[test]
fn servers_with_tls_and_users_are_served() {
    let servers = Servers::start_secure();
    let good = worker(&servers, "secret");
    wait_for("ownership", &good, || (good.owned() == 1).then_some(()));
    let time = crate::edge::now_ms();
    let event = format!(r#"{{"type":"metric","time":{time},"source":"s-0","name":"latency_ms","value":1}}"#);
    ureq::post(format!("{}/api/v1/events", good.url)).send(event).expect("taken");
    wait_for("the event", &good, || good.counts().filter(|counts| counts.get("s-0") == Some(&1)));
    let bad = worker(&servers, "wrong-password");
    wait_for("a word about it", &bad, || {
        let log = bad.log.lock().expect("no panic");
        log.contains("authentication failed").then_some(())
    });
    for worker in [good, bad] {
        let log = worker.log.lock().expect("no panic").clone();
        assert!(!log.contains("secret") && !log.contains("wrong-password"), "{log}");
    }
}
