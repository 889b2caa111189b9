//! Answers by `Idempotency-Key`, so that a retried request changes nothing.
//!
//! Intuition: the first request with a key does the work. A request with the same key and body that arrives
//! meanwhile waits for the answer; one that arrives later gets the answer at once. Another body under the
//! same key is an error of the client: answering it with the stored answer would lose the new body.
//! Invariant: each operation is O(1) in the size of the table. Keys are hashed with a seed of the process, so
//! a client cannot construct colliding keys. Rejected: scanning the table when it is full.

use crate::core::Timestamp;
use crate::driver::ports::{REQUESTS_KEPT, REQUESTS_MAX, RequestId};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Time for which an answer is remembered.
const KEPT: Duration = Duration::from_millis(REQUESTS_KEPT.ms() as u64);

/// Limit in bytes on all stored answers of the kind [`Given::Text`] together.
const TEXT_BYTES_MAX: usize = 16 << 20;

/// A stored answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// All events of the payload were accepted.
    All(usize),
    Text(Arc<str>),
}

/// The table of all idempotency keys.
#[derive(Debug)]
pub struct Keys {
    seed: u64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_key: HashMap<u128, Entry>,
    /// Keys in the order of their insertion.
    order: VecDeque<(u128, Instant)>,
    text_bytes: usize,
    evicted: u64,
}

#[derive(Debug)]
struct Entry {
    body: u128,
    begun: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Begun(watch::Receiver<Option<Given>>),
    Done(Given),
    /// An earlier process appended the request at this log time.
    Appended(Timestamp),
}

/// The result of looking up a key.
#[derive(Debug)]
pub enum Found {
    /// The key is new: the caller has to do the work and finish the turn.
    First(Turn),
    Known(Given),
    /// An earlier process appended the events of this request at this log time; the caller has to build the
    /// answer again.
    Appended(Timestamp),
    /// The key was used with another body.
    OtherBody,
}

/// The exclusive right to process the request of a key. Its holder calls [`Turn::finish`] with the answer. Dropping
/// it without that frees the key for the next request.
#[derive(Debug)]
pub struct Turn {
    keys: Arc<Keys>,
    key: u128,
    begun: Instant,
    answer: watch::Sender<Option<Given>>,
}

impl Keys {
    /// Creates the table with the requests that an earlier process appended, each with its age, oldest first.
    pub fn new(seed: u64, appended: impl IntoIterator<Item = (Duration, RequestId)>) -> Arc<Keys> {
        let mut table = Table::default();
        let now = Instant::now();
        for (age, RequestId { key, body, at }) in appended {
            // The age may reach back before the start of the machine, which an `Instant` cannot express.
            let begun = now.checked_sub(age).unwrap_or(now);
            let key = xxh3_128_with_seed(&key, seed);
            table.by_key.insert(key, Entry { body, begun, state: State::Appended(at) });
            table.order.push_back((key, begun));
        }
        Arc::new(Keys { seed, table: Mutex::new(table) })
    }

    /// Looks up the key of a request. If a request with the same key is running, waits for its answer.
    pub async fn find(self: &Arc<Keys>, id: &RequestId) -> Found {
        let (key, body) = (xxh3_128_with_seed(&id.key, self.seed), id.body);
        loop {
            let mut waiting = match self.look(key, body) {
                Ok(found) => return found,
                Err(waiting) => waiting,
            };
            let answer = waiting.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
            if let Some(answer) = answer {
                return Found::Known(answer);
            }
            // The running request failed without an answer, so one of the waiting requests starts.
        }
    }

    fn look(self: &Arc<Keys>, key: u128, body: u128) -> Result<Found, watch::Receiver<Option<Given>>> {
        let mut table = self.lock();
        table.forget();
        match table.by_key.get(&key) {
            Some(entry) if entry.body != body => Ok(Found::OtherBody),
            Some(Entry { state: State::Done(given), .. }) => Ok(Found::Known(given.clone())),
            Some(Entry { state: State::Appended(at), .. }) => Ok(Found::Appended(*at)),
            Some(Entry { state: State::Begun(waiting), .. }) => Err(waiting.clone()),
            None => {
                let (answer, waiting) = watch::channel(None);
                let begun = Instant::now();
                table.by_key.insert(key, Entry { body, begun, state: State::Begun(waiting) });
                table.order.push_back((key, begun));
                Ok(Found::First(Turn { keys: self.clone(), key, begun, answer }))
            }
        }
    }

