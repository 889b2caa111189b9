//! The expression language of rules: text → tokens → syntax tree → checked expression.

pub mod check;
pub(super) mod foreign;
pub(crate) mod lex;
pub mod literal;
pub mod parse;

/// The hint for an expression that exceeds a bound.
pub(super) const SPLIT: &str = "make parts of it `record:` series, or rules of their own";

/// A range of bytes in an expression, for the caret.
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

/// An error in an expression, with its place.
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
