//! Messages, requests and server settings that once stopped a worker or gained permissions they should not
//! have.

use crate::answer::{ask, get, post};
use crate::edge::now_ms;
use crate::servers::{Servers, Worker, tell_store, wait_for};
use async_nats::Client;
use futures_util::TryStreamExt;
use serde_json::{Value, json};

fn event(source: &str) -> String {
    json!({"type": "metric", "time": now_ms(), "source": source, "name": "latency_ms", "value": 1})
        .to_string()
}

fn started(servers: &Servers) -> Worker {
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    worker
}

fn wait_for_count(worker: &Worker, source: &str, wanted: u64) {
    let count = || worker.counts()?.get(source).copied();
    wait_for("the events", worker, || count().filter(|count| *count >= wanted));
    assert_eq!(count(), Some(wanted));
}

fn ready(worker: &Worker) -> (u16, String) {
    let answer = get(&format!("{}/readyz", worker.url));
    (answer.status, answer.body)
}

async fn connected(servers: &Servers) -> Client {
    async_nats::connect(servers.nats_url()).await.expect("a broker")
}

/// Sends an event of a source after everything the client sent before. It waits for the broker's
/// acknowledgement, because a connection that closes with unread bytes is reset, and a reset discards what
/// the broker has not read yet.
async fn send_event(client: &Client, source: &str) {
    let context = async_nats::jetstream::new(client.clone());
    let subject = format!("sg.v1.metric.{source}.latency_ms");
    context.publish(subject, event(source).into()).await.expect("sent").await.expect("acknowledged");
}

/// Goal: a message as large as the broker accepts, full of bad lines, blocks nothing. Method: 1,048,556
/// bytes of `x` lines; the dead letter then has no room for its headers; a valid event behind it is
/// counted.
#[test]
fn a_message_of_the_largest_size_is_set_aside() {
    let servers = Servers::start("everysec");
    let worker = started(&servers);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = connected(&servers).await;
        client.publish("sg.v1.metric.a.b", "x\n".repeat(524_278).into()).await.expect("sent");
        send_event(&client, "s-0").await;
    });
    wait_for_count(&worker, "s-0", 1);
    assert_eq!(ready(&worker).0, 200);
}

/// Goal: a client cannot make a worker delete a stream. Method: requests whose reply subject is the
/// broker's own API, or a subject of this service; the request of an honest reader behind them is answered.
#[test]
fn answers_do_nothing_for_whoever_asks() {
    let servers = Servers::start("everysec");
    let worker = started(&servers);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = connected(&servers).await;
        for reply in
            ["$JS.API.STREAM.DELETE.SG_EVENTS_0", "$JS.API.STREAM.PURGE.SG_ALERTS", "sg.v1.p.0.control"]
        {
            for question in ["sg.v1.api.windows", "sg.v1.api.alerts"] {
                client.publish_with_reply(question, reply, "".into()).await.expect("sent");
            }
        }
        client.request("sg.v1.api.alerts", "".into()).await.expect("an answer");
        send_event(&client, "s-0").await;
    });
    wait_for_count(&worker, "s-0", 1);
    let log = worker.log.lock().expect("no panic");
    assert!(log.contains("belongs to the broker or to this service") && !log.contains("\"ERROR\""), "{log}");
}

/// Goal: a consumer that somebody pauses holds up nothing. Method: the consumer that reads the log is paused for
/// years, if the broker knows pauses; an event behind that is counted.
#[test]
fn a_paused_consumer_is_replaced() {
    let servers = Servers::start("everysec");
    let worker = started(&servers);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = connected(&servers).await;
        let ask = async |subject: String, body: &str| -> Value {
            let answer = client.request(format!("$JS.API.CONSUMER.{subject}"), body.to_string().into()).await;
            serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON")
        };
        if !client.server_info().version.starts_with("2.9") {
            let consumers = ask("NAMES.SG_EVENTS_0".into(), "{}").await;
            let name = consumers["consumers"][0].as_str().expect("a consumer");
            let until = json!({"pause_until": "2099-01-01T00:00:00Z"}).to_string();
            let paused = ask(format!("PAUSE.SG_EVENTS_0.{name}"), &until).await;
            assert_eq!(paused["paused"], true, "{paused}");
        }
        send_event(&client, "s-0").await;
    });
    wait_for_count(&worker, "s-0", 1);
}

