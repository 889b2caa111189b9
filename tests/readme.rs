//! What the README shows must run: each example of "Writing rules" is checked and tested as a user would.

use std::path::Path;
use std::process::Command;

/// The yaml blocks of a section, with the line each begins in.
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
