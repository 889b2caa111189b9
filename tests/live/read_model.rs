//! The data that programs in other languages read.

use crate::load::produce;
use crate::servers::{Servers, wait_for};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Goal: programs in other languages can read the documented windows from Redis. Method: keys, MessagePack
/// and JSON, as such a program would read them.
#[test]
fn the_read_model_is_that_of_the_contract() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start("always");
    let worker = servers.worker("1s");
    let stop = Arc::new(AtomicBool::new(false));
    let producer = runtime.spawn(produce(servers.nats_url(), stop.clone(), 3));
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
    let pipelines: BTreeMap<String, String> =
        redis::cmd("HGETALL").arg("sg:{0}:pipelines").query(&mut connection).expect("a hash");
    assert!(pipelines.is_empty(), "no pipeline has sent anything: {pipelines:?}");
    let partitions: String =
        redis::cmd("HGET").arg("sg:meta").arg("partitions").query(&mut connection).expect("a field");
    assert_eq!(partitions, "1");
}
