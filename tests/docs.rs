//! The pages of the repository: their examples run, their links lead somewhere, and their references are complete.
//!
//! Invariant: a page that names a command, a setting or a metric names one that exists, and a reference page names
//! all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Lines of the README: a page that people read to its end.
const README_LINES: std::ops::RangeInclusive<usize> = 150..=200;

/// All pages, by their path from the root of the repository.
fn pages() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut pages, mut dirs) = (BTreeMap::new(), vec![root.to_path_buf(), root.join("docs")]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory of ours") {
            let path = entry.expect("readable").path();
            if path.is_dir() && dir != root {
                dirs.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                pages.insert(path.strip_prefix(root).expect("below the root").into(), text);
            }
        }
    }
    pages
}

fn page(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a page")
}

/// The fenced blocks of one language, with the line in which each begins.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let (mut blocks, mut open, mut is_other) = (Vec::new(), None::<(usize, String)>, false);
    for (at, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some((_, text)), _) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, Some(found)) if !is_other && found == language => open = Some((at + 2, String::new())),
            (None, Some(_)) => is_other = !is_other,
            (None, None) => {}
        }
    }
    blocks
}

/// The text outside of fenced blocks.
fn prose(text: &str) -> String {
    let mut is_code = false;
    let outside = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    outside.collect::<Vec<_>>().join("\n")
}

fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_streamgauge")).args(words).output().expect("runs")
}

fn told(output: &Output) -> String {
    (String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr)).into_owned()
}

#[test]
fn each_example_of_a_rule_runs() {
    let of_rules = |path: &Path| path == Path::new("README.md") || path.starts_with("docs/rules");
    let mut count = 0;
    for (path, text) in pages().iter().filter(|(path, _)| of_rules(path)) {
        for (line, text) in blocks(text, "yaml") {
            let place = format!("{}:{line}", path.display());
            let dir = tempfile::tempdir().expect("a directory");
            std::fs::write(dir.path().join("example.yaml"), &text).expect("writable");
            assert!(text.contains("tests:"), "{place}: the example has no test");
            let dir = dir.path().display().to_string();
            for words in [&["check", "--deny-warnings", &dir][..], &["test", &dir]] {
                let output = run(words);
                assert!(output.status.success(), "{place}:\n{}", told(&output));
            }
            count += 1;
        }
    }
    assert!(count >= 20, "{count} examples");
}

#[test]
fn each_receiver_of_the_page_is_understood() {
    let found = blocks(&page("docs/notify/receivers.md"), "yaml");
    assert_eq!(found.len(), 1);
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("streamgauge.yaml");
    std::fs::write(&config, &found[0].1).expect("writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamgauge"));
    command.current_dir(dir.path()).args(["notify", "test", "file", "--config"]).arg(&config);
    for name in ["SLACK_URL", "DISCORD_URL", "TEAMS_URL", "HEARTBEAT_URL"] {
        command.env(name, "https://example.com/secret");
    }
    for (name, secret) in
        [("SLACK_TOKEN", "xoxb-1"), ("PAGERDUTY_KEY", "k"), ("HOOK_SECRET", "s"), ("MAIL_PASSWORD", "s")]
    {
        command.env(name, secret);
    }
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{}", told(&output));
    let delivered = std::fs::read_to_string(dir.path().join("alerts.ndjson")).expect("the receiver's file");
    assert_eq!(delivered.lines().count(), 2, "a beginning and its end: {delivered}");
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    prose(text).lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

/// The targets of `[text](target)`.
fn links(text: &str) -> Vec<String> {
    let text = prose(text);
    let starts = text.match_indices("](").map(|(at, _)| &text[at + 2..]);
    starts.filter_map(|rest| Some(rest.split_once(')')?.0.to_string())).collect()
}

