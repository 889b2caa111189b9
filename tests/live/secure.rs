//! Servers that require authentication, over TLS.

use crate::answer;
use crate::servers::{Servers, Worker, rules, wait_for, wait_with_log};
use std::process::{Command, Stdio};
use std::sync::Mutex;

fn worker(servers: &Servers, password: &str) -> Worker {
    Worker::start(command(servers, password))
}

fn command(servers: &Servers, password: &str) -> Command {
    let dir = servers.dir.path();
    let redis = format!("rediss://sg:{password}@127.0.0.1:{}", servers.redis_port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.args(["run", "--listen", "127.0.0.1:0", "--nats", &servers.nats_url(), "--redis", &redis]);
    command.arg("--pipelines").arg(rules(dir)).env("RUST_LOG", "info").stderr(Stdio::piped());
    command.env("NATS_USER", "sg").env("NATS_PASSWORD", "secret");
    command.env("NATS_CA", dir.join("ca.pem")).env("REDIS_CA", dir.join("ca.pem"));
    command
}

/// Goal: a deployment with authentication works with only the permissions that the README lists, and no
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
    let mut of_api = command(&servers, "secret");
    of_api.args(["--role", "api"]);
    let api = Worker::start(of_api);
    wait_for("readiness of a process that only answers", &api, || api.get("/readyz"));
    let bad = worker(&servers, "wrong-password");
    wait_for("a word about it", &bad, || {
        let log = bad.log.lock().expect("no panic");
        log.contains("authentication failed").then_some(())
    });
    for worker in [good, api, bad] {
        let log = worker.log.lock().expect("no panic").clone();
        assert!(!log.contains("secret") && !log.contains("wrong-password"), "{log}");
    }
}

/// Passwords of the servers, the one of the broker also percent-encoded. `IN_COMMON` holds the texts that
/// must not appear; the first of them is part of both forms of the broker's password.
const OF_NATS: &str = "n@ts-s3cret";
const OF_NATS_ESCAPED: &str = "n%40ts-s3cret";
const OF_REDIS: &str = "redis-s3cret";
const IN_COMMON: [&str; 3] = ["ts-s3cret", OF_REDIS, "wr0ng"];

/// Starts a broker and a store that require passwords.
fn guarded() -> Servers {
    let mut servers = Servers::start("everysec");
    servers.nats = None;
    let users = format!("authorization {{ users: [{{ user: sg, password: '{OF_NATS}' }}] }}\n");
    std::fs::write(servers.dir.path().join("mapping.conf"), users).expect("writable");
    servers.start_nats();
    let url = format!("redis://127.0.0.1:{}", servers.redis_port);
    wait_with_log("the password of Redis", &Mutex::default(), || {
        let mut connection = redis::Client::open(url.as_str()).ok()?.get_connection().ok()?;
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("requirepass").arg(OF_REDIS).query::<String>(&mut connection).ok()
    });
    servers
}

/// Starts a process with passwords in its server addresses, which are given by flags or by the environment.
fn outspoken(servers: &Servers, nats: &str, is_in_environment: bool) -> Worker {
    let nats = format!("nats://sg:{nats}@127.0.0.1:{}", servers.nats_port);
    let redis = format!("redis://:{OF_REDIS}@127.0.0.1:{}", servers.redis_port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.args(["run", "--listen", "127.0.0.1:0", "--lease", "1s", "--grace", "3s", "--pipelines"]);
    command.arg(rules(servers.dir.path())).env("RUST_LOG", "trace").stderr(Stdio::piped());
    match is_in_environment {
        true => command.env("NATS_URL", nats).env("REDIS_URL", redis),
        false => command.args(["--nats", &nats, "--redis", &redis]),
    };
    Worker::start(command)
}

/// Goal: a password in an address appears in no log and no answer, at any log level and whether it is right
/// or wrong. Method: `RUST_LOG=trace`, addresses by flags and by the environment, an event through the
/// whole service; then a wrong password.
#[test]
fn a_password_of_an_address_is_never_told() {
    let servers = guarded();
    for (password, is_right, is_in_environment) in [
        (OF_NATS_ESCAPED, true, true),
        (OF_NATS_ESCAPED, true, false),
        ("wr0ng", false, true),
        ("wr0ng", false, false),
    ] {
        let worker = outspoken(&servers, password, is_in_environment);
        let at = |path: &str| format!("{}{path}", worker.url);
        let mut said = Vec::new();
        if is_right {
            wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
            let time = crate::edge::now_ms();
            let event =
                format!(r#"{{"type":"metric","time":{time},"source":"s-0","name":"latency_ms","value":1}}"#);
            said.push(answer::post(&at("/api/v1/events"), &event));
        } else {
            wait_for("a word about it", &worker, || {
                let ready = answer::get(&at("/readyz"));
                ready.body.contains("authorization").then_some(())
            });
        }
        said.extend(["/readyz", "/metrics", "/api/v1/rules", "/"].map(|path| answer::get(&at(path))));
        let log = worker.log.clone();
        assert_eq!(worker.stop(), Some(0));
        wait_with_log("the last line", &log, || {
            log.lock().expect("no panic").contains("stopping").then_some(())
        });
        let log = log.lock().expect("no panic");
        assert!(log.contains("TRACE"), "this test reads everything that can be logged");
        for secret in IN_COMMON {
            let line = log.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "`{secret}` is told: {line:?}");
            assert!(said.iter().all(|answer| !answer.body.contains(secret)), "{said:?}");
        }
    }
}
