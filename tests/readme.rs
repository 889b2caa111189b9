//! The README's examples: each one of "Writing rules" is checked and tested as a user would.

use std::path::Path;
use std::process::Command;

/// The YAML blocks of a section, with the line at which each begins.
fn blocks(readme: &str, section: &str) -> Vec<(usize, String)> {
    let (mut blocks, mut open, mut is_inside) = (Vec::new(), None::<(usize, String)>, false);
    for (at, line) in readme.lines().enumerate() {
        match (&mut open, line) {
            (None, line) if line.starts_with("## ") => is_inside = line == section,
            (None, "```yaml") if is_inside => open = Some((at + 2, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, text)), line) => {
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

#[test]
fn each_example_of_writing_rules_runs() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let blocks = blocks(&readme.expect("a README"), "## Writing rules");
    assert!(blocks.len() >= 20, "{} examples", blocks.len());
    for (line, text) in blocks {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("example.yaml"), &text).expect("writable");
        assert!(text.contains("tests:"), "the example in line {line} has no test");
        for words in [&["check", "--deny-warnings"][..], &["test"]] {
            let run = Command::new(env!("CARGO_BIN_EXE_streamgauge")).args(words).arg(dir.path()).output();
            let output = run.expect("runs");
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "the example in line {line}:\n{said}");
        }
    }
}

#[test]
fn each_receiver_of_getting_told_is_understood() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let blocks = blocks(&readme.expect("a README"), "## Getting told");
    assert_eq!(blocks.len(), 1);
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("streamgauge.yaml");
    std::fs::write(&config, &blocks[0].1).expect("writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.current_dir(dir.path()).args(["notify", "test", "file", "--config"]).arg(&config);
    for name in ["SLACK_URL", "DISCORD_URL", "TEAMS_URL", "HEARTBEAT_URL"] {
        command.env(name, "https://example.com/secret");
    }
    let output = command
        .env("SLACK_TOKEN", "xoxb-1")
        .env("PAGERDUTY_KEY", "k")
        .env("HOOK_SECRET", "s")
        .env("MAIL_PASSWORD", "s")
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = std::fs::read_to_string(dir.path().join("alerts.ndjson")).expect("the receiver's file");
    assert_eq!(told.lines().count(), 2, "a beginning and its end: {told}");
}
