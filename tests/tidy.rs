//! Rules for the source tree: purity of the core, direction of dependencies, length of files and functions.

#[path = "tidy/cycles.rs"]
mod cycles;
#[path = "tidy/dependencies.rs"]
mod dependencies;

use std::fs;
use std::path::{Path, PathBuf};

/// All Rust files below a directory, without the build output of cargo-fuzz.
fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of ours") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                dirs.extend((!path.ends_with("target")).then_some(path));
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                found.push((path, text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{dir} has no sources: is this test looking at the right place?");
    found
}

/// Code without comments, with line numbers from 1.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    numbered.map(|(at, line)| (at, line.split("//").next().unwrap_or("")))
}

fn assert_absent(dir: &str, banned: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (path, text) in sources(dir) {
        for (line, code) in code(&text) {
            for (word, instead) in banned.iter().filter(|(word, _)| code.contains(word)) {
                wrong.push(format!("{}:{line}: `{word}`; {instead}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_is_pure() {
    assert_absent(
        "src/core",
        &[
            ("tokio", "the core is synchronous"),
            ("std::fs", "files belong to adapters"),
            ("std::net", "sockets belong to adapters"),
            ("std::env", "configuration comes in as an argument"),
            ("std::thread", "the driver owns threads"),
            ("SystemTime", "time comes with the record"),
            ("Instant", "time comes with the record"),
            ("chrono::Utc", "time comes with the record"),
            ("chrono::Local", "time comes with the record"),
            ("rand::", "randomness comes in as an argument"),
            ("RandomState", "output must not depend on hashing: use a fixed state"),
            ("tracing::", "the driver logs; return it as data"),
            ("println!", "effects go out as data"),
            ("async_nats", "clients belong to adapters"),
            ("redb", "clients belong to adapters"),
            ("axum", "the core serves nobody"),
        ],
    );
}

#[test]
fn rooms_depend_in_one_direction() {
    let above_core = ["driver", "adapters", "http", "app", "pipeline", "wire"];
    let room = |names: &[&'static str]| -> Vec<(String, &'static str)> {
        names.iter().map(|name| (format!("crate::{name}"), "this room stands above")).collect()
    };
    let check = |dir: &str, names: &[&'static str]| {
        let banned = room(names);
        let banned: Vec<(&str, &str)> = banned.iter().map(|(word, why)| (word.as_str(), *why)).collect();
        assert_absent(dir, &banned);
    };
    check("src/core", &above_core);
    check("src/pipeline", &["driver", "adapters", "http", "app", "wire"]);
    check("src/driver", &["adapters", "http", "app"]);
    check("src/http", &["adapters", "app"]);
    let adapters = ["clock", "embedded", "nats", "redis"];
    for adapter in adapters {
        let siblings = adapters.iter().filter(|other| **other != adapter);
        let siblings: Vec<(String, &str)> =
            siblings.map(|other| (format!("adapters::{other}"), "adapters do not know each other")).collect();
        let banned: Vec<(&str, &str)> = siblings.iter().map(|(word, why)| (word.as_str(), *why)).collect();
        for (path, text) in sources("src/adapters") {
            let is_own = path.to_string_lossy().contains(&format!("adapters/{adapter}"));
            let wrong =
                code(&text).find(|(_, line)| is_own && banned.iter().any(|(word, _)| line.contains(word)));
            assert!(wrong.is_none(), "{}: {wrong:?}", path.display());
        }
    }
    check("src/adapters", &["http", "app"]);
}

/// A reader that held the engine exclusively could apply a record.
#[test]
fn readers_get_a_read_only_engine() {
    let banned = [("&mut Engine", "readers get `Inspect`, which applies no record")];
    ["src/http", "src/wire", "src/adapters", "src/pipeline"]
        .iter()
        .for_each(|room| assert_absent(room, &banned));
}

#[test]
fn nothing_is_left_behind() {
    let marks = ["TO", "DO"].concat();
    let fix = ["FIX", "ME"].concat();
    for dir in ["src", "tests", "benches"] {
        let debug = ["dbg", "!("].concat();
        assert_absent(
            dir,
            &[(&marks, "do it or say it in an issue"), (&fix, "fix it"), (&debug, "remove it")],
        );
    }
}

#[test]
fn files_and_functions_are_short() {
    const FILE_LINES_MAX: usize = 600;
    const FUNCTION_LINES_MAX: usize = 70;
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines; split it by noun", path.display()));
        }
        let mut begun: Option<(usize, usize)> = None;
        for (at, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_function =
                ["fn ", "pub fn ", "pub(super) fn ", "pub(crate) fn ", "async fn ", "pub async fn "];
            if begun.is_none() && is_function.iter().any(|word| line.trim_start().starts_with(word)) {
                begun = (!line.trim_end().ends_with(';')).then_some((at, indent));
            }
            // A method declared in a trait without a body.
            let is_declared = line.trim().starts_with(')') && line.trim().ends_with(';');
            if begun.is_some_and(|(_, depth)| indent == depth) && is_declared {
                begun = None;
            }
            if let Some((start, depth)) = begun
                && indent == depth
                && line.trim() == "}"
            {
                if at - start > FUNCTION_LINES_MAX {
                    wrong.push(format!("{}:{}: {} lines", path.display(), start + 1, at - start));
                }
                begun = None;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Generated or measured data stay out of the repository, because its history keeps them forever.
#[test]
fn no_file_is_large() {
    const FILE_BYTES_MAX: u64 = 256 << 10;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = std::process::Command::new("git").args(["ls-files", "-z"]).current_dir(root).output();
    let listed = listed.expect("git lists the files of a checkout");
    let names = String::from_utf8(listed.stdout).expect("UTF-8");
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let bytes = fs::metadata(root.join(name)).map_or(0, |meta| meta.len());
        assert!(bytes <= FILE_BYTES_MAX, "{name} has {bytes} bytes");
    }
}

#[test]
fn every_core_module_says_what_it_is_for() {
    for (path, text) in sources("src") {
        let is_test = path.file_name().is_some_and(|name| name == "tests.rs");
        assert!(is_test || text.trim_start().starts_with("//!"), "{} opens without a word", path.display());
    }
}

/// Each documented limit exists as a constant in the code.
#[test]
fn documented_limits_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/limits.md")).expect("the page about limits");
    let cited = page.split('`').filter_map(|quoted| quoted.split_once(".rs "));
    let cited: Vec<(String, &str)> = cited
        .filter(|(_, name)| name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_'))
        .map(|(path, name)| (format!("src/{path}.rs"), name))
        .collect();
    assert!(cited.len() > 100, "only {} limits are documented", cited.len());
    for (path, name) in cited {
        let text = fs::read_to_string(root.join(&path)).unwrap_or_default();
        assert!(text.contains(&format!("const {name}:")), "{path} has no constant {name}");
    }
}
