//! The broker permissions that the documentation gives to each role: enough for its work, and no more.

use crate::answer;
use crate::edge::now_ms;
use crate::servers::{Servers, Worker, wait_for};
use crate::sink::{Reply, Sink};
use crate::unreadable::Raw;
use async_nats::{Client, ConnectOptions, RequestErrorKind};
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const USERS: [&str; 6] = ["worker", "notifier", "exporter", "publisher", "reader", "operator"];

/// Time limit for an expected answer; after it a request counts as unanswered.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

/// Subjects that belong to workers and to the administrator of the broker.
const OF_WORKERS: [&str; 14] = [
    "sg.v1.alert.critical.x.0.1",
    "sg.v1.action.x.0.1",
    "sg.v1.shadow.x.0.1",
    "sg.v1.p.0.control",
    "sg.v1.p.0.tick",
    "sg.v1.agg.0.1",
    "sg.v1.dead.x",
    "sg.v1.rollup.1m.a.b",
    "$JS.API.STREAM.PURGE.SG_EVENTS_0",
    "$JS.API.STREAM.DELETE.SG_ALERTS",
    "$JS.API.STREAM.UPDATE.SG_ALERTS",
    "$JS.API.STREAM.MSG.DELETE.SG_ALERTS",
    "$JS.API.STREAM.MSG.GET.SG_EVENTS_0",
    "$JS.API.CONSUMER.DURABLE.CREATE.SG_EVENTS_0.spy",
];

/// Subjects of producers, and operations that change something.
const OF_PUBLISHERS: [&str; 3] = ["sg.v1.metric.s-0.latency_ms", "sg.v1.stage.p.s", "sg.v1.gate.p.g"];
const CHANGES: [&str; 8] = [
    "sg.v1.p.0.events",
    "sg.v1.api.events",
    "sg.v1.api.ack",
    "sg.v1.api.silence-add",
    "sg.v1.api.silence-expire",
    "sg.v1.api.maintenance-add",
    "sg.v1.api.maintenance-end",
    "sg.v1.api.rules-add",
];

/// Queries whose answers a publisher must not see.
const QUESTIONS: [&str; 3] = ["sg.v1.api.alerts", "sg.v1.api.windows", "sg.v1.api.dead"];

fn password(user: &str) -> String {
    format!("of-{user}")
}

/// The server configuration of the documentation, with a password for each user.
fn configuration() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/nats-permissions.md");
    let page = std::fs::read_to_string(&path).expect("the page of the documentation");
    let mut blocks = page.split("```").skip(1).step_by(2);
    let block = blocks.find(|block| block.contains("# users of a deployment")).expect("a block with users");
    // The language of the block follows its fence.
    let (_, text) = block.split_once('\n').expect("more than one line");
    let variable = |user: &str| format!("${}_PASSWORD", user.to_uppercase());
    let text = USERS.iter().fold(text.to_string(), |text, user| {
        assert!(text.contains(&variable(user)), "the page knows no {user}");
        text.replace(&variable(user), &format!("'{}'", password(user)))
    });
    assert!(!text.contains("_PASSWORD"), "the page has a user that this test does not know: {text}");
    text.into_bytes()
}

fn start(servers: &Servers, user: &str, words: &[&str]) -> Worker {
    let mut command = servers.command("1s", 1);
    command.args(words).env("NATS_USER", user).env("NATS_PASSWORD", password(user));
    Worker::start(command)
}

async fn connect(servers: &Servers, user: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(user.into(), password(user));
    let options = options.request_timeout(Some(HEARD_WITHIN));
    options.connect(servers.nats_url()).await.expect("the broker knows this user")
}

/// Whether a message passed the broker: it was answered, or there was no responder.
async fn is_heard(client: &Client, subject: &str) -> bool {
    match client.request(subject.to_string(), "{}".into()).await {
        Ok(_) => true,
        Err(error) => error.kind() == RequestErrorKind::NoResponders,
    }
}

/// Returns the subjects on which a user may publish.
async fn heard<'a>(servers: &Servers, user: &str, subjects: &[&'a str]) -> Vec<&'a str> {
    let client = connect(servers, user).await;
    let all = join_all(subjects.iter().map(|subject| is_heard(&client, subject))).await;
    subjects.iter().zip(all).filter(|(_, is_heard)| *is_heard).map(|(subject, _)| *subject).collect()
}

/// Sends a request over the broker. Returns its error code, if it failed, and the body.
async fn ask(client: &Client, subject: &str, body: String) -> (Option<String>, Value) {
    let message = client.request(subject.to_string(), body.into()).await.expect("an answer");
    let code = message.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code"));
    (code.map(ToString::to_string), serde_json::from_slice(&message.payload).unwrap_or_default())
}

