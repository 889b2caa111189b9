//! The API for transports other than HTTP: an operation is called by its name.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, header};
use tower_service::Service;

/// Operations: name, method, path. The body of a request holds the query of a GET, such as
/// `rule=x&state=firing`, or the end of the path of a DELETE, such as `s-1?by=ann`.
const OPERATIONS: [(&str, Method, &str); 18] = [
    ("ack", Method::POST, "/api/v1/alerts/ack"),
    ("alerts", Method::GET, "/api/v1/alerts"),
    ("dead", Method::GET, "/api/v1/dead"),
    ("events", Method::POST, "/api/v1/events"),
    ("explain", Method::GET, "/api/v1/explain"),
    ("maintenance", Method::GET, "/api/v1/maintenance"),
    ("maintenance-add", Method::POST, "/api/v1/maintenance"),
    ("maintenance-end", Method::DELETE, "/api/v1/maintenance/"),
    ("maintenance-preview", Method::POST, "/api/v1/maintenance/preview"),
    ("pipelines", Method::GET, "/api/v1/pipelines"),
    ("ready", Method::GET, "/readyz"),
    ("rules", Method::GET, "/api/v1/rules"),
    ("rules-add", Method::POST, "/api/v1/rules"),
    ("series", Method::GET, "/api/v1/series"),
    ("silence-add", Method::POST, "/api/v1/silences"),
    ("silence-expire", Method::DELETE, "/api/v1/silences/"),
    ("silences", Method::GET, "/api/v1/silences"),
    ("windows", Method::GET, "/api/v1/windows"),
];

/// Maximum size of an answer in bytes; NATS accepts no message over 1 MiB by default.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A request: its body, and the value of its `Authorization` header if it has one.
#[derive(Debug, Default)]
pub(crate) struct OperatorRequest {
    pub body: Vec<u8>,
    pub authorization: Option<String>,
}

/// Maximum size of a request body in bytes, as for HTTP.
const QUESTION_BYTES_MAX: usize = super::guard::BODY_BYTES_MAX;

/// Returns the names of all operations.
pub(crate) fn names() -> Vec<&'static str> {
    OPERATIONS.iter().map(|(name, ..)| *name).collect()
}

/// Runs an operation. A failure is returned as an HTTP status code and a message.
pub(crate) async fn operate(
    mut router: Router,
    name: &str,
    asked: OperatorRequest,
) -> Result<Vec<u8>, (u16, String)> {
    let OperatorRequest { body, authorization } = asked;
    let unknown = || (404, format!("there is no operation `{name}`"));
    let (_, method, path) = OPERATIONS.iter().find(|(known, ..)| *known == name).ok_or_else(unknown)?;
    if body.len() > QUESTION_BYTES_MAX {
        return Err((413, "the request is too large; ask for less".into()));
    }
    let text = String::from_utf8_lossy(&body);
    let (uri, body) = match *method {
        Method::DELETE => (format!("{path}{text}"), Vec::new()),
        Method::GET if !body.is_empty() => (format!("{path}?{text}"), Vec::new()),
        _ => (path.to_string(), body),
    };
    let request = Request::builder().method(method).uri(uri);
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let request = authorization
        .into_iter()
        .fold(request, |request, value| request.header(header::AUTHORIZATION, value));
    let request = request.body(Body::from(body));
    let request = request.map_err(|error| (400, error.to_string()))?;
    // The router's error type is `Infallible`.
    let response = router.call(request).await.map_err(|never| (500, never.to_string()))?;
    let (status, body) = (response.status(), response.into_body());
    let answer = to_bytes(body, ANSWER_BYTES_MAX).await;
    let answer = answer.map_err(|_| (413, "the answer is too large; ask for less".to_string()))?.to_vec();
    match status.is_success() {
        true => Ok(answer),
        false => Err((status.as_u16(), reason(&answer))),
    }
}

/// Returns the message of a [`super::Failure`], else the whole answer.
fn reason(answer: &[u8]) -> String {
    let found: Option<serde_json::Value> = serde_json::from_slice(answer).ok();
    let message = found.as_ref().and_then(|found| found["error"]["message"].as_str());
    message.map_or_else(|| String::from_utf8_lossy(answer).into_owned(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Failure;

    #[test]
    fn a_failure_is_told_by_its_message() {
        assert_eq!(reason(Failure::bad("no such rule").body().as_bytes()), "no such rule");
        assert_eq!(reason(b"nonsense"), "nonsense");
    }
}
