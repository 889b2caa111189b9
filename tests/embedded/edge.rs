//! Waiting for external events by polling that leaves the two cores to the processes under test.

use std::thread::park_timeout;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Pause between two polls. A poll costs a request or a lock, so one in 2 ms takes a few percent of a core.
const BETWEEN: Duration = Duration::from_millis(2);

/// Yields to other threads and processes before the next poll.
pub fn pause() {
    park_timeout(BETWEEN);
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// Waits until a value that is sent now is logged in its own pane of ten seconds. Otherwise no trailing
/// window of ten seconds contains it.
pub fn wait_for_early_in_pane() {
    while !(200..7_000).contains(&(now_ms() % 10_000)) {
        pause();
    }
}
