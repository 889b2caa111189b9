//! Expressions and their conversions: the exact text, which also compiles, or the reason why there is none.

use super::*;

/// Converts an alert with this expression.
fn said(expr: &str) -> Result<String, String> {
    let converted = one(&file(&[&alert_of(expr)]));
    match (converted.rules.as_slice(), converted.left_out.as_slice()) {
        ([rule], []) => Ok(rule.said.expr.clone()),
        ([], [left_out]) => Err(left_out.text.clone()),
        other => panic!("{expr}: {other:?}"),
    }
}

fn assert_said(cases: &[(&str, &str)]) {
    for (there, here) in cases {
        assert_eq!(said(there).as_deref(), Ok(*here), "{there}");
    }
}

fn assert_refused(cases: &[(&str, &str)]) {
    for (there, reason) in cases {
        let found = said(there);
        assert!(found.as_ref().is_err_and(|found| found.contains(reason)), "{there}: {found:?}");
    }
}

#[test]
fn what_is_written_is_read() {
    assert_said(&[
        ("# why\n\nq > 1", "last(q[5m]) > 1"),
        ("q > 1# why", "last(q[5m]) > 1"),
        ("q{a=\"b #1\"} > 1", "last(q{a=\"b #1\"}[5m]) > 1"),
        ("q > 1e+9", "last(q[5m]) > 1000000000"),
        ("q{a=~`b\\d`} > 1", "last(q{a=~\"b[0-9]\"}[5m]) > 1"),
        ("q{a=~\"b[0-9]\",} > 1", "last(q{a=~\"b[0-9]\"}[5m]) > 1"),
        ("q{a='it\\'s \"x\"'} > 1", "last(q{a=\"it's \\\"x\\\"\"}[5m]) > 1"),
        ("SUM(rate(q_total[5m])) BY (job) > 1", "rate(q_total[5m]) by (job) > 1"),
        ("rate(:tf:serving:count[5m]) > 1", "rate({name=\":tf:serving:count\"}[5m]) > 1"),
        ("{__name__=\"q\"} > 1", "last(q[5m]) > 1"),
        ("q > 0x10", "last(q[5m]) > 16"),
        ("q > 010", "last(q[5m]) > 8"),
        ("q > 2 * 3 - 1", "last(q[5m]) > 5"),
        ("q < +Inf", "last(q[5m]) <= 1.7976931348623157e308"),
        ("q != NaN", "last(q[5m]) <= 1.7976931348623157e308"),
    ]);
    assert_refused(&[
        ("avg_over_time(q[1h30m]) > 1", "above 1h"),
        ("avg_over_time(q[45s]) > 1", "45s is no multiple of 10s"),
        ("q > +Inf", "never met"),
        ("q == NaN", "never met"),
        ("q >", "the end is not expected there"),
        ("q > \"a\"", "a text is no value"),
    ]);
}

#[test]
fn current_values_are_the_last_ones() {
    assert_said(&[
        ("up == 0", "last(up[5m]) == 0"),
        ("0 == up", "last(up[5m]) == 0"),
        ("5 < q", "last(q[5m]) > 5"),
        ("-q < -5", "(last(q[5m]) * -1) < -5"),
        ("abs(q) > 5", "abs(last(q[5m])) > 5"),
        ("clamp_max(q, 5) > 1", "min(last(q[5m]), 5) > 1"),
        ("clamp(q, -1, 5) > 1", "clamp(last(q[5m]), -1, 5) > 1"),
        ("max by (host) (cpu) > 90", "max(cpu[1m]) by (host) > 90"),
        ("max(max by (a, b) (q)) > 9", "max(q[1m]) by () > 9"),
        ("max by (a) (q) / max by (a) (r) > 2", "(max(q[1m]) by (a) / max(r[1m]) by (a)) > 2"),
    ]);
    assert_refused(&[
        ("x", "it is no comparison"),
        ("1 > 2", "two numbers"),
        ("sum(x) > 3", "observations, not series"),
        ("count by (a) (x) > 3", "observations, not series"),
        ("stddev by (a) (x) > 1", "observations, not series"),
        ("topk(3, x) > 1", "with a parameter"),
        ("quantile(0.9, x) > 1", "with a parameter"),
        ("count(x == 1) > 3", "`==` within a value"),
        ("max(x) - min(x) > 5", "`max` and `min` of current values do not meet"),
        ("max by (a) (x) > avg by (a) (x)", "`avg` and `max` of current values do not meet"),
        ("max(x) > 1 > 0", "`>` within a value"),
        ("vector(1)", "`vector` has no counterpart"),
    ]);
}

