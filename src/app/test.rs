//! `streamgauge test`: runs the test cases of rule files in the engine, on a virtual clock.

use super::cli::TestArgs;
use super::stderr::note;
use super::stdout::say;
use super::{BadConfig, FAILED, FINE};
use crate::core::alert::Transition;
use crate::core::record::{Ack, Body, Control, Record};
use crate::core::rule::RuleSet;
use crate::core::vocab::identity::{Identity, IdentityTable, Labels};
use crate::core::vocab::limits::Limits;
use crate::core::{Effects, Engine, Inspect, Timestamp};
use crate::pipeline::prometheus::suite::{self, Case, Suite};
use crate::pipeline::test_case::{Alert, Decision, Input, START, TestCase, rule_of, transition};
use crate::pipeline::{Loaded, load_files};
use crate::wire::event::{Decoded, Decoder};
use crate::wire::printable::{printable, printable_lines};
use anyhow::Result;
use std::collections::BTreeMap;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::slice::Iter;
use std::time::Instant;

pub(crate) fn run(args: &TestArgs) -> Result<u8> {
    let (mut passed, mut failed) = (0u32, 0u32);
    for path in super::check::paths(&args.paths) {
        if let Some(source) = suite_at(&path) {
            let (good, bad) = run_suite(&path, &source)?;
            (passed, failed) = (passed + good, failed + bad);
            continue;
        }
        let Loaded { rules, tests, .. } = super::check::load_all(&path)?;
        let rules = rules.unwrap_or_default();
        for test in tests {
            let begun = Instant::now();
            let wrong = run_case(&rules, &test);
            report(&test.file, test.line, &test.name, begun, &wrong)?;
            *(if wrong.is_empty() { &mut passed } else { &mut failed }) += 1;
        }
    }
    say(format_args!("{passed} passed, {failed} failed"))?;
    if passed + failed == 0 {
        note(format_args!(
            "there is no test here; `tests:` of a rule file, or a suite of promtool, has them"
        ));
    }
    Ok(if failed > 0 || passed == 0 { FAILED } else { FINE })
}

/// Returns the text of a file if it is a test suite of promtool.
fn suite_at(path: &Path) -> Option<String> {
    let source = path.is_file().then(|| super::text::read(path).ok())??;
    suite::is_suite(&source).then_some(source)
}

/// Maximum number of files that one pattern of a suite may match.
const FILES_MAX: usize = 1_000;

/// Returns the files that a suite names: one path, or all that a pattern such as `rules/*.yml` matches. Like
/// promtool, a pattern that matches nothing is no error.
fn files_of(beside: &Path, name: &str) -> Result<Vec<PathBuf>, String> {
    let path = beside.join(name);
    if !name.contains(['*', '?', '[']) || path.exists() {
        return Ok(vec![path]);
    }
    let pattern = glob::Pattern::escape(&beside.display().to_string());
    let found = glob::glob(&Path::new(&pattern).join(name).display().to_string());
    let found = found.map_err(|error| format!("`{name}` is no pattern of files: {error}"))?;
    let files: Result<Vec<_>, _> = found.take(FILES_MAX + 1).collect();
    let files = files.map_err(|error| format!("`{name}` cannot be searched: {error}"))?;
    if files.len() > FILES_MAX {
        return Err(format!("`{name}` matches more than {FILES_MAX} files"));
    }
    Ok(files)
}

