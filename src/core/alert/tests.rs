use super::step::Stepped;
use super::*;
use crate::core::rule::ast::Expr;
use crate::core::rule::{Level, Subject};
use crate::core::vocab::comparison::{Compare, Comparison};
use crate::core::vocab::severity::Severity;

/// A rule over a value: warning above 10 (reset below 5) for 60 s, critical above 50 for 20 s.
fn rule() -> Rule {
    let level = |severity, limit, reset: Option<f64>, secs| Level {
        severity,
        condition: Some(Compare { op: Comparison::Greater, limit }),
        reset: reset.map(|limit| Compare { op: Comparison::Less, limit }),
        pending_for: Span::from_secs(secs),
        actions: Vec::new(),
        threshold: format!("> {limit}").into(),
    };
    Rule {
        id: "r".into(),
        subject: Subject::Value(Expr::Number(0.0)),
        levels: vec![
            level(Severity::Warning, 10.0, Some(5.0), 60),
            level(Severity::Critical, 50.0, None, 20),
        ],
        keep_firing_for: Span::from_secs(30),
        min_count: 0,
        on_unknown: OnUnknown::ClearAfter(Span::from_secs(100)),
        cooldown: Span::from_secs(300),
        labels: Default::default(),
        summary: None,
        runbook: None,
        escalation: None,
        acts_in_maintenance: false,
        fdr: crate::core::rule::Fdr::ByKeys,
        is_shadow: false,
        unit: None,
        views: Vec::new(),
        reads: Default::default(),
        hash: "".into(),
        text: "x".into(),
    }
}

/// Steps through (second, value) pairs; NaN is unknown. Returns the instance and the (second, changes) pairs.
fn story(rule: &Rule, steps: &[(i64, f64)]) -> (Instance, Vec<(i64, Vec<Change>)>) {
    let mut instance = Instance::new(Timestamp::clamped(steps[0].0 * 1_000));
    let mut told = Vec::new();
    for (secs, value) in steps {
        let at = Timestamp::clamped(secs * 1_000);
        let counted = at - instance.seen_at;
        let Stepped { changes, .. } = instance.step(rule, observe(rule, *value), at, counted);
        if !changes.is_empty() {
            told.push((*secs, changes));
        }
    }
    (instance, told)
}

fn observe(rule: &Rule, value: f64) -> Observation {
    if value.is_nan() {
        return Observation::Unknown(Unknown::NoData);
    }
    let (mut met, mut reset) = (Levels::NONE, Levels::NONE);
    for (at, level) in rule.levels.iter().enumerate() {
        if level.condition.is_some_and(|c| c.holds(value)) {
            met = Levels::up_to(at);
        }
    }
    for (at, level) in rule.levels.iter().enumerate() {
        if level.reset.map_or(!met.has(at), |r| r.holds(value)) {
            reset = reset.with(at);
        }
    }
    Observation::Known { value, met, reset }
}

const NONE: f64 = f64::NAN;

#[test]
fn it_fires_when_met_for_long_enough_and_a_gap_neither_counts_nor_resets() {
    let (instance, told) = story(&rule(), &[(0, 20.0), (40, NONE), (70, 20.0), (89, 20.0), (90, 20.0)]);
    assert_eq!(told, [(90, vec![Change::Firing])]);
    assert_eq!(instance.started_at, Timestamp::clamped(0));
}

#[test]
fn a_not_met_in_between_starts_again() {
    let (instance, told) = story(&rule(), &[(0, 20.0), (50, 9.0), (51, 20.0), (110, 20.0)]);
    assert_eq!((told.len(), instance.phase), (0, Phase::Pending));
}

#[test]
fn a_higher_level_counts_for_the_lower_and_rises_when_its_own_timer_is_full() {
    let rule = rule();
    let (_, told) = story(&rule, &[(0, 60.0), (20, 60.0), (30, 20.0), (40, 60.0), (60, 60.0)]);
    assert_eq!(told, [(20, vec![Change::Firing]), (30, vec![Change::Fall]), (60, vec![Change::Rise])]);
}

#[test]
fn hysteresis_holds_between_condition_and_reset() {
    let rule = rule();
    let steps = [(0, 20.0), (60, 20.0), (70, 7.0), (900, 7.0), (910, 4.0), (920, 7.0), (941, 7.0)];
    let (_, told) = story(&rule, &steps);
    assert_eq!(told, [(60, vec![Change::Firing]), (941, vec![Change::Resolved])]);
}

#[test]
fn unknown_time_does_not_count_for_recovery_and_ends_stale() {
    let rule = rule();
    let steps = [(0, 60.0), (20, 60.0), (30, 1.0), (50, NONE), (150, NONE)];
    assert_eq!(story(&rule, &steps).1, [(20, vec![Change::Firing])]);
    let longer = [&steps[..], &[(151, NONE)]].concat();
    let cause = StaleCause::UnknownTooLong(Unknown::NoData);
    assert_eq!(story(&rule, &longer).1.last(), Some(&(151, vec![Change::Stale(cause)])));
    let known = [&steps[..4], &[(140, 1.0), (149, 1.0), (150, 1.0)]].concat();
    assert_eq!(story(&rule, &known).1.last(), Some(&(150, vec![Change::Resolved])));
}

#[test]
fn after_the_end_a_met_key_waits_for_the_cooldown() {
    let rule = rule();
    let mut steps = vec![(0, 60.0), (20, 60.0), (30, 1.0), (60, 1.0), (70, 60.0), (200, 60.0)];
    assert_eq!(story(&rule, &steps).1.last(), Some(&(60, vec![Change::Resolved])));
    steps.extend([(359, 60.0), (360, 60.0)]);
    assert_eq!(story(&rule, &steps).1.last(), Some(&(360, vec![Change::Firing])));
}

#[test]
fn a_pending_alert_that_is_unknown_for_too_long_is_dropped() {
    let (instance, _) = story(&rule(), &[(0, 20.0), (10, NONE), (310, NONE)]);
    assert_eq!(instance.phase, Phase::Pending);
    let (instance, _) = story(&rule(), &[(0, 20.0), (10, NONE), (310, NONE), (311, NONE)]);
    assert_eq!(instance.phase, Phase::Inactive);
}

#[test]
fn an_acknowledgement_ends_with_its_time_or_with_a_rise() {
    let rule = rule();
    let (mut instance, _) = story(&rule, &[(0, 20.0), (60, 20.0)]);
    assert_eq!(
        instance.acknowledge("ann", "on it", None, Timestamp::clamped(60_000)),
        Some(Change::Acknowledged)
    );
    let step = |instance: &mut Instance, secs: i64, value| {
        let at = Timestamp::clamped(secs * 1_000);
        let counted = at - instance.seen_at;
        instance.step(&rule, observe(&rule, value), at, counted).changes
    };
    assert_eq!(step(&mut instance, 70, 60.0), []);
    assert_eq!(step(&mut instance, 90, 60.0), [Change::Rise]);
    assert_eq!(instance.firing().and_then(|firing| firing.ack.clone()), None);
    instance.acknowledge("ann", "", Some(Timestamp::clamped(100_000)), Timestamp::clamped(90_000));
    assert_eq!(step(&mut instance, 95, 20.0), [Change::Fall]);
    assert_eq!(step(&mut instance, 100, 20.0), [Change::Unacknowledged]);
}
