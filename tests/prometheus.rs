//! Prometheus rule files and their promtool suites, as processes: a converted rule keeps its meaning, or it
//! is left out and its test fails.

use std::path::Path;
use std::process::{Command, Output};

fn run(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.current_dir(dir).args(words).env_remove("NATS_URL").env_remove("REDIS_URL");
    command.output().expect("runs")
}

/// Returns whether `streamgauge test` passed a suite over these rules, and its output.
fn tested(rules: &str, tests: &str) -> (bool, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let rules = format!("groups:\n- name: g\n  rules:\n{rules}");
    let suite = format!("rule_files: [rules.yml]\nevaluation_interval: 1m\ntests:\n{tests}");
    std::fs::write(dir.path().join("rules.yml"), rules).expect("writable");
    std::fs::write(dir.path().join("suite.yml"), suite).expect("writable");
    let output = run(dir.path(), &["test", "suite.yml"]);
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn assert_passes(rules: &str, tests: &str) {
    let (is_good, told) = tested(rules, tests);
    assert!(is_good, "{told}");
    // A skipped test has not passed.
    assert!(!told.contains("skip"), "{told}");
}

fn assert_fails(rules: &str, tests: &str, reason: &str) {
    let (is_good, told) = tested(rules, tests);
    assert!(!is_good && told.contains(reason), "{told}");
}

#[test]
fn absent_is_about_all_series_together() {
    assert_passes(
        "  - { alert: x, expr: 'absent(up{job=\"a\"})' }\n  - { alert: never, expr: absent(nobody) }\n",
        r#"
- interval: 1m
  input_series:
  - { series: 'up{job="a",instance="1"}', values: '1x20 _x20 1x9' }
  - { series: 'up{job="a",instance="2"}', values: '1x4 _x46' }
  alert_rule_test:
  - { eval_time: 15m, alertname: x, exp_alerts: [] }
  - { eval_time: 30m, alertname: x, exp_alerts: [{ exp_labels: { job: a } }] }
  - { eval_time: 45m, alertname: x, exp_alerts: [] }
  - { eval_time: 0m, alertname: never, exp_alerts: [{}] }
"#,
    );
}

#[test]
fn what_is_gone_or_never_was_does_not_fire() {
    assert_passes(
        "  - { alert: x, expr: 'rate(req_total[5m]) == 0' }\n  - { alert: few, expr: 'count_over_time(beat[5m]) < 3' }\n  - { alert: low, expr: 'sum by (j) (rate(ok_total[5m])) / sum by (j) (rate(all_total[5m])) < 0.9' }\n",
        r#"
- interval: 1m
  input_series:
  - { series: 'req_total{pod="a"}', values: '0+10x5 _x40' }
  - { series: 'req_total{pod="b"}', values: '0+10x40' }
  - { series: 'req_total{pod="c"}', values: '5x40' }
  - { series: 'beat{pod="a"}', values: '1x5 _x40' }
  - { series: 'all_total{j="a"}', values: '0+10x40' }
  - { series: 'all_total{j="b"}', values: '0+10x40' }
  - { series: 'ok_total{j="b"}', values: '0+5x40' }
  alert_rule_test:
  - { eval_time: 20m, alertname: x, exp_alerts: [{ exp_labels: { pod: c } }] }
  - { eval_time: 20m, alertname: few, exp_alerts: [] }
  - { eval_time: 20m, alertname: low, exp_alerts: [{ exp_labels: { j: b } }] }
"#,
    );
}

#[test]
fn unless_without_data_is_no() {
    assert_passes(
        "  - { alert: x, expr: 'max by (j) (q) > 5 unless max by (j) (m) == 1' }\n",
        r#"
- interval: 1m
  input_series:
  - { series: 'q{j="a"}', values: '60x40' }
  - { series: 'q{j="b"}', values: '60x40' }
  - { series: 'm{j="b"}', values: '1x20 _x20' }
  alert_rule_test:
  - { eval_time: 10m, alertname: x, exp_alerts: [{ exp_labels: { j: a } }] }
  - { eval_time: 30m, alertname: x, exp_alerts: [{ exp_labels: { j: a } }, { exp_labels: { j: b } }] }
"#,
    );
}

#[test]
fn a_stale_marker_ends_a_series_and_a_gap_does_not() {
    assert_passes(
        "  - { alert: x, expr: q > 5 }\n  - { alert: most, expr: 'max by (g) (r) > 5' }\n  - { alert: up, expr: 'rate(c_total[5m]) > 0' }\n",
        r#"
- interval: 1m
  input_series:
  - { series: 'q{h="a"}', values: '7x8 stale' }
  - { series: 'q{h="b"}', values: '7x8 _x9' }
  - { series: 'q{h="c"}', values: '7x8 stale _x3 7x9' }
  - { series: 'r{g="a"}', values: '7x8 stale' }
  - { series: 'c_total', values: '0+1x8 stale' }
  alert_rule_test:
  - { eval_time: 8m, alertname: x, exp_alerts: [{ exp_labels: { h: a } }, { exp_labels: { h: b } }, { exp_labels: { h: c } }] }
  - { eval_time: 10m, alertname: x, exp_alerts: [{ exp_labels: { h: b } }] }
  - { eval_time: 15m, alertname: x, exp_alerts: [{ exp_labels: { h: c } }] }
  - { eval_time: 10m, alertname: most, exp_alerts: [] }
  - { eval_time: 10m, alertname: up, exp_alerts: [{}] }
  - { eval_time: 15m, alertname: up, exp_alerts: [] }
"#,
    );
}

#[test]
fn records_are_read_as_they_are_recorded() {
    assert_passes(
        "  - { record: 'j:e:rate', expr: 'sum by (j) (rate(e_total[5m]))' }\n  - { alert: low, expr: 'j:e:rate < 5' }\n",
        r#"
- interval: 1m
  input_series:
  - { series: 'e_total{j="a"}', values: '0+60x9 _x30' }
  - { series: 'e_total{j="b"}', values: '0+60x40' }
  - { series: 'e_total{j="c"}', values: '0+600x40' }
  alert_rule_test:
  - { eval_time: 8m, alertname: low, exp_alerts: [{ exp_labels: { j: a } }, { exp_labels: { j: b } }] }
  - { eval_time: 20m, alertname: low, exp_alerts: [{ exp_labels: { j: b } }] }
"#,
    );
}

#[test]
fn texts_of_labels_are_those_of_the_file() {
    assert_passes(
        "  - alert: y\n    expr: \"q\n    > 1\"\n    labels: { page: yes, slo: true, n: null, num: 010, ver: 1.10 }\n",
        r#"
- interval: 1m
  input_series: [{ series: 'q{on="off"}', values: '2x9' }]
  alert_rule_test:
  - { eval_time: 5m, alertname: y, exp_alerts: [{ exp_labels: { page: yes, slo: true, num: 010, ver: 1.10, on: off } }] }
"#,
    );
}

/// One series above five, and a test that expects no alert `x`.
const HIGH: &str = "- input_series: [{ series: 'q_total{name=\"d\"}', values: '9x9' }]\n  alert_rule_test: [{ eval_time: 5m, alertname: x, exp_alerts: [] }]\n";

#[test]
fn what_is_left_out_fails_its_test_though_nothing_is_expected() {
    let cases = [
        ("'q_total > 5'", "x was not converted: `q_total` is a counter"),
        ("'sum(q) > 5'", "x was not converted: `sum` of current values"),
        ("'q{source=\"d\"} > 5'", "x was not converted: label `source` has no counterpart"),
    ];
    for (expr, reason) in cases {
        assert_fails(&format!("  - {{ alert: x, expr: {expr} }}\n"), HIGH, reason);
    }
    assert_fails(
        "  - { record: r, expr: 'max(q)', labels: { k: a } }\n  - { alert: x, expr: r > 5 }\n",
        HIGH,
        "x was not converted: it reads `r`, which is left out: its `labels` have no counterpart",
    );
}

#[test]
fn what_cannot_be_fed_fails_its_test() {
    let of = |series: &str, values: &str| {
        format!(
            "- input_series: [{{ series: '{series}', values: '{values}' }}]\n  alert_rule_test: [{{ eval_time: 5m, alertname: x, exp_alerts: [] }}]\n"
        )
    };
    let rule = "  - { alert: x, expr: 'histogram_quantile(0.9, sum by (le) (rate(h_bucket[5m]))) > 1' }\n";
    assert_fails(rule, &of("h_bucket{le=\"1\"}", "0+1x9"), "x is not judged: it reads observations of `h`");
    for (values, reason) in [
        ("{{schema:0 sum:1 count:1 buckets:[1]}}x9", "native histograms cannot be sent"),
        ("1 NaN", "all values are finite"),
        ("1 two", "`two` is no value"),
    ] {
        assert_fails("  - { alert: x, expr: q > 1 }\n", &of("q", values), reason);
    }
}

/// A misspelt check would test nothing. Such a suite is refused, as by promtool.
#[test]
fn a_suite_with_an_unknown_field_fails() {
    let rules = "  - { alert: A, expr: 'x > 5' }\n";
    for (check, reason) in [
        ("alert_rule_test: [{ eval_time: 3m, alertname: A, exp_alert: [{}] }]", "did you mean `exp_alerts`"),
        ("alert_rule_tests: [{ eval_time: 3m, alertname: A }]", "no field `alert_rule_tests`"),
        (
            "alert_rule_test: [{ eval_time: 3m, alertname: A, exp_alerts: [{ exp_label: {}, exp_labels: { a: '1' } }] }]",
            "no field `exp_label`",
        ),
    ] {
        let series = "input_series: [{ series: 'x{a=\"1\"}', values: '9x5' }]";
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("rules.yml"), format!("groups:\n- name: g\n  rules:\n{rules}"))
            .expect("writable");
        let suite = format!("rule_files: [rules.yml]\ntests:\n- interval: 1m\n  {series}\n  {check}\n");
        std::fs::write(dir.path().join("suite.yml"), suite).expect("writable");
        let output = run(dir.path(), &["test", "suite.yml"]);
        let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(reason), "{told}");
    }
}

