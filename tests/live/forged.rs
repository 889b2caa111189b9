//! Foreign messages among the alerts and in the log: they are detected, counted and never delivered, and
//! stop no process.

use crate::answer;
use crate::edge::now_ms;
use crate::load::{board, jetstream_at, replayed};
use crate::servers::{Servers, Worker, ask_store, tell_store, wait_for};
use crate::sink::{Reply, Sink};
use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::message::StreamMessage;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use streamgauge::core::Timestamp;
use streamgauge::core::measure::partial::Partials;
use streamgauge::wire::partial;
use tokio::runtime::Runtime;

/// One rule, so that the number of each transition is known in advance. An alert ends 10 to 20 seconds
/// after it began, which leaves time to start processes meanwhile.
const RULES: &str = "version: 1
rules:
  - { id: x, expr: 'count(latency_ms[20s]) by (source) > 2', severity: critical, keep_firing_for: 1s }
";

/// The header that holds a signature.
const SIGNATURE: &str = "Sg-Signature";

struct Deployment {
    runtime: Runtime,
    servers: Servers,
}

impl Deployment {
    fn start() -> Deployment {
        Deployment { runtime: Runtime::new().expect("a runtime"), servers: Servers::start("everysec") }
    }

    fn worker(&self, role: &str, config: Option<PathBuf>) -> Worker {
        let mut command = self.servers.command("1s", 1);
        command.args(["--role", role]);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        // These rules replace those of the other tests.
        std::fs::write(self.servers.dir.path().join("pipelines/rules.yaml"), RULES).expect("writable");
        Worker::start(command)
    }

    /// Starts a process that owns the partition, with its rules in force.
    fn owner(&self) -> Worker {
        let owner = self.worker("ingest,api", None);
        wait_for("ownership", &owner, || (owner.owned() == 1).then_some(()));
        wait_for("rules", &owner, || owner.metric("streamgauge_rules ").filter(|rules| *rules > 0));
        owner
    }

    /// Starts a process that only delivers notifications, and only to the sink.
    fn notifier(&self, sink: &Sink) -> Worker {
        let config = self.servers.dir.path().join("notify.yaml");
        let hook = format!("{{ url: '{}', format: event, allow: [127.0.0.1] }}", sink.url);
        let text = format!("receivers: [{{ name: hook, webhook: {hook} }}]\nroute: {{ receiver: hook }}\n");
        std::fs::write(&config, text).expect("writable");
        let notifier = self.worker("notify", Some(config));
        wait_for("readiness", &notifier, || notifier.get("/readyz"));
        notifier
    }

    fn context(&self) -> Context {
        self.runtime.block_on(jetstream_at(self.servers.nats_url()))
    }

    /// Publishes a message to a stream as any client could. Returns its sequence number.
    fn put(&self, context: &Context, subject: &str, payload: Vec<u8>) -> u64 {
        self.put_with(context, subject, HeaderMap::new(), payload)
    }

    fn put_with(&self, context: &Context, subject: &str, headers: HeaderMap, payload: Vec<u8>) -> u64 {
        self.runtime.block_on(async {
            let sent = context.publish_with_headers(subject.to_string(), headers, payload.into()).await;
            sent.expect("sent").await.expect("stored").sequence
        })
    }

    /// Returns the message stored under a transition's number, genuine or forged.
    fn stored(&self, context: &Context, number: u64) -> Option<StreamMessage> {
        self.runtime.block_on(async {
            let stream = context.get_stream("SG_ALERTS").await.ok()?;
            let subject = format!("sg.v1.alert.critical.x.0.{number}");
            stream.get_last_raw_message_by_subject(&subject).await.ok()
        })
    }

    /// Waits for the signed transition with this number.
    fn genuine(&self, context: &Context, worker: &Worker, number: u64) -> Value {
        wait_for("a signed transition", worker, || {
            let message = self.stored(context, number).filter(|one| one.headers.get(SIGNATURE).is_some())?;
            serde_json::from_slice(&message.payload).ok()
        })
    }
}

