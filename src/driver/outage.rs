//! Outages: the servers and disks that do not answer, with place and start time, and the request to stop waiting for
//! them.
//!
//! Intuition: the process waits for an unreachable server and never exits because of it, but operators must be
//! informed, and other work must continue meanwhile. So each component that waits records the outage here, and each
//! component that answers requests checks here first. Invariant: an outage is logged when it begins, each minute
//! while it lasts, and when it ends, however many components wait for the same server.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between two log lines about the same outage.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Names under which outages of the log and the store of a data dir are recorded.
pub const LOG: &str = "log";
pub const STORE: &str = "store";

/// Outages of one process; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Outages(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether outages are neither recorded nor logged.
    is_quiet: bool,
    is_any: AtomicBool,
    is_stopping: AtomicBool,
    /// Current outages, by name and partition.
    all: Mutex<BTreeMap<(&'static str, u32), Down>>,
    /// The newest error of each server that refused something, and when a refusal was last logged.
    refusals: Mutex<BTreeMap<&'static str, (String, Instant)>>,
}

#[derive(Debug)]
struct Down {
    place: String,
    error: String,
    begun: Instant,
    said: Instant,
    /// The time of the newest attempt.
    tried: Instant,
}

/// One outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// The name, such as `nats`, `redis`, `log` or `store`.
    pub what: &'static str,
    /// The address or path, without a password.
    pub place: String,
    pub error: String,
    pub lasted: Duration,
}

impl Outages {
    /// Creates a list that records nothing, for a connection whose outages are reported elsewhere or do not
    /// matter.
    pub fn quiet() -> Outages {
        Outages(Arc::new(Inner { is_quiet: true, ..Inner::default() }))
    }

    /// Records that a server or disk did not answer.
    pub fn begin(&self, what: &'static str, place: &str, error: &dyn std::fmt::Display) {
        self.begin_of((what, 0), place, error);
    }

    /// Records that one partition cannot continue.
    pub fn begin_of(
        &self,
        (what, partition): (&'static str, u32),
        place: &str,
        error: &dyn std::fmt::Display,
    ) {
        if self.0.is_quiet {
            return;
        }
        let mut all = self.lock();
        self.0.is_any.store(true, Ordering::Relaxed);
        let now = Instant::now();
        let down = all.entry((what, partition)).or_insert_with(|| {
            tracing::warn!(what, place, %error, "unavailable; waiting for it");
            Down { place: place.into(), error: String::new(), begun: now, said: now, tried: now }
        });
        down.tried = now;
        down.error = error.to_string();
        if now.duration_since(down.said) >= SAID_EVERY {
            down.said = now;
            let secs = now.duration_since(down.begun).as_secs();
            tracing::warn!(what, place, %error, secs, "still unavailable; waiting for it");
        }
    }

    /// Ends an outage, because the server or disk has answered.
    #[inline]
    pub fn end(&self, what: &'static str) {
        self.end_of((what, 0));
    }

    /// Ends an outage of one partition, because the partition continues.
    #[inline]
    pub fn end_of(&self, of: (&'static str, u32)) {
        if self.0.is_any.load(Ordering::Relaxed) {
            self.end_known(of);
        }
    }

    fn end_known(&self, (what, partition): (&'static str, u32)) {
        let mut all = self.lock();
        if let Some(down) = all.remove(&(what, partition)) {
            let secs = down.begun.elapsed().as_secs();
            tracing::info!(what, place = down.place, secs, "available again");
        }
        self.0.is_any.store(!all.is_empty(), Ordering::Relaxed);
    }

    /// Records that a reachable server has refused a request, for example because of a missing permission. The
    /// refusal is logged at most once a minute.
    pub fn refuse(&self, what: &'static str, place: &str, error: &dyn std::fmt::Display) {
        let (error, now) = (error.to_string(), Instant::now());
        let mut refusals = self.0.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let said = refusals.get(what).map(|(_, said)| *said);
        let is_due = said.is_none_or(|said| now.duration_since(said) >= SAID_EVERY);
        if is_due {
            tracing::warn!(what, place, error, "the server refuses a request");
        }
        refusals.insert(what, (error, said.filter(|_| !is_due).unwrap_or(now)));
    }

    /// Forgets the refusal, because the connection to the server is a new one.
    pub fn forget_refusal(&self, what: &str) {
        self.0.refusals.lock().unwrap_or_else(PoisonError::into_inner).remove(what);
    }

    /// Returns the newest error of a server that refused something.
    pub fn refusal(&self, what: &str) -> Option<String> {
        let refusals = self.0.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.get(what).map(|(words, _)| words.clone())
    }

    /// Returns the current outages.
    pub fn all(&self) -> Vec<Outage> {
        if !self.0.is_any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let outage = |((what, _), down): (&(&'static str, u32), &Down)| {
            let (place, error) = (down.place.clone(), down.error.clone());
            Outage { what, place, error, lasted: down.begun.elapsed() }
        };
        self.lock().iter().map(outage).collect()
    }

    /// Whether there is an outage of this name.
    pub fn is_away(&self, what: &'static str) -> bool {
        self.is_any() && self.lock().contains_key(&(what, 0))
    }

    /// Whether an attempt failed within the last `span`. Another attempt would probably wait for the same timeout
    /// again.
    pub fn was_tried_within(&self, what: &'static str, span: Duration) -> bool {
        self.is_any() && self.lock().get(&(what, 0)).is_some_and(|down| down.tried.elapsed() < span)
    }

    pub fn is_any(&self) -> bool {
        self.0.is_any.load(Ordering::Relaxed)
    }

    /// Ends all waiting for unreachable servers, because the process is stopping.
    pub fn give_up(&self) {
        self.0.is_stopping.store(true, Ordering::Relaxed);
    }

    pub fn is_giving_up(&self) -> bool {
        self.0.is_stopping.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(&'static str, u32), Down>> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_from_the_first_failure_to_the_first_answer() {
        let outages = Outages::default();
        outages.end("redis");
        assert!(outages.all().is_empty());
        outages.begin("redis", "127.0.0.1:6379", &"refused");
        outages.begin("redis", "127.0.0.1:6379", &"timed out");
        outages.begin("nats", "127.0.0.1:4222", &"refused");
        let all: Vec<_> = outages.clone().all().into_iter().map(|one| (one.what, one.error)).collect();
        assert_eq!(all, [("nats", "refused".to_string()), ("redis", "timed out".to_string())]);
        assert!(
            outages.was_tried_within("redis", SAID_EVERY) && !outages.was_tried_within("log", SAID_EVERY)
        );
        assert!(!outages.was_tried_within("redis", Duration::ZERO));
        outages.end("nats");
        assert!(outages.is_any());
        outages.end("redis");
        assert!(!outages.is_any() && !outages.is_giving_up());
        outages.refuse("nats", "127.0.0.1:4222", &"permissions violation");
        assert_eq!(outages.refusal("nats").as_deref(), Some("permissions violation"));
        assert!(!outages.is_any() && outages.refusal("redis").is_none(), "it answers");
        outages.forget_refusal("nats");
        assert!(outages.refusal("nats").is_none());
    }
}
