//! Processes that do a part of the work.

use crate::edge::now_ms;
use crate::servers::{Servers, wait_for};
use serde_json::json;

/// Goal: one process owns partitions, another one answers requests. Method: an event is posted to the
/// process that owns nothing and counted by the process that answers no requests; the first one then shows
/// its window.
#[test]
fn one_process_owns_and_another_one_answers() {
    let servers = Servers::start("everysec");
    let (api, ingest) = (servers.worker_as("api"), servers.worker_as("ingest"));
    wait_for("ownership", &ingest, || (ingest.owned() == 1).then_some(()));
    wait_for("readiness", &api, || api.get("/readyz"));
    let event =
        json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms", "value": 7});
    let sent = ureq::post(format!("{}/api/v1/events", api.url)).send(event.to_string());
    assert_eq!(sent.expect("accepted").status(), 202);
    wait_for("the event", &ingest, || {
        ingest.metric("streamgauge_events_received_total ").filter(|n| *n == 1)
    });
    wait_for("its window", &api, || api.counts().filter(|counts| counts.get("s-0") == Some(&1)));
    assert_eq!((api.owned(), ingest.get("/api/v1/alerts"), ingest.get("/")), (0, None, None));
    assert!(ingest.get("/healthz").is_some() && api.get("/api/v1/alerts").is_some());
    assert_eq!((api.stop(), ingest.stop()), (Some(0), Some(0)));
}
