//! Conversions that depend on more than one expression.

use super::*;
use crate::core::rule::OnUnknown;

const WEB: &str = r#"groups:
  - name: web
    rules:
      - record: job:errors:ratio
        expr: sum(rate(errors_total[5m])) by (job) / sum(rate(requests_total[5m])) by (job)
      - alert: HighErrorRate
        expr: sum(rate(errors_total[5m])) by (job) / sum(rate(requests_total[5m])) by (job) > 0.05
        for: 2m
        labels: { severity: page, team: web }
        annotations:
          summary: '{{ $labels.job }}: {{ $value | humanizePercentage }} of requests fail'
          runbook_url: https://runbooks.example.com/errors
      - alert: HighErrorRate
        expr: sum(rate(errors_total[5m])) by (job) > 100
        labels: { severity: ticket }
      - alert: Fancy
        expr: topk(3, errors) > 1
"#;

#[test]
fn a_rule_file_becomes_a_pipeline_file_that_runs() {
    let converted = one(WEB);
    let ids: Vec<&str> = converted.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["HighErrorRate", "HighErrorRate_ticket"]);
    assert_eq!(reasons(&converted), ["Fancy: `topk` with a parameter has no counterpart"]);
    assert_eq!(
        converted.left_out[0].to_string(),
        "f.yml: web: Fancy: `topk` with a parameter has no counterpart"
    );
    assert_eq!(
        converted.summary(),
        "alerts: 2 converted (2 noted), 1 left out; records: 1 converted (1 noted), 0 left out"
    );
    let loaded = load_files(vec![("converted".into(), converted.yaml())]);
    let set = loaded.rules.unwrap_or_else(|| panic!("{:?}\n{}", loaded.diagnostics, converted.yaml()));
    assert_eq!(set.rules[0].levels[0].severity.name(), "critical");
    assert_eq!(
        set.rules[0].summary.as_deref(),
        Some("{{ labels.job }}: {{ value | percent }} of requests fail")
    );
    assert_eq!(set.rules[0].runbook.as_deref(), Some("https://runbooks.example.com/errors"));
    assert_eq!(set.rules[0].on_unknown, OnUnknown::ClearAfter(crate::core::Span::ZERO));
    assert!(set.metrics["errors_total"].is_cumulative);
    assert!(convert(&[("x".into(), "rules: []".into())]).is_err());
}

#[test]
fn a_record_of_nothing_has_no_value() {
    let converted = one(&file(&[
        "{ record: a, expr: 'sum by (j) (rate(e[5m])) / sum by (j) (rate(r[5m]))' }",
        "{ record: b, expr: 'rate(r[5m])' }",
        "{ record: c, expr: 'max by (j) (q)' }",
        "{ record: d, expr: 'sum by (j) (rate(e[5m])) / (sum by (j) (rate(r[5m])) + sum by (j) (rate(s[5m])))' }",
    ]));
    let found: Vec<&str> = converted.records.iter().map(|record| record.said.expr.as_str()).collect();
    let guarded = |name: &str| format!("(rate({name}[5m]) by (j) / min(1, count({name}[5m]) by (j)))");
    let wanted = [
        format!("({} / rate(r[5m]) by (j))", guarded("e")),
        "(rate(r[5m]) / min(1, count(r[5m])))".to_string(),
        "max(q[1m]) by (j)".to_string(),
        format!("({} / ({} + {}))", guarded("e"), guarded("r"), guarded("s")),
    ];
    assert_eq!(found, wanted);
    assert_eq!(reasons(&converted), Vec::<String>::new());
}

#[test]
fn a_counter_is_one_in_all_files() {
    let gauge = file(&[&alert_of("restarts > 5")]);
    let rate = file(&[&alert_of("rate(restarts[5m]) > 9")]);
    assert_eq!(exprs(&one(&gauge)), ["last(restarts[5m]) > 5"]);
    for files in [[&gauge, &rate], [&rate, &gauge]] {
        let files: Vec<(String, String)> = files.map(|text| ("f.yml".to_string(), text.clone())).into();
        let both = convert(&files).expect("read");
        assert_eq!(exprs(&both), ["rate(restarts[5m]) > 9"]);
        assert!(reasons(&both)[0].contains("`restarts` is a counter"), "{:?}", reasons(&both));
    }
}

