//! The log of the service, on standard error.
//!
//! Intuition: the program that collects the log may stop reading, and then standard error blocks. Lines therefore
//! pass through a queue that one thread empties. Invariant: only that thread waits for the collector. Lines that find
//! the queue full are dropped and counted, and at shutdown [`tracing_appender`] waits at most 1 s for the remaining
//! lines.
//! Rejected: a larger pipe (it fills, too), and omitting the lines of each request (the audit log consists of
//! them).

use crate::driver::command::Publish;
use crate::driver::metrics::LINES_DROPPED;
use std::io::IsTerminal;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Capacity of the queue in lines: 8,192 × about 512 B = 4 MiB.
const LINES_WAITING_MAX: usize = 8_192;

/// Silences the broker's client library, which logs each attempt to connect; this program already logs each
/// outage. `RUST_LOG` enables the library's log if it names the library, `debug` or `trace`.
const BROKER_FILTER: &str = "async_nats=off";

/// Starts the log: text on a terminal, JSON elsewhere. `RUST_LOG` and `NO_COLOR` are honoured. Dropping the
/// guard writes the lines that are still queued.
pub(crate) fn start() -> WorkerGuard {
    let queue = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX);
    let (queue, guard) = queue.finish(std::io::stderr());
    let dropped = queue.error_counter();
    // The counter is set once per process: a second service in the process uses the log of the first.
    let _ = LINES_DROPPED.set(Box::new(move || dropped.dropped_lines() as u64));
    let builder = tracing_subscriber::fmt().with_env_filter(filter()).with_writer(queue);
    // A closed standard error must not end the service.
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

/// Returns a publisher that logs each transition.
pub(crate) fn transitions() -> Publish {
    Box::new(|transition| {
        tracing::info!(
            alert = %transition.id, seq = transition.seq, change = ?transition.change,
            severity = transition.severity.name(), summary = %transition.summary, "alert"
        );
    })
}
