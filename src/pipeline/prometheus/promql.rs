//! Parses PromQL tokens into a tree. Precedence, lowest first: `or`, `and unless`, comparisons, `+ -`,
//! `* / %`, signs, `^`.

use super::ast::{Grouping, Matcher, Matching, Node, Vector};
use super::lex::{Token, tokens};
use super::regex;

const AGGREGATIONS: [&str; 14] = [
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
    "limitk",
    "limit_ratio",
];

/// Binary operators, lowest precedence first.
const LEVELS: [&[&str]; 5] = [
    &["or"],
    &["and", "unless"],
    &["==", "!=", ">=", "<=", ">", "<"],
    &["+", "-"],
    &["*", "/", "%", "atan2"],
];

/// Maximum nesting depth of an expression.
const DEPTH_MAX: usize = 64;

/// Maximum number of operators in one expression, because a chain of operators makes an equally deep tree. Public
/// rules have up to sixty.
const OPERATORS_MAX: usize = 512;

/// Parses an expression, or returns the reason why it cannot be parsed.
pub(super) fn parse(text: &str) -> Result<Node, String> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, depth: 0, operators: 0 };
    let node = parser.binary(0)?;
    match parser.peek() {
        Token::End => Ok(node),
        other => Err(format!("{other} is not expected there")),
    }
}

struct Parser {
    tokens: Vec<Token>, // ends with End
    at: usize,
    depth: usize,
    operators: usize,
}