/// Goal: a deleted log is reported as an outage. Method: the stream is deleted while its owner runs;
/// readiness turns 503 and names the stream.
#[test]
fn a_log_that_was_deleted_is_an_outage() {
    let servers = Servers::start("everysec");
    let worker = started(&servers);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let context = async_nats::jetstream::new(connected(&servers).await);
        context.delete_stream("SG_EVENTS_0").await.expect("deleted");
    });
    let said = wait_for("the outage", &worker, || Some(ready(&worker)).filter(|(status, _)| *status == 503));
    // Either the reader or the appender notices first, so only the stream's name is compared.
    assert!(said.1.contains("SG_EVENTS_0"), "{}", said.1);
}

/// Goal: a deployment whose broker lost all of its streams is reset by following the error message, without
/// a restart. Method: all streams are deleted while a worker owns one or two partitions; the error names
/// the remedy; after the keys are removed, new events are counted.
#[test]
fn a_deployment_whose_streams_are_gone_is_begun_anew() {
    for partitions in [1, 2] {
        let servers = Servers::start("everysec");
        let worker = servers.worker_of("1s", partitions);
        let is_whole = || (ready(&worker).0 == 200 && worker.owned() == u64::from(partitions)).then_some(());
        let send = |source: &str| {
            let answer = post(&format!("{}/api/v1/events", worker.url), &event(source));
            assert_eq!(answer.status, 202, "{answer:?}");
            wait_for_count(&worker, source, 1);
        };
        wait_for("ownership", &worker, is_whole);
        send("s-0");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let context = async_nats::jetstream::new(connected(&servers).await);
            let names: Vec<String> = context.stream_names().try_collect().await.expect("names");
            for name in names {
                context.delete_stream(&name).await.expect("deleted");
            }
        });
        wait_for("the way out", &worker, || {
            let (status, said) = ready(&worker);
            (status == 503 && said.contains("remove the partition's keys")).then_some(())
        });
        tell_store(&servers, &["FLUSHALL"]);
        wait_for("readiness", &worker, is_whole);
        send("s-1");
        assert_eq!(worker.stop(), Some(0));
    }
}

