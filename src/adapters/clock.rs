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

    fn until(&self, at: Timestamp) -> Duration {
        Duration::from_millis((at - self.now()).ms().max(0) as u64)
    }

    fn running(&self) -> Duration {
        running()
    }

    fn pause(&self, time: Duration) {
        std::thread::park_timeout(time);
    }
}

/// The machine's clock without short jumps: a jump counts only once it lasts. Clones share one clock.
#[derive(Debug, Clone, Default)]
pub struct SteadyClock(Arc<Mutex<Steady>>);

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let mut steady = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        steady.read(SystemClock::time(), Span::from_ms(running().as_millis() as i64))
    }

    fn until(&self, at: Timestamp) -> Duration {
        Duration::from_millis((at - self.now()).ms().max(0) as u64)
    }

    fn running(&self) -> Duration {
        running()
    }

    fn pause(&self, time: Duration) {
        std::thread::park_timeout(time);
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

    fn until(&self, at: Timestamp) -> Duration {
        Duration::from_millis((at - self.now()).ms().max(0) as u64) / self.speed
    }

    fn running(&self) -> Duration {
        running()
    }

    fn pause(&self, time: Duration) {
        std::thread::park_timeout(time);
    }
}
