//! Partials: the data that a partition sends to the aggregate partition, where rules that span partitions
//! run.
//!
//! Intuition: a rule such as `count(errors[1m]) by ()` needs a little of every partition. So each partition
//! gathers the new data of every key that such a rule reads, and sends it every ten seconds of its log time,
//! together with its log time. Counts, sums and histograms add up, so the sum of the partials equals the data
//! of one partition with all events.
//! Invariant: partials are a function of the partition's log. They take effect in the order of their clocks,
//! and only when all partitions have reached that clock or are too far behind to be waited for. Rejected:
//! sending the events themselves twice, and merging sealed windows (a rule would see a minute only when it is
//! over).

use super::pane::{Pane, Shape};
use crate::core::vocab::key::Key;
use crate::core::vocab::time::{Span, Timestamp};
use crate::core::vocab::unit::Unit;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Interval between the grid points at which partials are sent.
pub const PARTIALS_EVERY: Span = Span::from_secs(10);

/// Maximum approximate memory of the panes in one message, in bytes; serialised, the panes are smaller. The
/// maximum is a quarter of NATS's default message limit, which leaves room for the longest keys.
pub const PARTIALS_BYTES_MAX: usize = 256 << 10;

/// The data that one partition gathered up to a grid point of its log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Partials {
    /// This message and the earlier ones cover everything before this ingest time.
    pub clock: Timestamp,
    /// False if more messages follow for the same grid point.
    pub is_last: bool,
    pub parts: Vec<Partial>,
    /// Interruptions of the partition's log.
    pub interrupted: Vec<(Timestamp, Timestamp)>,
    /// Gaps of the partition's log.
    pub lost: Vec<(Timestamp, Timestamp)>,
}

/// The data of one key of one view since the previous partials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// The view that gathered the data, see [`crate::core::view::ViewSpec::id`].
    pub view: u64,
    pub key: Arc<Key>,
    pub unit: Option<Unit>,
    pub shape: Shape,
    /// Newest event time.
    pub time: Timestamp,
    /// Empty if the partial only announces the key.
    pub pane: Pane,
    /// Sum of squared distances from the mean, if a rule reads the spread.
    pub m2: f64,
}

impl Partials {
    pub fn new(clock: Timestamp) -> Partials {
        Partials { clock, is_last: true, parts: Vec::new(), interrupted: Vec::new(), lost: Vec::new() }
    }
}
