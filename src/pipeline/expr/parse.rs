//! Tokens to a syntax tree. Binding, loosest first: `or`, `and unless`, comparisons, `+ -`, `* /`.

use super::lex::{Cursor, TokenKind};
use super::literal::{self, Literal};
use super::{ExprError, Spot};
use crate::core::Span;
use crate::core::rule::ast::{Arithmetic, Comparison};

/// A part of an expression and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    pub at: Spot,
    pub kind: TermKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TermKind {
    Number(Literal),
    /// A bare name: a series without a window, or a word that a function knows.
    Selector(SelectorTerm),
    Call {
        name: String,
        args: Vec<Arg>,
        by: Option<Vec<String>>,
    },
    Arithmetic(Arithmetic, Box<Term>, Box<Term>),
    Compare(Comparison, Box<Term>, Box<Term>),
    Logic(Logic, Box<Term>, Box<Term>),
    Negative(Box<Term>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logic {
    And,
    Or,
    Unless,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    Term(Term),
    /// `pipeline="release"`
    Matcher(MatcherTerm),
}

/// `name{matchers}[window]`
#[derive(Debug, Clone, PartialEq)]
pub struct SelectorTerm {
    pub name: Option<String>,
    pub matchers: Vec<MatcherTerm>,
    pub window: Option<(Span, Spot)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MatcherTerm {
    pub at: Spot,
    pub label: String,
    pub op: &'static str,
    pub value: String,
}

/// An expression, and the duration of a trailing `for 5 minutes`.
#[derive(Debug, PartialEq)]
pub struct Parsed {
    pub term: Term,
    pub pending_for: Option<Span>,
}

/// Nesting of an expression; the parser recurses this deep at most.
const DEPTH_MAX: usize = 64;

/// Parses a whole expression.
pub fn parse(text: &str) -> Result<Parsed, ExprError> {
    let mut parser = Parser { tokens: Cursor::new(text)?, depth: 0 };
    let term = parser.or()?;
    let pending_for = parser.trailing_for()?;
    match parser.tokens.peek() {
        TokenKind::End => Ok(Parsed { term, pending_for }),
        _ => Err(parser.unexpected("the end of the expression")),
    }
}

/// Parses a level: a comparison without its left side, such as `> 10%`.
pub fn parse_level(text: &str) -> Result<(Comparison, Literal), ExprError> {
    let mut parser = Parser { tokens: Cursor::new(text)?, depth: 0 };
    let Some(op) = parser.comparison() else { return Err(parser.unexpected("a comparison such as `> 10%`")) };
    let is_negative = parser.tokens.take("-");
    let TokenKind::Number(number) = parser.tokens.peek().clone() else {
        return Err(parser.unexpected("a number"));
    };
    let mut literal = parser.literal(&number)?;
    if is_negative {
        literal.value = -literal.value;
    }
    match parser.tokens.peek() {
        TokenKind::End => Ok((op, literal)),
        _ => Err(parser.unexpected("the end of the level")),
    }
}

struct Parser {
    tokens: Cursor,
    depth: usize,
}

type Parse<T> = Result<T, ExprError>;

impl Parser {
    fn expect(&mut self, symbol: &'static str) -> Parse<()> {
        if self.tokens.take(symbol) { Ok(()) } else { Err(self.unexpected(&format!("`{symbol}`"))) }
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is_next = matches!(self.tokens.peek(), TokenKind::Name(name) if name.eq_ignore_ascii_case(word));
        if is_next {
            self.tokens.advance();
        }
        is_next
    }

    fn unexpected(&self, wanted: &str) -> ExprError {
        let found = match self.tokens.peek() {
            TokenKind::Name(name) => format!("`{name}`"),
            TokenKind::Number(number) => format!("`{number}`"),
            TokenKind::Text(_) => "a text".into(),
            TokenKind::Symbol(symbol) => format!("`{symbol}`"),
            TokenKind::End => "the end".into(),
        };
        ExprError::new(self.tokens.spot(), format!("expected {wanted}, found {found}"))
    }

    fn or(&mut self) -> Parse<Term> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ExprError::new(self.tokens.spot(), format!("nested deeper than {DEPTH_MAX}")));
        }
        let mut left = self.and()?;
        while self.take_word("or") {
            left = logic(Logic::Or, left, self.and()?);
        }
        self.depth -= 1;
        Ok(left)
    }

    fn and(&mut self) -> Parse<Term> {
        let mut left = self.compare()?;
        loop {
            let op = if self.take_word("and") {
                Logic::And
            } else if self.take_word("unless") {
                Logic::Unless
            } else {
                return Ok(left);
            };
            left = logic(op, left, self.compare()?);
        }
    }

    fn compare(&mut self) -> Parse<Term> {
        let left = self.sum()?;
        let Some(op) = self.comparison() else { return Ok(left) };
        let right = self.sum()?;
        if self.comparison().is_some() {
            return Err(ExprError::new(left.at.to(right.at), "comparisons do not chain")
                .hint("write `a < x and x < b`"));
        }
        let at = left.at.to(right.at);
        Ok(Term { at, kind: TermKind::Compare(op, Box::new(left), Box::new(right)) })
    }

    fn comparison(&mut self) -> Option<Comparison> {
        const OPS: [(&str, Comparison); 6] = [
            (">", Comparison::Greater),
            (">=", Comparison::GreaterEqual),
            ("<", Comparison::Less),
            ("<=", Comparison::LessEqual),
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
        ];
        OPS.into_iter().find(|(symbol, _)| self.tokens.take(symbol)).map(|(_, op)| op)
    }

    fn sum(&mut self) -> Parse<Term> {
        let mut left = self.product()?;
        loop {
            let op = if self.tokens.take("+") {
                Arithmetic::Add
            } else if self.tokens.take("-") {
                Arithmetic::Subtract
            } else {
                return Ok(left);
            };
            left = arithmetic(op, left, self.product()?);
        }
    }

    fn product(&mut self) -> Parse<Term> {
        let mut left = self.unary()?;
        loop {
            let op = if self.tokens.take("*") {
                Arithmetic::Multiply
            } else if self.tokens.take("/") {
                Arithmetic::Divide
            } else {
                return Ok(left);
            };
            left = arithmetic(op, left, self.unary()?);
        }
    }

    fn unary(&mut self) -> Parse<Term> {
        let start = self.tokens.spot();
        if self.tokens.take("-") {
            let inner = self.primary()?;
            let at = start.to(inner.at);
            return Ok(Term { at, kind: TermKind::Negative(Box::new(inner)) });
        }
        self.primary()
    }

    fn primary(&mut self) -> Parse<Term> {
        let start = self.tokens.spot();
        match self.tokens.peek().clone() {
            TokenKind::Number(number) => {
                let literal = self.literal(&number)?;
                Ok(Term { at: start, kind: TermKind::Number(literal) })
            }
            TokenKind::Symbol("(") => {
                self.tokens.advance();
                let inner = self.or()?;
                self.expect(")")?;
                Ok(inner)
            }
            TokenKind::Symbol("{") => self.selector(None, start),
            TokenKind::Name(name) => {
                self.tokens.advance();
                if matches!(self.tokens.peek(), TokenKind::Symbol("(")) {
                    return self.call(name, start);
                }
                self.selector(Some(name), start)
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    fn literal(&mut self, number: &str) -> Parse<Literal> {
        let at = self.tokens.advance().at;
        literal::read(number).ok_or_else(|| {
            ExprError::new(at, format!("`{number}` is not a number with a known unit"))
                .hint("units are ns us ms s m h d w, bytes KiB MiB GiB, %, ratio, count")
        })
    }

    fn call(&mut self, name: String, start: Spot) -> Parse<Term> {
        self.expect("(")?;
        let mut args = Vec::new();
        while !self.tokens.take(")") {
            if !args.is_empty() {
                self.expect(",")?;
            }
            args.push(self.arg()?);
        }
        let by = if self.take_word("by") { Some(self.labels()?) } else { None };
        let end = self.tokens.last_spot();
        Ok(Term { at: start.to(end), kind: TermKind::Call { name, args, by } })
    }

    fn arg(&mut self) -> Parse<Arg> {
        let is_matcher = matches!(self.tokens.peek(), TokenKind::Name(_))
            && matches!(self.tokens.peek_second(), Some(TokenKind::Symbol("=" | "=~" | "!~")));
        if is_matcher { self.matcher().map(Arg::Matcher) } else { self.or().map(Arg::Term) }
    }

    fn labels(&mut self) -> Parse<Vec<String>> {
        self.expect("(")?;
        let mut labels = Vec::new();
        while !self.tokens.take(")") {
            if !labels.is_empty() {
                self.expect(",")?;
            }
            match self.tokens.peek().clone() {
                TokenKind::Name(name) => labels.push(name),
                _ => return Err(self.unexpected("a label")),
            }
            self.tokens.advance();
        }
        Ok(labels)
    }

    fn selector(&mut self, name: Option<String>, start: Spot) -> Parse<Term> {
        let mut matchers = Vec::new();
        if self.tokens.take("{") {
            while !self.tokens.take("}") {
                if !matchers.is_empty() {
                    self.expect(",")?;
                }
                matchers.push(self.matcher()?);
            }
        }
        let window = if self.tokens.take("[") {
            let at = self.tokens.spot();
            let TokenKind::Number(text) = self.tokens.peek().clone() else {
                return Err(self.unexpected("a duration"));
            };
            self.tokens.advance();
            self.expect("]")?;
            let span = text.parse().map_err(|error| ExprError::new(at, format!("`{text}` is {error}")))?;
            Some((span, at))
        } else {
            None
        };
        let end = self.tokens.last_spot();
        Ok(Term { at: start.to(end), kind: TermKind::Selector(SelectorTerm { name, matchers, window }) })
    }

    fn matcher(&mut self) -> Parse<MatcherTerm> {
        let start = self.tokens.spot();
        let TokenKind::Name(label) = self.tokens.peek().clone() else {
            return Err(self.unexpected("a label"));
        };
        self.tokens.advance();
        let op = ["=~", "!~", "!=", "="].into_iter().find(|op| self.tokens.take(op));
        let Some(op) = op else { return Err(self.unexpected("`=`, `!=`, `=~` or `!~`")) };
        let TokenKind::Text(value) = self.tokens.peek().clone() else {
            return Err(self.unexpected("a text in quotes"));
        };
        let end = self.tokens.advance().at;
        Ok(MatcherTerm { at: start.to(end), label, op, value })
    }

    /// `for 5 minutes`, as people write it in runbooks.
    fn trailing_for(&mut self) -> Parse<Option<Span>> {
        if !self.take_word("for") {
            return Ok(None);
        }
        let at = self.tokens.spot();
        let TokenKind::Number(number) = self.tokens.advance().kind else {
            return Err(ExprError::new(at, "expected a duration after `for`"));
        };
        if let Ok(span) = number.parse() {
            return Ok(Some(span));
        }
        let factor = match self.tokens.peek() {
            TokenKind::Name(word) => match word.trim_end_matches('s') {
                "second" | "sec" => Some(Span::from_secs(1)),
                "minute" | "min" => Some(Span::from_mins(1)),
                "hour" => Some(Span::from_hours(1)),
                "day" => Some(Span::from_hours(24)),
                _ => None,
            },
            _ => None,
        };
        match (factor, number.parse::<i64>()) {
            (Some(factor), Ok(count)) => {
                self.tokens.advance();
                Ok(Some(factor * count))
            }
            _ => Err(ExprError::new(at, "expected a duration such as `5 minutes` or `5m`")),
        }
    }
}

fn logic(op: Logic, left: Term, right: Term) -> Term {
    Term { at: left.at.to(right.at), kind: TermKind::Logic(op, Box::new(left), Box::new(right)) }
}

fn arithmetic(op: Arithmetic, left: Term, right: Term) -> Term {
    Term { at: left.at.to(right.at), kind: TermKind::Arithmetic(op, Box::new(left), Box::new(right)) }
}
