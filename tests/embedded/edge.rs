//! Waiting for what happens outside: looks that leave the two cores to those who are waited for.

use std::thread::park_timeout;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between two looks. A look costs a request or a lock, so that one in 2 ms is a few per cent of a core.
const BETWEEN: Duration = Duration::from_millis(2);

/// Lets the others work before the next look.
pub fn pause() {
    park_timeout(BETWEEN);
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

/// Waits until what is logged now is of the same pane of ten seconds as when it was measured: else it is
/// in no trailing window of one.
pub fn wait_for_early_in_pane() {
    while !(200..7_000).contains(&(now_ms() % 10_000)) {
        pause();
    }
}
