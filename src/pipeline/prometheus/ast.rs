//! The syntax tree of PromQL. It includes the constructs that are refused, because facts are learned from
//! them too, such as which metrics are counters.

use crate::core::Span;

/// The streamgauge name of Prometheus' label `name`, because in streamgauge `name` is the metric's own name.
/// Prometheus itself adds the prefix `exported_` to a conflicting label.
pub(super) const EXPORTED_NAME: &str = "exported_name";

/// Converts a Prometheus label name to its streamgauge name.
pub(super) fn label_here(label: &str) -> &str {
    if label == "name" { EXPORTED_NAME } else { label }
}

/// Converts a streamgauge label name to its Prometheus name.
pub(super) fn label_there(label: &str) -> &str {
    if label == EXPORTED_NAME { "name" } else { label }
}

/// A node of the syntax tree.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Number(f64),
    Text(String),
    Vector(Vector),
    /// `expr[1h:1m]`
    Subquery(Box<Node>),
    /// `expr offset 1d`, `expr @ end()`. The text is the modifier, for messages.
    Moved(Box<Node>, &'static str),
    Negative(Box<Node>),
    Call {
        name: String,
        args: Vec<Node>,
    },
    Aggregation {
        op: String,
        grouping: Grouping,
        args: Vec<Node>,
    },
    Binary {
        op: &'static str,
        matching: Matching,
        left: Box<Node>,
        right: Box<Node>,
    },
}

/// `name{matchers}[range]`; the name is empty if the selector has none.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Vector {
    pub name: String,
    pub matchers: Vec<Matcher>,
    pub range: Option<Span>,
}

/// `label="value"`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Matcher {
    pub label: String,
    pub op: &'static str,
    pub value: String,
}

/// The labels that an aggregation keeps.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Grouping {
    /// `by (…)`; an aggregation without a grouping is `by ()`.
    By(Vec<String>),
    Without(Vec<String>),
}

/// How a binary operator matches the series of both sides.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Matching {
    pub is_bool: bool,
    /// The labels of `on (…)` (true) or `ignoring (…)` (false).
    pub labels: Option<(bool, Vec<String>)>,
    /// Labels that `group_left` or `group_right` carries over.
    pub group: Option<Vec<String>>,
}

/// Functions whose argument is a counter.
const OF_COUNTERS: [&str; 4] = ["rate", "irate", "increase", "resets"];

impl Node {
    /// Calls `visit` for the node and all its descendants, outermost first.
    pub(super) fn for_each<'n>(&'n self, visit: &mut impl FnMut(&'n Node)) {
        visit(self);
        match self {
            Node::Number(_) | Node::Text(_) | Node::Vector(_) => {}
            Node::Subquery(inner) | Node::Moved(inner, _) | Node::Negative(inner) => inner.for_each(visit),
            Node::Call { args, .. } | Node::Aggregation { args, .. } => {
                args.iter().for_each(|arg| arg.for_each(visit));
            }
            Node::Binary { left, right, .. } => {
                left.for_each(visit);
                right.for_each(visit);
            }
        }
    }

    /// Returns the names of all series in the tree.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.for_each(&mut |node| {
            if let Node::Vector(vector) = node {
                names.push(vector.name.as_str());
            }
        });
        names
    }

    /// Calls `visit` for each label that the tree names.
    fn for_each_label(&mut self, visit: &mut impl FnMut(&mut String)) {
        match self {
            Node::Number(_) | Node::Text(_) => {}
            Node::Vector(vector) => {
                vector.matchers.iter_mut().for_each(|matcher| visit(&mut matcher.label));
            }
            Node::Subquery(inner) | Node::Moved(inner, _) | Node::Negative(inner) => {
                inner.for_each_label(visit)
            }
            Node::Call { args, .. } => args.iter_mut().for_each(|arg| arg.for_each_label(visit)),
            Node::Aggregation {
                args, grouping: Grouping::By(labels) | Grouping::Without(labels), ..
            } => {
                labels.iter_mut().for_each(&mut *visit);
                args.iter_mut().for_each(|arg| arg.for_each_label(visit));
            }
            Node::Binary { left, right, matching, .. } => {
                matching.labels.iter_mut().flat_map(|(_, labels)| labels).for_each(&mut *visit);
                matching.group.iter_mut().flatten().for_each(&mut *visit);
                left.for_each_label(visit);
                right.for_each_label(visit);
            }
        }
    }

    /// Renames the labels to their streamgauge names. Returns whether `name` was among them, and whether
    /// `exported_name` was.
    pub(super) fn rename_labels(&mut self) -> (bool, bool) {
        let (mut has_name, mut has_exported) = (false, false);
        self.for_each_label(&mut |label| {
            has_name |= label == "name";
            has_exported |= label == EXPORTED_NAME;
            *label = label_here(label).into();
        });
        (has_name, has_exported)
    }

    /// Returns the names of the series that are read as counters.
    pub(super) fn counters(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.for_each(&mut |node| {
            if let Node::Call { name, args } = node
                && OF_COUNTERS.contains(&name.as_str())
            {
                names.extend(args.iter().flat_map(Node::ranged));
            }
        });
        names
    }

    /// Returns the names of the series that are read with a range.
    fn ranged(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.for_each(&mut |node| {
            if let Node::Vector(vector) = node
                && vector.range.is_some()
            {
                names.push(vector.name.as_str());
            }
        });
        names
    }
}
