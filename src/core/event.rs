//! Events as the engine takes them: checked, so that no invalid state can be represented.
//!
//! Invariant: values are finite, times are in range, names are within their limits. Only the decoders in
//! `wire` make events from bytes.

use crate::core::vocab::identity::{IdentityTable, Labels, SeriesRef};
use crate::core::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// One event of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Metric(Observation),
    /// A metric with an id of the producer, by which duplicates are recognised.
    Identified(Box<(Observation, Box<str>)>),
    Samples(Box<Samples>),
    Histogram(Box<HistogramEvent>),
    Stage(Box<StageEvent>),
    Run(Box<RunEvent>),
    Gate(Box<GateEvent>),
}

/// One value of one series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    pub who: SeriesRef,
    pub time: Timestamp,
    pub value: f64, // finite
}

/// Many values of one series, as (time, value) pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    pub who: SeriesRef,
    pub columns: Vec<(Timestamp, f64)>,
}

/// A pre-aggregated histogram of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramEvent {
    pub who: SeriesRef,
    pub time: Timestamp,
    /// (value in the event's unit, count); the values are finite, each count > 0.
    pub cells: Vec<(f64, u64)>,
    pub min: f64,
    pub max: f64,
}

/// A stage of a run changes its status.
#[derive(Debug, Clone, PartialEq)]
pub struct StageEvent {
    pub time: Timestamp,
    /// Further times that the event states.
    pub times: Times,
    pub pipeline: Arc<str>,
    pub run: Arc<str>,
    pub stage: Arc<str>,
    pub status: StageStatus,
    pub attempt: u32,
    pub labels: Labels,
}

/// A whole run changes its status.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEvent {
    pub time: Timestamp,
    /// Further times that the event states.
    pub times: Times,
    pub pipeline: Arc<str>,
    pub run: Arc<str>,
    pub status: RunStatus,
    pub id: Option<Box<str>>,
}

/// Times that an event states beside its own, in the order in which they occur.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    pub queued_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    /// Only if the stage or run has ended.
    pub finished_at: Option<Timestamp>,
}

/// A quality gate of a run passes or fails.
#[derive(Debug, Clone, PartialEq)]
pub struct GateEvent {
    pub time: Timestamp,
    pub pipeline: Arc<str>,
    pub run: Arc<str>,
    pub gate: Arc<str>,
    pub is_passed: bool,
    pub id: Option<Box<str>>,
}

/// The status of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageStatus {
    Queued,
    Started,
    Progress,
    Succeeded,
    Failed,
    Skipped,
    Cancelled,
}

/// The status of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    Queued,
    Started,
    Succeeded,
    Failed,
    Cancelled,
}

impl StageStatus {
    pub const ALL: [StageStatus; 7] = [
        StageStatus::Queued,
        StageStatus::Started,
        StageStatus::Progress,
        StageStatus::Succeeded,
        StageStatus::Failed,
        StageStatus::Skipped,
        StageStatus::Cancelled,
    ];

    pub fn from_name(name: &str) -> Option<StageStatus> {
        StageStatus::ALL.into_iter().find(|status| status.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            StageStatus::Queued => "queued",
            StageStatus::Started => "started",
            StageStatus::Progress => "progress",
            StageStatus::Succeeded => "succeeded",
            StageStatus::Failed => "failed",
            StageStatus::Skipped => "skipped",
            StageStatus::Cancelled => "cancelled",
        }
    }

    pub fn is_terminal(self) -> bool {
        self >= StageStatus::Succeeded
    }
}

impl RunStatus {
    pub const ALL: [RunStatus; 5] = [
        RunStatus::Queued,
        RunStatus::Started,
        RunStatus::Succeeded,
        RunStatus::Failed,
        RunStatus::Cancelled,
    ];

    pub fn from_name(name: &str) -> Option<RunStatus> {
        RunStatus::ALL.into_iter().find(|status| status.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            RunStatus::Queued => "queued",
            RunStatus::Started => "started",
            RunStatus::Succeeded => "succeeded",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
        }
    }

    pub fn is_terminal(self) -> bool {
        self >= RunStatus::Succeeded
    }
}

impl Times {
    fn all(self) -> impl Iterator<Item = Timestamp> {
        [self.queued_at, self.started_at, self.finished_at].into_iter().flatten()
    }

