//! Series, windows, alerts, rules and pipelines as JSON.

use super::{Answer, App, Failure, Shared, json_response};
use crate::core::alert::Transition;
use crate::core::alert::transition::State as AlertState;
use crate::core::series::SeriesInfo;
use crate::core::window::{WindowKey, WindowSize};
use crate::core::{Engine, Span, Timestamp};
use crate::driver::ports::{CatalogRow, Views};
use crate::wire::pipeline;
use crate::wire::row::Row;
use crate::wire::time;
use crate::wire::window::WindowView;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Windows that one answer may hold.
const WINDOWS_MAX: usize = 10_000;

/// Series that one answer may hold.
const SERIES_MAX: usize = 10_000;

#[derive(Debug, Deserialize)]
pub struct SeriesQuery {
    #[serde(rename = "match")]
    matches: Option<String>,
}

pub async fn series<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Query(query): Query<SeriesQuery>,
) -> Answer {
    let selector = query.matches.as_deref().map(selector).transpose()?;
    let rows = all_series(&shared).await?;
    let found = rows.iter().map(|(_, row)| row);
    let found = found.filter(|row| selector.as_ref().is_none_or(|s| s.is_match(&row.series)));
    let found: Vec<Value> = found.take(SERIES_MAX).map(series_json).collect();
    Ok(json_response(StatusCode::OK, json!({ "series": found }).to_string()))
}

fn series_json(row: &CatalogRow) -> Value {
    let labels: BTreeMap<_, _> = row.series.labels.iter().map(|(k, v)| (k, v)).collect();
    json!({"id": format!("{:016x}", row.series.id), "source": row.series.source, "name": row.series.name,
        "unit": row.unit, "labels": labels})
}

fn selector(text: &str) -> Result<crate::core::selector::Selector, Failure> {
    use crate::pipeline::expr::parse::TermKind;
    let parsed = crate::pipeline::expr::parse::parse(text).map_err(|error| Failure::bad(error.message))?;
    let TermKind::Selector(term) = parsed.term.kind else {
        return Err(Failure::bad("match is a selector, such as latency_ms{source=\"checkout\"}"));
    };
    crate::pipeline::expr::check::selector_of(&term).map_err(|error| Failure::bad(error.message))
}

/// A series and the place of its partition.
type Found = (usize, CatalogRow);

/// Series that live in an engine here and those that only a catalog knows, by id.
async fn all_series<S: Views + Send + Sync + 'static>(shared: &Shared<S>) -> Result<Vec<Found>, Failure> {
    let live = shared.ask_each(|engine| {
        let table = engine.series();
        let row = |series: &crate::core::series::Series| {
            let metric = table.metric_of(series);
            CatalogRow { series: series.info.clone(), unit: metric.unit.clone(), shape: metric.shape }
        };
        // What stands for the partials of others is no series of anybody.
        let series = table.iter().filter(|(_, series)| !series.info.is_partial());
        series.map(|(_, series)| row(series)).collect::<Vec<_>>()
    });
    let live = live.await;
    let mut rows = BTreeMap::new();
    for (place, (partition, live)) in shared.partitions.iter().zip(live).enumerate() {
        let catalog = partition.store.catalog().map_err(failed)?;
        for row in catalog.into_iter().chain(live.into_iter().flatten()) {
            rows.insert(row.series.id, (place, row));
        }
    }
    Ok(rows.into_values().collect())
}

pub(super) fn failed(error: crate::driver::ports::PortError) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "store", crate::driver::worker::chain(&error))
}

