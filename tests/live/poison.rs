//! A poison record, which kills every process that applies it.

use crate::edge::{now_ms, pause};
use crate::load::{board, jetstream_at, replayed};
use crate::servers::{Servers, wait_for};
use serde_json::json;

/// Goal: a poison record is left out, affects nothing else, and is reported. Method: a test hook that
/// aborts at a certain text; a dead process is started again, as systemd would.
#[test]
fn a_record_that_kills_is_left_out_after_a_few_deaths() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start("everysec");
    let mut worker = servers.poisoned_worker("kills");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    let context = runtime.block_on(jetstream_at(servers.nats_url()));
    let publish = |n: u64, text: &str| {
        let event = json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms", "value": n, "note": text});
        let sent = context.publish("sg.v1.metric.s-0.latency_ms", event.to_string().into());
        runtime.block_on(async { sent.await.expect("sent").await.expect("stored") });
    };
    (0..50).for_each(|n| publish(n, if n == 20 { "kills" } else { "" }));
    let mut deaths = 0;
    let counted = loop {
        if worker.process.0.try_wait().expect("a child").is_some() {
            deaths += 1;
            assert!(deaths < 20, "it dies for ever");
            worker = servers.poisoned_worker("kills");
        }
        if let Some(count) = worker.counts().and_then(|counts| counts.get("s-0").copied())
            && count >= 49
        {
            break count;
        }
        pause();
    };
    assert_eq!((counted, deaths), (49, 5), "two in the dark, three at the record");
    wait_for("the alert", &worker, || {
        worker.get("/api/v1/alerts?rule=_sg_poison").filter(|found| found.contains("\"firing\""))
    });
    assert_eq!(worker.metric("streamgauge_records_left_out_total "), Some(1));
    assert_eq!(worker.stop(), Some(0));
    let letter = runtime.block_on(async {
        let dead = context.get_stream("SG_DEAD").await.expect("a stream");
        dead.get_last_raw_message_by_subject("sg.v1.dead.poison").await.expect("a letter")
    });
    assert!(String::from_utf8_lossy(&letter.payload).contains("kills"));
    assert_eq!(runtime.block_on(board(servers.nats_url())).trim(), replayed(&servers).trim());
}
