//! YAML as a tree that remembers places. The only file that knows the YAML library.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// A value and where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub at: Place,
    pub kind: Kind,
}

/// A place in a text, both from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    pub at: Place,
    pub text: String,
}

/// A syntax error, with its place where the library knows one.
#[derive(Debug)]
pub struct SyntaxError {
    pub at: Option<Place>,
    pub message: String,
}

impl SyntaxError {
    /// Whether a quoted text goes on in a line that stands no deeper than its key.
    pub fn is_shallow_quote(&self) -> bool {
        self.message.contains("multiline quoted scalar")
    }
}

/// Reads one document into a type of the caller's. An empty file is an empty map.
pub fn typed<T: serde::de::DeserializeOwned + Default>(text: &str) -> Result<T, SyntaxError> {
    match serde_saphyr::from_str_with_options::<Option<T>>(text, serde_saphyr::Options::default()) {
        Ok(found) => Ok(found.unwrap_or_default()),
        Err(error) => Err(syntax_error(error)),
    }
}

/// Parses one document. An empty file is an empty map.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::Options::default();
    match serde_saphyr::from_str_with_options::<Option<Spanned<Raw>>>(text, options) {
        Ok(Some(root)) => Ok(node(root)),
        Ok(None) => Ok(Node { at: Place { line: 1, column: 1 }, kind: Kind::Map(Vec::new()) }),
        Err(error) => Err(syntax_error(error)),
    }
}

/// Parses all documents of a text, empty ones left out. Scalars are texts as they stand there, whatever they look
/// like (`yes`, `010`, `1e5`); nothing stays nothing.
pub fn documents(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let options = serde_saphyr::options! {
        emit_comments: false,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::PassThrough,
    };
    match serde_saphyr::from_multiple_with_options::<Spanned<Raw>>(text, options) {
        Ok(roots) => Ok(roots.into_iter().map(|root| as_written(root, text)).collect()),
        Err(error) => Err(syntax_error(error)),
    }
}

/// The tree with its scalars as they stand in the source.
fn as_written(spanned: Spanned<Raw>, source: &str) -> Node {
    let (at, defined) = (place(&spanned.referenced), spanned.defined);
    let kind = match spanned.value {
        Raw::Scalar(kind) => scalar_as_written(kind, &defined, source),
        Raw::List(items) => Kind::List(items.into_iter().map(|item| as_written(item, source)).collect()),
        Raw::Map(entries) => Kind::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let at = place(&key.referenced);
                    (Key { at, text: key.value }, as_written(value, source))
                })
                .collect(),
        ),
    };
    Node { at, kind }
}

fn scalar_as_written(kind: Kind, at: &serde_saphyr::Location, source: &str) -> Kind {
    let typed = match &kind {
        Kind::Bool(value) => value.to_string(),
        Kind::Integer(number) => number.to_string(),
        Kind::Float(number) => number.to_string(),
        _ => return kind,
    };
    Kind::Text(written(at, source).map_or(typed, str::to_string))
}

/// What stands at a place of the source.
fn written<'s>(at: &serde_saphyr::Location, source: &'s str) -> Option<&'s str> {
    let span = at.span();
    let (begin, length) = (span.byte_offset()? as usize, span.byte_len()? as usize);
    source.get(begin..begin.checked_add(length)?).filter(|text| !text.is_empty())
}

fn syntax_error(error: serde_saphyr::Error) -> SyntaxError {
    let error = error.without_snippet();
    let at = error.location().map(|l| Place { line: l.line() as usize, column: l.column() as usize });
    let message = error.to_string();
    let message = message.lines().next().unwrap_or("not YAML").to_string();
    SyntaxError { at, message }
}

/// What the library hands over before places are attached.
enum Raw {
    Scalar(Kind),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn node(spanned: Spanned<Raw>) -> Node {
    let at = place(&spanned.referenced);
    let kind = match spanned.value {
        Raw::Scalar(kind) => kind,
        Raw::List(items) => Kind::List(items.into_iter().map(node).collect()),
        Raw::Map(entries) => Kind::Map(
            entries
                .into_iter()
                .map(|(key, value)| (Key { at: place(&key.referenced), text: key.value }, node(value)))
                .collect(),
        ),
    };
    Node { at, kind }
}

fn place(location: &serde_saphyr::Location) -> Place {
    Place { line: location.line() as usize, column: location.column() as usize }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E: Error>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Null))
    }
    fn visit_none<E: Error>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Bool(value)))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Integer(value)))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(i64::try_from(value).map_or(Kind::Float(value as f64), Kind::Integer)))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Float(value)))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Kind::Text(value.into())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_file() {
        let root = parse("a: 1\nb:\n  - { c: 'x', d: [1.5, true] }\n").expect("valid");
        let Kind::Map(entries) = root.kind else { panic!("a map") };
        assert_eq!(entries[1].0.at, Place { line: 2, column: 1 });
        let Kind::List(items) = &entries[1].1.kind else { panic!("a list") };
        let Kind::Map(inner) = &items[0].kind else { panic!("a map") };
        assert_eq!((inner[0].0.at.line, inner[0].1.at.column), (3, 10));
    }

    #[test]
    fn documents_have_scalars_as_they_are_written() {
        let roots = documents("a: [yes, 010, 1.10, 1e5, .inf, 'x', ~]\n---\n---\n7\n").expect("valid");
        let Kind::Map(entries) = &roots[0].kind else { panic!("a map") };
        let Kind::List(items) = &entries[0].1.kind else { panic!("a list") };
        let found: Vec<Kind> = items.iter().map(|item| item.kind.clone()).collect();
        let text = |text: &str| Kind::Text(text.into());
        let mut wanted: Vec<Kind> = ["yes", "010", "1.10", "1e5", ".inf", "x"].map(text).into();
        wanted.push(Kind::Null);
        assert_eq!(found, wanted);
        assert_eq!((roots.len(), &roots[1].kind), (2, &text("7")));
        let error = documents("a:\n  b: 'one\n  two'\n").expect_err("too shallow");
        assert!(error.is_shallow_quote() && error.at.is_some_and(|at| at.line == 3), "{error:?}");
    }

    #[test]
    fn errors_have_a_place_and_duplicates_are_errors() {
        assert!(parse("a: [1,\nb").is_err());
        assert!(parse("a: 1\na: 2\n").is_err());
        assert!(parse("").is_ok());
    }
}
