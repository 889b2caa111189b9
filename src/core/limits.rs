//! Every bound of the engine, each with its arithmetic.
//!
//! A bound is a default that the configuration may change where it stands in [`Limits`], and a
//! constant where it guards the data structures themselves. Whatever is refused because of one is
//! counted in [`super::counters::Counters`] and visible in `/metrics`.

use super::partition::Partition;
use super::series::Room;
use super::time::Span;
use super::view::Lateness;
use serde::{Deserialize, Serialize};

/// Bytes of one payload. 1 MiB is NATS' own default `max_payload`.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Bytes of a source, name, label name, label value, pipeline, run, stage, gate or id.
pub const NAME_BYTES_MAX: usize = 256;

/// Labels of one event. 32 × 2 × 256 B = 16 KiB of identity at the very most.
pub const LABELS_MAX: usize = 32;

/// Nesting of an ignored field; what sensible producers send is below ten.
pub const NESTING_MAX: usize = 64;

/// Steps of a metric's resolution that a histogram can tell apart: 2^42 is 50 days in
/// microseconds or 4 TiB in bytes. Greater magnitudes are saturated and counted.
pub const STEPS_MAX: u64 = 1 << 42;

/// Ids remembered per source for the duplicate check: 65,536 × 24 B = 1.5 MiB a source.
pub const IDS_PER_SOURCE_MAX: usize = 65_536;

/// Runs remembered per pipeline, in flight and finished: 100,000 × about 1 KiB = 100 MiB.
pub const RUNS_PER_PIPELINE_MAX: usize = 100_000;

/// Runs per pipeline of which the beginning stays when they are let go: 100,000 × about 250 B = 25 MB.
pub const GONE_PER_PIPELINE_MAX: usize = 100_000;

/// How long it stays: as long as windows are kept at most, so that no run in them is cut short.
pub const GONE_KEPT: Span = Span::from_hours(24 * 31);

/// Runs remembered over all pipelines, as many as series: 1,000,000 × about 1 KiB = 1 GiB.
pub const RUNS_MAX: usize = 1_000_000;

/// Runs that each pipeline may have however many others there are, so that one sender does not use up the room of all.
pub const RUNS_GRANTED: usize = 1_000;

/// A summary with its labels filled in, in every transition of an alert: 8 KiB, as a template may have; a label of 256
/// bytes takes 14 to name.
pub const SUMMARY_BYTES_MAX: usize = 8 << 10;

/// Pipelines of one log: 10,000 × about 2 KiB without their runs = 20 MiB.
pub const PIPELINES_MAX: usize = 10_000;

/// Stages of one pipeline; each has three live gauges of its own.
pub const STAGES_PER_PIPELINE_MAX: usize = 1_000;

/// Stage attempts remembered per run; a retry loop must not grow a run without bound.
pub const ATTEMPTS_PER_RUN_MAX: usize = 1_000;

/// Open windows of one series and resolution. Skew (5 min) and lateness (30 s) keep at most
/// seven 1m windows open; a series with a longer configured skew gets room for a day of minutes.
pub const OPEN_WINDOWS_MAX: usize = 1_440;

/// Alerts of one rule at a time; further ones are counted by one `_sg_capped` alert.
pub const ALERTS_PER_RULE_MAX: usize = 1_000;

/// Panes of a trailing window: 90 days of 1h panes, as long as 1h windows are kept. A pane without a histogram takes
/// about 150 B, one with a sparse one about 400 B: 0.3 to 0.9 MB a key, and only where a rule asks for so long a
/// window. One hour of 10s panes has 360.
pub const PANES_PER_WINDOW_MAX: i64 = 2_160;

/// The longest trailing window: 1h windows are kept so long.
pub const WINDOW_MAX: Span = Span::from_hours(24 * 90);

/// Windows of a period kept per key: two weeks of 5m windows, or half a year of 1h ones. 10 bytes each.
pub const PERIOD_WINDOWS_MAX: i64 = 4_096;

/// Windows of a season kept per key: four weeks of 5m windows.
pub const SEASON_WINDOWS_MAX: i64 = 8_100;

/// What the engine is configured with. Times in milliseconds of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// An event is on time until this long after the end of its 1m window.
    pub allowed_lateness: Span,
    /// An event is refused from this long after the end of its 1m window.
    pub max_lateness: Span,
    /// An event is refused when its time is further than this past its ingest time.
    pub max_skew: Span,
    /// What happens to an event between the two latenesses.
    pub late_policy: LatePolicy,
    /// What happens to a value of a stage or run that came too late for its window.
    pub backfill: Backfill,
    /// Distance of the grid points at which rules are evaluated.
    pub evaluation_interval: Span,
    /// A series without an observation for this long is forgotten.
    pub forget_after: Span,
    /// A run without an event for this long is forgotten.
    pub abandon_after: Span,
    /// A record this long past the due wake-up marks an interruption of the log.
    pub tick_gap: Span,
    /// Rules over silence stay unknown for this long after an interruption.
    pub grace: Span,
    /// How long an event id is remembered.
    pub duplicate_window: Span,
    /// A recorded series repeats its value at least this often.
    pub record_interval: Span,
    /// Series alive at once; new ones beyond are refused, old ones live on.
    /// 1,000,000 × about 2 KiB = 2 GiB.
    pub series_max: usize,
    /// Series of one source alive at once: half of all, so that no sender takes the room of the others.
    pub series_per_source_max: usize,
    /// Events of other partitions' sources and pipelines are refused.
    pub partition: Partition,
}

/// The finest pane that a rule reads: coarser ones are made of whole ones of these.
pub const PANE_MIN: Span = Span::from_secs(10);

/// What happens to an event that is late but not too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatePolicy {
    /// Merge it into its windows; each gets a new revision.
    Correct,
    /// Count it and let it go.
    Drop,
    /// Count it and keep it aside.
    Dead,
}

/// What happens to a value that is derived when its window takes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backfill {
    /// Count it and let it go.
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
