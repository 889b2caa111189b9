//! Connections: how many there may be, and which one goes when there are too many.
//!
//! Intuition: a connection is either at work on a whole request, or it waits for its client: for a head, for more of
//! a body, or for an answer to be taken. Waiting costs the client nothing, so a hostile one waits as often as it can.
//! When there is no room, the connection whose client is furthest behind is closed: one that sends nothing falls
//! behind by a second each second, one that sends a byte now and then by nearly as much, one that sends at
//! [`BYTES_PER_SEC_MIN`] or faster not at all.
//! Invariant: a connection at work is never closed for another one; a new client is refused only while all are at
//! work. Rejected: refusing the newest when all places are taken (a thousand silent clients lock everybody out), a
//! limit for each address (a proxy is one address), the time of the newest byte (a thousand clients that send one byte
//! each 70 ms are always newer than an honest client whose body is on its way).

use crate::driver::tally::Count;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Connections at once, if the limit of open files allows it: each costs about 64 KiB at most while it waits.
const CONNECTIONS_MAX: usize = 1_024;

/// Open files that are left for the database, the servers and the rules.
const FILES_KEPT: u64 = 192;

/// Connections where the limit of open files is not known, or is lower than what is kept.
const CONNECTIONS_MIN: usize = 64;

/// Clients that send a body at this rate are not behind: a tenth of a slow mobile line.
const BYTES_PER_SEC_MIN: u32 = 16 << 10;

/// All connections of a service.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    inner: Mutex<Inner>,
    pub counts: Counts,
}

/// Totals since the process began.
#[derive(Debug, Default)]
pub struct Counts {
    pub accepted: Count,
    /// Closed to make room, as their clients were furthest behind.
    pub evicted: Count,
    /// Closed at once, as all were at work.
    pub refused: Count,
}

#[derive(Debug, Default)]
struct Inner {
    open: usize,
    next: u64,
    /// Those that wait for their clients, the one that is furthest behind first.
    waiting: BTreeMap<Ticket, CancellationToken>,
}

/// Since when a client would have sent nothing, had it sent what it did at the least rate; and a number of its own.
type Ticket = (Instant, u64);

/// One connection; dropped, its place is free.
#[derive(Debug)]
pub struct Connection {
    all: Arc<Connections>,
    ticket: Mutex<Option<Ticket>>,
    pub peer: SocketAddr,
    /// Cancelled when the connection has to go.
    pub evicted: CancellationToken,
}

impl Connections {
    /// As many as the process may have files open for.
    pub fn new() -> Arc<Connections> {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let room = files.map_or(CONNECTIONS_MAX, |files| files.saturating_sub(FILES_KEPT) as usize / 2);
        Connections::with_max(room.clamp(CONNECTIONS_MIN, CONNECTIONS_MAX))
    }

    pub fn with_max(max: usize) -> Arc<Connections> {
        Arc::new(Connections { max, inner: Mutex::default(), counts: Counts::default() })
    }

    /// A place for a new connection, which waits; `None` while all are at work.
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

    /// Closes the connection whose client is furthest behind, if that is at least `stalled`.
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
    /// The client got its answer, and is waited for anew.
    pub fn wait(&self) {
        self.wait_since(|_, now| now);
    }

    /// The client sent so many bytes of a body.
    pub fn progress(&self, bytes: usize) {
        let worth = Duration::from_secs(1).mul_f64(bytes as f64 / f64::from(BYTES_PER_SEC_MIN));
        self.wait_since(|before, now| (before.unwrap_or(now) + worth).min(now));
    }

    fn wait_since(&self, since: impl Fn(Option<Instant>, Instant) -> Instant) {
        let mut ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inner = self.all.lock();
        // One that is closed already is not waited for again.
        if ticket.is_some_and(|known| inner.waiting.remove(&known).is_none()) {
            return;
        }
        let since = since(ticket.map(|(since, _)| since), Instant::now());
        *ticket = Some(inner.wait(since, &self.evicted));
    }

    /// The request is there: the client waits for us.
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
