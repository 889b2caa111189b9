//! YAML as a tree of nodes that keep their places, and the text of each scalar as it is written. No other
//! module uses the YAML library.
//!
//! Intuition: the tree is built from the parser's events. A version `1.10` stays `1.10` and a label `yes`
//! stays `yes` where a text is expected, while `10` is a number where a number is expected.
//! Invariant: the tree of a text stays within the bounds below on nodes, depth and bytes. An alias counts with the
//! size of the nodes that it expands to.
//! Rejected: reading through serde (it returns values without the text they were parsed from, and a duplicate
//! key ends the parsing instead of being one of several reported problems).

mod build;
mod scalar;

use build::Built;
pub(crate) use build::Twice;

/// A value and the place where it begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub at: TextPlace,
    pub kind: Kind,
    /// The source text of a scalar that is no text in YAML, such as `1.10` or `yes`.
    pub written: Option<Box<str>>,
}

/// A place in a text; both numbers start at 1, and columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TextPlace {
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
    pub at: TextPlace,
    pub text: String,
}

/// A syntax error, with its place if the library reports one.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub at: Option<TextPlace>,
    pub message: String,
    pub hint: Option<&'static str>,
}

/// Maximum nesting of collections, with aliases expanded. A pipeline file has about eight levels.
const DEPTH_MAX: usize = 32;

/// Maximum number of nodes in one text, with aliases expanded. 1,000 rules have about 20,000. 250,000 × about 130 B =
/// 32 MiB.
const NODES_MAX: usize = 250_000;

/// Maximum bytes of all scalars, with aliases expanded: 4 MiB for the largest file and 4 MiB for aliases.
const SCALAR_BYTES_MAX: usize = 8 << 20;

/// Maximum number of aliases in a text that serde deserializes, such as a configuration, which has a handful.
const ALIASES_MAX: usize = 1_000;

impl Node {
    /// Makes a text node at a place.
    pub fn of_text(at: TextPlace, text: impl Into<String>) -> Node {
        Node { at, kind: Kind::Text(text.into()), written: None }
    }

    /// Returns the text of a scalar as it is written; `None` for collections and empty scalars.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => self.written.as_deref(),
        }
    }
}

impl Twice {
    /// Describes the problem in words.
    pub(crate) fn message(&self) -> String {
        format!("key `{}` is there twice; the first is in line {}", self.name, self.first.line)
    }

    fn error(self) -> SyntaxError {
        SyntaxError { at: Some(self.at), message: self.message(), hint: None }
    }
}

/// Reads one document into a type of the caller. An empty file is an empty map.
pub(crate) fn typed<T: serde::de::DeserializeOwned + Default>(text: &str) -> Result<T, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_total_scalar_bytes: SCALAR_BYTES_MAX,
            max_aliases: ALIASES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: NODES_MAX },
    };
    match serde_saphyr::from_str_with_options::<Option<T>>(text, options) {
        Ok(found) => Ok(found.unwrap_or_default()),
        Err(error) => Err(syntax_error(error)),
    }
}

fn syntax_error(error: serde_saphyr::Error) -> SyntaxError {
    let error = error.without_snippet();
    let at = error.location().map(|l| TextPlace { line: l.line() as usize, column: l.column() as usize });
    let message = error.to_string();
    let message = plain(message.lines().next().unwrap_or("not YAML"));
    SyntaxError { at, message, hint: None }
}

/// Shortens a message of the library: removes Rust types, options, and the place, which is reported
/// separately.
fn plain(message: &str) -> String {
    let message = message.split(" at line ").next().unwrap_or(message);
    if message.starts_with("multiple YAML documents") {
        return "a second document begins here, but a file is one; take the `---` out".into();
    }
    if let Some(rest) = message.strip_prefix("duplicate mapping key: ") {
        return format!("`{}` stands twice", rest.split(',').next().unwrap_or(rest));
    }
    let message = match message.split_once("expected struct ") {
        Some((before, _)) => format!("{before}expected fields, one to a line"),
        None => message.to_string(),
    };
    let numbers = ["invalid u64", "invalid u32", "invalid usize", "invalid u8"];
    if numbers.contains(&message.as_str()) {
        return "this must be a whole number, at least 0".into();
    }
    let message = message.replace("expected mapping start", "expected fields, one to a line");
    message.replace("expected sequence start", "expected a list").replace("a sequence", "a list")
}

/// Parses one document; a duplicate key is an error. An empty text is an empty map.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let (root, twice) = parse_all_keys(text)?;
    twice.into_iter().next().map_or(Ok(root), |twice| Err(twice.error()))
}

/// Parses one document, and also returns its duplicate keys; the tree keeps the first entry of each such key.
pub(crate) fn parse_all_keys(text: &str) -> Result<(Node, Vec<Twice>), SyntaxError> {
    let Built { documents, twice } = build::documents(text)?;
    let mut documents = documents.into_iter();
    let root = documents.next().filter(|root| root.kind != Kind::Null);
    if let Some(second) = documents.next() {
        let message = "a second document begins here, but a file is one";
        let hint = Some("put it into a file of its own, or take the `---` out");
        return Err(SyntaxError { at: Some(second.at), message: message.into(), hint });
    }
    let empty = Node { at: TextPlace { line: 1, column: 1 }, kind: Kind::Map(Vec::new()), written: None };
    Ok((root.unwrap_or(empty), twice))
}

