//! Middleware around the routes: admission, reading the body, the budget of the answer, the audit log.
//!
//! Invariant: a handler runs only for an admitted request whose body is complete.

use super::access::{Access, Caller, Denied};
use super::budget::{Budget, discard};
use super::connections::Connection;
use super::{Failure, json_response};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Maximum size of a request body in bytes. A payload has at most 1 MiB. A larger body up to this size is still read,
/// so that the refusal can state the reason.
pub(crate) const BODY_BYTES_MAX: usize = 2 << 20;

/// Checks tokens and roles, for every transport.
pub(crate) fn with_roles(router: Router, access: Arc<Access>) -> Router {
    router.layer(from_fn(move |mut request: Request, next: Next| {
        let access = access.clone();
        async move {
            match access.admit(request.method(), request.uri().path(), request.headers()) {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    next.run(request).await
                }
                Err(denied) => refused(&denied),
            }
        }
    }))
}

/// Checks the origin and bounds bodies and answers, for requests that arrive over a socket.
pub(crate) fn with_limits(router: Router, access: Arc<Access>, budget: Budget) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let (access, budget) = (access.clone(), budget.clone());
        async move {
            if let Err(denied) = access.admit_origin(request.headers(), request.uri()) {
                let response = refused(&denied);
                if !request.headers().contains_key(header::EXPECT) {
                    discard(request.into_body()).await;
                }
                return response;
            }
            let connection = request.extensions().get::<Arc<Connection>>().cloned();
            let (parts, body) = request.into_parts();
            let read = match parts.method {
                Method::GET | Method::HEAD => Ok(Default::default()),
                _ => {
                    let is_asking_first = parts.headers.contains_key(header::EXPECT);
                    budget.read(body, BODY_BYTES_MAX, connection.as_deref(), is_asking_first).await
                }
            };
            let (body, held) = match read {
                Ok(read) => read,
                Err(failure) => return failure.into_response(),
            };
            connection.inspect(|connection| connection.work());
            // A handler may continue with the body after the client has disconnected. It therefore shares the body's
            // part of the budget.
            let (held, mut request) = (Arc::new(held), Request::from_parts(parts, Body::from(body)));
            request.extensions_mut().insert(held.clone());
            let response = next.run(request).await;
            drop(held);
            budget.answer(response).await
        }
    }))
}

fn refused(denied: &Denied) -> Response {
    let (status, code) = match denied {
        Denied::NoHost => (StatusCode::BAD_REQUEST, "bad_request"),
        Denied::Host(_) => (StatusCode::FORBIDDEN, "foreign_host"),
        Denied::Origin(_) => (StatusCode::FORBIDDEN, "foreign_origin"),
        Denied::NoToken => (StatusCode::UNAUTHORIZED, "unauthorized"),
        Denied::Role { .. } => (StatusCode::FORBIDDEN, "forbidden"),
    };
    let response = Failure::new(status, code, denied.to_string()).into_response();
    match denied {
        Denied::NoToken => ([(header::WWW_AUTHENTICATE, "Bearer")], response).into_response(),
        _ => response,
    }
}

/// Requires document media types for changes. An HTML form of a foreign page cannot send these types.
pub(crate) async fn documents_only(request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE);
    let is_empty = hyper::body::Body::size_hint(request.body()).exact() == Some(0);
    if is_read || is_empty || is_document(request.headers()) {
        return next.run(request).await;
    }
    let message = "send this with `Content-Type: application/json`, or application/yaml";
    Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message).into_response()
}

fn is_document(headers: &HeaderMap) -> bool {
    let stated = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = stated.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    matches!(
        essence.as_str(),
        "application/json" | "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml"
    )
}

/// Writes each change to the audit log: the caller, the request and the resulting status.
pub(crate) async fn audited(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let caller = request.extensions().get::<Caller>().and_then(|caller| caller.name.clone());
    let peer = request.extensions().get::<Arc<Connection>>().map(|connection| connection.peer.to_string());
    let (method, path) = (request.method().clone(), request.uri().clone());
    let response = next.run(request).await;
    let status = response.status().as_u16();
    tracing::info!(
        target: "audit",
        caller = caller.as_deref().unwrap_or("-"), peer = peer.as_deref().unwrap_or("nats"),
        %method, path = %crate::wire::printable::printable(&path.to_string()), status, "change requested"
    );
    response
}

/// Answers a request whose path is served with other methods only.
pub(crate) async fn other_method(request: Request) -> Response {
    let message = format!("`{}` is not served at this path; /openapi.json says what is", request.method());
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).into_response()
}

/// Answers a request for an unknown path.
pub(crate) async fn nothing() -> Response {
    let failure = Failure::new(StatusCode::NOT_FOUND, "not_found", "no such path; see /openapi.json");
    json_response(failure.status, failure.body())
}
