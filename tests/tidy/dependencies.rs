//! Licences and origins of all dependencies, by the lists of `.deny.toml`, without a network.
//!
//! `cargo deny check` says more; this is what needs nothing but cargo.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// The licences that `.deny.toml` allows.
fn allowed() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".deny.toml");
    let text = std::fs::read_to_string(path).expect("the file");
    let (_, list) = text.split_once("allow = [").expect("a list of licences");
    let (list, _) = list.split_once(']').expect("its end");
    list.split('"').skip(1).step_by(2).map(String::from).collect()
}

/// Whether an SPDX expression can be satisfied by allowed licences.
fn is_satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (satisfied, rest) = either(&words, allowed);
    satisfied && rest.is_empty()
}

fn either<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut any, mut rest) = both(words, allowed);
    while let ["OR", next @ ..] = rest {
        let (found, after) = both(next, allowed);
        (any, rest) = (any | found, after);
    }
    (any, rest)
}

fn both<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut all, mut rest) = one(words, allowed);
    while let ["AND", next @ ..] = rest {
        let (found, after) = one(next, allowed);
        (all, rest) = (all & found, after);
    }
    (all, rest)
}

fn one<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inner @ ..] => match either(inner, allowed) {
            (found, [")", rest @ ..]) => (found, rest),
            (_, rest) => (false, rest),
        },
        [name, "WITH", exception, rest @ ..] => (allowed.contains(&format!("{name} WITH {exception}")), rest),
        [name, rest @ ..] => (allowed.contains(*name), rest),
        [] => (false, words),
    }
}

/// Goal: nothing is linked whose licence does not permit it, or that comes from elsewhere than crates.io. Method:
/// the metadata that cargo has of the locked versions.
#[test]
fn dependencies_have_allowed_licences_and_origins() {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.args(["metadata", "--locked", "--offline", "--format-version", "1"]).output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = found["packages"].as_array().expect("packages");
    let allowed = allowed();
    let mut wrong = Vec::new();
    for package in packages.iter().filter(|package| !package["source"].is_null()) {
        let (name, licence) = (&package["name"], package["license"].as_str().unwrap_or("none"));
        if !is_satisfied(licence, &allowed) {
            wrong.push(format!("{name}: licence {licence} is not in .deny.toml"));
        }
        if package["source"] != "registry+https://github.com/rust-lang/crates.io-index" {
            wrong.push(format!("{name}: it comes from {}", package["source"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(packages.len() > 100, "{} packages", packages.len());
}

#[test]
fn an_expression_is_satisfied_as_spdx_says() {
    let allowed = BTreeSet::from(["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(String::from));
    for (expression, is_fine) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND Apache-2.0", true),
        ("MIT/GPL-3.0", true),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
        ("none", false),
    ] {
        assert_eq!(is_satisfied(expression, &allowed), is_fine, "{expression}");
    }
}
