//! Loss of the store or of a stream.

use crate::edge::now_ms;
use crate::load::{board, jetstream_at, produce};
use crate::servers::{Servers, Worker, wait_for, wait_with_log};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Goal: a lost Redis is rebuilt from the stream; a stream that was created again is not taken for the old
/// one.
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
    // Until the next commit detects the loss, the worker answers from memory.
    wait_for("the loss is seen", &worker, || {
        worker.log.lock().expect("no panic").contains("standing by").then_some(())
    });
    let counts = wait_for("rebuilding", &worker, || {
        worker.counts().filter(|counts| counts.values().sum::<u64>() >= ledger.values().sum())
    });
    assert_eq!(counts, ledger);
    let anew = runtime.block_on(async {
        let context = jetstream_at(servers.nats_url()).await;
        let config = context.get_stream("SG_EVENTS_0").await.expect("a stream").cached_info().config.clone();
        context.delete_stream("SG_EVENTS_0").await.expect("deleted");
        context.create_stream(config).await
    });
    assert!(anew.is_ok());
    let code =
        wait_with_log("the end", &worker.log.clone(), || worker.process.0.try_wait().expect("a child"));
    assert_eq!(code.code(), Some(1));
    let told = runtime.block_on(async {
        let stream = jetstream_at(servers.nats_url()).await.get_stream("SG_ALERTS").await.expect("a stream");
        stream.get_last_raw_message_by_subject("sg.v1.alert.critical._sg_rewind.ops-0.1").await
    });
    let told: Value = serde_json::from_slice(&told.expect("people are told").payload).expect("JSON");
    assert_eq!((&told["state"], &told["key"]["partition"]), (&json!("firing"), &json!("0")));
    wait_with_log("the reason", &worker.log, || {
        let log = worker.log.lock().expect("no panic");
        log.contains("it was recreated at").then_some(())
    });
}

/// Goal: records that were removed unread are detected and reported, and no alert is resolved because of
/// them. Method: an alert fires, the worker stops, the following records are purged unread, and a worker
/// starts again.
#[test]
fn records_that_are_gone_are_noticed_and_resolve_nothing() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    let context = runtime.block_on(jetstream_at(servers.nats_url()));
    let slow = |count: usize| {
        let event = json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms", "value": 1_400});
        let payload = Value::Array(vec![event; count]).to_string();
        let sent = context.publish("sg.v1.metric.s-0.latency_ms", payload.into());
        runtime.block_on(async { sent.await.expect("sent").await.expect("stored") });
    };
    slow(20);
    let states = |worker: &Worker| -> Option<Vec<String>> {
        let found: Value = serde_json::from_str(&worker.get("/api/v1/alerts")?).ok()?;
        let named = |alert: &Value| {
            format!("{} {}", alert["rule"].as_str().unwrap_or(""), alert["state"].as_str().unwrap_or(""))
        };
        Some(found["alerts"].as_array()?.iter().map(named).collect())
    };
    let is_slow = |states: &Vec<String>| states.iter().any(|state| state == "slow firing");
    wait_for("an alert", &worker, || states(&worker).filter(is_slow));
    assert_eq!(worker.stop(), Some(0));
    slow(10);
    slow(10);
    runtime.block_on(async {
        let stream = context.get_stream("SG_EVENTS_0").await.expect("a stream");
        stream.purge().await.expect("purged");
    });
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    slow(1);
    let states = wait_for("the gap is told", &worker, || {
        states(&worker).filter(|states| states.iter().any(|state| state == "_sg_gap firing"))
    });
    assert!(is_slow(&states), "{states:?}");
    assert_eq!(worker.metric("streamgauge_log_gaps_total "), Some(1));
    let lost = worker.metric("streamgauge_log_records_lost_total ").expect("a number");
    assert!((2..20).contains(&lost), "{lost} records lost");
    let windows = worker.get("/api/v1/windows?name=latency_ms&window=1h").expect("windows");
    assert!(windows.contains("\"incomplete\":true"), "{windows}");
    let log = worker.get("/api/v1/alerts/log").expect("the log");
    assert!(!log.contains("\"resolved\",\"change\":\"resolved\",\"severity\":\"warning\""), "{log}");
}

