//! Detection over many keys and many hours: published alerts equal those of an exact evaluation of every
//! key.

use crate::START_MS;
use std::collections::BTreeMap;
use streamgauge::core::alert::Transition;
use streamgauge::core::event::{Event, Observation};
use streamgauge::core::record::{Body, Record};
use streamgauge::core::vocab::identity::{Identity, IdentityTable, Labels, SeriesRef};
use streamgauge::core::vocab::limits::Limits;
use streamgauge::core::{Effects, Engine, Timestamp};
use streamgauge::pipeline::load_files;

/// Standard normal values, the same in every run.
struct Dice(u64);

impl Dice {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Feeds three hours of two thousand series, one value a minute each. From the third hour on, one series is
/// a third higher. Returns the keys whose alerts fire.
fn keys_that_fire(expr: &str, fdr: &str) -> Vec<String> {
    const SERIES: usize = 2_000;
    let text = format!("rules: [{{ id: r, expr: '{expr}', severity: info{fdr} }}]");
    let loaded = load_files(vec![("rules".into(), text)]);
    let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
    engine.load(loaded.rules.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics)), &mut out);
    let mut directory = IdentityTable::default();
    let identity = |n: usize| {
        Identity::new(format!("s-{n}").into(), "load".into(), Labels::default(), None).expect("valid").into()
    };
    directory.learn(0, (0..SERIES).map(identity));
    let mut dice = Dice(7);
    for minute in 0..180i64 {
        let time = Timestamp::clamped(START_MS + minute * 60_000 + 30_000);
        let value = |series: usize, dice: &mut Dice| {
            let level = if series == 7 && minute >= 120 { 133.0 } else { 100.0 };
            level + 3.0 * dice.normal()
        };
        let events: Vec<Event> = (0..SERIES)
            .map(|series| {
                let value = value(series, &mut dice);
                Event::Metric(Observation { who: SeriesRef::new(0, series), time, value })
            })
            .collect();
        let body = Body::Events(&events);
        let record = Record { seq: minute as u64 + 1, stamp: time, limit: None, bad: &[], body };
        engine.handle(&record, &directory, &mut out);
    }
    let fired = out.transitions.iter().filter(|one| one.seq == 0);
    fired.map(|one| one.key.get("source").map(ToString::to_string).unwrap_or_default()).collect()
}

/// Goal: many unchanged keys together cause no alert, and the changed one does. Method: the same three
/// hours with each key judged by itself, and with all judged together, which is the default for so many
/// keys.
#[test]
fn many_keys_are_judged_together() {
    let expr = "regression(avg(load[1m]) by (source), 1h) > 5%";
    let alone = keys_that_fire(expr, ", fdr: off");
    assert!(alone.len() > 50 && alone.iter().any(|key| key == "s-7"), "{} keys by themselves", alone.len());
    assert_eq!(keys_that_fire(expr, ""), ["s-7"]);
    assert_eq!(keys_that_fire(expr, ", fdr: 1%"), ["s-7"]);
    let expr = "anomaly(avg(load[1m]) by (source), 100m) > 1";
    let alone = keys_that_fire(expr, ", fdr: off");
    assert!(alone.len() > 50 && alone.iter().any(|key| key == "s-7"), "{} keys by themselves", alone.len());
    assert_eq!(keys_that_fire(expr, ""), ["s-7"]);
}

/// Functions of the past and their limits, for values around 100; each limit is met now and then.
const ASKED: [&str; 14] = [
    "regression(p95(load[1m]) by (source), 1h) > 5%",
    "regression(avg(load[1m]) by (source), 5h) < -5%",
    "regression_score(avg(load[1m]) by (source), 2h) > 1",
    "regression(count(load[1m]) by (source), 2h) < -50%",
    "regression(rate(load[1m]) by (source), 3h) > 50%",
    "anomaly(avg(load[1m]) by (source), 3h) > 1",
    "trend(avg(load[1m]) by (source), 1h) > 4",
    "forecast(avg(load[1m]) by (source), 2h, 1h) < 90",
    "abs(zscore(avg(load[1m]) by (source), 2h)) >= 2",
    "robust_z(avg(load[1m]) by (source), 2h) < -2.5",
    "max(load[1m]) by (source) > upper(max(load[1m]) by (source), 2h, 2)",
    "lower(avg(load[1m]) by (source), 1h, 3) > min(load[1m]) by (source)",
    "robust_z(avg(load[1m]) by (source), 2h) > 2.5 and count(load[1m]) by (source) > 4",
    "zscore(max(load[1m]) by (source), 2h) > 2 unless anomaly(avg(load[1m]) by (source), 3h) > 1",
];

