//! The commands for developing rules, as processes: test, convert, backtest.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn run(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.current_dir(dir).args(words).env_remove("NATS_URL").env_remove("REDIS_URL");
    command.output().expect("runs")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().expect("below")).expect("writable");
    std::fs::write(path, text).expect("writable");
}

const LIFE: &str = r#"version: 1
escalations:
  standard:
    - { after: 0m, notify: [log] }
    - { after: 10m, notify: [mail], repeat: 20m }
inhibit:
  - { source: ['rule="down"'], target: ['rule="slow"'], equal: [source] }
rules:
  - { id: slow, expr: 'max(latency_ms[1m]) by (source) > 100ms', severity: warning, escalation: standard }
  - { id: down, expr: 'max(down[1m]) by (source) > 0', severity: critical }
  - { id: trial, expr: 'max(latency_ms[1m]) by (source) > 50ms', severity: info, shadow: true }
tests:
  - name: an alert from its first word to its last
    interval: 10s
    input_series:
      - { series: 'latency_ms{source="a"}', values: '10x5 200x300 10x20' }
    say:
      - { at: 15m, ack: slow, key: { source: a }, by: ann, why: on it, until: 20m }
      - { at: 25m, silence: { match: ['rule="slow"'], duration: 5m, id: s1 } }
      - { at: 35m, maintenance: { match: ['source="a"'], start: '2026-11-01T00:35:00Z', end: '2026-11-01T00:40:00Z', id: m1 } }
    expect:
      - { at: 30s, rule: slow, state: none }
      - { at: 2m, rule: slow, state: firing, severity: warning, escalation_level: 1, notify: [log] }
      - { at: 16m, rule: slow, state: acknowledged, acknowledged_by: ann }
      - { at: 26m, rule: slow, suppressed_by: silence }
      - { at: 36m, rule: slow, suppressed_by: m1 }
      - { at: 41m, rule: slow, suppressed_by: none, state: escalated }
      - { at: 2m, rule: trial, state: firing }
    transitions:
      - '1m1s slow {source=a} firing warning'
      - '11m1s slow {source=a} escalated warning step 2'
      - '15m slow {source=a} acknowledged warning'
      - '20m slow {source=a} unacknowledged warning'
      - '25m1s slow {source=a} suppressed warning by silence s1'
      - '30m slow {source=a} unsuppressed warning'
      - '35m1s slow {source=a} suppressed warning by maintenance m1'
      - '36m1s slow {source=a} escalated warning step 3 by maintenance m1'
      - '40m slow {source=a} unsuppressed warning'
      - '52m1s slow {source=a} resolved warning'
  - name: the cause keeps its consequence quiet
    input_series:
      - { series: 'latency_ms{source="a"}', values: '200x12' }
      - { series: 'down{source="a"}', values: '_x3 1x9' }
    expect:
      - { at: 20s, rule: slow, suppressed_by: none }
      - { at: 1m, rule: slow, suppressed_by: inhibition }
  - name: what comes late changes no alert, and a clock ahead is no event of now
    interval: 1m
    input_series:
      - { series: 'latency_ms{source="a"}', values: '10 200@+3m 10 10 10 stale' }
      - { series: 'latency_ms{source="b"}', values: '10 200@-30s 10' }
    transitions:
      - '1m1s slow {source=b} firing warning'
      - '2m1s slow {source=b} resolved warning'
"#;

#[test]
fn a_test_case_says_what_people_do_and_shows_what_differs() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "life/life.yaml", LIFE);
    let output = run(dir.path(), &["test", "life"]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("3 passed, 0 failed") && told(&output).contains(" ms)"));
    let broken = LIFE.replace("acknowledged_by: ann", "acknowledged_by: bob").replace(
        "'20m slow {source=a} unacknowledged warning'",
        "'21m slow {source=a} unacknowledged warning'",
    );
    write(dir.path(), "broken/life.yaml", &broken);
    let output = run(dir.path(), &["test", "broken"]);
    assert_eq!(output.status.code(), Some(1));
    let text = told(&output);
    assert!(text.contains("acknowledged_by: expected bob, found ann"), "{text}");
    assert!(text.contains("- 21m slow {source=a} unacknowledged"), "{text}");
    assert!(text.contains("+ 20m slow {source=a} unacknowledged"), "{text}");
}

