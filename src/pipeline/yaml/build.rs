//! Builds trees from the events of the YAML parser.
//!
//! Invariant: the builder keeps its own stack, so a deeply nested text uses no thread stack. The nodes that an alias
//! refers to are counted against the bounds before they are copied.

use super::{DEPTH_MAX, Key, Kind, NODES_MAX, Node, SCALAR_BYTES_MAX, SyntaxError, TextPlace, scalar};
use serde_saphyr::granit_parser::{
    self, ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag,
};
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A duplicate key of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Twice {
    pub at: TextPlace,
    pub first: TextPlace,
    pub name: String,
}

/// The documents of a text, and their duplicate keys.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub documents: Vec<Node>,
    pub twice: Vec<Twice>,
}

/// Maximum bytes that are parsed again. The text is parsed again for each continuation line of a quoted text that is
/// indented too little for the YAML library. A file of 64 KiB may have 256 such lines.
const ANEW_BYTES_MAX: usize = 16 << 20;

/// Parses all documents of a text.
pub(super) fn documents(text: &str) -> Result<Built, SyntaxError> {
    let mut text = Cow::Borrowed(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut left = ANEW_BYTES_MAX;
    loop {
        let error = match Builder::new(&text).run() {
            Ok(built) => return Ok(built),
            Err(Stop::Scan(error)) => error,
            Err(Stop::Bound(error)) => return Err(error),
        };
        let Some(at) = error.marker().byte_offset().filter(|at| text.is_char_boundary(*at)) else {
            return Err(explained(&error));
        };
        if *error.kind() != ErrorKind::InvalidQuotedScalarIndent || left < text.len() {
            return Err(explained(&error));
        }
        left -= text.len();
        // The library demands one more column of indentation for such a line than other parsers do. Blanks at
        // the start of a continuation line are not part of a quoted text, so adding more does not change its
        // value.
        text.to_mut().insert_str(at, &" ".repeat(DEPTH_MAX));
    }
}

/// The reason why no tree can be built.
enum Stop {
    Scan(ScanError),
    Bound(SyntaxError),
}

impl From<SyntaxError> for Stop {
    fn from(error: SyntaxError) -> Stop {
        Stop::Bound(error)
    }
}

fn explained(error: &ScanError) -> SyntaxError {
    let at = Some(place(error.marker()));
    let (message, hint) = match error.kind() {
        ErrorKind::RecursionLimitExceeded => return too_deep(place(error.marker())),
        ErrorKind::MappingValueNotAllowed => (
            "a `:` stands where no value may begin".to_string(),
            Some("a text with `: ` in it needs quotes; or this line is indented too far"),
        ),
        ErrorKind::TabInIndentation | ErrorKind::TabInBlockIndentation | ErrorKind::TabNotAllowed => {
            ("a tab cannot be used here".to_string(), Some("indent with spaces"))
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation => {
            (error.info(), Some("indent all lines of this map alike"))
        }
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => {
            ("a key without `:`".to_string(), Some("write `key: value`"))
        }
        ErrorKind::UnexpectedCharacter { character } => {
            (format!("`{character}` cannot begin a value"), Some("put the text into quotes"))
        }
        _ => (error.info(), None),
    };
    SyntaxError { at, message: message.lines().next().unwrap_or("this is not YAML").into(), hint }
}

fn too_deep(at: TextPlace) -> SyntaxError {
    let message = format!("this is nested deeper than {DEPTH_MAX} lists and maps");
    SyntaxError { at: Some(at), message, hint: None }
}

fn place(marker: &Marker) -> TextPlace {
    TextPlace { line: marker.line(), column: marker.col() + 1 }
}

/// The size of a node with all its descendants.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
    height: usize,
}

impl Size {
    /// Returns the size of a node. The recursion is bounded by [`DEPTH_MAX`], because the node was built
    /// within it.
    fn of(node: &Node) -> Size {
        match &node.kind {
            Kind::List(items) => Size::of_all(items.iter()),
            Kind::Map(entries) => {
                let keys: usize = entries.iter().map(|(key, _)| key.text.len()).sum();
                let values = Size::of_all(entries.iter().map(|(_, value)| value));
                Size { nodes: values.nodes + entries.len(), bytes: values.bytes + keys, ..values }
            }
            _ => Size { nodes: 1, bytes: node.text().map_or(0, str::len), height: 0 },
        }
    }

    /// Returns the size of a collection of these nodes.
    fn of_all<'n>(nodes: impl Iterator<Item = &'n Node>) -> Size {
        nodes.map(Size::of).fold(Size { nodes: 1, bytes: 0, height: 1 }, |all, one| Size {
            nodes: all.nodes + one.nodes,
            bytes: all.bytes + one.bytes,
            height: all.height.max(one.height + 1),
        })
    }
}

