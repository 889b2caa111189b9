//! A pipeline as dashboards see it: what is in flight, how fast it goes.

use crate::core::run::{Pipeline, Place};
use crate::core::{Engine, Span};
use serde_json::{Value, json};
use std::sync::Arc;

/// Each pipeline's live summary.
pub fn summaries(engine: &Engine) -> Vec<Value> {
    let now = engine.now();
    let summary = |(name, pipeline): (&Arc<str>, &Pipeline)| {
        let whole = pipeline.whole();
        let is_busy = whole.in_flight() > 0;
        let idle = whole.newest().filter(|_| is_busy).map_or(0.0, |newest| (now - newest).secs_f64());
        let stages: Vec<Value> = pipeline
            .stage_names()
            .map(|stage| {
                let in_flight = pipeline.stage_place(stage).map_or(0, Place::in_flight);
                json!({"stage": stage, "in_flight": in_flight})
            })
            .collect();
        json!({"pipeline": name, "cards_per_hour": pipeline.finished_since(now - Span::from_hours(1)),
            "in_flight": whole.in_flight(), "idle_seconds": idle, "stages": stages})
    };
    engine.runs().iter().map(summary).collect()
}
