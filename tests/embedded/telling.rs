//! Alerts reach their receivers, also through kills and failing targets.

use super::edge::{now_ms, wait_for_early_in_pane};
use super::service::{Service, binary, post, spawn};
use super::sink::{Reply, Sink, secret};
use super::{answer, batch, rules};
use base64::Engine as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

fn start(dir: &Path, config: &str) -> Service {
    let path = dir.join("streamgauge.yaml");
    std::fs::write(&path, config).expect("writable");
    let mut command = binary();
    command.args(["run", "--listen", "127.0.0.1:0", "--config"]).arg(path);
    command.arg("--data-dir").arg(dir.join("data")).arg("--pipelines").arg(rules(dir));
    command.env("HOOK_SECRET", "whsec_c2VjcmV0");
    spawn(command)
}

/// Sends enough events for the rule `many` to fire for these sources; it ends by itself some seconds later.
fn burst(service: &Service, first: usize, sources: usize) {
    wait_for_early_in_pane();
    let event = |source: usize| {
        json!({"type": "samples", "source": format!("s{source}"), "name": "latency_ms",
            "times": vec![now_ms(); 60], "values": vec![1; 60]})
    };
    let all: Vec<Value> = (first..first + sources).map(event).collect();
    post(&service.url, &Value::Array(all).to_string()).expect("acknowledged");
}

/// The transitions that a receiver got of each episode: (seq, state), in order.
fn told(alerts: impl Iterator<Item = Value>) -> BTreeMap<String, Vec<(u64, String)>> {
    let mut told: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    for alert in alerts {
        let text = |name: &str| alert[name].as_str().expect("an alert").to_string();
        told.entry(text("id")).or_default().push((alert["seq"].as_u64().expect("a number"), text("state")));
    }
    told
}

/// Goal: each receiver gets each transition in order, whatever the other receivers do; a kill repeats at
/// most one message per receiver. Method: a file, and a webhook that fails at times; kill -9 while
/// notifications are sent.
#[test]
fn each_transition_arrives_in_order_through_kills_and_a_target_that_fails() {
    const KILLS: usize = 50;
    let dir = tempfile::tempdir().expect("a directory");
    let hook = Sink::start(|asked| match asked % 15 {
        4 => Reply::Status(503),
        7 => Reply::Busy,
        9 => Reply::Reset,
        12 => Reply::Endless,
        _ => Reply::Status(200),
    });
    let file = dir.path().join("alerts.ndjson");
    let config = format!(
        "receivers:
  - {{ name: file, log: {{ path: {file:?} }} }}
  - {{ name: hook, webhook: {{ url: '{}', format: event, allow: [127.0.0.1], secrets: ['env:HOOK_SECRET'] }} }}
route: {{ receiver: file, routes: [{{ receiver: hook, continue: true }}, {{ receiver: file }}] }}\n",
        hook.url
    );
    for round in 0..KILLS {
        let mut service = start(dir.path(), &config);
        burst(&service, round * 4, 4);
        let wanted = (round + 1) * 4;
        service.wait_for("/api/v1/receivers", |_| {
            service.get("/api/v1/alerts/log").matches("\"change\":\"firing\"").count() >= wanted
        });
        service.child.kill().expect("kill -9");
        service.child.wait().expect("it is dead");
    }
    let service = start(dir.path(), &config);
    let all_over = |told: &BTreeMap<String, Vec<(u64, String)>>| {
        told.len() == KILLS * 4
            && told.values().all(|one| one.last().is_some_and(|(_, state)| state == "resolved"))
    };
    let taken = hook.wait_for(|taken| all_over(&told(taken.iter().map(|one| one.body.clone()))));
    let lines = std::fs::read_to_string(&file).expect("readable");
    let from_file = told(lines.lines().map(|line| serde_json::from_str(line).expect("JSON")));
    assert!(all_over(&from_file), "{from_file:?}");
    let from_hook = told(taken.iter().map(|one| one.body.clone()));
    for (name, told) in [("file", &from_file), ("hook", &from_hook)] {
        let repeats: usize =
            told.values().map(|one| one.windows(2).filter(|two| two[0] == two[1]).count()).sum();
        assert!(told.values().all(|one| one.is_sorted() && one[0].0 == 0), "{name}: {told:?}");
        assert!(repeats <= KILLS, "{name}: {repeats} repeats in {KILLS} kills");
    }
    // A repeated message has the id of the first; the signature follows Standard Webhooks.
    let header = |headers: &[String], name: &str| {
        let found = headers
            .iter()
            .find_map(|line| line.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name)));
        found.unwrap_or_else(|| panic!("no {name} in {headers:?}")).1.to_string()
    };
    for one in &taken {
        let (id, at) = (header(&one.headers, "webhook-id"), header(&one.headers, "webhook-timestamp"));
        assert_eq!(id, format!("{}:{}:hook", one.body["id"].as_str().expect("an id"), one.body["seq"]));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
        let signed = ring::hmac::sign(&key, format!("{id}.{at}.{}", one.text).as_bytes());
        let signature = base64::engine::general_purpose::STANDARD.encode(signed);
        assert_eq!(header(&one.headers, "webhook-signature"), format!("v1,{signature}"));
    }
    assert_eq!(service.stop(), Some(0));
}

