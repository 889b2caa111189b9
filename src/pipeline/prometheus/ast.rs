//! PromQL's tree, all of it: also of what is refused something is learned, such as which metrics are counters.

use crate::core::Span;

/// The label `name` of Prometheus as it is called here, where `name` is the metric's own: the way in which Prometheus
/// itself renames a label that is taken.
pub const EXPORTED_NAME: &str = "exported_name";

/// A label of Prometheus as it is called here.
pub fn label_here(label: &str) -> &str {
    if label == "name" { EXPORTED_NAME } else { label }
}

/// A label here as it is called there.
pub fn label_there(label: &str) -> &str {
    if label == EXPORTED_NAME { "name" } else { label }
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Number(f64),
    Text(String),
    Vector(Vector),
    /// `expr[1h:1m]`
    Subquery(Box<Node>),
    /// `expr offset 1d`, `expr @ end()`; the word that moves it.
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

/// `name{matchers}[range]`; the name is empty where none is demanded.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    pub name: String,
    pub matchers: Vec<Matcher>,
    pub range: Option<Span>,
}

/// `label="value"`
#[derive(Debug, Clone, PartialEq)]
pub struct Matcher {
    pub label: String,
    pub op: &'static str,
    pub value: String,
}

/// What an aggregation leaves of the labels.
#[derive(Debug, Clone, PartialEq)]
pub enum Grouping {
    /// `by (…)`; nothing at all is `by ()`.
    By(Vec<String>),
    Without(Vec<String>),
}

/// How the two sides of an operator find each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matching {
    pub is_bool: bool,
    /// `on (…)` or, false, `ignoring (…)`.
    pub labels: Option<(bool, Vec<String>)>,
    /// Labels that `group_left` or `group_right` carries over.
    pub group: Option<Vec<String>>,
}

/// Functions that read a metric as a counter.
const OF_COUNTERS: [&str; 4] = ["rate", "irate", "increase", "resets"];

impl Node {
    /// Calls `visit` for it and each of its parts, outermost first.
    pub fn for_each<'n>(&'n self, visit: &mut impl FnMut(&'n Node)) {
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

    /// The names of all series in it.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.for_each(&mut |node| {
            if let Node::Vector(vector) = node {
                names.push(vector.name.as_str());
            }
        });
        names
    }

    /// Calls `visit` for each label that it names.
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

    /// Calls labels as they are called here; whether `name` was among them, and whether its name here was.
    pub fn rename_labels(&mut self) -> (bool, bool) {
        let (mut has_name, mut has_exported) = (false, false);
        self.for_each_label(&mut |label| {
            has_name |= label == "name";
            has_exported |= label == EXPORTED_NAME;
            *label = label_here(label).into();
        });
        (has_name, has_exported)
    }

    /// The names of the series that it reads as counters.
    pub fn counters(&self) -> Vec<&str> {
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

    /// The names of the series of which it reads a range.
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
