//! Recovery time after an outage.

use crate::edge::now_ms;
use crate::load::jetstream_at;
use crate::servers::{Servers, wait_for};
use serde_json::json;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Goal: a broker that is available again is read within two seconds, however long it was away. Method:
/// kill -9, a start five seconds later; the time from when it listens until an event is counted.
#[test]
fn a_broker_that_is_back_is_read_at_once() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    let publish = |url: String| {
        runtime.block_on(async {
            let context = jetstream_at(url).await;
            let event = json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms", "value": 1});
            let sent = context.publish("sg.v1.metric.s-0.latency_ms", event.to_string().into()).await;
            sent.expect("sent").await.expect("stored");
        });
    };
    let received = || worker.metric("streamgauge_events_received_total ");
    publish(servers.nats_url());
    wait_for("the first event", &worker, || received().filter(|count| *count == 1));
    servers.nats = None;
    let away = Instant::now();
    wait_for("time to pass", &worker, || (away.elapsed() > Duration::from_secs(5)).then_some(()));
    servers.start_nats();
    let port = servers.nats_port;
    wait_for("the broker", &worker, || TcpStream::connect(("127.0.0.1", port)).ok());
    let back = Instant::now();
    publish(servers.nats_url());
    wait_for("the second event", &worker, || received().filter(|count| *count == 2));
    assert!(back.elapsed() < Duration::from_secs(2), "read again after {:?}", back.elapsed());
}
