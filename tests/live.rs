//! The service over real servers: nats-server and redis-server, killed under load.
//!
//! Each test starts servers of its own on free ports with directories of their own, and stops them.
//! `SG_KILLS=200 cargo test --test live` runs the long form.

use async_nats::jetstream::{self, message::PublishMessage};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use streamgauge::adapters::redis::{RedisStore, Settings, Shared};
use streamgauge::driver::ports::{Commit, Lease, PortError, Store};

/// Everything must have happened by then.
const DEADLINE: Duration = Duration::from_secs(60);

const SOURCES: u64 = 3;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// A process that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(mut command: Command) -> Process {
    let name = command.get_program().to_string_lossy().to_string();
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Process(child.unwrap_or_else(|error| panic!("{name} does not start ({error}); tests/run.sh installs it")))
}

/// A broker and a store.
struct Servers {
    dir: tempfile::TempDir,
    nats_port: u16,
    redis_port: u16,
    fsync: &'static str,
    nats: Option<Process>,
    redis: Option<Process>,
}

impl Servers {
    fn start(fsync: &'static str) -> Servers {
        let dir = tempfile::tempdir().expect("a directory");
        let (nats_port, redis_port) = (free_port(), free_port());
        let mut servers = Servers { dir, nats_port, redis_port, fsync, nats: None, redis: None };
        servers.start_nats();
        servers.start_redis();
        servers
    }

    fn start_nats(&mut self) {
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-js", "-p", &self.nats_port.to_string(), "-sd"]);
        command.arg(self.dir.path().join("nats"));
        self.nats = Some(spawn(command));
    }

    fn start_redis(&mut self) {
        let data = self.dir.path().join("redis");
        std::fs::create_dir_all(&data).expect("writable");
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.redis_port.to_string()]);
        command.args(["--appendonly", "yes", "--appendfsync", self.fsync, "--save", "", "--dir"]);
        command.arg(data);
        self.redis = Some(spawn(command));
    }

    fn nats_url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.nats_port)
    }

    /// A worker, which may have to wait for servers and for the lease.
    fn worker(&self, lease: &str) -> Worker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
        command.args([
            "run",
            "--listen",
            "127.0.0.1:0",
            "--lease",
            lease,
            "--snapshot-every",
            "1s",
            "--nats",
            &self.nats_url(),
        ]);
        command.args(["--redis", &format!("redis://127.0.0.1:{}", self.redis_port), "--pipelines"]);
        command.arg(rules(self.dir.path())).env("RUST_LOG", "info").stderr(Stdio::piped());
        Worker::start(command)
    }
}

struct Worker {
    process: Process,
    url: String,
    log: Arc<Mutex<String>>,
}

impl Worker {
    fn start(mut command: Command) -> Worker {
        let mut process = Process(command.spawn().expect("the binary starts"));
        let mut lines = BufReader::new(process.0.stderr.take().expect("piped"));
        let mut seen = String::new();
        let address = loop {
            let begun = seen.len();
            assert!(lines.read_line(&mut seen).expect("readable") > 0, "ended before it listened: {seen}");
            let entry: Value = serde_json::from_str(&seen[begun..]).unwrap_or_default();
            if let Some(address) = entry["fields"]["address"].as_str() {
                break address.to_string();
            }
        };
        let log = Arc::new(Mutex::new(seen));
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut log = kept.lock().expect("no panic");
                log.push_str(&line);
                log.push('\n');
            }
        });
        Worker { process, url: format!("http://{address}"), log }
    }

    fn get(&self, path: &str) -> Option<String> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
        agent.get(format!("{}{path}", self.url)).call().ok()?.body_mut().read_to_string().ok()
    }

    /// Values in the 1h windows of each source.
    fn counts(&self) -> Option<BTreeMap<String, u64>> {
        let body = self.get("/api/v1/windows?name=latency_ms&window=1h")?;
        let found: Value = serde_json::from_str(&body).ok()?;
        let mut counts = BTreeMap::new();
        for window in found["windows"].as_array()? {
            *counts.entry(window["source"].as_str()?.to_string()).or_default() += window["count"].as_u64()?;
        }
        Some(counts)
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    fn stop(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.process.0.wait().expect("it ends").code()
    }
}

/// Looks again until it is so.
fn wait_for<T>(what: &str, worker: &Worker, look: impl FnMut() -> Option<T>) -> T {
    wait_with_log(what, &worker.log, look)
}

fn wait_with_log<T>(what: &str, log: &Mutex<String>, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} does not happen:\n{}", log.lock().expect("no panic"));
        std::thread::yield_now();
    }
}

