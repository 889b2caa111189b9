//! Input files from other systems, and outputs that close early: the commands run as processes on realistic
//! input.
//!
//! Goal: valid input is accepted, invalid input is named with its place, memory does not grow with the
//! input, and nothing panics when a pipe closes. Method: each input is made here; the exit code, the
//! summary and the messages are compared with what a user expects.

use serde_json::Value;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const START_MS: u64 = 1_793_491_200_000;

fn command(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.current_dir(dir).args(words);
    for name in ["NATS_URL", "REDIS_URL", "STREAMGAUGE_PIPELINES", "STREAMGAUGE_DATA_DIR"] {
        command.env_remove(name);
    }
    command
}

fn run(dir: &Path, words: &[&str]) -> Output {
    command(dir, words).output().expect("runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns exit code, summary and standard error of a replay.
fn replay(dir: &Path, words: &[&str]) -> (i32, Value, String) {
    let output = run(dir, &[&["replay", "--json"][..], words].concat());
    let code = output.status.code().expect("no signal");
    let summary = serde_json::from_slice(&output.stdout);
    let summary = summary.unwrap_or_else(|error| panic!("{words:?}: {error}: {}", stderr(&output)));
    (code, summary, stderr(&output))
}

fn event(second: u64) -> String {
    let time = START_MS + second * 1_000;
    format!(r#"{{"type":"metric","time":{time},"source":"s","name":"m","value":1}}"#)
}

fn events(seconds: std::ops::Range<u64>) -> Vec<u8> {
    seconds.flat_map(|second| (event(second) + "\n").into_bytes()).collect()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(text: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
}

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(dir.join(name), content).expect("room");
}

#[test]
fn what_is_whole_of_a_broken_file_is_taken_and_the_file_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let text = events(0..20_000);
    for (name, packed) in [("cut.ndjson.gz", gzip(&text)), ("cut.ndjson.zst", zstd(&text))] {
        write(dir, name, &packed[..packed.len() * 2 / 3]);
        let (code, summary, told) = replay(dir, &[name]);
        let (received, recorded) = (&summary["events"]["received"], &summary["events"]["recorded"]);
        assert!(recorded.as_u64().is_some_and(|count| count > 8_000), "{name}: {summary}");
        assert!(received.as_u64() <= recorded.as_u64().map(|count| count + 1), "{name}: {summary}");
        let error = &summary["input_errors"][0];
        assert_eq!((code, &error["file"]), (1, &Value::from(name)), "{summary}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("end early") && message.contains("broken at line"), "{message}");
        assert!(told.contains(name) && told.contains(message), "{told}");
    }
    // The other files are still read, also when all are sorted.
    write(dir, "whole.ndjson", events(0..500));
    for words in [&["cut.ndjson.gz", "whole.ndjson"][..], &["--sort", "whole.ndjson", "cut.ndjson.gz"]] {
        let (code, summary, _) = replay(dir, words);
        assert!(summary["events"]["recorded"].as_u64().is_some_and(|count| count > 8_500), "{summary}");
        assert_eq!((code, summary["input_errors"].as_array().map(Vec::len)), (1, Some(1)), "{summary}");
    }
}

#[test]
fn padding_members_and_wrong_names_do_no_harm() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let (first, second) = (events(0..60), events(60..90));
    let padded = [gzip(&first), vec![0; 1_000], gzip(&second), vec![0; 5_000]].concat();
    for (name, content, is_said) in [
        ("padded.gz", padded, false),
        ("frames.zst", [zstd(&first), zstd(&second)].concat(), false),
        ("gzip.ndjson", gzip(&events(0..90)), true),
        ("plain.gz", events(0..90), true),
        ("zstd.gz", zstd(&events(0..90)), true),
        ("mark.ndjson", [&b"\xef\xbb\xbf"[..], &events(0..90)].concat(), false),
        ("marks.ndjson", [&first[..], b"\xef\xbb\xbf", &second[..]].concat(), false),
    ] {
        write(dir, name, content);
        let (code, summary, told) = replay(dir, &[name]);
        assert_eq!((code, &summary["events"]["recorded"]), (0, &Value::from(90)), "{name}: {told}");
        assert_eq!(told.contains("does not match the file name"), is_said, "{name}: {told}");
        // Standard input has no name that could contradict its content.
        let stdin = std::fs::File::open(dir.join(name)).expect("there");
        let output = command(dir, &["replay", "-", "--json"]).stdin(stdin).output().expect("runs");
        let summary: Value = serde_json::from_slice(&output.stdout).expect("a summary");
        assert_eq!(summary["events"]["recorded"], 90, "{name} on standard input: {}", stderr(&output));
    }
}

#[test]
fn a_line_that_is_too_long_is_one_refusal_wherever_it_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let long = "x".repeat((4 << 20) + 262_144);
    write(dir, "long.ndjson", format!("{}\n{long}{}\n\n{}\ngarbage\n{{}}\n", event(2), event(1), event(3)));
    write(dir, "other.ndjson", event(4));
    let expected = serde_json::json!({"too_large": 1, "bad_payload": 1, "bad_event": 1});
    for words in [&["long.ndjson"][..], &["long.ndjson", "--sort"], &["other.ndjson", "long.ndjson"]] {
        for threads in ["1", "2", "4"] {
            let (code, summary, told) = replay(dir, &[words, &["--threads", threads]].concat());
            assert_eq!((code, &summary["events"]["refused"]), (0, &expected), "{words:?}: {told}");
            let recorded = 2 + u64::from(words.contains(&"other.ndjson"));
            assert_eq!(summary["events"]["recorded"], recorded, "{words:?}");
            let file = if recorded == 3 { "long.ndjson " } else { "" };
            for (line, reason) in [(2, "too_large"), (5, "bad_payload"), (6, "bad_event")] {
                assert!(told.contains(&format!("{file}line {line}: refused, {reason}")), "{words:?}: {told}");
            }
        }
    }
}

/// Returns the peak memory of a process, read while it runs.
fn memory_kib(mut command: Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().expect("a child").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let size = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        most = most.max(size.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(most > 0, "it ended before it was looked at");
    most
}

#[test]
fn bombs_cost_no_memory() {
    /// Memory of a run of lines for sorting, of the kept part of a line that is too long, and of the rest
    /// of the process.
    const MOST_KIB: u64 = 200 << 10;
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    write(dir, "no-line-end.gz", gzip("x".repeat(256 << 20).as_bytes()));
    write(dir, "many-lines.gz", gzip(&b"x\n".repeat(6 << 20)));
    for words in [&["no-line-end.gz"][..], &["no-line-end.gz", "--sort"], &["many-lines.gz", "--sort"]] {
        let most = memory_kib(command(dir, &[&["replay"][..], words].concat()));
        assert!(most < MOST_KIB, "{words:?}: {most} KiB");
    }
}

#[test]
fn refused_lines_of_sorted_files_have_the_place_that_people_find() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    write(dir, "a.ndjson", format!("{}\ngarbage\n{}\n", event(3), event(0)));
    write(dir, "b.ndjson", format!("\n\n{}\n{{\"type\":\"x\"}}\n", event(1)));
    let (_, _, told) = replay(dir, &["--sort", "a.ndjson"]);
    assert!(told.contains("line 2: refused, bad_payload") && !told.contains("ndjson"), "{told}");
    let (_, _, told) = replay(dir, &["a.ndjson", "b.ndjson"]);
    assert!(told.contains("a.ndjson line 2: refused, bad_payload"), "{told}");
    assert!(told.contains("b.ndjson line 4: refused, bad_event"), "{told}");
    // Parts of an export are reported in the same way.
    let record = |seq: u32, partition: u32, rest: &str| {
        let time = "2026-11-01T00:00:00Z";
        format!(r#"{{"seq":{seq},"partition":{partition},"partitions":2,"ingest_time":"{time}",{rest}"#)
            + "\n"
    };
    let tick = r#""tick":true}"#;
    let export = [record(1, 0, tick), record(1, 1, tick), record(2, 1, "}"), record(2, 0, tick)].concat();
    write(dir, "export.ndjson", export);
    let (code, summary, told) = replay(dir, &["export.ndjson", "--alerts-out", "-"]);
    assert!(told.contains("line 3: refused"), "{told}");
    assert_eq!((code, &summary["lines"]), (1, &Value::from(4)), "all that is no tick is refused: {told}");
}

#[test]
fn the_exit_code_says_what_automation_asks() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    write(dir, "events.ndjson", events(0..300));
    let rule = "rules: [{ id: high, expr: 'max(m[1m]) by (source) > 0', severity: warning }]";
    write(dir, "rules.yaml", rule);
    let code = |words: &[&str]| {
        replay(dir, &[&["events.ndjson", "--pipelines", "rules.yaml"][..], words].concat()).0
    };
    assert_eq!(code(&[]), 0);
    assert_eq!(code(&["--fail-on", "critical"]), 0);
    assert_eq!((code(&["--fail-on", "warning"]), code(&["--fail-on", "info"])), (1, 1));
    write(dir, "bad.ndjson", "garbage\n".repeat(50));
    let (code, _, told) = replay(dir, &["bad.ndjson"]);
    assert_eq!((code, told.matches("all 50 events were refused, bad_payload").count()), (1, 1), "{told}");
    let utf16: Vec<u8> =
        format!("\u{feff}{}\r\n", event(0)).encode_utf16().flat_map(u16::to_le_bytes).collect();
    write(dir, "utf16.ndjson", utf16);
    let (code, _, told) = replay(dir, &["utf16.ndjson"]);
    assert!(code == 1 && told.contains("UTF-16"), "{told}");
    write(dir, "empty.ndjson", "");
    let (code, _, told) = replay(dir, &["empty.ndjson"]);
    assert!(code == 0 && told.contains("no lines"), "{told}");
    let missing = run(dir, &["replay", "events.ndjson", "--pipelines", "nowhere"]);
    assert_eq!(missing.status.code(), Some(78), "{}", stderr(&missing));
    write(dir, "a.xz", b"\xfd7zXZ\0\0\0");
    let xz = run(dir, &["replay", "a.xz"]);
    assert!(xz.status.code() == Some(1) && stderr(&xz).contains("xz -dc"), "{}", stderr(&xz));
}

/// Runs a shell line in which `$0` is the binary.
fn shell(dir: &Path, line: &str) -> Output {
    let mut command = Command::new("bash");
    command.current_dir(dir).args(["-c", line, env!("CARGO_BIN_EXE_streamgauge")]).env_remove("NATS_URL");
    command.output().expect("bash")
}

#[test]
fn who_closes_a_pipe_has_seen_enough() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let series = |at: u64| event(at / 50).replace("\"s\"", &format!("\"s-{at}\"")) + "\n";
    write(dir, "events.ndjson", (0..6_000).map(series).collect::<String>());
    for words in [
        "replay events.ndjson --windows-out -",
        "replay events.ndjson --windows-out - --threads 1",
        "schema window",
        "completions bash",
        "--help",
    ] {
        let output = shell(dir, &format!("\"$0\" {words} | true; exit ${{PIPESTATUS[0]}}"));
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""), "{words}");
        let output = shell(dir, &format!("\"$0\" {words} | head -1; exit ${{PIPESTATUS[0]}}"));
        assert_eq!(output.status.code(), Some(0), "{words}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{words}: {}", stderr(&output));
    }
    write(dir, "rules.yaml", "rules: [{ id: a, expr: 'max(m[1m]) by (source) > 0', severity: info }]");
    for words in [
        "replay events.ndjson --windows-out -",
        "replay events.ndjson --json",
        "replay events.ndjson --alerts-out /dev/full --pipelines rules.yaml",
        "schema event",
        "completions zsh",
        "nats mapping --partitions 2",
        "--version",
        "--help",
    ] {
        let output = shell(dir, &format!("\"$0\" {words} >/dev/full"));
        assert_eq!(output.status.code(), Some(1), "{words}: {}", stderr(&output));
        assert!(stderr(&output).contains("cannot write"), "{words}: {}", stderr(&output));
    }
    // A standard error that cannot be written does not change the exit code.
    for (words, code) in
        [("replay nowhere.ndjson", 1), ("replay events.ndjson", 0), ("nonsense", 2), ("--nonsense", 2)]
    {
        let output = shell(dir, &format!("\"$0\" {words} 2>/dev/full"));
        assert_eq!(output.status.code(), Some(code), "{words}");
    }
}

