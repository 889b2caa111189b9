//! Alerts as JSON: active alerts, ended alerts and the whole alert log.
//!
//! Intuition: active alerts are read from the engine in pages. The alert log is read from the store in pages. A query
//! that needs only a part of the log reads the newest transitions first. The whole log is streamed, oldest first.

use super::json_response;
use super::params::{self, Empty, Params};
use super::reads::Asker;
use super::{Answer, App, Failure, Shared, failed};
use crate::core::alert::Transition;
use crate::core::alert::transition::State as AlertState;
use crate::driver::ports::Views;
use crate::wire;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// A page of an engine ends after the rule with which it reaches this many alerts. The engine builds a page between
/// two records of its log.
const PAGE_ALERTS: usize = 100;

/// Maximum number of alerts in one answer: 5,000 × about 1.5 KiB.
const ALERTS_MAX: usize = 5_000;

/// Size in bytes at which an answer takes no further alert. The last alert may exceed it.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Maximum number of transitions in one read from a store.
const PAGE_TRANSITIONS: usize = 500;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlertQuery {
    state: Option<String>,
    rule: Option<String>,
    /// List the alerts of `shadow: true` rules instead.
    #[serde(default)]
    shadow: bool,
    limit: Option<usize>,
}

pub(crate) async fn alerts<S: Views + Send + Sync + 'static>(
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
    let mut list = List { limit, ..List::default() };
    match (is_over, query.shadow) {
        (true, _) => {
            let stores = shared.clone();
            let found = shared.reads.run(move |asker| newest(&stores, limit, &is_wanted, asker)).await?;
            found.iter().all(|alert| list.add(alert));
        }
        (false, is_shadow) => {
            for place in 0..shared.partitions.len() {
                active_at(&shared, place, is_shadow, |alert| !is_wanted(alert) || list.add(alert)).await?;
            }
        }
    }
    Ok(json_response(StatusCode::OK, list.text()))
}

/// The alerts of an answer as JSON, bounded by the requested limit and by [`ANSWER_BYTES_MAX`].
#[derive(Debug, Default)]
struct List {
    limit: usize,
    alerts: Vec<String>,
    bytes: usize,
    is_cut: bool,
}

impl List {
    /// Adds an alert. Returns false if there is no room for it.
    fn add(&mut self, alert: &Transition) -> bool {
        if self.alerts.len() >= self.limit || self.bytes >= ANSWER_BYTES_MAX {
            self.is_cut = true;
            return false;
        }
        let text = wire::alert::line(alert);
        self.bytes += text.len();
        self.alerts.push(text);
        true
    }

    fn text(self) -> String {
        let truncated = if self.is_cut { ",\"truncated\":true" } else { "" };
        format!("{{\"alerts\":[{}]{truncated}}}", self.alerts.join(","))
    }
}

/// Returns the active alerts of each partition: from the engine if it runs in this process, else from the
/// view that the owner stored last.
pub(super) async fn active<S: Views + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
) -> Result<Vec<Vec<Transition>>, Failure> {
    let mut all = Vec::with_capacity(shared.partitions.len());
    for place in 0..shared.partitions.len() {
        let mut of_one = Vec::new();
        active_at(shared, place, false, |alert| {
            of_one.push(alert.clone());
            of_one.len() <= ALERTS_MAX
        })
        .await?;
        all.push(of_one);
    }
    Ok(all)
}

/// Passes each active alert of one partition to `take`, until `take` returns false.
async fn active_at<S: Views + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    place: usize,
    is_shadow: bool,
    mut take: impl FnMut(&Transition) -> bool,
) -> Result<(), Failure> {
    let mut next = Some(0);
    while let Some(from) = next {
        let page =
            move |engine: &mut crate::core::Inspect<'_>| engine.active_page(from, is_shadow, PAGE_ALERTS);
        let Some((page, behind)) = shared.ask_one(place, page).await else {
            if from > 0 {
                return Err(Failure::again("the partition changed its owner during the request; ask again"));
            }
            return shown_at(shared, place, is_shadow, take).await;
        };
        if !page.iter().all(&mut take) {
            return Ok(());
        }
        next = behind;
    }
    Ok(())
}

/// Passes the active alerts that the partition's owner wrote to the store last to `take`. The owner does not write
/// the alerts of shadow rules.
async fn shown_at<S: Views + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    place: usize,
    is_shadow: bool,
    take: impl FnMut(&Transition) -> bool,
) -> Result<(), Failure> {
    if !is_shadow {
        let stores = shared.clone();
        let shown = shared.reads.run(move |_| shown(&stores, place)).await?;
        shown.iter().all(take);
    }
    Ok(())
}

fn shown<S: Views>(shared: &Shared<S>, place: usize) -> Result<Vec<Transition>, Failure> {
    let shown = shared.partitions[place].store.active().map_err(failed)?;
    Ok(shown.iter().filter_map(|json| serde_json::from_str(json).ok()).collect())
}

/// Returns the newest wanted transitions, oldest first.
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

/// Passes transitions to `take`, newest first within each partition, until `take` returns false.
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

/// Streams the alert log as NDJSON, oldest first: every transition as it was published.
pub(crate) async fn alert_log<S: Views + Send + Sync + 'static>(
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

/// The index of a partition and the number of the first transition to read there.
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