    /// The earliest of these times and the event's own time.
    fn earliest(self, time: Timestamp) -> Timestamp {
        self.all().fold(time, Timestamp::min)
    }

    /// The latest of these times and the event's own time.
    fn latest(self, time: Timestamp) -> Timestamp {
        self.all().fold(time, Timestamp::max)
    }
}

impl StageEvent {
    /// The time at which the attempt was queued, if the event states it.
    pub fn queued(&self) -> Option<Timestamp> {
        self.times.queued_at.or((self.status == StageStatus::Queued).then_some(self.time))
    }

    /// The time at which the attempt started, if the event states it.
    pub fn started(&self) -> Option<Timestamp> {
        self.times.started_at.or((self.status == StageStatus::Started).then_some(self.time))
    }

    /// The time at which the attempt ended, if it did.
    pub fn ended(&self) -> Option<Timestamp> {
        self.status.is_terminal().then(|| self.times.finished_at.unwrap_or(self.time))
    }

    pub fn earliest(&self) -> Timestamp {
        self.times.earliest(self.time)
    }

    pub fn latest(&self) -> Timestamp {
        self.times.latest(self.time)
    }
}

impl RunEvent {
    /// The earliest time at which the run was queued or started, if the event states one.
    pub fn begun(&self) -> Option<Timestamp> {
        let own = matches!(self.status, RunStatus::Queued | RunStatus::Started).then_some(self.time);
        self.times.queued_at.or(self.times.started_at).or(own)
    }

    /// The time at which the run ended, if it did.
    pub fn ended(&self) -> Option<Timestamp> {
        self.status.is_terminal().then(|| self.times.finished_at.unwrap_or(self.time))
    }

    pub fn earliest(&self) -> Timestamp {
        self.times.earliest(self.time)
    }

    pub fn latest(&self) -> Timestamp {
        self.times.latest(self.time)
    }
}

impl fmt::Display for StageStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Event {
    /// The greatest time in the event; `None` for samples without values.
    pub fn time_max(&self) -> Option<Timestamp> {
        match self {
            Event::Samples(samples) => samples.columns.iter().map(|(time, _)| *time).max(),
            other => Some(other.time()),
        }
    }

    /// The time by which an event is judged to be in the future. For a run or stage it includes the stated
    /// start and end.
    pub fn latest(&self) -> Option<Timestamp> {
        match self {
            Event::Stage(stage) => Some(stage.latest()),
            Event::Run(run) => Some(run.latest()),
            other => other.time_max(),
        }
    }

    /// The greatest time in the event that does not exceed `limit`.
    pub fn time_max_within(&self, limit: Timestamp) -> Option<Timestamp> {
        match self {
            Event::Samples(samples) => {
                samples.columns.iter().map(|(time, _)| *time).filter(|time| *time <= limit).max()
            }
            other => Some(other.time()).filter(|time| *time <= limit),
        }
    }

    fn time(&self) -> Timestamp {
        match self {
            Event::Metric(observation) => observation.time,
            Event::Identified(identified) => identified.0.time,
            Event::Samples(samples) => samples.columns.first().map_or(Timestamp::MIN, |c| c.0),
            Event::Histogram(histogram) => histogram.time,
            Event::Stage(stage) => stage.time,
            Event::Run(run) => run.time,
            Event::Gate(gate) => gate.time,
        }
    }

    /// The source of a metric, or the pipeline of any other event; `None` if the directory does not know the
    /// identity.
    pub fn source<'a>(&'a self, directory: &'a IdentityTable) -> Option<&'a Arc<str>> {
        let of = |who: SeriesRef| directory.get(who).map(|identity| &identity.source);
        match self {
            Event::Metric(observation) => of(observation.who),
            Event::Identified(identified) => of(identified.0.who),
            Event::Samples(samples) => of(samples.who),
            Event::Histogram(histogram) => of(histogram.who),
            Event::Stage(stage) => Some(&stage.pipeline),
            Event::Run(run) => Some(&run.pipeline),
            Event::Gate(gate) => Some(&gate.pipeline),
        }
    }

    /// The number of values that the event adds to the conservation counters.
    pub fn values(&self) -> u64 {
        match self {
            Event::Samples(samples) => samples.columns.len() as u64,
            _ => 1,
        }
    }
}
