//! Publishing files to the broker with a process that is killed.

use crate::load::give_log_room;
use crate::servers::{Servers, spawn, wait_for};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Lines of the file: three seconds at the rate at which they are sent.
const LINES: u64 = 6_000;

/// Goal: publishing resumes after a kill at the position up to which the broker acknowledged, and every
/// line is counted once. Method: kill -9 in the middle, a second start with the same position file.
#[test]
fn publishing_goes_on_after_a_kill_and_counts_each_line_once() {
    let servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    let (file, position) = (servers.dir.path().join("events.ndjson"), servers.dir.path().join("position"));
    let mut text = String::new();
    let now = crate::edge::now_ms();
    for n in 0..LINES {
        let line = r#"{"type":"metric","source":"s-0","name":"latency_ms","value":1,"time":"#;
        writeln!(text, "{line}{}}}", now + n % 1_000).expect("a string");
    }
    std::fs::write(&file, text).expect("writable");
    let publish = |rate: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
        command.args([
            "publish",
            "--nats",
            &servers.nats_url(),
            "--rate",
            rate,
            "--batch",
            "10",
            "--position",
        ]);
        command.arg(&position).arg(&file);
        spawn(command)
    };
    let line = || {
        let text = std::fs::read_to_string(&position).ok()?;
        text.trim_end_matches('}').rsplit(':').next()?.parse::<u64>().ok()
    };
    let first = publish("2000");
    wait_for("the middle", &worker, || line().filter(|line| *line > 1_000));
    drop(first); // kill -9
    let reached = line().expect("a position");
    assert!(reached < LINES, "it was too fast to be killed");
    let mut second = publish("1000000");
    assert!(second.0.wait().expect("it ends").success());
    assert_eq!(line(), Some(LINES + 1));
    let counts = wait_for("all events", &worker, || {
        worker.counts().filter(|counts| counts.get("s-0").is_some_and(|count| *count >= LINES))
    });
    assert_eq!(counts["s-0"], LINES);
}

