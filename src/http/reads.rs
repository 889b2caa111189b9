//! Store reads: outside the server's threads, few at once, within a timeout, and not for a disconnected
//! client.
//!
//! Intuition: store reads are blocking calls, and a request may ask for a large amount. Reads therefore run on
//! blocking threads, with one processor left to the engine. A full queue refuses further reads. Between two steps, a
//! read checks whether its client is still connected. Invariant: no read runs on a thread of the server or of the
//! engine. Rejected: a separate thread pool (it would add a second queue).

use super::Failure;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Maximum number of reads in the queue; further ones are refused with a retry time.
const WAITING_MAX: usize = 256;

/// Timeout for a read in the queue.
const WAITS_WITHIN: Duration = Duration::from_secs(15);

/// Timeout for one read.
const WITHIN: Duration = Duration::from_secs(10);

/// Maximum number of queries processed at once. Each holds up to 10,000 series and an answer of up to 8 MiB, in total
/// about 20 MiB.
const QUESTIONS_MAX: usize = 4;

/// A semaphore with a bounded queue in front of it.
#[derive(Debug)]
pub struct Turns {
    places: Semaphore,
    waiting: AtomicUsize,
}

impl Turns {
    pub fn new(places: usize) -> Turns {
        Turns { places: Semaphore::new(places), waiting: AtomicUsize::new(0) }
    }

    /// Creates the turns of API queries. A query keeps its turn from its first read of an engine to its answer.
    pub fn of_questions() -> Turns {
        Turns::new(QUESTIONS_MAX)
    }

    /// Waits for a permit. Refuses if the queue is full or the wait times out.
    pub async fn take(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let place = match Waiting::among(&self.waiting) {
            Some(_waiting) => {
                tokio::time::timeout(WAITS_WITHIN, self.places.acquire()).await.ok().and_then(Result::ok)
            }
            None => None,
        };
        place.ok_or_else(|| Failure::again("too many requests wait for an answer; try again in a second"))
    }
}

/// A place in the queue. Dropping it frees the place, also when the client disconnects.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn among(all: &AtomicUsize) -> Option<Waiting<'_>> {
        let is_full = all.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX;
        let waiting = Waiting(all);
        (!is_full).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The turns of store reads.
#[derive(Debug)]
pub struct Reads(Turns);

/// A handle by which a read checks whether its client still waits.
#[derive(Debug, Clone)]
pub struct Asker {
    has_gone: Arc<AtomicBool>,
    until: Instant,
}

/// Records on drop that the client has disconnected.
struct Leaving(Arc<AtomicBool>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Asker {
    /// Fails if the client has disconnected or the read has timed out.
    pub fn still_waits(&self) -> Result<(), Failure> {
        if self.has_gone.load(Ordering::Relaxed) {
            return Err(Failure::unavailable("the client has gone"));
        }
        if Instant::now() >= self.until {
            return Err(Failure::unavailable("this takes too long; ask for less at once"));
        }
        Ok(())
    }
}

impl Default for Reads {
    /// Leaves one processor to the engine.
    fn default() -> Reads {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Reads(Turns::new((processors - 1).max(1)))
    }
}

impl Reads {
    /// Runs a read on a blocking thread when its turn comes.
    pub async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Asker) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let _place = self.0.take().await?;
        let has_gone = Arc::<AtomicBool>::default();
        let _leaving = Leaving(has_gone.clone());
        let asker = Asker { has_gone, until: Instant::now() + WITHIN };
        let done = tokio::task::spawn_blocking(move || read(&asker)).await;
        done.unwrap_or_else(|_| Err(Failure::unavailable("the request was dropped")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_read_is_told_when_its_asker_goes() {
        let (reads, (told, heard)) = (Arc::new(Reads::default()), mpsc::channel());
        let of_task = reads.clone();
        let task = tokio::spawn(async move {
            let read = move |asker: &Asker| {
                while asker.still_waits().is_ok() {
                    std::thread::yield_now();
                }
                told.send(()).map_err(|_| Failure::unavailable("nobody listens"))
            };
            of_task.run(read).await
        });
        while reads.0.places.available_permits() == Reads::default().0.places.available_permits() {
            tokio::task::yield_now().await;
        }
        task.abort();
        let told = tokio::task::spawn_blocking(move || heard.recv_timeout(Duration::from_secs(20))).await;
        assert!(told.expect("it runs").is_ok());
        assert_eq!(reads.run(|_| Ok(1)).await.expect("its turn"), 1);
    }

    #[tokio::test]
    async fn one_that_goes_leaves_the_queue() {
        let turns = Turns::new(1);
        let place = turns.take().await.expect("a place");
        for _ in 0..2 * WAITING_MAX {
            let waited = tokio::time::timeout(Duration::ZERO, turns.take()).await;
            assert!(waited.is_err(), "it waits, and is not refused");
        }
        drop(place);
        assert!(turns.take().await.is_ok());
    }
}