/// Windows of one series, or of all that the labels match.
pub async fn windows<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    let asked = WindowQuery::parse(query)?;
    let rows = all_series(&shared).await?;
    let found: Vec<Found> = rows.into_iter().filter(|(_, row)| asked.is_match(&row.series)).collect();
    let now = shared.ask_each(|engine| engine.now()).await.into_iter().flatten().max();
    let to = asked.to.unwrap_or(now.unwrap_or_else(shared.now) + Span::from_mins(10));
    let from = asked.from.unwrap_or(to - asked.size.span() * WINDOWS_DEFAULT);
    let (ids, size) = (found.iter().map(|(_, row)| row.series.id).collect::<Vec<_>>(), asked.size);
    let live = shared.ask_each(move |engine| open_windows(engine, &ids, size, from, to)).await;
    let mut windows = Vec::new();
    for (place, row) in &found {
        // An owner in this process knows its open windows better than the store.
        let is_owned = live[*place].is_some();
        let stored = shared.partitions[*place].store.shown(row, size, from, to).map_err(failed)?;
        let stored = stored.into_iter().filter(|(_, row)| !(row.open && is_owned));
        windows.extend(stored.map(|(start, shown)| (key(row, size, start), shown)));
        if windows.len() >= WINDOWS_MAX {
            break;
        }
    }
    windows.extend(live.into_iter().flatten().flatten());
    windows.truncate(WINDOWS_MAX);
    let windows: Vec<WindowView<'_>> =
        windows.iter().map(|(key, row)| WindowView::of_row(key, row)).collect();
    Ok(json_response(StatusCode::OK, json!({ "windows": windows }).to_string()))
}

/// Windows looked back when no `from` is given.
const WINDOWS_DEFAULT: i64 = 60;

fn key(row: &CatalogRow, size: WindowSize, start: Timestamp) -> WindowKey {
    let (series, unit, shape) = (row.series.clone(), row.unit.clone(), row.shape);
    WindowKey { series, unit, shape, size, start, is_incomplete: false }
}

fn open_windows(
    engine: &Engine,
    ids: &[u64],
    size: WindowSize,
    from: Timestamp,
    to: Timestamp,
) -> Vec<(WindowKey, Row)> {
    let asked = engine.series().iter().filter(|(_, series)| ids.contains(&series.info.id));
    let open = asked.flat_map(|(slot, _)| engine.open_windows_of(slot, &[size]));
    let open = open.filter(|(key, _)| key.start >= from && key.start < to);
    open.map(|(key, pane)| {
        let row = Row::new(&pane, key.shape, 0, true, key.is_incomplete);
        (key, row)
    })
    .collect()
}

/// RFC 3339, or epoch milliseconds.
pub(super) fn instant(text: &str) -> Result<Timestamp, Failure> {
    let ms = text.parse::<i64>().ok().and_then(Timestamp::from_ms);
    ms.or_else(|| time::parse(text.as_bytes())).ok_or_else(|| Failure::bad(format!("`{text}` is no time")))
}

struct WindowQuery {
    series: Option<u64>,
    labels: BTreeMap<String, String>,
    size: WindowSize,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl WindowQuery {
    fn parse(mut query: BTreeMap<String, String>) -> Result<WindowQuery, Failure> {
        let instant = |text: Option<String>| text.map(|text| instant(&text)).transpose();
        let size = query.remove("window").unwrap_or_else(|| "1m".into());
        let series = query.remove("series");
        let asked = WindowQuery {
            size: WindowSize::from_name(&size).ok_or_else(|| Failure::bad("window is 1m, 5m or 1h"))?,
            from: instant(query.remove("from"))?,
            to: instant(query.remove("to"))?,
            series: match series {
                Some(id) => {
                    Some(u64::from_str_radix(&id, 16).map_err(|_| Failure::bad("series is 16 hex digits"))?)
                }
                None => None,
            },
            labels: query,
        };
        if asked.series.is_none() && asked.labels.is_empty() {
            return Err(Failure::bad("say which series: series=<id>, or source=, name= and labels"));
        }
        Ok(asked)
    }

    fn is_match(&self, series: &SeriesInfo) -> bool {
        self.series.is_none_or(|id| id == series.id)
            && self.labels.iter().all(|(label, value)| series.label(label).is_some_and(|v| **v == **value))
    }
}

#[derive(Debug, Deserialize)]
pub struct AlertQuery {
    state: Option<String>,
    rule: Option<String>,
    /// Those of `shadow: true` rules instead.
    #[serde(default)]
    shadow: bool,
}

pub async fn alerts<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Query(query): Query<AlertQuery>,
) -> Answer {
    let mut alerts: Vec<Transition> = match query.shadow {
        true => shared.ask_any(|engine| engine.active_shadows()).await?.concat(),
        false => active(&shared).await?.concat(),
    };
    if let Some(state) = &query.state {
        let state: AlertState = serde_json::from_value(json!(state)).map_err(|_| {
            Failure::bad("state is pending, firing, acknowledged, escalated, resolved or stale")
        })?;
        if matches!(state, AlertState::Resolved | AlertState::Stale) {
            let log = alert_lines(&shared)?;
            alerts = log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        }
        alerts.retain(|alert| alert.state == state);
    }
    alerts.retain(|alert| query.rule.as_ref().is_none_or(|rule| *alert.rule == **rule));
    Ok(json_response(StatusCode::OK, json!({ "alerts": alerts }).to_string()))
}