    /// Number of keys evicted before they expired, because the table was full.
    pub fn evicted(&self) -> u64 {
        self.lock().evicted
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Evicts up to two keys that are expired, or surplus because the table is full. Each call precedes at most one
    /// insertion, so the table stays bounded.
    fn forget(&mut self) {
        for _ in 0..2 {
            let Some((key, begun)) = self.order.front().copied() else { return };
            let is_over = begun.elapsed() >= KEPT;
            if !is_over && self.order.len() < REQUESTS_MAX && self.text_bytes < TEXT_BYTES_MAX {
                return;
            }
            self.order.pop_front();
            // If the key was freed and inserted again, its `begun` differs, and a later element of the queue evicts
            // it.
            if self.by_key.get(&key).is_some_and(|entry| entry.begun == begun) {
                self.remove(key);
                self.evicted += u64::from(!is_over);
            }
        }
    }

    fn remove(&mut self, key: u128) {
        if let Some(Entry { state: State::Done(Given::Text(text)), .. }) = self.by_key.remove(&key) {
            self.text_bytes -= text.len();
        }
    }
}

impl Turn {
    /// Stores the answer and gives it to all requests that wait with the same key.
    pub fn finish(self, given: Given) {
        let mut table = self.keys.lock();
        if let Some(entry) = table.by_key.get_mut(&self.key).filter(|entry| entry.begun == self.begun) {
            entry.state = State::Done(given.clone());
            if let Given::Text(text) = &given {
                table.text_bytes += text.len();
            }
        }
        drop(table);
        self.answer.send_replace(Some(given));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut table = self.keys.lock();
        let is_open =
            |entry: &&mut Entry| entry.begun == self.begun && matches!(entry.state, State::Begun(_));
        if table.by_key.get_mut(&self.key).filter(is_open).is_some() {
            table.by_key.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_works_and_the_others_wait_for_it() {
        let keys = Keys::new(7, []);
        let Found::First(turn) = keys.find(&RequestId::new(b"k", b"body", Timestamp::MIN)).await else {
            panic!("the first")
        };
        assert!(matches!(keys.find(&RequestId::new(b"k", b"other", Timestamp::MIN)).await, Found::OtherBody));
        let (other, waiting) = (keys.clone(), keys.clone());
        let waiting =
            tokio::spawn(async move { waiting.find(&RequestId::new(b"k", b"body", Timestamp::MIN)).await });
        tokio::task::yield_now().await;
        turn.finish(Given::All(3));
        let Ok(Found::Known(given)) = waiting.await else { panic!("known") };
        assert_eq!(given, Given::All(3));
        assert!(matches!(
            other.find(&RequestId::new(b"k", b"body", Timestamp::MIN)).await,
            Found::Known(Given::All(3))
        ));
    }

    #[tokio::test]
    async fn a_turn_that_fails_goes_to_the_next() {
        let keys = Keys::new(7, []);
        let Found::First(turn) = keys.find(&RequestId::new(b"k", b"body", Timestamp::MIN)).await else {
            panic!("the first")
        };
        let waiting = keys.clone();
        let waiting =
            tokio::spawn(async move { waiting.find(&RequestId::new(b"k", b"body", Timestamp::MIN)).await });
        tokio::task::yield_now().await;
        drop(turn);
        assert!(matches!(waiting.await, Ok(Found::First(_))));
    }

    #[tokio::test]
    async fn what_an_earlier_process_appended_is_known() {
        let today = Timestamp::clamped(1_793_491_200_000);
        let id = RequestId::new(b"k", b"body", today);
        let over = RequestId::new(b"old", b"body", Timestamp::MIN);
        let keys = Keys::new(7, [(KEPT, over.clone()), (Duration::ZERO, id.clone())]);
        assert!(matches!(keys.find(&id).await, Found::Appended(at) if at == today));
        assert!(matches!(keys.find(&RequestId::new(b"k", b"other", Timestamp::MIN)).await, Found::OtherBody));
        assert!(matches!(keys.find(&over).await, Found::First(_)), "past its time");
    }

    #[tokio::test]
    async fn the_table_is_bounded_in_keys_and_bytes() {
        let keys = Keys::new(7, []);
        let long: Arc<str> = "x".repeat(TEXT_BYTES_MAX / 4).into();
        for n in 0..8u32 {
            let Found::First(turn) = keys.find(&RequestId::new(&n.to_le_bytes(), b"", Timestamp::MIN)).await
            else {
                panic!("new")
            };
            turn.finish(Given::Text(long.clone()));
        }
        assert!(keys.lock().text_bytes <= TEXT_BYTES_MAX + long.len());
        assert!(keys.evicted() > 0);
        let last = keys.find(&RequestId::new(&7u32.to_le_bytes(), b"", Timestamp::MIN)).await;
        assert!(matches!(last, Found::Known(_)));
    }
}