/// Runs a test suite of promtool. Returns how many tests passed and how many failed.
fn run_suite(path: &Path, source: &str) -> Result<(u32, u32)> {
    let beside = path.parent().unwrap_or(Path::new("."));
    let read = |name: &str| {
        let text = |path: PathBuf| {
            let name = path.strip_prefix(beside).unwrap_or(&path).display().to_string();
            super::text::read(&path).map(|text| (name, text)).map_err(|error| format!("{error:#}"))
        };
        files_of(beside, name)?.into_iter().map(text).collect()
    };
    let wrong = |error: String| BadConfig(format!("{}: {error}", path.display()));
    let suite = suite::read(source, read).map_err(wrong)?;
    let is_nothing = suite.converted.rules.is_empty() && suite.converted.records.is_empty();
    let rules = match is_nothing {
        true => RuleSet::default(),
        false => load_files(vec![("converted".into(), suite.converted.yaml())])
            .rules
            .ok_or_else(|| wrong("the converted rules do not load".into()))?,
    };
    for left_out in &suite.converted.left_out {
        say(format_args!("left out  {}", printable_lines(&left_out.to_string())))?;
    }
    if suite.skipped > 0 {
        say(format_args!(
            "skipped   {} promql_expr_test: expressions are not evaluated by themselves",
            suite.skipped
        ))?;
    }
    if suite.texts_skipped > 0 {
        say(format_args!(
            "skipped   {} exp_annotations: numbers are written otherwise here",
            suite.texts_skipped
        ))?;
    }
    let (mut passed, mut failed) = (0, 0);
    for case in &suite.cases {
        if case.checks.is_empty() && case.wrong.is_empty() {
            say(format_args!(
                "skip  {}:{} {}: it asks about no alert",
                path.display(),
                case.line,
                case.name
            ))?;
            continue;
        }
        let begun = Instant::now();
        let wrong = run_suite_case(&rules, &suite, case);
        report(&path.display().to_string(), case.line, &case.name, begun, &wrong)?;
        *(if wrong.is_empty() { &mut passed } else { &mut failed }) += 1;
    }
    Ok((passed, failed))
}

fn run_suite_case(rules: &RuleSet, suite: &Suite, case: &Case) -> Vec<String> {
    let mut bench = Bench::new(rules);
    let (mut wrong, mut inputs) = (case.wrong.clone(), case.inputs.iter().peekable());
    for check in &case.checks {
        wrong.extend(bench.take_until(&mut inputs, check.at));
        wrong.extend(check.compare(case, &suite.converted, &bench.active()));
    }
    // No rule has evaluated a refused event, so each refusal is an error of the test.
    wrong.extend(bench.refused.iter().take(REFUSED_SHOWN).map(|line| format!("refused {line}")));
    wrong
}

fn report(file: &str, line: usize, name: &str, begun: Instant, wrong: &[String]) -> Result<()> {
    let took = begun.elapsed().as_millis();
    let verdict = if wrong.is_empty() { "ok  " } else { "FAIL" };
    say(format_args!("{verdict}  {file}:{line} {} ({took} ms)", printable(name)))?;
    wrong.iter().try_for_each(|line| say(format_args!("      {}", printable_lines(line))))
}

/// Runs one test case. Returns every difference from what it expects.
pub(crate) fn run_case(rules: &RuleSet, test: &TestCase) -> Vec<String> {
    let mut bench = Bench::new(rules);
    let mut wrong = Vec::new();
    let mut inputs = test.inputs.iter().peekable();
    for expectation in &test.expectations {
        wrong.extend(bench.take_until(&mut inputs, expectation.at));
        wrong.extend(expectation.compare(&bench.active()));
    }
    for (at, input) in inputs {
        wrong.extend(bench.take(*at, input));
    }
    bench.advance(test.until);
    if let Some(expected) = &test.transitions {
        wrong.extend(compare_transitions(expected, &bench.told));
    }
    if bench.refused.len() != test.refused {
        let head = format!(
            "{} events were refused, not {} (`refused: N` says how many)",
            bench.refused.len(),
            test.refused
        );
        wrong.push(head);
        wrong.extend(bench.refused.iter().take(REFUSED_SHOWN).map(|line| format!("  {line}")));
    }
    wrong
}

/// Number of refused events that are shown individually.
const REFUSED_SHOWN: usize = 10;

/// Number of lines that are shown of each side of a long difference.
const LINES_SHOWN: usize = 20;