/// Goal: a line that is too large for the broker does not block the others. Method: one of 2 MiB between
/// two events, alone and in one message with them.
#[test]
fn a_line_that_no_broker_takes_is_left_out() {
    let servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    let line = |at: u64| {
        let time = crate::edge::now_ms() + at;
        format!(r#"{{"type":"metric","source":"s-0","name":"latency_ms","value":1,"time":{time}}}"#)
    };
    let path = servers.dir.path().join("events.ndjson");
    for (batch, events) in [("1", 2), ("10", 4)] {
        let text = format!("{}\n{}\n{}\n", line(0), "x".repeat(2 << 20), line(1));
        std::fs::write(&path, text).expect("writable");
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
        command.args(["publish", "--nats", &servers.nats_url(), "--batch", batch, "--timeout", "30s"]);
        let output = command.arg(&path).output().expect("runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.contains("1 lines were not sent"), "{told}");
        let counts = wait_for("both events", &worker, || {
            worker.counts().filter(|counts| counts.get("s-0").is_some_and(|count| *count >= events))
        });
        assert_eq!(counts["s-0"], events);
    }
}

/// Goal: `publish -` on an idle pipe holds no line back. Method: one line, the pipe stays open, batches of
/// ten: the line is counted and the position names the line after it. Then the broker is killed, another
/// line is written, and the command reports that it waits and ends at its timeout.
#[test]
fn a_line_of_an_open_pipe_is_sent_and_settled() {
    let mut servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    let position = servers.dir.path().join("position");
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.args([
        "publish",
        "--nats",
        &servers.nats_url(),
        "--batch",
        "10",
        "--timeout",
        "4s",
        "--position",
    ]);
    command.arg(&position).arg("-").stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut publish = command.spawn().expect("runs");
    let mut pipe = publish.stdin.take().expect("piped");
    let mut say = || {
        let line = r#"{"type":"metric","source":"s-0","name":"latency_ms","value":1,"time":"#;
        writeln!(pipe, "{line}{}}}", crate::edge::now_ms()).expect("it reads");
    };
    say();
    let counts = wait_for("the event", &worker, || {
        worker.counts().filter(|counts| counts.get("s-0").is_some_and(|count| *count >= 1))
    });
    assert_eq!(counts["s-0"], 1);
    wait_for("the position", &worker, || {
        std::fs::read_to_string(&position).ok().filter(|text| text == r#"{"-":2}"#)
    });
    servers.nats = None; // kill -9
    say();
    let output = publish.wait_with_output().expect("it ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("waiting for") && told.contains("go on with --from-line 2"), "{told}");
}

/// Goal: a log that was full takes events at full speed once it has room again. Method: 3,000 lines to a
/// full stream, 2,001 of them in flight and refused; the command reports that; with room it ends in a few
/// seconds, and each line is counted once.
#[test]
fn a_log_that_has_room_again_takes_all_that_was_refused() {
    let servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    give_log_room(&servers, Some(1));
    let path = servers.dir.path().join("events.ndjson");
    let now = crate::edge::now_ms();
    let line = r#"{"type":"metric","source":"s-0","name":"latency_ms","value":1,"time":"#;
    std::fs::write(&path, (0..3_000).map(|n| format!("{line}{}}}\n", now + n % 1_000)).collect::<String>())
        .expect("writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.args(["publish", "--nats", &servers.nats_url()]).arg(&path).stderr(Stdio::piped());
    let mut publish = command.spawn().expect("runs");
    let mut told = BufReader::new(publish.stderr.take().expect("piped")).lines();
    let refused = told.next().expect("a line").expect("text");
    assert!(refused.contains("waiting for an acknowledgement"), "{refused}");
    give_log_room(&servers, None);
    let begun = Instant::now();
    assert!(publish.wait().expect("it ends").success());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}; one by one: 200 s", begun.elapsed());
    let counts = wait_for("all events", &worker, || {
        worker.counts().filter(|counts| counts.get("s-0").is_some_and(|count| *count >= 3_000))
    });
    assert_eq!(counts["s-0"], 3_000);
}

/// Goal: a position that cannot be resumed is reported before anything is sent. Method: a position behind
/// the end of a file that was replaced by a shorter one; a position that cannot be written; a rate of zero.
#[test]
fn a_position_that_does_not_fit_is_said() {
    let servers = Servers::start("everysec");
    let worker = servers.worker("1s");
    wait_for("ownership", &worker, || (worker.owned() == 1).then_some(()));
    let (file, position) = (servers.dir.path().join("events.ndjson"), servers.dir.path().join("position"));
    let line = format!(
        r#"{{"type":"metric","source":"s-0","name":"latency_ms","value":1,"time":{}}}"#,
        crate::edge::now_ms()
    );
    let publish = |words: &[&str], kept_in: &std::path::Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
        command.args(["publish", "--nats", &servers.nats_url(), "--timeout", "10s"]).args(words);
        let output = command.arg("--position").arg(kept_in).arg(&file).output().expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    std::fs::write(&file, format!("{line}\n{line}\n{line}\n")).expect("writable");
    assert_eq!(publish(&[], &position).0, Some(0));
    assert_eq!(publish(&[], &position).0, Some(0), "nothing is left, and that is fine");
    std::fs::write(&file, format!("{line}\n")).expect("writable");
    let (code, told) = publish(&[], &position);
    assert!(
        code == Some(1) && told.contains("the file ends at line 1") && told.contains("--from-line 1"),
        "{told}"
    );
    let (code, told) = publish(&[], &servers.dir.path().join("nowhere/position"));
    assert!(code == Some(1) && told.contains("cannot write"), "{told}");
    assert_eq!(publish(&["--rate", "0"], &position).0, Some(2));
    let counts = wait_for("three events", &worker, || {
        worker.counts().filter(|counts| counts.get("s-0").is_some_and(|count| *count >= 3))
    });
    assert_eq!(counts["s-0"], 3, "nothing was sent by those that failed");
}
