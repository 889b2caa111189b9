//! `streamgauge check`: reports all errors of pipeline files in one run.

use super::cli::CheckArgs;
use super::stderr::note;
use super::stdout::say;
use super::{BadConfig, FAILED, FINE};
use crate::core::rule::RuleSet;
use crate::core::rule::scope::Scope;
use crate::pipeline::load::examine;
use crate::pipeline::{Diagnostic, Loaded, load_dir};
use crate::wire::printable::{printable, printable_json, printable_lines};
use anyhow::Result;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(crate) fn run(args: &CheckArgs) -> Result<u8> {
    let mut found = Vec::new();
    for path in paths(&args.paths) {
        let mut loaded = examine(&path);
        if loaded.rules.as_ref().is_some_and(|rules| rules.files.is_empty()) {
            loaded.diagnostics.push(nothing(&path));
            loaded.rules = None;
        }
        if !args.json {
            print(&path, &loaded)?;
        }
        found.extend(loaded.diagnostics);
    }
    if args.json {
        say(printable_json(&serde_json::json!({ "diagnostics": found }).to_string()))?;
    }
    let is_bad = |diagnostic: &Diagnostic| diagnostic.is_error || args.deny_warnings;
    Ok(if found.iter().any(is_bad) { FAILED } else { FINE })
}

/// Returns the diagnostic for a directory without rule files: a check of nothing must not succeed.
fn nothing(path: &Path) -> Diagnostic {
    let message = "there is no rule file here; its name ends in .yaml or .yml";
    let hint = "is it the right directory? A file with `rules: []` says that there are no rules";
    Diagnostic::of_file(path.display().to_string(), message, Some(hint))
}

/// Returns the given paths, or the default.
pub(crate) fn paths(given: &[PathBuf]) -> Vec<PathBuf> {
    if given.is_empty() { vec!["pipelines".into()] } else { given.to_vec() }
}

/// Loads a rule set, or reports all its errors.
pub(crate) fn load(path: &Path) -> Result<RuleSet> {
    load_all(path).map(|loaded| loaded.rules.unwrap_or_default())
}

/// Loads a rule set with its tests; the result always has a rule set.
pub(crate) fn load_all(path: &Path) -> Result<Loaded> {
    let loaded = load_dir(path).map_err(|error| BadConfig(format!("{:#}", anyhow::Error::new(error))))?;
    loaded.diagnostics.iter().for_each(|diagnostic| tell(diagnostic, ""));
    if loaded.rules.is_none() {
        let errors = loaded.diagnostics.iter().filter(|diagnostic| diagnostic.is_error).count();
        return Err(BadConfig(format!("{} has {errors} errors", path.display())).into());
    }
    Ok(loaded)
}

/// Writes a diagnostic to standard error, with its tabs, because carets are aligned below them. Write errors
/// are ignored.
fn tell(diagnostic: &Diagnostic, end: &str) {
    let _ = writeln!(std::io::stderr(), "{}{end}", printable_lines(&diagnostic.to_string()));
}

fn print(path: &Path, loaded: &Loaded) -> Result<()> {
    loaded.diagnostics.iter().for_each(|diagnostic| tell(diagnostic, "\n"));
    let Some(rules) = &loaded.rules else {
        let errors = loaded.diagnostics.iter().filter(|diagnostic| diagnostic.is_error).count();
        note(format_args!("{}: {errors} errors", path.display()));
        return Ok(());
    };
    for (rule, scope) in rules.rules.iter().zip(rules.scopes().1) {
        say(format_args!("{:<32} runs {}", printable(&rule.id), place(scope)))?;
    }
    let (count, records, tests) = (rules.rules.len(), rules.records.len(), loaded.tests.len());
    say(format_args!("{}: {count} rules, {records} records, {tests} tests: fine", path.display()))
}

/// Describes where a rule runs.
fn place(scope: Scope) -> &'static str {
    match scope {
        Scope::Partition => "in the partition of its source or pipeline",
        Scope::Aggregate => "on the agg partition (with one partition: in it)",
    }
}
