//! Operations on a running service: silences, maintenance windows, rules; each is a record of the log.

use super::edge::now_ms;
use super::service::{Service, binary, post, start};
use super::{answer, replayed, rules};
use serde_json::{Value, json};
use std::process::Output;

/// Runs a command against the service.
fn ask(service: &Service, words: &[&str]) -> Output {
    binary().args(words).args(["--url", &service.url]).output().expect("runs")
}

fn told(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Sends values under which the rule `many` fires at once.
fn feed(service: &Service) {
    let event =
        |n| json!({"type": "metric", "time": now_ms(), "source": "a", "name": "latency_ms", "value": n});
    post(&service.url, &Value::Array((0..60).map(event).collect()).to_string()).expect("202");
}

fn suppressed_by(service: &Service, wanted: &Value) {
    service.wait_for("/api/v1/alerts?rule=many", |found| {
        feed(service);
        found["alerts"][0]["suppressed_by"] == *wanted
    });
}

#[test]
fn silences_and_maintenance_are_asked_for_shown_and_ended() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, pipelines) = (dir.path().join("data"), rules(dir.path()));
    let service = start(&data, &pipelines);
    feed(&service);
    service.wait_for("/api/v1/alerts?rule=many", |found| found["alerts"][0]["state"] == "firing");

    let words =
        ["silence", "add", "source=\"a\"", "--id", "s1", "--for", "1h", "--by", "ann", "--reason", "known"];
    assert!(told(&ask(&service, &words)).contains("silence s1 until"));
    suppressed_by(&service, &json!({"kind": "silence", "id": "s1"}));
    assert!(told(&ask(&service, &["silence", "list"])).contains("ann"));
    let words =
        ["maintenance", "add", "rule=\"many\"", "--id", "m1", "--schedule", "* * * * *", "--duration", "2m"];
    let answer = told(&ask(&service, &words));
    assert!(answer.contains("matches now: 1") && answer.lines().count() == 12, "{answer}");
    suppressed_by(&service, &json!({"kind": "maintenance", "id": "m1"}));
    assert!(told(&ask(&service, &["maintenance", "list"])).contains("active"));
    told(&ask(&service, &["silence", "expire", "s1"]));
    told(&ask(&service, &["maintenance", "end", "m1"]));
    suppressed_by(&service, &Value::Null);

    let alerts = service.get("/api/v1/alerts/log");
    assert_eq!(service.stop(), Some(0));
    assert!(replayed(&data, dir.path(), &[]).starts_with(&alerts), "what people said is in the log");
}

#[test]
fn a_wrong_request_says_what_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let service = start(&dir.path().join("data"), &rules(dir.path()));
    let refused = |words: &[&str]| {
        let output = ask(&service, words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&["silence", "add", "source"]).contains("source"));
    let backwards =
        ["maintenance", "add", "a=\"b\"", "--start", "2026-11-02T00:00:00Z", "--end", "2026-11-01T00:00:00Z"];
    assert!(refused(&backwards).contains("ends before it begins"));
    let nowhere = [
        "maintenance",
        "preview",
        "a=\"b\"",
        "--schedule",
        "0 0 * * *",
        "--duration",
        "1h",
        "--tz",
        "Mars/Base",
    ];
    assert!(refused(&nowhere).contains("IANA"));
    assert!(refused(&["silence", "expire", "nobody"]).contains("there is no `nobody`"));
    assert!(refused(&["maintenance", "end", "nobody"]).contains("there is no `nobody`"));
    let at = ["maintenance", "preview", "a=\"b\"", "--schedule", "0 22 * * FRI", "--duration", "4h", "--at"];
    let shown = told(&ask(&service, &[&at[..], &["2026-11-28T00:30:00Z"]].concat()));
    assert!(shown.starts_with("at 2026-11-28T00:30:00Z: in force") && shown.lines().count() == 12, "{shown}");
    let quiet = told(&ask(&service, &["maintenance", "list", "-o", "json"]));
    assert_eq!(quiet.trim(), "[]", "a preview changes nothing");
}

