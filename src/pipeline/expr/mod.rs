//! The expression language of rules: text → tokens → syntax tree → checked expression.

pub mod check;
pub(super) mod foreign;
pub mod lex;
pub mod literal;
pub mod parse;

/// A way out for an expression that is too much of one.
pub(super) const SPLIT: &str = "make parts of it `record:` series, or rules of their own";

/// Bytes of a text, for carets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spot {
    pub start: usize,
    pub end: usize,
}

impl Spot {
    pub fn to(self, other: Spot) -> Spot {
        Spot { start: self.start, end: other.end }
    }
}

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExprError {
    pub at: Spot,
    pub message: String,
    pub hint: Option<String>,
}

impl ExprError {
    pub fn new(at: Spot, message: impl Into<String>) -> ExprError {
        ExprError { at, message: message.into(), hint: None }
    }

    pub fn hint(self, hint: impl Into<String>) -> ExprError {
        ExprError { hint: Some(hint.into()), ..self }
    }
}
