//! Receivers: their state, and the redelivery of their dead letters.

use super::params::{Empty, Named, Params};
use super::{Answer, App, Failure, json_response};
use crate::driver::ports::Views;
use crate::driver::receivers::RedriveError;
use crate::driver::receivers::metrics::ReceiverMetrics;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

pub(crate) async fn receivers<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    let receivers: Vec<Value> = shared.registry.receivers().map(shown).collect();
    Ok(json_response(StatusCode::OK, json!({ "receivers": receivers }).to_string()))
}

fn shown(post: &ReceiverMetrics) -> Value {
    json!({
        "name": post.name,
        "delivers_here": post.is_here.get() > 0,
        "circuit": if post.is_open.get() > 0 { "open" } else { "closed" },
        "delivered": post.delivered.get(),
        "retried": post.retried.get(),
        "given_up": post.given_up.get(),
        "letters": post.letters.get(),
        "following": post.following.get(),
        "waiting": post.waiting.get(),
    })
}

/// Delivers the dead letters of a receiver again.
pub(crate) async fn redrive<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Named(name): Named,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    let registry = shared.registry.clone();
    let asked = tokio::task::spawn_blocking(move || registry.redrive(&name)).await;
    match asked {
        Ok(Ok(messages)) => Ok(json_response(StatusCode::OK, json!({ "messages": messages }).to_string())),
        Ok(Err(error @ RedriveError::Unknown(..))) => {
            Err(Failure::new(StatusCode::NOT_FOUND, "not_found", error.to_string()))
        }
        Ok(Err(error @ RedriveError::Elsewhere(_))) => {
            Err(Failure::new(StatusCode::CONFLICT, "elsewhere", error.to_string()))
        }
        Ok(Err(error)) => Err(Failure::unavailable(error.to_string())),
        Err(_) => Err(Failure::unavailable("the request was dropped")),
    }
}
