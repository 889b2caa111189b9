//! The NATS micro service: its identity, and its answers over the broker.

use crate::edge::now_ms;
use crate::servers::{Servers, Worker, wait_for};
use serde_json::{Value, json};

/// Goal: a deployment can be queried without knowing any worker's address. Method: as any NATS client
/// would: ping, info, a query, an event, and an invalid event.
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
    // The reason becomes a header of the answer, whatever it quotes.
    for _ in 0..2 {
        let (error, _) = ask("sg.v1.api.alerts", "a%0a%0db=1".into());
        assert_eq!(error.as_deref(), Some("400"));
        let (error, _) = ask("sg.v1.api.ack", json!({"a\nb": 1}).to_string());
        assert_eq!(error.as_deref(), Some("400"));
    }
    assert!(ask("sg.v1.api.alerts", String::new()).0.is_none(), "the endpoint goes on");
}

/// Goal: a flood of questions does not hold up others for long. Method: 3,000 questions at once, and one
/// from another client, repeated until it is answered.
#[test]
fn a_flood_of_questions_is_refused_in_time() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    let connect = || runtime.block_on(async_nats::connect(servers.nats_url())).expect("a broker");
    let (flood, client) = (connect(), connect());
    runtime.block_on(async {
        for _ in 0..3_000 {
            flood.publish_with_reply("sg.v1.api.alerts", "_INBOX.flood", "".into()).await.expect("sent");
        }
        flood.flush().await.expect("sent");
    });
    let begun = std::time::Instant::now();
    wait_for("an answer", &worker, || {
        let asked = runtime.block_on(client.request("sg.v1.api.alerts", "".into())).ok()?;
        let headers = asked.headers.as_ref();
        headers.and_then(|headers| headers.get("Nats-Service-Error-Code")).is_none().then_some(())
    });
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

/// Tokens of the configuration: name, role and secret of each.
const TOKENS: [(&str, &str, &str); 3] = [
    ("wall", "view", "view-0123456789abcdef"),
    ("ann", "operate", "operate-0123456789abcdef"),
    ("root", "admin", "admin-0123456789abcdef"),
];

/// Goal: roles apply over the broker as they do over HTTP, and a change is recorded under the name of the
/// token. Method: operations of each kind with every token, with a wrong one and without one.
#[test]
fn questions_over_the_broker_need_the_right_token() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start("everysec");
    let config = servers.dir.path().join("tokens.yaml");
    let token = |(name, role, _): &(&str, &str, &str)| {
        format!("  - {{ name: {name}, role: {role}, token: 'env:TOKEN_OF_{name}' }}\n")
    };
    std::fs::write(&config, format!("tokens:\n{}", TOKENS.iter().map(token).collect::<String>()))
        .expect("writable");
    let mut command = servers.command("1s", 1);
    command.arg("--config").arg(&config);
    command.envs(TOKENS.iter().map(|(name, _, secret)| (format!("TOKEN_OF_{name}"), *secret)));
    let worker = Worker::start(command);
    // Only the probes answer without a token.
    wait_for("readiness", &worker, || worker.get("/readyz"));
    let client = runtime.block_on(async_nats::connect(servers.nats_url())).expect("a broker");
    let ask = |operation: &str, body: String, token: Option<&str>| -> (u16, Value) {
        let mut headers = async_nats::HeaderMap::new();
        if let Some(token) = token {
            headers.insert("Authorization", format!("Bearer {token}").as_str());
        }
        let subject = format!("sg.v1.api.{operation}");
        let message = runtime.block_on(client.request_with_headers(subject, headers, body.into()));
        let message = message.expect("an answer");
        let code = message.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code"));
        let code = code.map_or(200, |code| code.as_str().parse().expect("a number"));
        (code, serde_json::from_slice(&message.payload).unwrap_or_default())
    };
    let silence = |id: &str| {
        json!({"id": id, "match": ["source=\"s-9\""], "duration": "1h", "by": "mallory", "reason": "known"})
            .to_string()
    };
    let rule = json!({"id": "added", "expr": "max(x[1m]) by (source) > 5", "severity": "info"}).to_string();
    let wrong = "wrong-0123456789abcdef";
    for (place, token, wanted) in [
        (0, None, [401, 401, 401]),
        (1, Some(wrong), [401, 401, 401]),
        (2, Some(TOKENS[0].2), [200, 403, 403]),
        (3, Some(TOKENS[1].2), [200, 200, 403]),
        (4, Some(TOKENS[2].2), [200, 200, 200]),
    ] {
        let read = ask("silences", String::new(), token).0;
        let operated = ask("silence-add", silence(&format!("s-{place}")), token).0;
        let administered = ask("rules-add", rule.clone(), token).0;
        assert_eq!([read, operated, administered], wanted, "with {token:?}");
    }
    wait_for("both silences", &worker, || {
        let (_, found) = ask("silences", String::new(), Some(TOKENS[0].2));
        let all = found["silences"].as_array()?;
        let of = |id: &str| all.iter().find(|one| one["id"] == id).map(|one| one["by"].clone());
        (of("s-3") == Some(json!("ann")) && of("s-4") == Some(json!("root")) && all.len() == 2).then_some(())
    });
    assert_eq!(ask("silence-expire", "s-3?by=mallory".into(), Some(TOKENS[0].2)).0, 403);
    assert_eq!(ask("silence-expire", "s-3?by=mallory".into(), Some(TOKENS[1].2)).0, 200);
    assert_eq!(ask("ack", json!({"alert": "x", "by": "mallory"}).to_string(), Some(TOKENS[0].2)).0, 403);
    assert_eq!(ask("alerts", "nonsense=1".into(), Some(TOKENS[0].2)).0, 400);
    let log = worker.log.lock().expect("no panic").clone();
    assert!(log.contains("\"audit\"") && log.contains("\"ann\""), "changes are written down: {log}");
    assert!(TOKENS.iter().all(|(_, _, secret)| !log.contains(secret)), "a token is in the log: {log}");
    assert_eq!(worker.stop(), Some(0));
}
