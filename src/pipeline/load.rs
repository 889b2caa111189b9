//! Compiles a directory of files into one rule set, and collects the problems of all files.

use super::bounds::{REGEXES_BYTES_MAX, RULES_MAX, SET_DIAGNOSTICS_MAX, TEST_SLOTS_MAX};
use super::define;
use super::diagnostic::Diagnostic;
use super::expr::check::Checker;
use super::firsts::Firsts;
use super::life::{self, Escalations};
use super::record::{self, RawRecord};
use super::rule;
use super::stage_limit;
use super::test_case::{self, TestCase};
use super::tree::File;
use super::yaml::{self, Node, TextPlace};
use crate::core::Span;
use crate::core::rule::RuleSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The result of reading some files.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The rule set; `None` if any file has an error.
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

/// The reason why a file or directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read {path}; is the path right?")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no text in UTF-8; convert it, as in `iconv -f UTF-16 -t UTF-8`")]
    NotText { path: PathBuf },
    #[error("{path} is larger than {FILE_BYTES_MAX} bytes; split it")]
    TooLarge { path: PathBuf },
    #[error("{path} has more than {FILES_MAX} files, or {SET_BYTES_MAX} bytes; is it the right directory?")]
    TooMany { path: PathBuf },
}

/// The largest size of one file in bytes; a thousand rules are about 200 KiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The largest number of files in a directory; a team with hundreds of services has one file for each
/// service.
pub(super) const FILES_MAX: usize = 1_000;

/// The largest size of all files of a directory together in bytes: four files of the largest size, or 16 KiB
/// for each of the 1,000 files.
pub(super) const SET_BYTES_MAX: u64 = 16 << 20;

/// Reads the `*.yaml` and `*.yml` files of a directory, or one file, in the order of their names.
pub fn load_dir(path: &Path) -> Result<Loaded, LoadError> {
    Ok(load_files(read_dir(path)?))
}

/// Reads the same files as [`load_dir`], but continues after a file that cannot be read and reports it as an
/// error among the diagnostics.
pub fn examine(path: &Path) -> Loaded {
    let (mut texts, mut unread) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    match rule_files(path) {
        Err(error) => unread.push(unreadable(path, &error)),
        Ok(files) => {
            for file in files {
                match read_file(path, &file, &mut bytes) {
                    Ok(text) => texts.push((file.display().to_string(), text)),
                    Err(error) => unread.push(unreadable(&file, &error)),
                }
            }
        }
    }
    let mut loaded = load_files(texts);
    if !unread.is_empty() {
        loaded.rules = None;
        loaded.diagnostics.splice(0..0, unread);
    }
    loaded
}

fn unreadable(path: &Path, error: &LoadError) -> Diagnostic {
    let why = std::error::Error::source(error).map_or(String::new(), |source| format!(": {source}"));
    Diagnostic::of_file(path.display().to_string(), format!("{error}{why}"), None)
}

/// Returns (path, text) of the rule files of a directory, or of one file.
pub(super) fn read_dir(path: &Path) -> Result<Vec<(String, String)>, LoadError> {
    let mut bytes = 0;
    let read = |file: PathBuf| Ok((file.display().to_string(), read_file(path, &file, &mut bytes)?));
    rule_files(path)?.into_iter().map(read).collect()
}

/// Reads one file of a directory. `bytes`: the bytes read from this directory so far.
fn read_file(dir: &Path, file: &Path, bytes: &mut u64) -> Result<String, LoadError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::InvalidData => LoadError::NotText { path: file.into() },
        _ => LoadError::Read { path: file.into(), source },
    };
    let meta = fs::metadata(file).map_err(failed)?;
    // Reading a named pipe in the directory would block forever.
    if file != dir && !meta.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    // The metadata does not tell the size reliably: `/dev/zero` has a length of 0 and no end. The read is
    // bounded instead.
    let mut text = String::new();
    let reader = fs::File::open(file).map_err(failed)?;
    reader.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge { path: file.into() });
    }
    *bytes += text.len() as u64;
    if *bytes > SET_BYTES_MAX {
        return Err(LoadError::TooMany { path: dir.into() });
    }
    Ok(text)
}

