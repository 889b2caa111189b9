//! Parses tokens into a syntax tree. Precedence, lowest first: `or`, `and unless`, comparisons, `+ -`, `* /`.

use super::lex::{Cursor, TokenKind};
use super::literal::{self, Literal};
use super::{ExprError, SPLIT, Spot, foreign};
use crate::core::Span;
use crate::core::rule::ast::Arithmetic;
use crate::core::vocab::comparison::Comparison;
use crate::core::vocab::limits::LABELS_MAX;
use crate::pipeline::bounds::MATCHERS_MAX;

/// A node of the syntax tree and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    pub at: Spot,
    pub kind: TermKind,
    /// Height of the tree from this node down, itself included; at most [`HEIGHT_MAX`].
    height: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TermKind {
    Number(Literal),
    /// A name without arguments: a series, or a word that a function interprets.
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

/// Maximum nesting of parentheses and calls. Each level adds eight or more nested function calls of the parser.
const DEPTH_MAX: usize = 64;

/// Maximum height of the syntax tree. A chain `a or b or c` makes a tree as high as the chain is long. The tree is
/// checked, evaluated and dropped by recursion: 64 × about 2 KiB of stack = 128 KiB of the 2 MiB that a thread has.
const HEIGHT_MAX: usize = 64;

/// Maximum number of labels in `by (…)`: as many as an event may have, plus `source` and `name`.
const BY_MAX: usize = LABELS_MAX + 2;

/// The longest trailing `for 5 minutes`: ten years, as for any duration.
const FOR_MAX: Span = Span::from_hours(24 * 366 * 10);

/// Maximum number of nodes in one syntax tree. 50 comparisons of ratios have about 400.
const TERMS_MAX: usize = 1_024;

/// Parses a whole expression.
pub fn parse(text: &str) -> Result<Parsed, ExprError> {
    let mut parser = Parser::new(text)?;
    let term = parser.or()?;
    let pending_for = parser.trailing_for()?;
    match parser.tokens.peek() {
        TokenKind::End => Ok(Parsed { term, pending_for }),
        _ => Err(parser.unexpected("the end of the expression")),
    }
}

/// Parses a level, which is a comparison without its left side, such as `> 10%`.
pub fn parse_level(text: &str) -> Result<(Comparison, Literal), ExprError> {
    let mut parser = Parser::new(text)?;
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
    /// Number of open parentheses and calls.
    depth: usize,
    /// Number of nodes made so far.
    terms: usize,
}

type Parse<T> = Result<T, ExprError>;

impl Parser {
    fn new(text: &str) -> Parse<Parser> {
        Ok(Parser { tokens: Cursor::new(text)?, depth: 0, terms: 0 })
    }

    /// Makes a node above its operands, within the bounds for height and number.
    fn term(&mut self, at: Spot, kind: TermKind) -> Parse<Term> {
        let below = match &kind {
            TermKind::Number(_) | TermKind::Selector(_) => 0,
            TermKind::Call { args, .. } => args.iter().map(Arg::height).max().unwrap_or(0),
            TermKind::Arithmetic(_, a, b) | TermKind::Compare(_, a, b) | TermKind::Logic(_, a, b) => {
                a.height.max(b.height)
            }
            TermKind::Negative(inner) => inner.height,
        };
        self.terms += 1;
        if below + 1 > HEIGHT_MAX || self.terms > TERMS_MAX {
            let message = match self.terms > TERMS_MAX {
                true => format!("this expression has more than {TERMS_MAX} parts"),
                false => format!("this expression has more than {HEIGHT_MAX} operators one behind the other"),
            };
            return Err(ExprError::new(at, message).hint(SPLIT));
        }
        Ok(Term { at, kind, height: below + 1 })
    }

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
        let (found, foreign) = match self.tokens.peek() {
            TokenKind::Name(name) => (format!("`{name}`"), foreign::of_word(name)),
            TokenKind::Number(number) => (format!("`{number}`"), None),
            TokenKind::Text(_) => ("a text".into(), None),
            TokenKind::Symbol(symbol) => (format!("`{symbol}`"), foreign::of_symbol(symbol)),
            TokenKind::End => ("the end".into(), None),
        };
        let error = ExprError::new(self.tokens.spot(), format!("expected {wanted}, found {found}"));
        match foreign {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn or(&mut self) -> Parse<Term> {
        if self.depth >= DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX}");
            return Err(ExprError::new(self.tokens.spot(), message).hint(SPLIT));
        }
        self.depth += 1;
        let chain = self.or_chain();
        self.depth -= 1;
        chain
    }

    fn or_chain(&mut self) -> Parse<Term> {
        let mut left = self.and()?;
        while self.take_word("or") {
            let right = self.and()?;
            left = self.logic(Logic::Or, left, right)?;
        }
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
            let right = self.compare()?;
            left = self.logic(op, left, right)?;
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
        self.term(at, TermKind::Compare(op, Box::new(left), Box::new(right)))
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
            let right = self.product()?;
            left = self.arithmetic(op, left, right)?;
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
            let right = self.unary()?;
            left = self.arithmetic(op, left, right)?;
        }
    }

    fn unary(&mut self) -> Parse<Term> {
        let start = self.tokens.spot();
        if self.tokens.take("-") {
            let inner = self.primary()?;
            let at = start.to(inner.at);
            return self.term(at, TermKind::Negative(Box::new(inner)));
        }
        self.primary()
    }

    fn primary(&mut self) -> Parse<Term> {
        let start = self.tokens.spot();
        match self.tokens.peek().clone() {
            TokenKind::Number(number) => {
                let literal = self.literal(&number)?;
                self.term(start, TermKind::Number(literal))
            }
            TokenKind::Symbol("(") => {
                self.tokens.advance();
                let inner = self.or()?;
                self.expect(")")?;
                Ok(inner)
            }
            TokenKind::Symbol("{") => self.selector(None, start),
            TokenKind::Name(name) => {
                if let Some(hint) = foreign::of_modifier(&name, self.tokens.peek_second()) {
                    return Err(
                        ExprError::new(start, format!("`{name}` is not part of the language")).hint(hint)
                    );
                }
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
        self.term(start.to(end), TermKind::Call { name, args, by })
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
            let at = self.tokens.advance().at;
            if labels.len() > BY_MAX {
                return Err(ExprError::new(at, format!("`by` takes at most {BY_MAX} labels")));
            }
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
                if matchers.len() > MATCHERS_MAX {
                    let message = format!("there are more than {MATCHERS_MAX} matchers");
                    return Err(ExprError::new(self.tokens.last_spot(), message));
                }
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
        self.term(start.to(end), TermKind::Selector(SelectorTerm { name, matchers, window }))
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

    /// Parses a trailing `for 5 minutes`, as runbooks write it.
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
            (Some(factor), Ok(count)) if factor * count <= FOR_MAX => {
                self.tokens.advance();
                Ok(Some(factor * count))
            }
            _ => Err(ExprError::new(at, "expected a duration such as `5 minutes` or `5m`")),
        }
    }

    fn logic(&mut self, op: Logic, left: Term, right: Term) -> Parse<Term> {
        let at = left.at.to(right.at);
        self.term(at, TermKind::Logic(op, Box::new(left), Box::new(right)))
    }

    fn arithmetic(&mut self, op: Arithmetic, left: Term, right: Term) -> Parse<Term> {
        let at = left.at.to(right.at);
        self.term(at, TermKind::Arithmetic(op, Box::new(left), Box::new(right)))
    }
}

