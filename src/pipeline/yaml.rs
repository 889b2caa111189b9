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
    fn errors_have_a_place_and_duplicates_are_errors() {
        assert!(parse("a: [1,\nb").is_err());
        assert!(parse("a: 1\na: 2\n").is_err());
        assert!(parse("").is_ok());
    }
}