/// Lists the rule files of a directory, or returns the one file that is named. Names that begin with a dot
/// are left out, as the shell's `*` does: editors keep lock files and drafts under such names.
pub fn rule_files(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let failed = |source| LoadError::Read { path: path.to_path_buf(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_rules = matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml"));
        if is_rules && !is_hidden && !path.is_dir() {
            paths.push(path);
        }
    }
    if paths.len() > FILES_MAX {
        return Err(LoadError::TooMany { path: path.to_path_buf() });
    }
    paths.sort();
    Ok(paths)
}

/// Checks files given as (name, text) and compiles them into one rule set, with their tests.
pub fn load_files(texts: Vec<(String, String)>) -> Loaded {
    load(texts, true)
}

/// Does the same as [`load_files`] for callers that run no tests: each test is checked and then dropped.
pub fn load_rules(texts: Vec<(String, String)>) -> Loaded {
    load(texts, false)
}

fn load(texts: Vec<(String, String)>, is_for_tests: bool) -> Loaded {
    let files: Vec<File<'_>> = texts.iter().map(|(name, text)| File::new(name, text)).collect();
    let roots: Vec<Option<Node>> =
        texts.iter().zip(&files).map(|((_, text), file)| root(file, text)).collect();
    let (mut set, mut checker, mut firsts) = (RuleSet::default(), Checker::default(), Firsts::default());
    let limits = definitions(&files, &roots, &mut set, &mut firsts);
    checker.metrics = set.metrics.clone();
    checker.pipelines = set.pipelines.clone();
    checker.escalations = lives(&files, &roots, &mut set, &mut firsts);
    set.records = records(&files, &roots, &mut checker);
    set.rules = rules(&files, &roots, &mut checker, &limits, &mut firsts);
    let mut ids: Vec<&str> = set.rules.iter().map(|rule| &*rule.id).collect();
    ids.sort_unstable();
    files.iter().for_each(|file| file.doubt_mentions(&ids));
    set.views = checker.views;
    let (mut tests, mut slots) = (Vec::new(), TEST_SLOTS_MAX);
    let known = test_case::Known::new(&set);
    for (file, root) in files.iter().zip(&roots) {
        if let Some(node) = root.as_ref().and_then(|root| define::section(root, "tests")) {
            let keep = |test| {
                if is_for_tests {
                    tests.push(test)
                }
            };
            test_case::read(file, node, &known, &mut slots, is_for_tests, keep);
        }
    }
    let diagnostics = all_diagnostics(files);
    let is_good = !diagnostics.iter().any(|diagnostic| diagnostic.is_error);
    set.files = texts;
    Loaded { rules: is_good.then_some(set), tests, diagnostics }
}

/// Collects the problems of all files up to [`SET_DIAGNOSTICS_MAX`]; the last diagnostic counts the rest.
fn all_diagnostics(files: Vec<File<'_>>) -> Vec<Diagnostic> {
    let mut all: Vec<Diagnostic> = Vec::new();
    let (mut more, mut is_error) = (0, false);
    for one in files.into_iter().flat_map(File::into_diagnostics) {
        if all.len() < SET_DIAGNOSTICS_MAX {
            all.push(one);
        } else {
            (more, is_error) = (more + 1, is_error || one.is_error);
        }
    }
    if more > 0 {
        let message = format!("and {more} more; correct those above to see them");
        all.push(Diagnostic { is_error, ..Diagnostic::of_file("all files", message, None) });
    }
    all
}

fn root(file: &File<'_>, text: &str) -> Option<Node> {
    match yaml::parse_all_keys(text) {
        Ok((root, twice)) => {
            twice.iter().for_each(|twice| file.error(twice.at, twice.message(), None));
            define::check_sections(file, &root);
            Some(root)
        }
        Err(error) => {
            let at = error.at.unwrap_or(TextPlace { line: 1, column: 1 });
            file.error(at, error.message, error.hint.map(Into::into));
            None
        }
    }
}

/// The time limit of a pipeline's stage. `file` is the index of its file, `at` the place in that file.
#[derive(Debug)]
struct StageLimit {
    file: usize,
    pipeline: String,
    stage: String,
    limit: Span,
    at: TextPlace,
}

/// Reads the metrics, declared series and pipelines of all files. This comes first, because rules refer to
/// them.
fn definitions(
    files: &[File<'_>],
    roots: &[Option<Node>],
    set: &mut RuleSet,
    firsts: &mut Firsts,
) -> Vec<StageLimit> {
    let mut limits = Vec::new();
    for (number, (file, root)) in files.iter().zip(roots).enumerate() {
        let Some(root) = root else { continue };
        if let Some(node) = define::section(root, "metrics") {
            define::metrics(file, node, &mut set.metrics, firsts);
        }
        if let Some(node) = define::section(root, "declare") {
            define::declare(file, node, &mut set.declared);
        }
        if let Some(node) = define::section(root, "pipelines") {
            for (pipeline, stage, node) in define::pipelines(file, node, &mut set.pipelines, firsts) {
                let Some(limit) = file.span(node) else { continue };
                limits.push(StageLimit { file: number, pipeline, stage, limit, at: node.at });
            }
        }
    }
    limits
}

/// Reads escalations, maintenance windows, inhibitions and health weights. This comes before the rules,
/// because rules refer to escalations.
fn lives(files: &[File<'_>], roots: &[Option<Node>], set: &mut RuleSet, firsts: &mut Firsts) -> Escalations {
    let (mut escalations, mut health, mut regex_bytes) = (Escalations::new(), None, 0);
    for (file, root) in files.iter().zip(roots) {
        let Some(root) = root else { continue };
        if let Some(node) = define::section(root, "escalations") {
            life::escalations(file, node, &mut escalations, firsts);
        }
        if let Some(node) = define::section(root, "maintenance") {
            life::maintenance(file, node, &mut set.maintenance, firsts);
        }
        if let Some(node) = define::section(root, "inhibit") {
            life::inhibits(file, node, &mut set.inhibits);
        }
        if let Some(node) = define::section(root, "health") {
            define::health(file, node, &mut health, firsts);
        }
        regex_bytes += file.regex_bytes();
        if regex_bytes > REGEXES_BYTES_MAX {
            let most = REGEXES_BYTES_MAX >> 20;
            let message = format!("the matchers of all files up to here take more than {most} MiB");
            file.error(root.at, message, Some("match by `=` where you can".into()));
            break;
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
            record::records(file, number, node, &mut raw);
        }
    }
    let order = record::in_dependency_order(&raw).unwrap_or_else(|cycle| {
        for at in cycle {
            let message = format!("record `{}` reads itself through other records", raw[at].name);
            files[raw[at].file].error(raw[at].at, message, None);
        }
        Vec::new()
    });
    order.into_iter().filter_map(|at| record::check_record(&files[raw[at].file], checker, &raw[at])).collect()
}

fn rules(
    files: &[File<'_>],
    roots: &[Option<Node>],
    checker: &mut Checker,
    limits: &[StageLimit],
    firsts: &mut Firsts,
) -> Vec<crate::core::rule::Rule> {
    let mut rules = Vec::new();
    for (number, (file, root)) in files.iter().zip(roots).enumerate() {
        let written = root.as_ref().and_then(|root| define::section(root, "rules"));
        for node in written.map(|node| file.list(node)).unwrap_or_default() {
            rules.extend(one_rule(file, checker, node, firsts, rules.len()));
        }
        for limit in limits.iter().filter(|limit| limit.file == number) {
            let node = stage_limit::rule(&limit.pipeline, &limit.stage, limit.limit, limit.at);
            rules.extend(one_rule(file, checker, &node, firsts, rules.len()));
        }
    }
    rules
}

fn one_rule(
    file: &File<'_>,
    checker: &mut Checker,
    node: &Node,
    firsts: &mut Firsts,
    before: usize,
) -> Option<crate::core::rule::Rule> {
    if before >= RULES_MAX {
        file.error(node.at, format!("there are more than {RULES_MAX} rules"), None);
        return None;
    }
    // The id is noted even if the rule has other errors, so that all duplicates are reported at once.
    if let Some(id) = define::section(node, "id").and_then(Node::text) {
        firsts.note(file, "rule", id, node.at);
    }
    checker.reads.clear();
    let rule = rule::rule(file, checker, node)?;
    warn_short_windows(file, checker, node);
    Some(rule)
}

/// Warns about a window below 40 s over a recorded series: a record repeats its value at least every 30 s, so a
/// shorter window may be empty.
fn warn_short_windows(file: &File<'_>, checker: &Checker, node: &Node) {
    let short = Span::from_secs(40);
    for (name, window) in checker.reads.iter().filter(|(name, _)| checker.records.contains_key(name)) {
        if *window < short {
            let message = format!("`{name}` is a recorded series; a window of {window} over it may be empty");
            file.warn(node.at, message, Some("take a window of 40s or more".into()));
        }
    }
}
