//! A directory of files to one rule set, with everything that is wrong in any of them.

use super::define::{self, RawRecord};
use super::diagnostic::Diagnostic;
use super::expr::check::Checker;
use super::life::{self, Escalations};
use super::rule;
use super::test_case::{self, TestCase};
use super::tree::File;
use super::yaml::{self, Node, Place};
use crate::core::Span;
use crate::core::rule::RuleSet;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// What came of reading some files.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The rule set; `None` when any file has an error.
    pub rules: Option<RuleSet>,
    pub tests: Vec<TestCase>,
    /// Errors and warnings, in file order.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.is_error)
    }
}

/// Why a directory could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read {path}; is the path right?")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is larger than {FILE_BYTES_MAX} bytes; split it")]
    TooLarge { path: PathBuf },
}

/// Bytes of one file; a thousand rules are about 200 KiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads the `*.yaml` and `*.yml` of a directory, or one file, in order of their names.
pub fn load_dir(path: &Path) -> Result<Loaded, LoadError> {
    Ok(load_files(read_dir(path)?))
}

/// The texts of those files by their paths.
pub(super) fn read_dir(path: &Path) -> Result<Vec<(String, String)>, LoadError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| LoadError::Read { path, source }
    };
    let mut paths = Vec::new();
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(failed(path))? {
            let path = entry.map_err(failed(path))?.path();
            if matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml")) {
                paths.push(path);
            }
        }
        paths.sort();
    } else {
        paths.push(path.to_path_buf());
    }
    let mut files = Vec::new();
    for path in paths {
        if fs::metadata(&path).map_err(failed(&path))?.len() > FILE_BYTES_MAX {
            return Err(LoadError::TooLarge { path });
        }
        let text = fs::read_to_string(&path).map_err(failed(&path))?;
        files.push((path.display().to_string(), text));
    }
    Ok(files)
}

/// Checks files given as (name, text) and makes one rule set of them.
pub fn load_files(texts: Vec<(String, String)>) -> Loaded {
    let files: Vec<File<'_>> = texts.iter().map(|(name, text)| File::new(name, text)).collect();
    let roots: Vec<Option<Node>> =
        texts.iter().zip(&files).map(|((_, text), file)| root(file, text)).collect();
    let mut set = RuleSet::default();
    let mut checker = Checker::default();
    let limits = definitions(&files, &roots, &mut set);
    checker.metrics = set.metrics.clone();
    checker.escalations = lives(&files, &roots, &mut set);
    set.records = records(&files, &roots, &mut checker);
    set.rules = rules(&files, &roots, &mut checker, &limits);
    let mut tests = Vec::new();
    for (file, root) in files.iter().zip(&roots) {
        if let Some(node) = root.as_ref().and_then(|root| define::section(root, "tests")) {
            test_case::read(file, node, &set, &mut tests);
        }
    }
    set.views = checker.views;
    let diagnostics: Vec<Diagnostic> = files.into_iter().flat_map(File::into_diagnostics).collect();
    let is_good = !diagnostics.iter().any(|diagnostic| diagnostic.is_error);
    set.files = texts;
    Loaded { rules: is_good.then_some(set), tests, diagnostics }
}

fn root(file: &File<'_>, text: &str) -> Option<Node> {
    match yaml::parse(text) {
        Ok(root) => {
            define::check_sections(file, &root);
            Some(root)
        }
        Err(error) => {
            file.error(error.at.unwrap_or(Place { line: 1, column: 1 }), error.message, None);
            None
        }
    }
}

type StageLimits = Vec<(usize, String, String, Span)>;

