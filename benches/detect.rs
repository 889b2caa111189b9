//! Detectors: false-alarm rate and detection rate on simulated data compared with standard tests, their
//! cost, and a day without any change.
//!
//! `cargo bench --bench detect` prints all of it in about three minutes on two cores.
//! `cargo bench --bench detect scale` takes four minutes and prints the cost of detectors with a hundred
//! thousand series, half of them on each core.

use std::time::Instant;
use streamgauge::core::detect::regression::{Deploy, Profile, Reference, Window};
use streamgauge::core::detect::{mean_and_deviation, quantile_of_sorted};
use streamgauge::core::event::{Event, Observation};
use streamgauge::core::record::{Body, Record};
use streamgauge::core::vocab::comparison::Side;
use streamgauge::core::vocab::identity::{Identity, IdentityTable, Labels, SeriesRef};
use streamgauge::core::vocab::limits::Limits;
use streamgauge::core::{Effects, Engine, Timestamp};
use streamgauge::pipeline::load_files;

/// The allocator of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// SplitMix64 with the Box–Muller transform: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// Requests of one window.
const REQUESTS: usize = 100;

/// Deployments of a baseline, windows of each, and consecutive windows that must all be unusual.
const DEPLOYS: usize = 8;
const WINDOWS: usize = 12;
const IN_A_ROW: usize = 3;

/// Rounds of each cell. The case of one run without a change takes more, because about one window in a
/// thousand alarms.
const ROUNDS: usize = 1_500;
const NULL_ROUNDS: usize = 20_000;

/// Standard deviation, on the log scale, of the versions' levels (2 %) and of the windows of one version
/// (1 %).
const BETWEEN: f64 = 0.02;
const WITHIN: f64 = 0.01;

/// Spread of the values of one window. Requests of a service vary by a third, so chance within a window
/// dominates. Timings of a benchmark vary by a few percent, so the variation between windows dominates.
const KINDS: [(&str, f64); 2] = [("requests of a service", 0.3), ("timings of a benchmark", 0.03)];

/// Values of one window: log-normal, with a share of them three times as slow.
fn requests(dice: &mut Dice, spread: f64, level: f64, slow: f64) -> Vec<f64> {
    let level = level * (WITHIN * dice.normal()).exp();
    let mut one = || {
        let factor = if dice.uniform() < slow { 3.0 } else { 1.0 };
        factor * level * (spread * dice.normal()).exp()
    };
    (0..REQUESTS).map(|_| one()).collect()
}

/// The engine's summary of a window: its p95 and the profile of its values.
fn window(values: &[f64], above: f64) -> Window {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let q = |q: f64| quantile_of_sorted(&sorted, q);
    let logs: Vec<f64> = values.iter().map(|value| value.ln()).collect();
    let (mean, deviation) = mean_and_deviation(&logs);
    let tail = values.iter().filter(|value| **value > above).count() as f64 / values.len() as f64;
    let log = Some((mean, deviation / (values.len() as f64).sqrt()));
    let profile = Profile { p50: q(0.5), p50_error: (q(0.55) - q(0.45)) / 2.0, tail, log };
    Window { count: values.len() as u64, value: q(0.95), profile: Some(profile) }
}

/// A test for whether a window is worse: its statistic, and the limit for a false-alarm rate of one in a
/// thousand.
struct Method {
    name: &'static str,
    limit: f64,
    of: fn(&Past, &[f64]) -> f64,
}

/// The baseline that each method compares with.
struct Past {
    /// All requests, ascending.
    all: Vec<f64>,
    means: (f64, f64),
    above: f64,
    reference: Reference,
}

const METHODS: [Method; 4] = [
    Method { name: "z of the mean > 3.09", limit: 3.09, of: z },
    Method { name: "Kolmogorov-Smirnov", limit: 1.95, of: ks },
    Method { name: "Mann-Whitney", limit: 3.09, of: mann_whitney },
    Method { name: OURS, limit: 1.0, of: ours },
];

fn z(past: &Past, now: &[f64]) -> f64 {
    (mean_and_deviation(now).0 - past.means.0) / past.means.1
}

fn ks(past: &Past, now: &[f64]) -> f64 {
    let mut sorted = now.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (n, m) = (past.all.len() as f64, sorted.len() as f64);
    let share = |value: f64| past.all.partition_point(|x| *x <= value) as f64 / n;
    let gaps = sorted.iter().enumerate().map(|(at, value)| share(*value) - at as f64 / m);
    gaps.fold(0.0, f64::max) * (n * m / (n + m)).sqrt()
}

