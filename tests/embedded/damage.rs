//! Commands over a data dir that the disk has damaged.

use super::answer;
use super::edge::now_ms;
use super::rules;
use super::service::{binary, post, start};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than the time limit of a command over a small data dir, which is about 10 s.
const WITHIN: Duration = Duration::from_secs(30);

/// Runs a command, which must end in time.
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

fn data_dir(dir: &Path, is_killed: bool) -> PathBuf {
    let data = dir.join("data");
    let mut service = start(&data, &rules(dir));
    for n in 0..40u64 {
        let event =
            json!({"type": "metric", "time": now_ms(), "source": "a", "name": "latency_ms", "value": n});
        post(&service.url, &event.to_string()).expect("acknowledged");
    }
    // After a kill, the database takes a damaged newest transaction for one that was not finished. So the test
    // damages an older one.
    let commits = || {
        let metrics = service.get("/metrics");
        let count = metrics.lines().find_map(|line| line.strip_prefix("streamgauge_commits_total "));
        count.expect("a counter").parse::<u64>().expect("a number")
    };
    let before = commits();
    service.wait_for("/api/v1/rules", |_| commits() > before);
    if is_killed {
        service.child.kill().expect("kill -9");
        service.child.wait().expect("it is dead");
    } else {
        assert_eq!(service.stop(), Some(0));
    }
    data
}

/// Goal: `export --skip-damaged` saves all records but the damaged one, also after a kill -9, when the
/// database repairs itself first and refuses a page with a changed bit. Method: one changed bit of an
/// event, after a clean stop and after a kill.
#[test]
fn all_records_but_the_damaged_one_are_saved() {
    for is_killed in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let data = data_dir(dir.path(), is_killed);
        let path = data.join("streamgauge.redb");
        let mut bytes = std::fs::read(&path).expect("readable");
        let needle = b"latency_ms";
        let places = bytes.windows(needle.len()).enumerate().filter(|(_, found)| found == needle);
        let at = places.map(|(at, _)| at).nth(20).expect("an event");
        bytes[at] ^= 0x01;
        std::fs::write(&path, bytes).expect("writable");
        let whole = ends(&["export"], &data);
        let saved = ends(&["export", "--skip-damaged"], &data);
        assert_eq!(saved.status.code(), Some(0), "{}", String::from_utf8_lossy(&saved.stderr));
        let text = String::from_utf8_lossy(&saved.stdout);
        // The record of the rules also names the metric.
        let is_event = |line: &&str| line.contains("latency_ms") && !line.contains("severity");
        let events = text.lines().filter(is_event).count();
        assert!((39..=40).contains(&events), "killed: {is_killed}: {events} events of 40 are saved");
        // The byte may belong to a page that is no longer in use.
        assert!(!whole.status.success() || events == 40, "killed: {is_killed}");
    }
}

/// Goal: no event is acknowledged whose file was removed or replaced. Method: the file is removed, and
/// overwritten, under a running service; all commands report an empty file and garbage in its place.
#[test]
fn a_file_that_is_gone_takes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let service = start(&data, &rules(dir.path()));
    let event = || {
        json!({"type": "metric", "time": now_ms(), "source": "a", "name": "latency_ms", "value": 1})
            .to_string()
    };
    post(&service.url, &event()).expect("acknowledged");
    let path = data.join("streamgauge.redb");
    std::fs::remove_file(&path).expect("removed");
    let url = format!("{}/api/v1/events", service.url);
    let refused = answer::post(&url, &event());
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.message().contains("removed, replaced"), "{refused:?}");
    assert_eq!(service.status("/readyz"), 503);
    drop(service);
    // The file is overwritten in place, as by a copy over it.
    let service = start(&data, &rules(dir.path()));
    let bytes = std::fs::read(&path).expect("readable");
    post(&service.url, &event()).expect("acknowledged");
    std::fs::write(&path, &bytes).expect("writable");
    let url = format!("{}/api/v1/events", service.url);
    assert_eq!(answer::post(&url, &event()).status, 503);
    drop(service);
    std::fs::write(&path, b"").expect("writable");
    for words in [&["export"][..], &["export", "--skip-damaged"], &["verify"]] {
        let output = ends(words, &data);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("it is an empty file"), "{words:?}: {said}");
    }
    std::fs::write(&path, b"garbage, and no database").expect("writable");
    for words in [&["export"][..], &["export", "--skip-damaged"], &["verify"]] {
        let said = String::from_utf8_lossy(&ends(words, &data).stderr).into_owned();
        assert!(said.contains("restore a copy") && !said.contains("disk full"), "{words:?}: {said}");
    }
}

/// Goal: a changed byte is detected or has no effect: no export differs, and no command panics or runs
/// forever. Method: one changed byte at a time, all over the file.
#[test]
fn a_changed_byte_is_found_or_does_not_matter() {
    const PLACES: usize = 60;
    let dir = tempfile::tempdir().expect("a directory");
    let data = data_dir(dir.path(), false);
    let path = data.join("streamgauge.redb");
    let whole = std::fs::read(&path).expect("readable");
    let exported = ends(&["export"], &data).stdout;
    let text = String::from_utf8(exported.clone()).expect("text");
    let lines: BTreeSet<&str> = text.lines().collect();
    assert!(lines.len() > 40, "{text}");
    let (mut found, mut harmless) = (0, 0);
    for at in (0..whole.len()).step_by(whole.len() / PLACES) {
        // Most of the file is empty, so the next byte other than 0 is changed.
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

/// Goal: pages that the database writes on its own are not mistaken for foreign changes of the file.
/// Method: windows of 10,000 series and 57 minutes, more than the database keeps in memory; the events
/// after them are acknowledged.
#[test]
fn many_windows_are_written_by_nobody_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let service = start(&dir.path().join("data"), &rules(dir.path()));
    let minute = now_ms() / 60_000 * 60_000;
    let times: Vec<u64> = (0..57).map(|at| minute - 60_000 * (2 + at)).collect();
    for request in 0..100 {
        let line = |series: u64| {
            let source = format!("s{}", request * 100 + series);
            let of = json!({"type": "samples", "source": source, "name": "x", "times": times, "values": vec![1; 57]});
            of.to_string() + "\n"
        };
        let body: String = (0..100).map(line).collect();
        let sent = answer::ask(
            "POST",
            &format!("{}/api/v1/events", service.url),
            &[("content-type", "application/x-ndjson")],
            Some(&body),
        );
        assert_eq!(sent.status, 202, "{sent:?}");
    }
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        let event =
            json!({"type": "metric", "time": now_ms(), "source": "a", "name": "latency_ms", "value": 1});
        let sent = answer::post(&format!("{}/api/v1/events", service.url), &event.to_string());
        assert_eq!(sent.status, 202, "{sent:?}");
        super::edge::pause();
    }
    assert_eq!(service.status("/readyz"), 200);
}