/// Goal: a refused event is published on its own with its reason and its place; an action is requested
/// once; a shadow rule notifies no receiver. Method: a payload of four events: a slow, an invalid, an old
/// and a late one.
#[test]
fn refused_events_and_actions_have_subjects_of_their_own() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("rules", &worker, || worker.metric("streamgauge_rules ").filter(|rules| *rules > 0));
    let context = runtime.block_on(jetstream_at(servers.nats_url()));
    let event =
        json!({"type": "metric", "time": now_ms(), "source": "s-0", "name": "latency_ms", "value": 1_600});
    let old = json!({"type": "metric", "time": 1_420_070_400_000u64, "source": "s-0", "name": "latency_ms", "value": 1});
    // The minute of this event is sealed at once without values, so its window is revision 1.
    let late = json!({"type": "metric", "time": now_ms() - 120_000, "source": "s-1", "name": "latency_ms", "value": 1});
    let payload = json!([event, {"type": "nothing"}, old, late]).to_string();
    runtime.block_on(async {
        let sent = context.publish("sg.v1.metric.s-0.latency_ms", payload.into()).await.expect("sent");
        sent.await.expect("stored");
    });
    let message = |stream: &'static str, subject: &'static str| {
        let context = context.clone();
        wait_for(subject, &worker, || {
            runtime.block_on(async {
                let stream = context.get_stream(stream).await.ok()?;
                stream.get_last_raw_message_by_subject(subject).await.ok()
            })
        })
    };
    let dead = message("SG_DEAD", "sg.v1.dead.bad_event");
    assert_eq!(&dead.payload[..], br#"{"type":"nothing"}"#);
    let header =
        |name: &str| dead.headers.get(name).map(|value| value.as_str().to_string()).unwrap_or_default();
    assert_eq!(header("Sg-Index"), "1");
    assert_eq!(header("Sg-Subject"), "sg.v1.metric.s-0.latency_ms");
    assert_eq!(header("Sg-Stream"), "SG_EVENTS_0");
    let too_late = message("SG_DEAD", "sg.v1.dead.too_late");
    assert_eq!(&too_late.payload[..], old.to_string().as_bytes());
    let action = message("SG_ALERTS", "sg.v1.action.page_somebody.0.1");
    let action: Value = serde_json::from_slice(&action.payload).expect("JSON");
    assert_eq!(action["alert"]["rule"], "odd");
    let shadow = message("SG_ALERTS", "sg.v1.shadow.trial.0.1");
    let shadow: Value = serde_json::from_slice(&shadow.payload).expect("JSON");
    assert_eq!((&shadow["state"], &shadow["actions"]), (&json!("firing"), &json!([])));
    assert!(!runtime.block_on(board(servers.nats_url())).contains("trial"), "a shadow is no alert");
    assert!(worker.get("/api/v1/alerts?shadow=true").is_some_and(|shown| shown.contains("trial")));
    assert!(worker.get("/api/v1/alerts").is_some_and(|shown| !shown.contains("trial")));
    let rollup = message("SG_ROLLUPS", "sg.v1.rollup.1m.s-1.latency_ms");
    let rollup: Value = serde_json::from_slice(&rollup.payload).expect("JSON");
    assert_eq!((&rollup["count"], &rollup["revision"]), (&json!(1), &json!(1)));
}

/// Goal: an export ends at the last record that exists, and an export with a missing partition fails.
/// Method: the newest record of each log is deleted, then the whole log of one of two partitions, while no
/// worker runs.
#[test]
fn an_export_ends_with_what_is_there_and_names_a_log_that_is_not() {
    let servers = Servers::start("everysec");
    let worker = servers.worker_of("1s", 2);
    wait_for("ownership", &worker, || (worker.owned() == 2).then_some(()));
    for source in 0..8 {
        let event = json!({"type": "metric", "time": now_ms(), "source": format!("s-{source}"), "name": "m", "value": 1});
        let sent = ureq::post(format!("{}/api/v1/events", worker.url)).send(event.to_string());
        assert_eq!(sent.expect("accepted").status(), 202);
    }
    assert_eq!(worker.stop(), Some(0));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let export = || {
        let mut limited = std::process::Command::new("timeout");
        limited.args(["30", env!("CARGO_BIN_EXE_streamgauge"), "export", "--nats", &servers.nats_url()]);
        let done = limited.output().expect("coreutils");
        let count = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        (done.status.code(), count(&done.stdout), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, whole, said) = export();
    assert!(code == Some(0) && whole >= 8, "{code:?} {whole} {said}");
    runtime.block_on(async {
        let context = jetstream_at(servers.nats_url()).await;
        for partition in 0..2 {
            let mut stream = context.get_stream(format!("SG_EVENTS_{partition}")).await.expect("a stream");
            let last = stream.info().await.expect("it is there").state.last_sequence;
            stream.delete_message(last).await.expect("deleted");
        }
    });
    let (code, less, said) = export();
    assert!(code == Some(0) && less < whole, "{code:?} {less} of {whole} {said}");
    runtime.block_on(async {
        let context = jetstream_at(servers.nats_url()).await;
        context.delete_stream("SG_EVENTS_0").await.expect("deleted");
    });
    let (code, _, said) = export();
    assert!(code == Some(1) && said.contains("none of partition 0"), "{code:?} {said}");
}
