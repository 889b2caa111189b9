//! Rules that span partitions give the results that one partition with all events would give.

use proptest::prelude::*;
use std::collections::VecDeque;
use streamgauge::core::event::{Event, Observation};
use streamgauge::core::measure::partial::Partials;
use streamgauge::core::record::{Body, Control, Record};
use streamgauge::core::rule::RuleSet;
use streamgauge::core::vocab::identity::{Identity, IdentityTable, Labels, SeriesRef};
use streamgauge::core::vocab::limits::Limits;
use streamgauge::core::vocab::partition::Partition;
use streamgauge::core::vocab::unit::Unit;
use streamgauge::core::{Effects, Engine, Span, Timestamp};
use streamgauge::pipeline::load_files;
use streamgauge::wire::{alert, partial, snapshot};

const START_MS: i64 = 1_793_491_200_000;
const SOURCES: usize = 6;
const PARTITIONS: u32 = 3;
const END_MS: i64 = START_MS + 900_000;
const AHEAD_MAX: Span = Span::from_mins(9);

/// Means of whole numbers are exact, whatever the order in which they are added.
const RULES: &str = "version: 1
record:
  - { name: busiest_ms, expr: 'max(latency_ms[1m]) by (zone)' }
  - { name: requests, expr: 'count(latency_ms[30s]) by (source)' }
rules:
  - { id: many, expr: 'count(latency_ms[1m]) by () > 8', severity: info }
  - { id: slow, expr: 'p90(latency_ms[1m]) by (zone)', levels: { warning: '> 300ms', critical: '> 900ms' }, for: 30s }
  - { id: mean, expr: 'avg(latency_ms[5m]) by (zone) > 450ms', severity: warning, min_count: 3, keep_firing_for: 1m }
  - { id: worst, expr: 'last(busiest_ms[1m]) by (zone) > 800ms', severity: warning }
  - { id: each, expr: 'max(requests[1m]) by () > 2', severity: info }
  - { id: bound, expr: 'p50(latency_ms[1m]) by (source) > 500ms', severity: info }
";

fn rules() -> RuleSet {
    load_files(vec![("rules.yaml".into(), RULES.into())]).rules.expect("rules that are right")
}

fn limits(partition: Partition) -> Limits {
    // Partials are sent every ten seconds, so all rules are evaluated at that interval.
    Limits { partition, evaluation_interval: Span::from_secs(10), ..Limits::default() }
}

fn directory() -> IdentityTable {
    let mut directory = IdentityTable::default();
    let identity = |n: usize| {
        let labels = Labels::of([("zone", if n.is_multiple_of(2) { "a" } else { "b" })]);
        Identity::new(format!("s-{n}").into(), "latency_ms".into(), labels, Some(Unit::Ms)).expect("valid")
    };
    directory.learn(0, (0..SOURCES).map(|n| identity(n).into()));
    directory
}

/// (ingest offset ms, lag ms, source, value)
type Input = (i64, i64, usize, u32);

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    prop::collection::vec((0..800_000i64, 0..80_000i64, 0..SOURCES, 1..1_200u32), 1..250).prop_map(
        |mut all| {
            all.sort_by_key(|input| input.0);
            all
        },
    )
}

/// An engine with its rules, and the number of records in its log so far.
struct Log {
    engine: Engine,
    seq: u64,
    out: Effects,
}

impl Log {
    fn new(partition: Partition) -> Log {
        let mut log = Log { engine: Engine::new(limits(partition)), seq: 0, out: Effects::default() };
        let control = Control::Rules(Box::new(rules().within(partition)));
        log.handle(START_MS, Body::Control(&control));
        log
    }

    fn handle(&mut self, at_ms: i64, body: Body<'_>) {
        self.seq += 1;
        let stamp = Timestamp::clamped(at_ms);
        let record = Record { seq: self.seq, stamp, limit: None, bad: &[], body };
        self.engine.handle(&record, &directory(), &mut self.out);
    }

    /// Handles the ticks that an owner sends while no other record arrives.
    fn tick_until(&mut self, at_ms: i64) {
        while let Some(wake) = self.engine.next_wake().filter(|wake| wake.ms() < at_ms) {
            self.handle(wake.ms(), Body::Tick);
        }
    }

    fn transitions(&self) -> Vec<String> {
        let spanning: Vec<&str> = vec!["many", "slow", "mean", "worst", "each"];
        let told = self.out.transitions.iter().filter(|told| spanning.contains(&&*told.rule));
        told.map(alert::line).collect()
    }
}

fn event(input: &Input) -> (i64, Event) {
    let (at, lag, source, value) = *input;
    let time = Timestamp::clamped(START_MS + at - lag);
    (
        START_MS + at,
        Event::Metric(Observation { who: SeriesRef::new(0, source), time, value: f64::from(value) }),
    )
}