/// Sends enough events for the rule to fire for a source at once.
fn fire(owner: &Worker, source: &str) {
    let event =
        json!({"type": "metric", "time": now_ms(), "source": source, "name": "latency_ms", "value": 1});
    let body = Value::Array(vec![event; 3]).to_string();
    let answer = answer::post(&format!("{}/api/v1/events", owner.url), &body);
    assert_eq!(answer.status, 202, "{answer:?}");
}

/// The signature of one message, to be sent with another.
fn signature_of(message: &StreamMessage) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(SIGNATURE, message.headers.get(SIGNATURE).expect("it is signed").as_str());
    headers
}

fn forged(worker: &Worker) -> u64 {
    worker.metric("streamgauge_alerts_forged_total ").unwrap_or(0)
}

/// Goal: a forged message stops no partition and takes no place or number of a genuine one. Method: a
/// forged message under the number of the next transition, then copies of a genuine one under numbers far
/// ahead; the owner is restarted.
#[test]
fn a_forged_message_gives_way_and_takes_no_number() {
    let deployment = Deployment::start();
    let owner = deployment.owner();
    let context = deployment.context();
    let place = deployment.put(&context, "sg.v1.alert.critical.x.0.1", b"{\"forged\":1}".to_vec());
    fire(&owner, "s-0");
    let first = deployment.genuine(&context, &owner, 1);
    assert_eq!(
        (&first["rule"], &first["key"]["source"], &first["seq"]),
        (&json!("x"), &json!("s-0"), &json!(0))
    );
    assert!(forged(&owner) >= 1, "it is counted");
    assert_eq!(owner.owned(), 1);
    let is_gone = deployment.runtime.block_on(async {
        let stream = context.get_stream("SG_ALERTS").await.expect("a stream");
        stream.get_raw_message(place).await.is_err()
    });
    assert!(is_gone, "it still stands there");
    let copied = deployment.stored(&context, 1).expect("it is there");
    let payload = copied.payload.to_vec();
    deployment.put(&context, "sg.v1.alert.critical.x.0.999999", payload.clone());
    deployment.put_with(&context, "sg.v1.alert.critical.x.0.500000", signature_of(&copied), payload);
    assert_eq!(owner.stop(), Some(0));
    let owner = deployment.owner();
    fire(&owner, "s-1");
    // The end of the first alert may come between the two.
    wait_for("the next one", &owner, || {
        let transition = |number| -> Option<Value> {
            serde_json::from_slice(&deployment.stored(&context, number)?.payload).ok()
        };
        (2..=3).filter_map(transition).any(|one| one["key"]["source"] == "s-1").then_some(())
    });
    for number in [500_001, 1_000_000] {
        assert!(deployment.stored(&context, number).is_none(), "numbering goes on from a forged one");
    }
    assert!(forged(&owner) >= 2, "both were in the way of the newest number");
    assert_eq!(owner.stop(), Some(0));
}

