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

/// An id: a text, or a whole number that stands for its decimal text.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(i64),
}

/// One event of a producer. Unknown fields are ignored.
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
        /// The time at which the stage was queued; not later than `started_at`, `finished_at` and `time`.
        queued_at: Option<Time>,
        /// The time at which the stage started; not with the status `queued`.
        started_at: Option<Time>,
        /// The time at which the stage ended (`time`); only with a status that ends an attempt.
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
        /// The time at which the run was queued; not later than `started_at`, `finished_at` and `time`.
        queued_at: Option<Time>,
        /// The time at which the run started; not with the status `queued`.
        started_at: Option<Time>,
        /// The time at which the run ended (`time`); only with a status that ends a run.
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

/// A pipeline file: a file in the directory `pipelines/`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "pipeline", deny_unknown_fields)]
struct PipelineShape {
    /// The version of the file format: 1.
    version: Option<u32>,
    metrics: Option<BTreeMap<String, serde_json::Value>>,
    declare: Option<Vec<serde_json::Value>>,
    pipelines: Option<BTreeMap<String, serde_json::Value>>,
    record: Option<Vec<RecordShape>>,
    rules: Option<Vec<RuleShape>>,
    /// The escalation policies by name, each a list of steps.
    escalations: Option<BTreeMap<String, Vec<StepShape>>>,
    maintenance: Option<Vec<MaintenanceShape>>,
    inhibit: Option<Vec<InhibitShape>>,
    health: Option<HealthShape>,
    tests: Option<Vec<TestShape>>,
}

/// The computation of a pipeline's health.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HealthShape {
    weights: Option<WeightsShape>,
}

/// The weights of the parts of a pipeline's health: numbers from 0 up; their sum need not be 100.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct WeightsShape {
    /// The weight of the latency (40).
    latency: Option<f64>,
    /// The weight of the errors (35).
    errors: Option<f64>,
    /// The weight of the throughput (25).
    throughput: Option<f64>,
}

/// A test case: inputs, actions of operators, and expectations.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct TestShape {
    name: Option<String>,
    /// The time between two values of a series in `input_series` (10s).
    interval: Option<String>,
    /// The input series, each with `series`, `values` in promtool's notation, and optionally `unit`.
    input_series: Option<Vec<serde_json::Value>>,
    /// The input events, each with `at` in place of `time`, and optionally `late`.
    input_events: Option<Vec<serde_json::Value>>,
    /// The actions of operators, each with `at` and one of `ack`, `unack`, `silence`, `expire_silence`,
    /// `maintenance`, `end_maintenance`.
    say: Option<Vec<serde_json::Value>>,
    /// The expectations, each with `at`, `rule`, and the fields that the alert must have.
    expect: Option<Vec<serde_json::Value>>,
    /// All transitions, in order, of the rules that the list names.
    transitions: Option<Vec<String>>,
    until: Option<String>,
    /// The number of events that must be refused (0).
    refused: Option<u64>,
}

/// A recorded series: its name, and the expression that gives its values.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RecordShape {
    name: String,
    expr: String,
}

/// One step of an escalation policy, taken when an alert has fired unacknowledged for `after`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct StepShape {
    after: String,
    notify: Option<Vec<String>>,
    escalate_to: Option<String>,
    /// The times at which the step may be taken, as Alertmanager's `time_intervals` (always).
    when: Option<Vec<serde_json::Value>>,
    /// The interval at which the step is taken again; for the last step only.
    repeat: Option<String>,
}

/// A maintenance window: `start` and `end`, or `schedule` (cron) and `duration`, or Alertmanager's
/// `time_intervals`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct MaintenanceShape {
    id: String,
    /// The matchers of the alerts, such as `source=~"db.*"`, over the labels of the key and the rule, `rule`
    /// and `severity`.
    r#match: Vec<String>,
    start: Option<String>,
    end: Option<String>,
    schedule: Option<String>,
    duration: Option<String>,
    /// The IANA name of the time zone of the schedule (UTC).
    tz: Option<String>,
    /// The dates on which no window of the schedule begins.
    except: Option<Vec<String>>,
    time_intervals: Option<Vec<serde_json::Value>>,
    /// The effect: `mute` (judged and published, but not notified) or `suspend` (not judged) (`mute`).
    mode: Option<String>,
    reason: Option<String>,
}

/// An inhibition: alerts that match `target` are suppressed while an alert that matches `source` fires with
/// the same values of the labels in `equal`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct InhibitShape {
    source: Vec<String>,
    target: Vec<String>,
    equal: Option<Vec<String>>,
}

/// One rule: an `expr` that is a value, with `levels`, or an `expr` that is a comparison, with `severity`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RuleShape {
    id: String,
    expr: String,
    metric: Option<String>,
    severity: Option<crate::core::vocab::severity::Severity>,
    /// The levels: a comparison, such as `> 10%`, for each severity.
    levels: Option<BTreeMap<String, String>>,
    reset: Option<serde_json::Value>,
    /// How long the condition must be met: one duration, or one for each severity (0).
    r#for: Option<serde_json::Value>,
    keep_firing_for: Option<String>,
    min_count: Option<u64>,
    /// The handling of an unknown value: `hold`, `clear_after 30m` or `fire` (`clear_after 30m`).
    on_unknown: Option<String>,
    cooldown: Option<String>,
    actions: Option<serde_json::Value>,
    labels: Option<BTreeMap<String, String>>,
    summary: Option<String>,
    runbook: Option<String>,
    /// The name of an escalation policy.
    escalation: Option<String>,
    actions_in_maintenance: Option<bool>,
    /// The share of the published alerts that may be chance, such as `5%`, or `off`.
    fdr: Option<serde_json::Value>,
    /// Whether the rule is judged without notifications (false).
    shadow: Option<bool>,
}