#[test]
fn what_is_gone_has_no_value() {
    assert_said(&[
        ("rate(x[5m]) > 0.5", "rate(x[5m]) > 0.5"),
        ("rate(x[5m]) == 0", "rate(x[5m]) == 0 and count(x[5m]) > 0"),
        ("rate(x[5m]) >= 0", "rate(x[5m]) >= 0 and count(x[5m]) > 0"),
        ("rate(x[5m]) != 3", "rate(x[5m]) != 3 and count(x[5m]) > 0"),
        ("count_over_time(x[5m]) < 3", "count(x[5m]) < 3 and count(x[5m]) > 0"),
        ("sum by (a) (rate(x[5m])) == 0", "rate(x[5m]) by (a) == 0 and count(x[5m]) by (a) > 0"),
        ("1 - rate(x[5m]) > 0.5", "(1 - rate(x[5m])) > 0.5 and count(x[5m]) > 0"),
        ("rate(x[5m]) * 60 > 5", "(rate(x[5m]) * 60) > 5"),
        ("clamp_min(rate(x[5m]), 1) > 0", "max(rate(x[5m]), 1) > 0 and count(x[5m]) > 0"),
        (
            "sum(rate(a[5m])) + sum(rate(b[5m])) > 5",
            "(rate(a[5m]) by () + rate(b[5m]) by ()) > 5 and count(a[5m]) by () > 0 and count(b[5m]) by () > 0",
        ),
        (
            "sum(rate(e{code=~\"5..\"}[5m])) by (job) / sum(rate(r[5m])) by (job) > 0.05",
            "(rate(e{code=~\"5..\"}[5m]) by (job) / rate(r[5m]) by (job)) > 0.05",
        ),
        (
            "sum(rate(ok[5m])) by (job) / sum(rate(r[5m])) by (job) < 0.9",
            "(rate(ok[5m]) by (job) / rate(r[5m]) by (job)) < 0.9 and count(ok[5m]) by (job) > 0 and count(r[5m]) by (job) > 0",
        ),
        (
            "sum by (a) (rate(x[5m])) > on (a) sum by (a) (rate(y[5m]))",
            "rate(x[5m]) by (a) > rate(y[5m]) by (a) and count(x[5m]) by (a) > 0 and count(y[5m]) by (a) > 0",
        ),
    ]);
}

#[test]
fn ranges_are_windows() {
    assert_said(&[
        ("avg_over_time(x[5m]) > 1", "avg(x[5m]) > 1"),
        ("max_over_time(x[5m]) - min_over_time(x[5m]) > 3", "(max(x[5m]) - min(x[5m])) > 3"),
        ("max by (a) (max_over_time(x[1h])) > 3", "max(x[1h]) by (a) > 3"),
        ("sum(sum by (job) (rate(x[5m]))) > 1", "rate(x[5m]) by () > 1"),
        ("increase(x[1h]) > 3 and rate(x[5m]) > 0", "(sum(x[1h]) > 3) and (rate(x[5m]) > 0)"),
        ("quantile_over_time(0.9, x[5m]) > 1", "quantile(0.9, x[5m]) > 1"),
        (
            "histogram_quantile(0.99, sum by (le, job) (rate(h_seconds_bucket[10m]))) > 1",
            "quantile(0.99, h_seconds[10m]) by (job) > 1",
        ),
        ("histogram_quantile(0.9, rate(h_bucket{a=\"b\"}[5m])) > 1", "quantile(0.9, h{a=\"b\"}[5m]) > 1"),
        (
            "predict_linear(disk_free_bytes[6h], 4 * 3600) < 0",
            "forecast(avg(disk_free_bytes[5m]), 6h, 4h) < 0",
        ),
    ]);
    assert_refused(&[
        ("rate(x[5m] offset 1d) > 1", "`offset` has no counterpart"),
        ("q @ 0 > 1", "`@` has no counterpart"),
        ("max_over_time(rate(x[5m])[1h:1m]) > 1", "a subquery has no counterpart"),
        ("deriv(x[1h]) > 1", "trend"),
        ("irate(x[5m]) > 1", "the last two samples"),
        ("sum by (a) (irate(x[5m])) > 1", "the last two samples"),
        ("time() - x > 60", "silent"),
        ("avg by (a) (rate(x[5m])) > 1", "record the inner part"),
        ("changes(x[5m]) > 1", "`changes` has no counterpart"),
        ("label_replace(x, \"a\", \"b\", \"c\", \"d\") > 1", "`label_replace` has no counterpart"),
        ("histogram_quantile(0.9, sum by (job) (rate(h_bucket[5m]))) > 1", "without `le`"),
        ("histogram_quantile(0.9, sum by (le) (rate(h_bucket{le!=\"1\"}[5m]))) > 1", "a matcher of `le`"),
        ("histogram_quantile(1.5, rate(h_bucket[5m])) > 1", "no quantile"),
    ]);
}

