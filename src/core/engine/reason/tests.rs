//! Tests that compare each reason with the state it describes.

use super::*;
use crate::core::alert::{Levels, Observation};
use crate::core::mute::Suppressed;
use crate::core::rule::ast::{Cond, Expr};
use crate::core::rule::{Fdr, Level, Subject};
use crate::core::vocab::comparison::{Compare, Comparison};
use crate::core::vocab::escalation::{Escalation, Step};
use crate::core::vocab::severity::Severity;
use crate::core::vocab::time::Span;
use crate::core::vocab::unit::Unit;

fn at(secs: i64) -> Timestamp {
    Timestamp::clamped(1_793_491_200_000 + secs * 1_000)
}

/// A rule: warning above 10 % for 5 minutes with reset below 5 %, critical above 50 % for 2 minutes. Its
/// escalation has a step after 15 minutes.
fn rule() -> Rule {
    let level = |severity, limit: f64, reset: Option<f64>, mins| Level {
        severity,
        condition: Some(Compare { op: Comparison::Greater, limit }),
        reset: reset.map(|limit| Compare { op: Comparison::Less, limit }),
        pending_for: Span::from_mins(mins),
        actions: Vec::new(),
        threshold: format!("> {}%", limit * 100.0).into(),
    };
    let step = |mins, to: Option<&str>| Step {
        after: Span::from_mins(mins),
        notify: Vec::new(),
        escalate_to: to.map(Into::into),
        when: None,
        repeat: None,
    };
    let steps = vec![step(0, None), step(15, Some("management"))];
    Rule {
        id: "r".into(),
        subject: Subject::Value(Expr::Number(0.0)),
        levels: vec![level(Severity::Warning, 0.1, Some(0.05), 5), level(Severity::Critical, 0.5, None, 2)],
        keep_firing_for: Span::from_secs(30),
        min_count: 7,
        on_unknown: OnUnknown::default(),
        cooldown: Span::from_mins(10),
        labels: Default::default(),
        summary: None,
        runbook: None,
        escalation: Some(Escalation { name: "standard".into(), steps }),
        acts_in_maintenance: false,
        fdr: Fdr::ByKeys,
        is_shadow: false,
        unit: Some(Unit::Ratio),
        views: Vec::new(),
        reads: Default::default(),
        hash: "".into(),
        text: "a > 5 or b > 3".into(),
    }
}

fn observe(rule: &Rule, value: f64) -> Observation {
    let (mut met, mut reset) = (Levels::NONE, Levels::NONE);
    for (at, level) in rule.levels.iter().enumerate() {
        if level.condition.is_some_and(|condition| condition.holds(value)) {
            met = Levels::up_to(at);
        }
    }
    for (at, level) in rule.levels.iter().enumerate() {
        if level.reset.map_or(!met.has(at), |limit| limit.holds(value)) {
            reset = reset.with(at);
        }
    }
    Observation::Known { value, met, reset }
}

/// An alert, and all reasons that were reported for it.
struct Story {
    rule: Rule,
    instance: Instance,
    told: Vec<String>,
}

impl Story {
    fn new(rule: Rule) -> Story {
        Story { rule, instance: Instance::new(at(0)), told: Vec::new() }
    }

    fn step(&mut self, secs: i64, observation: Observation) {
        let before = self.instance.clone();
        let counted = at(secs) - before.seen_at;
        let stepped = self.instance.step(&self.rule, observation, at(secs), counted);
        stepped.changes.iter().for_each(|change| self.tell(*change, &before, secs));
    }

    fn see(&mut self, secs: i64, value: f64) {
        self.step(secs, observe(&self.rule, value));
    }

    fn tell(&mut self, change: Change, before: &Instance, secs: i64) {
        let now = self.instance.clone();
        let Some(firing) = now.firing().or(before.firing()) else { panic!("{change:?} of nothing") };
        let said = self.of(firing, secs, |of| of.changed(change, before.firing()));
        self.told.push(said);
    }