/// Metrics, declared series and pipelines of all files, before anything refers to them.
fn definitions(files: &[File<'_>], roots: &[Option<Node>], set: &mut RuleSet) -> StageLimits {
    let mut limits = Vec::new();
    for (number, (file, root)) in files.iter().zip(roots).enumerate() {
        let Some(root) = root else { continue };
        if let Some(node) = define::section(root, "metrics") {
            define::metrics(file, node, &mut set.metrics);
        }
        if let Some(node) = define::section(root, "declare") {
            define::declare(file, node, &mut set.declared);
        }
        if let Some(node) = define::section(root, "pipelines") {
            for (pipeline, stage, limit) in define::pipelines(file, node, &mut set.pipelines) {
                limits.extend(file.span(limit).map(|limit| (number, pipeline, stage, limit)));
            }
        }
    }
    limits
}

/// What happens to alerts, before rules refer to it.
fn lives(files: &[File<'_>], roots: &[Option<Node>], set: &mut RuleSet) -> Escalations {
    let (mut escalations, mut health) = (Escalations::new(), None);
    for (file, root) in files.iter().zip(roots) {
        let Some(root) = root else { continue };
        if let Some(node) = define::section(root, "escalations") {
            life::escalations(file, node, &mut escalations);
        }
        if let Some(node) = define::section(root, "maintenance") {
            life::maintenance(file, node, &mut set.maintenance);
        }
        if let Some(node) = define::section(root, "inhibit") {
            life::inhibits(file, node, &mut set.inhibits);
        }
        if let Some(node) = define::section(root, "health") {
            define::health(file, node, &mut health);
        }
    }
    set.health = health.unwrap_or_default();
    escalations
}

fn records(
    files: &[File<'_>],
    roots: &[Option<Node>],
    checker: &mut Checker,
) -> Vec<crate::core::rule::RecordSpec> {
    let mut raw: Vec<RawRecord<'_>> = Vec::new();
    for (number, (file, root)) in files.iter().zip(roots).enumerate() {
        if let Some(node) = root.as_ref().and_then(|root| define::section(root, "record")) {
            define::records(file, number, node, &mut raw);
        }
    }
    let order = define::in_dependency_order(&raw).unwrap_or_else(|cycle| {
        for at in cycle {
            let message = format!("record `{}` reads itself, by way of others", raw[at].name);
            files[raw[at].file].error(raw[at].at, message, None);
        }
        Vec::new()
    });
    order.into_iter().filter_map(|at| define::check_record(&files[raw[at].file], checker, &raw[at])).collect()
}

fn rules(
    files: &[File<'_>],
    roots: &[Option<Node>],
    checker: &mut Checker,
    limits: &StageLimits,
) -> Vec<crate::core::rule::Rule> {
    let (mut rules, mut seen) = (Vec::new(), BTreeMap::new());
    for (number, (file, root)) in files.iter().zip(roots).enumerate() {
        let written = root.as_ref().and_then(|root| define::section(root, "rules"));
        for node in written.map(|node| file.list(node)).unwrap_or_default() {
            checker.reads.clear();
            let Some(rule) = rule::rule(file, checker, node) else { continue };
            if let Some(other) = seen.insert(rule.id.clone(), file.name) {
                file.error(
                    node.at,
                    format!("rule `{}` is there twice; the other is in {other}", rule.id),
                    None,
                );
            }
            warn_short_windows(file, checker, node);
            rules.push(rule);
        }
        for (_, pipeline, stage, limit) in limits.iter().filter(|(owner, ..)| *owner == number) {
            rules.extend(implied(checker, pipeline, stage, *limit));
        }
    }
    rules
}

/// The rule that a stage limit stands for; written by us, so it has no errors.
fn implied(
    checker: &mut Checker,
    pipeline: &str,
    stage: &str,
    limit: Span,
) -> Option<crate::core::rule::Rule> {
    let text = rule::stage_limit(pipeline, stage, limit);
    let node = yaml::parse(&text).ok()?;
    rule::rule(&File::new("stage_limits", &text), checker, &node)
}

/// A record repeats every 30 s at the latest: a shorter window over it may be empty.
fn warn_short_windows(file: &File<'_>, checker: &Checker, node: &Node) {
    let short = Span::from_secs(40);
    for (name, window) in checker.reads.iter().filter(|(name, _)| checker.records.contains_key(name)) {
        if *window < short {
            let message = format!("`{name}` is a recorded series; a window of {window} over it may be empty");
            file.warn(node.at, message, Some("take a window of 40s or more".into()));
        }
    }
}