/// Goal: no receiver gets a forged alert, whatever its content and subject, and every receiver gets the
/// genuine ones behind it, also after a restart. Method: copies of a genuine alert under other names; a
/// webhook that listens.
#[test]
fn a_forged_alert_reaches_nobody() {
    let deployment = Deployment::start();
    let owner = deployment.owner();
    let context = deployment.context();
    let sink = Sink::start(|_| Reply::Status(200));
    let notifier = deployment.notifier(&sink);
    fire(&owner, "s-0");
    let first = sink.wait_for(|taken| !taken.is_empty())[0].body.clone();
    let signed = deployment.stored(&context, 1).expect("it is there");
    let mut copy = first.clone();
    copy["rule"] = json!("forged");
    copy["id"] = json!("forged:0000000000000001:1793491200000");
    copy["key"] = json!({"source": "nobody"});
    let mut end = first.clone();
    (end["state"], end["change"], end["seq"]) = (json!("resolved"), json!("resolved"), json!(1));
    let places = [
        ("sg.v1.alert.critical.x.0.77", &copy),
        ("sg.v1.alert.critical.x.0.78", &end),
        ("sg.v1.alert.info.forged.7.1", &copy),
        ("sg.v1.alert.critical._sg_rewind.ops-0.1", &copy),
        ("sg.v1.alert.critical._sg_undelivered.notify-hook.1", &copy),
    ];
    for (subject, alert) in places {
        deployment.put(&context, subject, alert.to_string().into_bytes());
        // The signature of another message is invalid here.
        let subject = format!("{subject}1");
        deployment.put_with(&context, &subject, signature_of(&signed), alert.to_string().into_bytes());
    }
    deployment.put(&context, "sg.v1.alert.critical.x.0.79", vec![0xff; 100]);
    fire(&owner, "s-1");
    let is_of = |source: &'static str| {
        move |taken: &[crate::sink::Taken]| {
            taken.iter().any(|one| one.body["key"]["source"] == source && one.body["state"] == "firing")
        }
    };
    sink.wait_for(is_of("s-1"));
    assert!(forged(&notifier) > 2 * places.len() as u64, "{} are counted", forged(&notifier));
    assert_eq!(notifier.stop(), Some(0));
    let notifier = deployment.notifier(&sink);
    fire(&owner, "s-2");
    let taken = sink.wait_for(is_of("s-2"));
    let told: Vec<(&Value, &Value)> = taken.iter().map(|one| (&one.body["id"], &one.body["seq"])).collect();
    let once: BTreeSet<String> = told.iter().map(|(id, seq)| format!("{id} {seq}")).collect();
    assert_eq!(once.len(), told.len(), "each is told once: {told:?}");
    let is_forged = |one: &crate::sink::Taken| one.body["rule"] == "forged" || one.body["key"] == copy["key"];
    assert!(!taken.iter().any(is_forged), "{taken:#?}");
    let ended = taken.iter().filter(|one| one.body["id"] == first["id"] && one.body["state"] == "resolved");
    assert!(ended.clone().all(|one| one.body["ended_at"].is_string()), "a forged end is told: {taken:#?}");
    assert!(notifier.stop() == Some(0) && owner.stop() == Some(0));
}

/// Payloads that are meaningless, or have another meaning, as control records and ticks.
fn garbage() -> Vec<Vec<u8>> {
    let texts =
        ["", "garbage", "{}", "null", "[]", "7", "{\"Rules\":null}", "{\"rules\":{}}", "[[[[", "\u{7f}"];
    let mut all: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    all.push(vec![0xff, 0xfe, 0x00, 0xc1]);
    all.push(b"{\"a\":".repeat(20_000));
    all.push(vec![b'['; 900_000]);
    all
}

/// Goal: foreign messages in the log of a partition affect nothing else: the partition continues, is
/// exported, and a replay gives the same alerts. Method: garbage on each subject of the partition, between
/// events that fire an alert.
#[test]
fn garbage_in_the_log_stops_nobody() {
    let deployment = Deployment::start();
    let owner = deployment.owner();
    let context = deployment.context();
    fire(&owner, "s-0");
    deployment.genuine(&context, &owner, 1);
    for name in ["control", "tick", "events", "foreign", "agg.0.1"] {
        for payload in garbage() {
            deployment.put(&context, &format!("sg.v1.p.0.{name}"), payload);
        }
    }
    fire(&owner, "s-1");
    wait_for("the events behind it", &owner, || {
        owner.counts().filter(|counts| counts.get("s-0") == Some(&3) && counts.get("s-1") == Some(&3))
    });
    wait_for("the alert behind it", &owner, || {
        let log = owner.get("/api/v1/alerts/log")?;
        log.lines().any(|line| line.contains("\"source\":\"s-1\"")).then_some(())
    });
    assert_eq!((owner.owned(), owner.metric("streamgauge_records_left_out_total ")), (1, Some(0)));
    assert_eq!(answer::get(&format!("{}/readyz", owner.url)).status, 200);
    assert_eq!(owner.stop(), Some(0));
    let board = deployment.runtime.block_on(board(deployment.servers.nats_url()));
    assert!(board.lines().count() >= 2, "{board}");
    assert!(replayed(&deployment.servers).starts_with(&board), "a replay of the export is another one");
}

