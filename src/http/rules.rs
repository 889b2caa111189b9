//! The rules in force, and the documents that define them.

use super::asked::refused;
use super::params::{Empty, Named, Params};
use super::{Answer, App, Failure, REDIS, Shared, json_response};
use crate::core::rule::Rule;
use crate::core::{Engine, Inspect};
use crate::driver::ports::Views;
use crate::driver::rule_documents::{Change, Refusal};
use crate::pipeline::diagnostic::nearest;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) async fn rules<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    let seen = shared.ask_any(|engine| seen(engine)).await?;
    // Several partitions may have the same rule, so the rules are merged by id and their key counts are added.
    let mut all: BTreeMap<String, (usize, RuleView)> = BTreeMap::new();
    for rule in seen.into_iter().flatten() {
        let known = all.entry(rule.shown["id"].to_string()).or_insert_with(|| (0, rule.clone()));
        known.0 += rule.keys;
        if rule.missing.is_none() {
            known.1.missing = None;
        }
    }
    let names =
        |engine: &mut Inspect<'_>| engine.series().names(NAMES_LOOKED_AT).cloned().collect::<Vec<_>>();
    let names = shared.ask_any(names).await?.concat();
    let without = all.values().filter(|(keys, _)| *keys == 0).map(|(_, rule)| rule).enumerate();
    let unmatched =
        without.map(|(at, rule)| unmatched(rule, if at < NEAREST_MAX { &names[..] } else { &[] }));
    let remarks: Vec<String> = shared.rules_api.remarks().into_iter().chain(unmatched).collect();
    let rules = all.into_values().map(|(keys, mut rule)| {
        rule.shown["keys"] = json!(keys);
        rule.shown
    });
    let answer = json!({"rules": rules.collect::<Vec<Value>>(), "remarks": remarks});
    Ok(json_response(StatusCode::OK, answer.to_string()))
}

/// A rule as shown, the number of its keys, and the series it lacks.
#[derive(Clone)]
struct RuleView {
    shown: Value,
    keys: usize,
    /// The name of a series that the rule reads and no producer has sent.
    missing: Option<Arc<str>>,
}

/// Maximum number of series names per partition that are searched for one similar to a missing name.
const NAMES_LOOKED_AT: usize = 1_000;

/// Maximum number of rules for which a similar series name is searched. 50 × 1,000 comparisons take a few
/// milliseconds for each partition.
const NEAREST_MAX: usize = 50;

/// Returns the rules of one engine.
fn seen(engine: &Engine) -> Vec<RuleView> {
    let table = engine.series();
    let (rules, keys) = (&engine.rules().rules, engine.keys_seen());
    let seen = |(rule, keys): (&Rule, usize)| {
        let levels: BTreeMap<_, _> =
            rule.levels.iter().map(|level| (level.severity.name(), &level.threshold)).collect();
        let views = rule.views.iter().filter_map(|view| engine.rules().views.get(*view as usize));
        let shown = json!({"id": rule.id, "expr": rule.text, "levels": levels, "labels": rule.labels,
            "hash": rule.hash, "shadow": rule.is_shadow});
        let mut names = views.filter_map(|view| view.selector.name.clone());
        let missing = names.find(|name| table.metric_named(name).is_none());
        RuleView { shown, keys, missing: missing.filter(|_| keys == 0) }
    };
    rules.iter().zip(keys).map(seen).collect()
}

/// Returns the remark about a rule that has matched nothing so far, with the name that was probably meant.
fn unmatched(rule: &RuleView, names: &[Arc<str>]) -> String {
    let id = rule.shown["id"].as_str().unwrap_or("");
    let Some(missing) = &rule.missing else { return format!("rule `{id}` has matched nothing yet") };
    let said = format!("rule `{id}` has matched nothing yet: no series is called `{missing}`");
    match nearest(missing, names.iter().map(|name| &**name)) {
        Some(near) => format!("{said}; did you mean `{near}`?"),
        None => said,
    }
}

pub(crate) async fn documents<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    let book = shared.rules_api.book();
    let answer = json!({"rev": book.revision, "documents": book.documents});
    Ok(json_response(StatusCode::OK, answer.to_string()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Name {
    name: Option<String>,
}

/// Adds or replaces one rule, or a whole document if `?name=` is given.
pub(crate) async fn put<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Name { name }): Params<Name>,
    body: Bytes,
) -> Answer {
    if name.as_deref() == Some("") {
        return Err(Failure::bad("`name` is empty; a document has a name, by which it is removed"));
    }
    let text = std::str::from_utf8(&body).map_err(|_| Failure::bad("the body is no UTF-8"))?.to_string();
    change(&shared, Change::Put { name, text }).await
}

pub(crate) async fn remove<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Named(name): Named,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    change(&shared, Change::Remove { name }).await
}

async fn change<S: Views + Send + Sync + 'static>(shared: &Shared<S>, change: Change) -> Answer {
    if shared.owner_metrics.outages.is_away(REDIS) {
        // Documents are stored in Redis. During an outage of Redis the change fails at once instead of after a
        // timeout.
        return Err(shared.unavailable(""));
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // The receiver is closed if the client disconnected; the change stands.
    shared.rules_api.change(change, Box::new(move |result| drop(sender.send(result))));
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
        Refusal::TooLarge { .. } => Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message),
        Refusal::Away(_) => Failure::unavailable(message),
    }
}