fn mann_whitney(past: &Past, now: &[f64]) -> f64 {
    let (n, m) = (past.all.len() as f64, now.len() as f64);
    let below: f64 = now.iter().map(|value| past.all.partition_point(|x| x < value) as f64).sum();
    (below - n * m / 2.0) / (n * m * (n + m + 1.0) / 12.0).sqrt()
}

fn ours(past: &Past, now: &[f64]) -> f64 {
    let (reference, window) = (&past.reference, window(now, past.above));
    let mut sorted = now.to_vec();
    sorted.sort_by(f64::total_cmp);
    let read = |q: f64| Some(quantile_of_sorted(&sorted, q));
    let errors = reference.errors(Some(0.95), &window, Side::Above, read);
    reference.judge(&window, errors, Side::Above, None).ratio()
}

fn past(dice: &mut Dice, spread: f64, is_of_deploys: bool) -> (Past, f64) {
    let level = |dice: &mut Dice| 100.0 * (BETWEEN * dice.normal()).exp();
    let own = level(dice);
    let runs: Vec<Vec<Vec<f64>>> = (0..if is_of_deploys { DEPLOYS } else { 1 })
        .map(|_| {
            let level = if is_of_deploys { level(dice) } else { own };
            let windows = if is_of_deploys { WINDOWS } else { 2 * WINDOWS };
            (0..windows).map(|_| requests(dice, spread, level, 0.0)).collect()
        })
        .collect();
    let mut all: Vec<f64> = runs.iter().flatten().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let above = quantile_of_sorted(&all, 0.95);
    let means: Vec<f64> = runs.iter().flatten().map(|values| mean_and_deviation(values).0).collect();
    let windows =
        |run: &Vec<Vec<f64>>| run.iter().map(|values| window(values, above)).collect::<Vec<Window>>();
    let reference = match is_of_deploys {
        true => {
            let deploys: Vec<Deploy> = runs.iter().filter_map(|run| Deploy::of(&windows(run))).collect();
            Reference::learn_deploys(&deploys)
        }
        false => Reference::learn(&windows(&runs[0])),
    };
    let reference = reference.expect("enough windows");
    (Past { all, means: mean_and_deviation(&means), above, reference }, own)
}

/// The statistic of each method in each round: the minimum over `in_a_row` windows.
fn statistics(
    spread: f64,
    is_of_deploys: bool,
    factor: f64,
    slow: f64,
    in_a_row: usize,
    seed: u64,
    rounds: usize,
) -> Vec<[f64; 4]> {
    let mut dice = Dice(seed);
    (0..rounds)
        .map(|_| {
            let (past, level) = past(&mut dice, spread, is_of_deploys);
            let mut least = [f64::INFINITY; 4];
            for _ in 0..in_a_row {
                let now = requests(&mut dice, spread, level * factor, slow);
                for (least, method) in least.iter_mut().zip(&METHODS) {
                    *least = least.min((method.of)(&past, &now));
                }
            }
            least
        })
        .collect()
}

fn share_above(statistics: &[[f64; 4]], at: usize, limit: f64) -> f64 {
    100.0 * statistics.iter().filter(|one| one[at] > limit).count() as f64 / statistics.len() as f64
}