/// Goal: a user of the demo sees messages arrive and how many were delivered. Method: the first ten seconds
/// of the demo.
#[test]
fn the_demo_ends_with_a_message_that_was_delivered() {
    let output = binary().args(["demo", "--listen", "127.0.0.1:0", "--seconds", "10"]).output();
    let said = String::from_utf8(output.expect("it runs").stdout).expect("text");
    assert!(said.contains("-> terminal: [WARNING] latency_p99 source=checkout\n  warning: "), "{said}");
    let count =
        said.lines().find_map(|line| line.split_once(" messages were delivered")?.0.parse::<u64>().ok());
    assert_eq!(count, Some(said.matches("-> terminal: [").count() as u64), "{said}");
}

/// Goal: a message that is refused for good becomes a dead letter, is reported to the other receivers, and
/// is delivered after a redrive.
#[test]
fn what_cannot_be_delivered_is_told_to_the_others_and_taken_up_again() {
    let dir = tempfile::tempdir().expect("a directory");
    // The target refuses two messages and accepts their redrive: the firing of one alert and its end.
    let hook = Sink::start(|asked| match asked {
        0 => Reply::Redirect,
        1 => Reply::Status(400),
        _ => Reply::Status(200),
    });
    let file = dir.path().join("alerts.ndjson");
    let config = format!(
        "receivers:
  - {{ name: file, log: {{ path: {file:?} }} }}
  - {{ name: hook, webhook: {{ url: '{}', format: event, allow: [127.0.0.0/8] }} }}
route: {{ receiver: file, routes: [{{ receiver: hook, matchers: ['rule=\"many\"'] }}] }}\n",
        hook.url
    );
    let service = start(dir.path(), &config);
    burst(&service, 0, 1);
    let of_hook = |found: &Value| {
        let all = found["receivers"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["name"] == "hook").expect("it is configured")
    };
    service.wait_for("/api/v1/receivers", |found| of_hook(found)["letters"] == 2);
    assert_eq!(hook.asked(), 2, "a redirect is not followed");
    let undelivered = |state: &str| {
        let lines = std::fs::read_to_string(&file).unwrap_or_default();
        let alerts = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        alerts.filter(|one| one["rule"] == "_sg_undelivered" && one["state"] == state).count() == 1
    };
    service.wait_for("/api/v1/receivers", |_| undelivered("firing"));
    let metrics = service.get("/metrics");
    assert!(metrics.contains("streamgauge_notify_letters{receiver=\"hook\"} 2"), "{metrics}");
    let redrive = format!("{}/api/v1/receivers/hook/redrive", service.url);
    let answer =
        ureq::post(redrive).send_empty().expect("answers").body_mut().read_to_string().expect("a body");
    assert_eq!(answer, "{\"messages\":2}");
    let taken = hook.wait_for(|taken| taken.len() == 2);
    assert_eq!((&taken[0].body["seq"], &taken[1].body["state"]), (&json!(0), &json!("resolved")));
    service.wait_for("/api/v1/receivers", |_| undelivered("resolved"));
    assert_eq!(service.stop(), Some(0));
}

