//! The wall clock: the only file that reads the time of day.

use crate::core::steady::Steady;
use crate::core::{Span, Timestamp};
use crate::driver::ports::Clock;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Returns the time of day, for callers that need no other method of the clock.
    pub fn time() -> Timestamp {
        SystemClock.now()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::clamped(since_epoch.as_millis() as i64)
    }

    fn running(&self) -> Duration {
        running()
    }

    fn pause(&self, time: Duration) {
        std::thread::park_timeout(time);
    }
}

/// A clock that ignores forward jumps of the wall clock that last less than a minute; see `Steady`. Clones share
/// one state.
#[derive(Debug, Clone)]
pub struct SteadyClock<C> {
    clock: C,
    steady: Arc<Mutex<Steady>>,
}

impl<C> SteadyClock<C> {
    pub fn over(clock: C) -> SteadyClock<C> {
        SteadyClock { clock, steady: Arc::default() }
    }
}

impl<C: Clock> Clock for SteadyClock<C> {
    fn now(&self) -> Timestamp {
        let running = Span::from_ms(self.clock.running().as_millis() as i64 * i64::from(self.speed()));
        let mut steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        steady.read(self.clock.now(), running)
    }

    fn running(&self) -> Duration {
        self.clock.running()
    }

    fn speed(&self) -> u32 {
        self.clock.speed()
    }

    fn pause(&self, time: Duration) {
        self.clock.pause(time);
    }
}

/// Returns the time since the first call in this process.
fn running() -> Duration {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed()
}

/// A clock that runs faster than the wall, for demonstrations.
#[derive(Debug, Clone, Copy)]
pub struct FastClock {
    begun: Instant,
    start: Timestamp,
    speed: u32, // > 0
}

impl FastClock {
    pub fn new(start: Timestamp, speed: u32) -> FastClock {
        FastClock { begun: Instant::now(), start, speed }
    }
}

impl Clock for FastClock {
    fn now(&self) -> Timestamp {
        let elapsed = self.begun.elapsed().as_millis() as i64;
        self.start + Span::from_ms(elapsed * i64::from(self.speed))
    }

    fn running(&self) -> Duration {
        running()
    }

    fn speed(&self) -> u32 {
        self.speed
    }

    fn pause(&self, time: Duration) {
        std::thread::park_timeout(time);
    }
}
