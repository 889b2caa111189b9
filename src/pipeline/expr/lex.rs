//! Splits an expression into tokens.

use super::{ExprError, Spot};

/// A token and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub kind: TokenKind,
    pub at: Spot,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TokenKind {
    Name(String),
    /// A number with the unit that follows it without a blank: `500ms`, `20%`, `1h30m`, `0.9`.
    Number(String),
    Text(String),
    /// An operator or punctuation mark from `SYMBOLS`.
    Symbol(&'static str),
    End,
}

/// Longer symbols come first, because `=~` must not be read as `=`.
const SYMBOLS: [&str; 22] = [
    "=~", "!~", "!=", "==", ">=", "<=", ">", "<", "=", "(", ")", "{", "}", "[", "]", ",", "+", "-", "*", "/",
    "%", ":",
];

/// Maximum bytes of an expression. A usual expression has at most a few hundred.
const EXPR_BYTES_MAX: usize = 16 << 10;

/// Splits a text into tokens; the last one is [`TokenKind::End`].
fn tokens(text: &str) -> Result<Vec<Token>, ExprError> {
    if text.len() > EXPR_BYTES_MAX {
        let message = format!("the expression has {} bytes; at most {EXPR_BYTES_MAX} are taken", text.len());
        return Err(ExprError::new(Spot::default(), message));
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (kind, length) = match first {
            '0'..='9' | '.' => number(&text[at..]),
            '"' | '\'' => quoted(&text[at..], at)?,
            c if c.is_ascii_alphabetic() || c == '_' => {
                let length =
                    length_while(&text[at..], |c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'));
                (TokenKind::Name(text[at..at + length].into()), length)
            }
            other => symbol(&text[at..]).ok_or_else(|| {
                let at = Spot { start: at, end: at + other.len_utf8() };
                ExprError::new(at, format!("`{other}` is not part of the language"))
            })?,
        };
        tokens.push(Token { kind, at: Spot { start: at, end: at + length } });
        at += length;
    }
    tokens.push(Token { kind: TokenKind::End, at: Spot { start: at, end: at } });
    Ok(tokens)
}

/// A position in a list of tokens; it never passes the last token.
#[derive(Debug)]
pub(crate) struct Cursor {
    tokens: Vec<Token>, // ends with End
    at: usize,
}

impl Cursor {
    pub(crate) fn new(text: &str) -> Result<Cursor, ExprError> {
        Ok(Cursor { tokens: tokens(text)?, at: 0 })
    }

    pub(crate) fn peek(&self) -> &TokenKind {
        &self.tokens[self.at].kind
    }

    /// Returns the token after the next one.
    pub(crate) fn peek_second(&self) -> Option<&TokenKind> {
        self.tokens.get(self.at + 1).map(|token| &token.kind)
    }

    pub(crate) fn spot(&self) -> Spot {
        self.tokens[self.at].at
    }

    /// Returns the place of the token before the current one.
    pub(crate) fn last_spot(&self) -> Spot {
        self.tokens[self.at.saturating_sub(1)].at
    }

    /// Returns the next token and advances.
    pub(crate) fn advance(&mut self) -> Token {
        let token = self.tokens[self.at].clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    /// Advances if the next token is this symbol; returns whether it is.
    pub(crate) fn take(&mut self, symbol: &str) -> bool {
        let is_next = matches!(self.peek(), TokenKind::Symbol(found) if *found == symbol);
        if is_next {
            self.advance();
        }
        is_next
    }
}

fn length_while(text: &str, keep: impl Fn(char) -> bool) -> usize {
    text.find(|c| !keep(c)).unwrap_or(text.len())
}

fn number(text: &str) -> (TokenKind, usize) {
    let mut length = length_while(text, |c| c.is_ascii_alphanumeric() || c == '.');
    if text[length..].starts_with('%') {
        length += 1;
    }
    (TokenKind::Number(text[..length].into()), length)
}

fn symbol(text: &str) -> Option<(TokenKind, usize)> {
    let found = SYMBOLS.into_iter().find(|symbol| text.starts_with(symbol))?;
    Some((TokenKind::Symbol(found), found.len()))
}

fn quoted(text: &str, at: usize) -> Result<(TokenKind, usize), ExprError> {
    let mut chars = text.char_indices();
    let quote = chars.next().map(|(_, c)| c);
    let mut value = String::new();
    while let Some((offset, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                // Other escapes belong to a regular expression and are kept.
                Some((_, c)) if c != '\\' && Some(c) != quote => value.extend(['\\', c]),
                Some((_, c)) => value.push(c),
                None => break,
            },
            c if Some(c) == quote => return Ok((TokenKind::Text(value), offset + 1)),
            c => value.push(c),
        }
    }
    Err(ExprError::new(Spot { start: at, end: at + text.len() }, "this text has no closing quote"))
}
