//! Pipelines as dashboards show them: what is in flight, where time is spent, and their health.

use crate::core::alert::Transition;
use crate::core::alert::transition::State;
use crate::core::run::Pipeline;
use crate::core::run::course::{Health, Part, StageCourse};
use crate::core::vocab::pipeline::PIPELINE;
use crate::core::{Engine, Span};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One page of a listing: the entries of some pipelines as JSON, and the name of the last of them if more pipelines
/// follow.
pub(crate) type Page = (Vec<Value>, Option<Arc<str>>);

/// Limits on one page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portion {
    pub pipelines: usize,
    /// Maximum number of stages and runs that are read. The limit is checked after each pipeline, so one pipeline may
    /// exceed it.
    pub looks: usize,
}

impl Portion {
    pub(crate) const ALL: Portion = Portion { pipelines: usize::MAX, looks: usize::MAX };

    /// The portion that an engine reads between two records, which takes some milliseconds.
    pub(crate) const OF_A_QUESTION: Portion = Portion { pipelines: 32, looks: 20_000 };
}

fn page(
    engine: &Engine,
    after: Option<&str>,
    portion: Portion,
    mut read: impl FnMut((&Arc<str>, &Pipeline)) -> Vec<Value>,
) -> Page {
    let mut pipelines = engine.runs().iter_after(after).peekable();
    let (mut found, mut last, mut looks) = (Vec::new(), None, 0);
    for (name, pipeline) in pipelines.by_ref().take(portion.pipelines) {
        last = Some(name.clone());
        looks += pipeline.looks();
        found.extend(read((name, pipeline)));
        if looks >= portion.looks {
            break;
        }
    }
    let is_more = pipelines.peek().is_some();
    (found, last.filter(|_| is_more))
}

/// Returns the live summary of each pipeline.
pub(crate) fn summaries(engine: &Engine, after: Option<&str>, portion: Portion) -> Page {
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
    page(engine, after, portion, summary)
}

fn stage(stage: &StageCourse) -> Value {
    json!({"stage": stage.stage, "in_flight": stage.in_flight, "active": stage.active, "waiting": stage.waiting,
        "oldest_seconds": stage.oldest_secs, "median_seconds": stage.median_secs,
        "p95_seconds": stage.p95_secs, "share": stage.share.map(|share| rounded(share, 3))})
}

/// Returns the health of each pipeline: a score from 0 to 100 and its parts; unknown parts are null.
pub(crate) fn healths(engine: &Engine, after: Option<&str>, portion: Portion) -> Page {
    let (now, weights) = (engine.now(), engine.rules().health);
    let health = |(name, pipeline): (&Arc<str>, &Pipeline)| {
        let health = pipeline.health(now);
        vec![json!({"pipeline": name, "score": score(engine, &health), "parts": {
            "latency": part(health.latency, weights.latency, "seconds"),
            "errors": part(health.errors, weights.errors, "share"),
            "throughput": part(health.throughput, weights.throughput, "per_hour"),
        }, "alerts": []})]
    };
    page(engine, after, portion, health)
}

/// Adds the ids of each pipeline's active alerts, except pending ones, to its health.
pub(crate) fn name_alerts(healths: &mut [Value], active: &[Transition]) {
    let mut of_pipelines: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for alert in active.iter().filter(|alert| alert.state != State::Pending) {
        let names = [alert.labels.get(PIPELINE), alert.key.get("source")];
        let names: BTreeSet<&str> = names.into_iter().flatten().map(|name| &**name).collect();
        names.into_iter().for_each(|name| of_pipelines.entry(name).or_default().push(&alert.id));
    }
    for health in healths {
        let alerts = health["pipeline"].as_str().and_then(|name| of_pipelines.get(name));
        let alerts: Vec<&&str> = alerts.into_iter().flatten().take(ALERTS_NAMED).collect();
        health["alerts"] = json!(alerts);
    }
}

/// Maximum number of alerts named in the health of a pipeline.
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

/// Returns the stages of all pipelines in which runs spend time, each with its share of its pipeline's time.
pub(crate) fn bottlenecks(engine: &Engine, after: Option<&str>, portion: Portion) -> Page {
    let now = engine.now();
    let course = |(name, pipeline): (&Arc<str>, &Pipeline)| {
        let stages = pipeline.course(now).into_iter().filter(|stage| stage.share.is_some());
        stages.map(|stage| bottleneck(name, &stage)).collect::<Vec<_>>()
    };
    page(engine, after, portion, course)
}

fn bottleneck(pipeline: &str, course: &StageCourse) -> Value {
    let mut reason =
        format!("runs spend {:.0} % of their time in this stage", course.share.unwrap_or(0.0) * 100.0);
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