#[test]
fn alerts_that_are_alike_are_two() {
    assert_fails(
        "  - { alert: A, expr: 'x > 5' }\n",
        r#"
- interval: 1m
  input_series: [{ series: 'x{a="1"}', values: '9x5' }]
  alert_rule_test:
  - { eval_time: 3m, alertname: A, exp_alerts: [{ exp_labels: { a: '1' } }, { exp_labels: { a: '1' } }] }
"#,
        "fires for",
    );
}

#[test]
fn a_test_that_asks_about_no_alert_is_skipped() {
    let tests = "- promql_expr_test: [{ expr: up, eval_time: 1m, exp_samples: [] }]\n- input_series: [{ series: q, values: 2x9 }]\n  alert_rule_test: [{ eval_time: 5m, alertname: x, exp_alerts: [{ exp_annotations: { summary: a } }] }]\n";
    let (is_good, told) = tested("  - { alert: x, expr: q > 1, annotations: { summary: a } }\n", tests);
    assert!(is_good && told.contains("1 passed, 0 failed"), "{told}");
    for skipped in
        ["skipped   1 promql_expr_test", "skipped   1 exp_annotations", "test 1: it asks about no alert"]
    {
        assert!(told.contains(skipped), "{told}");
    }
}

#[test]
fn what_is_left_out_is_listed_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let resource = "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nspec:\n  groups:\n  - name: web\n    rules:\n    - { alert: Fancy, expr: 'topk(3, x) > 1' }\n    - { alert: Fine, expr: 'increase(x[1h]) > 1' }\n---\ngroups: []\n---\nkind: Service\n";
    std::fs::write(dir.path().join("rules.yml"), resource).expect("writable");
    let output = run(dir.path(), &["convert", "prometheus-rules", "rules.yml", "--out", "converted.yaml"]);
    assert!(output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    for line in [
        "note      rules.yml: a `Service` in line 12 has no rules: it is left alone\n",
        "note      rules.yml: web: Fine: `increase` is the sum of the increments, not extrapolated\n",
        "left out  rules.yml: web: Fancy: `topk` with a parameter has no counterpart\n",
        "alerts: 1 converted (1 noted), 1 left out; records: 0 converted (0 noted), 0 left out\n",
    ] {
        assert!(told.contains(line), "{told}");
    }
    assert!(run(dir.path(), &["check", "converted.yaml"]).status.success());
    let strict = run(dir.path(), &["convert", "prometheus-rules", "rules.yml", "--strict"]);
    assert_eq!(strict.status.code(), Some(1));
}