fn rules(dir: &Path) -> PathBuf {
    let path = dir.join("pipelines");
    std::fs::create_dir_all(&path).expect("writable");
    let text = "version: 1
rules:
  - { id: busy, expr: 'count(latency_ms[10s]) by (source) > 200', severity: info, keep_firing_for: 1s }
  - { id: slow, expr: 'p99(latency_ms[1m]) by (source)', levels: { warning: '> 300ms', critical: '> 1200ms' }, for: 2s, min_count: 10 }
  - { id: odd, expr: 'max(latency_ms[10s]) by (source) > 1500ms', severity: warning }
";
    std::fs::write(path.join("rules.yaml"), text).expect("writable");
    path
}

/// Publishes batches until told to stop, each again until it is acknowledged; what it published.
async fn produce(url: String, stop: Arc<AtomicBool>) -> BTreeMap<String, u64> {
    let client =
        async_nats::ConnectOptions::new().retry_on_initial_connect().connect(url).await.expect("a url");
    let mut context = jetstream::new(client);
    context.set_timeout(Duration::from_secs(1));
    let mut ledger = BTreeMap::new();
    let mut batch = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let source = format!("s-{}", batch % SOURCES);
        let size = 10 + batch % 40;
        let time = now_ms();
        let events: Vec<Value> = (0..size)
            .map(|n| {
                let value = if batch.is_multiple_of(97) { 1_600 } else { (batch * 7 + n * 13) % 400 };
                json!({"type": "metric", "time": time, "source": source, "name": "latency_ms", "value": value})
            })
            .collect();
        let payload = Value::Array(events).to_string();
        loop {
            let publish =
                PublishMessage::build().payload(payload.clone().into()).message_id(format!("b-{batch}"));
            let subject = format!("sg.v1.metric.{source}.latency_ms");
            let acknowledged = match context.send_publish(subject, publish).await {
                Ok(sent) => sent.await.is_ok(),
                Err(_) => false,
            };
            if acknowledged {
                break;
            }
            // The broker is away: the client reconnects by itself.
            tokio::task::yield_now().await;
        }
        *ledger.entry(source).or_default() += size;
        batch += 1;
    }
    ledger
}

/// The alert log as it is on the board, in the order of its numbers.
async fn board(url: String) -> String {
    let client = async_nats::connect(url).await.expect("a broker");
    let stream = jetstream::new(client).get_stream("SG_ALERTS").await.expect("a stream");
    let last = stream.cached_info().state.last_sequence;
    let mut alerts = BTreeMap::new();
    for seq in 1..=last {
        let message = stream.get_raw_message(seq).await.expect("a message");
        let number: u64 = message.subject.rsplit('.').next().and_then(|n| n.parse().ok()).expect("a number");
        let text = String::from_utf8(message.payload.to_vec()).expect("UTF-8");
        assert!(alerts.insert(number, text).is_none(), "number {number} was stored twice");
    }
    assert!(alerts.keys().copied().eq(1..=alerts.len() as u64), "a number is missing");
    alerts.into_values().map(|line| line + "\n").collect()
}

/// The alert log that a replay of the exported stream gives.
fn replayed(servers: &Servers) -> String {
    let dir = servers.dir.path();
    let binary = || Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    let export = binary().args(["export", "--nats", &servers.nats_url()]).output().expect("runs");
    assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
    let (log, alerts) = (dir.join("export.ndjson"), dir.join("alerts.ndjson"));
    std::fs::write(&log, export.stdout).expect("writable");
    // Beside a directory of rules, replay would take those instead of the log's own.
    let mut replay = binary();
    replay.current_dir(dir.join("redis")).arg("replay").arg(&log).arg("--alerts-out").arg(&alerts);
    replay.env_remove("STREAMGAUGE_PIPELINES");
    assert!(replay.output().expect("runs").status.success());
    std::fs::read_to_string(alerts).expect("alerts")
}