/// A heading that stands twice has one anchor, and links to the second lead to the first.
#[test]
fn each_heading_of_a_page_is_its_own() {
    for (path, text) in pages().iter().filter(|(path, _)| *path != Path::new("CHANGELOG.md")) {
        let headings = prose(text).lines().filter(|line| line.starts_with('#')).count();
        assert_eq!(anchors(text).len(), headings, "{}: two headings are alike", path.display());
    }
}

#[test]
fn each_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (pages, mut wrong) = (pages(), Vec::new());
    for (path, text) in &pages {
        for link in links(text).iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, heading) =
                link.split_once('#').map_or((&**link, None), |(file, part)| (file, Some(part)));
            let target = match file {
                "" => root.join(path),
                file => root.join(path).parent().expect("a directory").join(file),
            };
            let Ok(text) = std::fs::read_to_string(&target) else {
                if !target.is_dir() {
                    wrong.push(format!("{}: {link}", path.display()));
                }
                continue;
            };
            if heading.is_some_and(|heading| !anchors(&text).contains(heading)) {
                wrong.push(format!("{}: {link}: there is no such heading", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readme_is_short_and_leads_to_each_page() {
    let pages = pages();
    let readme = &pages[Path::new("README.md")];
    assert!(README_LINES.contains(&readme.lines().count()), "{} lines", readme.lines().count());
    let linked: BTreeSet<String> =
        links(readme).into_iter().map(|link| link.split('#').next().unwrap_or("").into()).collect();
    let missing: Vec<_> = pages
        .keys()
        .map(|path| path.display().to_string())
        .filter(|path| !linked.contains(path) && path != "README.md")
        .collect();
    assert!(missing.is_empty(), "README.md leads nowhere near {missing:?}");
}

/// All commands, as paths of words.
fn commands(path: &[&str]) -> Vec<Vec<String>> {
    let help = told(&run(&[path, &["--help"]].concat()));
    let listed =
        help.split("Commands:\n").nth(1).unwrap_or("").lines().take_while(|line| line.starts_with("  "));
    let names: Vec<&str> = listed
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    let own = vec![path.iter().map(ToString::to_string).collect()];
    names.iter().fold(own, |mut all, name| {
        all.extend(commands(&[path, &[*name]].concat()));
        all
    })
}

#[test]
fn the_command_line_is_described_whole() {
    let page = page("docs/reference/command-line.md");
    let mut missing = BTreeSet::new();
    for command in commands(&[]) {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let name = format!("streamgauge {}", command.join(" "));
        if !page.contains(name.trim()) {
            missing.insert(name.clone());
        }
        let help = told(&run(&[&words[..], &["--help"]].concat()));
        let flags = help.split_whitespace().filter(|word| word.starts_with("--")).map(|word| {
            word.chars()
                .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '-')
                .collect::<String>()
        });
        missing.extend(
            flags
                .filter(|flag| flag.len() > 2 && !page.contains(flag.as_str()))
                .map(|flag| format!("{name} {flag}")),
        );
    }
    assert!(missing.is_empty(), "docs/reference/command-line.md lacks {missing:#?}");
}

/// The names of all fields in a JSON schema.
fn fields(schema: &serde_json::Value, found: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(map) => {
            if let Some(serde_json::Value::Object(properties)) = map.get("properties") {
                found.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| fields(value, found));
        }
        serde_json::Value::Array(all) => all.iter().for_each(|value| fields(value, found)),
        _ => {}
    }
}

#[test]
fn the_configuration_is_described_whole() {
    let schema: serde_json::Value = serde_json::from_str(&page("schemas/config.json")).expect("JSON");
    let (page, mut found) = (page("docs/reference/configuration.md"), BTreeSet::new());
    fields(&schema, &mut found);
    assert!(found.len() > 40, "{found:?}");
    found.retain(|name| !page.contains(&format!("`{name}`")) && !page.contains(&format!("`{name}:")));
    assert!(found.is_empty(), "docs/reference/configuration.md lacks {found:?}");
}