/// Prints the false-alarm rate at the nominal limit, and the detection rate at a false-alarm rate of 1 %.
fn table((words, spread): (&str, f64)) {
    println!("{words}, windows of {REQUESTS}; false alarms at nominal 0.1 %, and what is found at 1 % false");
    println!(
        "{:<22} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "same run", "8 deploys", "x1.05", "x1.10", "x1.25", "10% slow", "20%", "50%"
    );
    let null_run = statistics(spread, false, 1.0, 0.0, 1, 1, NULL_ROUNDS);
    let null = statistics(spread, true, 1.0, 0.0, IN_A_ROW, 2, ROUNDS);
    let shifts = [1.05, 1.10, 1.25].map(|factor| statistics(spread, true, factor, 0.0, IN_A_ROW, 3, ROUNDS));
    let slow = [0.1, 0.2, 0.5].map(|slow| statistics(spread, false, 1.0, slow, 1, 4, ROUNDS));
    for (at, method) in METHODS.iter().enumerate() {
        let limit = |null: &[[f64; 4]]| {
            let mut all: Vec<f64> = null.iter().map(|one| one[at]).collect();
            all.sort_by(f64::total_cmp);
            quantile_of_sorted(&all, 0.99)
        };
        let (of_deploys, of_run) = (limit(&null), limit(&null_run));
        let falsely = [&null_run, &null].map(|cell| share_above(cell, at, method.limit));
        let shifted = [0, 1, 2].map(|cell| share_above(&shifts[cell], at, of_deploys));
        let slowed = [0, 1, 2].map(|cell| share_above(&slow[cell], at, of_run));
        let [a, b] = falsely;
        print!("{:<22} {a:>8.2}% {b:>8.2}%", method.name);
        shifted.iter().chain(&slowed).for_each(|share| print!(" {share:>7.0}%"));
        println!();
        if method.name == OURS {
            assert!(falsely.iter().all(|share| *share <= FALSE_MAX), "{falsely:?} % false");
            let found = [shifted[2], slowed[0], slowed[1], slowed[2]];
            let is_enough = found.iter().zip(FOUND_MIN).all(|(found, least)| *found >= least);
            assert!(is_enough, "{found:?} % found, of {FOUND_MIN:?}");
        }
    }
}

/// The method that must meet its limits: the percentage of unchanged windows that may alarm, and the
/// percentage of windows that must be found when they are 25 % slower or have 10, 20 or 50 % slow requests.
/// Shifts of 5 and 10 % have no limit: with versions that differ by 2 % here, no method finds many of them.
const OURS: &str = "regression";
const FALSE_MAX: f64 = 0.2;
const FOUND_MIN: [f64; 4] = [92.0, 55.0, 95.0, 100.0];

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    line.and_then(|kib| kib.trim().parse().ok()).unwrap_or(0)
}

const START_MS: i64 = 1_793_491_200_000;

/// Feeds one value a minute of each series. Returns the number of alerts, the time from minute `timed_from`
/// on, and the resident memory in KiB.
fn quiet(rules: &str, series: usize, minutes: i64, timed_from: i64) -> (usize, f64, u64) {
    let loaded = load_files(vec![("bench".into(), rules.into())]);
    let (mut engine, mut out) = (Engine::new(Limits::default()), Effects::default());
    engine.load(loaded.rules.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics)), &mut out);
    let mut directory = IdentityTable::default();
    let identity = |n: usize| {
        Identity::new(format!("s-{n}").into(), "load".into(), Labels::default(), None).expect("valid").into()
    };
    directory.learn(0, (0..series).map(identity));
    let (mut dice, mut told) = (Dice(9), 0);
    let mut begun = Instant::now();
    for minute in 0..minutes {
        if minute == timed_from {
            begun = Instant::now();
        }
        let time = Timestamp::from_ms(START_MS + minute * 60_000 + 30_000).expect("in range");
        let event = |at: usize, dice: &mut Dice| {
            let value = 100.0 + 5.0 * dice.normal();
            Event::Metric(Observation { who: SeriesRef::new(0, at), time, value })
        };
        let events: Vec<Event> = (0..series).map(|at| event(at, &mut dice)).collect();
        let record = Record {
            seq: minute as u64 + 1,
            stamp: time,
            limit: None,
            bad: &[],
            body: Body::Events(&events),
        };
        engine.handle(&record, &directory, &mut out);
        told += out.transitions.iter().filter(|one| one.seq == 0 && !one.rule.starts_with("_sg_")).count();
        out.clear();
    }
    let took = begun.elapsed().as_secs_f64();
    (told, took, resident_kib())
}

const ALL: &str = "rules:
  - { id: a, expr: 'regression(p95(load[1m]) by (source), 5h) > 10%', severity: info }
  - { id: b, expr: 'anomaly(avg(load[1m]) by (source), 5h) > 1', severity: info }
  - { id: c, expr: 'trend(avg(load[1m]) by (source), 1h) > 50', severity: info }
  - { id: d, expr: 'forecast(avg(load[1m]) by (source), 1h, 1h) > 1000', severity: info }
  - { id: e, expr: 'abs(robust_z(avg(load[1m]) by (source), 5h)) > 9', severity: info }
  - { id: f, expr: 'avg(load[1m]) by (source) > upper(avg(load[1m]) by (source), 5h, 9)', severity: info }
  - { id: g, expr: 'regression(count(load[1m]) by (source), 5h) < -90%', severity: info }
";

const PLAIN: &str = "rules: [{ id: a, expr: 'avg(load[1m]) by (source) > 1000', severity: info }]";