const PROMETHEUS: &str = r#"groups:
  - name: web
    rules:
      - alert: InstanceDown
        expr: up == 0
        for: 5m
        labels: { severity: page }
        annotations: { summary: 'Instance {{ $labels.instance }} down' }
      - alert: ErrorRate
        expr: sum by (job) (rate(errors_total[5m])) > 1
        labels: { severity: ticket }
      - alert: Fancy
        expr: topk(3, errors_total) > 1
"#;

const PROMTOOL: &str = r#"rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'up{job="prometheus", instance="localhost:9090"}'
        values: '1 0x10 1x5'
      - series: 'errors_total{job="a"}'
        values: '0+120x15'
    alert_rule_test:
      - eval_time: 4m
        alertname: InstanceDown
        exp_alerts: []
      - eval_time: 10m
        alertname: InstanceDown
        exp_alerts:
          - exp_labels: { severity: page, instance: 'localhost:9090', job: prometheus }
      - eval_time: 12m
        alertname: InstanceDown
      - eval_time: 10m
        alertname: ErrorRate
        exp_alerts: [{ exp_labels: { severity: ticket, job: a } }]
    promql_expr_test:
      - { expr: up, eval_time: 1m, exp_samples: [] }
"#;

#[test]
fn rules_of_prometheus_and_their_tests_run() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "alerts.yml", PROMETHEUS);
    write(dir.path(), "alerts_test.yml", PROMTOOL);
    let output = run(dir.path(), &["convert", "prometheus-rules", "alerts.yml", "--out", "converted.yaml"]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(
        told(&output).contains(
            "alerts: 2 converted (2 noted), 1 left out; records: 0 converted (0 noted), 0 left out"
        ),
        "{}",
        told(&output)
    );
    let strict = run(dir.path(), &["convert", "prometheus-rules", "alerts.yml", "--strict"]);
    assert_eq!(strict.status.code(), Some(1));
    assert!(run(dir.path(), &["check", "converted.yaml"]).status.success());
    let output = run(dir.path(), &["test", "alerts_test.yml"]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("skipped   1 promql_expr_test"), "{}", told(&output));
    write(dir.path(), "alerts_test.yml", &PROMTOOL.replace("job: prometheus }", "job: other }"));
    let output = run(dir.path(), &["test", "alerts_test.yml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("\"job\":\"other\""), "{}", told(&output));
}

#[test]
fn a_backtest_counts_and_compares() {
    let dir = tempfile::tempdir().expect("a directory");
    let rule = |limit: u32, more: &str| {
        format!(
            "rules:\n  - {{ id: high, expr: 'max(x[1m]) by (source) > {limit}', severity: critical }}\n{more}"
        )
    };
    // Alerts of a shadow rule are counted too; this one also fires at the lower peak.
    let shadow = "  - { id: trial, expr: 'max(x[1m]) by (source) > 60', severity: info, shadow: true }\n";
    write(dir.path(), "old/rules.yaml", &rule(100, ""));
    write(dir.path(), "new/rules.yaml", &rule(50, shadow));
    // Twelve hours, one value a minute: two peaks of different height, and one before the selected time
    // range.
    let line = |minute: i64| {
        let value = match minute {
            5..=9 => 500,
            100..=109 => 200,
            300..=309 => 70,
            _ => 10,
        };
        let time = 1_793_491_200_000 + minute * 60_000;
        format!(r#"{{"type":"metric","time":{time},"source":"a","name":"x","value":{value}}}"#)
    };
    let lines: Vec<String> = (0..720).map(line).collect();
    write(dir.path(), "log.ndjson", &lines.join("\n"));
    let words = ["backtest", "log.ndjson", "--from", "2026-11-01T01:00:00Z", "--compare", "old", "new"];
    let output = run(dir.path(), &words);
    let text = told(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("3 gained, 0 lost, 1 in both (0 sooner, 0 later)"), "{text}");
    assert!(text.contains("+ 2026-11-01T05:00:01Z critical high {\"source\":\"a\"} for 10m"), "{text}");
    let output = run(dir.path(), &[&words[..], &["--json"]].concat());
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["sets"]["old"]["alerts"], 1);
    assert_eq!(found["sets"]["new"]["critical"], 2);
    assert_eq!(found["comparison"]["gained"].as_array().map(Vec::len), Some(3));
    let pages = found["sets"]["new"]["pages_a_day"].as_f64().expect("a number");
    assert!((pages - 2.0 / (659.0 / 1_440.0)).abs() < 0.01, "{pages}");
    let nothing = run(dir.path(), &["backtest"]);
    assert_eq!(nothing.status.code(), Some(2));
}