#[test]
fn outputs_that_share_a_pipe_do_not_tear_each_others_lines() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let series = |at: u64| event(at / 50).replace("\"s\"", &format!("\"s-{}\"", at % 700)) + "\n";
    write(dir, "events.ndjson", (0..6_000).map(series).collect::<String>());
    write(dir, "rules.yaml", "rules: [{ id: a, expr: 'max(m[1m]) by (source) > 0', severity: info }]");
    let words =
        ["replay", "events.ndjson", "--pipelines", "rules.yaml", "--windows-out", "-", "--alerts-out", "-"];
    let output = run(dir, &words);
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    let alerts = lines.iter().filter(|line| line["rule"] == "a").count();
    assert!(alerts > 0 && lines.len() > alerts + 700, "{alerts} of {}", lines.len());
}

#[test]
fn what_strangers_write_does_not_steer_a_terminal() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    write(
        dir,
        "events.ndjson",
        "{\"type\":\"\\u001b[2J\\u009b31m\"}\n{\"type\":\"metric\",\"time\":\"\\u001b]0;x\\u0007\"}\n",
    );
    let (_, _, told) = replay(dir, &["events.ndjson", "--verbose"]);
    assert!(told.contains("refused") && told.chars().all(|one| one == '\n' || !one.is_control()), "{told:?}");
    let output = run(dir, &["replay", "\u{1b}[31mnowhere"]);
    assert!(stderr(&output).chars().all(|one| one == '\n' || !one.is_control()), "{:?}", stderr(&output));
}

