//! Workers of one deployment share its partitions evenly, without talking to each other.
//!
//! Intuition: each says that it lives and learns how many do; its share is the partitions divided by
//! that, rounded up. Whoever holds more gives up, whoever holds less takes what is free. Who owns a
//! partition is still decided by its lease alone: the roster only says how many to want.

use super::outage::Outages;
use super::ports::{PortError, Roster};
use super::share::Share;
use super::worker::chain;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Time between two signs of life. A worker that joins or leaves is seen by the others this fast.
pub const BEAT_EVERY: Duration = Duration::from_millis(250);

/// Name among outages of the list of workers.
const WORKERS: &str = "list of workers";

/// Keeps the share of this process up to date until `stop` is dropped or says so.
pub fn keep(
    mut roster: impl Roster,
    share: &Share,
    partitions: usize,
    outages: &Outages,
    stop: &Receiver<()>,
) {
    let mut known = 0;
    loop {
        match roster.beat() {
            Ok(workers) => {
                if workers != known {
                    tracing::info!(
                        workers,
                        share = partitions.div_ceil(workers.max(1)),
                        "workers of the deployment"
                    );
                    known = workers;
                }
                share.set_limit(partitions.div_ceil(workers.max(1)));
                outages.end(WORKERS);
            }
            // What it holds it keeps: its leases say for how long.
            Err(PortError::Away { .. }) => {}
            Err(error) => outages.begin(WORKERS, "Redis", &chain(&error)),
        }
        if !matches!(stop.recv_timeout(BEAT_EVERY), Err(RecvTimeoutError::Timeout)) {
            break;
        }
    }
    if let Err(error) = roster.leave() {
        tracing::info!(error = %chain(&error), "cannot say goodbye; the others will notice");
    }
}