const COST_SERIES: usize = 2_000;
const COST_MINUTES: i64 = 420;

/// From this minute on the longest period, 5 h, is full: each new window evicts the oldest one.
const COST_FROM: i64 = 310;

const COST_TIMED: i64 = COST_MINUTES - COST_FROM;

const SCALE_SERIES: usize = 100_000;

/// Prints the cost of each detector, and of all together, per series and per closed window.
fn cost() {
    let cost = Cost { series: COST_SERIES, plain: apart(PLAIN, ONE_CORE) };
    for rule in ALL.lines().skip(1) {
        let expr = rule.split('\'').nth(1).unwrap_or_default();
        cost.say(expr, apart(&format!("rules:\n{rule}"), ONE_CORE));
    }
    cost.say("all of them", apart(ALL, ONE_CORE));
}

/// Measures the same with as many series as a machine of two cores must carry: two engines, like two
/// partitions.
fn scale() {
    let cost = Cost { series: SCALE_SERIES, plain: apart(PLAIN, TWO_CORES) };
    println!("a plain rule on two cores: {:.0} ms a minute", cost.plain.0 * 1e3 / COST_TIMED as f64);
    cost.say("all of them on two cores", apart(ALL, TWO_CORES));
}

/// The cost of detectors beyond that of a plain rule, which is subtracted.
struct Cost {
    series: usize,
    plain: (f64, u64),
}

impl Cost {
    fn say(&self, what: &str, (took, kib): (f64, u64)) {
        let (plain, before) = self.plain;
        println!(
            "cost of {what}: {:.2} us a closed window, {:.1} KiB a series",
            (took - plain) * 1e6 / (self.series as f64 * COST_TIMED as f64),
            kib.saturating_sub(before) as f64 / self.series as f64
        );
    }
}

/// Measures time and memory in a separate process: memory that an earlier run freed would be reused and not
/// counted.
fn apart(rules: &str, cores: &str) -> (f64, u64) {
    let own = std::env::current_exe().expect("it runs");
    let output = std::process::Command::new(own).args([cores, rules]).output().expect("it starts");
    let said = String::from_utf8(output.stdout).expect("text");
    let (took, kib) = said.trim().split_once(' ').unwrap_or_else(|| panic!("{said}"));
    (took.parse().expect("a number"), kib.parse().expect("a number"))
}

/// The first argument of such a process.
const ONE_CORE: &str = "one";
const TWO_CORES: &str = "two";

/// Runs such a process on one core.
fn one(rules: &str) {
    let (_, took, kib) = quiet(rules, COST_SERIES, COST_MINUTES, COST_FROM);
    println!("{took} {kib}");
}

/// Runs such a process on two cores. Its time is that of the slower half.
fn two(rules: &str) {
    let half = || quiet(rules, SCALE_SERIES / 2, COST_MINUTES, COST_FROM);
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(half);
        (half(), other.join().expect("it ends"))
    });
    println!("{} {}", a.1.max(b.1), a.2.max(b.2));
}

/// Simulates a day of ten thousand series without any change.
fn null_day() {
    // With each key judged by itself there are so many alerts that two hours are enough.
    let (together, alone) = ("all keys together (default)", "each key by itself (fdr: off)");
    for (words, fdr, minutes) in [(together, "", 1_440), (alone, ", fdr: off", 120)] {
        let rules = format!(
            "rules: [{{ id: r, expr: 'regression(avg(load[1m]) by (source), 1h) > 5%', severity: info{fdr} }}]"
        );
        let (told, took, _) = quiet(&rules, 10_000, minutes, 0);
        println!(
            "nothing happens in 10,000 series for {minutes} windows: {told} alerts, {words} ({took:.0} s)"
        );
        assert!(!fdr.is_empty() || told <= 1, "more than one false alert a day");
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<&str>>()[..] {
        [ONE_CORE, rules] => return one(rules),
        [TWO_CORES, rules] => return two(rules),
        _ => {}
    }
    let wanted = words.first().filter(|word| !word.starts_with('-'));
    if wanted.is_some_and(|wanted| wanted == "scale") {
        return scale();
    }
    let is_wanted = |word: &str| wanted.is_none_or(|wanted| wanted == word);
    if is_wanted("table") {
        KINDS.into_iter().for_each(table);
    }
    if is_wanted("cost") {
        cost();
    }
    if is_wanted("null") {
        null_day();
    }
}
