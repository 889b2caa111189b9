//! Selectors: which series an expression reads, and into which keys they fall.

use super::key::Key;
use super::series::SeriesInfo;
use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// `name{label="v",label!="v",label=~"re",label!~"re"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selector {
    pub name: Option<Arc<str>>,
    pub matchers: Vec<Matcher>,
}

/// One condition on one label; a missing label is empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matcher {
    pub label: Arc<str>,
    pub test: Test,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Test {
    Equal(Arc<str>),
    NotEqual(Arc<str>),
    Match(Pattern),
    NotMatch(Pattern),
}

/// A regular expression over the whole text, matched in linear time.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: Arc<str>,
    regex: Regex,
    bytes: usize, // an upper bound of what its program takes
}

/// How series fall into keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum By {
    /// Each series is a key of its own.
    Series,
    /// One key per combination of these labels, ascending; none: one key over all.
    Labels(Vec<Arc<str>>),
}

/// Bytes that the program of a regular expression may take, in steps: it is charged with the first that it fits
/// into. `db.*` takes about 2 KiB, `\w` about 50 KiB, since it knows all of Unicode; five of those are enough.
const REGEX_BYTES: [usize; 3] = [16 << 10, 64 << 10, 256 << 10];

/// Bytes of one that is in a log already, which may have been written when more was taken.
const STORED_REGEX_BYTES_MAX: usize = 1 << 20;

/// Bytes of the automaton that is built while matching; where it is full, it is begun anew.
const REGEX_CACHE_BYTES_MAX: usize = 256 << 10;

/// Groups within groups; people write two or three.
const REGEX_NESTING_MAX: u32 = 32;

/// Bytes of a pattern as it is written: an alternation of 500 host names.
const REGEX_TEXT_BYTES_MAX: usize = 16 << 10;

/// Classes such as `\pL` or `\w` in a pattern: each is a table of hundreds of ranges, and `(?i)` folds them all.
const REGEX_CLASSES_MAX: usize = 64;

/// The reason for which a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("compiled, it takes more than {} KiB; shorten it, with `[a-z]` for `\\w`", REGEX_BYTES[2] >> 10)]
    TooLarge,
    #[error("it has {0} bytes; at most {REGEX_TEXT_BYTES_MAX} are taken")]
    TooLong(usize),
    #[error("it has {0} classes such as `\\w`; at most {REGEX_CLASSES_MAX} are taken")]
    TooManyClasses(usize),
    #[error("{0}")]
    Syntax(String),
}

impl From<regex::Error> for PatternError {
    fn from(error: regex::Error) -> PatternError {
        match error {
            regex::Error::CompiledTooBig(_) => PatternError::TooLarge,
            other => {
                // The last line says why; those before it draw the place.
                let reason = other.to_string();
                let reason = reason.lines().last().unwrap_or("invalid").trim();
                PatternError::Syntax(reason.trim_start_matches("error: ").into())
            }
        }
    }
}

impl Pattern {
    /// Of the largest pattern, compiled.
    pub const BYTES_MAX: usize = REGEX_BYTES[2];

    /// Compiles the text, anchored at both ends.
    pub fn new(text: &str) -> Result<Pattern, PatternError> {
        if text.len() > REGEX_TEXT_BYTES_MAX {
            return Err(PatternError::TooLong(text.len()));
        }
        let classes = classes(text);
        if classes > REGEX_CLASSES_MAX {
            return Err(PatternError::TooManyClasses(classes));
        }
        // By itself first: `a)|(b` is none, but would be one between the parentheses that anchor it.
        let fits = REGEX_BYTES.into_iter().find_map(|bytes| match compiled(text, bytes) {
            Err(regex::Error::CompiledTooBig(_)) => None,
            found => Some(found.map(|_| bytes)),
        });
        let bytes = fits.ok_or(PatternError::TooLarge)??;
        Ok(Pattern { text: text.into(), regex: anchored(text, bytes * 2)?, bytes })
    }

    /// Bytes that it takes at most.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// Classes of Unicode that are written with a backslash.
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

fn compiled(text: &str, bytes: usize) -> Result<Regex, regex::Error> {
    let mut builder = regex::RegexBuilder::new(text);
    builder.size_limit(bytes).dfa_size_limit(REGEX_CACHE_BYTES_MAX).nest_limit(REGEX_NESTING_MAX).build()
}

/// Over the whole text.
fn anchored(text: &str, bytes: usize) -> Result<Regex, regex::Error> {
    compiled(&format!("^(?:{text})$"), bytes)
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
        let regex = anchored(&text, STORED_REGEX_BYTES_MAX).map_err(serde::de::Error::custom)?;
        Ok(Pattern { text: text.into(), regex, bytes: STORED_REGEX_BYTES_MAX })
    }
}

