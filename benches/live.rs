//! The service over NATS and Redis compared with its upper limit: the same client that reads the same
//! stream and discards it. `cargo bench --bench live`; needs nats-server and redis-server.
//!
//! Everything is on one machine and shares its cores with the servers, both the service and the limit.

use async_nats::jetstream::{self, Context, consumer::AckPolicy, consumer::DeliverPolicy, consumer::pull};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Rounds of each figure; the median counts.
const ROUNDS: usize = 3;

const SERIES: u64 = 1_000;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(command: &mut Command) -> Process {
    Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("installed"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// A broker and a store for this benchmark alone.
struct Servers {
    _nats: Process,
    _redis: Process,
    nats_url: String,
    redis_url: String,
}

impl Servers {
    fn start(dir: &Path) -> Servers {
        let (nats, redis) = (free_port(), free_port());
        let data = dir.join("redis");
        std::fs::create_dir_all(&data).expect("writable");
        let mut broker = Command::new("nats-server");
        broker.args(["-a", "127.0.0.1", "-js", "-p", &nats.to_string(), "-sd"]).arg(dir.join("nats"));
        let mut store = Command::new("redis-server");
        store.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &redis.to_string(),
            "--appendonly",
            "yes",
            "--save",
            "",
        ]);
        store.arg("--dir").arg(data);
        Servers {
            _nats: spawn(&mut broker),
            _redis: spawn(&mut store),
            nats_url: format!("nats://127.0.0.1:{nats}"),
            redis_url: format!("redis://127.0.0.1:{redis}"),
        }
    }

    fn redis(&self) -> redis::Connection {
        let client = redis::Client::open(self.redis_url.as_str()).expect("a url");
        loop {
            match client.get_connection() {
                Ok(connection) => return connection,
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    fn worker(&self, pipelines: &Path, interval: &str) -> (Process, String) {
        let port = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
        command.args(["run", "--nats", &self.nats_url, "--redis", &self.redis_url, "--listen"]);
        command.arg(format!("127.0.0.1:{port}")).arg("--pipelines").arg(pipelines);
        command.args(["--evaluation-interval", interval]);
        (spawn(&mut command), format!("http://127.0.0.1:{port}/metrics"))
    }

    fn flush(&self) {
        redis::cmd("FLUSHALL").query::<()>(&mut self.redis()).expect("redis answers");
    }
}

async fn connect(url: &str) -> Context {
    let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
    let mut context = jetstream::new(options.connect(url).await.expect("a url"));
    context.set_timeout(Duration::from_secs(10));
    context
}

/// The content of one message.
#[derive(Clone, Copy)]
enum Shape {
    One,
    Hundred,
    Samples,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Shape::One => "one event a message",
            Shape::Hundred => "a hundred events a message",
            Shape::Samples => "samples, 500 values a message",
        }
    }

    fn values(self) -> u64 {
        match self {
            Shape::One => 1,
            Shape::Hundred => 100,
            Shape::Samples => 500,
        }
    }

    fn messages(self) -> u64 {
        match self {
            Shape::One => 600_000,
            Shape::Hundred => 30_000,
            Shape::Samples => 20_000,
        }
    }

    /// Subject and payload of message number `n`.
    fn message(self, n: u64) -> (String, String) {
        let time = now_ms();
        let event = |series: u64, value: u64| {
            json!({"type": "metric", "time": time, "source": format!("s-{}", series % 50), "name": "latency_ms",
                "unit": "ms", "labels": {"host": format!("h-{series}")}, "value": (value * 7_919 % 100_000) as f64 / 100.0})
        };
        let series = n % SERIES;
        let payload = match self {
            Shape::One => event(series, n).to_string(),
            Shape::Hundred => {
                let lines = (0..100).map(|at| event((n * 100 + at) % SERIES, n * 100 + at).to_string());
                lines.collect::<Vec<_>>().join("\n")
            }
            Shape::Samples => json!({"type": "samples", "source": format!("s-{}", series % 50), "name": "latency_ms",
                "unit": "ms", "labels": {"host": format!("h-{series}")},
                "times": vec![time; 500],
                "values": (0..500).map(|at| ((n * 500 + at) * 7_919 % 100_000) as f64 / 100.0).collect::<Vec<_>>()})
            .to_string(),
        };
        (format!("sg.v1.metric.s-{}.latency_ms", series % 50), payload)
    }
}

/// Fills the event stream with messages of one shape.
async fn fill(context: &Context, shape: Shape) {
    let stream = context.get_stream("SG_EVENTS_0").await.expect("made by the worker");
    stream.purge().await.expect("purged");
    let mut waiting = VecDeque::new();
    for n in 0..shape.messages() {
        let (subject, payload) = shape.message(n);
        let mut headers = async_nats::HeaderMap::new();
        let payload = payload.into();
        let sent = if matches!(shape, Shape::Hundred) {
            headers.insert("Content-Type", "application/x-ndjson");
            context.publish_with_headers(subject, headers, payload).await
        } else {
            context.publish(subject, payload).await
        };
        waiting.push_back(sent.expect("sent"));
        if waiting.len() > 4_000 {
            waiting.pop_front().expect("some").await.expect("stored");
        }
    }
    for sent in waiting {
        sent.await.expect("stored");
    }
}

/// Messages a second of the client alone, which reads as the worker does.
async fn drain(context: &Context) -> f64 {
    let stream = context.get_stream("SG_EVENTS_0").await.expect("a stream");
    let state = &stream.cached_info().state;
    let (first, last) = (state.first_sequence, state.last_sequence);
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: first },
        ack_policy: AckPolicy::None,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let pulled = consumer.stream().max_messages_per_batch(5_000).max_bytes_per_batch(16 << 20);
    let mut messages = pulled
        .heartbeat(Duration::from_secs(1))
        .expires(Duration::from_secs(5))
        .messages()
        .await
        .expect("messages");
    let begun = Instant::now();
    for _ in first..=last {
        messages.next().await.expect("a message").expect("read");
    }
    (last + 1 - first) as f64 / begun.elapsed().as_secs_f64()
}