/// Goal: a receiver that got the firing of an alert gets its end once, whatever users change in between.
/// Method: four alerts of one receiver. One is silenced, one is always muted, one is routed to another
/// receiver now, and the process is restarted with another configuration.
#[test]
fn an_end_arrives_through_silence_mute_another_route_and_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (first, second) = (Sink::start(|_| Reply::Status(200)), Sink::start(|_| Reply::Status(200)));
    let hook = |name: &str, sink: &Sink, rest: &str| {
        format!(
            "  - {{ name: {name}, webhook: {{ url: '{}', format: event, allow: [127.0.0.1]{rest} }} }}\n",
            sink.url
        )
    };
    let before = format!("receivers:\n{}route: {{ receiver: first }}\n", hook("first", &first, ""));
    let service = start(dir.path(), &before);
    burst(&service, 0, 4);
    let source = |one: &Value| one["key"]["source"].as_str().map(str::to_string);
    first.wait_for(|taken| taken.iter().filter(|one| one.body["state"] == "firing").count() == 4);
    let silence = json!({"match": ["source=\"s0\""], "duration": "1h", "by": "ann", "reason": "known"});
    ureq::post(format!("{}/api/v1/silences", service.url))
        .content_type("application/json")
        .send(silence.to_string())
        .expect("silenced");
    assert_eq!(service.stop(), Some(0));
    let after = format!(
        "receivers:\n{}{}time_intervals: [{{ name: always, time_intervals: [{{ times: [{{ start_time: '00:00', end_time: '24:00' }}] }}] }}]
route:
  receiver: second
  routes:
    - {{ receiver: first, matchers: ['source=\"s2\"'], mute_time_intervals: [always] }}
    - {{ receiver: first, matchers: ['source=~\"s0|s3\"'] }}\n",
        hook("first", &first, ", timeout: 3s"),
        hook("second", &second, "")
    );
    let service = start(dir.path(), &after);
    let ends =
        |taken: &[super::sink::Taken]| taken.iter().filter(|one| one.body["state"] == "resolved").count();
    let taken = first.wait_for(|taken| ends(taken) == 4);
    assert_eq!(service.stop(), Some(0));
    let told = told(taken.iter().map(|one| one.body.clone()));
    let is_whole =
        |one: &Vec<(u64, String)>| one.first().map(|(_, s)| &**s) == Some("firing") && one.is_sorted();
    assert!(told.len() == 4 && told.values().all(is_whole), "{told:?}");
    let is_silenced = taken.iter().any(|one| {
        source(&one.body).as_deref() == Some("s0") && one.body["suppressed_by"]["kind"] == "silence"
    });
    assert!(is_silenced, "the end of what was silenced: {taken:#?}");
    assert!(
        second.taken().iter().all(|one| source(&one.body).as_deref() == Some("s1")),
        "the others are not theirs"
    );
}