/// Goal: rules over all partitions continue while foreign messages reach the aggregate. Method: garbage
/// under the numbers of the next messages, and a well-formed message from the far future; then the rule
/// must fire.
#[test]
fn foreign_messages_to_the_aggregate_do_not_blind_it() {
    let runtime = Runtime::new().expect("a runtime");
    let servers = Servers::start("everysec");
    let owner = servers.worker_of("1s", 2);
    wait_for("ownership", &owner, || (owner.owned() == 2).then_some(()));
    wait_for("rules", &owner, || owner.metric("streamgauge_rules ").filter(|rules| *rules > 0));
    let context = runtime.block_on(jetstream_at(servers.nats_url()));
    let put = |subject: String, payload: Vec<u8>| {
        runtime.block_on(async {
            let sent = context.publish(subject, payload.into()).await;
            sent.expect("sent").await.expect("stored");
        });
    };
    let ahead = Timestamp::clamped(now_ms() as i64 + 400 * 86_400_000);
    for partition in 0..2 {
        for number in [1, 2, 3, 7] {
            put(format!("sg.v1.agg.{partition}.{number}"), b"garbage".to_vec());
        }
        put(format!("sg.v1.agg.{partition}.999999"), partial::encode(&Partials::new(ahead)));
    }
    for name in ["tick", "control", "foreign", "0.x", "99.1", "0.18446744073709551616"] {
        put(format!("sg.v1.agg.{name}"), b"garbage".to_vec());
    }
    let event =
        json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms", "value": 1});
    let body = Value::Array(vec![event; 60]).to_string();
    assert_eq!(answer::post(&format!("{}/api/v1/events", owner.url), &body).status, 202);
    wait_for("the rule over all", &owner, || {
        let found: Value = serde_json::from_str(&owner.get("/api/v1/alerts?rule=all")?).ok()?;
        (found["alerts"][0]["state"] == "firing").then_some(())
    });
    assert_eq!(answer::get(&format!("{}/readyz", owner.url)).status, 200);
    assert_eq!(owner.stop(), Some(0));
}

/// Goal: after an upgrade, alerts that an older version published are recognized and delivered. Method: the
/// first transition is put back without a signature and the signing key is deleted; new processes start.
#[test]
fn alerts_from_before_the_key_are_known() {
    let deployment = Deployment::start();
    let owner = deployment.owner();
    let context = deployment.context();
    fire(&owner, "s-0");
    let first = deployment.genuine(&context, &owner, 1);
    assert_eq!(owner.stop(), Some(0));
    let message = deployment.stored(&context, 1).expect("it is there");
    deployment.runtime.block_on(async {
        let stream = context.get_stream("SG_ALERTS").await.expect("a stream");
        stream.delete_message(message.sequence).await.expect("deleted")
    });
    tell_store(&deployment.servers, &["DEL", "sg:alertkey"]);
    deployment.put(&context, &message.subject, message.payload.to_vec());
    let owner = deployment.owner();
    let sink = Sink::start(|_| Reply::Status(200));
    let notifier = deployment.notifier(&sink);
    let is_over = |taken: &[crate::sink::Taken]| taken.iter().any(|one| one.body["state"] == "resolved");
    let taken = sink.wait_for(is_over);
    let told: Vec<(&Value, &Value)> = taken.iter().map(|one| (&one.body["id"], &one.body["state"])).collect();
    let id = &first["id"];
    assert_eq!(told, [(id, &json!("firing")), (id, &json!("resolved"))]);
    assert_eq!((forged(&owner), forged(&notifier)), (0, 0), "nothing was forged");
    assert!(notifier.stop() == Some(0) && owner.stop() == Some(0));
}

