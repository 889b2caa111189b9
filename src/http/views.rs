//! Pipelines and refused events as JSON.

use super::params::{Empty, Params};
use super::{Answer, App, failed, json_response};
use crate::core::Engine;
use crate::driver::ports::Views;
use crate::wire::pipeline;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

/// Pipelines that an engine looks at between two records.
const PAGE_PIPELINES: usize = 32;

/// Pipelines that one answer may hold.
const PIPELINES_MAX: usize = 10_000;

/// Refused events that one answer may hold.
const DEAD_MAX: usize = 1_000;

pub async fn pipelines<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    let found = of_pipelines(&shared, pipeline::summaries).await?;
    Ok(json_response(StatusCode::OK, json!({ "pipelines": found }).to_string()))
}

pub async fn healths<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    let alerts = super::alerts::active(&shared).await?.concat();
    let mut found = of_pipelines(&shared, pipeline::healths).await?;
    found.iter_mut().for_each(|health| pipeline::name_alerts(health, &alerts));
    Ok(json_response(StatusCode::OK, json!({ "health": found }).to_string()))
}

/// Those first in which the most of a pipeline's time is spent, whichever partition it lives in.
pub async fn bottlenecks<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    let mut found = of_pipelines(&shared, pipeline::bottlenecks).await?;
    let share = |one: &Value| one["share"].as_f64().unwrap_or(0.0);
    found.sort_by(|a, b| share(b).total_cmp(&share(a)));
    Ok(json_response(StatusCode::OK, json!({ "bottlenecks": found }).to_string()))
}

/// What is to be said of some pipelines: those behind one, so many; and the last one looked at, if there are more.
type Read = fn(&Engine, Option<&str>, usize) -> (Vec<Value>, Option<Arc<str>>);

/// A pipeline lives in one partition, so what is told of each is told once.
async fn of_pipelines<S: Views + Send + Sync + 'static>(
    shared: &super::Shared<S>,
    read: Read,
) -> Result<Vec<Value>, super::Failure> {
    let (mut found, mut is_owned) = (Vec::new(), false);
    for place in 0..shared.partitions.len() {
        let (mut after, mut is_more) = (None::<Arc<str>>, true);
        while is_more && found.len() < PIPELINES_MAX {
            let from = after.clone();
            let page = move |engine: &mut Engine| read(engine, from.as_deref(), PAGE_PIPELINES);
            let Some((page, last)) = shared.ask_one(place, page).await else { break };
            is_owned = true;
            found.extend(page);
            (is_more, after) = (last.is_some(), last);
        }
    }
    match is_owned {
        true => Ok(found),
        false => Err(shared.unavailable("no partition is owned here, or the worker has stopped")),
    }
}

pub async fn dead<S: Views + Send + Sync + 'static>(
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
