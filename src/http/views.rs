//! Series, windows, alerts, rules and pipelines as JSON.

use super::{Failure, Shared, json_response};
use crate::core::alert::transition::State as AlertState;
use crate::core::event::{Ack, Control};
use crate::core::pane::Pane;
use crate::core::series::SeriesInfo;
use crate::core::window::{WindowKey, WindowSize};
use crate::core::{Engine, Span, Timestamp};
use crate::driver::ports::{CatalogRow, Store};
use crate::driver::worker::Command;
use crate::wire::time;
use crate::wire::window::WindowView;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

type App<S> = State<Arc<Shared<S>>>;
type Answer = Result<Response, Failure>;

/// Windows that one answer may hold.
const WINDOWS_MAX: usize = 10_000;

/// Series that one answer may hold.
const SERIES_MAX: usize = 10_000;

#[derive(Debug, Deserialize)]
pub struct SeriesQuery {
    #[serde(rename = "match")]
    matches: Option<String>,
}

pub async fn series<S: Store + Send + Sync + 'static>(
    State(shared): App<S>,
    Query(query): Query<SeriesQuery>,
) -> Answer {
    let selector = query.matches.as_deref().map(selector).transpose()?;
    let rows = all_series(&shared).await?;
    let found = rows.iter().filter(|row| selector.as_ref().is_none_or(|s| s.is_match(&row.series)));
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

/// Series that live in the engine and those only the catalog still knows, by id.
async fn all_series<S: Store + Send + Sync + 'static>(
    shared: &Shared<S>,
) -> Result<Vec<CatalogRow>, Failure> {
    let live = shared.ask(|engine| {
        let table = engine.series();
        let row = |series: &crate::core::series::Series| {
            let metric = table.metric_of(series);
            CatalogRow { series: series.info.clone(), unit: metric.unit.clone(), shape: metric.shape }
        };
        table.iter().map(|(_, series)| row(series)).collect::<Vec<_>>()
    });
    let mut rows: BTreeMap<u64, CatalogRow> =
        shared.store.catalog().map_err(failed)?.into_iter().map(|row| (row.series.id, row)).collect();
    rows.extend(live.await?.into_iter().map(|row| (row.series.id, row)));
    Ok(rows.into_values().collect())
}

fn failed(error: crate::driver::ports::PortError) -> Failure {
    Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "store", crate::driver::worker::chain(&error))
}

/// Windows of one series, or of all that the labels match.
pub async fn windows<S: Store + Send + Sync + 'static>(
    State(shared): App<S>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Answer {
    let asked = WindowQuery::parse(query)?;
    let rows = all_series(&shared).await?;
    let found: Vec<CatalogRow> = rows.into_iter().filter(|row| asked.is_match(&row.series)).collect();
    let now = shared.ask(|engine| engine.now()).await?;
    let to = asked.to.unwrap_or(now + Span::from_mins(10));
    let from = asked.from.unwrap_or(to - asked.size.span() * WINDOWS_DEFAULT);
    let mut windows = Vec::new();
    for row in &found {
        let mut start = from.ceil(asked.size.span());
        while start < to && windows.len() < WINDOWS_MAX {
            if let Some(stored) = shared.store.window((asked.size, start, row.series.id)).map_err(failed)? {
                windows.push((key(row, asked.size, start), stored.pane, stored.revision, false));
            }
            start = start + asked.size.span();
        }
    }
    let ids: Vec<u64> = found.iter().map(|row| row.series.id).collect();
    let size = asked.size;
    let open = shared.ask(move |engine| open_windows(engine, &ids, size, from, to)).await?;
    windows.extend(open);
    windows.truncate(WINDOWS_MAX);
    let views =
        windows.iter().map(|(key, pane, revision, is_open)| WindowView::new(key, pane, *revision, *is_open));
    let windows: Vec<WindowView<'_>> = views.collect();
    Ok(json_response(StatusCode::OK, json!({ "windows": windows }).to_string()))
}

/// A window with its revision and whether it is still open.
type Found = (WindowKey, Pane, u32, bool);

/// Windows looked back when no `from` is given.
const WINDOWS_DEFAULT: i64 = 60;

fn key(row: &CatalogRow, size: WindowSize, start: Timestamp) -> WindowKey {
    WindowKey { series: row.series.clone(), unit: row.unit.clone(), shape: row.shape, size, start }
}

fn open_windows(
    engine: &Engine,
    ids: &[u64],
    size: WindowSize,
    from: Timestamp,
    to: Timestamp,
) -> Vec<Found> {
    let table = engine.series();
    let series = table.iter().map(|(_, series)| series).filter(|series| ids.contains(&series.info.id));
    series
        .flat_map(|series| {
            let metric = table.metric_of(series);
            let row =
                CatalogRow { series: series.info.clone(), unit: metric.unit.clone(), shape: metric.shape };
            let open = series.windows.current(size).into_iter();
            let open = open.filter(|open| open.start >= from && open.start < to);
            open.map(|open| (key(&row, size, open.start), open.pane, 0, true)).collect::<Vec<_>>()
        })
        .collect()
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
        let instant = |text: Option<String>| match text {
            None => Ok(None),
            Some(text) => {
                let ms = text.parse::<i64>().ok().and_then(Timestamp::from_ms);
                let time = ms.or_else(|| time::parse(text.as_bytes()));
                time.map(Some).ok_or_else(|| Failure::bad(format!("`{text}` is no time")))
            }
        };
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
}