/// Goal: users see which firing an end belongs to. Method: a Slack app, whose answer names the first
/// message; the process is killed before the end.
#[test]
fn an_end_stands_in_the_thread_of_its_beginning() {
    let dir = tempfile::tempdir().expect("a directory");
    let slack = Sink::start(|_| Reply::Says(r#"{"ok": true, "channel": "C1", "ts": "17.25"}"#));
    let token = dir.path().join("token");
    secret(&token, "xoxb-1");
    let config = format!(
        "receivers:
  - {{ name: ops, slack: {{ token: 'file:{}', channel: C1, api: '{}', allow: [127.0.0.1] }} }}
route: {{ receiver: ops, group_wait: 0s, group_interval: 1s }}\n",
        token.display(),
        slack.url
    );
    let mut service = start(dir.path(), &config);
    burst(&service, 0, 1);
    slack.wait_for(|taken| taken.len() == 1);
    service.child.kill().expect("kill -9");
    service.child.wait().expect("it is dead");
    let service = start(dir.path(), &config);
    let is_over = |one: &super::sink::Taken| one.text.contains("RESOLVED");
    let taken = slack.wait_for(|taken| taken.last().is_some_and(is_over));
    assert_eq!(service.stop(), Some(0));
    let threads: Vec<&Value> = taken.iter().map(|one| &one.body["thread_ts"]).collect();
    assert!(threads[0].is_null() && threads.last() == Some(&&json!("17.25")), "{taken:#?}");
    assert_eq!(taken[0].body["channel"], "C1");
    assert!(taken[0].headers.contains(&"authorization: Bearer xoxb-1".into()), "{:?}", taken[0].headers);
}

/// Goal: an external monitor receives a heartbeat each minute while the chain works, whatever is silenced,
/// and no other receiver gets it. Method: the shipped rule, silenced, and a target that listens.
#[test]
fn a_heartbeat_proves_the_chain_and_is_not_silenced() {
    let dir = tempfile::tempdir().expect("a directory");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/canary.yaml");
    std::fs::copy(shipped, rules(dir.path()).join("canary.yaml")).expect("writable");
    let (outside, file) = (Sink::start(|_| Reply::Status(200)), dir.path().join("alerts.ndjson"));
    secret(&dir.path().join("url"), &outside.url);
    let config = format!(
        "receivers:
  - {{ name: file, log: {{ path: {file:?} }} }}
  - {{ name: beat, heartbeat: {{ url: 'file:{}', allow: [127.0.0.1] }} }}
route: {{ receiver: file, routes: [{{ receiver: beat, matchers: ['rule=\"canary\"'] }}] }}\n",
        dir.path().join("url").display()
    );
    let service = start(dir.path(), &config);
    let silence = json!({"match": ["rule=\"canary\""], "duration": "1h", "by": "ann", "reason": "noise"});
    ureq::post(format!("{}/api/v1/silences", service.url))
        .content_type("application/json")
        .send(silence.to_string())
        .expect("silenced");
    let taken = outside.wait_for(|taken| !taken.is_empty());
    let body = &taken[0].body;
    assert_eq!(body["partitions"], 1);
    assert!(body["latency_ms"].as_u64().is_some_and(|ms| ms < 30_000), "{body}");
    service.wait_for("/api/v1/alerts?rule=canary", |found| {
        found["alerts"][0]["suppressed_by"]["kind"] == "silence" || found["alerts"] == json!([])
    });
    let count = "streamgauge_notify_event_seconds_count{receiver=\"beat\"} 1";
    service.wait_for("/api/v1/receivers", |_| service.get("/metrics").contains(count));
    assert!(service.get("/api/v1/alerts/log").contains("canary-1-of-1-0"));
    assert_eq!(service.stop(), Some(0));
    assert!(!std::fs::exists(&file).expect("readable"), "nobody else hears of it");
}

/// Goal: alerts are delivered also after the log was replaced. Method: a data dir whose log is removed, and
/// one whose log is restored from an older copy; new alerts then reuse numbers that were delivered before.
#[test]
fn alerts_of_a_log_that_was_replaced_are_told() {
    for is_copy in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let sink = Sink::start(|_| Reply::Status(200));
        let config = format!(
            "receivers: [{{ name: hook, webhook: {{ url: '{}', format: event, allow: [127.0.0.1] }} }}]\nroute: {{ receiver: hook }}\n",
            sink.url
        );
        let fired = |taken: &[super::sink::Taken], source: &str| {
            taken.iter().any(|one| one.body["state"] == "firing" && one.body["key"]["source"] == source)
        };
        let (log, copy) = (dir.path().join("data/streamgauge.redb"), dir.path().join("copy"));
        let service = start(dir.path(), &config);
        assert_eq!(service.stop(), Some(0));
        std::fs::copy(&log, &copy).expect("copied");
        let service = start(dir.path(), &config);
        burst(&service, 0, 8);
        sink.wait_for(|taken| (0..8).all(|n| fired(taken, &format!("s{n}"))));
        assert_eq!(service.stop(), Some(0));
        match is_copy {
            true => drop(std::fs::copy(&copy, &log).expect("copied")),
            false => std::fs::remove_file(&log).expect("removed"),
        }
        let service = start(dir.path(), &config);
        burst(&service, 20, 1);
        sink.wait_for(|taken| fired(taken, "s20"));
        assert_eq!(service.stop(), Some(0));
    }
}

/// Goal: a log receiver whose target blocks is seen as a receiver that fails, and holds up nothing. Method: a named
/// pipe that nobody reads; alerts; SIGTERM.
#[test]
fn a_pipe_that_nobody_reads_is_a_receiver_that_fails() {
    let dir = tempfile::tempdir().expect("a directory");
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let config = format!(
        "receivers: [{{ name: pipe, log: {{ path: '{}' }} }}]\nroute: {{ receiver: pipe }}\n",
        pipe.display()
    );
    let service = start(dir.path(), &config);
    burst(&service, 0, 2);
    service.wait_for("/api/v1/receivers", |found| {
        let all = found["receivers"].as_array().cloned().unwrap_or_default();
        let pipe = all.into_iter().find(|one| one["name"] == "pipe").expect("it is configured");
        let at_least_one = |name: &str| pipe[name].as_u64() > Some(0);
        at_least_one("retried") && at_least_one("waiting")
    });
    assert_eq!(service.stop(), Some(0));
}

/// Goal: an alert about a process that is gone does not fire for ever. Method: the largest file is bounded until
/// `_sg_unwritten` is delivered; kill -9, a start with room, and its end is delivered once.
#[test]
fn an_alert_about_an_earlier_process_ends_with_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, path) = (dir.path().join("alerts.ndjson"), dir.path().join("streamgauge.yaml"));
    let config =
        format!("receivers: [{{ name: file, log: {{ path: {file:?} }} }}]\nroute: {{ receiver: file }}\n");
    std::fs::write(&path, &config).expect("writable");
    let mut command = Command::new("bash");
    command
        .arg("-c")
        .arg("ulimit -S -f 6144; exec \"$@\"")
        .arg("bash")
        .arg(env!("CARGO_BIN_EXE_streamgauge"));
    command.args(["run", "--listen", "127.0.0.1:0", "--config"]).arg(&path);
    command.arg("--data-dir").arg(dir.path().join("data")).arg("--pipelines").arg(rules(dir.path()));
    let mut first = spawn(command);
    let events = format!("{}/api/v1/events", first.url);
    let mut sent = 0;
    while answer::post(&events, &batch(sent, 500)).status == 202 {
        sent += 500;
        assert!(sent < 1_000_000, "the disk is never full");
    }
    let states = || -> Vec<String> {
        let lines = std::fs::read_to_string(&file).unwrap_or_default();
        let alerts = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ours = alerts.filter(|one| one["rule"] == "_sg_unwritten");
        ours.filter_map(|one| one["state"].as_str().map(str::to_string)).collect()
    };
    first.wait_for("/api/v1/receivers", |_| {
        answer::post(&events, &batch(sent, 500));
        states() == ["firing"]
    });
    first.child.kill().expect("kill -9");
    first.child.wait().expect("it is dead");
    let second = start(dir.path(), &config);
    second.wait_for("/api/v1/receivers", |_| states() == ["firing", "resolved"]);
    assert_eq!(second.stop(), Some(0));
    assert_eq!(states(), ["firing", "resolved"]);
}
