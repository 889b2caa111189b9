//! Splits PromQL into tokens.
//!
//! Intuition: PromQL resembles the expression language of streamgauge. But its strings have the escapes of
//! Go, its numbers have no units (and are octal with a leading zero), its names may begin with a colon, and
//! comments may stand anywhere outside quotes.
//! Rejected: the lexer of the expression language, which keeps the escapes of regular expressions and reads
//! `1e+9` as a sum.

use super::duration::duration;
use crate::core::Span;
use std::fmt;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A metric, a label, a function or a keyword.
    Name(String),
    Number(f64),
    Duration(Span),
    Text(String),
    /// An operator or punctuation mark from `SYMBOLS`.
    Symbol(&'static str),
    End,
}

/// Longer symbols come first, because `=~` must not be read as `=`.
const SYMBOLS: [&str; 24] = [
    "=~", "!~", "!=", "==", ">=", "<=", ">", "<", "=", "(", ")", "{", "}", "[", "]", ",", "+", "-", "*", "/",
    "%", "^", "@", ":",
];

/// Maximum bytes of an expression: ten times the longest in public rule files, which has about 6,000.
const EXPR_BYTES_MAX: usize = 64 << 10;

/// Splits an expression into tokens; the last one is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    if text.len() > EXPR_BYTES_MAX {
        return Err(format!("the expression has {} bytes; at most {EXPR_BYTES_MAX} are read", text.len()));
    }
    let mut lexer = Lexer { rest: text, is_in_brackets: false };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.token()? {
        tokens.push(token);
    }
    tokens.push(Token::End);
    Ok(tokens)
}

/// Reads a number without a sign: decimal, hexadecimal as `0x10`, or octal as `010`.
pub(super) fn number(word: &str) -> Option<f64> {
    if let Some(digits) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        return i64::from_str_radix(digits, 16).ok().filter(|_| is_hex).map(|number| number as f64);
    }
    let is_whole = word.bytes().all(|byte| byte.is_ascii_digit());
    if is_whole
        && word.len() > 1
        && word.starts_with('0')
        && let Ok(octal) = i64::from_str_radix(word, 8)
    {
        return Some(octal as f64);
    }
    let is_decimal =
        word.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    word.parse::<f64>().ok().filter(|number| is_decimal && number.is_finite())
}

struct Lexer<'t> {
    rest: &'t str,
    /// Whether the position is between `[` and `]`, where a colon is a symbol and not a part of a name.
    is_in_brackets: bool,
}

impl<'t> Lexer<'t> {
    fn token(&mut self) -> Result<Option<Token>, String> {
        self.skip_blanks();
        let mut chars = self.rest.chars();
        let Some(first) = chars.next() else { return Ok(None) };
        let is_fraction = first == '.' && chars.next().is_some_and(|c| c.is_ascii_digit());
        let token = match first {
            c if c.is_ascii_digit() || is_fraction => self.number()?,
            '"' | '\'' => self.quoted(first)?,
            '`' => self.raw()?,
            c if self.begins_name(c) => self.name(),
            _ => self.symbol()?,
        };
        Ok(Some(token))
    }

    fn skip_blanks(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('#') {
                return;
            }
            let length = self.rest.find('\n').unwrap_or(self.rest.len());
            self.take(length);
        }
    }

    fn take(&mut self, length: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn length_while(&self, keep: impl Fn(char) -> bool) -> usize {
        self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len())
    }

    fn begins_name(&self, c: char) -> bool {
        c.is_ascii_alphabetic() || c == '_' || (c == ':' && !self.is_in_brackets)
    }

    fn name(&mut self) -> Token {
        let is_in_brackets = self.is_in_brackets;
        let length =
            self.length_while(|c| c.is_ascii_alphanumeric() || c == '_' || (c == ':' && !is_in_brackets));
        Token::Name(self.take(length).into())
    }

    /// Reads a number or a duration; a sign after the `e` of an exponent belongs to the number.
    fn number(&mut self) -> Result<Token, String> {
        let plain = self.length_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'));
        let (word, after) = self.rest.split_at(plain);
        let mantissa = word.strip_suffix(['e', 'E']);
        let is_exponent =
            mantissa.is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
        let signed = after.strip_prefix(['+', '-']).filter(|_| is_exponent).map_or(0, |digits| {
            let length = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            if length > 0 { length + 1 } else { 0 }
        });
        let word = self.take(plain + signed);
        let found = number(word).map(Token::Number).or_else(|| duration(word).map(Token::Duration));
        found.ok_or_else(|| format!("`{word}` is no number"))
    }

    fn quoted(&mut self, quote: char) -> Result<Token, String> {
        let (text, mut value) = (self.rest, String::new());
        let mut chars = text.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => value.push(escaped(&mut chars, quote)?),
                '\n' => break,
                c if c == quote => {
                    self.rest = &text[at + 1..];
                    return Ok(Token::Text(value));
                }
                c => value.push(c),
            }
        }
        Err("a text has no closing quote".into())
    }

    fn raw(&mut self) -> Result<Token, String> {
        let after = &self.rest[1..];
        let Some(length) = after.find('`') else { return Err("a text has no closing back-tick".into()) };
        self.rest = &after[length + 1..];
        Ok(Token::Text(after[..length].into()))
    }

    fn symbol(&mut self) -> Result<Token, String> {
        let Some(symbol) = SYMBOLS.into_iter().find(|symbol| self.rest.starts_with(symbol)) else {
            let found: String = self.rest.chars().take(1).collect();
            return Err(format!("`{found}` is not part of PromQL"));
        };
        self.take(symbol.len());
        match symbol {
            "[" => self.is_in_brackets = true,
            "]" => self.is_in_brackets = false,
            _ => {}
        }
        Ok(Token::Symbol(symbol))
    }
}

