//! Regular expressions over whole label values, compiled to dense DFAs.
//!
//! Intuition: people write the patterns, and the engine's thread matches them against each new series and
//! each alert. A dense DFA costs one table look-up per byte of the value (0.6 us for 256 bytes), whatever the
//! pattern is. The cost of compiling depends on the pattern and is bounded. Invariants: every accepted
//! pattern has its DFA. A process compiles the same text once, as long as one copy of the pattern is in use.
//! Rejected: a lazy DFA (`[ab]*a[ab]{80}` takes milliseconds for one value), DFA minimization (compiling
//! takes ten times as long).

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input, MatchKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

/// Maximum bytes of a pattern's text; enough for an alternation of 500 host names.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// Maximum number of classes such as `\pL` or `\w` in a pattern. Each class is a table of hundreds of Unicode
/// ranges, and `(?i)` case-folds every range.
const CLASSES_MAX: usize = 64;

/// Maximum depth of nested groups; people write two or three.
const NESTING_MAX: u32 = 32;

/// Maximum bytes of the table of a DFA. `db.*` takes 1 KiB, `\w+` 160 KiB because it covers all of Unicode,
/// and 500 host names of 21 letters 3.2 MiB. The largest table takes about 0.15 s to compile.
const TABLE_BYTES_MAX: usize = 4 << 20;

/// Maximum bytes of the NFA from which a table is compiled.
const NFA_BYTES_MAX: usize = 1 << 20;

/// Limits in bytes for the sets of NFA states held while a table is compiled, tried in ascending order. They
/// also bound the compile time: 1 MiB takes about 0.02 s. Even a small table may need much, such as that of
/// `(a{1,30}){1,30}b`. The first limit that suffices is the cost of the pattern. A failed attempt costs an
/// eighth of the next one.
const WORK_BYTES: [usize; 4] = [2 << 10, 16 << 10, 128 << 10, 1 << 20];

/// Maximum bytes of a compiled pattern that a log already holds. An older version may have accepted it under
/// other limits.
const STORED_BYTES_MAX: usize = 1 << 20;

/// Number of entries in `KNOWN` from which on the entries of unused patterns are removed.
const KNOWN_SWEPT_AT: usize = 1_024;

/// A regular expression that must match the whole text.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Arc<str>,
    program: Arc<Program>,
}

#[derive(Debug)]
enum Program {
    Table {
        table: Box<dense::DFA<Vec<u32>>>,
        work_bytes: usize,
    },
    /// A pattern in a log of an older version. It matches in linear time, but takes thousands of steps per
    /// byte.
    Stored(regex::Regex),
}

/// The reason for which a text is not accepted as a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("compiled, it takes more than {} KiB; shorten it, with `[a-z]` for `\\w`", TABLE_BYTES_MAX >> 10)]
    TooLarge,
    #[error("it has {0} bytes; at most {TEXT_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("it has {0} classes such as `\\w`; at most {CLASSES_MAX} are taken")]
    TooManyClasses(usize),
    #[error("word boundaries of Unicode are not supported; write `(?-u:\\b)` for `\\b`")]
    WordBoundary,
    #[error("{0}")]
    Syntax(String),
}

/// The programs in use, by their texts.
static KNOWN: LazyLock<Mutex<HashMap<Arc<str>, Weak<Program>>>> = LazyLock::new(Mutex::default);

impl Pattern {
    /// Bytes of the largest compiled pattern.
    pub const BYTES_MAX: usize = TABLE_BYTES_MAX;

    /// Compiles the text, anchored at both ends.
    pub fn new(text: &str) -> Result<Pattern, PatternError> {
        let is_table = |program: &Program| matches!(program, Program::Table { .. });
        Pattern::known_or(text, is_table, || table(text))
    }

