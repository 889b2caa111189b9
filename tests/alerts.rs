//! What the engine reports about alerts when they are read, on log time.

use streamgauge::core::alert::Transition;
use streamgauge::core::alert::transition::{ChangeName, State};
use streamgauge::core::event::{Event, Observation};
use streamgauge::core::record::{Body, Record};
use streamgauge::core::rule::RuleSet;
use streamgauge::core::vocab::identity::{Identity, IdentityTable, Labels, SeriesRef};
use streamgauge::core::vocab::limits::Limits;
use streamgauge::core::vocab::unit::Unit;
use streamgauge::core::{Effects, Engine, Inspect, Span, Timestamp};
use streamgauge::pipeline::load_files;

const START: Timestamp = Timestamp::clamped(1_793_491_200_000);

/// An engine with one series, `latency_ms` of checkout, and an owner that ticks on time.
struct Bench {
    engine: Engine,
    directory: IdentityTable,
    out: Effects,
    seq: u64,
}

fn rules(text: &str) -> RuleSet {
    let loaded = load_files(vec![("rules".into(), text.into())]);
    loaded.rules.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
}

impl Bench {
    fn new(text: &str) -> Bench {
        let (mut directory, mut out) = (IdentityTable::default(), Effects::default());
        let identity =
            Identity::new("checkout".into(), "latency_ms".into(), Labels::default(), Some(Unit::Ms));
        directory.learn(0, [identity.expect("valid").into()]);
        let mut engine = Engine::new(Limits::default());
        engine.load(rules(text), &mut out);
        let mut bench = Bench { engine, directory, out, seq: 0 };
        bench.handle(START, Body::Tick);
        bench
    }

    fn handle(&mut self, stamp: Timestamp, body: Body<'_>) {
        self.seq += 1;
        let record = Record { seq: self.seq, stamp, limit: None, bad: &[], body };
        self.engine.handle(&record, &self.directory, &mut self.out);
    }

    fn tick_until(&mut self, secs: i64) {
        let until = START + Span::from_secs(secs);
        while let Some(wake) = self.engine.next_wake().filter(|wake| *wake <= until) {
            self.handle(wake, Body::Tick);
        }
    }

    /// Sends one value every ten seconds.
    fn feed(&mut self, from: i64, to: i64, value: f64) {
        for secs in (from..to).step_by(10) {
            self.tick_until(secs);
            let time = START + Span::from_secs(secs);
            let event = Event::Metric(Observation { who: SeriesRef::new(0, 0), time, value });
            self.handle(time, Body::Events(&[event]));
        }
    }

    fn alert(&mut self, rule: &str) -> Transition {
        let active = Inspect::new(&mut self.engine).active_alerts();
        active.into_iter().find(|alert| *alert.rule == *rule).expect("it is active")
    }
}

#[test]
fn an_alert_without_data_says_so_from_five_minutes_on() {
    let mut bench = Bench::new(
        "rules:
  - { id: slow, expr: 'avg(latency_ms[1m]) by (source) > 1s', severity: critical, summary: '{{ value | round }} ms' }
  - { id: pending, expr: 'avg(latency_ms[1h]) by (source) > 1s', for: 2h, severity: info }
",
    );
    bench.feed(0, 60, 1_500.0);
    let alert = bench.alert("slow");
    let display = (alert.display.value.as_str(), alert.display.threshold.as_str());
    assert_eq!((display, alert.judged().as_str()), (("1.5 s", "> 1 s"), "1.5 s > 1 s"));
    assert_eq!((alert.about().as_str(), &*alert.threshold), ("source=checkout", "> 1s"));
    // The last value is of second 50. No producer sends any more, so the engine wakes up by itself to
    // report that.
    bench.tick_until(349);
    assert_eq!(bench.alert("slow").no_data_since, None);
    bench.tick_until(350);
    for rule in ["slow", "pending"] {
        assert_eq!(bench.alert(rule).no_data_since, Some(START + Span::from_secs(50)), "{rule}");
    }
    assert_eq!(bench.alert("slow").silence().as_deref(), Some("no data since 00:00"));
    let reason = bench.alert("slow").reason;
    assert_eq!(
        reason,
        "no data since 00:00, the last known value 1.5 s; it ends as stale when that has been so for 30m"
    );
    // Data arrive again, so the report disappears.
    bench.feed(400, 420, 1_500.0);
    bench.tick_until(425);
    assert_eq!(bench.alert("slow").no_data_since, None);
    bench.tick_until(3_000);
    let end = bench.out.transitions.last().expect("an end");
    assert_eq!((end.state, end.change, end.summary.as_str()), (State::Stale, ChangeName::Stale, "1500 ms"));
    assert!(end.reason.starts_with("no data since 00:06, for longer than 30m"), "{}", end.reason);
    assert!(bench.alert("pending").state == State::Pending, "the hour is not over");
}

