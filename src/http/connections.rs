//! Connections: how many are allowed, and which one is evicted when there are too many.
//!
//! Intuition: a connection is either working on a complete request or waiting for its client: for a request head, for
//! more of a body, or for the client to read an answer. Waiting costs the client nothing, so a hostile client keeps
//! many connections waiting. When there is no room, the connection whose client is furthest behind is closed. A
//! silent client falls behind by one second per second. A client that sends single bytes falls behind almost as fast.
//! A client that sends at `BYTES_PER_SEC_MIN` or faster does not fall behind.
//! Invariant: a working connection is never closed for another one; a new client is refused only while all
//! connections are working. Rejected: refusing the newest client when all places are taken (1,000 silent
//! clients would lock out all others); a limit per address (a proxy is one address); ordering by the time of
//! the newest byte (1,000 clients that send one byte each 70 ms are always newer than an honest client that
//! is sending its body).

use crate::driver::metrics::Count;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Maximum number of connections if the limit on open files allows it. A waiting connection costs about 64
/// KiB at most.
const CONNECTIONS_MAX: usize = 1_024;

/// Open files reserved for the database, the connections to servers and the rule files.
const FILES_KEPT: u64 = 192;

/// Lower bound of the maximum number of connections, used even if the limit on open files is lower.
const CONNECTIONS_MIN: usize = 64;

/// Minimum rate in bytes per second at which a client that sends a body does not fall behind: a tenth of a slow
/// mobile connection.
const BYTES_PER_SEC_MIN: u32 = 16 << 10;

/// All connections of the service.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    inner: Mutex<Inner>,
    pub counts: Counts,
}

/// Totals since the process started.
#[derive(Debug, Default)]
pub struct Counts {
    pub accepted: Count,
    /// Connections closed to make room because their clients were furthest behind.
    pub evicted: Count,
    /// Connections closed at once because all others were working.
    pub refused: Count,
}

#[derive(Debug, Default)]
struct Inner {
    open: usize,
    next: u64,
    /// Connections that wait for their clients, the one furthest behind first.
    waiting: BTreeMap<Ticket, CancellationToken>,
}

/// The key of a waiting connection: the instant since which its client counts as silent, and a unique number.
/// Received bytes move the instant forward, by one second for each `BYTES_PER_SEC_MIN` bytes, at most to the present.
type Ticket = (Instant, u64);

/// One connection. Dropping it frees its place.
#[derive(Debug)]
pub struct Connection {
    all: Arc<Connections>,
    ticket: Mutex<Option<Ticket>>,
    pub peer: SocketAddr,
    /// Cancelled when the connection is evicted.
    pub evicted: CancellationToken,
}

impl Connections {
    /// Derives the maximum from the process's limit on open files.
    pub fn new() -> Arc<Connections> {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let room = files.map_or(CONNECTIONS_MAX, |files| files.saturating_sub(FILES_KEPT) as usize / 2);
        Connections::with_max(room.clamp(CONNECTIONS_MIN, CONNECTIONS_MAX))
    }

    pub fn with_max(max: usize) -> Arc<Connections> {
        Arc::new(Connections { max, inner: Mutex::default(), counts: Counts::default() })
    }

    /// Registers a new connection, which starts as waiting. At the maximum, the connection furthest behind is
    /// evicted. Returns `None` if all connections are working.
    pub fn open(self: &Arc<Connections>, peer: SocketAddr) -> Option<Arc<Connection>> {
        let mut inner = self.lock();
        if inner.open >= self.max && !self.evict(&mut inner, Duration::ZERO) {
            self.counts.refused.add(1);
            return None;
        }
        inner.open += 1;
        self.counts.accepted.add(1);
        let evicted = CancellationToken::new();
        let ticket = inner.wait(Instant::now(), &evicted);
        Some(Arc::new(Connection { all: self.clone(), ticket: Mutex::new(Some(ticket)), peer, evicted }))
    }

