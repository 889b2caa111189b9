//! Scenarios: one file each with a description, a log and the expected result.
//!
//! `== expect` holds lines that were derived by hand from the documented behaviour and must appear in this
//! order. The whole transcript is kept beside it as a golden file, which `UPDATE_GOLDEN=1` writes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use streamgauge::core::vocab::limits::{Backfill, LatePolicy, Limits};
use streamgauge::core::{Effects, Engine, Span, Timestamp};
use streamgauge::driver::replay::{self, Options, Outputs};
use streamgauge::pipeline::load_files;
use streamgauge::wire::time;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// Splits a scenario file into its sections.
fn sections(text: &str) -> BTreeMap<&str, String> {
    let mut sections = BTreeMap::new();
    let mut name = "story";
    for line in text.lines() {
        if let Some(next) = line.strip_prefix("== ") {
            name = next.trim();
            sections.entry(name).or_insert_with(String::new);
            continue;
        }
        let section: &mut String = sections.entry(name).or_default();
        section.push_str(line);
        section.push('\n');
    }
    sections
}

/// Expands `@every STEP from A to B TEMPLATE` lines; ` && ` separates several templates.
fn expand(log: &str) -> String {
    let mut lines = String::new();
    for line in log.lines().filter(|line| !line.trim().is_empty()) {
        let Some(rest) = line.strip_prefix("@every ") else {
            let _ = writeln!(lines, "{line}");
            continue;
        };
        let mut words = rest.splitn(6, ' ');
        let mut word = || words.next().expect("@every STEP from A to B TEMPLATE");
        let step: Span = word().parse().expect("a duration");
        let (_, from, _, to, template) = (word(), instant(word()), word(), instant(word()), word());
        let mut at = from;
        while at < to {
            for template in template.split(" && ") {
                let _ = writeln!(lines, "{}", template.replace("$T", &at.to_string()));
            }
            at = at + step;
        }
    }
    lines
}

fn instant(clock: &str) -> Timestamp {
    time::parse(format!("2026-11-01T{clock}Z").as_bytes()).expect("HH:MM:SS")
}

/// Runs a scenario and returns its transcript.
fn transcript(sections: &BTreeMap<&str, String>, threads: usize) -> String {
    let options = sections.get("options").cloned().unwrap_or_default();
    let option = |name: &str| {
        let line = options.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_string())
    };
    let mut limits = Limits::default();
    if option("late_policy").as_deref() == Some("drop") {
        limits.late_policy = LatePolicy::Drop;
    }
    if option("backfill").as_deref() == Some("now") {
        limits.backfill = Backfill::Now;
    }
    if let Some(span) = option("abandon_after") {
        limits.abandon_after = span.parse().expect("a duration");
    }
    let mut engine = Engine::new(limits);
    if let Some(rules) = sections.get("rules") {
        let loaded = load_files(vec![("rules".into(), rules.clone())]);
        let found: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
        engine.load(loaded.rules.unwrap_or_else(|| panic!("{}", found.join("\n"))), &mut Effects::default());
    }
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), expand(&sections["log"])).expect("room");
    let (mut windows, mut alerts) = (Vec::new(), Vec::new());
    let options = Options {
        files: vec![file.path().into()],
        threads,
        sort: false,
        until: option("until").map(|text| time::parse(text.as_bytes()).expect("a time")),
        stop_at: None,
        log_rules: true,
    };
    let outputs = Outputs {
        windows: Some(Box::new(&mut windows)),
        alerts: Some(Box::new(&mut alerts)),
        ..Outputs::default()
    };
    let summary = replay::run(engine, &options, outputs).expect("a replay");
    let mut told = String::new();
    for window in json_lines(&windows) {
        let _ = writeln!(told, "{}", window_line(&window));
    }
    for alert in json_lines(&alerts) {
        let (evidence, fields) = (evidence(&alert, option("evidence")), pointed(&alert, option("fields")));
        let _ = writeln!(told, "{}{evidence}{fields}", alert_line(&alert));
    }
    let counters = summary.engine.counters();
    assert!(counters.is_conserved(), "the conservation law is broken: {counters:?}");
    let _ = writeln!(
        told,
        "events received={} recorded={} late={} duplicate={} dropped={}",
        counters.received, counters.recorded, counters.late, counters.duplicate, counters.dropped
    );
    for (what, count) in [("late_state", counters.late_state), ("derived_dropped", counters.derived_dropped)]
    {
        if count > 0 {
            let _ = writeln!(told, "{what}={count}");
        }
    }
    for (reason, count) in counters.refused().filter(|(_, count)| *count > 0) {
        let _ = writeln!(told, "refused {}={count}", reason.name());
    }
    told
}

