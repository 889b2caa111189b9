//! Metrics of each receiver, for the operator.

use crate::driver::metrics::{Count, Durations};
use crate::driver::outage::Outages;
use crate::driver::port_error::chain;
use crate::driver::ports::PortError;
use std::sync::Arc;

/// The name under which outages of receivers are recorded.
const RECEIVER: &str = "receiver";

/// The metrics of one receiver.
#[derive(Debug, Default)]
pub struct ReceiverMetrics {
    pub name: Arc<str>,
    pub delivered: Count,
    /// Failed attempts that are retried.
    pub retried: Count,
    /// Messages made dead letters since the start.
    pub given_up: Count,
    /// Transitions dropped because too many of one alert waited.
    pub left_out: Count,
    /// Dead letters dropped because there were too many.
    pub gone: Count,
    /// Current values: dead letters, followed alerts, and waiting messages.
    pub letters: Count,
    pub following: Count,
    pub waiting: Count,
    /// Whether this process has the lease, and whether the circuit is open.
    pub is_here: Count,
    pub is_open: Count,
    /// The outage of stream or notification log that stops all delivery to this receiver.
    pub stuck: Outages,
    /// Whether back-pressure pauses the reading of the alert stream.
    pub is_full: Count,
    /// Time from an alert's newest transition to its delivery, only for messages about changes (`Why::News`).
    pub times: Durations,
    /// Time from an alert's newest event to its delivery, for beginnings only: the latency of the whole
    /// chain.
    pub chain_times: Durations,
}

impl ReceiverMetrics {
    pub fn new(name: Arc<str>) -> ReceiverMetrics {
        ReceiverMetrics { name, ..ReceiverMetrics::default() }
    }

    /// Records that stream or notification log cannot be read or written.
    pub(super) fn get_stuck(&self, error: &PortError) {
        self.stuck.begin(RECEIVER, &self.name, &chain(error));
    }

    pub(super) fn goes_on(&self) {
        self.stuck.end(RECEIVER);
    }

    /// Returns name, kind, meaning and value of each metric.
    pub fn all(&self) -> [(&'static str, &'static str, &'static str, u64); 11] {
        [
            ("notify_delivered_total", "counter", "Messages that arrived.", self.delivered.get()),
            (
                "notify_retried_total",
                "counter",
                "Attempts that failed and are made again.",
                self.retried.get(),
            ),
            ("notify_given_up_total", "counter", "Messages that became dead letters.", self.given_up.get()),
            (
                "notify_left_out_total",
                "counter",
                "Transitions dropped because too many waited.",
                self.left_out.get(),
            ),
            (
                "notify_gone_total",
                "counter",
                "Dead letters dropped because there were too many.",
                self.gone.get(),
            ),
            ("notify_letters", "gauge", "Dead letters; see notify redrive.", self.letters.get()),
            ("notify_following", "gauge", "Alerts whose end is still to be sent.", self.following.get()),
            ("notify_waiting", "gauge", "Messages and groups that wait.", self.waiting.get()),
            ("notify_leased", "gauge", "Whether this process holds the lease.", self.is_here.get()),
            ("notify_full", "gauge", "Whether back-pressure pauses the stream.", self.is_full.get()),
            ("notify_circuit_open", "gauge", "Whether the circuit is open.", self.is_open.get()),
        ]
    }
}