#[test]
fn an_alert_and_its_absence_are_explained() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, pipelines) = (dir.path().join("data"), rules(dir.path()));
    let service = start(&data, &pipelines);
    feed(&service);
    service.wait_for("/api/v1/alerts?rule=many", |found| found["alerts"][0]["state"] == "firing");
    told(&ask(&service, &["silence", "add", "source=\"a\"", "--id", "s1", "--by", "ann"]));
    suppressed_by(&service, &json!({"kind": "silence", "id": "s1"}));
    let fires = told(&ask(&service, &["alerts", "explain", "many", "source=a"]));
    let expected =
        ["firing", "silence s1 suppresses its notifications", "count(latency_ms[10s]) = ", "met for"];
    assert!(expected.iter().all(|text| fires.contains(text)), "{fires}");
    let quiet = told(&ask(&service, &["alerts", "explain", "slow", "{\"source\":\"a\"}"]));
    assert!(quiet.contains("not met") && quiet.contains("is not > 100 ms"), "{quiet}");
    let nobody = ask(&service, &["alerts", "explain", "many", "source=b"]);
    let nobody = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(nobody.contains("has seen no such key; it has seen {\"source\":\"a\"}"), "{nobody}");
    let past =
        told(&ask(&service, &["alerts", "explain", "many", "source=a", "--at", "2020-01-01T00:00:00Z"]));
    assert!(past.contains("this key had no transition until then"), "{past}");
    assert_eq!(service.stop(), Some(0));
    // The same explanation from the log alone.
    let log = dir.path().join("log.ndjson");
    let export = binary().arg("export").arg("--data-dir").arg(&data).output().expect("export");
    std::fs::write(&log, export.stdout).expect("writable");
    let words = ["alerts", "explain", "many", "source=a", "--log"];
    let again = told(&binary().args(words).arg(&log).output().expect("runs"));
    assert!(again.contains("silence s1"), "{again}");
}

/// Goal: an acknowledgement that is answered holds. Method: an alert that is pending for an hour.
#[test]
fn a_pending_alert_is_not_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let rule =
        "rules: [{ id: slow, expr: 'max(latency_ms[1m]) by (source) > 0', for: 1h, severity: info }]\n";
    std::fs::write(dir.path().join("rule.yaml"), rule).expect("writable");
    let service = start(&dir.path().join("data"), &dir.path().join("rule.yaml"));
    feed(&service);
    let found = service.wait_for("/api/v1/alerts", |found| found["alerts"][0]["state"] == "pending");
    let body = json!({"alert": found["alerts"][0]["id"], "by": "ann"}).to_string();
    let refused = answer::post(&format!("{}/api/v1/alerts/ack", service.url), &body);
    assert!(refused.status == 409 && refused.body.contains("not_firing"), "{refused:?}");
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn rules_change_by_file_by_api_and_only_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, pipelines) = (dir.path().join("data"), rules(dir.path()));
    let service = start(&data, &pipelines);
    let has = |service: &Service, id: &str, is_there: bool| {
        service.wait_for("/api/v1/rules", |found| {
            found["rules"].as_array().is_some_and(|all| all.iter().any(|rule| rule["id"] == id) == is_there)
        })
    };
    // A changed file is noticed without a request.
    let extra = pipelines.join("extra.yaml");
    let rule =
        |id: &str| format!("rules: [{{ id: {id}, expr: 'max(x[1m]) by (source) > 5', severity: info }}]\n");
    std::fs::write(&extra, rule("new")).expect("writable");
    has(&service, "new", true);
    // An invalid file changes nothing, and the service reports why.
    std::fs::write(&extra, "rules: [{ id: broken, expr: 'max(' }]\n").expect("writable");
    let remarked =
        service.wait_for("/api/v1/rules", |found| found["remarks"].to_string().contains("refused"));
    let remarks = remarked["remarks"].to_string();
    assert!(remarks.contains("extra.yaml:1:"), "{remarks}");
    assert!(remarks.contains("rule `new` has matched nothing yet: no series is called `x`"), "{remarks}");
    has(&service, "new", true);
    assert!(
        service.get("/readyz").contains("refused")
            && service.get("/metrics").contains("rules_refused_total 1")
    );
    // The remark outlasts a change over the API, which concerns no file.
    let other = json!({"id": "other", "expr": "max(x[1m]) by (source) > 5", "severity": "info"});
    let change = answer::post(&format!("{}/api/v1/rules", service.url), &other.to_string());
    assert_eq!(change.status, 202, "{change:?}");
    has(&service, "other", true);
    assert!(service.get("/readyz").contains("extra.yaml:1:"), "{}", service.get("/readyz"));
    told(&ask(&service, &["rules", "remove", "other"]));
    has(&service, "other", false);
    std::fs::remove_file(&extra).expect("there");
    has(&service, "new", false);
    // A rule that was added through the API survives a restart beside the files; a rule of a file is
    // changed there.
    let added = dir.path().join("rule.json");
    std::fs::write(&added, r#"{"id": "added", "expr": "max(x[1m]) by (source) > 5", "severity": "info"}"#)
        .expect("writable");
    let added = added.display().to_string();
    told(&ask(&service, &["rules", "add", &added]));
    has(&service, "added", true);
    let clash = ask(&service, &["rules", "add", &pipelines.join("rules.yaml").display().to_string()]);
    assert!(String::from_utf8_lossy(&clash.stderr).contains("there twice"));
    let file = ask(&service, &["rules", "remove", "rules.yaml"]);
    assert!(String::from_utf8_lossy(&file.stderr).contains("is a file"));
    assert_eq!(service.stop(), Some(0));
    let service = start(&data, &pipelines);
    has(&service, "added", true);
    told(&ask(&service, &["rules", "remove", "added"]));
    has(&service, "added", false);
    assert_eq!(service.stop(), Some(0));
}

