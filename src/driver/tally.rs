//! What the protocol had to cope with, counted for whoever looks after it.

use super::outage::Outages;
use crate::core::partition::Partition;
use crate::core::{Span, Timestamp};
use crate::wire::signature::Signing;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Totals since the process began; those of the log itself are the engine's.
#[derive(Debug, Default)]
pub struct Tally {
    /// Partitions that have reached the broker and may be taken over here.
    pub standing_by: Count,
    pub take_overs: Count,
    /// Commits that were refused because another worker owns the partition.
    pub fenced: Count,
    pub commits: Count,
    pub commit_times: Durations,
    /// Attempts beyond the first, as no answer came.
    pub commit_retries: Count,
    pub published: Count,
    /// Transitions that were on the board already, word for word.
    pub suppressed: Count,
    /// Messages to the aggregate.
    pub posted: Count,
    pub publish_retries: Count,
    pub ticks: Count,
    /// Records left out, as they killed whoever read them.
    pub left_out: Count,
    /// Rule sets that were refused whole.
    pub rules_refused: Count,
    /// Logs that turned out to have gone back.
    pub rewinds: Count,
    /// Age of the newest record applied, in milliseconds; zero when all were. The last partition's that
    /// looked.
    pub lag_ms: Count,
    /// What does not answer.
    pub outages: Outages,
    /// What is known of messages that others put among ours.
    pub signing: Signing,
    /// What the sentinels of its partitions have told and not taken back.
    remarks: Mutex<BTreeMap<u32, Vec<String>>>, // by the number of the partition
    /// The newest time of the logs that this process applies.
    log_ms: AtomicI64,
    /// The time of a log that others stamp, as a record that had just come said it, and when that was.
    heard: Mutex<Option<(Timestamp, Instant)>>,
    /// To where a log's clock has jumped that is not believed yet; 0 where none has.
    jump_ms: AtomicI64,
}

/// How many lines of the log found no room, as whoever writes it counts them.
pub static LINES_DROPPED: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>> = OnceLock::new();

/// A time that was heard longer ago is heard anew: clocks are set.
const HEARD_FOR: Duration = Duration::from_secs(60);

/// How long something took: how often it was below each bound.
#[derive(Debug, Default)]
pub struct Durations {
    below: [Count; DURATION_BOUNDS_MS.len()],
    count: Count,
    sum_us: Count,
}

/// Bounds of what is told apart, doubling up to eight seconds, which is longer than Redis may take.
const DURATION_BOUNDS_MS: [u64; 14] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192];

impl Durations {
    pub fn add(&self, took: std::time::Duration) {
        for (bound, below) in DURATION_BOUNDS_MS.iter().zip(&self.below) {
            below.add(u64::from(took.as_micros() <= u128::from(bound * 1_000)));
        }
        self.count.add(1);
        self.sum_us.add(took.as_micros() as u64);
    }

    /// As a Prometheus histogram has it: (bound in seconds, how often at or below), sum in seconds,
    /// count.
    pub fn histogram(&self) -> (Vec<(f64, u64)>, f64, u64) {
        let below = DURATION_BOUNDS_MS.iter().zip(&self.below);
        let below = below.map(|(bound, below)| (*bound as f64 / 1e3, below.get())).collect();
        (below, self.sum_us.get() as f64 / 1e6, self.count.get())
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// For those that are no totals.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    /// With what others note, too.
    pub fn with(outages: Outages, signing: Signing) -> Tally {
        Tally { outages, signing, ..Tally::default() }
    }

    /// The newest time of the logs that this process applies; the epoch before the first.
    pub fn log_time(&self) -> Timestamp {
        Timestamp::clamped(self.log_ms.load(Ordering::Relaxed))
    }

    /// The present time of a log that others stamp, once a record has come that told it: the clock of this machine
    /// may be another one.
    pub fn heard_time(&self) -> Option<Timestamp> {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = heard.filter(|(_, at)| at.elapsed() < HEARD_FOR);
        fresh.map(|(time, at)| time + Span::from_ms(at.elapsed().as_millis() as i64))
    }

    /// A record has come a moment after its log was stamped with this time.
    pub fn hear(&self, time: Timestamp) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((time, Instant::now()));
    }

    /// To where a log's clock has jumped, while that is not believed.
    pub fn jumped_to(&self) -> Option<Timestamp> {
        let ms = self.jump_ms.load(Ordering::Relaxed);
        (ms != 0).then_some(Timestamp::clamped(ms))
    }

    pub fn jump(&self, to: Option<Timestamp>) {
        self.jump_ms.store(to.map_or(0, Timestamp::ms), Ordering::Relaxed);
    }

    /// What is wrong with a partition that goes on.
    pub fn remark(&self, partition: Partition, remarks: Vec<String>) {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner).insert(partition.index, remarks);
    }

    /// The same of all partitions.
    pub fn remarks(&self) -> Vec<String> {
        let remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        remarks.values().flatten().cloned().collect()
    }

    /// A log has come to this time.
    pub fn reach(&self, now: Timestamp) {
        self.log_ms.fetch_max(now.ms(), Ordering::Relaxed);
    }

    /// Name, meaning and value of each.
    pub fn all(&self) -> [(&'static str, &'static str, u64); 13] {
        [
            (
                "take_overs_total",
                "Times that this process became owner of a partition.",
                self.take_overs.get(),
            ),
            (
                "commits_fenced_total",
                "Commits refused, as lease or checkpoint were not this worker's any more.",
                self.fenced.get(),
            ),
            ("commits_total", "Commits to the store.", self.commits.get()),
            ("commit_retries_total", "Commits sent again as no answer came.", self.commit_retries.get()),
            ("transitions_published_total", "Transitions put on the board.", self.published.get()),
            (
                "transitions_suppressed_total",
                "Transitions that were on the board before.",
                self.suppressed.get(),
            ),
            ("partials_posted_total", "Messages sent to the aggregate.", self.posted.get()),
            (
                "publish_retries_total",
                "Publications sent again as no answer came.",
                self.publish_retries.get(),
            ),
            (
                "alerts_forged_total",
                "Messages among the alerts that no worker signed.",
                self.signing.forged(),
            ),
            ("ticks_total", "Ticks appended to the log.", self.ticks.get()),
            ("records_left_out_total", "Records left out as they kill workers.", self.left_out.get()),
            ("rules_refused_total", "Rule sets refused whole.", self.rules_refused.get()),
            ("log_rewinds_total", "Logs that had gone back, which stops the partition.", self.rewinds.get()),
        ]
    }
}
