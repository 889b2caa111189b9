//! The part of PromQL that rules are written in, as a tree.

use crate::core::Span;
use crate::pipeline::expr::lex::{Cursor, TokenKind};

/// One node of the tree.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Number(f64),
    Vector(Vector),
    Call {
        name: String,
        args: Vec<Node>,
    },
    /// `sum by (a) (…)`; `None` labels: over everything.
    Aggregation {
        op: String,
        by: Vec<String>,
        args: Vec<Node>,
    },
    Binary {
        op: &'static str,
        left: Box<Node>,
        right: Box<Node>,
    },
}

/// `name{matchers}[range]`
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    pub name: String,
    /// As written: `label="value"`.
    pub matchers: Vec<String>,
    pub range: Option<Span>,
}

const AGGREGATIONS: [&str; 12] = [
    "sum",
    "avg",
    "min",
    "max",
    "count",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "quantile",
    "group",
    "count_values",
];

/// Binary operators, loosest first.
const LEVELS: [&[&str]; 5] =
    [&["or"], &["and", "unless"], &["==", "!=", ">=", "<=", ">", "<"], &["+", "-"], &["*", "/", "%"]];

/// Nesting that is read.
const DEPTH_MAX: usize = 64;

/// Reads an expression, or says what of it is not read.
pub fn parse(text: &str) -> Result<Node, String> {
    if let Some(word) = ["@", "^", "\\"].into_iter().find(|word| outside_quotes(text).contains(word)) {
        return Err(format!("`{word}` has no counterpart"));
    }
    let without_comments: Vec<&str> =
        text.lines().map(|line| line.split(" #").next().unwrap_or("")).collect();
    let tokens = Cursor::new(&without_comments.join("\n")).map_err(|error| error.message)?;
    let mut parser = Parser { tokens, depth: 0 };
    let node = parser.binary(0)?;
    match parser.tokens.peek() {
        TokenKind::End => Ok(node),
        other => Err(format!("{other:?} is not understood here")),
    }
}

fn outside_quotes(text: &str) -> String {
    let mut quote = None;
    let mut is_outside = |c: char| {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None => return true,
        }
        false
    };
    text.chars().filter(|c| is_outside(*c)).collect()
}

struct Parser {
    tokens: Cursor,
    depth: usize,
}

type Parse<T> = Result<T, String>;

impl Parser {
    fn expect(&mut self, symbol: &str) -> Parse<()> {
        match self.tokens.take(symbol) {
            true => Ok(()),
            false => Err(format!("`{symbol}` is missing before {:?}", self.tokens.peek())),
        }
    }