fn json_lines(bytes: &[u8]) -> Vec<serde_json::Value> {
    let lines = std::str::from_utf8(bytes).expect("UTF-8").lines();
    lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn window_line(window: &serde_json::Value) -> String {
    let text = |name: &str| window[name].as_str().unwrap_or("").to_string();
    let labels = match window["labels"].as_object() {
        Some(labels) if !labels.is_empty() => window["labels"].to_string(),
        _ => String::new(),
    };
    let number = |name: &str| window[name].as_f64().map_or("none".to_string(), |value| value.to_string());
    format!(
        "window {} {} {}/{}{labels} count={} min={} max={} last={} rev={} open={}",
        text("window"),
        &text("start")[11..16],
        text("source"),
        text("name"),
        window["count"],
        number("min"),
        number("max"),
        number("last"),
        window["revision"],
        window["open"],
    )
}

fn alert_line(alert: &serde_json::Value) -> String {
    let text = |name: &str| alert[name].as_str().unwrap_or("").to_string();
    let at = text("at");
    let suppressed = match alert["suppressed_by"].as_object() {
        Some(by) => format!(" by {} {}", by["kind"].as_str().unwrap_or(""), by["id"].as_str().unwrap_or("")),
        None => String::new(),
    };
    let step = match alert["escalation_level"].as_u64() {
        Some(level) if level > 0 => format!(" step {level} {}", alert["notify"]),
        _ => String::new(),
    };
    format!(
        "alert {} {} {} {} {} {}{step}{suppressed}",
        &at[11..at.len() - 1],
        text("rule"),
        alert["key"],
        text("change"),
        text("state"),
        text("severity")
    )
}

/// The parts of the evidence that a scenario selects by JSON pointers, for alerts that begin to fire.
fn evidence(alert: &serde_json::Value, pointers: Option<String>) -> String {
    pointed(&alert["evidence"], pointers.filter(|_| alert["change"] == "firing"))
}

/// The parts of a value that a scenario selects by JSON pointers.
fn pointed(value: &serde_json::Value, pointers: Option<String>) -> String {
    let pointers = pointers.unwrap_or_default();
    let found = pointers.split_whitespace().map(|pointer| match value.pointer(pointer) {
        Some(value) => format!(" {pointer}={value}"),
        None => format!(" {pointer} is missing"),
    });
    found.collect()
}

/// Returns what is wrong with one scenario.
fn problems(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("readable");
    let sections = sections(&text);
    let told = transcript(&sections, 1);
    let mut wrong = Vec::new();
    if transcript(&sections, 2) != told {
        wrong.push("the transcript depends on the number of threads".to_string());
    }
    let mut lines = told.lines();
    for expected in sections.get("expect").map(String::as_str).unwrap_or("").lines() {
        if !expected.trim().is_empty() && !lines.any(|line| line == expected.trim_end()) {
            wrong.push(format!("missing, or out of order: {expected}"));
            break;
        }
    }
    for never in sections.get("never").map(String::as_str).unwrap_or("").lines() {
        if let Some(line) = told.lines().find(|line| !never.trim().is_empty() && line.contains(never.trim()))
        {
            wrong.push(format!("must not be there: {line}"));
        }
    }
    let golden = path.with_extension("golden");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &told).expect("writable");
    } else if fs::read_to_string(&golden).ok().as_deref() != Some(told.as_str()) {
        wrong.push(format!("differs from {}; UPDATE_GOLDEN=1 writes it anew", golden.display()));
    }
    if !wrong.is_empty() {
        wrong.push(told);
    }
    wrong
}

#[test]
fn every_story_ends_as_told() {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory())
        .expect("the scenarios")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "scenario"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 25, "only {} scenarios found", paths.len());
    let mut report = String::new();
    for path in &paths {
        let wrong = problems(path);
        if !wrong.is_empty() {
            let _ = writeln!(report, "\n{}:\n  {}", path.display(), wrong.join("\n  "));
        }
    }
    assert!(report.is_empty(), "{report}");
}