fn kills() -> u64 {
    std::env::var("SG_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// Goal: nothing is lost, doubled or published twice, whoever is killed and when.
/// Method: a producer that sends again what it does not know; kill -9 of worker, broker and store
/// in turn; counts against the producer's ledger, the board against a replay of the stream.
fn survives(fsync: &'static str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut servers = Servers::start(fsync);
    let mut worker = servers.worker("1s");
    let stop = Arc::new(AtomicBool::new(false));
    let producer = runtime.spawn(produce(servers.nats_url(), stop.clone()));
    let mut seed = 11u64;
    for _ in 0..kills() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Somewhere within what follows: progress is what is waited for, not time.
        let before = worker.counts().unwrap_or_default().values().sum::<u64>();
        let more = (seed >> 33) % 3_000;
        wait_for("progress", &worker, || {
            worker.counts().filter(|counts| counts.values().sum::<u64>() > before + more)
        });
        match (seed >> 20) % 3 {
            0 => {
                drop(worker);
                worker = servers.worker("1s");
            }
            1 => {
                servers.nats = None;
                servers.start_nats();
            }
            _ => {
                servers.redis = None;
                servers.start_redis();
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let ledger = runtime.block_on(producer).expect("no panic");
    let counts = wait_for("the rest", &worker, || {
        worker.counts().filter(|counts| counts.values().sum::<u64>() >= ledger.values().sum())
    });
    assert_eq!(counts, ledger, "values in the windows against the producer's ledger");
    assert_eq!(worker.stop(), Some(0));
    let board = runtime.block_on(board(servers.nats_url()));
    assert!(board.lines().count() >= 3, "hardly any alert fired: {board}");
    let replayed = replayed(&servers);
    // Whatever the last ticks before the end changed is in the export, too.
    assert!(replayed.starts_with(&board), "board:\n{board}\nreplayed:\n{replayed}");
}

#[test]
fn nothing_is_lost_or_doubled_with_fsync_always() {
    survives("always");
}

#[test]
fn nothing_is_lost_or_doubled_with_fsync_every_second() {
    survives("everysec");
}

/// Goal: an owner that slept through its lease does nothing when it wakes up.
/// Method: SIGSTOP for three terms under load; another worker takes over; then both run.
#[test]
fn an_owner_that_slept_through_its_lease_is_fenced() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start("always");
    let first = servers.worker("1s");
    let stop = Arc::new(AtomicBool::new(false));
    let producer = runtime.spawn(produce(servers.nats_url(), stop.clone()));
    wait_for("progress", &first, || first.counts().filter(|counts| counts.values().sum::<u64>() > 1_000));
    first.signal("-STOP");
    let second = servers.worker("1s");
    let stopped_at = Instant::now();
    wait_for("take-over", &second, || second.counts().filter(|counts| !counts.is_empty()));
    let took = stopped_at.elapsed();
    assert!(took < Duration::from_secs(5), "taken over after {took:?}, at a lease of 1 s");
    wait_for("three terms", &second, || (stopped_at.elapsed() > Duration::from_secs(3)).then_some(()));
    first.signal("-CONT");
    wait_for("fencing", &first, || {
        first.log.lock().expect("no panic").contains("another worker owns the partition now").then_some(())
    });
    assert!(first.get("/api/v1/alerts").is_none(), "a worker that stands by has no engine to ask");
    stop.store(true, Ordering::Relaxed);
    let ledger = runtime.block_on(producer).expect("no panic");
    let counts = wait_for("the rest", &second, || {
        second.counts().filter(|counts| counts.values().sum::<u64>() >= ledger.values().sum())
    });
    assert_eq!(counts, ledger);
    // The one that stands by is next: handed over without waiting for the lease.
    let left_at = Instant::now();
    assert_eq!(second.stop(), Some(0));
    let counts = wait_for("hand-over", &first, || first.counts().filter(|counts| !counts.is_empty()));
    assert!(left_at.elapsed() < Duration::from_secs(3), "handed over after {:?}", left_at.elapsed());
    assert_eq!(counts, ledger);
    assert_eq!(first.stop(), Some(0));
    let board = runtime.block_on(board(servers.nats_url()));
    assert!(replayed(&servers).starts_with(&board));
}

/// Goal: Redis lost altogether is rebuilt from the stream; a stream made anew is not taken for the old one.
#[test]
fn a_lost_store_is_rebuilt_and_a_new_stream_is_refused() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start("always");
    let mut worker = servers.worker("1s");
    let stop = Arc::new(AtomicBool::new(false));
    let producer = runtime.spawn(produce(servers.nats_url(), stop.clone()));
    wait_for("progress", &worker, || worker.counts().filter(|counts| counts.values().sum::<u64>() > 20_000));
    stop.store(true, Ordering::Relaxed);
    let ledger = runtime.block_on(producer).expect("no panic");
    let flushed = redis::Client::open(format!("redis://127.0.0.1:{}", servers.redis_port))
        .and_then(|client| client.get_connection())
        .and_then(|mut connection| redis::cmd("FLUSHALL").query::<String>(&mut connection));
    assert_eq!(flushed.expect("redis answers"), "OK");
    // Until the next commit finds out, the worker answers from memory.
    wait_for("the loss is seen", &worker, || {
        worker.log.lock().expect("no panic").contains("standing by").then_some(())
    });
    let counts = wait_for("rebuilding", &worker, || {
        worker.counts().filter(|counts| counts.values().sum::<u64>() >= ledger.values().sum())
    });
    assert_eq!(counts, ledger);
    let anew = runtime.block_on(async {
        let client = async_nats::connect(servers.nats_url()).await.expect("a broker");
        let context = jetstream::new(client);
        let config = context.get_stream("SG_EVENTS_0").await.expect("a stream").cached_info().config.clone();
        context.delete_stream("SG_EVENTS_0").await.expect("deleted");
        context.create_stream(config).await
    });
    assert!(anew.is_ok());
    let code =
        wait_with_log("the end", &worker.log.clone(), || worker.process.0.try_wait().expect("a child"));
    assert_eq!(code.code(), Some(1));
    let log = worker.log.lock().expect("no panic").clone();
    assert!(log.contains("was made anew") || log.contains("it was made at"), "{log}");
}

/// Goal: others read the windows of the contract from Redis. Method: as a program of another
/// language would: keys, MessagePack, JSON.
#[test]
fn the_read_model_is_that_of_the_contract() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start("always");
    let worker = servers.worker("1s");
    let stop = Arc::new(AtomicBool::new(false));
    let producer = runtime.spawn(produce(servers.nats_url(), stop.clone()));
    wait_for("progress", &worker, || worker.counts().filter(|counts| counts.values().sum::<u64>() > 5_000));
    stop.store(true, Ordering::Relaxed);
    let ledger = runtime.block_on(producer).expect("no panic");
    wait_for("the rest", &worker, || worker.counts().filter(|counts| *counts == ledger));
    assert_eq!(worker.stop(), Some(0));
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", servers.redis_port)).expect("a url");
    let mut connection = client.get_connection().expect("redis answers");
    let catalog: BTreeMap<String, String> =
        redis::cmd("HGETALL").arg("sg:{0}:catalog").query(&mut connection).expect("a hash");
    for (id, json) in catalog {
        let series: Value = serde_json::from_str(&json).expect("JSON");
        let source = series["source"].as_str().expect("a source").to_string();
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(format!("sg:{{0}}:w:1h:{id}:*")).query(&mut connection).expect("keys");
        let mut count = 0;
        for key in keys {
            let rows: BTreeMap<String, Vec<u8>> =
                redis::cmd("HGETALL").arg(&key).query(&mut connection).expect("a hash");
            for row in rows.values() {
                let row: Value = rmp_serde::from_slice(row).expect("MessagePack");
                assert_eq!(row.as_array().map(Vec::len), Some(15), "{row}");
                count += row[0].as_u64().expect("a count");
            }
            let ttl: i64 = redis::cmd("TTL").arg(&key).query(&mut connection).expect("a number");
            assert!(ttl > 29 * 86_400, "{key} goes in {ttl} s");
        }
        assert_eq!(count, ledger[&source], "{source}");
    }
    let partitions: String =
        redis::cmd("HGET").arg("sg:meta").arg("partitions").query(&mut connection).expect("a field");
    assert_eq!(partitions, "1");
}

/// Goal: whoever is not the newest owner changes nothing, lease or no lease; the same bytes sent
/// twice count once. Method: two stores on one partition, the lease of the first taken away.
#[test]
fn only_the_newest_owner_commits() {
    let servers = Servers::start("always");
    let url = format!("redis://127.0.0.1:{}", servers.redis_port);
    let settings =
        Settings { url: url.clone(), prefix: "sg".into(), partition: 0, lease: Duration::from_secs(60) };
    let store = || Shared::new(RedisStore::new(&settings, true).expect("a url"));
    let commit = |applied| Commit { applied, ..Commit::default() };
    let (mut first, mut second) = (store(), store());
    assert!(first.acquire().expect("redis answers"));
    first.commit(&commit(5)).expect("the owner commits");
    assert!(!second.acquire().expect("redis answers"), "there is an owner");
    let connection = redis::Client::open(url).and_then(|client| client.get_connection());
    let mut connection = connection.expect("redis answers");
    let gone: u64 = redis::cmd("DEL").arg("sg:{0}:lease").query(&mut connection).expect("a number");
    assert_eq!(gone, 1);
    assert!(second.acquire().expect("redis answers"));
    assert!(!first.renew().expect("redis answers"), "the lease is somebody else's");
    assert_eq!(second.checkpoint().expect("readable").applied, 5);
    let refused = first.commit(&commit(9));
    assert!(matches!(refused, Err(PortError::Fenced { .. })), "{refused:?}");
    second.commit(&commit(6)).expect("the owner commits");
    let refused = first.commit(&commit(9));
    assert!(matches!(refused, Err(PortError::Fenced { .. })), "{refused:?}");
    assert_eq!(second.checkpoint().expect("readable").applied, 6);
    // Redis went back in time, behind the second's last commit: its version fits no more.
    let back: u64 = redis::cmd("HSET")
        .arg("sg:{0}:ckpt")
        .arg(&[("ver", "1"), ("applied", "5"), ("commit", "")])
        .query(&mut connection)
        .expect("a number");
    assert_eq!(back, 0);
    assert!(matches!(second.commit(&commit(7)), Err(PortError::Fenced { .. })));
}
