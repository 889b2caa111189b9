//! A store or a stream that is gone.

use crate::load::produce;
use crate::servers::{Servers, wait_for, wait_with_log};
use async_nats::jetstream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Goal: Redis lost altogether is rebuilt from the stream; a stream made anew is not taken for the old one.
#[test]
fn a_lost_store_is_rebuilt_and_a_new_stream_is_refused() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start("always");
    let mut worker = servers.worker("1s");
    let stop = Arc::new(AtomicBool::new(false));
    let producer = runtime.spawn(produce(servers.nats_url(), stop.clone(), 3));
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
