//! The log of the service, on standard error.
//!
//! Intuition: whoever collects the log may stop reading, and then standard error blocks; so lines go through a queue
//! that one thread empties. Invariant: nothing but that thread waits for the collector; lines that find no room are
//! dropped and counted, and what is left at the end is waited for [`tracing_appender`]'s second at most.
//! Rejected: a larger pipe (it fills, too), no lines for each request (the audit log is made of them).

use crate::driver::tally::LINES_DROPPED;
use std::io::IsTerminal;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Lines that wait for the collector: 8,192 × about 512 B = 4 MiB.
const LINES_WAITING_MAX: usize = 8_192;

/// The broker's library logs each attempt to connect, and an outage is told once by ourselves; RUST_LOG may ask for the
/// library by its name.
const BROKER_FILTER: &str = "async_nats=off";

/// Text on a terminal, JSON elsewhere; `RUST_LOG` and `NO_COLOR` are honoured. What waits is written until the guard
/// is dropped.
pub fn start() -> WorkerGuard {
    let queue = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX);
    let (queue, guard) = queue.finish(std::io::stderr());
    let dropped = queue.error_counter();
    // Set once a process: a second service in it has the first one's log.
    let _ = LINES_DROPPED.set(Box::new(move || dropped.dropped_lines() as u64));
    let builder = tracing_subscriber::fmt().with_env_filter(filter()).with_writer(queue);
    // A closed standard error ends nothing.
    let builder = builder.log_internal_errors(false);
    if std::io::stderr().is_terminal() {
        builder.with_ansi(std::env::var_os("NO_COLOR").is_none()).init();
    } else {
        builder.json().init();
    }
    guard
}

fn filter() -> EnvFilter {
    let stated = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = EnvFilter::try_new(if stated.is_empty() { "info" } else { &stated });
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    match BROKER_FILTER.parse() {
        Ok(directive) if !["async_nats", "debug", "trace"].iter().any(|word| stated.contains(word)) => {
            filter.add_directive(directive)
        }
        _ => filter,
    }
}