/// Goal: a user who sends the legs of a matrix under one stage learns what to change, and the conservation
/// law of event counts is reported with all its terms. Method: two legs with numbers as ids, and an end
/// that arrives two hours late.
#[test]
fn a_refused_leg_is_told_where_to_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let leg = |os: &str| {
        format!(
            r#"{{"type":"stage","time":"2026-11-01T02:00:00Z","pipeline":"p","run":7,"stage":"test","status":"started","labels":{{"os":"{os}"}}}}"#
        )
    };
    let late = r#"{"type":"run","time":"2026-11-01T00:00:00Z","pipeline":"p","run":6,"status":"failed"}"#;
    write(dir.path(), "e.ndjson", &format!("{}\n{}\n{late}\n", leg("linux"), leg("mac")));
    let output = run(dir.path(), &["replay", "e.ndjson", "--json"]);
    let told = told(&output);
    assert!(told.contains("line 2: refused, conflict") && told.contains("or into `attempt`"), "{told}");
    let line = told.lines().find(|line| line.starts_with('{')).expect("a summary");
    let summary: Value = serde_json::from_str(line).expect("JSON");
    let events = &summary["events"];
    let counts = ["received", "recorded", "late_state"].map(|name| events[name].as_u64());
    assert_eq!(counts, [Some(3), Some(1), Some(1)]);
    assert_eq!(events["refused"]["conflict"], 1);
}

#[test]
fn check_refuses_what_says_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    write(
        dir.path(),
        "log.ndjson",
        r#"{"type":"metric","time":1793491200000,"source":"a","name":"x","value":1}"#,
    );
    std::fs::create_dir(dir.path().join("none")).expect("writable");
    write(dir.path(), "untested/r.yaml", "version: 1\nrules: []\n");
    let output = run(dir.path(), &["test", "untested"]);
    assert!(output.status.code() == Some(1) && told(&output).contains("no test here"), "{}", told(&output));
    let fixed = "version: 1\nrules:\n  - { id: a, expr: 'max(x[1m]) > 1', severity: info, runbook: 'https://w/{{ labels.b }}' }\n";
    write(dir.path(), "fixed/r.yaml", fixed);
    let output = run(dir.path(), &["check", "fixed"]);
    assert!(output.status.code() == Some(1) && told(&output).contains("fixed text"), "{}", told(&output));
    let output = run(dir.path(), &["check", "none"]);
    assert!(
        output.status.code() == Some(1) && told(&output).contains("no rule file here"),
        "{}",
        told(&output)
    );
    let output = run(dir.path(), &["check", "none", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), found["diagnostics"].as_array().map(Vec::len)), (Some(1), Some(1)));
    assert!(run(dir.path(), &["replay", "log.ndjson", "--pipelines", "none"]).status.success());
    let keyed = "rules: [{ id: a, expr: 'max(m[1m]) by (host) > 5', severity: info }]
tests:
  - name: t
    input_series: [{ series: 'm{host=\"h\"}', values: '9x5' }]
    expect: [{ at: 30s, rule: a, key: { hosts: h }, state: none }]
