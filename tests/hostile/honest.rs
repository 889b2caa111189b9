//! An honest client and its alerts: the effect that other clients have on them.
//!
//! Intuition: every 50 ms one valid event is posted and `/healthz` is queried, each over a connection of
//! its own, like a client that has just arrived. Every second one source exceeds its limit, its alert
//! fires, and the source returns to normal until the alert is resolved. Invariant: each event is
//! acknowledged, and each acknowledged event is counted in the windows exactly once.

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

/// Pause between two events.
const BETWEEN: Duration = Duration::from_millis(50);

/// Time within which all acknowledged events must be in the windows.
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

/// Everything noticed since the last call of [`Honest::take`], and the ledger.
#[derive(Debug, Default)]
struct Seen {
    noticed: Noticed,
    /// Send times of the events that are not answered yet.
    waiting: Vec<Instant>,
    acknowledged: u64,
    /// Events without an acknowledgement: they may or may not have been recorded.
    unknown: u64,
    told: u64,
    resolved: u64,
}

#[derive(Debug, Default)]
pub struct Noticed {
    /// The longest time until an event was acknowledged, `/healthz` answered, and an alert was published.
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

    /// Posts one more event behind earlier requests; its answer shows that their work is done.
    pub fn post_behind(&self) {
        self.shared.post_one();
    }

    pub fn take(&self) -> Noticed {
        let mut seen = self.shared.lock();
        let pending = seen.waiting.iter().map(Instant::elapsed).max().unwrap_or_default();
        let noticed = std::mem::take(&mut seen.noticed);
        Noticed { event: noticed.event.max(pending), ..noticed }
    }

    /// Stops both threads. Returns what is wrong with the ledger, and the number of published and of
    /// resolved alerts.
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

    /// Posts one event of the ledger.
    fn post_one(&self) {
        let is_acknowledged = self.post(&metric("honest", "temp", "")).is_some();
        let mut seen = self.lock();
        match is_acknowledged {
            true => seen.acknowledged += 1,
            false => seen.unknown += 1,
        }
    }

    /// Posts events. Returns the time until they were acknowledged, or `None` if they were not.
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

    /// Records that an alert was published this long after its event was acknowledged.
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
