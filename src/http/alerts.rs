//! Alerts as JSON: the active ones, those that are over, the whole log.
//!
//! Intuition: active alerts are asked of the engine a few rules at a time; the log is read a page at a time, newest
//! first where only a part of it is wanted, and sent as it is read where all of it is.

use super::json_response;
use super::params::{self, Empty, Params};
use super::reads::Asker;
use super::{Answer, App, Failure, Shared, failed};
use crate::core::alert::Transition;
use crate::core::alert::transition::State as AlertState;
use crate::driver::ports::Views;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// Alerts that an engine shows between two records; each is evaluated once.
const PAGE_ALERTS: usize = 100;

/// Alerts that one answer may hold: 5,000 × about 1.5 KiB.
const ALERTS_MAX: usize = 5_000;

/// Transitions read at once.
const PAGE_TRANSITIONS: usize = 500;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertQuery {
    state: Option<String>,
    rule: Option<String>,
    /// Those of `shadow: true` rules instead.
    #[serde(default)]
    shadow: bool,
    limit: Option<usize>,
}

pub async fn alerts<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(query): Params<AlertQuery>,
) -> Answer {
    let state = query.state.map(|state| serde_json::from_value::<AlertState>(json!(state)));
    let state = state
        .transpose()
        .map_err(|_| Failure::bad("state is pending, firing, acknowledged, escalated, resolved or stale"))?;
    let limit = params::limit(query.limit, ALERTS_MAX)?;
    let is_over = matches!(state, Some(AlertState::Resolved | AlertState::Stale));
    let rule = query.rule;
    let is_wanted = move |alert: &Transition| {
        state.is_none_or(|state| alert.state == state)
            && rule.as_ref().is_none_or(|rule| *alert.rule == **rule)
    };
    let mut alerts = match (is_over, query.shadow) {
        (true, _) => {
            let stores = shared.clone();
            shared.reads.run(move |asker| newest(&stores, limit, &is_wanted, asker)).await?
        }
        (false, is_shadow) => {
            let active = active_of(&shared, is_shadow).await?;
            active.into_iter().flatten().filter(is_wanted).collect()
        }
    };
    let is_cut = alerts.len() > limit;
    alerts.truncate(limit);
    let mut answer = json!({ "alerts": alerts });
    if is_cut {
        answer["truncated"] = json!(true);
    }
    Ok(json_response(StatusCode::OK, answer.to_string()))
}

/// The active alerts of each partition: of the engine here, else as its owner showed them last.
pub(super) async fn active<S: Views + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
) -> Result<Vec<Vec<Transition>>, Failure> {
    active_of(shared, false).await
}

async fn active_of<S: Views + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    is_shadow: bool,
) -> Result<Vec<Vec<Transition>>, Failure> {
    let mut all = Vec::with_capacity(shared.partitions.len());
    for place in 0..shared.partitions.len() {
        all.push(match live(shared, place, is_shadow).await {
            Some(live) => live,
            None if is_shadow => Vec::new(),
            None => {
                let stores = shared.clone();
                shared.reads.run(move |_| shown(&stores, place)).await?
            }
        });
    }
    Ok(all)
}

/// Of the engine of one partition, where it is here.
async fn live<S: Views + Send + Sync + 'static>(
    shared: &Shared<S>,
    place: usize,
    is_shadow: bool,
) -> Option<Vec<Transition>> {
    let (mut all, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let page = move |engine: &mut crate::core::Engine| engine.active_page(from, is_shadow, PAGE_ALERTS);
        let (page, behind) = shared.ask_one(place, page).await?;
        all.extend(page);
        next = behind.filter(|_| all.len() <= ALERTS_MAX);
    }
    Some(all)
}

fn shown<S: Views>(shared: &Shared<S>, place: usize) -> Result<Vec<Transition>, Failure> {
    let shown = shared.partitions[place].store.active().map_err(failed)?;
    Ok(shown.iter().filter_map(|json| serde_json::from_str(json).ok()).collect())
}

/// The newest transitions that are wanted, the oldest of them first.
fn newest<S: Views>(
    shared: &Shared<S>,
    max: usize,
    is_wanted: &dyn Fn(&Transition) -> bool,
    asker: &Asker,
) -> Result<Vec<Transition>, Failure> {
    let mut found = Vec::new();
    backwards(shared, asker, &mut |transition| {
        if is_wanted(&transition) {
            found.push(transition);
        }
        found.len() <= max
    })?;
    found.reverse();
    Ok(found)
}

/// Gives each transition to `take`, the newest of a partition first, until it wants no more.
pub(super) fn backwards<S: Views>(
    shared: &Shared<S>,
    asker: &Asker,
    take: &mut dyn FnMut(Transition) -> bool,
) -> Result<(), Failure> {
    for partition in &shared.partitions {
        let mut before = u64::MAX;
        loop {
            asker.still_waits()?;
            let page = partition.store.transitions_before(before, PAGE_TRANSITIONS).map_err(failed)?;
            let Some((oldest, _)) = page.last() else { break };
            before = *oldest;
            for (_, json) in &page {
                if let Ok(transition) = serde_json::from_str(json)
                    && !take(transition)
                {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// The alert log as NDJSON, oldest first: every transition, as published; sent as it is read.
pub async fn alert_log<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    let first = page_of(&shared, Some((0, 0))).await?;
    let begun = futures_util::stream::iter([Ok::<Bytes, Failure>(first.0)]);
    let rest = futures_util::stream::try_unfold((shared, first.1), |(shared, next)| async move {
        if next.is_none() {
            return Ok(None);
        }
        let (text, next) = page_of(&shared, next).await?;
        Ok::<_, Failure>(Some((text, (shared, next))))
    });
    let body = futures_util::StreamExt::chain(begun, rest);
    let body = futures_util::TryStreamExt::map_err(body, |failure| std::io::Error::other(failure.message));
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((headers, Body::from_stream(body)).into_response())
}

/// The place of a partition, and the number of its transition from which on to read.
type LogPlace = Option<(usize, u64)>;

async fn page_of<S: Views + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    from: LogPlace,
) -> Result<(Bytes, LogPlace), Failure> {
    let Some((place, number)) = from else { return Ok((Bytes::new(), None)) };
    let stores = shared.clone();
    let read = move |_: &Asker| {
        let Some(partition) = stores.partitions.get(place) else { return Ok((Bytes::new(), None)) };
        let page = partition.store.transitions(number, PAGE_TRANSITIONS).map_err(failed)?;
        let next = match page.last() {
            Some((newest, _)) => (place, newest + 1),
            None => (place + 1, 0),
        };
        let lines: String = page.into_iter().map(|(_, line)| line + "\n").collect();
        Ok((Bytes::from(lines), Some(next).filter(|(place, _)| *place < stores.partitions.len())))
    };
    shared.reads.run(read).await
}
