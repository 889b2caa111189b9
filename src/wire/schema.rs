//! JSON Schemas (draft 2020-12) of events, alerts, windows and pipeline files, generated from the types. The
//! doc comments of the types below become descriptions in the schemas.

use super::window::WindowView;
use crate::core::alert::Transition;
use crate::core::event::{RunStatus, StageStatus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The documents that have a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Event,
    Alert,
    Window,
    Pipeline,
    Config,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Event, Kind::Alert, Kind::Window, Kind::Pipeline, Kind::Config];

    /// Name of the file in `schemas/`.
    pub fn file(self) -> &'static str {
        match self {
            Kind::Event => "event.json",
            Kind::Alert => "alert.json",
            Kind::Window => "window.json",
            Kind::Pipeline => "pipeline.json",
            Kind::Config => "config.json",
        }
    }
}

/// Returns the schema as pretty-printed JSON.
pub fn text(kind: Kind) -> String {
    let schema = match kind {
        Kind::Event => schemars::schema_for!(EventShape),
        Kind::Alert => schemars::schema_for!(Transition),
        Kind::Window => schemars::schema_for!(WindowView),
        Kind::Pipeline => schemars::schema_for!(PipelineShape),
        // The module `app` defines the configuration file and its schema.
        Kind::Config => return String::new(),
    };
    serde_json::to_string_pretty(&schema).unwrap_or_default()
}

/// Returns the schemas of events, alerts and windows as components of an OpenAPI document, by name.
pub fn components() -> serde_json::Map<String, serde_json::Value> {
    let mut settings = schemars::generate::SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let whole = [
        ("event", generator.subschema_for::<EventShape>()),
        ("alert", generator.subschema_for::<Transition>()),
        ("window", generator.subschema_for::<WindowView>()),
    ];
    let mut components = generator.take_definitions(true);
    for (name, schema) in whole {
        components.entry(name).or_insert_with(|| schema.to_value());
    }
    components
}

/// A time: RFC 3339 with any offset, or epoch milliseconds.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Time {
    Text(String),
    Milliseconds(i64),
}

/// A text, or a whole number that stands for its decimal text.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(i64),
}

/// One event, as producers send it. Further fields are ignored.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(title = "event")]
enum EventShape {
    /// One observation of the series (source, name, labels).
    Metric {
        time: Time,
        source: String,
        name: String,
        value: f64,
        unit: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        id: Option<Id>,
    },
    /// Many observations of one series, as columns of equal length.
    Samples {
        source: String,
        name: String,
        times: Vec<Time>,
        values: Vec<f64>,
        unit: Option<String>,
        labels: Option<BTreeMap<String, String>>,
    },
    /// A pre-aggregated HdrHistogram: base64 of V2 or V2 + deflate; value = recorded × scale.
    Histogram {
        time: Time,
        source: String,
        name: String,
        hdr: String,
        scale: Option<f64>,
        unit: Option<String>,
        labels: Option<BTreeMap<String, String>>,
    },
    /// A stage of a run changes its status.
    Stage {
        time: Time,
        pipeline: String,
        run: Id,
        stage: String,
        #[schemars(with = "StageStatusName")]
        status: StageStatus,
        source: Option<String>,
        attempt: Option<u32>,
        labels: Option<BTreeMap<String, String>>,
        progress: Option<f64>,
        id: Option<Id>,
        /// Not later than what it is followed by.
        queued_at: Option<Time>,
        /// Not of status `queued`.
        started_at: Option<Time>,
        /// Only of a status that ends an attempt; without it, `time` is the end.
        finished_at: Option<Time>,
    },
    /// A whole run changes its status.
    Run {
        time: Time,
        pipeline: String,
        run: Id,
        #[schemars(with = "RunStatusName")]
        status: RunStatus,
        source: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        id: Option<Id>,
        /// Not later than what it is followed by.
        queued_at: Option<Time>,
        /// Not of status `queued`.
        started_at: Option<Time>,
        /// Only of a status that ends a run; without it, `time` is the end.
        finished_at: Option<Time>,
    },
    /// A quality gate passes or fails.
    Gate {
        time: Time,
        pipeline: String,
        run: Id,
        gate: String,
        status: GateStatus,
        source: Option<String>,
        value: Option<f64>,
        threshold: Option<f64>,
        labels: Option<BTreeMap<String, String>>,
        id: Option<Id>,
    },
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum GateStatus {
    Passed,
    Failed,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[expect(dead_code, reason = "only its shape is used, in the schema")]
enum StageStatusName {
    Queued,
    Started,
    Progress,
    Succeeded,
    Failed,
    Skipped,
    Cancelled,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
#[expect(dead_code, reason = "only its shape is used, in the schema")]
enum RunStatusName {
    Queued,
    Started,
    Succeeded,
    Failed,
    Cancelled,
}

/// A file in `pipelines/`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "pipeline", deny_unknown_fields)]
struct PipelineShape {
    /// 1
    version: Option<u32>,
    metrics: Option<BTreeMap<String, serde_json::Value>>,
    declare: Option<Vec<serde_json::Value>>,
    pipelines: Option<BTreeMap<String, serde_json::Value>>,
    record: Option<Vec<RecordShape>>,
    rules: Option<Vec<RuleShape>>,
    /// Policies by name: steps after so long.
    escalations: Option<BTreeMap<String, Vec<StepShape>>>,
    maintenance: Option<Vec<MaintenanceShape>>,
    inhibit: Option<Vec<InhibitShape>>,
    health: Option<HealthShape>,
    tests: Option<Vec<TestShape>>,
}

/// How much each part of a pipeline's health counts.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HealthShape {
    weights: Option<WeightsShape>,
}

/// Numbers from 0 up; their sum need not be 100.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct WeightsShape {
    /// 40
    latency: Option<f64>,
    /// 35
    errors: Option<f64>,
    /// 25
    throughput: Option<f64>,
}

/// A test case: what comes in, what people say, and what is expected.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TestShape {
    name: Option<String>,
    /// Between two values of a series (10s).
    interval: Option<String>,
    /// `series`, `values` in promtool's notation, `unit`.
    input_series: Option<Vec<serde_json::Value>>,
    /// Events with `at` in place of `time`, and `late`.
    input_events: Option<Vec<serde_json::Value>>,
    /// `at` and one of `ack`, `unack`, `silence`, `expire_silence`, `maintenance`, `end_maintenance`.
    say: Option<Vec<serde_json::Value>>,
    /// `at`, `rule`, and what the alert must be.
    expect: Option<Vec<serde_json::Value>>,
    /// All transitions of the rules that are named in it.
    transitions: Option<Vec<String>>,
    until: Option<String>,
    /// How many events must be refused.
    refused: Option<u64>,
}