/// Goal: a receiver that cannot send notifications is never reported as healthy. Method: the receiver's key
/// in the store is of another type; readiness and the log name the key, the log once; after the key is
/// removed, the process is ready again.
#[test]
fn a_receiver_that_cannot_read_what_it_told_is_said() {
    let servers = Servers::start("everysec");
    tell_store(&servers, &["SET", "sg:notify:{log}:rows", "nonsense"]);
    let worker = started(&servers);
    wait_for("the key's name", &worker, || {
        let (status, said) = ready(&worker);
        (status == 503 && said.contains("receiver at log") && said.contains("sg:notify:{log}:rows"))
            .then_some(())
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    let log = worker.log.lock().expect("no panic").clone();
    assert_eq!(log.lines().filter(|line| line.contains("sg:notify:{log}:rows")).count(), 1, "{log}");
    tell_store(&servers, &["DEL", "sg:notify:{log}:rows"]);
    wait_for("readiness", &worker, || (ready(&worker).0 == 200).then_some(()));
}

/// Goal: a store that refuses the login, or holds a key of another type, is waited for like one that is
/// unreachable. Method: the password changes under a running owner and back; a key becomes a list and back.
#[test]
fn a_store_that_refuses_is_waited_for() {
    let servers = Servers::start("everysec");
    let worker = started(&servers);
    let unready = |what: &str| {
        let said = wait_for(what, &worker, || Some(ready(&worker)).filter(|(status, _)| *status == 503));
        assert!(said.1.contains("redis") || said.1.contains("sg:{0}:ckpt"), "{}", said.1);
    };
    let back = |what: &str| {
        wait_for(what, &worker, || (ready(&worker).0 == 200 && worker.owned() == 1).then_some(()));
    };
    let mut store = redis::Client::open(format!("redis://127.0.0.1:{}", servers.redis_port))
        .and_then(|client| client.get_connection())
        .expect("a store");
    let mut tell = |words: &[&str]| {
        redis::cmd(words[0]).arg(&words[1..]).query::<redis::Value>(&mut store).expect("done")
    };
    tell(&["CONFIG", "SET", "requirepass", "another"]);
    tell(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    unready("the refused login");
    tell(&["CONFIG", "SET", "requirepass", ""]);
    back("the old password");
    tell(&["RENAME", "sg:{0}:ckpt", "kept"]);
    tell(&["LPUSH", "sg:{0}:ckpt", "nonsense"]);
    unready("the wrong kind of key");
    tell(&["RENAME", "kept", "sg:{0}:ckpt"]);
    back("the key");
}

/// Goal: bytes in the store that no worker wrote stop one partition until they are repaired, and the key is
/// named. Method: a catalog row, the checkpoint position and the key of alerts, each garbled while no
/// worker runs.
#[test]
fn unreadable_bytes_are_waited_for_by_name() {
    let servers = Servers::start("everysec");
    let worker = started(&servers);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let send = |source: &str| {
        runtime.block_on(async {
            send_event(&connected(&servers).await, source).await;
        });
    };
    send("s-0");
    wait_for_count(&worker, "s-0", 1);
    assert_eq!(worker.stop(), Some(0));
    let mut store = redis::Client::open(format!("redis://127.0.0.1:{}", servers.redis_port))
        .and_then(|client| client.get_connection())
        .expect("a store");
    let mut wanted = 1;
    for (key, field) in
        [("sg:{0}:catalog", None), ("sg:{0}:ckpt", Some("applied")), ("sg:alertkey", Some("since"))]
    {
        let names: Vec<String> = redis::cmd("HKEYS").arg(key).query(&mut store).expect("a hash");
        let field = field.map_or_else(|| names[0].clone(), str::to_string);
        let kept: Vec<u8> = redis::cmd("HGET").arg(key).arg(&field).query(&mut store).expect("a field");
        let mut put = |value: &[u8]| {
            redis::cmd("HSET").arg(key).arg(&field).arg(value).query::<()>(&mut store).expect("done");
        };
        put(b"\xffnonsense");
        let worker = servers.worker("1s");
        wait_for("the name of the key", &worker, || {
            let log = worker.log.lock().expect("no panic").contains(key);
            (log && ready(&worker).0 == 503).then_some(())
        });
        put(&kept);
        wait_for("ownership", &worker, || (worker.owned() == 1 && ready(&worker).0 == 200).then_some(()));
        send("s-0");
        wanted += 1;
        wait_for_count(&worker, "s-0", wanted);
        assert_eq!(worker.stop(), Some(0), "{key}");
    }
}

/// Goal: a position outside the range that a worker can count is named and waited for, and a worker that
/// met it is ready again once another worker owns the partition. Method: two workers meet the same key; it
/// is repaired, and one of them becomes the owner.
#[test]
fn whoever_waited_is_ready_once_another_one_owns() {
    let servers = Servers::start("everysec");
    let worker = started(&servers);
    assert_eq!(worker.stop(), Some(0));
    let mut store = redis::Client::open(format!("redis://127.0.0.1:{}", servers.redis_port))
        .and_then(|client| client.get_connection())
        .expect("a store");
    let key = "sg:{0}:ckpt";
    for (field, value) in
        [("epoch", "-1000"), ("ver", "18446744073709551616"), ("ver", "9007199254740992"), ("applied", "x")]
    {
        let kept: String = redis::cmd("HGET").arg(key).arg(field).query(&mut store).expect("a field");
        let mut put = |value: &str| {
            redis::cmd("HSET").arg(key).arg(field).arg(value).query::<()>(&mut store).expect("done");
        };
        put(value);
        let workers = [servers.worker("1s"), servers.worker("1s")];
        for worker in &workers {
            wait_for("the name of the key", worker, || {
                let (status, body) = ready(worker);
                (status == 503 && body.contains(key) && body.contains(field)).then_some(())
            });
        }
        put(&kept);
        wait_for("an owner and two that are ready", &workers[0], || {
            let is_owned = workers.iter().map(Worker::owned).sum::<u64>() == 1;
            (is_owned && workers.iter().all(|worker| ready(worker).0 == 200)).then_some(())
        });
        assert_eq!(workers.map(Worker::stop), [Some(0), Some(0)], "{field} {value}");
    }
}

/// Goal: one partition whose log was replaced does not stop the others. Method: the stream of one of two
/// partitions is deleted and created again while its owner runs.
#[test]
fn a_partition_that_stops_leaves_the_others() {
    let servers = Servers::start("everysec");
    let worker = servers.worker_of("1s", 2);
    wait_for("ownership", &worker, || (worker.owned() == 2).then_some(()));
    let post = |source: &str| {
        ask("POST", &format!("{}/api/v1/events", worker.url), &[], Some(&event(source))).status
    };
    let sources = ["s-0", "s-1", "s-2", "s-3", "s-4", "s-5"];
    sources.iter().for_each(|source| assert_eq!(post(source), 202));
    sources.iter().for_each(|source| wait_for_count(&worker, source, 1));
    let alarm = |sources: std::ops::Range<u32>| {
        let one = |n: u32| {
            json!({"type": "metric", "time": now_ms(), "source": format!("alarm-{n}"), "name": "latency_ms",
                "value": 1_600})
        };
        let body = json!(sources.clone().map(one).collect::<Vec<_>>()).to_string();
        assert_eq!(ask("POST", &format!("{}/api/v1/events", worker.url), &[], Some(&body)).status, 202);
        wait_for("the alerts", &worker, || {
            let log = worker.get("/api/v1/alerts/log")?;
            sources.clone().all(|n| log.contains(&format!("\"alarm-{n}\""))).then_some(())
        });
    };
    alarm(0..6);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let context = async_nats::jetstream::new(connected(&servers).await);
        let mut stream = context.get_stream("SG_EVENTS_1").await.expect("a stream");
        let config = stream.info().await.expect("known").config.clone();
        context.delete_stream("SG_EVENTS_1").await.expect("deleted");
        context.create_stream(config).await.expect("made anew");
    });
    wait_for("the end of one partition", &worker, || {
        let (status, said) = ready(&worker);
        (status == 503 && said.contains("partition 1") && said.contains("recreated")).then_some(())
    });
    sources.iter().for_each(|source| assert_eq!(post(source), 202));
    let counted = |wanted: u64| {
        let counts = worker.counts()?;
        sources.iter().any(|source| counts.get(*source) == Some(&wanted)).then_some(())
    };
    wait_for("events of the other partition", &worker, || counted(2));
    let mut store = redis::Client::open(format!("redis://127.0.0.1:{}", servers.redis_port))
        .and_then(|client| client.get_connection())
        .expect("a store");
    let keys: Vec<String> = redis::cmd("KEYS").arg("sg:{1}:*").query(&mut store).expect("names");
    redis::cmd("DEL").arg(keys).query::<()>(&mut store).expect("done");
    wait_for("a new beginning", &worker, || (worker.owned() == 2 && ready(&worker).0 == 200).then_some(()));
    sources.iter().for_each(|source| assert_eq!(post(source), 202));
    wait_for("events of both", &worker, || {
        let counts = worker.counts()?;
        // The deleted stream's events are lost with it. The new stream holds one event sent before the
        // reset and one sent now; the other partition counts three.
        sources
            .iter()
            .all(|source| counts.get(*source).is_some_and(|count| matches!(count, 2 | 3)))
            .then_some(())
    });
    // The numbers of the transitions continue after those of the lost log.
    alarm(10..16);
    assert_eq!(ready(&worker).0, 200);
    assert_eq!(worker.stop(), Some(0));
}

/// Goal: deleted output streams are created again without a restart. Method: the streams of alerts and of
/// dead letters are deleted while their owner runs; then an alert and a refusal are published.
#[test]
fn streams_that_take_what_leaves_are_made_again() {
    let servers = Servers::start("everysec");
    let worker = started(&servers);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let context = runtime.block_on(async { async_nats::jetstream::new(connected(&servers).await) });
    runtime.block_on(async {
        for name in ["SG_ALERTS", "SG_DEAD"] {
            context.delete_stream(name).await.expect("deleted");
        }
    });
    let slow =
        json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms", "value": 1_600});
    let body = json!([slow, {"type": "nothing"}]).to_string();
    let sent = ask("POST", &format!("{}/api/v1/events", worker.url), &[], Some(&body));
    assert_eq!(sent.status, 202, "{sent:?}");
    for (stream, subject) in [("SG_ALERTS", "sg.v1.alert.>"), ("SG_DEAD", "sg.v1.dead.bad_event")] {
        wait_for(subject, &worker, || {
            runtime.block_on(async {
                context.get_stream(stream).await.ok()?.get_last_raw_message_by_subject(subject).await.ok()
            })
        });
    }
    wait_for("readiness", &worker, || (ready(&worker).0 == 200).then_some(()));
    assert_eq!(worker.stop(), Some(0));
}

/// Goal: a value under a key of this service that no worker wrote is named or removed. Method: the list of
/// workers as a string, a lease without an expiry, an alert log of another type.
#[test]
fn keys_of_another_kind_are_named() {
    let servers = Servers::start("everysec");
    let tell = |words: &[&str]| tell_store(&servers, words);
    tell(&["SET", "sg:workers", "x"]);
    tell(&["SET", "sg:{0}:lease", "x"]);
    tell(&["SET", "sg:{1}:alerts:log", "x"]);
    let worker = servers.worker_of("1s", 2);
    let named = |key: &str| {
        wait_for(key, &worker, || (ready(&worker).0 == 503 && ready(&worker).1.contains(key)).then_some(()));
    };
    named("sg:workers");
    tell(&["DEL", "sg:workers"]);
    wait_for("both partitions", &worker, || (worker.owned() == 2).then_some(()));
    let alarm = |source: &str| json!({"type": "metric", "time": now_ms(), "source": source, "name": "latency_ms", "value": 1_600});
    let all: Vec<_> = (0..6).map(|n| alarm(&format!("s-{n}"))).collect();
    let sent = ask("POST", &format!("{}/api/v1/events", worker.url), &[], Some(&json!(all).to_string()));
    assert_eq!(sent.status, 202, "{sent:?}");
    named("sg:{1}:alerts:log");
    tell(&["DEL", "sg:{1}:alerts:log"]);
    wait_for("readiness", &worker, || (ready(&worker).0 == 200).then_some(()));
    assert_eq!(worker.stop(), Some(0));
}

/// Goal: a request with an idempotency key is recorded once, whichever process receives it. Method: the
/// same request at two workers, and at a third one after both were killed.
#[test]
fn a_request_with_a_key_is_recorded_once_by_all_processes() {
    let servers = Servers::start("everysec");
    let (one, two) = (started(&servers), servers.worker("1s"));
    let body = event("s-0");
    let post = |worker: &Worker| {
        let url = format!("{}/api/v1/events", worker.url);
        let headers = [("content-type", "application/json"), ("idempotency-key", "nightly-17")];
        ask("POST", &url, &headers, Some(&body)).status
    };
    assert_eq!((post(&one), post(&two), post(&one)), (202, 202, 202));
    drop((one, two)); // kill -9
    let three = servers.worker("1s");
    wait_for("ownership", &three, || (three.owned() == 1).then_some(()));
    assert_eq!(post(&three), 202);
    wait_for_count(&three, "s-0", 1);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(three.counts().and_then(|counts| counts.get("s-0").copied()), Some(1));
}
