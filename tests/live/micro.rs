//! The service over the broker alone: who it is, what it knows.

use crate::edge::now_ms;
use crate::servers::{Servers, wait_for};
use serde_json::{Value, json};

/// Goal: a deployment can be asked without knowing any worker's address. Method: as any NATS client
/// would: ping, info, a question, an event, and one that is wrong.
#[test]
fn the_micro_service_answers_over_the_broker() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    let client = runtime.block_on(async_nats::connect(servers.nats_url())).expect("a broker");
    let ask = |subject: &str, body: String| {
        let message = runtime.block_on(client.request(subject.to_string(), body.into())).expect("an answer");
        let error = message.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code"));
        (
            error.map(ToString::to_string),
            serde_json::from_slice::<Value>(&message.payload).unwrap_or_default(),
        )
    };
    let (_, ping) = ask("$SRV.PING.streamgauge", String::new());
    assert_eq!(ping["name"], "streamgauge");
    let (_, info) = ask("$SRV.INFO.streamgauge", String::new());
    let subjects: Vec<&str> = info["endpoints"]
        .as_array()
        .expect("endpoints")
        .iter()
        .filter_map(|one| one["subject"].as_str())
        .collect();
    assert!(subjects.contains(&"sg.v1.api.alerts") && subjects.contains(&"sg.v1.api.ack"), "{subjects:?}");
    let event =
        json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms", "value": 9_000});
    assert_eq!(ask("sg.v1.api.events", event.to_string()).1["accepted"], 1);
    let alert = wait_for("the alert", &worker, || {
        let (_, found) = ask("sg.v1.api.alerts", "rule=odd".into());
        found["alerts"][0]["id"].as_str().map(str::to_string)
    });
    ask("sg.v1.api.ack", json!({"alert": alert, "by": "somebody"}).to_string());
    wait_for("the acknowledgement", &worker, || {
        let (_, found) = ask("sg.v1.api.alerts", "state=acknowledged".into());
        (found["alerts"][0]["id"] == *alert).then_some(())
    });
    let (error, _) = ask("sg.v1.api.alerts", "state=nonsense".into());
    assert_eq!(error.as_deref(), Some("400"));
}
