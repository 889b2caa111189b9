//! Workers of one deployment share its partitions evenly, without communicating with each other.
//!
//! Intuition: each worker reports that it lives and learns how many workers live. Its share is the number of
//! partitions divided by that count, rounded up. A worker that holds more gives some up, and a worker that holds less
//! takes free ones. The lease alone decides who owns a partition; the share only limits how many partitions a worker
//! holds.

use super::outage::Outages;
use super::port_error::chain;
use super::ports::{Fleet, PortError};
use super::quota::OwnershipQuota;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Time between two heartbeats. The other workers notice within this time that a worker joins or leaves.
pub(crate) const BEAT_EVERY: Duration = Duration::from_millis(250);

/// Name under which an outage of the list of workers is recorded.
const WORKERS: &str = "list of workers";

/// Keeps the share of this process up to date until `stop` receives a message or its sender is dropped.
pub(crate) fn keep(
    mut fleet: impl Fleet,
    share: &OwnershipQuota,
    partitions: usize,
    outages: &Outages,
    stop: &Receiver<()>,
) {
    let mut known = 0;
    loop {
        match fleet.beat() {
            Ok(workers) => {
                if workers != known {
                    tracing::info!(
                        workers,
                        share = partitions.div_ceil(workers.max(1)),
                        "the number of workers has changed; this worker takes its new share of partitions"
                    );
                    known = workers;
                }
                share.set_limit(partitions.div_ceil(workers.max(1)));
                outages.end(WORKERS);
            }
            // Redis is unreachable. The process keeps its partitions until their leases expire.
            Err(PortError::Away { .. }) => {}
            Err(error) => outages.begin(WORKERS, "Redis", &chain(&error)),
        }
        if !matches!(stop.recv_timeout(BEAT_EVERY), Err(RecvTimeoutError::Timeout)) {
            break;
        }
    }
    if let Err(error) = fleet.leave() {
        tracing::info!(
            error = %chain(&error),
            "cannot remove this worker from the list of workers; its entry expires by itself"
        );
    }
}
