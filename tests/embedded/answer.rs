//! HTTP requests and their answers: status, headers, body and duration.

use serde_json::Value;
use std::time::{Duration, Instant};

/// A server that does not answer within this time fails its test.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer with any status.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    /// Retry-After in seconds, as sent.
    pub retry_after: Option<String>,
    pub took: Duration,
}

impl Answer {
    /// Returns the body, or null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// Returns the message of an error.
    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or("").to_string()
    }
}

/// Sends one request, with headers as pairs of name and value.
pub fn ask(method: &str, url: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let request = ureq::http::Request::builder().method(method).uri(url);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let begun = Instant::now();
    let sent = match body {
        Some(body) => agent.run(request.body(body.to_string()).expect("a request")),
        None => agent.run(request.body(()).expect("a request")),
    };
    let mut response = sent.unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let body = response.body_mut().read_to_string().expect("a body");
    let took = begun.elapsed();
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_string);
    Answer { status: response.status().as_u16(), body, retry_after, took }
}

pub fn get(url: &str) -> Answer {
    ask("GET", url, &[], None)
}

/// Posts a JSON document.
pub fn post(url: &str, body: &str) -> Answer {
    ask("POST", url, &[("content-type", "application/json")], Some(body))
}

/// Repeats a request a few times until its answer comes within `within`. A busy machine is slow once, a
/// service that waits is slow each time.
pub fn quickly(within: Duration, ask: impl Fn() -> Answer) -> Answer {
    const ATTEMPTS: usize = 4;
    let mut answer = ask();
    for _ in 1..ATTEMPTS {
        if answer.took <= within {
            break;
        }
        answer = ask();
    }
    assert!(answer.took <= within, "{within:?} are not enough: {answer:?}");
    answer
}
