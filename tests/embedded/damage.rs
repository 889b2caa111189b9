//! Commands over a data dir of which the disk has changed something.

use super::edge::now_ms;
use super::rules;
use super::service::{binary, post, start};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

/// Above the time that a command gives a small data dir: 10 s and a little.
const WITHIN: Duration = Duration::from_secs(30);

/// Runs a command to its end, which has to come.
fn ends(words: &[&str], data: &Path) -> Output {
    let mut command = binary();
    command.args(words).arg("--data-dir").arg(data).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begun = Instant::now();
    let output = command.output().expect("it runs");
    assert!(begun.elapsed() < WITHIN, "{words:?} took {:?}", begun.elapsed());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{words:?}: {:?} {said}", output.status);
    assert!(!said.contains("panicked"), "{words:?}: {said}");
    output
}

fn data_dir(dir: &Path) -> PathBuf {
    let data = dir.join("data");
    let service = start(&data, &rules(dir));
    for n in 0..40u64 {
        let event =
            json!({"type": "metric", "time": now_ms(), "source": "a", "name": "latency_ms", "value": n});
        post(&service.url, &event.to_string()).expect("acknowledged");
    }
    assert_eq!(service.stop(), Some(0));
    data
}

/// Goal: what the disk changed is found, or does not matter; nothing different is exported, no command panics or
/// runs on for ever, and a service does not start over it. Method: one byte after the other, all over the file.
#[test]
fn a_changed_byte_is_found_or_does_not_matter() {
    const PLACES: usize = 60;
    let dir = tempfile::tempdir().expect("a directory");
    let data = data_dir(dir.path());
    let path = data.join("streamgauge.redb");
    let whole = std::fs::read(&path).expect("readable");
    let exported = ends(&["export"], &data).stdout;
    let text = String::from_utf8(exported.clone()).expect("text");
    let lines: BTreeSet<&str> = text.lines().collect();
    assert!(lines.len() > 40, "{text}");
    let (mut found, mut harmless) = (0, 0);
    for at in (0..whole.len()).step_by(whole.len() / PLACES) {
        // Most of the file is empty: the next byte that is not.
        let at = (at..whole.len()).find(|at| whole[*at] != 0).unwrap_or(at);
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        let run = |words: &[&str]| {
            std::fs::write(&path, &changed).expect("writable");
            ends(words, &data)
        };
        let export = run(&["export"]);
        match export.status.success() {
            true => {
                assert!(export.stdout == exported, "byte {at}");
                harmless += 1;
            }
            false => found += 1,
        }
        let saved = run(&["export", "--skip-damaged"]);
        for line in String::from_utf8_lossy(&saved.stdout).lines() {
            let is_gap = serde_json::from_str::<Value>(line).is_ok_and(|line| line["gap"].is_object());
            assert!(lines.contains(line) || is_gap, "byte {at}: {line}");
        }
        let verified = run(&["verify"]);
        assert!(!verified.stdout.is_empty() || !verified.stderr.is_empty(), "byte {at}");
    }
    assert!(found > 5 && harmless > 0, "{found} found, {harmless} harmless");
}