#[test]
fn a_label_called_name_is_seen_and_kept() {
    let test = |alert: &str, labels: &str| {
        format!(
            r#"
- input_series:
  - {{ series: 'unit_state{{instance="h1",name="docker.service"}}', values: '1x20' }}
  - {{ series: 'unit_state{{instance="h1",name="other.service"}}', values: '0x20' }}
  alert_rule_test:
  - {{ eval_time: 5m, alertname: {alert}, exp_alerts: [{{ exp_labels: {{ {labels} }} }}] }}
"#
        )
    };
    assert_passes(
        "  - { alert: x, expr: 'unit_state{name=\"docker.service\"} == 1' }\n",
        &test("x", "instance: h1, name: docker.service"),
    );
    assert_passes(
        "  - { alert: x, expr: 'max by (name) (unit_state) == 1' }\n",
        &test("x", "name: docker.service"),
    );
    assert_passes(
        "  - { alert: x, expr: 'unit_state == 1', annotations: { summary: '{{ $labels.name }} is up' } }\n",
        &test("x", "instance: h1, name: docker.service"),
    );
    // A label whose original name is `exported_name` keeps it.
    assert_passes(
        "  - { alert: x, expr: 'max by (exported_name) (q) == 1' }\n",
        "\n- input_series: [{ series: 'q{exported_name=\"a\"}', values: '1x20' }]\n  alert_rule_test: \
         [{ eval_time: 5m, alertname: x, exp_alerts: [{ exp_labels: { exported_name: a } }] }]\n",
    );
}
