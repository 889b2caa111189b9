//! Every bound of the engine, each with its arithmetic.
//!
//! A bound in [`Limits`] is a default that the configuration may change. A constant guards the data
//! structures themselves. [`super::counters::Counters`] counts every refusal that a bound causes, and
//! `/metrics` shows the counts.

use super::partition::Partition;
use super::time::Span;
use serde::{Deserialize, Serialize};

/// Maximum bytes of one payload. 1 MiB is the default `max_payload` of NATS.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Maximum number of partitions. Each one needs a stream, a thread in every worker and two connections; one
/// broker still serves 256 partitions × 3 workers.
pub const PARTITIONS_MAX: u32 = 256;

/// Maximum bytes of a source, name, label name, label value, pipeline, run, stage, gate or id.
pub const NAME_BYTES_MAX: usize = 256;

/// Maximum number of labels of one event. The labels of an event take at most 32 × 2 × 256 B = 16 KiB.
pub const LABELS_MAX: usize = 32;

/// Maximum nesting depth of an ignored field; sensible producers stay below ten.
pub const NESTING_MAX: usize = 64;

/// Upper limit of the magnitudes in a histogram, in steps of the metric's resolution. 2^42 steps are 50 days
/// in microseconds, or 4 TiB in bytes. Greater magnitudes are saturated and counted as overflow.
pub const STEPS_MAX: u64 = 1 << 42;

/// Maximum number of ids remembered per source for the duplicate check. An id takes 32 B in the queue and 17 B
/// in the set; with spare capacity a source takes about 6 MiB.
pub const IDS_PER_SOURCE_MAX: usize = 65_536;

/// Maximum number of runs remembered per pipeline, in flight and finished: 100,000 × about 1 KiB = 100 MiB.
pub const RUNS_PER_PIPELINE_MAX: usize = 100_000;

/// Maximum number of forgotten runs per pipeline of which the beginning and the end are kept: 100,000 × about
/// 250 B = 25 MB.
pub const GONE_PER_PIPELINE_MAX: usize = 100_000;

/// Time for which a forgotten run is kept, so that a run that continues later keeps its true beginning.
pub const GONE_KEPT: Span = Span::from_hours(24 * 31);

/// Maximum number of runs remembered over all pipelines, equal to the number of series: 1,000,000 × about 1
/// KiB = 1 GiB.
pub const RUNS_MAX: usize = 1_000_000;

/// Number of runs that each pipeline may have even if [`RUNS_MAX`] is reached, so that one producer cannot use
/// all of it.
pub const RUNS_GRANTED: usize = 1_000;

/// Maximum bytes of a rendered summary, which every transition of an alert carries. A template has the same
/// limit, but rendering lengthens it: a placeholder of 14 bytes may become a label of 256 bytes.
pub const SUMMARY_BYTES_MAX: usize = 8 << 10;

/// Maximum number of pipelines of one log: 10,000 × about 2 KiB without their runs = 20 MiB.
pub const PIPELINES_MAX: usize = 10_000;

/// Maximum number of stages of one pipeline; each has two live gauges of its own.
pub const STAGES_PER_PIPELINE_MAX: usize = 1_000;

/// Maximum number of stage attempts remembered per run; a retry loop must not grow a run without bound.
pub const ATTEMPTS_PER_RUN_MAX: usize = 1_000;

/// Maximum number of open windows of one series and resolution. With the default skew (5 min) and lateness (30
/// s), at most seven 1m windows are open. With a longer configured skew, one day of 1m windows fits.
pub const OPEN_WINDOWS_MAX: usize = 1_440;

/// Maximum number of alerts of one rule at a time; one `_sg_capped` alert counts the others.
pub const ALERTS_PER_RULE_MAX: usize = 1_000;

/// Maximum number of panes of a trailing window: 90 days of 1h panes, the retention of 1h windows. A pane
/// without a histogram takes about 150 B, one with a sparse histogram about 400 B. A key thus takes 0.3 to 0.9
/// MB, but only if a rule reads such a long window. One hour of 10s panes has 360 panes.
pub const PANES_PER_WINDOW_MAX: i64 = 2_160;

