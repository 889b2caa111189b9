//! The HTTP client of the commands that ask a running service.

use super::cli::Format;
use super::stdout::{put, say};
use crate::wire::address::without_password;
use crate::wire::printable::printable;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::time::Duration;

/// Timeout of a request; a service that exceeds it counts as unreachable.
const PATIENCE: Duration = Duration::from_secs(10);

/// Returns the user name for a request: the stated one, or `$USER`.
pub(super) fn who(stated: &Option<String>) -> String {
    stated.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "unknown".into())
}

/// Percent-encodes a part of a path or query.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let one = |byte: u8| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build().into()
}

pub(super) fn get(url: &str, path: &str) -> Result<Value> {
    answer(url, agent().get(address(url, path)).header("authorization", bearer()).call())
}

/// Returns the status and the body of a response, even if the status is an error.
pub(super) fn text(url: &str, path: &str) -> Result<(u16, String)> {
    let response = agent().get(address(url, path)).header("authorization", bearer()).call();
    let mut response = response.with_context(|| unreachable_hint(url))?;
    Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
}

pub(super) fn post(url: &str, path: &str, body: &Value) -> Result<Value> {
    send(url, path, "application/json", body.to_string())
}

pub(super) fn delete(url: &str, path: &str) -> Result<Value> {
    answer(url, agent().delete(address(url, path)).header("authorization", bearer()).call())
}

pub(super) fn send(url: &str, path: &str, kind: &str, body: String) -> Result<Value> {
    let request = agent().post(address(url, path)).header("authorization", bearer());
    answer(url, request.header("content-type", kind).send(body))
}

/// Returns the address of a path. A service without a scheme, such as `localhost:9600`, is asked over HTTP.
fn address(url: &str, path: &str) -> String {
    let scheme = if url.contains("://") { "" } else { "http://" };
    format!("{scheme}{}{path}", url.trim_end_matches('/'))
}

fn answer(url: &str, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value> {
    let mut response = response.with_context(|| unreachable_hint(url))?;
    read(response.status().as_u16(), &response.body_mut().read_to_string()?)
}

fn bearer() -> String {
    format!("Bearer {}", std::env::var("STREAMGAUGE_TOKEN").unwrap_or_default())
}

fn unreachable_hint(url: &str) -> String {
    let url = without_password(url);
    format!("cannot reach {url}; is `streamgauge run` there? Say where with --url or STREAMGAUGE_URL")
}

fn read(status: u16, body: &str) -> Result<Value> {
    let value: Value = serde_json::from_str(body).context("the answer is no JSON; is this a streamgauge?")?;
    if status >= 400 {
        bail!("{}", value["error"]["message"].as_str().unwrap_or("the request was refused"));
    }
    Ok(value)
}

/// Prints rows as JSON or as a table. In a table, control characters of untrusted text are escaped.
pub(super) fn print(format: &Format, rows: &Value, columns: &[&str]) -> Result<()> {
    if *format == Format::Json {
        return say(rows);
    }
    let cell = |row: &Value, column: &str| match &row[column] {
        Value::String(text) => printable(text).into_owned(),
        other => printable(&other.to_string()).into_owned(),
    };
    let rows: Vec<Vec<String>> = rows
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| columns.iter().map(|column| cell(row, column)).collect())
        .collect();
    let width = |at: usize| {
        let cells = rows.iter().map(|row: &Vec<String>| row[at].chars().count());
        cells.chain([columns[at].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let head = line(columns.to_vec());
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    put(head + &body.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_without_a_scheme_is_asked_over_http() {
        let addresses = ["localhost:9600", "http://localhost:9600/", "https://gauge.example"];
        let expected = ["http://localhost:9600/a", "http://localhost:9600/a", "https://gauge.example/a"];
        assert_eq!(addresses.map(|url| address(url, "/a")), expected);
    }
}
