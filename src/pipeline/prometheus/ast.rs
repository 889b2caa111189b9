//! PromQL's tree, all of it: also of what is refused something is learned, such as which metrics are counters.

use crate::core::Span;

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
