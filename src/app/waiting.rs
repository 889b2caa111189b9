//! Reports that a command waits for a server, because a silent command looks as if it hangs.

use super::stderr::note;
use crate::wire::address::without_password;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Delay before the first report; a reachable server answers in less time.
pub(crate) const FIRST_SAID_AFTER: Duration = Duration::from_secs(2);

/// Time between two reports about the same server.
pub(crate) const SAID_EVERY: Duration = Duration::from_secs(60);

/// Reports that the command waits for a server, until this value is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    _over: Sender<()>, // closed when this is dropped
}

impl Waiting {
    pub(crate) fn for_server(url: &str) -> Waiting {
        let (over, is_over) = channel::<()>();
        let address = without_password(url);
        let begun = Instant::now();
        std::thread::spawn(move || {
            let mut next = FIRST_SAID_AFTER;
            while is_over.recv_timeout(next) == Err(RecvTimeoutError::Timeout) {
                note(format_args!(
                    "waiting for {address}, {} s so far; Ctrl-C ends",
                    begun.elapsed().as_secs()
                ));
                next = SAID_EVERY;
            }
        });
        Waiting { _over: over }
    }
}