#[test]
fn the_environment_of_servers_does_not_break_commands_on_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    write(dir, "events.ndjson", events(0..300));
    for name in ["pipelines", "old", "new"] {
        let rule = "rules: [{ id: a, expr: 'max(m[1m]) by (source) > 5', severity: info }]";
        std::fs::create_dir(dir.join(name)).expect("room");
        write(dir, &format!("{name}/rules.yaml"), rule);
    }
    let run = |words: &[&str]| {
        let mut command = command(dir, words);
        command.env("NATS_URL", "nats://ann:secret@127.0.0.1:1").env("STREAMGAUGE_PIPELINES", "pipelines");
        command.env("STREAMGAUGE_DATA_DIR", "data").output().expect("runs")
    };
    for words in [
        &["backtest", "events.ndjson"][..],
        &["backtest", "events.ndjson", "--compare", "old", "new"],
        &["check", "pipelines"],
        &["replay", "events.ndjson"],
    ] {
        let output = run(words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    }
    let output = run(&["export", "--data-dir", "nowhere"]);
    assert!(stderr(&output).contains("nowhere holds no log"), "{}", stderr(&output));
    for words in [
        &["export", "--nats", "nats://h", "--data-dir", "d"][..],
        &["backtest", "events.ndjson", "--nats", "nats://h"],
        &["backtest", "events.ndjson", "--pipelines", "old", "--compare", "old", "new"],
        &["backtest", "-", "--compare", "old", "new"],
    ] {
        assert_eq!(run(words).status.code(), Some(2), "{words:?}");
    }
    for words in [["run", "--help"], ["publish", "--help"], ["export", "--help"]] {
        let output = run(&words);
        assert!(!String::from_utf8_lossy(&output.stdout).contains("secret"), "{words:?}");
    }
}