/// Goal: rules that were added over the API are not lost to a file that clashes with one of them. Method: the
/// service is stopped, the file defines one of two added rules, the service starts; later the file is mended.
#[test]
fn added_rules_outlast_a_file_that_clashes_with_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, pipelines) = (dir.path().join("data"), rules(dir.path()));
    let service = start(&data, &pipelines);
    let rule = |id: &str| json!({"id": id, "expr": "max(x[1m]) by (source) > 5", "severity": "info"});
    for id in ["a", "b"] {
        let answer = answer::post(&format!("{}/api/v1/rules", service.url), &rule(id).to_string());
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    let has_both = |service: &Service| {
        let found = service.wait_for("/api/v1/rules", |found| found["rules"].is_array());
        let ids: Vec<&str> =
            found["rules"].as_array().into_iter().flatten().filter_map(|one| one["id"].as_str()).collect();
        assert!(ids.contains(&"a") && ids.contains(&"b") && ids.contains(&"many"), "{found}");
    };
    service.wait_for("/api/v1/rules", |found| found["rules"].as_array().is_some_and(|all| all.len() == 4));
    assert_eq!(service.stop(), Some(0));
    let file = pipelines.join("clash.yaml");
    std::fs::write(&file, json!({"rules": [rule("a")]}).to_string()).expect("writable");
    let service = start(&data, &pipelines);
    service.wait_for("/api/v1/rules", |found| found["remarks"].to_string().contains("there twice"));
    has_both(&service);
    assert!(service.get("/readyz").contains("there twice"), "{}", service.get("/readyz"));
    std::fs::remove_file(&file).expect("there");
    service.wait_for("/api/v1/rules", |found| !found["remarks"].to_string().contains("there twice"));
    has_both(&service);
    assert_eq!(service.stop(), Some(0));
}

