use super::*;
use crate::core::view::ViewKind;
use crate::pipeline::expr::parse::parse;

fn check(text: &str) -> Result<Checked, ExprError> {
    Checker::default().check(&parse(text)?.term)
}

fn limit(text: &str) -> f64 {
    match check(text) {
        Ok(Checked::Condition(Cond::Compare { right: Expr::Number(limit), .. }, _)) => limit,
        other => panic!("{text}: {other:?}"),
    }
}

fn error(text: &str) -> String {
    match check(text) {
        Err(error) => {
            format!("{}: {}", &text[error.at.start..error.at.end.max(error.at.start)], error.message)
        }
        Ok(checked) => panic!("{text} was taken: {checked:?}"),
    }
}

#[test]
fn literals_take_the_unit_of_what_they_are_compared_with() {
    assert_eq!(limit("p99(latency_ms[1m]) > 1s"), 1_000.0);
    assert_eq!(limit("p99(latency_ms[1m]) > 250"), 250.0);
    assert_eq!(limit("avg(cpu_percent[1m]) > 80%"), 80.0);
    assert_eq!(limit("avg(error_ratio[1m]) > 20%"), 0.2);
    assert_eq!(limit("change(avg(x[5m]), 1h) > 20%"), 0.2);
    assert_eq!(limit("idle(pipeline=\"p\") > 10m"), 600.0);
    assert_eq!(limit("count(errors[5m]) by (source) / count(requests[5m]) by (source) > 1%"), 0.01);
    assert_eq!(limit("max(mem_bytes[5m]) > 1GiB"), 1_073_741_824.0);
}

#[test]
fn units_that_do_not_fit_are_errors_with_a_place() {
    assert_eq!(error("p99(latency_ms[1m]) > 20%"), "20%: percent cannot be compared with ms");
    assert!(error("avg(depth[1m]) > 5ms").starts_with("5ms: this number has a unit"));
    assert!(error("avg(a_ms[1m]) by (a) + avg(b_percent[1m]) by (a) > 1").contains("cannot be compared"));
}

/// Goal: a number that overflows in a unit conversion is refused. Method: numbers near the largest one; such
/// a number was once stored as `null`, and the rule set could not be read back.
#[test]
fn no_number_is_infinite_in_another_unit() {
    for text in ["avg(a_ns[1m]) > 1e308s", "1e308s < avg(a_ns[1m])", "max(avg(a_ns[1m]), 1e308s) > 1"] {
        assert!(error(text).contains("too large in ns"), "{text}");
    }
    let Ok(Checked::Value(typed)) = check("avg(a_ns[1m])") else { panic!("a value") };
    let level = |text| Checker::default().level(&typed, text);
    assert!(level("> 1e308s").is_err_and(|error| error.message.contains("too large")));
    assert!(level("> 1e290s").is_ok());
}

#[test]
fn keys_must_meet() {
    assert!(error("avg(a[1m]) by (source) > 1 and avg(b[1m]) by (host) > 1").contains("keys by (host)"));
    assert!(check("avg(a[1m]) by (source, host) > 1 and avg(b[1m]) by (host, source) > 1").is_ok());
    assert!(error("avg(a[1m]) > 1 and avg(b[1m]) > 1").contains("a key per series of `b`"));
    assert!(error("5 > 3").contains("compares two numbers"));
}

#[test]
fn versions_are_compared_within_keys() {
    assert!(check("regression(p95(x[5m]) by (source), deploys(8)) > 10%").is_ok());
    assert!(error("regression(p95(x[5m]), deploys(8)) > 10%").contains("needs `by (…)`"));
    assert!(error("regression(p95(x[5m]) by (version), deploys(8)) > 10%").contains("out of `by (…)`"));
    assert!(error("regression(p95(x[5m]) by (source), deploys(2)) > 10%").contains("from 4 to 32"));
    assert!(error("zscore(p95(x[5m]) by (source), deploys(8)) > 3").contains("takes no `deploys`"));
}

