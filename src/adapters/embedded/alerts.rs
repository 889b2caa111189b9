//! Reads new transitions from the alert log for a receiver.

use super::{ALERTS, Embedded};
use crate::driver::ports::PortError;
use crate::driver::receivers::ports::{AlertFeed, Batch};
use redb::ReadableTable;
use std::time::{Duration, Instant};

/// Maximum number of transitions read at once; each has about 1.5 KiB.
const BATCH_MAX: usize = 256;

/// Polling interval for new transitions. Polling delays a notification by at most this time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Embedded {
    pub(super) fn newest_alert(&self) -> Result<u64, PortError> {
        self.read(|transaction| {
            Ok(transaction.open_table(ALERTS)?.last()?.map_or(0, |(number, _)| number.value()))
        })
    }

    fn alerts(&self, after: u64) -> Result<Vec<(u64, String)>, PortError> {
        self.read(|transaction| {
            let alerts = transaction.open_table(ALERTS)?;
            let rows = alerts.range(after + 1..)?.take(BATCH_MAX);
            rows.map(|row| {
                row.map(|(number, json)| (number.value(), json.value().to_string())).map_err(Into::into)
            })
            .collect()
        })
    }
}

impl AlertFeed for Embedded {
    fn next(&mut self, after: u64, wait: Duration) -> Result<Batch, PortError> {
        let begun = Instant::now();
        // A data dir that was restored from an older copy ends before the receiver's position `after`. The receiver
        // already has all alerts of that copy, so reading continues from its end.
        let newest = self.newest_alert()?;
        let restart = (newest < after).then_some(newest);
        let after = restart.unwrap_or(after);
        loop {
            let alerts = self.alerts(after)?;
            let is_over = begun.elapsed() >= wait;
            if !alerts.is_empty() || is_over {
                let is_end = alerts.len() < BATCH_MAX;
                return Ok(Batch { alerts, is_end, restart });
            }
            std::thread::park_timeout(LOOK_EVERY.min(wait.saturating_sub(begun.elapsed())));
        }
    }

    fn done(&mut self) {}
}
