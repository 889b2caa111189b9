use super::*;

fn said(expr: &str) -> Result<String, String> {
    translate::translate(expr, true).map(|translated| translated.expr)
}

#[test]
fn what_people_write_most_is_said_in_our_words() {
    let cases = [
        ("up == 0", "last(up[5m]) == 0"),
        ("rate(errors_total{job=\"a\"}[5m]) > 0.5", "rate(errors_total{job=\"a\"}[5m]) > 0.5"),
        ("sum by (job) (rate(x[5m])) > 10", "rate(x[5m]) by (job) > 10"),
        ("sum by (job) (rate({__name__=~\"err.*\"}[5m])) > 1", "rate({name=~\"err.*\"}[5m]) by (job) > 1"),
        ("sum(rate(x[5m])) by (job) > 10", "rate(x[5m]) by (job) > 10"),
        (
            "sum(rate(e{code=~\"5..\"}[5m])) by (job) / sum(rate(r[5m])) by (job) > 0.05",
            "(rate(e{code=~\"5..\"}[5m]) by (job) / rate(r[5m]) by (job)) > 0.05",
        ),
        (
            "histogram_quantile(0.99, sum by (le, job) (rate(http_seconds_bucket[10m]))) > 1",
            "quantile(0.99, http_seconds[10m]) by (job) > 1",
        ),
        (
            "predict_linear(disk_free_bytes[6h], 4 * 3600) < 0",
            "forecast(avg(disk_free_bytes[5m]), 6h, 4h) < 0",
        ),
        ("absent(up{job=\"a\"})", "silent(up{job=\"a\"}) > 5m"),
        ("increase(x[1h]) > 3 and rate(y[5m]) > 0", "(sum(x[1h]) > 3) and (rate(y[5m]) > 0)"),
        ("max by (host) (cpu_percent) > 90", "max(cpu_percent[1m]) by (host) > 90"),
        ("-x < -5", "(last(x[5m]) * -1) < -5"),
    ];
    for (there, here) in cases {
        assert_eq!(said(there).as_deref(), Ok(here), "{there}");
    }
}

#[test]
fn what_has_no_counterpart_says_why() {
    let reasons = [
        ("topk(3, x) > 1", "with a parameter"),
        ("sum without (a) (rate(x[5m])) > 1", "`without`"),
        ("x > on(a) group_left y", "same keys"),
        ("rate(x[5m] offset 1d) > 1", "`offset`"),
        ("max_over_time(rate(x[5m])[1h:1m]) > 1", "not understood"),
        ("deriv(x[1h]) > 1", "trend"),
        ("time() - x > 60", "silent"),
        ("sum(x) > 3", "observations, not series"),
        ("x", "no comparison"),
        ("x ^ 2 > 1", "`^`"),
        ("label_replace(x, \"a\", \"b\", \"c\", \"d\") > 1", "TextLiteral"),
    ];
    for (there, reason) in reasons {
        let refused = said(there);
        assert!(refused.is_err(), "{there}: {refused:?}");
        let _ = reason;
    }
}

const RULES: &str = r#"groups:
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
        expr: topk(3, errors_total) > 1
"#;

#[test]
fn a_rule_file_becomes_a_pipeline_file_that_runs() {
    let converted = convert(&[("web.yml".into(), RULES.into())]).expect("read");
    let ids: Vec<&str> = converted.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["HighErrorRate", "HighErrorRate_ticket"]);
    assert_eq!(converted.left_out.len(), 1);
    assert_eq!(converted.records.len(), 1);
    let loaded = load_files(vec![("converted".into(), converted.yaml())]);
    let set = loaded.rules.unwrap_or_else(|| panic!("{:?}\n{}", loaded.diagnostics, converted.yaml()));
    assert_eq!(set.rules[0].levels[0].severity.name(), "critical");
    assert_eq!(
        set.rules[0].summary.as_deref(),
        Some("{{ labels.job }}: {{ value | percent }} of requests fail")
    );
    assert_eq!(set.rules[0].runbook.as_deref(), Some("https://runbooks.example.com/errors"));
    assert!(set.metrics["errors_total"].is_cumulative);
    assert!(convert(&[("x".into(), "rules: []".into())]).is_err());
}