/// Goal: each role can do its work with the documented permissions. Method: the documented configuration;
/// an event that causes alerts, actions, shadow alerts, dead letters and windows travels from a publisher
/// to a webhook and a reader.
#[test]
fn each_role_can_do_its_work() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start_mapped("everysec", Some(configuration()));
    let owner = start(&servers, "worker", &["--role", "ingest,api"]);
    wait_for("ownership", &owner, || (owner.owned() == 1).then_some(()));
    wait_for("rules", &owner, || owner.metric("streamgauge_rules ").filter(|rules| *rules > 0));
    let (sink, config) = (Sink::start(|_| Reply::Status(200)), servers.dir.path().join("notify.yaml"));
    let hook = format!("{{ url: '{}', format: event, allow: [127.0.0.1] }}", sink.url);
    let text = format!("receivers: [{{ name: hook, webhook: {hook} }}]\nroute: {{ receiver: hook }}\n");
    std::fs::write(&config, text).expect("writable");
    let config = config.display().to_string();
    let notifier = start(&servers, "notifier", &["--role", "notify", "--config", &config]);
    wait_for("readiness", &notifier, || notifier.get("/readyz"));
    runtime.block_on(async {
        let [publisher, reader, operator] =
            ["publisher", "reader", "operator"].map(|user| connect(&servers, user));
        let (publisher, reader, operator) = (publisher.await, reader.await, operator.await);
        let mut alerts = reader.subscribe("sg.v1.alert.>").await.expect("subscribed");
        let mut spied = publisher.subscribe("sg.v1.alert.>").await.expect("asked for");
        reader.flush().await.expect("sent");
        let event = json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms",
            "value": 1_600});
        let body = json!([event, {"type": "nothing"}]).to_string();
        let (_, stored) = ask(&publisher, OF_PUBLISHERS[0], body.clone()).await;
        assert_eq!(stored["stream"], "SG_EVENTS_0", "{stored}");
        let mut raw = Raw::connect_as(&servers, "publisher", &password("publisher"));
        raw.publish(b"sg.v1.metric.\xff.x", b"", b"", r#"{"type":"nothing"}"#);
        let alert = tokio::time::timeout(Duration::from_secs(20), alerts.next()).await;
        assert!(alert.expect("in time").expect("one").subject.contains(".odd.0."));
        let (code, found) = ask(&reader, "sg.v1.api.alerts", "rule=odd".into()).await;
        assert_eq!((code, &found["alerts"][0]["rule"]), (None, &json!("odd")), "{found}");
        let silence = json!({"match": ["source=\"s-9\""], "duration": "1h", "by": "ann", "reason": "known"});
        let (code, told) = ask(&operator, "sg.v1.api.silence-add", silence.to_string()).await;
        assert!(code.is_none() && told["id"].is_string(), "{code:?} {told}");
        // Any message on its way to the publisher has arrived before this answer.
        ask(&publisher, OF_PUBLISHERS[0], body).await;
        assert!(spied.next().now_or_never().flatten().is_none(), "a publisher reads no alerts");
    });
    sink.wait_for(|taken| taken.iter().any(|one| one.body["rule"] == "odd"));
    let mut export = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    export.args(["export", "--nats", &servers.nats_url()]);
    export.env("NATS_USER", "exporter").env("NATS_PASSWORD", password("exporter"));
    let export = export.output().expect("runs");
    assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
    assert!(String::from_utf8_lossy(&export.stdout).contains("latency_ms"));
    assert_eq!(answer::get(&format!("{}/readyz", owner.url)).status, 200);
    for worker in [owner, notifier] {
        let log = worker.log.clone();
        assert_eq!(worker.stop(), Some(0));
        let log = log.lock().expect("no panic").to_ascii_lowercase();
        assert!(!log.contains("permissions violation"), "a right is missing: {log}");
    }
}

/// Goal: no role can do the work of another one. Method: every subject of the others, as each user; a
/// client without a user is rejected. Allowed subjects are tried first, so that a missing answer means
/// refusal.
#[test]
fn no_role_can_do_the_work_of_another() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start_mapped("everysec", Some(configuration()));
    let owner = start(&servers, "worker", &["--role", "ingest,api"]);
    wait_for("ownership", &owner, || (owner.owned() == 1).then_some(()));
    let none: [&str; 0] = [];
    runtime.block_on(async {
        assert_eq!(heard(&servers, "publisher", &OF_PUBLISHERS).await, OF_PUBLISHERS);
        assert_eq!(heard(&servers, "reader", &QUESTIONS).await, QUESTIONS);
        let refused =
            [&OF_WORKERS[..], &CHANGES, &QUESTIONS, &["$SRV.PING", "$JS.API.STREAM.INFO.SG_ALERTS"]];
        assert_eq!(heard(&servers, "publisher", &refused.concat()).await, none);
        let refused = [&OF_WORKERS[..], &CHANGES, &OF_PUBLISHERS].concat();
        assert_eq!(heard(&servers, "reader", &refused).await, none);
        let refused =
            [&OF_WORKERS[..], &OF_PUBLISHERS, &["sg.v1.api.rules-add", "sg.v1.api.events"]].concat();
        assert_eq!(heard(&servers, "operator", &refused).await, none);
        // The notifier reads the alert stream, and publishes alerts about undelivered notifications.
        assert_eq!(heard(&servers, "notifier", &refused).await, none);
        let refused: Vec<&str> = [&OF_WORKERS[..], &CHANGES, &OF_PUBLISHERS, &QUESTIONS].concat();
        // The exporter reads the whole log, message by message if a consumer cannot.
        assert_eq!(heard(&servers, "exporter", &refused).await, ["$JS.API.STREAM.MSG.GET.SG_EVENTS_0"]);
        let nobody = ConnectOptions::new().max_reconnects(1).connect(servers.nats_url()).await;
        assert!(nobody.is_err(), "whoever names no user is let in");
    });
    assert_eq!(owner.owned(), 1);
    assert_eq!(owner.stop(), Some(0));
}
