//! The desired rules of a deployment are in Redis; silences and maintenance windows are shown there.

use crate::servers::{Servers, Worker, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn rule(limit: u32) -> String {
    json!({"expr": format!("max(x[1m]) by (source) > {limit}"), "severity": "info"}).to_string()
}

/// The expression of a rule that is in force.
fn in_force(worker: &Worker, id: &str) -> Option<String> {
    let found: Value = serde_json::from_str(&worker.get("/api/v1/rules")?).ok()?;
    let rule = found["rules"].as_array()?.iter().find(|rule| rule["id"] == id)?;
    Some(rule["expr"].as_str()?.into())
}

fn query<T: redis::FromRedisValue>(servers: &Servers, words: &[&str]) -> T {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", servers.redis_port)).expect("a url");
    let mut connection = client.get_connection().expect("redis answers");
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(word);
    }
    command.query(&mut connection).expect("an answer")
}

/// Goal: `sg:rules` holds the desired rules, and files only initialise it. Method: it is changed as by
/// another program; a restart with other files, with and without --apply.
#[test]
fn the_rules_wanted_are_those_in_redis() {
    let servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("the files' rules", &worker, || in_force(&worker, "busy"));
    let stored: BTreeMap<String, String> = query(&servers, &["HGETALL", "sg:rules"]);
    assert_eq!((stored["rev"].as_str(), stored.len()), ("1", 2), "{stored:?}");
    let text: String = serde_json::from_str(&stored["rules.yaml"]).expect("a text");
    assert!(text.contains("id: busy"));

    let _: u32 = query(&servers, &["HSET", "sg:rules", "added", &rule(5)]);
    let _: u32 = query(&servers, &["HINCRBY", "sg:rules", "rev", "1"]);
    wait_for("a rule of another program", &worker, || {
        in_force(&worker, "added").filter(|e| e.ends_with("> 5"))
    });
    let ready =
        wait_for("the difference", &worker, || worker.get("/readyz").filter(|it| it.contains("--apply")));
    assert!(ready.contains("(added)"), "{ready}");

    // A rule set with an invalid rule is refused as a whole.
    let _: u32 = query(&servers, &["HSET", "sg:rules", "wrong", "{\"expr\": \"max(\"}"]);
    let _: u32 = query(&servers, &["HSET", "sg:rules", "added", &rule(9)]);
    let _: u32 = query(&servers, &["HINCRBY", "sg:rules", "rev", "1"]);
    wait_for("the refusal", &worker, || worker.get("/readyz").filter(|it| it.contains("refused")));
    assert!(in_force(&worker, "added").is_some_and(|expr| expr.ends_with("> 5")));
    let _: u32 = query(&servers, &["HDEL", "sg:rules", "wrong"]);
    let _: u32 = query(&servers, &["HINCRBY", "sg:rules", "rev", "1"]);
    wait_for("the change", &worker, || in_force(&worker, "added").filter(|e| e.ends_with("> 9")));
    assert_eq!(worker.stop(), Some(0));

    // Another start with the files changes nothing without --apply.
    let worker = servers.worker("1s");
    wait_for("the same rules", &worker, || in_force(&worker, "added"));
    assert_eq!(worker.stop(), Some(0));
    let mut command = servers.command("1s", 1);
    command.arg("--apply");
    let worker = Worker::start(command);
    wait_for("the files' rules alone", &worker, || {
        (in_force(&worker, "busy").is_some() && in_force(&worker, "added").is_none()).then_some(())
    });
    let rev: String = query(&servers, &["HGET", "sg:rules", "rev"]);
    assert_eq!(rev, "5");
    assert_eq!(worker.stop(), Some(0));
}

/// Goal: a user's request reaches every partition and is shown. Method: four partitions, two workers; one
/// of them gets the request.
#[test]
fn what_people_asked_for_is_shown() {
    let servers = Servers::start("everysec");
    let workers = [servers.worker_of("1s", 4), servers.worker_of("1s", 4)];
    wait_for("owners", &workers[0], || (workers.iter().map(Worker::owned).sum::<u64>() == 4).then_some(()));
    let silence = json!({"match": ["source=\"a\""], "by": "ann", "id": "s1", "duration": "1h"});
    let sent = ureq::post(format!("{}/api/v1/silences", workers[0].url))
        .content_type("application/json")
        .send(silence.to_string());
    assert_eq!(sent.expect("accepted").status(), 202);
    let plan = json!({"match": ["rule=\"x\""], "id": "m1", "schedule": "0 3 * * *", "duration": "1h"});
    let sent = ureq::post(format!("{}/api/v1/maintenance", workers[1].url))
        .content_type("application/json")
        .send(plan.to_string());
    assert_eq!(sent.expect("accepted").status(), 202);
    let shown = |key: &str| -> BTreeMap<String, String> { query(&servers, &["HGETALL", key]) };
    let silence = wait_for("the silence", &workers[0], || shown("sg:silences").remove("s1"));
    let silence: Value = serde_json::from_str(&silence).expect("JSON");
    assert_eq!((&silence["by"], &silence["match"]), (&json!("ann"), &json!(["source=\"a\""])));
    wait_for("the maintenance", &workers[0], || shown("sg:maintenance").remove("m1"));
    for worker in &workers {
        // Both workers answer for all partitions, whichever they own.
        wait_for("the answer", worker, || worker.get("/api/v1/silences").filter(|it| it.contains("\"s1\"")));
    }
    let ended = ureq::delete(format!("{}/api/v1/silences/s1?by=ann", workers[1].url)).call();
    assert_eq!(ended.expect("accepted").status(), 202);
    wait_for("its end", &workers[0], || shown("sg:silences").is_empty().then_some(()));
    for worker in workers {
        assert_eq!(worker.stop(), Some(0));
    }
}