/// Reads a number from the worker's /metrics.
fn metric(url: &str, name: &str) -> Option<u64> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build().into();
    let text = agent.get(url).call().ok()?.body_mut().read_to_string().ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Values a second of the whole service: decoding, windows, rules, commits.
fn serve(servers: &Servers, pipelines: &Path, shape: Shape) -> f64 {
    servers.flush();
    let (worker, url) = servers.worker(pipelines, "1s");
    let total = shape.messages() * shape.values();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(_, count)| *count < total) {
        if let Some(count) = metric(&url, "streamgauge_events_received_total ").filter(|count| *count > 0) {
            seen.push((Instant::now(), count));
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let ((begun, first), (ended, last)) = (seen[0], seen[seen.len() - 1]);
    drop(worker);
    (last - first) as f64 / (ended - begun).as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn throughput(runtime: &tokio::runtime::Runtime, servers: &Servers, pipelines: &Path, shape: Shape) {
    let context = runtime.block_on(connect(&servers.nats_url));
    runtime.block_on(fill(&context, shape));
    let (mut limits, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let limit = runtime.block_on(drain(&context)) * shape.values() as f64;
        let served = serve(servers, pipelines, shape);
        limits.push(limit);
        ours.push(served);
        ratios.push(served / limit);
    }
    println!(
        "{}: limit {:.2} M values/s, ours {:.2} M values/s = {:.2} of it",
        shape.name(),
        median(limits) / 1e6,
        median(ours) / 1e6,
        median(ratios)
    );
}

/// Empties the store and deletes the streams, which the worker creates again. A purged stream would be a
/// gap, after which rules evaluate to unknown.
fn begin_anew(runtime: &tokio::runtime::Runtime, servers: &Servers) -> Context {
    servers.flush();
    runtime.block_on(async {
        let context = connect(&servers.nats_url).await;
        for name in ["SG_EVENTS_0", "SG_ALERTS"] {
            context.delete_stream(name).await.expect("deleted");
        }
        context
    })
}

/// Time from publishing a breaching event to its alert at a subscriber, under load.
fn latency(runtime: &tokio::runtime::Runtime, servers: &Servers, pipelines: &Path, interval: &str) {
    begin_anew(runtime, servers);
    let (worker, url) = servers.worker(pipelines, interval);
    while metric(&url, "streamgauge_rules ").is_none_or(|rules| rules == 0) {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let mut times = runtime.block_on(async {
        let client = async_nats::connect(&servers.nats_url).await.expect("a broker");
        let mut alerts = client.subscribe("sg.v1.alert.>").await.expect("subscribed");
        client.flush().await.expect("flushed");
        let load = tokio::spawn({
            // Core NATS messages, because unawaited acknowledgements would delay the measured messages.
            let client = client.clone();
            async move {
                let begun = Instant::now();
                for n in 0u64.. {
                    let (subject, payload) = Shape::One.message(n);
                    client.publish(subject, payload.into()).await.expect("sent");
                    if n.is_multiple_of(200) {
                        let due = Duration::from_millis(n / 20);
                        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
                    }
                }
            }
        });
        let mut times = Vec::new();
        for n in 0..120u64 {
            let event = json!({"type": "metric", "time": now_ms(), "source": format!("breach-{n}"), "name": "breach_ms", "value": 5_000});
            let begun = Instant::now();
            client.publish("sg.v1.metric.breach.breach_ms", event.to_string().into()).await.expect("sent");
            loop {
                let alert = alerts.next().await.expect("an alert");
                let alert: Value = serde_json::from_slice(&alert.payload).expect("JSON");
                if alert["key"]["source"] == format!("breach-{n}") && alert["state"] == "firing" {
                    break;
                }
            }
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            // The pauses vary, so that the events are not in step with the grid.
            tokio::time::sleep(Duration::from_millis(n * 37 % 101)).await;
        }
        load.abort();
        times
    });
    drop(worker);
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("alert latency, grid {interval}, 20 k events/s: p50 {:.0} ms, p99 {:.0} ms", at(0.5), at(0.99));
}

/// The state of the worker at one moment: its memory, the bytes sent to Redis, the commits below each
/// bound.
struct Footprint {
    rss_kib: u64,
    redis_bytes: u64,
    commits: Vec<(f64, u64)>,
}

impl Footprint {
    fn of(worker: &Process, servers: &Servers, url: &str) -> Footprint {
        let status = std::fs::read_to_string(format!("/proc/{}/status", worker.0.id())).expect("it runs");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let info: String =
            redis::cmd("INFO").arg("stats").query(&mut servers.redis()).expect("redis answers");
        let sent = info.lines().find_map(|line| line.strip_prefix("total_net_input_bytes:"));
        let text = ureq::get(url).call().expect("metrics").body_mut().read_to_string().expect("text");
        let bucket = |line: &str| {
            let (bound, count) =
                line.strip_prefix("streamgauge_commit_seconds_bucket{le=\"")?.split_once("\"} ")?;
            Some((bound.parse().unwrap_or(f64::INFINITY), count.parse().ok()?))
        };
        Footprint {
            rss_kib: rss.and_then(|rss| rss.trim().parse().ok()).expect("a number"),
            redis_bytes: sent.and_then(|sent| sent.trim().parse().ok()).expect("a number"),
            commits: text.lines().filter_map(bucket).collect(),
        }
    }

    /// The bound, in milliseconds, that this share of the commits since `before` did not exceed.
    fn commit_ms(&self, before: &Footprint, share: f64) -> f64 {
        let new: Vec<(f64, u64)> =
            self.commits.iter().zip(&before.commits).map(|(a, b)| (a.0, a.1 - b.1)).collect();
        let total = new.last().map_or(0, |(_, count)| *count);
        let found = new.iter().find(|(_, count)| *count as f64 >= total as f64 * share);
        found.map_or(f64::NAN, |(bound, _)| bound * 1e3)
    }
}

const ACTIVE: u64 = 100_000;

/// Minutes before the burst; the windows take four minutes to fill.
fn warm_minutes() -> u32 {
    let stated = std::env::var("SG_WARM_MINUTES").ok().and_then(|text| text.parse().ok());
    stated.unwrap_or(2)
}

/// 100,000 series that send every ten seconds, then ten times as often for two minutes, then as before:
/// memory, bytes to Redis a minute, and commit times. Each series has a level of its own and varies by a
/// tenth, so its windows take no more memory at the higher rate. Any growth is therefore that of queues.
fn burst(runtime: &tokio::runtime::Runtime, servers: &Servers, pipelines: &Path) {
    let context = begin_anew(runtime, servers);
    let (worker, url) = servers.worker(pipelines, "1s");
    while metric(&url, "streamgauge_partitions_owned ") != Some(1) {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let rate = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(100));
    let sent = runtime.spawn(send_steadily(context, rate.clone()));
    let minute = Duration::from_secs(60);
    let measure = |length: Duration| {
        let (begun, before) = (Instant::now(), Footprint::of(&worker, servers, &url));
        let mut high = before.rss_kib;
        while begun.elapsed() < length {
            std::thread::park_timeout(Duration::from_millis(500));
            high = high.max(Footprint::of(&worker, servers, &url).rss_kib);
        }
        let after = Footprint::of(&worker, servers, &url);
        let bytes = (after.redis_bytes - before.redis_bytes) as f64 / length.as_secs_f64() * 60.0;
        println!(
            "  RSS {:.0} MiB, up to {:.0}, {:.0} at the end, {:.0} MB to redis a minute, commits p50 <= {:.0} ms, p99 <= {:.0} ms",
            before.rss_kib as f64 / 1024.0,
            high as f64 / 1024.0,
            after.rss_kib as f64 / 1024.0,
            bytes / 1e6,
            after.commit_ms(&before, 0.5),
            after.commit_ms(&before, 0.99),
        );
    };
    println!("100,000 series, 10 k events/s, minute by minute:");
    for _ in 0..warm_minutes() {
        measure(minute);
    }
    println!("ten times as much for two minutes:");
    rate.store(1_000, std::sync::atomic::Ordering::Relaxed);
    measure(2 * minute);
    println!("as before:");
    rate.store(100, std::sync::atomic::Ordering::Relaxed);
    measure(2 * minute);
    sent.abort();
    let received = metric(&url, "streamgauge_events_received_total ");
    println!("  {} events received", received.unwrap_or(0));
}

/// Sends messages of a hundred events at a rate that may change.
async fn send_steadily(context: Context, rate: std::sync::Arc<std::sync::atomic::AtomicU64>) {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Content-Type", "application/x-ndjson");
    let mut waiting = VecDeque::new();
    let (mut next, mut due) = (0u64, Instant::now());
    loop {
        let event = |at: u64| {
            let series = (next * 100 + at) % ACTIVE;
            let level = 100.0 + (series * 7_919 % 900) as f64;
            let value = level * (1.0 + ((next * 31 + at * 17) % 21) as f64 / 100.0 - 0.1);
            format!(
                r#"{{"type":"metric","time":{},"source":"s-{}","name":"latency_ms","unit":"ms","labels":{{"host":"h-{series}"}},"value":{value}}}"#,
                now_ms(),
                series % 50
            )
        };
        let payload = (0..100).map(event).collect::<Vec<_>>().join("\n");
        let subject = format!("sg.v1.metric.s-{}.latency_ms", next % 50);
        let sent = context.publish_with_headers(subject, headers.clone(), payload.into()).await;
        waiting.push_back(sent.expect("sent"));
        if waiting.len() > 1_000 {
            waiting.pop_front().expect("some").await.expect("stored");
        }
        next += 1;
        due += Duration::from_secs(1) / rate.load(std::sync::atomic::Ordering::Relaxed) as u32;
        tokio::time::sleep_until(due.into()).await;
    }
}

const RULES: &str = "version: 1
rules:
  - { id: breach, expr: 'max(breach_ms[10s]) by (source) > 1s', severity: critical }
  - { id: slow, expr: 'p99(latency_ms[1m]) by (source) > 5s', severity: warning, for: 1m }
  - { id: rate, expr: 'rate(latency_ms[5m]) by (source) > 1000000', severity: warning }
";

fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let pipelines = dir.path().join("pipelines");
    std::fs::create_dir_all(&pipelines).expect("writable");
    std::fs::write(pipelines.join("rules.yaml"), RULES).expect("writable");
    let servers = Servers::start(dir.path());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // The worker creates the streams.
    let (worker, url) = servers.worker(&pipelines, "1s");
    while metric(&url, "streamgauge_partitions_owned ") != Some(1) {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    drop(worker);
    let wanted = std::env::args().nth(1).filter(|word| !word.starts_with('-'));
    let is_wanted = |word: &str| wanted.as_deref().is_none_or(|wanted| wanted == word);
    for (word, shape) in [("one", Shape::One), ("hundred", Shape::Hundred), ("samples", Shape::Samples)] {
        if is_wanted(word) {
            throughput(&runtime, &servers, &pipelines, shape);
        }
    }
    if is_wanted("burst") {
        burst(&runtime, &servers, &pipelines);
    }
    for interval in ["1s", "100ms"] {
        if is_wanted("latency") {
            latency(&runtime, &servers, &pipelines, interval);
        }
    }
}