    /// Returns the known program of a text if it is in use and wanted; otherwise compiles a new one.
    fn known_or<E>(
        text: &str,
        is_wanted: impl Fn(&Program) -> bool,
        compile: impl FnOnce() -> Result<Program, E>,
    ) -> Result<Pattern, E> {
        let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((text, program)) = known().get_key_value(text)
            && let Some(program) = program.upgrade().filter(|program| is_wanted(program))
        {
            return Ok(Pattern { text: text.clone(), program });
        }
        let pattern = Pattern { text: text.into(), program: Arc::new(compile()?) };
        let mut known = known();
        if known.len() >= KNOWN_SWEPT_AT && known.len() == known.capacity() {
            known.retain(|_, program| program.strong_count() > 0);
        }
        known.insert(pattern.text.clone(), Arc::downgrade(&pattern.program));
        Ok(pattern)
    }

    /// The cost in bytes: those of the table, or those that compiling it took, whichever is more.
    pub fn bytes(&self) -> usize {
        match &*self.program {
            Program::Table { table, work_bytes } => table.memory_usage().max(*work_bytes),
            Program::Stored(_) => STORED_BYTES_MAX,
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn is_match(&self, text: &str) -> bool {
        match &*self.program {
            Program::Table { table, .. } => {
                let input = Input::new(text).anchored(Anchored::Yes).earliest(true);
                // The table supports all bytes and anchored searches, so the search returns no error.
                table.try_search_fwd(&input).is_ok_and(|found| found.is_some())
            }
            Program::Stored(regex) => regex.is_match(text),
        }
    }
}

fn table(text: &str) -> Result<Program, PatternError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(PatternError::TooLong(text.len()));
    }
    let classes = classes(text);
    if classes > CLASSES_MAX {
        return Err(PatternError::TooManyClasses(classes));
    }
    let syntax = syntax::Config::new().nest_limit(NESTING_MAX);
    // The text is parsed alone first: `a)|(b` is invalid, but becomes valid between the anchoring
    // parentheses.
    let parsed = syntax::parse_with(text, &syntax);
    let parsed = parsed.map_err(|error| PatternError::Syntax(last_line(&error.to_string())))?;
    if parsed.properties().look_set().contains_word_unicode() {
        return Err(PatternError::WordBoundary);
    }
    let config = thompson::Config::new()
        .nfa_size_limit(Some(NFA_BYTES_MAX))
        .which_captures(thompson::WhichCaptures::None);
    let nfa = thompson::Compiler::new().configure(config).syntax(syntax).build(&anchored(text));
    let nfa = nfa.map_err(|error| reason(&error))?;
    let determinized = WORK_BYTES.iter().find_map(|work_bytes| {
        let table = determinized(&nfa, *work_bytes)?;
        Some(Program::Table { table: Box::new(table), work_bytes: *work_bytes })
    });
    determinized.ok_or(PatternError::TooLarge)
}

/// Returns the table of the DFA; `None` if compiling needs more than `work_bytes` or the table is too large.
fn determinized(nfa: &thompson::NFA, work_bytes: usize) -> Option<dense::DFA<Vec<u32>>> {
    let config = dense::Config::new()
        .accelerate(false)
        .start_kind(StartKind::Anchored)
        .match_kind(MatchKind::All)
        .dfa_size_limit(Some(TABLE_BYTES_MAX))
        .determinize_size_limit(Some(work_bytes));
    dense::Builder::new().configure(config).build_from_nfa(nfa).ok()
}

fn reason(error: &thompson::BuildError) -> PatternError {
    match error.source() {
        // The text alone is valid, but ends in a comment (`(?x)a#`) that hides the closing anchor.
        Some(syntax) => PatternError::Syntax(last_line(&syntax.to_string())),
        None => PatternError::TooLarge,
    }
}

/// The last line of an error states the reason; the lines before it draw the position.
fn last_line(error: &str) -> String {
    let reason = error.lines().last().unwrap_or("invalid").trim();
    reason.trim_start_matches("error: ").into()
}

