//! Selectors: the series that an expression reads, and the keys that these series belong to.

use super::key::Key;
use super::pattern::Pattern;
use super::series_info::SeriesInfo;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A selector: `name{label="v",label!="v",label=~"re",label!~"re"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Selector {
    pub name: Option<Arc<str>>,
    pub matchers: Vec<Matcher>,
}

/// One condition on one label; a missing label counts as empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matcher {
    pub label: Arc<str>,
    pub test: Test,
}

/// The test of a matcher on the value of its label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Test {
    Equal(Arc<str>),
    NotEqual(Arc<str>),
    Match(Pattern),
    NotMatch(Pattern),
}

/// The grouping of series into keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum By {
    /// Each series is a key of its own.
    Series,
    /// One key per combination of these labels, which ascend; without labels one key over all series.
    Labels(Vec<Arc<str>>),
}

impl Matcher {
    /// The regular expression, if there is one.
    pub fn pattern(&self) -> Option<&Pattern> {
        match &self.test {
            Test::Match(pattern) | Test::NotMatch(pattern) => Some(pattern),
            Test::Equal(_) | Test::NotEqual(_) => None,
        }
    }

    /// The value that the label must equal, if the test is an equality.
    pub fn equal(&self) -> Option<&Arc<str>> {
        match &self.test {
            Test::Equal(wanted) => Some(wanted),
            _ => None,
        }
    }

    /// The text or pattern on the right side, as written.
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
    /// Writes the matcher in the notation of rules.
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
    /// The matchers in the notation of rules.
    pub fn texts(&self) -> Vec<String> {
        self.matchers.iter().map(Matcher::to_string).collect()
    }

    pub fn is_match(&self, series: &SeriesInfo) -> bool {
        self.is_match_with(&series.name, |label| series.label(label))
    }

    /// Like [`Selector::is_match`], for a series of this name, given each label's value.
    pub fn is_match_with<'a>(&self, name: &str, label: impl Fn(&str) -> Option<&'a Arc<str>>) -> bool {
        self.name.as_ref().is_none_or(|wanted| **wanted == *name)
            && self.is_match_labels(|name| label(name).map(|value| &**value))
    }

    /// Whether all matchers pass, given each label's value.
    pub fn is_match_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.matchers.iter().all(|matcher| matcher.is_match(label(&matcher.label).unwrap_or("")))
    }

    /// Like [`Selector::is_match_labels`], for silences, maintenance windows and inhibition. Without matchers
    /// it selects nothing, because an omission in a file must not hide every alert.
    pub fn selects<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.matchers.is_empty() && self.is_match_labels(label)
    }

    /// The value that the selector requires of a label, if it requires exactly one.
    pub fn fixed(&self, label: &str) -> Option<&Arc<str>> {
        self.matchers.iter().find_map(|matcher| match &matcher.test {
            Test::Equal(value) if *matcher.label == *label => Some(value),
            _ => None,
        })
    }
}

impl By {
    /// The key of a series: the grouping labels with their given values, or the source, the name and all
    /// labels.
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
    use super::super::identity::Labels;
    use super::*;

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