type Parse<T> = Result<T, String>;

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at]
    }

    /// Returns the next token and advances; never passes the last token.
    fn advance(&mut self) -> Token {
        let token = self.tokens[self.at].clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    /// Advances if the next token is this symbol; returns whether it is.
    fn take(&mut self, symbol: &str) -> bool {
        let is_next = matches!(self.peek(), Token::Symbol(found) if *found == symbol);
        if is_next {
            self.advance();
        }
        is_next
    }

    fn expect(&mut self, symbol: &str) -> Parse<()> {
        match self.take(symbol) {
            true => Ok(()),
            false => Err(format!("`{symbol}` is missing before {}", self.peek())),
        }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if found.eq_ignore_ascii_case(word))
    }

    /// Advances if the next token is this keyword, in upper or lower case; returns whether it is.
    fn take_word(&mut self, word: &str) -> bool {
        let is_next = self.is_word(word);
        if is_next {
            self.advance();
        }
        is_next
    }

    fn count_operator(&mut self) -> Parse<()> {
        self.operators += 1;
        match self.operators > OPERATORS_MAX {
            true => Err(format!("it has more than {OPERATORS_MAX} operators")),
            false => Ok(()),
        }
    }

    fn operator(&mut self, level: usize) -> Option<&'static str> {
        let mut known = LEVELS[level].iter().copied();
        let found = match self.peek() {
            Token::Symbol(symbol) => known.find(|known| known == symbol),
            Token::Name(name) => known.find(|known| name.eq_ignore_ascii_case(known)),
            _ => None,
        };
        if found.is_some() {
            self.advance();
        }
        found
    }

    fn binary(&mut self, level: usize) -> Parse<Node> {
        if level == LEVELS.len() {
            return self.signed();
        }
        let mut left = self.binary(level + 1)?;
        while let Some(op) = self.operator(level) {
            self.count_operator()?;
            let matching = self.matching()?;
            let right = self.binary(level + 1)?;
            left = Node::Binary { op, matching, left: Box::new(left), right: Box::new(right) };
        }
        Ok(left)
    }

    /// Parses `bool`, `on (…)`, `ignoring (…)` and `group_left (…)`.
    fn matching(&mut self) -> Parse<Matching> {
        let mut matching = Matching { is_bool: self.take_word("bool"), ..Matching::default() };
        for (word, is_on) in [("on", true), ("ignoring", false)] {
            if self.take_word(word) {
                matching.labels = Some((is_on, self.labels()?));
            }
        }
        if self.take_word("group_left") || self.take_word("group_right") {
            let has_labels = matches!(self.peek(), Token::Symbol("("));
            matching.group = Some(if has_labels { self.labels()? } else { Vec::new() });
        }
        Ok(matching)
    }

    fn signed(&mut self) -> Parse<Node> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX}"));
        }
        let node = if self.take("-") {
            match self.signed()? {
                Node::Number(number) => Node::Number(-number),
                other => Node::Negative(Box::new(other)),
            }
        } else if self.take("+") {
            self.signed()?
        } else {
            self.power()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn power(&mut self) -> Parse<Node> {
        let left = self.moved()?;
        if !self.take("^") {
            return Ok(left);
        }
        let matching = self.matching()?;
        let right = self.signed()?;
        Ok(Node::Binary { op: "^", matching, left: Box::new(left), right: Box::new(right) })
    }

    /// Parses a value and its suffixes: ranges, `offset`, `@`.
    fn moved(&mut self) -> Parse<Node> {
        let mut node = self.primary()?;
        loop {
            if self.take("[") {
                node = self.range(node)?;
            } else if self.take_word("offset") {
                self.offset()?;
                node = Node::Moved(Box::new(node), "offset");
            } else if self.take("@") {
                self.instant()?;
                node = Node::Moved(Box::new(node), "@");
            } else {
                return Ok(node);
            }
            self.count_operator()?;
        }
    }

    fn range(&mut self, of: Node) -> Parse<Node> {
        let Token::Duration(span) = self.advance() else {
            return Err("a range is a duration such as `[5m]`".into());
        };
        if self.take(":") {
            if matches!(self.peek(), Token::Duration(_)) {
                self.advance();
            }
            self.expect("]")?;
            return Ok(Node::Subquery(Box::new(of)));
        }
        self.expect("]")?;
        match of {
            Node::Vector(vector) if vector.range.is_none() => {
                Ok(Node::Vector(Vector { range: Some(span), ..vector }))
            }
            _ => Err("a range belongs to a series".into()),
        }
    }

    fn offset(&mut self) -> Parse<()> {
        if !self.take("-") {
            self.take("+");
        }
        match self.advance() {
            Token::Duration(_) => Ok(()),
            other => Err(format!("`offset` takes a duration, not {other}")),
        }
    }

    /// Parses the time of `@ 1609746000`, `@ start()` or `@ end()`.
    fn instant(&mut self) -> Parse<()> {
        if !self.take("-") {
            self.take("+");
        }
        match self.advance() {
            Token::Number(_) => Ok(()),
            Token::Name(_) => self.expect("(").and_then(|()| self.expect(")")),
            other => Err(format!("`@` takes a time, not {other}")),
        }
    }

    fn primary(&mut self) -> Parse<Node> {
        match self.advance() {
            Token::Number(number) => Ok(Node::Number(number)),
            Token::Duration(span) => Ok(Node::Number(span.secs_f64())),
            Token::Text(text) => Ok(Node::Text(text)),
            Token::Symbol("{") => self.vector(String::new(), true),
            Token::Symbol("(") => {
                let inner = self.binary(0)?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Name(name) => self.named(name),
            other => Err(format!("{other} is not expected there")),
        }
    }

    /// Parses a name: a number (`inf`, `nan`), an aggregation, a function or a series.
    fn named(&mut self, name: String) -> Parse<Node> {
        let word = name.to_ascii_lowercase();
        match word.as_str() {
            "inf" => return Ok(Node::Number(f64::INFINITY)),
            "nan" => return Ok(Node::Number(f64::NAN)),
            _ => {}
        }
        let has_arguments = matches!(self.peek(), Token::Symbol("("));
        let is_grouped = self.is_word("by") || self.is_word("without");
        if AGGREGATIONS.contains(&word.as_str()) && (has_arguments || is_grouped) {
            return self.aggregation(word);
        }
        if has_arguments {
            let args = self.arguments()?;
            return Ok(Node::Call { name, args });
        }
        let has_matchers = self.take("{");
        self.vector(name, has_matchers)
    }

    fn aggregation(&mut self, op: String) -> Parse<Node> {
        let before = self.grouping()?;
        let args = self.arguments()?;
        let grouping = match before {
            Some(grouping) => grouping,
            None => self.grouping()?.unwrap_or(Grouping::By(Vec::new())),
        };
        Ok(Node::Aggregation { op, grouping, args })
    }

    fn grouping(&mut self) -> Parse<Option<Grouping>> {
        if self.take_word("by") {
            return Ok(Some(Grouping::By(self.labels()?)));
        }
        if self.take_word("without") {
            return Ok(Some(Grouping::Without(self.labels()?)));
        }
        Ok(None)
    }

    fn labels(&mut self) -> Parse<Vec<String>> {
        self.expect("(")?;
        let mut labels = Vec::new();
        while !self.take(")") {
            match self.advance() {
                Token::Name(label) => labels.push(label),
                other => return Err(format!("{other} is no label")),
            }
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(labels)
    }

    fn arguments(&mut self) -> Parse<Vec<Node>> {
        self.expect("(")?;
        let mut args = Vec::new();
        while !self.take(")") {
            args.push(self.binary(0)?);
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(args)
    }

    /// Parses a series after its opening `{`.
    fn vector(&mut self, name: String, has_matchers: bool) -> Parse<Node> {
        let mut vector = Vector { name, matchers: Vec::new(), range: None };
        while has_matchers && !self.take("}") {
            self.matcher(&mut vector)?;
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        match vector.name.is_empty() && vector.matchers.is_empty() {
            true => Err("a series needs a name or a matcher".into()),
            false => Ok(Node::Vector(vector)),
        }
    }

    /// Parses `label="value"`. `__name__="x"` and a quoted text alone are the metric's name.
    fn matcher(&mut self, vector: &mut Vector) -> Parse<()> {
        let label = match self.advance() {
            Token::Name(label) => label,
            Token::Text(name) if vector.name.is_empty() => {
                vector.name = name;
                return Ok(());
            }
            other => return Err(format!("{other} is no label")),
        };
        let op = match self.advance() {
            Token::Symbol(op @ ("=" | "!=" | "=~" | "!~")) => op,
            other => return Err(format!("label `{label}` needs `=`, `!=`, `=~` or `!~`, not {other}")),
        };
        let value = match self.advance() {
            Token::Text(value) => value,
            other => return Err(format!("label `{label}` needs a text in quotes, not {other}")),
        };
        let value = if op.contains('~') { regex::ours(&value)? } else { value };
        match (label.as_str(), op) {
            ("__name__", "=") if vector.name.is_empty() => vector.name = value,
            _ => vector.matchers.push(Matcher { label, op, value }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_promql_allows_is_read() {
        let all = [
            "# why\nq > 1",
            "q > 1# why",
            "q{a=\"b #1\"} > 1",
            "q{a=~`b\\d`,} > 1",
            "SUM(rate(q_total[5m])) BY (job) > 1",
            "sum by (job,) (q) AND sum without (a) (q)",
            "rate(:tf:serving:count[5m]) > 1",
            "q < +Inf or q != NaN",
            "-x ^ 2 + +3 % 2 atan2 1",
            "x > bool on (a) group_left (b) y",
            "max_over_time(rate(x[5m])[1h:1m]) > 1",
            "x offset -5m @ start() > 1",
            "{__name__=~\"a|b\"} > 1",
            "sum > 5 and sum{a=\"b\"} > 1",
            "label_replace(x, \"a\", \"$1\", \"b\", \"(.*)\") > 1",
        ];
        for text in all {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let all = [
            ("q >", "the end is not expected there"),
            ("q{a=1}", "label `a` needs a text in quotes, not `1`"),
            ("sum(q", "`)` is missing before the end"),
            ("q[5]", "a range is a duration such as `[5m]`"),
            ("q 5", "`5` is not expected there"),
            ("{}", "a series needs a name or a matcher"),
            ("q > \"a\" \"b\"", "the text \"b\" is not expected there"),
        ];
        for (text, message) in all {
            assert_eq!(parse(text), Err(message.into()), "{text}");
        }
    }

    #[test]
    fn neither_nesting_nor_chains_are_without_end() {
        let deep = format!("{}q{}", "(".repeat(5_000), ")".repeat(5_000));
        assert_eq!(parse(&deep), Err("it is nested deeper than 64".into()));
        let long = vec!["q"; 5_000].join(" + ");
        assert_eq!(parse(&long), Err("it has more than 512 operators".into()));
    }

    #[test]
    fn counters_are_learned_also_from_what_is_refused() {
        let node = parse("sum(rate(a[5m] offset 1d)) / b > 1 and increase(c[1h:]) > 0").expect("read");
        assert_eq!(node.counters(), ["a"]);
        assert_eq!(node.names(), ["a", "b", "c"]);
    }
}