/// Ten hours of three sources: one is steady, one has few values and silent times, one jumps. Some values
/// arrive late.
fn ten_hours(dice: &mut Dice) -> Vec<(i64, Event)> {
    let mut events = Vec::new();
    let (mut is_silent, mut level) = (false, 100.0);
    for minute in 0..600i64 {
        is_silent ^= dice.uniform() < 0.03;
        if dice.uniform() < 0.02 {
            level = 100.0 + 8.0 * dice.normal();
        }
        for series in 0..3 {
            let many = match series {
                0 => 35.0,
                1 if is_silent => 0.0,
                _ => 6.0 * dice.uniform(),
            };
            for _ in 0..many as usize {
                let own = if series == 2 { level } else { 100.0 };
                let value = own + 4.0 * dice.normal();
                let late = if dice.uniform() < 0.01 { dice.uniform() * 1_800_000.0 } else { 0.0 };
                let stamp = minute * 60_000 + (dice.uniform() * 60_000.0) as i64;
                let time = Timestamp::clamped(START_MS + stamp - late as i64);
                let who = SeriesRef::new(0, series);
                events.push((START_MS + stamp, Event::Metric(Observation { who, time, value })));
            }
        }
    }
    events.sort_by_key(|(stamp, _)| *stamp);
    events
}

/// Goal: the bounds that skip exact evaluation never change a result. Method: each rule twice, once with an
/// `or` whose second condition never holds and for which no bounds exist, so that it is always evaluated
/// exactly; both must publish the same transitions at the same times, for the same reasons.
#[test]
fn who_looks_roughly_sees_what_others_see() {
    let rule = |at: usize, words: &str, expr: &str| {
        format!("  - {{ id: {words}{at}, expr: '{expr}', severity: info, cooldown: 0s }}\n")
    };
    // No bounds exist for `min`, so the whole condition has none either.
    let always = "or min(count(load[1m]) by (source), 1) < 0";
    let rules = ASKED
        .iter()
        .enumerate()
        .map(|(at, expr)| rule(at, "a", expr) + &rule(at, "b", &format!("({expr}) {always}")));
    let text = format!("rules:\n{}", rules.collect::<String>());
    let mut directory = IdentityTable::default();
    let identity = |n: usize| {
        Identity::new(format!("s-{n}").into(), "load".into(), Labels::default(), None).expect("valid").into()
    };
    directory.learn(0, (0..3).map(identity));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..3 {
        let loaded = load_files(vec![("rules".into(), text.clone())]);
        let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
        engine.load(loaded.rules.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics)), &mut out);
        for (seq, (stamp, event)) in ten_hours(&mut Dice(seed)).into_iter().enumerate() {
            let (stamp, body) = (Timestamp::clamped(stamp), Body::Events(std::slice::from_ref(&event)));
            let record = Record { seq: seq as u64 + 1, stamp, limit: None, bad: &[], body };
            engine.handle(&record, &directory, &mut out);
        }
        for (at, expr) in ASKED.iter().enumerate() {
            let of = |words: &str| -> Vec<String> {
                let id = format!("{words}{at}");
                let own = out.transitions.iter().filter(|one| *one.rule == *id);
                own.map(|one| {
                    let Transition { state, change, key, value, started_at, at, evidence, .. } = one;
                    format!(
                        "{state:?} {change:?} {key:?} {value:?} {started_at} {at} {:?}",
                        evidence.baseline
                    )
                })
                .collect()
            };
            let (roughly, closely) = (of("a"), of("b"));
            let differs = roughly.iter().zip(&closely).find(|(a, b)| a != b);
            assert_eq!(differs, None, "seed {seed}: {expr}");
            assert_eq!(roughly.len(), closely.len(), "seed {seed}: {expr}");
            *seen.entry((*expr).into()).or_default() += roughly.len();
        }
    }
    assert!(seen.values().all(|count| *count > 5), "{seen:#?}");
}
