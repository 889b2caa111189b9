//! The parts of an owner, which outlive its sessions.

use crate::core::rule::RuleSet;
use crate::core::vocab::limits::Limits;
use crate::driver::metrics::OwnerMetrics;
use crate::driver::quota::OwnershipQuota;
use std::sync::Arc;
use std::time::Duration;

/// The parts of an owner.
#[derive(Debug)]
pub struct SessionParts<F, S, C> {
    pub feed: F,
    pub store: S,
    pub clock: C,
    pub limits: Limits,
    /// The rules to put in force if others are in force; `None` keeps those in force.
    pub rules: Option<RuleSet>,
    pub lease: Duration,
    /// Minimum time between two snapshots of the engine's state.
    pub snapshot_every: Duration,
    /// Whether each window is published when it is sealed and when it is corrected.
    pub is_rolling_up: bool,
    /// The number of partitions that this process may hold, and the number that it holds.
    pub share: OwnershipQuota,
    pub owner_metrics: Arc<OwnerMetrics>,
}
