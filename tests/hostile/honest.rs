//! A client that behaves, and an alert beside it: what they notice of the others.
//!
//! Intuition: every 50 ms one good event is posted and `/healthz` asked, each over a connection of its own, as a
//! client that has just come; every second one source is too hot, is told of, cools down and is told of again.
//! Invariant: each event is acknowledged, and what was acknowledged stands in the windows, once.

use crate::alarms::Alarms;
use crate::bodies::{JSON, metric};
use crate::exchange::{exchange, get, other_than, request};
use crate::limits::HANG;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two events.
const BETWEEN: Duration = Duration::from_millis(50);

/// Time in which everything that is acknowledged stands in the windows.
const SETTLED_WITHIN: Duration = Duration::from_secs(10);

pub struct Honest {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

pub struct Shared {
    address: SocketAddr,
    pub alerts: PathBuf,
    is_over: AtomicBool,
    seen: Mutex<Seen>,
}

/// Everything noticed since it was last asked, and the ledger.
#[derive(Debug, Default)]
struct Seen {
    noticed: Noticed,
    /// Events that were begun and not yet answered.
    waiting: Vec<Instant>,
    acknowledged: u64,
    /// Events of which nobody knows whether they were taken.
    unknown: u64,
    told: u64,
    resolved: u64,
}

#[derive(Debug, Default)]
pub struct Noticed {
    /// The longest time until an event was acknowledged, until `/healthz` answered, until an alert was told.
    pub event: Duration,
    pub health: Duration,
    pub alert: Duration,
    pub wrong: Vec<String>,
}

impl Honest {
    pub fn start(address: SocketAddr, alerts: PathBuf) -> Honest {
        let (is_over, seen) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { address, alerts, is_over, seen });
        let (first, second) = (shared.clone(), shared.clone());
        let threads = vec![
            std::thread::spawn(move || first.send_and_watch()),
            std::thread::spawn(move || second.look_after_health()),
        ];
        Honest { shared, threads }
    }

    /// Posts one more event, behind whatever was sent before: it is answered when that is done with.
    pub fn post_behind(&self) {
        self.shared.post_one();
    }

    pub fn take(&self) -> Noticed {
        let mut seen = self.shared.lock();
        let pending = seen.waiting.iter().map(Instant::elapsed).max().unwrap_or_default();
        let noticed = std::mem::take(&mut seen.noticed);
        Noticed { event: noticed.event.max(pending), ..noticed }
    }

    /// Ends both; what is wrong in the ledger, and how many alerts were told and resolved.
    pub fn finish(self) -> (Vec<String>, u64, u64) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("an honest client does not panic");
        }
        let mut wrong = self.shared.settle();
        let mut seen = self.shared.lock();
        wrong.append(&mut seen.noticed.wrong);
        (wrong, seen.told, seen.resolved)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn send_and_watch(&self) {
        let mut alarms = Alarms::new();
        while !self.is_over() {
            self.post_one();
            alarms.turn(self);
            std::thread::sleep(BETWEEN);
        }
    }

    fn look_after_health(&self) {
        while !self.is_over() {
            let begun = Instant::now();
            let wrong = other_than(200, &exchange(self.address, &get("/healthz"), HANG));
            let mut seen = self.lock();
            seen.noticed.health = seen.noticed.health.max(begun.elapsed());
            seen.noticed.wrong.extend(wrong.map(|what| format!("/healthz beside it: {what}")));
            drop(seen);
            std::thread::sleep(BETWEEN);
        }
    }

    /// One event of the ledger.
    fn post_one(&self) {
        let is_acknowledged = self.post(&metric("honest", "temp", "")).is_some();
        let mut seen = self.lock();
        match is_acknowledged {
            true => seen.acknowledged += 1,
            false => seen.unknown += 1,
        }
    }

    /// Time until these events were acknowledged; `None` if they were not.
    pub fn post(&self, events: &str) -> Option<Duration> {
        let begun = Instant::now();
        self.lock().waiting.push(begun);
        let bytes = request("POST", "/api/v1/events", &[("Content-Type", JSON)], events.as_bytes());
        let wrong = other_than(202, &exchange(self.address, &bytes, HANG));
        let took = begun.elapsed();
        let mut seen = self.lock();
        if let Some(at) = seen.waiting.iter().position(|one| *one == begun) {
            seen.waiting.swap_remove(at);
        }
        seen.noticed.event = seen.noticed.event.max(took);
        let is_taken = wrong.is_none();
        seen.noticed.wrong.extend(wrong.map(|what| format!("an honest event was not acknowledged: {what}")));
        is_taken.then_some(took)
    }

    /// An alert was told so long after its event was acknowledged.
    pub fn note_told(&self, after: Duration) {
        let mut seen = self.lock();
        seen.told += 1;
        seen.noticed.alert = seen.noticed.alert.max(after);
    }

    pub fn note_resolved(&self) {
        self.lock().resolved += 1;
    }

    pub fn note_wrong(&self, what: String) {
        self.lock().noticed.wrong.push(what);
    }

    /// Compares the ledger with the windows.
    fn settle(&self) -> Vec<String> {
        let (acknowledged, unknown) = {
            let seen = self.lock();
            (seen.acknowledged, seen.unknown)
        };
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let counted = self.counted();
            if counted.is_some_and(|count| (acknowledged..=acknowledged + unknown).contains(&count)) {
                return Vec::new();
            }
            if Instant::now() > until {
                let of = format!("{acknowledged} acknowledged, {unknown} unknown");
                return vec![format!("honest events in the windows: {counted:?} of {of}")];
            }
            std::thread::sleep(BETWEEN);
        }
    }

    fn counted(&self) -> Option<u64> {
        let path = "/api/v1/windows?source=honest&name=temp&window=1m&from=-2h";
        let answer = exchange(self.address, &get(path), HANG).ok()?;
        let found: Value = serde_json::from_slice(&answer.body).ok()?;
        let windows = found["windows"].as_array()?;
        Some(windows.iter().filter_map(|window| window["count"].as_u64()).sum())
    }
}
