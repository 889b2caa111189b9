//! Partials: what a partition tells of itself to where rules that span partitions run.
//!
//! Intuition: a rule such as `count(errors[1m]) by ()` needs a little of every partition. So each one
//! gathers, for each key that such a rule reads, what came since the last time, and sends it on every
//! ten seconds of its log, together with how far its log is. Counts, sums and histograms add up, so the
//! sum of the partials is what one partition with all events would have seen.
//! Invariant: partials are a function of the partition's log; they take effect in the order of their
//! clocks, and only when all partitions are that far. Rejected: sending the events themselves twice, and
//! merging finished windows (a rule would hear of a minute when it is over).

use super::key::Key;
use super::pane::{Pane, Shape};
use super::time::{Span, Timestamp};
use super::unit::Unit;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Distance of the grid points at which partials leave.
pub const PARTIALS_EVERY: Span = Span::from_secs(10);

/// Memory of the panes in one message, about; written they are smaller. A quarter of what NATS takes
/// by default leaves room for the longest keys.
pub const PARTIALS_BYTES_MAX: usize = 256 << 10;

/// What one partition gathered up to a grid point of its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Partials {
    /// Everything before this ingest time is in this message or an earlier one.
    pub clock: Timestamp,
    /// False: more follows for the same grid point.
    pub is_last: bool,
    pub parts: Vec<Partial>,
    /// Spans of the partition's log in which nobody wrote.
    pub interrupted: Vec<(Timestamp, Timestamp)>,
    /// Spans of which records are gone.
    pub lost: Vec<(Timestamp, Timestamp)>,
}

/// What one key of one view got since the partials before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// The view that it was gathered for, see [`super::view::ViewSpec::id`].
    pub view: u64,
    pub key: Arc<Key>,
    pub unit: Option<Unit>,
    pub shape: Shape,
    /// Newest event time.
    pub time: Timestamp,
    /// Empty where the key is only known of.
    pub pane: Pane,
    /// Sum of squared distances from the mean, where a rule asks for the spread.
    pub m2: f64,
}

impl Partials {
    pub fn new(clock: Timestamp) -> Partials {
        Partials { clock, is_last: true, parts: Vec::new(), interrupted: Vec::new(), lost: Vec::new() }
    }
}