/// The longest trailing window: the retention of 1h windows.
pub const WINDOW_MAX: Span = Span::from_hours(24 * 90);

/// Maximum number of windows of a period kept per key: two weeks of 5m windows, or 170 days of 1h windows.
/// Each takes 10 bytes.
pub const PERIOD_WINDOWS_MAX: i64 = 4_096;

/// Maximum number of windows of a season kept per key: four weeks of 5m windows.
pub const SEASON_WINDOWS_MAX: i64 = 8_100;

/// The configuration of the engine. Times are in milliseconds of log time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// An event is on time until this long after the end of its 1m window.
    pub allowed_lateness: Span,
    /// An event is refused from this long after the end of its 1m window.
    pub max_lateness: Span,
    /// An event is refused if its time is later than its ingest time by more than this.
    pub max_skew: Span,
    /// The handling of an event that arrives after `allowed_lateness` and within `max_lateness`.
    pub late_policy: LatePolicy,
    /// The handling of a value of a stage or run that is too late for its window.
    pub backfill: Backfill,
    /// Distance between the grid points at which rules are evaluated.
    pub evaluation_interval: Span,
    /// A series without an observation for this long is forgotten.
    pub forget_after: Span,
    /// A run without an event for this long is forgotten.
    pub abandon_after: Span,
    /// If the next record is stamped this long after a tick was due, the log was interrupted in between.
    pub tick_gap: Span,
    /// Rules about silence stay unknown for this long after an interruption.
    pub grace: Span,
    /// Time for which an event id is remembered.
    pub duplicate_window: Span,
    /// A recorded series repeats its value at least this often.
    pub record_interval: Span,
    /// Live series. New ones beyond the limit are refused, old ones stay. 1,000,000 × about 2 KiB = 2 GiB.
    pub series_max: usize,
    /// Live series of one source: half of all, so that one producer cannot use the whole limit.
    pub series_per_source_max: usize,
    /// The partition of this engine. Events of sources and pipelines of other partitions are refused.
    pub partition: Partition,
}

/// The limits on live series: in total, and of one source.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub series_max: usize,
    pub series_per_source_max: usize,
}

/// How late an observation may arrive.
#[derive(Debug, Clone, Copy)]
pub struct Lateness {
    /// A window is sealed this long after its end.
    pub allowed: Span,
    /// No observation is accepted for a window this long after its end.
    pub max: Span,
}

/// The length of the shortest pane that a rule reads; longer panes consist of whole panes of this length.
pub const PANE_MIN: Span = Span::from_secs(10);

/// The handling of an event that is late but not too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatePolicy {
    /// Merge it into its windows; each gets a new revision.
    Correct,
    /// Count it and discard it.
    Drop,
    /// Count it and store it as a dead letter.
    Dead,
}

/// The handling of a derived value whose window accepts no more values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backfill {
    /// Count it and discard it.
    #[default]
    Never,
    /// Record it in the window of its ingest time.
    Now,
}

impl Limits {
    pub fn room(&self) -> Room {
        Room { series_max: self.series_max, series_per_source_max: self.series_per_source_max }
    }

    pub fn lateness(&self) -> Lateness {
        Lateness { allowed: self.allowed_lateness, max: self.max_lateness }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            allowed_lateness: Span::from_secs(30),
            max_lateness: Span::from_hours(1),
            max_skew: Span::from_mins(5),
            late_policy: LatePolicy::Correct,
            backfill: Backfill::Never,
            evaluation_interval: Span::from_secs(1),
            forget_after: Span::from_hours(24),
            abandon_after: Span::from_hours(24),
            tick_gap: Span::from_secs(15),
            grace: Span::from_secs(60),
            duplicate_window: Span::from_mins(10),
            record_interval: Span::from_secs(30),
            series_max: 1_000_000,
            series_per_source_max: 500_000,
            partition: Partition::default(),
        }
    }
}
