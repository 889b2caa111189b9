//! Counters of a process for its operator: take-overs, commits, publications, refusals and outages.

use super::outage::Outages;
use crate::core::vocab::partition::Partition;
use crate::core::{Span, Timestamp};
use crate::wire::signature::Signing;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Totals since the process began. The engine counts the totals of the log itself.
#[derive(Debug, Default)]
pub struct OwnerMetrics {
    /// Partitions for which this process has connected to the broker, so that it may take them over.
    pub standing_by: Count,
    pub take_overs: Count,
    /// Commits refused because another worker owns the partition.
    pub fenced: Count,
    pub commits: Count,
    pub commit_times: Durations,
    /// Repeated attempts of a commit, made because the store did not answer.
    pub commit_retries: Count,
    pub published: Count,
    /// Transitions that were not published again, because the transition log already held them with the same text.
    pub suppressed: Count,
    /// Messages published to the aggregate partition.
    pub posted: Count,
    pub publish_retries: Count,
    pub ticks: Count,
    /// Poison records that were skipped.
    pub left_out: Count,
    /// Rule sets refused as a whole.
    pub rules_refused: Count,
    /// Times that a log did not match the checkpoint.
    pub rewinds: Count,
    /// Age of the newest applied record in milliseconds, for the partition that reported last; zero when
    /// every record is applied.
    pub lag_ms: Count,
    /// Servers and disks that do not answer.
    pub outages: Outages,
    /// The key that signs alerts, and the number of forged messages.
    pub signing: Signing,
    /// Active alerts of the partition monitors of this process.
    remarks: Mutex<BTreeMap<u32, Vec<String>>>, // by partition index
    /// Newest log time among the logs that this process applies, in milliseconds since the epoch.
    log_ms: AtomicI64,
    /// Newest stamp that another machine gave to a record, and the instant at which this process received it.
    heard: Mutex<Option<(Timestamp, Instant)>>,
    /// Time to which a log's clock has jumped, in milliseconds since the epoch; 0 without an unconfirmed jump.
    jump_ms: AtomicI64,
}

/// Returns how many log lines were dropped because the logger's queue was full; set by the logger.
pub static LINES_DROPPED: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>> = OnceLock::new();

/// Maximum age of a received stamp from which the log's present time is estimated. The other machine's clock may be
/// adjusted meanwhile, so an older stamp is not used.
const HEARD_FOR: Duration = Duration::from_secs(60);

/// A histogram of durations with cumulative buckets.
#[derive(Debug, Default)]
pub struct Durations {
    below: [Count; DURATION_BOUNDS_MS.len()],
    count: Count,
    sum_us: Count,
}

/// Upper bounds of the histogram buckets in milliseconds. They double up to eight seconds, which is longer than the
/// timeout of a Redis request.
const DURATION_BOUNDS_MS: [u64; 14] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192];

impl Durations {
    pub fn add(&self, took: std::time::Duration) {
        for (bound, below) in DURATION_BOUNDS_MS.iter().zip(&self.below) {
            below.add(u64::from(took.as_micros() <= u128::from(bound * 1_000)));
        }
        self.count.add(1);
        self.sum_us.add(took.as_micros() as u64);
    }

    /// Returns the histogram as Prometheus has it: (bound in seconds, count at or below it), sum in seconds,
    /// count.
    pub fn histogram(&self) -> (Vec<(f64, u64)>, f64, u64) {
        let below = DURATION_BOUNDS_MS.iter().zip(&self.below);
        let below = below.map(|(bound, below)| (*bound as f64 / 1e3, below.get())).collect();
        (below, self.sum_us.get() as f64 / 1e6, self.count.get())
    }
}

/// A counter that many threads may change.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Sets the value, for gauges.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl OwnerMetrics {
    /// Creates metrics that share `outages` and `signing` with the adapters, which record to them.
    pub fn with(outages: Outages, signing: Signing) -> OwnerMetrics {
        OwnerMetrics { outages, signing, ..OwnerMetrics::default() }
    }

    /// Returns the newest log time over the logs that this process applies; the epoch before the first
    /// record.
    pub fn log_time(&self) -> Timestamp {
        Timestamp::clamped(self.log_ms.load(Ordering::Relaxed))
    }

    /// Estimates the present time of a log that another machine stamps: the newest received stamp plus the time since
    /// then. Returns `None` without a recent stamp. This machine's own clock is not used, because it may differ.
    pub fn heard_time(&self) -> Option<Timestamp> {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = heard.filter(|(_, at)| at.elapsed() < HEARD_FOR);
        fresh.map(|(time, at)| time + Span::from_ms(at.elapsed().as_millis() as i64))
    }

    /// Records a stamp that another machine has just given to a record.
    pub fn hear(&self, time: Timestamp) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((time, Instant::now()));
    }

    /// Returns the time to which a log's clock has jumped, while the jump is not confirmed.
    pub fn jumped_to(&self) -> Option<Timestamp> {
        let ms = self.jump_ms.load(Ordering::Relaxed);
        (ms != 0).then_some(Timestamp::clamped(ms))
    }

    pub fn jump(&self, to: Option<Timestamp>) {
        self.jump_ms.store(to.map_or(0, Timestamp::ms), Ordering::Relaxed);
    }

    /// Replaces the remarks about a partition, which describe its active monitor alerts, one line each.
    pub fn remark(&self, partition: Partition, remarks: Vec<String>) {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner).insert(partition.index, remarks);
    }

    /// Returns the remarks of all partitions.
    pub fn remarks(&self) -> Vec<String> {
        let remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        remarks.values().flatten().cloned().collect()
    }

    /// Raises the newest log time to `now`, if `now` is later.
    pub fn reach(&self, now: Timestamp) {
        self.log_ms.fetch_max(now.ms(), Ordering::Relaxed);
    }

    /// Returns name, help text and value of each counter.
    pub fn all(&self) -> [(&'static str, &'static str, u64); 13] {
        [
            (
                "take_overs_total",
                "Times that this process became owner of a partition.",
                self.take_overs.get(),
            ),
            (
                "commits_fenced_total",
                "Commits refused because this worker's fencing token was stale.",
                self.fenced.get(),
            ),
            ("commits_total", "Commits to the store.", self.commits.get()),
            ("commit_retries_total", "Commits sent again because no answer came.", self.commit_retries.get()),
            ("transitions_published_total", "Transitions published.", self.published.get()),
            (
                "transitions_suppressed_total",
                "Transitions that were published before.",
                self.suppressed.get(),
            ),
            ("partials_posted_total", "Messages sent to the aggregate.", self.posted.get()),
            (
                "publish_retries_total",
                "Publications sent again because no answer came.",
                self.publish_retries.get(),
            ),
            (
                "alerts_forged_total",
                "Messages among the alerts that no worker signed.",
                self.signing.forged(),
            ),
            ("ticks_total", "Ticks appended to the log.", self.ticks.get()),
            ("records_left_out_total", "Poison records that were skipped.", self.left_out.get()),
            ("rules_refused_total", "Rule sets refused as a whole.", self.rules_refused.get()),
            ("log_rewinds_total", "Logs that do not match the checkpoint.", self.rewinds.get()),
        ]
    }
}