/// Goal: no command overwrites its input, or writes two outputs into one file. Method: the same file under
/// its name, a hard link and a symbolic link; one new file for two outputs.
#[test]
fn no_output_is_an_input() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    write(dir, "events.ndjson", events(0..300));
    std::fs::hard_link(dir.join("events.ndjson"), dir.join("hard")).expect("room");
    std::os::unix::fs::symlink("events.ndjson", dir.join("soft")).expect("room");
    for out in ["events.ndjson", "./events.ndjson", "hard", "soft"] {
        for flag in ["--windows-out", "--alerts-out", "--records-out"] {
            let output = run(dir, &["replay", "events.ndjson", flag, out]);
            assert_eq!(output.status.code(), Some(2), "{flag} {out}: {}", stderr(&output));
        }
    }
    let output = run(dir, &["replay", "events.ndjson", "--windows-out", "w", "--alerts-out", "./w"]);
    assert!(output.status.code() == Some(2) && stderr(&output).contains("overwrite"), "{}", stderr(&output));
    let rules = "groups: [{ name: g, rules: [{ alert: A, expr: 'm > 1' }] }]";
    write(dir, "rules.yml", rules);
    let output = run(dir, &["convert", "prometheus-rules", "rules.yml", "--out", "rules.yml"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(std::fs::read(dir.join("events.ndjson")).expect("there"), events(0..300));
    assert_eq!(std::fs::read_to_string(dir.join("rules.yml")).expect("there"), rules);
}

/// Goal: a file is recognized as an input or as another output however it is reached. Method: through
/// standard input, as the rules, through a dangling link, and as the target of redirected standard output;
/// the files stay unchanged.
#[test]
fn outputs_are_told_from_what_streams_and_links_lead_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    write(dir, "events.ndjson", events(0..300));
    let rules = "rules: [{ id: a, expr: 'max(m[1m]) by (source) > 0', severity: info }]";
    write(dir, "rules.yaml", rules);
    std::os::unix::fs::symlink("new", dir.join("link")).expect("writable");
    for words in [
        "replay - --windows-out events.ndjson < events.ndjson",
        "replay /dev/stdin --windows-out events.ndjson < events.ndjson",
        "convert prometheus-rules - --out rules.yaml < rules.yaml",
        "replay events.ndjson --pipelines rules.yaml --alerts-out rules.yaml",
        "replay events.ndjson --pipelines rules.yaml --windows-out link --alerts-out new",
        "replay events.ndjson --json --windows-out out > out",
        "replay events.ndjson --json --windows-out /dev/stdout > out",
        "replay events.ndjson --alerts-out out 2> out",
    ] {
        let output = shell(dir, &format!("\"$0\" {words}"));
        assert_eq!(output.status.code(), Some(2), "{words}: {}", stderr(&output));
    }
    assert_eq!(std::fs::read(dir.join("events.ndjson")).expect("there"), events(0..300));
    assert_eq!(std::fs::read_to_string(dir.join("rules.yaml")).expect("there"), rules);
    let output = shell(dir, "\"$0\" replay events.ndjson --json --windows-out /dev/stdout | wc -l");
    assert!(output.status.success() && output.stdout.len() > 1, "{}", stderr(&output));
}

