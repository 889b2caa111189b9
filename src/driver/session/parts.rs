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
    /// The rules to put in force where they differ; `None` keeps the rules in force.
    pub rules: Option<RuleSet>,
    pub lease: Duration,
    /// Minimum time between two snapshots of the engine's state.
    pub snapshot_every: Duration,
    /// Whether windows are published as they are sealed and corrected.
    pub is_rolling_up: bool,
    /// The partition share of this process.
    pub share: OwnershipQuota,
    pub owner_metrics: Arc<OwnerMetrics>,
}
