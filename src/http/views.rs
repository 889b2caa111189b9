//! Pipelines and refused events as JSON.

use super::params::{Empty, Params};
use super::{Answer, App, failed, json_response};
use crate::core::{Engine, Inspect};
use crate::driver::ports::Views;
use crate::wire::pipeline::{self, Portion};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;

/// Pipelines and stages that one answer may hold: 32,000 × 250 B = 8 MB.
const ENTRIES_MAX: usize = 32_000;

/// Refused events that one answer may hold from each partition.
const DEAD_MAX: usize = 1_000;

pub(crate) async fn pipelines<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    let found = of_pipelines(&shared, pipeline::summaries).await?;
    Ok(listed("pipelines", found))
}

pub(crate) async fn healths<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    let alerts = super::alerts::active(&shared).await?.concat();
    let mut found = of_pipelines(&shared, pipeline::healths).await?;
    pipeline::name_alerts(&mut found.0, &alerts);
    Ok(listed("health", found))
}

/// Lists stages of all partitions, those with the largest share of their pipeline's time first.
pub(crate) async fn bottlenecks<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    let mut found = of_pipelines(&shared, pipeline::bottlenecks).await?;
    let share = |one: &Value| one["share"].as_f64().unwrap_or(0.0);
    found.0.sort_by(|a, b| share(b).total_cmp(&share(a)));
    Ok(listed("bottlenecks", found))
}

/// The entries found, and whether there are more.
type Found = (Vec<Value>, bool);

fn listed(name: &str, (found, is_cut): Found) -> Response {
    let mut answer = json!({ name: found });
    if is_cut {
        answer["truncated"] = json!(true);
    }
    json_response(StatusCode::OK, answer.to_string())
}

/// A function that reads one page of pipelines from an engine: those after a name, within a portion. It
/// returns the last name read if there are more.
type Read = fn(&Engine, Option<&str>, Portion) -> pipeline::Page;

/// Calls a page function on every engine until it returns the last page. A pipeline belongs to one partition, so no
/// pipeline is listed twice.
async fn of_pipelines<S: Views + Send + Sync + 'static>(
    shared: &super::Shared<S>,
    read: Read,
) -> Result<Found, super::Failure> {
    let (mut found, mut entries, mut is_owned, mut is_cut) = (Vec::new(), 0, false, false);
    for place in 0..shared.partitions.len() {
        let (mut after, mut is_more) = (None::<Arc<str>>, true);
        while is_more && !is_cut {
            let from = after.clone();
            let page = move |engine: &mut Inspect<'_>| read(engine, from.as_deref(), Portion::OF_A_QUESTION);
            let Some((page, last)) = shared.ask_one(place, page).await else {
                // The engine answered for earlier pages of this partition but no longer does, so the list is
                // incomplete.
                is_cut |= after.is_some();
                break;
            };
            is_owned = true;
            let here = page.iter().map(|one: &Value| one["stages"].as_array().map_or(1, |all| 1 + all.len()));
            entries += here.sum::<usize>();
            found.extend(page);
            (is_more, after) = (last.is_some(), last);
            is_cut = entries >= ENTRIES_MAX && (is_more || place + 1 < shared.partitions.len());
        }
    }
    match is_owned {
        true => Ok((found, is_cut)),
        false => Err(shared.unavailable("no partition is owned here, or the worker has stopped")),
    }
}

pub(crate) async fn dead<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    let stores = shared.clone();
    let read = move |_: &super::reads::Asker| {
        let mut dead = Vec::new();
        for partition in &stores.partitions {
            dead.extend(partition.store.dead(DEAD_MAX).map_err(failed)?);
        }
        Ok(dead)
    };
    let dead: Vec<Value> = shared
        .reads
        .run(read)
        .await?
        .iter()
        .map(|event| json!({"seq": event.seq, "index": event.index, "reason": event.reason.name(), "message": event.message, "more": event.more}))
        .collect();
    Ok(json_response(StatusCode::OK, json!({ "dead": dead }).to_string()))
}