/// Goal: unreadable credentials are reported as a configuration error with an exit code at which a
/// supervisor does not restart the process. Method: a missing file, for each variable and each command that
/// connects to a broker.
#[test]
fn credentials_that_are_missing_are_a_bad_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "events.ndjson", event(0));
    let servers = ["--nats", "nats://127.0.0.1:9"];
    for name in ["NATS_CREDS", "NATS_NKEY", "NATS_CA", "NATS_CERT", "NATS_KEY"] {
        for words in
            [&["publish", "events.ndjson"][..], &["export"], &["run", "--redis", "redis://127.0.0.1:9"]]
        {
            let mut command = command(dir.path(), &[words, &servers].concat());
            let output = command.env(name, "nowhere").output().expect("it runs");
            let told = stderr(&output);
            assert!(output.status.code() == Some(78) && told.contains(name), "{words:?}: {told}");
        }
    }
}

fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port()
}

#[test]
fn publishing_to_nobody_is_said_and_ends_when_it_should() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    write(dir, "events.ndjson", events(0..3));
    let port = closed_port();
    let url = format!("nats://ann:secret@127.0.0.1:{port}");
    let words = ["publish", "events.ndjson", "--nats", &url, "--timeout", "3s", "--position", "position"];
    let begun = Instant::now();
    let output = run(dir, &words);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(told.contains(&format!("waiting for a connection to nats://127.0.0.1:{port}")), "{told}");
    assert!(told.contains("0 messages are acknowledged") && told.contains("--from-line 1"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    assert_eq!(std::fs::read_to_string(dir.join("position")).expect("kept"), r#"{"events.ndjson":1}"#);
}

#[test]
fn a_signal_ends_publishing_at_once_also_while_it_waits_for_a_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let url = format!("nats://127.0.0.1:{}", closed_port());
    for signal in ["-TERM", "-INT"] {
        let mut command = command(dir, &["publish", "-", "--nats", &url, "--position", "position"]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        let stdin = child.stdin.take().expect("piped");
        // The command has no output to wait for; one second is enough for it to install its signal
        // handlers.
        std::thread::sleep(Duration::from_secs(1));
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
        let begun = Instant::now();
        let output = child.wait_with_output().expect("it ends");
        assert!(begun.elapsed() < Duration::from_secs(5), "{signal}: {:?}", begun.elapsed());
        assert_eq!(output.status.code(), Some(1), "{signal}: {}", stderr(&output));
        assert!(stderr(&output).contains("go on with --from-line 1"), "{signal}: {}", stderr(&output));
        assert_eq!(std::fs::read_to_string(dir.join("position")).expect("kept"), r#"{"-":1}"#);
        drop(stdin);
    }
}

/// Goal: an unreadable file among several loses only its own lines, and the summary is still printed.
#[test]
fn a_file_that_is_not_read_does_not_cost_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "whole.ndjson", events(0..90));
    write(dir.path(), "foreign.ndjson.xz", b"\xfd7zXZ\0\0\x04");
    std::fs::create_dir(dir.path().join("dir.ndjson")).expect("writable");
    for other in ["foreign.ndjson.xz", "dir.ndjson"] {
        let (code, summary, said) = replay(dir.path(), &["whole.ndjson", other]);
        assert_eq!((code, &summary["events"]["recorded"]), (1, &90.into()), "{said}");
        assert_eq!(summary["input_errors"][0]["file"], other, "{said}");
    }
}
