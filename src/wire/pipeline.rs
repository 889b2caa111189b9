//! A pipeline as dashboards see it: what is in flight, where its time goes, how it does.

use crate::core::alert::Transition;
use crate::core::alert::transition::State;
use crate::core::run::course::{Health, Part, StageCourse};
use crate::core::run::{PIPELINE, Pipeline};
use crate::core::{Engine, Span};
use serde_json::{Value, json};
use std::sync::Arc;

/// Some pipelines: those behind one, `max` at most; and the last one looked at, if there are more.
pub type Page = (Vec<Value>, Option<Arc<str>>);

fn page(
    engine: &Engine,
    after: Option<&str>,
    max: usize,
    read: impl FnMut((&Arc<str>, &Pipeline)) -> Vec<Value>,
) -> Page {
    let mut pipelines = engine.runs().iter_after(after).peekable();
    let mut last = None;
    let some = pipelines.by_ref().take(max).inspect(|(name, _)| last = Some((*name).clone()));
    let found: Vec<Value> = some.flat_map(read).collect();
    let is_more = pipelines.peek().is_some();
    (found, last.filter(|_| is_more))
}

/// Each pipeline's live summary.
pub fn summaries(engine: &Engine, after: Option<&str>, max: usize) -> Page {
    let now = engine.now();
    let summary = |(name, pipeline): (&Arc<str>, &Pipeline)| {
        let whole = pipeline.whole();
        let is_busy = whole.in_flight() > 0;
        let idle = whole.newest().filter(|_| is_busy).map_or(0.0, |newest| (now - newest).secs_f64());
        let stages: Vec<Value> = pipeline.course(now).iter().map(stage).collect();
        vec![json!({"pipeline": name, "cards_per_hour": pipeline.finished_since(now - Span::from_hours(1)),
            "in_flight": whole.in_flight(), "idle_seconds": idle,
            "health": score(engine, &pipeline.health(now)), "stages": stages})]
    };
    page(engine, after, max, summary)
}

fn stage(stage: &StageCourse) -> Value {
    json!({"stage": stage.stage, "in_flight": stage.in_flight, "active": stage.active, "waiting": stage.waiting,
        "oldest_seconds": stage.oldest_secs, "median_seconds": stage.median_secs,
        "p95_seconds": stage.p95_secs, "share": stage.share.map(|share| rounded(share, 3))})
}

/// Each pipeline's health: a score from 0 to 100, and the parts it came of; unknown parts are null.
pub fn healths(engine: &Engine, after: Option<&str>, max: usize) -> Page {
    let (now, weights) = (engine.now(), engine.rules().health);
    let health = |(name, pipeline): (&Arc<str>, &Pipeline)| {
        let health = pipeline.health(now);
        vec![json!({"pipeline": name, "score": score(engine, &health), "parts": {
            "latency": part(health.latency, weights.latency, "seconds"),
            "errors": part(health.errors, weights.errors, "share"),
            "throughput": part(health.throughput, weights.throughput, "per_hour"),
        }, "alerts": []})]
    };
    page(engine, after, max, health)
}

/// Names the alerts that fire for a pipeline in its health.
pub fn name_alerts(health: &mut Value, active: &[Transition]) {
    let name = health["pipeline"].as_str().unwrap_or("");
    let firing = active.iter().filter(|alert| alert.state != State::Pending);
    let firing = firing.filter(|alert| {
        let is_named = |value: Option<&Arc<str>>| value.is_some_and(|value| **value == *name);
        is_named(alert.labels.get(PIPELINE)) || is_named(alert.key.get("source"))
    });
    let alerts: Vec<&str> = firing.map(|alert| &*alert.id).take(ALERTS_NAMED).collect();
    health["alerts"] = json!(alerts);
}

/// Alerts named in the health of a pipeline.
const ALERTS_NAMED: usize = 100;

fn score(engine: &Engine, health: &Health) -> Option<f64> {
    health.score(engine.rules().health).map(|score| rounded(score, 1))
}

fn part(part: Option<Part>, weight: f64, unit: &str) -> Value {
    part.map_or(Value::Null, |part| {
        json!({"score": rounded(part.mark * 100.0, 1), "weight": weight,
            "now": rounded(part.now, 3), "usual": rounded(part.usual, 3), "unit": unit})
    })
}

fn rounded(value: f64, digits: i32) -> f64 {
    let steps = 10.0f64.powi(digits);
    (value * steps).round() / steps
}

/// The stages of all pipelines in which time is spent, and how much of it.
pub fn bottlenecks(engine: &Engine, after: Option<&str>, max: usize) -> Page {
    let now = engine.now();
    let course = |(name, pipeline): (&Arc<str>, &Pipeline)| {
        let stages = pipeline.course(now).into_iter().filter(|stage| stage.share.is_some());
        stages.map(|stage| bottleneck(name, &stage)).collect::<Vec<_>>()
    };
    page(engine, after, max, course)
}

fn bottleneck(pipeline: &str, course: &StageCourse) -> Value {
    let mut reason =
        format!("{:.0} % of the time of runs is spent here", course.share.unwrap_or(0.0) * 100.0);
    if course.waiting > 0 {
        reason += &format!("; {} waiting", course.waiting);
    }
    if let (Some(oldest), Some(median)) = (course.oldest_secs, course.median_secs)
        && oldest > median
    {
        reason += &format!("; the oldest for {oldest:.0} s, the median is {median:.0} s");
    }
    let mut value = stage(course);
    value["pipeline"] = json!(pipeline);
    value["is_bottleneck"] = json!(course.is_bottleneck());
    value["reason"] = json!(reason);
    value
}