/// Goal: a value that grows by itself is never told as it was when the alert fired. Method: an hour of silence;
/// lists follow it, the end names it, and the ticks for that stay few.
#[test]
fn a_growing_value_is_followed_while_it_fires() {
    let mut bench = Bench::new(
        "rules:
  - { id: gone, expr: 'silent(latency_ms) > 3m', severity: critical, summary: 'silent for {{ value | duration }}' }
",
    );
    bench.feed(0, 60, 1.0);
    for secs in [240, 600, 1_200, 3_650] {
        bench.tick_until(secs);
        let (value, truth) = (bench.alert("gone").value.expect("a value"), (secs - 50) as f64);
        assert!(value <= truth && value >= truth * 0.94, "{value} of {truth}");
    }
    assert!(bench.seq < 300, "{} records in an hour", bench.seq);
    bench.feed(3_650, 3_660, 1.0);
    bench.tick_until(3_662);
    let end = bench.out.transitions.last().expect("an end");
    assert_eq!(end.change, ChangeName::Resolved);
    assert!(end.summary.starts_with("silent for 5") && end.summary.contains('m'), "{}", end.summary);
}

#[test]
fn a_value_that_was_unknown_is_not_said_to_be_no_longer_over_its_limit() {
    let mut bench = Bench::new(
        "rules:
  - { id: odd, expr: 'max(latency_ms[10s]) by (source) > 1s', severity: critical, on_unknown: fire }
",
    );
    bench.feed(0, 20, 1.0);
    bench.tick_until(60);
    assert_eq!(bench.alert("odd").state, State::Firing);
    bench.feed(60, 70, 2.0);
    bench.tick_until(62);
    let end = bench.out.transitions.last().expect("an end");
    assert_eq!((end.change, end.reason.as_str()), (ChangeName::Resolved, "value 0.002 s is not > 1 s"));
}

#[test]
fn an_end_does_not_say_that_it_goes_on() {
    let mut bench = Bench::new(
        "rules:
  - { id: odd, expr: 'avg(latency_ms[10s]) by (source) > 1s', severity: critical, keep_firing_for: 1m, summary: '{{ value | duration }} are unusual' }
",
    );
    bench.feed(0, 60, 1_500.0);
    bench.feed(60, 90, 680.0);
    let alert = bench.alert("odd");
    assert_eq!(alert.judged(), "0.68 s, limit > 1 s");
    assert_eq!(alert.reason, "value 0.68 s is no longer > 1 s; it ends when that has been so for 1m");
    assert_eq!(alert.summary, "1s500ms are unusual", "what was unusual, not what is usual again");
    bench.feed(90, 200, 680.0);
    let end = bench.out.transitions.last().expect("an end");
    assert_eq!((end.state, end.summary.as_str()), (State::Resolved, "1s500ms are unusual"));
    assert_eq!(end.judged(), "0.68 s, no longer > 1 s");
    assert_eq!(end.reason, "value 0.68 s is no longer > 1 s, and has not been for 1m");
}

/// A reload that removes the level of an alert ends the alert; one that keeps the level keeps the alert at
/// its severity.
#[test]
fn a_reload_may_change_the_levels_of_a_rule_that_fires() {
    let text = |levels: &str| {
        format!("rules: [{{ id: slow, expr: 'avg(latency_ms[1m]) by (source)', levels: {{ {levels} }} }}]\n")
    };
    let (warning, critical) = ("warning: '> 500ms'", "critical: '> 1s'");
    let mut bench = Bench::new(&text(&format!("{warning}, {critical}")));
    bench.feed(0, 60, 1_500.0);
    bench.engine.load(rules(&text(critical)), &mut bench.out);
    bench.feed(60, 120, 1_500.0);
    assert_eq!(bench.out.transitions.len(), 1, "it goes on: {:?}", bench.out.transitions);
    assert_eq!(bench.alert("slow").display.threshold, "> 1 s");
    bench.engine.load(rules(&text(warning)), &mut bench.out);
    bench.feed(120, 180, 1_500.0);
    let told: Vec<(ChangeName, &str)> =
        bench.out.transitions.iter().map(|one| (one.change, one.severity.name())).collect();
    let expected =
        [(ChangeName::Firing, "critical"), (ChangeName::Stale, "critical"), (ChangeName::Firing, "warning")];
    assert_eq!(told, expected);
}

