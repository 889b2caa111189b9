//! Facts about pipelines that hold before any event: their declared stages, and the names of their series.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The label that names a pipeline.
pub(crate) const PIPELINE: &str = "pipeline";

/// Names of the series derived from stage, run and gate events; their source is the pipeline.
const SERIES: [&str; 9] = [
    "stage_duration_seconds",
    "stage_queue_seconds",
    "stage_transition_seconds",
    "run_duration_seconds",
    "cards_processed",
    "gate_pass",
    "stage_active",
    "stage_waiting",
    "pipeline_in_flight",
];

/// Returns whether series of this name have a pipeline as their source.
pub(crate) fn is_of_pipeline(series: &str) -> bool {
    SERIES.contains(&series)
}

/// The part of a pipeline that the files declare beforehand.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PipelineSpec {
    /// The stages in order. Where a pipeline sends no run events, the end of the last stage ends the run.
    pub stages: Vec<Arc<str>>,
}

/// The weight of each part in a pipeline's health score; the sum need not be 100.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    pub latency: f64,
    pub errors: f64,
    pub throughput: f64,
}

impl Default for Weights {
    fn default() -> Weights {
        Weights { latency: 40.0, errors: 35.0, throughput: 25.0 }
    }
}
