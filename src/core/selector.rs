//! Selectors: which series an expression reads, and into which keys they fall.

use super::key::Key;
use super::pattern::Pattern;
use super::series::SeriesInfo;
use serde::{Deserialize, Serialize};
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

/// How series fall into keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum By {
    /// Each series is a key of its own.
    Series,
    /// One key per combination of these labels, ascending; none: one key over all.
    Labels(Vec<Arc<str>>),
}

impl Matcher {
    /// Its regular expression, if it has one.
    pub fn pattern(&self) -> Option<&Pattern> {
        match &self.test {
            Test::Match(pattern) | Test::NotMatch(pattern) => Some(pattern),
            Test::Equal(_) | Test::NotEqual(_) => None,
        }
    }

    /// The text or pattern on the right side, as it is written.
    pub fn value(&self) -> &str {
        match &self.test {
            Test::Equal(text) | Test::NotEqual(text) => text,
            Test::Match(pattern) | Test::NotMatch(pattern) => pattern.text(),
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
        let sign = match &self.test {
            Test::Equal(_) => "=",
            Test::NotEqual(_) => "!=",
            Test::Match(_) => "=~",
            Test::NotMatch(_) => "!~",
        };
        write!(f, "{}{sign}\"{}\"", self.label, self.value().replace('\\', "\\\\").replace('"', "\\\""))
    }
}

impl Selector {
    /// Its matchers as people write them.
    pub fn texts(&self) -> Vec<String> {
        self.matchers.iter().map(Matcher::to_string).collect()
    }

    pub fn is_match(&self, series: &SeriesInfo) -> bool {
        self.is_match_with(&series.name, |label| series.label(label))
    }

    /// The same for a series of this name, given each label's value.
    pub fn is_match_with<'a>(&self, name: &str, label: impl Fn(&str) -> Option<&'a Arc<str>>) -> bool {
        self.name.as_ref().is_none_or(|wanted| **wanted == *name)
            && self.is_match_labels(|name| label(name).map(|value| &**value))
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
    /// The key a series falls into: the labels asked for, given each label's value, or all there is of the series.
    pub fn key<'a>(&self, series: &'a SeriesInfo, label: impl Fn(&str) -> Option<&'a Arc<str>>) -> Key {
        match self {
            By::Labels(labels) => {
                let values = labels.iter().filter_map(|l| Some((l.clone(), label(l)?.clone())));
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
}
