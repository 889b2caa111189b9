//! The rules in force, and the documents they are made of.

use super::asked::refused;
use super::{Answer, App, Failure, json_response};
use crate::driver::book::{Change, Refusal};
use crate::driver::ports::Views;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub async fn rules<S: Views + Send + Sync + 'static>(State(shared): App<S>) -> Answer {
    let rules = shared.ask_any(|engine| {
        let rules = engine.rules().rules.iter();
        let rule = |rule: &crate::core::rule::Rule| {
            let levels: BTreeMap<_, _> =
                rule.levels.iter().map(|level| (level.severity.name(), &level.threshold)).collect();
            json!({"id": rule.id, "expr": rule.text, "levels": levels, "labels": rule.labels, "hash": rule.hash})
        };
        rules.map(rule).collect::<Vec<Value>>()
    });
    // Each partition has the same ones, and the aggregate those that span them.
    let mut all = BTreeMap::new();
    for rule in rules.await?.into_iter().flatten() {
        all.insert(rule["id"].to_string(), rule);
    }
    let rules: Vec<Value> = all.into_values().collect();
    let answer = json!({"rules": rules, "remarks": shared.desk.remarks()});
    Ok(json_response(StatusCode::OK, answer.to_string()))
}

pub async fn documents<S: Views + Send + Sync + 'static>(State(shared): App<S>) -> Answer {
    let book = shared.desk.book();
    let answer = json!({"rev": book.revision, "documents": book.documents});
    Ok(json_response(StatusCode::OK, answer.to_string()))
}

#[derive(Debug, Deserialize)]
pub struct Name {
    name: Option<String>,
}

/// One rule as JSON, or with `?name=` a whole document.
pub async fn put<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Query(Name { name }): Query<Name>,
    body: Bytes,
) -> Answer {
    let text = std::str::from_utf8(&body).map_err(|_| Failure::bad("the body is no UTF-8"))?.to_string();
    change(&*shared.desk, Change::Put { name, text }).await
}

pub async fn remove<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Path(name): Path<String>,
) -> Answer {
    change(&*shared.desk, Change::Remove { name }).await
}

async fn change(desk: &dyn crate::driver::book::Desk, change: Change) -> Answer {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // Nobody waits any more when the client went away; the change stands.
    desk.change(change, Box::new(move |result| drop(sender.send(result))));
    let result = receiver.await.map_err(|_| Failure::unavailable("the process is stopping"))?;
    match result {
        Ok(revision) => Ok(json_response(StatusCode::ACCEPTED, json!({ "rev": revision }).to_string())),
        Err(refusal) => Err(failure(refusal)),
    }
}

fn failure(refusal: Refusal) -> Failure {
    let message = refusal.to_string();
    match refusal {
        Refusal::Bad(wrong) => refused(wrong),
        Refusal::Unknown(_) => Failure::new(StatusCode::NOT_FOUND, "not_found", message),
        Refusal::File(_) | Refusal::Crossed => Failure::new(StatusCode::CONFLICT, "conflict", message),
        Refusal::Away(_) => Failure::unavailable(message),
    }
}