pub async fn alerts<S: Store + Send + Sync + 'static>(
    State(shared): App<S>,
    Query(query): Query<AlertQuery>,
) -> Answer {
    let mut alerts = shared.ask(|engine| engine.active_alerts()).await?;
    if let Some(state) = &query.state {
        let state: AlertState = serde_json::from_value(json!(state)).map_err(|_| {
            Failure::bad("state is pending, firing, acknowledged, escalated, resolved or stale")
        })?;
        if matches!(state, AlertState::Resolved | AlertState::Stale) {
            let log = shared.store.transitions(0, ALERT_LOG_MAX).map_err(failed)?;
            alerts = log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        }
        alerts.retain(|alert| alert.state == state);
    }
    alerts.retain(|alert| query.rule.as_ref().is_none_or(|rule| *alert.rule == **rule));
    Ok(json_response(StatusCode::OK, json!({ "alerts": alerts }).to_string()))
}

/// Transitions that one answer may hold.
const ALERT_LOG_MAX: usize = 100_000;

/// The alert log as NDJSON, oldest first: every transition, as published.
pub async fn alert_log<S: Store + Send + Sync + 'static>(State(shared): App<S>) -> Answer {
    let lines = shared.store.transitions(0, ALERT_LOG_MAX).map_err(failed)?;
    let mut body = lines.join("\n");
    if !body.is_empty() {
        body.push('\n');
    }
    Ok(json_response(StatusCode::OK, body))
}

/// `{"alert": id, "by": who, "why": …, "until": …}`
pub async fn ack<S: Store + Send + Sync + 'static>(State(shared): App<S>, body: Bytes) -> Answer {
    #[derive(Deserialize)]
    struct Body {
        alert: String,
        by: String,
        #[serde(default)]
        why: String,
        #[serde(default)]
        until: Option<String>,
    }
    let body: Body = serde_json::from_slice(&body).map_err(|error| Failure::bad(error.to_string()))?;
    let until = match &body.until {
        Some(text) => Some(time::parse(text.as_bytes()).ok_or_else(|| Failure::bad("until is no time"))?),
        None => None,
    };
    let id = body.alert.clone();
    let is_active =
        shared.ask(move |engine| engine.active_alerts().iter().any(|alert| alert.id == id)).await?;
    if !is_active {
        return Err(Failure::new(StatusCode::NOT_FOUND, "not_found", "no active alert has this id"));
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let ack = Ack { alert: body.alert, by: body.by, why: body.why, until };
    let reply = Box::new(move |result| {
        let _ = sender.send(result);
    });
    shared.send(Command::Control(Box::new(Control::Ack(ack)), reply)).await?;
    match receiver.await {
        Ok(Ok(seq)) => Ok(json_response(StatusCode::ACCEPTED, json!({ "seq": seq }).to_string())),
        Ok(Err(message)) => Err(Failure::unavailable(message)),
        Err(_) => Err(Failure::unavailable("the worker has stopped")),
    }
}

pub async fn rules<S: Store + Send + Sync + 'static>(State(shared): App<S>) -> Answer {
    let rules = shared.ask(|engine| {
        let rules = engine.rules().rules.iter();
        let rule = |rule: &crate::core::rule::Rule| {
            let levels: BTreeMap<_, _> =
                rule.levels.iter().map(|level| (level.severity.name(), &level.threshold)).collect();
            json!({"id": rule.id, "expr": rule.text, "levels": levels, "labels": rule.labels, "hash": rule.hash})
        };
        rules.map(rule).collect::<Vec<Value>>()
    });
    Ok(json_response(StatusCode::OK, json!({ "rules": rules.await? }).to_string()))
}

pub async fn pipelines<S: Store + Send + Sync + 'static>(State(shared): App<S>) -> Answer {
    let pipelines = shared.ask(|engine| pipelines_json(engine)).await?;
    Ok(json_response(StatusCode::OK, json!({ "pipelines": pipelines }).to_string()))
}

/// Each pipeline's live summary.
pub fn pipelines_json(engine: &Engine) -> Vec<Value> {
    let now = engine.now();
    let summary = |(name, pipeline): (&Arc<str>, &crate::core::run::Pipeline)| {
        let whole = pipeline.whole();
        let is_busy = whole.in_flight() > 0;
        let idle = whole.newest().filter(|_| is_busy).map_or(0.0, |newest| (now - newest).secs_f64());
        let stages: Vec<Value> = pipeline
            .stage_names()
            .map(|stage| {
                let in_flight = pipeline.stage_place(stage).map_or(0, crate::core::run::Place::in_flight);
                json!({"stage": stage, "in_flight": in_flight})
            })
            .collect();
        json!({"pipeline": name, "cards_per_hour": pipeline.finished_since(now - Span::from_hours(1)),
            "in_flight": whole.in_flight(), "idle_seconds": idle, "stages": stages})
    };
    engine.runs().iter().map(summary).collect()
}

pub async fn dead<S: Store + Send + Sync + 'static>(State(shared): App<S>) -> Answer {
    let dead = shared.store.dead(DEAD_MAX).map_err(failed)?;
    let dead: Vec<Value> = dead
        .iter()
        .map(|event| json!({"seq": event.seq, "index": event.index, "reason": event.reason.name(), "message": event.message}))
        .collect();
    Ok(json_response(StatusCode::OK, json!({ "dead": dead }).to_string()))
}

/// Refused events that one answer may hold.
const DEAD_MAX: usize = 1_000;