#[test]
fn slips_are_recognised() {
    assert_eq!(check("pp99(x[1m]) > 1").unwrap_err().hint.as_deref(), Some("did you mean `p99`?"));
    let unnamed = check("avg({__name__=~\"x.*\"}[1m]) > 1").unwrap_err();
    assert!(unnamed.hint.is_some_and(|hint| hint.contains("`name`")), "it would match nothing");
    assert!(error("avg(x) > 1").contains("needs a window"));
    assert!(error("avg(x[15s]) > 1").contains("multiple of 10s"));
    assert!(error("avg(x[90m]) > 1").contains("multiple of 1h"));
    assert!(error("1 < avg(x[1m]) < 2").contains("chain"));
    assert!(error("avg(x{a=~\"(\"}[1m]) > 1").contains("regular expression"));
    assert!(error("x > 1").contains("is a series, not a value"));
}

#[test]
fn a_runbook_sentence_is_a_rule() {
    let mut checker = Checker { metric: Some("api_latency_ms".into()), ..Checker::default() };
    let parsed = parse("p99 > 1000ms for 5 minutes").expect("parses");
    assert_eq!(parsed.pending_for, Some(crate::core::Span::from_mins(5)));
    assert!(matches!(checker.check(&parsed.term), Ok(Checked::Condition(..))));
    assert_eq!(checker.views.len(), 1);
}

#[test]
fn who_looks_further_back_shares_the_view_of_the_same_windows() {
    let mut checker = Checker::default();
    let day = crate::core::Span::from_hours(24);
    for text in [
        "zscore(avg(a_ms[1m]) by (source), 1h) > 4",
        "anomaly(avg(a_ms[1m]) by (source), 1d) > 1",
        "trend(avg(a_ms[1m]) by (source), 2h) > 1",
    ] {
        checker.check(&parse(text).expect("parses").term).expect("checks");
    }
    let kinds: Vec<ViewKind> = checker.views.iter().map(|view| view.kind).collect();
    assert!(matches!(kinds[..], [_, ViewKind::Baseline { period, .. }] if period == day), "{kinds:?}");
    // Partials (parts of windows that are on their way to the aggregate partition) refer to the view by its id, so
    // the id must not depend on the period.
    let (longer, mut shorter) = (checker.views[1].clone(), Checker::default());
    shorter.check(&parse("zscore(avg(a_ms[1m]) by (source), 1h) > 4").expect("parses").term).expect("checks");
    assert!(shorter.views[1] != longer && shorter.views[1].id() == longer.id());
}

/// Goal: counts and profiles over different periods do not share a view. A window that a view has dropped
/// would read as a count of zero, and the start of the tail depends on the rows that are kept. Method: the
/// same function over two periods.
#[test]
fn counts_and_profiles_of_other_periods_are_other_views() {
    for of in ["regression(count(a_ms[1m])", "regression(p95(a_ms[1m])"] {
        let mut checker = Checker::default();
        for period in ["1h", "5h"] {
            let text = format!("{of} by (source), {period}) > 10%");
            checker.check(&parse(&text).expect("parses").term).expect("checks");
        }
        assert_eq!(checker.views.len(), 3, "{of}");
    }
}

/// Goal: the view of a rule's past stays the same when other rules that read the trailing window come and go.
/// Method: compare it with and without another reader.
#[test]
fn who_reads_the_trailing_window_changes_nothing_of_a_past() {
    let past = |texts: &[&str]| {
        let mut checker = Checker::default();
        texts
            .iter()
            .for_each(|text| drop(checker.check(&parse(text).expect("parses").term).expect("checks")));
        let found = checker.views.into_iter().find(|view| matches!(view.kind, ViewKind::Baseline { .. }));
        found.expect("there is one")
    };
    let (own, other) = ("zscore(avg(a_ms[1m]) by (source), 1h) > 4", "stddev(a_ms[1m]) by (source) > 5");
    assert_eq!(past(&[own]), past(&[other, own]));
}