/// Counts the Unicode classes that are written with a backslash.
fn classes(text: &str) -> usize {
    let mut letters = text.chars();
    let mut count = 0;
    while let Some(letter) = letters.next() {
        if letter == '\\' {
            count += usize::from(letters.next().is_some_and(|class| "pPwWdDsS".contains(class)));
        }
    }
    count
}

/// The text anchored at its end. The search itself is anchored at the start.
fn anchored(text: &str) -> String {
    format!("(?:{text})$")
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.text == other.text
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        let stored = |_| {
            let mut builder = regex::RegexBuilder::new(&format!("^{}", anchored(&text)));
            builder.size_limit(STORED_BYTES_MAX).nest_limit(NESTING_MAX).build().map(Program::Stored)
        };
        let program = || table(&text).or_else(stored);
        Pattern::known_or(&text, |_| true, program).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_anchored_and_bounded() {
        let small = Pattern::new("db.*").expect("a pattern");
        assert!(small.is_match("db1") && !small.is_match("a db1") && small.bytes() <= 2 << 10);
        let either = Pattern::new("a|ab").expect("a pattern");
        assert!(
            either.is_match("a") && either.is_match("ab") && !either.is_match("abc") && !either.is_match("")
        );
        assert!(Pattern::new("(?i)Stra\u{df}e|\\pL\\d+").expect("a pattern").is_match("STRA\u{1e9e}E"));
        // Between the anchoring parentheses this text is valid and matches anything that begins with `a`.
        assert!(matches!(Pattern::new("a)|(?:b"), Err(PatternError::Syntax(_))));
        for large in [r"\w{100}", "(a{1000}){1000}", "[ab]*a[ab]{80}"] {
            assert_eq!(Pattern::new(large).err(), Some(PatternError::TooLarge), "{large}");
        }
        assert_eq!(Pattern::new(r"a\b").err(), Some(PatternError::WordBoundary));
        assert!(Pattern::new(r".*(?-u:\b)b").expect("a pattern").is_match("a b"));
        let classes = format!("(?i)[{}]", r"\pL".repeat(5_000));
        assert_eq!(Pattern::new(&classes).err(), Some(PatternError::TooManyClasses(5_000)));
        assert_eq!(Pattern::new(&"a".repeat(20_000)).err(), Some(PatternError::TooLong(20_000)));
        assert!(Pattern::new(r"\\\\d{64}\d").is_ok() && super::classes(r"\\\\d\d\\\d\.") == 2);
        let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
        assert!(matches!(Pattern::new(&deep), Err(PatternError::Syntax(_))));
        let heavy = Pattern::new("(a{1,30}){1,30}b").expect("a pattern");
        assert_eq!(heavy.bytes(), 1 << 20, "its table is small, and compiling it is not");
        let hosts: Vec<String> = (0..500).map(|n| format!("host-{n:04}.example.com")).collect();
        assert!(Pattern::new(&hosts.join("|")).expect("a pattern").is_match("host-0499.example.com"));
    }

    #[test]
    fn one_of_a_log_stays_readable() {
        for (text, value) in
            [(r"\\w{8}", "abcdefgh"), ("[ab]*a[ab]{80}", &"a".repeat(81)), (r"a\\b.*", "a b")]
        {
            let stored: Pattern = serde_json::from_str(&format!("\"{text}\"")).expect("a pattern");
            assert!(stored.is_match(value) && !stored.is_match(""), "{text}");
            let new = Pattern::new(stored.text());
            assert!(new.is_ok() || !matches!(*stored.program, Program::Table { .. }), "{text} is new");
            assert!(
                new.is_err() || matches!(*stored.program, Program::Table { .. }),
                "{text} is of a log alone"
            );
        }
    }

    #[test]
    fn the_same_text_is_compiled_once() {
        let (one, other) = (Pattern::new("held.*"), Pattern::new("held.*"));
        let (one, other) = (one.expect("a pattern"), other.expect("a pattern"));
        assert!(Arc::ptr_eq(&one.program, &other.program));
    }
}