/// Compares the expected transitions with all transitions of the rules that they name. Returns the difference
/// as lines.
fn compare_transitions(expected: &[String], told: &[Transition]) -> Vec<String> {
    let tidy = |line: &String| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected: Vec<String> = expected.iter().map(tidy).collect();
    let named: Vec<&str> = expected.iter().filter_map(|line| rule_of(line)).collect();
    // An empty list names no rule; it expects that no rule publishes a transition.
    let is_named = |one: &&Transition| named.is_empty() || named.contains(&&*one.rule);
    let found: Vec<String> = told.iter().filter(is_named).map(transition).collect();
    if expected == found {
        return Vec::new();
    }
    let head = "the transitions differ (- expected, + found):".to_string();
    [head]
        .into_iter()
        .chain(difference(&expected, &found).into_iter().map(|line| format!("  {line}")))
        .collect()
}

/// Maximum number of line pairs that are compared: 2,000 × 2,000 × 4 B = 16 MB.
const PAIRS_MAX: usize = 4_000_000;

/// Returns the lines of both lists in order: common ones with a blank, the others with `-` or `+` (longest
/// common subsequence).
fn difference(a: &[String], b: &[String]) -> Vec<String> {
    // The table of two long lists would be too large, so only lines from the first difference on are shown.
    if a.len().saturating_mul(b.len()) > PAIRS_MAX {
        let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let only = |all: &[String], sign: char| {
            let shown = all[same..].iter().take(LINES_SHOWN).map(|line| format!("{sign} {line}"));
            let more = all.len() - same - all[same..].len().min(LINES_SHOWN);
            shown.chain((more > 0).then(|| format!("{sign} and {more} more"))).collect::<Vec<_>>()
        };
        let head = format!("  the first {same} are as expected");
        return [vec![head], only(a, '-'), only(b, '+')].concat();
    }
    let mut common = vec![vec![0u32; b.len() + 1]; a.len() + 1];
    for (i, left) in a.iter().enumerate().rev() {
        for (j, right) in b.iter().enumerate().rev() {
            common[i][j] = match left == right {
                true => common[i + 1][j + 1] + 1,
                false => common[i + 1][j].max(common[i][j + 1]),
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            lines.push(format!("  {}", a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || i < a.len() && common[i + 1][j] >= common[i][j + 1] {
            lines.push(format!("- {}", a[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", b[j]));
            j += 1;
        }
    }
    lines
}

/// An engine on a virtual clock, with ticks at the times at which a live owner sends them.
struct Bench {
    engine: Engine,
    decoder: Decoder,
    directory: IdentityTable,
    effects: Effects,
    seq: u64,
    /// All transitions published so far.
    told: Vec<Transition>,
    refused: Vec<String>,
}

impl Bench {
    fn new(rules: &RuleSet) -> Bench {
        let (mut engine, mut effects) = (Engine::new(Limits::default()), Effects::default());
        engine.load(rules.clone(), &mut effects);
        let (decoder, directory) = (Decoder::new(0), IdentityTable::default());
        let mut bench =
            Bench { engine, decoder, directory, effects, seq: 0, told: Vec::new(), refused: Vec::new() };
        bench.handle(START, Body::Tick);
        bench
    }

    /// Feeds the inputs before `at` to the engine, then advances the clock to `at`. Returns the errors of the
    /// inputs.
    fn take_until(
        &mut self,
        inputs: &mut Peekable<Iter<'_, (Timestamp, Input)>>,
        at: Timestamp,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        while let Some((time, input)) = inputs.next_if(|(time, _)| *time < at) {
            wrong.extend(self.take(*time, input));
        }
        self.advance(at);
        wrong
    }

    /// Feeds one input to the engine at its time. Returns an error if the input is invalid.
    fn take(&mut self, at: Timestamp, input: &Input) -> Option<String> {
        self.advance(at);
        match input {
            Input::Event(event) => {
                self.send(at, event);
                None
            }
            Input::Ended { source, name, labels } => self.end(source, name, labels),
            Input::Decision(said) => match self.control(said) {
                Ok(control) => {
                    self.handle(at, Body::Control(&control));
                    None
                }
                Err(wrong) => Some(format!("at {}: {wrong}", at - START)),
            },
        }
    }

    /// Ends a series. Returns an error if its identity is invalid.
    fn end(&mut self, source: &str, name: &str, labels: &BTreeMap<String, String>) -> Option<String> {
        let pairs = labels.iter().map(|(label, value)| (label.as_str().into(), value.as_str().into()));
        let identity = Labels::new(pairs.collect())
            .and_then(|labels| Identity::new(source.into(), name.into(), labels, None));
        match identity {
            Ok(identity) => {
                self.engine.end_series(&identity);
                None
            }
            Err(error) => Some(format!("`{name}` cannot end: {error}")),
        }
    }

    fn control(&mut self, said: &Decision) -> Result<Control, String> {
        Ok(match said {
            Decision::Ack { of, why, until, accept } => {
                let (alert, by) = (self.alert(of)?, of.by.clone());
                Control::Ack(Ack { alert, by, why: why.clone(), until: *until, accept: *accept })
            }
            Decision::Unack(of) => Control::Unack { alert: self.alert(of)?, by: of.by.clone() },
            Decision::Silence(silence) => Control::Silence(silence.clone()),
            Decision::Unsilence(id) => Control::Unsilence { id: id.clone(), by: "test".into() },
            Decision::Maintenance(maintenance) => Control::Maintenance(maintenance.clone()),
            Decision::EndMaintenance(id) => Control::EndMaintenance { id: id.clone(), by: "test".into() },
        })
    }

    /// Returns all active alerts, including those of shadow rules.
    fn active(&mut self) -> Vec<Transition> {
        let mut engine = Inspect::new(&mut self.engine);
        let mut all = engine.active_alerts();
        all.extend(engine.active_shadows());
        all
    }

    fn alert(&mut self, of: &Alert) -> Result<String, String> {
        let is_key = |alert: &Transition| alert.key.has_all(&of.key);
        let active = self.active();
        let found = active.into_iter().find(|alert| *alert.rule == *of.rule && is_key(alert));
        found.map(|alert| alert.id).ok_or_else(|| format!("no alert of `{}` is active then", of.rule))
    }

    fn send(&mut self, at: Timestamp, event: &str) {
        let mut decoded = Decoded::default();
        self.decoder.begin();
        self.decoder.json_one(0, event.as_bytes(), &mut decoded);
        self.directory.learn(0, self.decoder.take_found());
        self.handle(at, Body::Events(&decoded.events));
        let bad = decoded.bad.iter();
        self.refused
            .extend(bad.map(|bad| format!("at {}: {}: {}", at - START, bad.reason.name(), bad.message)));
    }

    /// Ticks at each wake-up time up to `at`, as a live owner does.
    fn advance(&mut self, at: Timestamp) {
        while let Some(wake) = self.engine.next_wake().filter(|wake| *wake < at) {
            self.handle(wake, Body::Tick);
        }
        if at > self.engine.now() {
            self.handle(at, Body::Tick);
        }
    }

    fn handle(&mut self, stamp: Timestamp, body: Body<'_>) {
        self.seq += 1;
        let record = Record { seq: self.seq, stamp, limit: None, bad: &[], body };
        self.engine.handle(&record, &self.directory, &mut self.effects);
        let refused = self.effects.refused.iter();
        let refused =
            refused.map(|one| format!("at {}: {}: {}", stamp - START, one.reason.name(), one.message(stamp)));
        self.refused.extend(refused);
        self.told.append(&mut self.effects.transitions);
        self.told.append(&mut self.effects.shadows);
        self.effects.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_is_missing_and_what_is_too_much() {
        let lines = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
        assert_eq!(difference(&lines("a b d"), &lines("a c d e")), ["  a", "- b", "+ c", "  d", "+ e"]);
        let many = |first: usize| (first..first + 100_000).map(|n| n.to_string()).collect::<Vec<_>>();
        let found = difference(&many(0), &many(1));
        assert_eq!((found.len(), found[1].as_str(), found[22].as_str()), (43, "- 0", "+ 1"));
        assert_eq!(found[21], "- and 99980 more");
    }
}