#[test]
fn equal_windows_share_a_view() {
    let mut checker = Checker::default();
    for text in
        ["p99(a_ms[1m]) by (source) > 1s", "p50(a_ms[1m]) by (source) > 1s", "avg(a_ms[5m]) by (source) > 1"]
    {
        checker.check(&parse(text).expect("parses").term).expect("checks");
    }
    assert_eq!(checker.views.len(), 2);
    assert!(checker.views[0].has_quantiles && !checker.views[1].has_quantiles);
}

#[test]
fn windows_are_as_long_as_they_are_kept() {
    for text in ["sum(x[1440h]) by (source) > 0", "sum(x[60d]) by (source) > 0", "p95(x[2160h]) > 1"] {
        assert!(check(text).is_ok(), "{text}");
    }
    assert!(error("sum(x[2161h]) > 0").contains("90 days"));
}

#[test]
fn functions_of_promql_are_answered_with_ours() {
    let hint = |text: &str| check(text).expect_err("none of ours").hint.unwrap_or_default();
    for (text, ours) in [
        ("predict_linear(x[6h], 4 * 3600) < 0", "forecast("),
        ("absent(x) > 0", "silent(x)"),
        ("topk(3, x) > 1", "ranking"),
        ("increase(x[1h]) > 3", "sum(x[1h])"),
        ("histogram_quantile(0.99, x) > 1", "p99("),
        ("avg_over_time(x[5m]) > 1", "avg(x[5m])"),
        ("deriv(x[5m]) > 1", "trend("),
        ("irate(x[5m]) > 1", "rate("),
        ("label_replace(x, 1) > 1", "by (…)"),
    ] {
        assert!(hint(text).contains(ours), "{text}: {}", hint(text));
    }
}

#[test]
fn a_rate_of_what_looks_like_something_else_is_a_doubt() {
    let doubts = |text: &str| {
        let mut checker = Checker::default();
        checker.check(&parse(text).expect("parses").term).expect("checks");
        checker.doubts.len()
    };
    assert_eq!(doubts("rate(requests_total[5m]) by (source) > 1"), 1);
    assert_eq!(doubts("rate(cpu_percent[5m]) by (source) > 1"), 1);
    assert_eq!(doubts("rate(requests[5m]) by (source) > 1"), 0);
    assert_eq!(doubts("sum(requests_total[5m]) by (source) > 1"), 0);
    // Each period has fewer windows than its function needs.
    for (few, enough) in [
        ("anomaly(avg(x[1m]), 1h) > 1", "anomaly(avg(x[1m]), 2h) > 1"),
        ("regression(avg(x[5m]), 55m) > 1", "regression(avg(x[5m]), 1h) > 1"),
        ("trend(avg(x[5m]), 25m) > 1", "trend(avg(x[5m]), 30m) > 1"),
        ("zscore(avg(x[1h]), 4h) > 1", "zscore(avg(x[1h]), 5h) > 1"),
        ("correlation(avg(x[1m]), avg(x[1m]), 7m) > 0.5", "correlation(avg(x[1m]), avg(x[1m]), 8m) > 0.5"),
    ] {
        assert_eq!((doubts(few), doubts(enough)), (1, 0), "{few}");
    }
}

#[test]
fn regular_expressions_of_a_set_are_bounded_together() {
    let mut checker = Checker::default();
    let refused = (0..400).find_map(|n| {
        let text = format!(r#"count(x{{a=~"\\w\\w{n}"}}[1m]) > 1"#);
        checker.check(&parse(&text).expect("parses").term).err()
    });
    assert!(refused.is_some_and(|error| error.message.contains("MiB")));
    // The same expression is compiled only once.
    let mut checker = Checker::default();
    let term = parse(r#"count(x{a=~"\\w\\w"}[1m]) > 1"#).expect("parses").term;
    assert!((0..400).all(|_| checker.check(&term).is_ok()));
}