/// A collection that is not closed yet.
#[derive(Debug)]
struct Frame {
    at: TextPlace,
    anchor: usize,
    open: Open,
}

#[derive(Debug)]
enum Open {
    List(Vec<Node>),
    Map(OpenMap),
}

#[derive(Debug, Default)]
struct OpenMap {
    entries: Vec<(Key, Node)>,
    seen: HashMap<String, TextPlace>,
    /// A key that waits for its value, and whether it is the merge key `<<`.
    key: Option<(Key, bool)>,
    merged: Vec<Node>,
}

impl OpenMap {
    /// Takes a key, or the value of the preceding key.
    fn take(&mut self, node: Node, is_merge: bool, twice: &mut Vec<Twice>) -> Result<(), SyntaxError> {
        let Some((key, is_merge)) = self.key.take() else {
            self.key = Some((key_of(node)?, is_merge));
            return Ok(());
        };
        if is_merge {
            self.merged.push(node);
            return Ok(());
        }
        match self.seen.entry(key.text.clone()) {
            Entry::Occupied(first) => twice.push(Twice { at: key.at, first: *first.get(), name: key.text }),
            Entry::Vacant(seen) => {
                seen.insert(key.at);
                self.entries.push((key, node));
            }
        }
        Ok(())
    }

    /// Closes the map; merged entries follow the map's own entries.
    fn finish(mut self) -> Result<Kind, SyntaxError> {
        for merged in std::mem::take(&mut self.merged) {
            let maps = match merged {
                Node { kind: Kind::List(items), .. } => items,
                other => vec![other],
            };
            for map in maps {
                let Kind::Map(entries) = map.kind else {
                    let message = "`<<` takes a map, or a list of maps".into();
                    return Err(SyntaxError { at: Some(map.at), message, hint: Some("`<<: *name`") });
                };
                for (key, value) in entries {
                    if let Entry::Vacant(seen) = self.seen.entry(key.text.clone()) {
                        seen.insert(key.at);
                        self.entries.push((key, value));
                    }
                }
            }
        }
        Ok(Kind::Map(self.entries))
    }
}

fn key_of(node: Node) -> Result<Key, SyntaxError> {
    let at = node.at;
    match node.text() {
        Some(text) => Ok(Key { at, text: text.into() }),
        None => {
            let message = "a key must be a text".into();
            Err(SyntaxError { at: Some(at), message, hint: Some("write `key: value`") })
        }
    }
}

struct Builder<'t> {
    text: &'t str,
    frames: Vec<Frame>,
    /// Maps the number of an anchor to its node and the size of a copy of that node.
    anchors: HashMap<usize, (Node, Size)>,
    built: Built,
    spent: Size,
}

