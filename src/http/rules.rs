//! The rules in force, and the documents they are made of.

use super::asked::refused;
use super::{Answer, App, Failure, json_response};
use crate::core::Engine;
use crate::core::rule::Rule;
use crate::driver::book::{Change, Refusal};
use crate::driver::ports::Views;
use crate::pipeline::diagnostic::nearest;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub async fn rules<S: Views + Send + Sync + 'static>(State(shared): App<S>) -> Answer {
    let seen = shared.ask_any(|engine| seen(engine)).await?;
    let names: BTreeSet<Arc<str>> = seen.iter().flat_map(|(_, names)| names.iter().cloned()).collect();
    // Each partition has the same ones, and the aggregate those that span them.
    let mut all: BTreeMap<String, (usize, Seen)> = BTreeMap::new();
    for rule in seen.into_iter().flat_map(|(rules, _)| rules) {
        let known = all.entry(rule.shown["id"].to_string()).or_insert_with(|| (0, rule.clone()));
        known.0 += rule.keys;
    }
    let unmatched = all.values().filter(|(keys, _)| *keys == 0).map(|(_, rule)| unmatched(rule, &names));
    let remarks: Vec<String> = shared.desk.remarks().into_iter().chain(unmatched).collect();
    let rules = all.into_values().map(|(keys, mut rule)| {
        rule.shown["keys"] = json!(keys);
        rule.shown
    });
    let answer = json!({"rules": rules.collect::<Vec<Value>>(), "remarks": remarks});
    Ok(json_response(StatusCode::OK, answer.to_string()))
}

/// A rule as it is shown, and what it reads.
#[derive(Clone)]
struct Seen {
    shown: Value,
    keys: usize,
    names: Vec<Arc<str>>,
}

/// The rules of one engine, and the names of its series.
fn seen(engine: &Engine) -> (Vec<Seen>, BTreeSet<Arc<str>>) {
    let (rules, keys) = (&engine.rules().rules, engine.keys_seen());
    let seen = |(rule, keys): (&Rule, usize)| {
        let levels: BTreeMap<_, _> =
            rule.levels.iter().map(|level| (level.severity.name(), &level.threshold)).collect();
        let views = rule.views.iter().filter_map(|view| engine.rules().views.get(*view as usize));
        let shown = json!({"id": rule.id, "expr": rule.text, "levels": levels, "labels": rule.labels,
            "hash": rule.hash, "shadow": rule.is_shadow});
        Seen { shown, keys, names: views.filter_map(|view| view.selector.name.clone()).collect() }
    };
    (rules.iter().zip(keys).map(seen).collect(), engine.series_names())
}

/// A rule that has matched nothing so far, with the name that was probably meant.
fn unmatched(rule: &Seen, names: &BTreeSet<Arc<str>>) -> String {
    let id = rule.shown["id"].as_str().unwrap_or("");
    let missing = rule.names.iter().find(|name| !names.contains(*name));
    let near = missing.and_then(|name| nearest(name, names.iter().map(|name| &**name)));
    match (missing, near) {
        (Some(missing), Some(near)) => {
            format!(
                "rule `{id}` has matched nothing yet: no series is called `{missing}`; did you mean `{near}`?"
            )
        }
        (Some(missing), None) => {
            format!("rule `{id}` has matched nothing yet: no series is called `{missing}`")
        }
        _ => format!("rule `{id}` has matched nothing yet"),
    }
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