    fn of(&self, firing: &Firing, secs: i64, say: impl Fn(ReasonInput<'_>) -> String) -> String {
        let (rule, value) = (&self.rule, Some(self.instance.value).filter(|value| value.is_finite()));
        let level = &rule.levels[firing.level];
        let display = Display::new(value, rule.unit.as_ref(), &level.threshold, rule.limit(firing.level));
        let no_data_since = Some(at(720));
        say(ReasonInput { rule, firing, value, display: &display, no_data_since, at: at(secs) })
    }

    fn standing(&self, secs: i64) -> String {
        let firing = self.instance.firing().expect("it fires");
        self.of(firing, secs, |of| of.standing(&self.instance))
    }

    fn last(&self) -> &str {
        self.told.last().map_or("", String::as_str)
    }
}

#[test]
fn changes_are_told_as_they_are() {
    let mut story = Story::new(rule());
    story.see(0, 0.12);
    let pending = Firing::pending(&story.instance);
    assert_eq!(
        story.of(&pending, 1, |of| of.pending(&story.instance)),
        "pending since 2026-11-01T00:00:00Z: value 12 % is > 10 %; it fires when that has been so for 5m"
    );
    for (secs, value) in [(300, 0.12), (400, 0.6), (520, 0.6), (600, 0.3), (1_200, 0.3)] {
        story.see(secs, value);
    }
    story.see(1_300, 0.04);
    story.see(1_330, 0.04);
    assert_eq!(
        story.told,
        [
            "value 12 % is > 10 %, and has been for 5m",
            "value 60 % is > 50 %: critical now, warning before",
            "value 30 % is no longer > 50 %: warning now, critical before",
            "nobody took care of it for 15m: step 2 of standard to management",
            "value 4 % is no longer > 10 %, and has not been for 30s",
        ]
    );
}

#[test]
fn what_people_do_is_told_with_who_did_it() {
    let mut story = Story::new(rule());
    story.see(0, 0.12);
    story.see(300, 0.12);
    let before = story.instance.clone();
    let change = story.instance.acknowledge("ann", "on it", Some(at(600)), at(310)).expect("it fires");
    story.tell(change, &before, 310);
    assert_eq!(story.last(), "acknowledged by ann until 2026-11-01T00:10:00Z: on it");
    assert_eq!(
        story.standing(311),
        "acknowledged by ann until 2026-11-01T00:10:00Z: on it; value 12 % is > 10 %"
    );
    story.see(600, 0.12);
    assert_eq!(story.last(), "the acknowledgement by ann is over");
    let before = story.instance.clone();
    story.instance.mark(Some(Suppressed { kind: "silence".into(), id: "s1".into() }), false);
    story.tell(Change::Suppressed, &before, 610);
    assert_eq!(story.last(), "suppressed by silence s1");
    story.instance.mark(None, false);
    story.tell(Change::Unsuppressed, &before, 620);
    assert_eq!(story.last(), "nothing suppresses it any more");
}

#[test]
fn a_view_says_what_holds_now() {
    let mut story = Story::new(rule());
    story.see(0, 0.12);
    story.see(300, 0.12);
    assert_eq!(story.standing(300), "value 12 % is > 10 %");
    story.see(310, 0.07);
    let held = "value 7 % is no longer > 10 %, but not past the limit at which the level is left";
    assert_eq!(story.standing(310), held);
    story.see(320, 0.04);
    let ending = "value 4 % is no longer > 10 %; it ends when that has been so for 30s";
    assert_eq!(story.standing(320), ending);
    story.step(330, Observation::Unknown(Unknown::NoData));
    let silent =
        "no data since 00:12, the last known value 4 %; it ends as stale when that has been so for 30m";
    assert_eq!(story.standing(330), silent);
}

#[test]
fn an_end_for_want_of_something_says_of_what() {
    let causes = [
        (Unknown::NoData, "no data since 00:12"),
        (Unknown::MinCount, "fewer observations than min_count, which is 7"),
        (Unknown::NoBaseline, "nothing that it can be compared with"),
        (Unknown::DivisionByZero, "a division by zero has no value"),
        (Unknown::LogInterrupted, "the log was interrupted"),
        (Unknown::Gap, "records of the log were lost"),
    ];
    for (reason, words) in causes {
        let mut story = Story::new(rule());
        story.see(0, 0.12);
        story.see(300, 0.12);
        for secs in [310, 2_111] {
            story.step(secs, Observation::Unknown(reason));
        }
        let wanted = format!("{words}, for longer than 30m: nobody knows whether it still holds");
        assert_eq!(story.last(), wanted);
    }
    let mut story = Story::new(rule());
    story.see(0, 0.12);
    story.see(300, 0.12);
    story.step(310, Observation::Gone);
    let forgotten =
        "no data for so long that its series or run is forgotten: nobody knows whether it still holds";
    assert_eq!(story.last(), forgotten);
}

/// The value of a forgotten operand is unknown, so the end of the alert is no recovery.
#[test]
fn an_alert_that_waits_for_a_forgotten_operand_is_stale_not_resolved() {
    let mut story = Story::new(Rule { on_unknown: OnUnknown::Hold, ..rule() });
    story.see(0, 0.12);
    story.see(300, 0.12);
    story.step(310, Observation::Unknown(Unknown::NoData));
    story.instance.lose_operand();
    story.see(86_800, 0.01);
    assert!(story.last().starts_with("no data for so long"), "{}", story.last());
    // An alert that does not wait for data recovers as usual.
    let mut story = Story::new(rule());
    story.see(0, 0.12);
    story.see(300, 0.12);
    story.instance.lose_operand();
    story.see(310, 0.01);
    story.see(340, 0.01);
    assert!(story.last().contains("no longer"), "{}", story.last());
}

#[test]
fn a_condition_of_several_parts_is_not_told_by_one_that_does_not_hold() {
    let left = Expr::Abs(Box::new(Expr::Number(2.0)));
    let five = Box::new(Cond::Compare { left, op: Comparison::Greater, right: Expr::Number(5.0) });
    let warning = rule().levels.remove(0);
    let (condition, reset, pending_for) = (None, None, Span::ZERO);
    let story_of = Rule {
        subject: Subject::Condition(Cond::Or(five.clone(), five)),
        levels: vec![Level { condition, reset, pending_for, threshold: "> 5".into(), ..warning }],
        keep_firing_for: Span::ZERO,
        cooldown: Span::ZERO,
        unit: None,
        escalation: None,
        ..rule()
    };
    let mut story = Story::new(story_of);
    let known = |value, is_met| Observation::Known {
        value,
        met: if is_met { Levels::up_to(0) } else { Levels::NONE },
        reset: if is_met { Levels::NONE } else { Levels::up_to(0) },
    };
    story.step(0, known(2.0, true));
    story.step(10, known(7.0, false));
    story.step(20, known(f64::NAN, true));
    assert_eq!(
        story.told,
        [
            "`a > 5 or b > 3` is met, value 2",
            "`a > 5 or b > 3` is no longer met, value 7",
            "`a > 5 or b > 3` is met",
        ]
    );
    let mut story = Story::new(Rule { on_unknown: OnUnknown::Fire, ..rule() });
    story.step(0, Observation::Unknown(Unknown::NoData));
    story.step(300, Observation::Unknown(Unknown::NoData));
    let unknown = "nobody knows the value, which `on_unknown: fire` counts as met, and has been for 5m";
    assert_eq!(story.last(), unknown);
}