#[test]
fn sides_meet_on_equal_keys() {
    assert_said(&[
        ("q > 5 and q < 9", "(last(q[5m]) > 5) and (last(q[5m]) < 9)"),
        ("q > 5 or q < 1 or q == 3", "(last(q[5m]) > 5) or (last(q[5m]) < 1) or (last(q[5m]) == 3)"),
        (
            "max by (j) (q) > 5 unless max by (j) (m) == 1",
            "(max(q[1m]) by (j) > 5) unless (max(m[1m]) by (j) == 1 and count(m[1m]) by (j) > 0)",
        ),
        (
            "max by (j) (q) > 5 unless ignoring (x) sum by (j) (rate(m[5m])) > 0",
            "(max(q[1m]) by (j) > 5) unless (rate(m[5m]) by (j) > 0)",
        ),
        (
            "max by (j) (q) > 5 unless sum by (j) (rate(m[5m])) == 0",
            "(max(q[1m]) by (j) > 5) unless (rate(m[5m]) by (j) == 0 and count(m[5m]) by (j) > 0)",
        ),
    ]);
    assert_refused(&[
        ("x / y > 1", "values meet on equal keys"),
        ("x > on(a) group_left y", "values meet on equal keys"),
        ("sum by (a, b) (rate(x[5m])) / on (a) sum by (a, b) (rate(y[5m])) > 1", "`on` has no counterpart"),
        ("sum by (a) (rate(x[5m])) > on (a) group_left (b) sum by (a) (rate(y[5m]))", "carries over"),
        ("sum without (a) (rate(x[5m])) > 1", "`without` has no counterpart"),
        ("x > 1 and on () y > 1", "values meet on equal keys"),
        ("x > bool 1", "`bool` has no counterpart"),
        ("x ^ 2 > 1", "`^` within a value"),
        ("x % 2 > 1", "`%` within a value"),
        ("max by (a) (x_ms) > max by (a) (y_seconds)", "converted by their names"),
        ("max by (a) (x_bytes) / max by (a) (y_percent) > 1", "converted by their names"),
    ]);
}

#[test]
fn names_and_labels_are_those_of_events() {
    assert_refused(&[
        ("max by (name) (q{exported_name=\"a\"}) > 9", "which is a label of these rules already"),
        ("q{source=\"a\"} > 1", "label `source` has no counterpart"),
        ("{job=\"a\"} > 1", "series without one name"),
        ("rate({__name__=~\"err.*\"}[5m]) > 1", "series without one name"),
        ("q{__name__!=\"r\"} > 1", "`__name__` has no counterpart"),
        ("ALERTS{alertname=\"b\"} > 0", "no series `ALERTS`"),
    ]);
}

#[test]
fn absence_is_of_all_series_together() {
    assert_said(&[
        ("absent(up{job=\"a\"})", "count(up{job=\"a\"}[5m]) by () == 0"),
        ("absent_over_time(up{job=\"a\",i!=\"b\"}[10m])", "count(up{job=\"a\",i!=\"b\"}[10m]) by () == 0"),
    ]);
    assert_refused(&[
        ("absent(sum(x))", "of an expression"),
        ("absent(x{a=~\"b|c\"})", "cannot be declared"),
        ("absent(x) and y > 1", "within another expression"),
        ("absent(x) == 1", "within another expression"),
    ]);
}

#[test]
fn a_counter_has_no_total() {
    assert_refused(&[
        ("restarts_total > 5", "its name says so"),
        ("increase(restarts[1h]) > 5 and restarts > 9", "it is read by `rate`"),
        ("max by (a) (h_bucket) > 1", "its name says so"),
        ("x_seconds_sum / x_seconds_count > 1", "a part of a histogram"),
        ("count_over_time(x_total[5m]) > 1", "its name says so"),
    ]);
    let converted = one(&file(&[&alert_of("pg_stat_activity_count > 5")]));
    assert_eq!(exprs(&converted), ["last(pg_stat_activity_count[5m]) > 5"]);
    assert!(notes(&converted)[0].contains("taken for a gauge"), "{:?}", notes(&converted));
}

#[test]
fn a_chain_is_as_deep_as_our_language_reads() {
    let chain = |links: usize| vec!["q > 1"; links].join(" or ");
    assert!(said(&chain(40)).is_ok());
    assert!(said(&vec!["q"; 300].join(" + ")).is_err());
    assert!(said(&chain(3_000)).is_err_and(|reason| reason.contains("operators")));
}

#[test]
fn a_label_called_name_is_called_otherwise_here() {
    let of = |expr: &str| one(&file(&[&alert_of(expr)]));
    let has_note = |converted: &Converted| {
        converted.notes.iter().any(|note| note.text.contains("label `name` is called `exported_name`"))
    };
    let named = of("max by (name) (q{name=~\"a.*\"}) > 9");
    assert_eq!(named.rules[0].said.expr, "max(q{exported_name=~\"a.*\"}[1m]) by (exported_name) > 9");
    assert!(has_note(&named), "{:?}", named.notes);
    let native = of("max by (exported_name) (q) > 9");
    assert_eq!(native.rules[0].said.expr, "max(q[1m]) by (exported_name) > 9");
    assert!(!has_note(&native), "{:?}", native.notes);
}
