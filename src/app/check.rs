//! `streamgauge check`: everything that is wrong with pipeline files, in one go.

use super::cli::CheckArgs;
use super::{BadConfig, FAILED, FINE};
use crate::core::rule::{Rule, RuleSet};
use crate::pipeline::{Diagnostic, Loaded, load_dir};
use anyhow::Result;
use std::io::Write;
use std::path::{Path, PathBuf};

pub fn run(args: &CheckArgs) -> Result<u8> {
    let mut found = Vec::new();
    for path in paths(&args.paths) {
        let loaded = load_dir(&path)?;
        if !args.json {
            print(&path, &loaded);
        }
        found.extend(loaded.diagnostics);
    }
    if args.json {
        println!("{}", serde_json::to_string(&serde_json::json!({ "diagnostics": found }))?);
    }
    let is_bad = |diagnostic: &Diagnostic| diagnostic.is_error || args.deny_warnings;
    Ok(if found.iter().any(is_bad) { FAILED } else { FINE })
}

/// The paths given, or the default.
pub fn paths(given: &[PathBuf]) -> Vec<PathBuf> {
    if given.is_empty() { vec!["pipelines".into()] } else { given.to_vec() }
}

/// Loads a rule set or says everything that is wrong with it.
pub fn load(path: &Path) -> Result<RuleSet> {
    let loaded = load_dir(path).map_err(|error| BadConfig(format!("{:#}", anyhow::Error::new(error))))?;
    let mut stderr = std::io::stderr().lock();
    for diagnostic in &loaded.diagnostics {
        writeln!(stderr, "{diagnostic}")?;
    }
    let errors = loaded.diagnostics.iter().filter(|diagnostic| diagnostic.is_error).count();
    loaded.rules.ok_or_else(|| BadConfig(format!("{} has {errors} errors", path.display())).into())
}

fn print(path: &Path, loaded: &Loaded) {
    for diagnostic in &loaded.diagnostics {
        eprintln!("{diagnostic}\n");
    }
    let Some(rules) = &loaded.rules else {
        let errors = loaded.diagnostics.iter().filter(|diagnostic| diagnostic.is_error).count();
        eprintln!("{}: {errors} errors", path.display());
        return;
    };
    for rule in &rules.rules {
        println!("{:<32} runs {}", rule.id, place(rules, rule));
    }
    let (count, records, tests) = (rules.rules.len(), rules.records.len(), loaded.tests.len());
    println!("{}: {count} rules, {records} records, {tests} tests: fine", path.display());
}

/// Where a rule runs (RULES.md, "Where a rule runs").
fn place(rules: &RuleSet, rule: &Rule) -> &'static str {
    use crate::core::selector::By;
    let is_bound = |label: &str| matches!(label, "source" | "pipeline");
    let is_local = rule.reads.has_runs
        || rule.views.iter().all(|view| {
            let spec = &rules.views[*view as usize];
            let by_bound = match &spec.by {
                By::Series => true,
                By::Labels(labels) => labels.iter().any(|label| is_bound(label)),
            };
            by_bound || spec.selector.fixed("source").is_some() || spec.selector.fixed("pipeline").is_some()
        });
    if is_local {
        "in the partition of its source or pipeline"
    } else {
        "on the agg partition (with one partition: in it)"
    }
}