/// A derived series.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RecordShape {
    name: String,
    expr: String,
}

/// Who is told when nobody has taken care for so long.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct StepShape {
    after: String,
    notify: Option<Vec<String>>,
    escalate_to: Option<String>,
    /// Alertmanager's `time_intervals`: when it is taken; always without.
    when: Option<Vec<serde_json::Value>>,
    /// The last step only: taken again this often.
    repeat: Option<String>,
}

/// Planned time: `start` and `end`, or `schedule` (cron) and `duration`, or Alertmanager's `time_intervals`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct MaintenanceShape {
    id: String,
    /// Matchers such as `source=~"db.*"`, over key and rule labels, `rule` and `severity`.
    r#match: Vec<String>,
    start: Option<String>,
    end: Option<String>,
    schedule: Option<String>,
    duration: Option<String>,
    /// An IANA name (UTC).
    tz: Option<String>,
    /// Dates on which the schedule begins nothing.
    except: Option<Vec<String>>,
    time_intervals: Option<Vec<serde_json::Value>>,
    /// `mute` (judged, published, not notified) or `suspend` (not judged)
    mode: Option<String>,
    reason: Option<String>,
}

/// Targets are suppressed while a source fires that has the same values of these labels.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct InhibitShape {
    source: Vec<String>,
    target: Vec<String>,
    equal: Option<Vec<String>>,
}

/// One rule; `expr` with `levels`, or a comparison with `severity`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RuleShape {
    id: String,
    expr: String,
    metric: Option<String>,
    severity: Option<crate::core::alert::Severity>,
    /// Severity → comparison, such as `> 10%`.
    levels: Option<BTreeMap<String, String>>,
    reset: Option<serde_json::Value>,
    /// A duration, or one per severity.
    r#for: Option<serde_json::Value>,
    keep_firing_for: Option<String>,
    min_count: Option<u64>,
    /// `hold`, `clear_after 30m` or `fire`
    on_unknown: Option<String>,
    cooldown: Option<String>,
    actions: Option<serde_json::Value>,
    labels: Option<BTreeMap<String, String>>,
    summary: Option<String>,
    runbook: Option<String>,
    /// Name of a policy.
    escalation: Option<String>,
    actions_in_maintenance: Option<bool>,
    /// Share of what is told that may be chance, `5%`, or `off`.
    fdr: Option<serde_json::Value>,
    /// Judged, but nobody is told.
    shadow: Option<bool>,
}