impl Arg {
    fn height(&self) -> usize {
        match self {
            Arg::Term(term) => term.height,
            Arg::Matcher(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(text).expect_err("too much of it").message
    }

    /// Goal: the parser cannot overflow the stack. Method: long chains and deep nesting; 14 KB of
    /// `a or a or …` once overflowed the stack of the thread that read the rules.
    #[test]
    fn chains_and_nesting_are_bounded() {
        for (one, operator) in [("a > 1", " or "), ("a > 1", " and "), ("a", "+"), ("a", "/"), ("a", " - ")] {
            let chain = |count: usize| vec![one; count].join(operator);
            assert!(parse(&chain(60)).is_ok(), "{operator}");
            assert!(refused(&chain(70)).contains("one behind the other"), "{operator}");
            assert!(refused(&chain(1_500)).contains("one behind the other"), "{operator}");
        }
        for (begin, end) in [("(", ")"), ("abs(", ")"), ("-(", ")"), ("max(1, ", ")")] {
            let nested = |count: usize| format!("{}a{}", begin.repeat(count), end.repeat(count));
            assert!(parse(&nested(50)).is_ok(), "{begin}");
            assert!(parse(&nested(70)).is_err() && parse(&nested(2_000)).is_err(), "{begin}");
        }
        // Nested chains, each of which is within the bound while the whole tree is not.
        let mut leaning = String::from("a");
        for _ in 0..20 {
            leaning = format!("({leaning}+a+a+a+a)");
        }
        assert!(refused(&leaning).contains("one behind the other"));
    }

    #[test]
    fn lists_are_bounded() {
        assert!(refused(&format!("max({})", vec!["1"; 1_100].join(","))).contains("parts"));
        assert!(refused(&format!("avg(x[1m]) by ({})", vec!["l"; 40].join(","))).contains("labels"));
        assert!(refused(&format!("x{{{}}}", vec!["l=\"v\""; 65].join(","))).contains("matchers"));
        assert!(refused("x > 1 for 9223372036854775807 days").contains("duration"));
        assert!(parse("- - a").is_err(), "one sign is enough");
    }

    #[test]
    fn words_of_promql_are_answered_with_ours() {
        let hint = |text: &str| parse(text).expect_err("not ours").hint.unwrap_or_default();
        assert!(hint("rate(x[5m] offset 1d) > 1").contains("change("));
        assert!(hint("sum without (a) (rate(x[5m])) > 1").contains("by"));
        assert!(hint("sum by (a) (x[5m]) > 1").contains("behind"));
        assert!(hint("a > on (x) b").contains("by"));
        assert!(hint("a > bool 1").contains("comparison"));
        assert!(hint("max_over_time(x[1h:1m])").contains("record:"));
    }
}
