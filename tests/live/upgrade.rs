//! A Redis and a JetStream that an older binary wrote are taken over with everything in them.

use crate::edge::now_ms;
use crate::fixture::{self, column};
use crate::servers::{Servers, Worker, wait_for};
use serde_json::{Value, json};

/// Goal: an upgrade of a deployment keeps everything. Method: the servers of each fixture of
/// `tests/fixtures/`, and a worker of this binary.
#[test]
fn servers_of_older_binaries_are_taken_over_whole() {
    for (_, path) in fixture::all() {
        let (servers, said) = Servers::start_from(&path);
        // The worker's own rule files differ from the rules in Redis, which stay in force.
        is_taken_over(&servers.worker("2s"), &said);
    }
}

fn is_taken_over(worker: &Worker, said: &Value) {
    let list = |path: &str, name: &str| -> Option<Value> {
        let found: Value = serde_json::from_str(&worker.get(path)?).ok()?;
        found.get(name).cloned()
    };
    wait_for("ownership", worker, || (worker.owned() == 1).then_some(()));
    // The log's clock waits for 15 s before it believes the years since, so nothing has ended yet.
    let alerts = wait_for("the alerts", worker, || list("/api/v1/alerts", "alerts"));
    for field in ["id", "rule", "started_at", "acknowledged_by"] {
        assert_eq!(column(&alerts, field), column(&said["alerts"], field), "{alerts}");
    }
    let pipelines = list("/api/v1/pipelines", "pipelines").expect("an answer");
    assert_eq!(column(&pipelines, "in_flight"), column(&said["pipelines"], "in_flight"), "{pipelines}");
    let silences = list("/api/v1/silences", "silences").expect("an answer");
    assert_eq!(column(&silences, "id"), column(&said["silences"], "id"), "{silences}");
    let rules = list("/api/v1/rules", "rules").expect("an answer");
    assert_eq!(json!(column(&rules, "id")), said["rules"]);
    let event =
        json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms", "value": 1});
    let sent = ureq::post(format!("{}/api/v1/events", worker.url)).send(event.to_string());
    assert_eq!(sent.expect("accepted").status(), 202);
    wait_for("the event", worker, || worker.counts().filter(|counts| counts.get("s-0") == Some(&1)));
}