/// The active alerts of each partition: of the engine here, else as its owner showed them last.
pub(super) async fn active<S: Views + Send + Sync + 'static>(
    shared: &Shared<S>,
) -> Result<Vec<Vec<Transition>>, Failure> {
    let live = shared.ask_each(|engine| engine.active_alerts()).await;
    let partitions = shared.partitions.iter().zip(live);
    let of_one = |(partition, live): (&super::Partition<S>, Option<Vec<Transition>>)| match live {
        Some(live) => Ok(live),
        None => {
            let shown = partition.store.active().map_err(failed)?;
            Ok(shown.iter().filter_map(|json| serde_json::from_str(json).ok()).collect())
        }
    };
    partitions.map(of_one).collect()
}

/// The alert logs of all partitions, one after the other.
pub(super) fn alert_lines<S: Views>(shared: &Shared<S>) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for partition in &shared.partitions {
        lines.extend(partition.store.transitions(0, ALERT_LOG_MAX).map_err(failed)?);
    }
    Ok(lines)
}

/// Transitions that one answer may hold.
const ALERT_LOG_MAX: usize = 100_000;

/// The alert log as NDJSON, oldest first: every transition, as published.
pub async fn alert_log<S: Views + Send + Sync + 'static>(State(shared): App<S>) -> Answer {
    let lines = alert_lines(&shared)?;
    let mut body = lines.join("\n");
    if !body.is_empty() {
        body.push('\n');
    }
    Ok(json_response(StatusCode::OK, body))
}

pub async fn pipelines<S: Views + Send + Sync + 'static>(State(shared): App<S>) -> Answer {
    of_pipelines(&shared, "pipelines", |engine| pipeline::summaries(engine)).await
}

pub async fn healths<S: Views + Send + Sync + 'static>(State(shared): App<S>) -> Answer {
    of_pipelines(&shared, "health", pipeline::healths).await
}

/// Those first in which the most of a pipeline's time is spent, whichever partition it lives in.
pub async fn bottlenecks<S: Views + Send + Sync + 'static>(State(shared): App<S>) -> Answer {
    let mut found = shared.ask_any(|engine| pipeline::bottlenecks(engine)).await?.concat();
    let share = |one: &Value| one["share"].as_f64().unwrap_or(0.0);
    found.sort_by(|a, b| share(b).total_cmp(&share(a)));
    Ok(json_response(StatusCode::OK, json!({ "bottlenecks": found }).to_string()))
}

/// A pipeline lives in one partition, so what is told of each is told once.
async fn of_pipelines<S: Views + Send + Sync + 'static>(
    shared: &Shared<S>,
    field: &str,
    read: fn(&mut Engine) -> Vec<Value>,
) -> Answer {
    let found: Vec<Value> = shared.ask_any(read).await?.concat();
    Ok(json_response(StatusCode::OK, json!({ field: found }).to_string()))
}

pub async fn dead<S: Views + Send + Sync + 'static>(State(shared): App<S>) -> Answer {
    let mut dead = Vec::new();
    for partition in &shared.partitions {
        dead.extend(partition.store.dead(DEAD_MAX).map_err(failed)?);
    }
    let dead: Vec<Value> = dead
        .iter()
        .map(|event| json!({"seq": event.seq, "index": event.index, "reason": event.reason.name(), "message": event.message}))
        .collect();
    Ok(json_response(StatusCode::OK, json!({ "dead": dead }).to_string()))
}

/// Refused events that one answer may hold.
const DEAD_MAX: usize = 1_000;