impl<'t> Builder<'t> {
    fn new(text: &'t str) -> Builder<'t> {
        let (frames, anchors) = (Vec::new(), HashMap::new());
        Builder { text, frames, anchors, built: Built::default(), spent: Size::default() }
    }

    fn run(mut self) -> Result<Built, Stop> {
        let options = granit_parser::options! {
            emit_comments: false,
            flow_nesting_limit: DEPTH_MAX + 1,
            block_nesting_limit: DEPTH_MAX + 1,
        };
        for next in Parser::new_from_str_with_options(self.text, options) {
            let (event, span) = next.map_err(Stop::Scan)?;
            self.take(event, &span)?;
        }
        Ok(self.built)
    }

    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), SyntaxError> {
        let at = place(&span.start);
        match event {
            Event::Scalar(value, style, anchor, tag) => {
                let tag = tag.as_deref().and_then(Tag::core_suffix);
                // For an empty scalar, the parser reports `~`.
                let is_nothing = value.is_empty() || value == "~" && span.slice(self.text) != Some("~");
                let is_there = style != ScalarStyle::Plain || !is_nothing;
                let is_merge = style == ScalarStyle::Plain && value == "<<";
                self.add(scalar::node(at, &value, style, tag, is_there), anchor, is_merge)
            }
            Event::SequenceStart(_, anchor, _) => self.open(at, anchor, Open::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => self.open(at, anchor, Open::Map(OpenMap::default())),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.repeat(at, anchor),
            _ => Ok(()),
        }
    }

    fn open(&mut self, at: TextPlace, anchor: usize, open: Open) -> Result<(), SyntaxError> {
        if self.frames.len() >= DEPTH_MAX {
            return Err(too_deep(at));
        }
        self.frames.push(Frame { at, anchor, open });
        Ok(())
    }

    fn close(&mut self) -> Result<(), SyntaxError> {
        // The parser refuses an end without a start, so there is always a frame.
        let Some(Frame { at, anchor, open }) = self.frames.pop() else { return Ok(()) };
        let kind = match open {
            Open::List(items) => Kind::List(items),
            Open::Map(map) => map.finish()?,
        };
        self.add(Node { at, kind, written: None }, anchor, false)
    }

    /// Adds a copy of the node that an alias refers to.
    fn repeat(&mut self, at: TextPlace, anchor: usize) -> Result<(), SyntaxError> {
        let Some(size) = self.anchors.get(&anchor).map(|(_, size)| *size) else {
            let message = "an alias cannot stand within the value that it refers to".into();
            return Err(SyntaxError { at: Some(at), message, hint: None });
        };
        if self.frames.len() + size.height > DEPTH_MAX {
            return Err(too_deep(at));
        }
        self.spend(at, size)?;
        let Some((node, _)) = self.anchors.get(&anchor) else { return Ok(()) };
        let node = Node { at, ..node.clone() };
        self.put(node, false)
    }

    /// Adds a node that is written in the text itself.
    fn add(&mut self, node: Node, anchor: usize, is_merge: bool) -> Result<(), SyntaxError> {
        let own = Size { nodes: 1, bytes: node.text().map_or(0, str::len), height: 0 };
        self.spend(node.at, own)?;
        if anchor != 0 {
            let size = Size::of(&node);
            self.spend(node.at, size)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        self.put(node, is_merge)
    }

    fn put(&mut self, node: Node, is_merge: bool) -> Result<(), SyntaxError> {
        match self.frames.last_mut().map(|frame| &mut frame.open) {
            None => self.built.documents.push(node),
            Some(Open::List(items)) => items.push(node),
            Some(Open::Map(map)) => map.take(node, is_merge, &mut self.built.twice)?,
        }
        Ok(())
    }

    fn spend(&mut self, at: TextPlace, size: Size) -> Result<(), SyntaxError> {
        self.spent.nodes += size.nodes;
        self.spent.bytes += size.bytes;
        let message = if self.spent.nodes > NODES_MAX {
            format!("there are more than {NODES_MAX} values up to here")
        } else if self.spent.bytes > SCALAR_BYTES_MAX {
            format!("the texts up to here have more than {SCALAR_BYTES_MAX} bytes")
        } else {
            return Ok(());
        };
        let hint = Some("split the file; an alias counts as what it stands for");
        Err(SyntaxError { at: Some(at), message, hint })
    }
}
