//! Query parameters: only known ones are accepted, each at most once.
//!
//! Intuition: if a mistyped parameter were ignored, the answer would be one to another question. An unknown
//! name is therefore refused, and the refusal lists the known names.

use super::Failure;
use crate::core::{Span, Timestamp};
use crate::wire::time;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// A query, deserialized into a type with `deny_unknown_fields`.
#[derive(Debug)]
pub struct Params<T>(pub T);

/// A query without parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params<T>, Failure> {
        let Query(found) = Query::<T>::try_from_uri(&parts.uri).map_err(|error| {
            let cause = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
            Failure::bad(words(&cause))
        })?;
        Ok(Params(found))
    }
}

/// Rewrites an error message of the deserializer, which speaks of fields, to speak of query parameters.
fn words(cause: &str) -> String {
    let cause = cause.split_once("unknown field ").map_or_else(
        || cause.replace("field", "parameter"),
        |(_, rest)| {
            let rest = rest.replace("expected one of", "known here:").replace("expected", "known here:");
            format!("unknown query parameter {}", rest.replace("there are no fields", "there are none here"))
        },
    );
    cause.chars().take(MESSAGE_CHARS_MAX).collect()
}

/// Maximum number of characters of a message that repeats client text.
const MESSAGE_CHARS_MAX: usize = 400;

/// Returns the limit of a list: the stated one, at most `max`; `max` if none is stated.
pub fn limit(stated: Option<usize>, max: usize) -> Result<usize, Failure> {
    match stated {
        Some(0) => Err(Failure::bad(format!("limit is a number from 1 to {max}"))),
        stated => Ok(stated.unwrap_or(max).min(max)),
    }
}

/// A name in a path, percent-decoded.
#[derive(Debug)]
pub struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named, Failure> {
        let named = Path::<String>::from_request_parts(parts, state).await;
        named.map(|Path(name)| Named(name)).map_err(|_| Failure::bad("the name in the path is no UTF-8"))
    }
}

/// Returns a header that may occur at most once.
pub fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h HeaderValue>, Failure> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (_, Some(_)) => Err(Failure::bad(format!("the header `{name}` is there twice"))),
        (only, None) => Ok(only),
    }
}

/// Returns query parameters whose names may be any labels; a repeated name is refused.
pub fn free(uri: &axum::http::Uri) -> Result<BTreeMap<String, String>, Failure> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| Failure::bad(format!("the query cannot be read: {error}")))?;
    let mut found = BTreeMap::new();
    for (name, value) in pairs {
        if found.insert(name.clone(), value).is_some() {
            let name: String = name.chars().take(SHOWN_CHARS).collect();
            return Err(Failure::bad(format!("the query parameter `{name}` is there twice")));
        }
    }
    Ok(found)
}

/// Maximum number of characters of a name that a message repeats.
pub const SHOWN_CHARS: usize = 80;

/// Parses a time of a query: RFC 3339, epoch milliseconds, `now`, or a span before `now` such as `-24h`.
pub fn instant(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    if text == "now" {
        return Ok(now);
    }
    if let Some(span) = text.strip_prefix('-').and_then(|span| span.parse::<Span>().ok()) {
        return Ok(now - span);
    }
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    match text.parse::<i64>() {
        Ok(number) => time::of_number(number).map_err(|hint| Failure::bad(format!("`{shown}` {hint}"))),
        Err(_) => time::parse(text.as_bytes()).ok_or_else(|| {
            if let Ok(number) = text.parse::<f64>() {
                return Failure::bad(format!("`{shown}` {}", time::number_hint(number)));
            }
            let forms = "RFC 3339 such as 2026-11-01T00:00:00Z, epoch milliseconds, or -24h";
            Failure::bad(format!("`{shown}` is no time; times are {forms}"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Two {
        #[serde(rename = "state")]
        _state: Option<String>,
        #[serde(rename = "rule")]
        _rule: Option<String>,
    }

    fn read<T: DeserializeOwned>(uri: &str) -> Result<T, String> {
        let (mut parts, ()) =
            axum::http::Request::builder().uri(uri).body(()).expect("a request").into_parts();
        let found = futures_util::FutureExt::now_or_never(Params::<T>::from_request_parts(&mut parts, &()));
        found.expect("nothing is waited for").map(|Params(found)| found).map_err(|failure| failure.message)
    }

    #[test]
    fn an_unknown_parameter_is_refused_with_those_that_are_known() {
        assert!(read::<Two>("/?state=firing").is_ok());
        let said = read::<Two>("/?stat=firing").expect_err("unknown");
        assert!(said.starts_with("unknown query parameter `stat`") && said.contains("`rule`"), "{said}");
        assert!(read::<Two>("/?rule=a&rule=b").is_err());
        let said = read::<Empty>("/?x=1").expect_err("unknown");
        assert!(said.contains("`x`") && said.contains("none here"), "{said}");
    }

    #[test]
    fn times_are_absolute_or_before_now() {
        let now = Timestamp::clamped(1_793_491_200_000);
        let ms = |text| instant(text, now).map(|at| (at - now).ms()).map_err(|failure| failure.message);
        assert_eq!(ms("-24h"), Ok(-86_400_000));
        assert_eq!(ms("now"), Ok(0));
        assert_eq!(ms("1793491200001"), Ok(1));
        assert_eq!(ms("2026-11-01T00:00:00Z"), Ok(0));
        assert!(ms("1793491200").expect_err("seconds").contains("seconds"));
        assert!(ms("1793491200.25").expect_err("seconds").contains("seconds"));
        assert!(ms("yesterday").expect_err("a word").contains("-24h"));
    }
}