/// The transitions of one partition with all events.
fn alone(inputs: &[Input]) -> Vec<String> {
    let mut log = Log::new(Partition::default());
    for (at, event) in inputs.iter().map(event) {
        log.tick_until(at);
        log.handle(at, Body::Events(&[event]));
    }
    log.tick_until(END_MS);
    log.transitions()
}

/// The messages that each partition sends to the aggregate, in order.
fn sent(inputs: &[Input]) -> Vec<VecDeque<Partials>> {
    let mut logs: Vec<Log> =
        (0..PARTITIONS).map(|index| Log::new(Partition { index, count: PARTITIONS })).collect();
    for input in inputs {
        let (at, event) = event(input);
        let source = format!("s-{}", input.2);
        let log = logs.iter_mut().find(|log| log.engine.limits().partition.holds(&source));
        let log = log.expect("a partition for each source");
        log.tick_until(at);
        log.handle(at, Body::Events(&[event]));
    }
    let finish = |mut log: Log| {
        log.tick_until(END_MS);
        let carried = |partials: &Partials| partial::decode(&partial::encode(partials)).expect("our own");
        log.out.partials.iter().map(carried).collect()
    };
    logs.into_iter().map(finish).collect()
}

/// Feeds the messages to the aggregate in some order, and restores it from a snapshot now and then.
fn aggregate(mut sent: Vec<VecDeque<Partials>>, order: &[usize]) -> Log {
    let mut log = Log::new(Partition::aggregate(PARTITIONS));
    let mut numbers = vec![0; sent.len()];
    let mut turns = order.iter().cycle();
    let next = |waiting: &VecDeque<Partials>| waiting.front().map(|partials| partials.clock);
    while let Some(slowest) = sent.iter().filter_map(next).min() {
        // No partition may be so far ahead that the others would be left behind.
        let may_go = |waiting: &VecDeque<Partials>| next(waiting).is_some_and(|at| at - slowest < AHEAD_MAX);
        let turn = turns.next().expect("a cycle") % sent.len();
        let from = (turn..sent.len()).chain(0..turn).find(|at| may_go(&sent[*at])).expect("the slowest may");
        let Some(partials) = sent[from].pop_front() else { continue };
        numbers[from] += 1;
        log.handle(0, Body::Partials { from: from as u32, number: numbers[from], partials: &partials });
        if numbers[from].is_multiple_of(17) {
            let bytes = snapshot::encode(&log.engine).expect("memory");
            log.engine = snapshot::decode(&bytes, limits(Partition::aggregate(PARTITIONS))).expect("our own");
        }
    }
    log
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_aggregate_says_what_one_partition_says(inputs in inputs(), order in prop::collection::vec(0..16usize, 1..40)) {
        let log = aggregate(sent(&inputs), &order);
        prop_assert_eq!(log.transitions(), alone(&inputs));
        prop_assert_eq!(log.engine.counters().partials_unread, 0);
    }
}

/// Goal: a partition without an owner does not block the rules of the others forever. Method: one of three
/// sends nothing from the second minute on; the rest of its time is a gap, and no alert is resolved because
/// of it.
#[test]
fn a_partition_that_lags_is_a_gap_and_nothing_is_resolved() {
    let inputs: Vec<Input> = (0..800).map(|n| (n * 1_000, 0, n as usize % SOURCES, 1_100)).collect();
    let mut sent = sent(&inputs);
    let until = Timestamp::clamped(START_MS + 120_000);
    sent[1].retain(|partials| partials.clock <= until);
    let log = aggregate(sent, &[0, 1, 2]);
    assert!(log.engine.now() >= Timestamp::clamped(END_MS - 700_000), "{}", log.engine.now());
    let told = log.transitions();
    assert!(
        told.iter().any(|line| line.contains("\"rule\":\"slow\"") && line.contains("critical")),
        "{told:?}"
    );
    assert!(!told.iter().any(|line| line.contains("\"state\":\"resolved\"")), "{told:?}");
    assert!(log.engine.counters().partials_overdue > 0);
}

/// A repeated message changes nothing; a missing one is a gap.
#[test]
fn a_message_counts_once_and_a_missing_one_is_a_gap() {
    let inputs: Vec<Input> = (0..880).map(|n| (n * 1_000, 0, n as usize % SOURCES, 1_100)).collect();
    let sent = sent(&inputs);
    let mut log = Log::new(Partition::aggregate(PARTITIONS));
    for (place, number) in (0..sent[0].len()).zip(1..) {
        for (from, partials) in sent.iter().enumerate().filter(|(from, _)| (*from, number) != (0, 7)) {
            for _ in 0..2 {
                log.handle(0, Body::Partials { from: from as u32, number, partials: &partials[place] });
            }
        }
    }
    assert!(log.engine.counters().partials_repeated > 200);
    assert_eq!(log.engine.counters().partials_missing, 1);
    let told = log.transitions();
    assert!(told.iter().any(|line| line.contains("\"rule\":\"slow\"")), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("\"state\":\"resolved\"")), "{told:?}");
}