#[test]
fn one_name_is_one_expression() {
    let labelled = one(&file(&[
        "{ record: r, expr: 'sum by (job) (rate(a_total[5m]))', labels: { k: a } }",
        "{ record: r, expr: 'sum by (job) (rate(b_total[5m]))', labels: { k: b } }",
        &alert_of("r{k=\"a\"} > 5"),
    ]));
    let why = "its `labels` have no counterpart: a recorded series has the labels of its key";
    let wanted =
        [format!("r: {why}"), format!("r: {why}"), format!("a: it reads `r`, which is left out: {why}")];
    assert_eq!(reasons(&labelled), wanted);
    let differing = one(&file(&["{ record: r, expr: 'max(a)' }", "{ record: r, expr: 'max(b)' }"]));
    assert_eq!(differing.left_out.len(), 2, "{:?}", reasons(&differing));
    let same = one(&file(&["{ record: r, expr: 'max(a)' }", "{ record: r, expr: 'max(a)' }"]));
    assert_eq!((same.records.len(), same.left_out.len(), same.notes.len()), (1, 0, 2), "{:?}", notes(&same));
    let lost =
        one(&file(&["{ record: r, expr: 'max(a' }", "{ record: r, expr: 'max(b)' }", &alert_of("r > 1")]));
    assert_eq!((lost.records.len(), lost.left_out.len()), (0, 3), "{:?}", reasons(&lost));
}

#[test]
fn what_reads_a_record_that_is_left_out_is_left_out_too() {
    let converted = one(&file(&[
        "{ record: c, expr: 'max by (job) (b)' }",
        "{ record: b, expr: 'max by (job, i) (job:r:rate)' }",
        "{ record: 'job:r:rate', expr: 'sum without (i) (rate(r_total[5m]))' }",
        "{ record: fine, expr: 'max by (job) (q)' }",
        &alert_of("c > 5"),
        &alert_of("fine > 5"),
        "{ record: x, expr: 'max(y)' }",
        "{ record: y, expr: 'max(x)' }",
        "{ record: z, expr: 'max(z)' }",
    ]));
    let why = "`without` has no counterpart; name the labels with `by`";
    let cycle = "it reads itself, or records that do";
    let wanted = [
        format!("job:r:rate: {why}"),
        format!("b: it reads `job:r:rate`, which is left out: {why}"),
        format!("c: it reads `b`, which is left out: {why}"),
        format!("x: {cycle}"),
        format!("y: {cycle}"),
        format!("z: {cycle}"),
        format!("a: it reads `c`, which is left out: {why}"),
    ];
    assert_eq!(reasons(&converted), wanted);
    assert_eq!(exprs(&converted), ["last(fine[1m]) > 5"]);
}

#[test]
fn a_recorded_series_is_read_by_what_does_not_weigh_it() {
    let of = |expr: &str| one(&file(&["{ record: r, expr: 'max by (job) (q)' }", &alert_of(expr)]));
    let cases = [
        ("r > 5", "last(r[1m]) > 5"),
        ("max(r) > 5", "max(r[1m]) by () > 5"),
        ("max_over_time(r[5m]) > 5", "max(r[5m]) > 5"),
        ("absent(r)", "count(r[1m]) by () == 0"),
    ];
    for (there, here) in cases {
        let converted = of(there);
        assert_eq!(exprs(&converted), [here], "{:?}", reasons(&converted));
    }
    let refused = ["avg(r) > 5", "avg_over_time(r[5m]) > 5", "rate(r[5m]) > 5", "max_over_time(r[30s]) > 5"];
    for there in refused {
        assert_eq!(of(there).left_out.len(), 1, "{there}");
    }
    // A series that no rule in these files records may be sent by a producer.
    let elsewhere = one(&file(&[&alert_of("job:x:sum > 5")]));
    assert!(notes(&elsewhere)[0].contains("recorded in none of these files"), "{:?}", notes(&elsewhere));
}

#[test]
fn a_record_is_never_converted_by_its_name() {
    let of = |record: &str, expr: &str| one(&file(&[&format!("{{ record: {record}, expr: '{expr}' }}")]));
    let ratio = "100 * max by (a) (x_bytes) / max by (a) (y_bytes)";
    assert_eq!(of("cpu", ratio).records.len(), 1);
    let percent = of("cpu_percent", ratio);
    assert!(reasons(&percent)[0].contains("ratio by what it reads and percent by its name"), "{percent:?}");
    assert_eq!(of("x_seconds", "max by (a) (y_ms) / 1000").left_out.len(), 1);
}

