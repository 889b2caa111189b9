//! Events in, alerts out: the producer's ledger, the published alerts, and a replay of the stream.

use crate::edge::now_ms;
use crate::servers::Servers;
use async_nats::jetstream::stream::DiscardPolicy;
use async_nats::jetstream::{self, message::PublishMessage};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Publishes batches until stopped, and repeats each until it is acknowledged. Returns the number of
/// published values per source.
pub async fn produce(url: String, stop: Arc<AtomicBool>, sources: u64) -> BTreeMap<String, u64> {
    let client =
        async_nats::ConnectOptions::new().retry_on_initial_connect().connect(url).await.expect("a url");
    let mut context = jetstream::new(client);
    context.set_timeout(Duration::from_secs(1));
    let mut ledger = BTreeMap::new();
    let mut batch = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let source = format!("s-{}", batch % sources);
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
            // The broker is unavailable; the client reconnects by itself.
            tokio::task::yield_now().await;
        }
        *ledger.entry(source).or_default() += size;
        batch += 1;
    }
    ledger
}

/// Bounds the event stream, which then refuses further messages; without `bytes` the bound is removed.
pub fn give_log_room(servers: &Servers, bytes: Option<i64>) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let context = jetstream_at(servers.nats_url()).await;
        let mut stream = context.get_stream("SG_EVENTS_0").await.expect("a stream");
        let mut config = stream.info().await.expect("it is there").config.clone();
        config.max_bytes = bytes.unwrap_or(-1);
        config.discard = if bytes.is_some() { DiscardPolicy::New } else { DiscardPolicy::Old };
        context.update_stream(config).await.expect("updated");
    });
}

pub async fn jetstream_at(url: String) -> jetstream::Context {
    jetstream::new(async_nats::connect(url).await.expect("a broker"))
}

/// The published alerts of the alert stream, ordered by time, partition and number.
pub async fn board(url: String) -> String {
    let stream = jetstream_at(url).await.get_stream("SG_ALERTS").await.expect("a stream");
    let last = stream.cached_info().state.last_sequence;
    let (mut alerts, mut places) = (Vec::new(), BTreeMap::<u64, BTreeSet<u64>>::new());
    for seq in 1..=last {
        let message = stream.get_raw_message(seq).await.expect("a message");
        if !message.subject.contains(".alert.") {
            continue;
        }
        // The aggregate partition sorts after the other partitions.
        let number = |token: &str| token.parse::<u64>().unwrap_or(u64::MAX);
        let mut tokens = message.subject.rsplit('.').map(number);
        let (number, partition) = (tokens.next().expect("a number"), tokens.next().expect("a partition"));
        let text = String::from_utf8(message.payload.to_vec()).expect("UTF-8");
        let is_new = places.entry(partition).or_default().insert(number);
        assert!(is_new, "number {number} of {partition} was stored twice");
        let alert: Value = serde_json::from_str(&text).expect("JSON");
        let at = alert["at"].as_str().expect("a time").to_string();
        // Times differ in length but end in Z; without it they sort as texts.
        alerts.push((at.trim_end_matches('Z').to_string(), partition, number, text));
    }
    for (partition, numbers) in places {
        assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "a number of {partition} is missing");
    }
    alerts.sort();
    alerts.into_iter().map(|(.., line)| line + "\n").collect()
}

/// The alert log that a replay of the exported stream gives.
pub fn replayed(servers: &Servers) -> String {
    let dir = servers.dir.path();
    let binary = || Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    let export = binary().args(["export", "--nats", &servers.nats_url()]).output().expect("runs");
    assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
    let (log, alerts) = (dir.join("export.ndjson"), dir.join("alerts.ndjson"));
    std::fs::write(&log, export.stdout).expect("writable");
    // A directory of rules beside it would replace the rules of the log.
    let mut replay = binary();
    replay.current_dir(dir.join("redis")).arg("replay").arg(&log).arg("--alerts-out").arg(&alerts);
    replay.args(["--allowed-lateness", "2s"]).env_remove("STREAMGAUGE_PIPELINES");
    assert!(replay.output().expect("runs").status.success());
    std::fs::read_to_string(alerts).expect("alerts")
}