impl Matcher {
    /// Its regular expression, if it has one.
    pub fn pattern(&self) -> Option<&Pattern> {
        match &self.test {
            Test::Match(pattern) | Test::NotMatch(pattern) => Some(pattern),
            Test::Equal(_) | Test::NotEqual(_) => None,
        }
    }

    /// Whether a label's value (empty where the label is missing) passes.
    pub fn is_match(&self, value: &str) -> bool {
        match &self.test {
            Test::Equal(wanted) => **wanted == *value,
            Test::NotEqual(wanted) => **wanted != *value,
            Test::Match(pattern) => pattern.is_match(value),
            Test::NotMatch(pattern) => !pattern.is_match(value),
        }
    }
}

impl fmt::Display for Matcher {
    /// As people write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, text) = match &self.test {
            Test::Equal(text) => ("=", &**text),
            Test::NotEqual(text) => ("!=", &**text),
            Test::Match(pattern) => ("=~", pattern.text()),
            Test::NotMatch(pattern) => ("!~", pattern.text()),
        };
        write!(f, "{}{sign}\"{}\"", self.label, text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

impl Selector {
    /// Its matchers as people write them.
    pub fn texts(&self) -> Vec<String> {
        self.matchers.iter().map(Matcher::to_string).collect()
    }

    pub fn is_match(&self, series: &SeriesInfo) -> bool {
        self.name.as_ref().is_none_or(|name| *name == series.name)
            && self.is_match_labels(|label| series.label(label).map(|value| &**value))
    }

    /// Whether all matchers pass, given each label's value.
    pub fn is_match_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.matchers.iter().all(|matcher| matcher.is_match(label(&matcher.label).unwrap_or("")))
    }

    /// The same for what silences, maintenance and inhibition are about: no matchers select nothing there, because
    /// what was forgotten in a file must not hide everything.
    pub fn selects<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.matchers.is_empty() && self.is_match_labels(label)
    }

    /// The value that the selector demands of a label, if it demands exactly one.
    pub fn fixed(&self, label: &str) -> Option<&Arc<str>> {
        self.matchers.iter().find_map(|matcher| match &matcher.test {
            Test::Equal(value) if *matcher.label == *label => Some(value),
            _ => None,
        })
    }
}

impl By {
    /// The key a series falls into: the labels asked for, or all there is of the series.
    pub fn key(&self, series: &SeriesInfo) -> Key {
        match self {
            By::Labels(labels) => {
                let values = labels.iter().filter_map(|l| Some((l.clone(), series.label(l)?.clone())));
                Key::new(values.collect())
            }
            By::Series => {
                let own = [("source".into(), series.source.clone()), ("name".into(), series.name.clone())];
                Key::new(own.into_iter().chain(series.labels.iter().cloned()).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::identity::Labels;

    #[test]
    fn matchers_see_source_and_missing_labels() {
        let series = SeriesInfo {
            id: 1,
            source: "db-1".into(),
            name: "cpu".into(),
            labels: Labels::of([("host", "h1")]),
        };
        let matcher = |label: &str, test| Matcher { label: label.into(), test };
        let pattern = |text| Pattern::new(text).expect("valid");
        let hit = [
            matcher("source", Test::Match(pattern("db.*"))),
            matcher("zone", Test::Equal("".into())),
            matcher("zone", Test::NotEqual("x".into())),
            matcher("host", Test::NotMatch(pattern("h"))),
        ];
        assert!(Selector { name: None, matchers: hit.into() }.is_match(&series));
        let miss = vec![matcher("source", Test::Match(pattern("db")))];
        assert!(!Selector { name: None, matchers: miss }.is_match(&series));
    }

    #[test]
    fn patterns_are_anchored_and_bounded() {
        let small = Pattern::new("db.*").expect("a pattern");
        assert!(small.is_match("db1") && !small.is_match("a db1") && small.bytes() == REGEX_BYTES[0]);
        // Between the parentheses that anchor it this would be one, and match anything that begins with a.
        assert!(matches!(Pattern::new("a)|(?:b"), Err(PatternError::Syntax(_))));
        for large in [r"\w{100}", "(a{1000}){1000}"] {
            assert_eq!(Pattern::new(large).err(), Some(PatternError::TooLarge), "{large}");
        }
        let classes = format!("(?i)[{}]", r"\pL".repeat(5_000));
        assert_eq!(Pattern::new(&classes).err(), Some(PatternError::TooManyClasses(5_000)));
        assert_eq!(Pattern::new(&"a".repeat(20_000)).err(), Some(PatternError::TooLong(20_000)));
        assert!(Pattern::new(r"\\\\d{64}\d").is_ok() && super::classes(r"\\\\d\d\\\d\.") == 2);
        let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
        assert!(matches!(Pattern::new(&deep), Err(PatternError::Syntax(_))));
        // One that an older version took stays readable.
        let stored: Pattern = serde_json::from_str(r#""\\w{8}""#).expect("a pattern");
        assert!(stored.is_match("abcdefgh"));
    }
}