/// Goal: an empty or missing file is never read as an empty rule set. Method: a file that is emptied,
/// removed and written again while an alert fires.
#[test]
fn a_rule_file_that_is_empty_for_a_moment_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, pipelines) = (dir.path().join("data"), rules(dir.path()));
    let (file, service) = (pipelines.join("rules.yaml"), start(&data, &pipelines));
    let whole = std::fs::read_to_string(&file).expect("readable");
    let remarked = |service: &Service, word: &str, is_there: bool| {
        let found = service
            .wait_for("/api/v1/rules", |found| found["remarks"].to_string().contains(word) == is_there);
        assert!(found["rules"].as_array().is_some_and(|all| all.len() == 2), "both stay: {found}");
    };
    feed(&service);
    service.wait_for("/api/v1/alerts?rule=many", |found| found["alerts"][0]["state"] == "firing");
    std::fs::write(&file, "").expect("writable");
    remarked(&service, "has no content", true);
    std::fs::remove_file(&file).expect("there");
    remarked(&service, "no rule file any more", true);
    assert!(service.get("/readyz").contains("rules: []"), "the way to have none is named");
    std::fs::write(&file, whole).expect("writable");
    remarked(&service, "in force", false);
    let told = service.get("/api/v1/alerts/log");
    assert!(!told.contains("stale"), "{told}");
    std::fs::write(&file, "rules: []\n").expect("writable");
    service.wait_for("/api/v1/rules", |found| found["rules"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(service.stop(), Some(0));
}

/// Goal: dashboards see where the time of runs is spent and how healthy a pipeline is. Method: fifty runs
/// of two stages of which the second takes three times as long, the last twenty failed; then the first
/// stage gets stuck.
#[test]
fn bottlenecks_and_health_of_pipelines_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, pipelines) = (dir.path().join("data"), rules(dir.path()));
    std::fs::write(
        pipelines.join("health.yaml"),
        "health: { weights: { latency: 0, errors: 1, throughput: 1 } }\n",
    )
    .expect("writable");
    let service = start(&data, &pipelines);
    let now = now_ms();
    let mut events = Vec::new();
    for run in 0..50 {
        let begun = now - 200_000 + run * 1_000;
        let mut stage = |stage: &str, status: &str, after: u64| {
            events.push(
                json!({"type": "stage", "pipeline": "release", "run": format!("r-{run}"), "stage": stage,
                "status": status, "time": begun + after}),
            );
        };
        stage("build", "started", 0);
        stage("build", "succeeded", 10_000);
        stage("test", "started", 10_000);
        stage("test", "succeeded", 40_000);
        let status = if run < 30 { "succeeded" } else { "failed" };
        events
            .push(json!({"type": "run", "pipeline": "release", "run": format!("r-{run}"), "status": status,
            "time": begun + 40_000}));
    }
    post(&service.url, &Value::Array(events).to_string()).expect("202");
    let found = service.wait_for("/api/v1/bottlenecks", |found| found["bottlenecks"][1].is_object());
    let worst = &found["bottlenecks"][0];
    assert_eq!((&worst["pipeline"], &worst["stage"]), (&json!("release"), &json!("test")), "{found}");
    assert_eq!((&worst["share"], &worst["is_bottleneck"]), (&json!(0.75), &json!(true)), "{found}");
    assert_eq!(worst["median_seconds"], 30.0);
    let health = service.json("/api/v1/health");
    let release = &health["health"][0];
    assert_eq!((&release["pipeline"], &release["parts"]["errors"]["now"]), (&json!("release"), &json!(1.0)));
    assert_eq!(
        (&release["score"], &release["parts"]["errors"]["weight"]),
        (&json!(0.0), &json!(1.0)),
        "{health}"
    );

    let document = service.json("/openapi.json");
    for (path, operations) in document["paths"].as_object().expect("paths") {
        if operations["get"].is_object() && !path.contains('{') {
            // Status 400 means that a required query parameter is missing.
            let answer = service.status(path);
            assert!([200, 400].contains(&answer), "{path}: {answer}");
        }
    }
    let unfinished = json!({"type": "stage", "pipeline": "release", "run": "stuck", "stage": "build",
        "status": "queued", "time": now_ms() - 280_000});
    post(&service.url, &unfinished.to_string()).expect("202");
    service.wait_for("/api/v1/pipelines", |found| {
        let build = &found["pipelines"][0]["stages"][0];
        build["waiting"] == 1 && build["oldest_seconds"].as_f64().is_some_and(|age| age >= 280.0)
    });
    assert_eq!(service.stop(), Some(0));
}

/// Goal: each acknowledged event counts, also those that arrive in large batches while rules change. Method: two
/// senders of batches of more than 32 KiB, and a rule that is added and removed meanwhile.
#[test]
fn large_batches_count_while_rules_change() {
    const BATCHES: u64 = 60;
    const BATCH: u64 = 400;
    let dir = tempfile::tempdir().expect("a directory");
    let service = start(&dir.path().join("data"), &rules(dir.path()));
    let url = service.url.as_str();
    let batch = |source: u64| {
        let event = |n| json!({"type": "metric", "time": now_ms(), "source": format!("s-{source}"), "name": "x", "value": n});
        Value::Array((0..BATCH).map(event).collect()).to_string()
    };
    std::thread::scope(|scope| {
        let send = |source| (0..BATCHES).for_each(|_| drop(post(url, &batch(source)).expect("202")));
        let senders = [0, 1].map(|source| scope.spawn(move || send(source)));
        let rule =
            json!({"id": "other", "expr": "max(x[1m]) by (source) > 5", "severity": "info"}).to_string();
        while senders.iter().any(|sender| !sender.is_finished()) {
            let added = answer::post(&format!("{url}/api/v1/rules"), &rule);
            assert!(matches!(added.status, 202 | 409), "{added:?}");
            ask(&service, &["rules", "remove", "other"]);
        }
    });
    service.wait_for("/api/v1/windows?name=x&window=1m&from=-10m", |found| {
        let counts =
            found["windows"].as_array().into_iter().flatten().filter_map(|one| one["count"].as_u64());
        counts.sum::<u64>() == 2 * BATCHES * BATCH
    });
    assert!(service.get("/metrics").contains("streamgauge_log_gaps_total 0"));
    assert_eq!(service.stop(), Some(0));
}