/// Goal: an alert does not lose its baseline as it begins, where the period has no window to spare. Method: a
/// change at each phase of the window, in a period of exactly as many windows as a regression needs.
#[test]
fn a_regression_over_twelve_windows_keeps_its_baseline() {
    for at in (1..13).map(|step| 7_200 + step * 25) {
        let mut bench = Bench::new(
            "rules: [{ id: slower, expr: 'regression(avg(latency_ms[5m]) by (source), 1h) > 20%', severity: warning }]\n",
        );
        for secs in (0..9_600).step_by(5) {
            let usual = if secs < at { 100.0 } else { 140.0 };
            bench.feed(secs, secs + 1, usual + (secs * 7_919 % 13) as f64 / 10.0);
        }
        let told: Vec<(ChangeName, bool)> =
            bench.out.transitions.iter().map(|one| (one.change, one.value.is_some())).collect();
        assert_eq!(told, [(ChangeName::Firing, true)], "changed at {at}");
    }
}

/// Goal: the rate of steady traffic does not change. Method: a value each second, judged at every grid point once
/// the past is whole.
#[test]
fn a_steady_rate_does_not_change() {
    let mut bench = Bench::new(
        "rules: [{ id: changed, expr: 'abs(change(rate(latency_ms[1m]) by (source), 10m)) > 3%', severity: warning }]\n",
    );
    for secs in 0..1_800 {
        bench.feed(secs, secs + 1, 1.0);
    }
    let whole = START + Span::from_secs(670);
    let told: Vec<&Transition> = bench.out.transitions.iter().filter(|one| one.at > whole).collect();
    assert!(told.is_empty(), "{told:?}");
}

/// Goal: receivers see whole episodes when a rule becomes a shadow or is one no longer. Method: it turns twice
/// while its alert fires, and the value arrives only once more.
#[test]
fn a_rule_that_turns_into_a_shadow_ends_its_alerts() {
    let text = |shadow: bool| {
        format!(
            "rules: [{{ id: slow, expr: 'avg(latency_ms[10m]) by (source) > 1s', severity: critical, shadow: {shadow} }}]\n"
        )
    };
    let mut bench = Bench::new(&text(false));
    bench.feed(0, 60, 1_500.0);
    bench.engine.load(rules(&text(true)), &mut bench.out);
    bench.tick_until(70);
    bench.engine.load(rules(&text(false)), &mut bench.out);
    bench.tick_until(80);
    let told = |all: &[Transition]| -> Vec<(ChangeName, u32)> {
        all.iter().map(|one| (one.change, one.seq)).collect()
    };
    let (firing, stale) = ((ChangeName::Firing, 0), (ChangeName::Stale, 1));
    assert_eq!(told(&bench.out.transitions), [firing, stale, firing]);
    assert_eq!(told(&bench.out.shadows), [firing, stale]);
}

/// Empty matchers in a rule set stored by another version mute no alert.
#[test]
fn empty_matchers_in_a_stored_rule_set_select_nothing() {
    let text = "rules:
  - { id: a, expr: 'avg(latency_ms[1m]) by (source) > 1s', severity: critical }
  - { id: b, expr: 'avg(latency_ms[1m]) by (source) > 500ms', severity: info }
inhibit: [{ source: ['rule=\"a\"'], target: ['rule=\"b\"'] }]
maintenance: [{ id: m, match: ['rule=\"a\"'], start: '2026-11-01T00:00:00Z', end: '2026-11-02T00:00:00Z' }]
";
    let mut bench = Bench::new(text);
    let mut stored = rules(text);
    stored.inhibits[0].source.matchers.clear();
    stored.inhibits[0].target.matchers.clear();
    stored.maintenance[0].matchers.matchers.clear();
    bench.feed(0, 20, 1_500.0);
    let by = |bench: &mut Bench, rule| bench.alert(rule).suppressed_by.map(|cause| cause.kind);
    assert_eq!(by(&mut bench, "a").as_deref(), Some("maintenance"));
    assert_eq!(by(&mut bench, "b").as_deref(), Some("inhibition"));
    bench.engine.load(stored, &mut bench.out);
    bench.feed(20, 60, 1_500.0);
    assert_eq!((by(&mut bench, "a"), by(&mut bench, "b")), (None, None));
}