#[test]
fn labels_stay_what_they_are_or_the_rule_is_left_out() {
    let of = |expr: &str, labels: &str| {
        one(&file(&[&format!("{{ alert: a, expr: '{expr}', labels: {{ {labels} }} }}")]))
    };
    let plain = of("q > 1", "page: yes, slo: true, num: 010, ver: 1.10, severity: ticket");
    let labels: Vec<(&str, &str)> =
        plain.rules[0].labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(labels, [("num", "010"), ("page", "yes"), ("slo", "true"), ("ver", "1.10")]);
    assert!(
        plain.yaml().contains(r#"labels: {"num":"010","page":"yes","slo":"true","ver":"1.10"}"#),
        "{plain:?}"
    );
    assert_eq!(notes(&plain), ["a: severity `ticket` is `warning` here"]);
    let refused = [
        ("q > 1", "team: \"{{ $labels.ns }}\"", "a template"),
        ("q > 1", "severity: \"{{ $labels.ns }}\"", "a template"),
        ("q > 1", "source: x", "label `source`"),
        ("max by (job) (q) > 1", "job: b", "replaces that of the series"),
        ("max by (job) (q) > 1", "job: \"\"", "is empty, which removes"),
        ("q{job=\"a\"} > 1", "job: b", "replaces that of the series"),
    ];
    for (expr, labels, reason) in refused {
        let converted = of(expr, labels);
        assert!(reasons(&converted)[0].contains(reason), "{expr}: {:?}", reasons(&converted));
    }
    for labels in ["job: \"\"", "n: null"] {
        let noted = of("q > 1", labels);
        assert!(notes(&noted)[0].contains("is empty, which removes"), "{:?}", notes(&noted));
    }
    for (expr, labels) in [
        ("max by (i) (q) > 1", "job: \"\""),
        ("q{job=\"a\"} > 1", "job: a"),
        ("sum by (i) (rate(q{job=\"a\"}[5m])) > 1", "job: b"),
    ] {
        assert_eq!(of(expr, labels).rules.len(), 1, "{expr}");
    }
}

#[test]
fn what_is_absent_is_declared_and_has_its_labels() {
    let converted = one(&file(&[
        "{ alert: a, expr: 'absent(up{job=\"a\",i=\"\"})', labels: { team: x } }",
        "{ alert: b, expr: 'absent(up{job=\"a\"})', labels: { job: z } }",
    ]));
    assert!(
        converted
            .yaml()
            .contains("declare:\n  - { source: absent, name: \"up\", labels: {\"job\":\"a\"} }\nrules:")
    );
    assert_eq!(converted.rules[0].labels["job"], "a");
    assert_eq!(converted.rules[1].labels["job"], "z");
}

#[test]
fn an_alert_lasts_as_long_as_it_would_there() {
    let of = |rest: &str| {
        let converted = one(&file(&[&format!("{{ alert: a, {rest} }}")]));
        converted.rules[0].fields.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
    };
    let cases = [
        ("expr: q > 1", vec!["severity: warning", "on_unknown: clear_after 0s"]),
        ("expr: max(q) > 1", vec!["severity: warning", "on_unknown: clear_after 4m"]),
        (
            "expr: q > 1, for: 1h30m, keep_firing_for: 600s",
            vec![
                "for: \"1h30m\"",
                "keep_firing_for: \"10m\"",
                "severity: warning",
                "on_unknown: clear_after 10m",
            ],
        ),
    ];
    for (rest, fields) in cases {
        assert_eq!(of(rest), fields, "{rest}");
    }
}

#[test]
fn texts_are_said_or_their_loss_is() {
    let annotations = r#"annotations: { summary: "{{ with query }}", description: "{{ $labels.a }}: {{ $value }}", runbook_url: "{{ $labels.a }}", dashboard: d }"#;
    let converted = one(&file(&[&format!("{{ alert: 'Two words', expr: q > 1, {annotations} }}")]));
    let summary = converted.rules[0].fields.iter().find(|(name, _)| *name == "summary");
    assert_eq!(summary.map(|(_, text)| text.as_str()), Some(r#""{{ labels.a }}: {{ value }}""#));
    let wanted = [
        "Two words: its `summary` is left out: `{{ with query }}` has no counterpart",
        "Two words: its `runbook_url` is left out: here it is a fixed text",
        "Two words: annotations left out: dashboard; a rule has one summary and one runbook",
        "Two words: it is called `Two_words` here",
    ];
    assert_eq!(notes(&converted), wanted);
}
