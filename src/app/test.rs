//! `streamgauge test`: the test cases beside the rules, in the engine, on a virtual clock.

use super::cli::TestArgs;
use super::{FAILED, FINE};
use crate::core::alert::Transition;
use crate::core::alert::transition::State;
use crate::core::event::{Body, Record};
use crate::core::identity::Directory;
use crate::core::limits::Limits;
use crate::core::rule::RuleSet;
use crate::core::{Effects, Engine, Timestamp};
use crate::pipeline::load_dir;
use crate::pipeline::test_case::{Expectation, ExpectedState, TestCase};
use crate::wire::event::{Decoded, Decoder};
use anyhow::Result;

pub fn run(args: &TestArgs) -> Result<u8> {
    let (mut passed, mut failed) = (0, 0);
    for path in super::check::paths(&args.paths) {
        let rules = super::check::load(&path)?;
        for test in load_dir(&path)?.tests {
            let wrong = run_case(&rules, &test);
            if wrong.is_empty() {
                passed += 1;
                println!("ok    {}:{} {}", test.file, test.line, test.name);
            } else {
                failed += 1;
                println!("FAIL  {}:{} {}", test.file, test.line, test.name);
                wrong.iter().for_each(|line| println!("      {line}"));
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(if failed > 0 { FAILED } else { FINE })
}

/// Runs one test case; what was not as expected.
pub fn run_case(rules: &RuleSet, test: &TestCase) -> Vec<String> {
    let mut bench = Bench::new(rules);
    let mut wrong = Vec::new();
    let mut events = test.events.iter().peekable();
    for expectation in &test.expectations {
        while let Some((at, event)) = events.next_if(|(at, _)| *at < expectation.at) {
            wrong.extend(bench.send(*at, &event.to_string()));
        }
        bench.advance(expectation.at);
        wrong.extend(compare(expectation, &bench.engine.active_alerts()));
    }
    wrong
}

/// An engine on a virtual clock, with an owner that ticks in time.
struct Bench {
    engine: Engine,
    decoder: Decoder,
    directory: Directory,
    effects: Effects,
    seq: u64,
}

impl Bench {
    fn new(rules: &RuleSet) -> Bench {
        let (mut engine, mut effects) = (Engine::new(Limits::default()), Effects::default());
        engine.load(rules.clone(), &mut effects);
        Bench { engine, decoder: Decoder::new(0), directory: Directory::default(), effects, seq: 0 }
    }

    fn send(&mut self, at: Timestamp, event: &str) -> Option<String> {
        self.advance(at);
        let mut decoded = Decoded::default();
        self.decoder.json_one(0, event.as_bytes(), &mut decoded);
        self.directory.learn(0, self.decoder.take_found());
        self.handle(at, Body::Events(&decoded.events));
        decoded.bad.first().map(|bad| format!("{at}: event refused, {}: {}", bad.reason.name(), bad.message))
    }

    /// Ticks at each wake-up up to `at`, as a live owner would.
    fn advance(&mut self, at: Timestamp) {
        while let Some(wake) = self.engine.next_wake().filter(|wake| *wake < at) {
            self.handle(wake, Body::Tick);
        }
        if self.seq > 0 {
            self.handle(at, Body::Tick);
        }
    }

    fn handle(&mut self, stamp: Timestamp, body: Body<'_>) {
        self.seq += 1;
        let record = Record { seq: self.seq, stamp, limit: None, bad: &[], body };
        self.engine.handle(&record, &self.directory, &mut self.effects);
        self.effects.clear();
    }
}

fn compare(expected: &Expectation, alerts: &[Transition]) -> Option<String> {
    let is_meant = |alert: &&Transition| {
        *alert.rule == *expected.rule
            && expected.key.iter().all(|(label, value)| alert.key.get(label).is_some_and(|v| **v == **value))
    };
    let found: Vec<&Transition> = alerts.iter().filter(is_meant).collect();
    let describe = |alert: &Transition| {
        format!(
            "{:?} {} of {}",
            alert.state,
            alert.severity.name(),
            serde_json::to_string(&alert.key).unwrap_or_default()
        )
        .to_lowercase()
    };
    let is_as_expected = match expected.state {
        None => found.is_empty(),
        Some(state) => found.iter().any(|alert| {
            let is_pending = alert.state == State::Pending;
            (state == ExpectedState::Pending) == is_pending
                && expected.severity.is_none_or(|severity| severity == alert.severity)
        }),
    };
    let shown: Vec<String> = found.into_iter().map(describe).collect();
    let shown = if shown.is_empty() { "no alert".to_string() } else { shown.join(", ") };
    let wanted = match expected.state {
        None => "no alert".to_string(),
        Some(state) => {
            let severity = expected.severity.map_or("", |severity| severity.name());
            format!("{state:?} {severity}").to_lowercase()
        }
    };
    (!is_as_expected).then(|| {
        format!(
            "line {}: at {} rule {}: expected {wanted}, found {shown}",
            expected.line, expected.at, expected.rule
        )
    })
}