/// Reads an escape of Go after its backslash.
fn escaped(chars: &mut impl Iterator<Item = (usize, char)>, quote: char) -> Result<char, String> {
    let Some((_, c)) = chars.next() else { return Err("a text has no closing quote".into()) };
    let code = match c {
        'a' => Some(7),
        'b' => Some(8),
        'f' => Some(12),
        'n' => Some(10),
        'r' => Some(13),
        't' => Some(9),
        'v' => Some(11),
        'x' => digits(chars, String::new(), (2, 16)),
        'u' => digits(chars, String::new(), (4, 16)),
        'U' => digits(chars, String::new(), (8, 16)),
        '0'..='7' => digits(chars, c.into(), (3, 8)),
        c if c == '\\' || c == quote => return Ok(c),
        _ => None,
    };
    // An escaped byte above 127 is only a part of a UTF-8 character, so it is refused.
    let is_byte = matches!(c, 'x' | '0'..='7');
    let found = code.filter(|code| !is_byte || *code < 128).and_then(char::from_u32);
    found.ok_or_else(|| format!("`\\{c}` is no escape of a text; a regular expression needs `\\\\{c}`"))
}

/// Reads exactly `count` digits of a base; `known` holds the digits that are read already.
fn digits(
    chars: &mut impl Iterator<Item = (usize, char)>,
    mut known: String,
    (count, base): (usize, u32),
) -> Option<u32> {
    while known.len() < count {
        known.push(chars.next().map(|(_, c)| c).filter(|c| c.is_digit(base))?);
    }
    u32::from_str_radix(&known, base).ok()
}

/// The form of a token in messages.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Name(name) => write!(f, "`{name}`"),
            Token::Number(number) => write!(f, "`{number}`"),
            Token::Duration(span) => write!(f, "`{span}`"),
            Token::Text(text) => write!(f, "the text \"{text}\""),
            Token::Symbol(symbol) => write!(f, "`{symbol}`"),
            Token::End => f.write_str("the end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Token, String> {
        let mut all = tokens(text)?;
        assert_eq!(all.len(), 2, "{text}: {all:?}");
        Ok(all.remove(0))
    }

    #[test]
    fn numbers_are_those_of_go() {
        let cases = [
            ("0x10", 16.0),
            ("010", 8.0),
            ("08", 8.0),
            ("1e+9", 1e9),
            ("1E-2", 0.01),
            (".5", 0.5),
            ("5.", 5.0),
            ("0", 0.0),
        ];
        for (text, number) in cases {
            assert_eq!(one(text), Ok(Token::Number(number)), "{text}");
        }
        assert_eq!(one("1h30m"), Ok(Token::Duration(Span::from_mins(90))));
        for text in ["1e", "0xg", "1_000", "1e999", "5minutes"] {
            assert!(one(text).is_err(), "{text}");
        }
        assert_eq!(tokens("1e+x").map(|all| all.len()), Err("`1e` is no number".into()));
    }

    #[test]
    fn texts_have_the_escapes_of_go() {
        let cases = [
            (r#""a\\d\"\n\t\x41\u00e4\101""#, "a\\d\"\n\tA\u{e4}A"),
            (r"'it\'s'", "it's"),
            (r"`b\d`", r"b\d"),
            ("\"b #1\"", "b #1"),
        ];
        for (text, value) in cases {
            assert_eq!(one(text), Ok(Token::Text(value.into())), "{text}");
        }
        for text in [r#""\d""#, r#""\'""#, r#""\xff""#, "\"a", "`a", "\"a\nb\""] {
            assert!(one(text).is_err(), "{text}");
        }
    }

    #[test]
    fn comments_and_colons_are_read() {
        let name = |name: &str| Token::Name(name.into());
        assert_eq!(tokens("# why\n q # b"), Ok(vec![name("q"), Token::End]));
        assert_eq!(one(":a:b"), Ok(name(":a:b")));
        assert_eq!(tokens("[1h:]").map(|all| all.len()), Ok(5));
        assert_eq!(tokens("a ! b"), Err("`!` is not part of PromQL".into()));
    }
}