    fn operator(&mut self, level: usize) -> Option<&'static str> {
        let found = match self.tokens.peek() {
            TokenKind::Symbol(symbol) => LEVELS[level].iter().find(|known| *known == symbol),
            TokenKind::Name(name) => LEVELS[level].iter().find(|known| **known == name.to_lowercase()),
            _ => None,
        };
        let found = found.copied();
        if found.is_some() {
            self.tokens.advance();
        }
        found
    }

    fn binary(&mut self, level: usize) -> Parse<Node> {
        if level == LEVELS.len() {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        while let Some(op) = self.operator(level) {
            if let TokenKind::Name(word) = self.tokens.peek()
                && matches!(word.as_str(), "bool" | "on" | "ignoring" | "group_left" | "group_right")
            {
                return Err(format!("`{word}` has no counterpart: both sides must have the same keys"));
            }
            let right = self.binary(level + 1)?;
            left = Node::Binary { op, left: Box::new(left), right: Box::new(right) };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parse<Node> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("it is nested too deeply".into());
        }
        let node = if self.tokens.take("-") {
            match self.unary()? {
                Node::Number(number) => Node::Number(-number),
                other => Node::Binary { op: "*", left: Box::new(other), right: Box::new(Node::Number(-1.0)) },
            }
        } else {
            self.primary()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn primary(&mut self) -> Parse<Node> {
        if matches!(self.tokens.peek(), TokenKind::Symbol("{")) {
            return self.vector(String::new());
        }
        match self.tokens.advance().kind {
            TokenKind::Number(text) => number(&text).map(Node::Number),
            TokenKind::Symbol("(") => {
                let inner = self.binary(0)?;
                self.expect(")")?;
                Ok(inner)
            }
            TokenKind::Name(name) if AGGREGATIONS.contains(&name.as_str()) && self.is_aggregation() => {
                self.aggregation(name)
            }
            TokenKind::Name(name) if matches!(self.tokens.peek(), TokenKind::Symbol("(")) => {
                let args = self.arguments()?;
                Ok(Node::Call { name, args })
            }
            TokenKind::Name(name) => self.vector(name),
            other => Err(format!("{other:?} is not understood here")),
        }
    }

    fn is_aggregation(&self) -> bool {
        match self.tokens.peek() {
            TokenKind::Symbol(symbol) => *symbol == "(",
            TokenKind::Name(word) => matches!(word.as_str(), "by" | "without"),
            _ => false,
        }
    }

    fn aggregation(&mut self, op: String) -> Parse<Node> {
        let before = self.by()?;
        let args = self.arguments()?;
        let by = match before {
            Some(by) => by,
            None => self.by()?.unwrap_or_default(),
        };
        Ok(Node::Aggregation { op, by, args })
    }

    fn by(&mut self) -> Parse<Option<Vec<String>>> {
        let TokenKind::Name(word) = self.tokens.peek().clone() else { return Ok(None) };
        match word.as_str() {
            "by" => {
                self.tokens.advance();
                self.expect("(")?;
                let mut labels = Vec::new();
                while !self.tokens.take(")") {
                    match self.tokens.advance().kind {
                        TokenKind::Name(label) => labels.push(label),
                        other => return Err(format!("{other:?} is no label")),
                    }
                    self.tokens.take(",");
                }
                Ok(Some(labels))
            }
            "without" => Err("`without` has no counterpart: name the labels with `by`".into()),
            _ => Ok(None),
        }
    }

    fn arguments(&mut self) -> Parse<Vec<Node>> {
        self.expect("(")?;
        let mut args = Vec::new();
        while !self.tokens.take(")") {
            args.push(self.binary(0)?);
            if !self.tokens.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(args)
    }

    fn vector(&mut self, name: String) -> Parse<Node> {
        let mut vector = Vector { name, matchers: Vec::new(), range: None };
        if self.tokens.take("{") {
            while !self.tokens.take("}") {
                vector.matchers.push(self.matcher()?);
                self.tokens.take(",");
            }
        }
        if self.tokens.take("[") {
            let TokenKind::Number(span) = self.tokens.advance().kind else {
                return Err("a range is a duration".into());
            };
            vector.range = Some(span.parse().map_err(|_| format!("`{span}` is no duration"))?);
            if !self.tokens.take("]") {
                return Err("subqueries have no counterpart: record the inner part".into());
            }
        }
        match self.tokens.peek() {
            TokenKind::Name(word) if word == "offset" => {
                Err("`offset` has no counterpart; `change(agg, period)` compares with before".into())
            }
            _ => Ok(Node::Vector(vector)),
        }
    }

    fn matcher(&mut self) -> Parse<String> {
        let (label, op, value) =
            (self.tokens.advance().kind, self.tokens.advance().kind, self.tokens.advance().kind);
        match (label, op, value) {
            (TokenKind::Name(label), TokenKind::Symbol(op), TokenKind::Text(value)) => {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                let label = if label == "__name__" { "name" } else { &label };
                Ok(format!("{label}{op}\"{value}\""))
            }
            _ => Err("a matcher cannot be read".into()),
        }
    }
}

/// `0.5`, `1e3`, `90s` as seconds, `Inf`.
fn number(text: &str) -> Parse<f64> {
    let plain = text.parse::<f64>().ok().filter(|number| number.is_finite());
    plain
        .or_else(|| text.parse::<Span>().ok().map(Span::secs_f64))
        .ok_or_else(|| format!("`{text}` is no number"))
}