/// Goal: a genuine message that is published again is no news. Method: the beginning of an alert that is over is
/// stored once more with its own signature; a process that delivers from then on is told of the next alert alone.
#[test]
fn a_genuine_message_counts_once() {
    let deployment = Deployment::start();
    let owner = deployment.owner();
    let context = deployment.context();
    let sink = Sink::start(|_| Reply::Status(200));
    let notifier = deployment.notifier(&sink);
    fire(&owner, "s-0");
    let first = deployment.genuine(&context, &owner, 1);
    sink.wait_for(|taken| taken.iter().any(|one| one.body["state"] == "resolved"));
    let again = |notifier: &Worker, expected: u64| {
        let stored = deployment.stored(&context, 1).expect("it is there");
        deployment.put_with(&context, &stored.subject, signature_of(&stored), stored.payload.to_vec());
        wait_for("the repeat", notifier, || (forged(notifier) >= expected).then_some(()));
    };
    // Both receivers, the sink and the log, read it.
    again(&notifier, 2);
    assert_eq!(notifier.stop(), Some(0));
    // A process that has not read the first message finds it in the stream; it meets both repeats.
    let notifier = deployment.notifier(&sink);
    again(&notifier, 4);
    fire(&owner, "s-1");
    let taken = sink.wait_for(|taken| taken.iter().any(|one| one.body["key"]["source"] == "s-1"));
    let of_first = taken.iter().filter(|one| one.body["id"] == first["id"]).count();
    assert_eq!(of_first, 2, "firing and resolved: {taken:?}");
    assert!(notifier.stop() == Some(0) && owner.stop() == Some(0));
}

/// Goal: losing the signing key alone loses no alert. Method: the key is deleted under a running owner, which puts
/// it back; a process that delivers starts behind that.
#[test]
fn a_lost_key_is_put_back() {
    let deployment = Deployment::start();
    let owner = deployment.owner();
    let context = deployment.context();
    fire(&owner, "s-0");
    deployment.genuine(&context, &owner, 1);
    let key = || ask_store::<Option<Vec<u8>>>(&deployment.servers, &["HGET", "sg:alertkey", "key"]);
    let before = key();
    tell_store(&deployment.servers, &["DEL", "sg:alertkey"]);
    wait_for("the key", &owner, || (key() == before).then_some(()));
    let sink = Sink::start(|_| Reply::Status(200));
    let notifier = deployment.notifier(&sink);
    fire(&owner, "s-1");
    sink.wait_for(|taken| taken.iter().any(|one| one.body["key"]["source"] == "s-1"));
    assert_eq!((forged(&owner), forged(&notifier)), (0, 0), "nothing was forged");
    assert!(notifier.stop() == Some(0) && owner.stop() == Some(0));
}

/// Goal: losing the store, and the signing key with it, loses no alert: processes that knew the old key and
/// those that start without it accept each other's alerts. Method: FLUSHALL under a running owner; a
/// delivering process starts afterwards.
#[test]
fn a_store_that_lost_the_key_costs_no_alert() {
    let deployment = Deployment::start();
    let owner = deployment.owner();
    let context = deployment.context();
    fire(&owner, "s-0");
    deployment.genuine(&context, &owner, 1);
    tell_store(&deployment.servers, &["FLUSHALL"]);
    let sink = Sink::start(|_| Reply::Status(200));
    let notifier = deployment.notifier(&sink);
    fire(&owner, "s-1");
    wait_for("the alert", &notifier, || {
        let taken = sink.taken();
        taken.iter().any(|one| one.body["key"]["source"] == "s-1").then_some(())
    });
    assert_eq!(forged(&notifier), 0, "nothing was forged");
    // The next owner accepts alerts of both keys.
    assert_eq!(owner.stop(), Some(0));
    let owner = deployment.owner();
    fire(&owner, "s-2");
    wait_for("the next alert", &notifier, || {
        let taken = sink.taken();
        taken.iter().any(|one| one.body["key"]["source"] == "s-2").then_some(())
    });
    assert_eq!((forged(&owner), forged(&notifier)), (0, 0), "nothing was forged");
    assert!(notifier.stop() == Some(0) && owner.stop() == Some(0));
}