    /// Closes the connection whose client is furthest behind, if it is behind by at least `stalled`.
    pub fn evict_stalled(&self, stalled: Duration) -> bool {
        self.evict(&mut self.lock(), stalled)
    }

    fn evict(&self, inner: &mut Inner, stalled: Duration) -> bool {
        let Some(slowest) = inner.waiting.first_entry() else { return false };
        if slowest.key().0.elapsed() < stalled {
            return false;
        }
        slowest.remove().cancel();
        self.counts.evicted.add(1);
        true
    }

    pub fn open_count(&self) -> usize {
        self.lock().open
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn wait(&mut self, since: Instant, evicted: &CancellationToken) -> Ticket {
        self.next += 1;
        let ticket = (since, self.next);
        self.waiting.insert(ticket, evicted.clone());
        ticket
    }
}

impl Connection {
    /// Marks the connection as waiting from now on, because the answer is ready for the client.
    pub fn wait(&self) {
        self.wait_since(|_, now| now);
    }

    /// Credits the client with `bytes` received bytes of a body, which postpones the eviction of its connection.
    pub fn progress(&self, bytes: usize) {
        let worth = Duration::from_secs(1).mul_f64(bytes as f64 / f64::from(BYTES_PER_SEC_MIN));
        self.wait_since(|before, now| (before.unwrap_or(now) + worth).min(now));
    }

    fn wait_since(&self, since: impl Fn(Option<Instant>, Instant) -> Instant) {
        let mut ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inner = self.all.lock();
        // An evicted connection must not return to the waiting ones.
        if ticket.is_some_and(|known| inner.waiting.remove(&known).is_none()) {
            return;
        }
        let since = since(ticket.map(|(since, _)| since), Instant::now());
        *ticket = Some(inner.wait(since, &self.evicted));
    }

    /// Marks the connection as working: the request is complete and the client waits for the answer.
    pub fn work(&self) {
        let mut ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = *ticket
            && self.all.lock().waiting.remove(&known).is_some()
        {
            *ticket = None;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let ticket = self.ticket.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let mut inner = self.all.lock();
        inner.open -= 1;
        if let Some(ticket) = ticket {
            inner.waiting.remove(&ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        ([127, 0, 0, 1], 1).into()
    }

    #[test]
    fn a_client_that_sends_a_byte_now_and_then_makes_room_for_one_that_came_later() {
        let all = Connections::with_max(2);
        let slow = all.open(peer()).expect("room");
        std::thread::sleep(Duration::from_millis(20));
        let honest = all.open(peer()).expect("room");
        (0..10).for_each(|_| slow.progress(1));
        assert!(all.open(peer()).is_some() && slow.evicted.is_cancelled() && !honest.evicted.is_cancelled());
        drop(slow);
        std::thread::sleep(Duration::from_millis(2));
        let silent = all.open(peer()).expect("room");
        std::thread::sleep(Duration::from_millis(2));
        honest.progress(1 << 20);
        assert!(all.open(peer()).is_some() && silent.evicted.is_cancelled(), "who sends fast is not behind");
    }

    #[test]
    fn the_client_that_waits_longest_makes_room() {
        let all = Connections::with_max(2);
        let (first, second) = (all.open(peer()).expect("room"), all.open(peer()).expect("room"));
        first.wait();
        let third = all.open(peer()).expect("the second one goes");
        assert!(second.evicted.is_cancelled() && !first.evicted.is_cancelled());
        second.wait();
        drop(second);
        assert_eq!((all.open_count(), all.counts.evicted.get()), (2, 1));
        first.work();
        third.work();
        assert!(all.open(peer()).is_none(), "all are at work");
        assert_eq!(all.counts.refused.get(), 1);
        third.wait();
        assert!(!all.evict_stalled(Duration::from_secs(60)));
        assert!(all.open(peer()).is_some() && third.evicted.is_cancelled());
    }
}