/// Parses all documents of a text, for file formats that allow several; empty documents are left out.
pub(crate) fn parse_documents(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let Built { documents, twice } = build::documents(text)?;
    match twice.into_iter().next() {
        None => Ok(documents.into_iter().filter(|root| root.kind != Kind::Null).collect()),
        Some(twice) => Err(twice.error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_file() {
        let root = parse("a: 1\nb:\n  - { c: 'x', d: [1.5, true] }\n").expect("valid");
        let Kind::Map(entries) = root.kind else { panic!("a map") };
        assert_eq!(entries[1].0.at, TextPlace { line: 2, column: 1 });
        let Kind::List(items) = &entries[1].1.kind else { panic!("a list") };
        let Kind::Map(inner) = &items[0].kind else { panic!("a map") };
        assert_eq!((inner[0].0.at.line, inner[0].1.at.column), (3, 10));
    }

    #[test]
    fn errors_have_a_place_and_duplicates_are_errors() {
        assert!(parse("a: [1,\nb").is_err());
        let twice = parse("a: 1\nb: 2\na: 2\n").expect_err("twice");
        assert_eq!(twice.at, Some(TextPlace { line: 3, column: 1 }));
        let (root, all) = parse_all_keys("a: 1\na: 2\nb: { c: 1, c: 2 }\n").expect("a tree");
        assert_eq!(all.iter().map(|one| one.at.line).collect::<Vec<_>>(), [2, 3]);
        let Kind::Map(entries) = root.kind else { panic!("a map") };
        assert_eq!((entries.len(), &entries[0].1.kind), (2, &Kind::Integer(1)));
    }

    #[test]
    fn nothing_is_an_empty_map_and_a_mark_at_the_start_is_skipped() {
        for text in ["", "# a word\n", "---\n", "~", "\u{feff}"] {
            assert_eq!(parse(text).expect("nothing").kind, Kind::Map(Vec::new()), "{text:?}");
        }
        let root = parse("\u{feff}a: 1\n").expect("marked");
        let Kind::Map(entries) = root.kind else { panic!("a map") };
        assert_eq!((entries[0].0.text.as_str(), entries[0].0.at), ("a", TextPlace { line: 1, column: 1 }));
    }

    #[test]
    fn documents_are_one_unless_several_are_asked_for() {
        let text = "a: 1\n---\n---\nb: 2\n";
        assert!(parse(text).expect_err("two").message.contains("second document"));
        assert_eq!(parse_documents(text).expect("two").len(), 2);
    }

    /// Goal: aliases count with their expanded size. Method: nine lists of nine aliases each, which stand for
    /// 387 million values.
    #[test]
    fn aliases_count_as_what_they_stand_for() {
        let mut text = String::from("a0: &a0 [x]\n");
        for n in 1..9 {
            let names = vec![format!("*a{}", n - 1); 9].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{names}]\n"));
        }
        assert!(parse(&text).expect_err("a bomb").message.contains("values"));
        let wide = format!("a: &a '{}'\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 20].join(", "));
        assert!(parse(&wide).expect_err("a bomb").message.contains("bytes"));
        let deep = format!("{}1{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
        assert!(parse(&deep).expect_err("deep").message.contains("nested"));
        let nested = "a: &a [[[[1]]]]\nb: *a\n";
        assert!(parse(nested).is_ok());
        let mut chain = String::from("a0: &a0 [1]\n");
        for n in 1..=DEPTH_MAX {
            chain.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1));
        }
        assert!(parse(&chain).expect_err("deep").message.contains("nested"));
        assert!(parse("a: &a [*a]\n").is_err(), "it would hold itself");
    }

    #[test]
    fn maps_are_merged_where_it_is_said() {
        let root = parse("base: &b { x: 1, y: 2 }\none:\n  <<: *b\n  y: 3\n").expect("valid");
        let Kind::Map(entries) = root.kind else { panic!("a map") };
        let Kind::Map(one) = &entries[1].1.kind else { panic!("a map") };
        let one: Vec<(&str, &Kind)> =
            one.iter().map(|(key, value)| (key.text.as_str(), &value.kind)).collect();
        assert_eq!(one, [("y", &Kind::Integer(3)), ("x", &Kind::Integer(1))]);
        let quoted = parse("'<<': 1\n").expect("a key like any other");
        assert!(matches!(quoted.kind, Kind::Map(entries) if entries[0].0.text == "<<"));
        assert!(parse("<<: 1\n").is_err());
    }

    /// Goal: a quoted text may continue at the indentation of its key. Method: lines as many tools write them
    /// and most parsers accept them.
    #[test]
    fn a_quoted_text_goes_on_at_its_keys_indentation() {
        let root = parse("a:\n  d: \"one,\n  two\n  three\"\n  e: 'x\n  y'\nf: 1\n").expect("read");
        let Kind::Map(entries) = root.kind else { panic!("a map") };
        let Kind::Map(inner) = &entries[0].1.kind else { panic!("a map") };
        assert_eq!((inner[0].1.text(), inner[1].1.text()), (Some("one, two three"), Some("x y")));
        assert_eq!(entries[1].0.at, TextPlace { line: 7, column: 1 });
    }
}