";
    write(dir.path(), "keyed/r.yaml", keyed);
    let output = run(dir.path(), &["check", "keyed"]);
    assert!(
        output.status.code() == Some(1) && told(&output).contains("did you mean `host`?"),
        "{}",
        told(&output)
    );
    write(dir.path(), "mixed/a.yaml", "rules: [{ id: a, expr: 'nonsense(', severity: info }]\n");
    std::fs::write(dir.path().join("mixed/b.yaml"), b"# caf\xe9\nrules: []\n").expect("writable");
    let output = run(dir.path(), &["check", "mixed", "nowhere", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let files: Vec<_> = found["diagnostics"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["file"].as_str())
        .collect();
    assert_eq!((output.status.code(), files), (Some(1), vec!["mixed/b.yaml", "mixed/a.yaml", "nowhere"]));
    for text in ["", "\n\n", "# later\n", "---\n"] {
        write(dir.path(), "empty/r.yaml", text);
        let output = run(dir.path(), &["check", "empty"]);
        let said = told(&output);
        assert!(output.status.code() == Some(1) && said.contains("rules: []"), "{text:?}: {said}");
        for words in
            [&["replay", "log.ndjson"][..], &["run", "--data-dir", "data", "--listen", "127.0.0.1:0"]]
        {
            let output = run(dir.path(), &[words, &["--pipelines", "empty"]].concat());
            assert_eq!(output.status.code(), Some(78), "{words:?}: {}", told(&output));
        }
    }
    write(dir.path(), "empty/r.yaml", "version: 1\n");
    let output = run(dir.path(), &["check", "empty"]);
    assert!(
        output.status.success() && told(&output).contains("nothing but its version"),
        "{}",
        told(&output)
    );
    assert!(run(dir.path(), &["replay", "log.ndjson", "--pipelines", "empty"]).status.success());
    write(dir.path(), "stated/r.yaml", "rules: []\n");
    // A lock file of an editor, which is a dangling link.
    std::os::unix::fs::symlink("nowhere", dir.path().join("stated/.#r.yaml")).expect("writable");
    assert!(run(dir.path(), &["check", "stated"]).status.success());
}

/// The output for a file that is wrong everywhere is bounded and comes soon.
#[test]
fn check_is_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let many = |count: usize, one: &dyn Fn(usize) -> String, between: &str| {
        (0..count).map(one).collect::<Vec<_>>().join(between)
    };
    let rule = |expr: String| format!("rules:\n  - id: r\n    expr: '{expr}'\n    severity: info\n");
    let chain = many(700, &|_| "count(x[1m]) > 1".into(), " or ");
    let texts = [
        ("keys on one line", format!("{{{}}}", many(40_000, &|n| format!("k{n}: 1"), ", "))),
        ("a chain of or", rule(chain)),
        ("nested parentheses", rule(format!("{}1{} > 2", "(".repeat(4_000), ")".repeat(4_000)))),
        ("nested lists", format!("rules: {}{}", "[".repeat(100_000), "]".repeat(100_000))),
        ("rules without an id", format!("rules: [{}]", many(50_000, &|_| "{}".into(), ", "))),
        (
            "a long name",
            format!(
                "rules:\n  - id: r\n    severity: {}\n    expr: 'count(x[1m]) > 1'\n",
                "x".repeat(1 << 20)
            ),
        ),
        (
            "one rule many times",
            format!(
                "rules:\n{}",
                many(5_000, &|_| "  - { id: r, expr: 'count(x[1m]) > 1', severity: info }\n".into(), "")
            ),
        ),
    ];
    for (what, text) in texts {
        write(dir.path(), "r.yaml", &text);
        let begun = std::time::Instant::now();
        let output = run(dir.path(), &["check", "r.yaml"]);
        let said = told(&output);
        assert_eq!(output.status.code(), Some(1), "{what}: {}", said.get(..500).unwrap_or(&said));
        assert!(said.len() < 200_000, "{what}: {} bytes of answer", said.len());
        assert!(begun.elapsed().as_secs() < 20, "{what}: {:?}", begun.elapsed());
    }
}

/// Label values, ids and names keep their written text, whatever type YAML assigns to them.
#[test]
fn texts_are_as_they_are_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = r#"version: 1
rules:
  - { id: 010, expr: 'max(m[1m]) by (source) > 5', severity: warning, labels: { ver: 1.10, num: 010, sha: 1e5, hex: 0x1F, page: yes, y: on, 1: ~ } }
"#;
    write(dir.path(), "p/r.yaml", rules);
    let event = r#"{"type":"metric","time":1793491200000,"source":"db","name":"m","value":99}"#;
    let later = event.replace("1793491200000", "1793491201000");
    write(dir.path(), "e.ndjson", &format!("{event}\n{later}\n"));
    let output =
        run(dir.path(), &["replay", "e.ndjson", "--pipelines", "p", "--alerts-out", "alerts.ndjson"]);
    assert!(output.status.success(), "{}", told(&output));
    let alerts = std::fs::read_to_string(dir.path().join("alerts.ndjson")).expect("written");
    let alert: Value = serde_json::from_str(alerts.lines().next().expect("an alert")).expect("JSON");
    assert_eq!(alert["rule"], "010");
    let expected = serde_json::json!({"ver": "1.10", "num": "010", "sha": "1e5", "hex": "0x1F", "page": "yes", "y": "on", "1": "~"});
    assert_eq!(alert["labels"], expected);
}
