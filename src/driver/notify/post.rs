//! What is counted of each receiver, for whoever looks after it.

use crate::driver::outage::Outages;
use crate::driver::ports::PortError;
use crate::driver::tally::{Count, Durations};
use crate::driver::worker::chain;
use std::sync::Arc;

/// Name among outages.
const RECEIVER: &str = "receiver";

#[derive(Debug, Default)]
pub struct Post {
    pub name: Arc<str>,
    pub delivered: Count,
    /// Attempts that failed and are made again.
    pub retried: Count,
    /// Messages put aside since the start.
    pub given_up: Count,
    /// Transitions left out as too many of one alert waited.
    pub left_out: Count,
    /// Messages that lay aside and went as there were too many.
    pub gone: Count,
    /// Now: messages put aside, alerts that are followed, and messages that wait.
    pub letters: Count,
    pub following: Count,
    pub waiting: Count,
    /// Whether this process has its lease, and whether it answers.
    pub is_here: Count,
    pub is_open: Count,
    /// What is wrong with what is kept of it, while nothing can be delivered for that.
    pub stuck: Outages,
    /// Whether so much waits that the stream is not read on.
    pub is_full: Count,
    /// From an alert's grid point to its delivery, messages with news only.
    pub times: Durations,
    /// From its newest event to its delivery, for beginnings: how long the whole chain takes.
    pub chain_times: Durations,
}

impl Post {
    pub fn new(name: Arc<str>) -> Post {
        Post { name, ..Post::default() }
    }

    /// Nothing can be read or kept of what was delivered.
    pub(super) fn get_stuck(&self, error: &PortError) {
        self.stuck.begin(RECEIVER, &self.name, &chain(error));
    }

    pub(super) fn goes_on(&self) {
        self.stuck.end(RECEIVER);
    }

    /// Name, kind, meaning and value of each.
    pub fn all(&self) -> [(&'static str, &'static str, &'static str, u64); 11] {
        [
            ("notify_delivered_total", "counter", "Messages that arrived.", self.delivered.get()),
            (
                "notify_retried_total",
                "counter",
                "Attempts that failed and are made again.",
                self.retried.get(),
            ),
            ("notify_given_up_total", "counter", "Messages put aside as undeliverable.", self.given_up.get()),
            (
                "notify_left_out_total",
                "counter",
                "Transitions left out, too many waited.",
                self.left_out.get(),
            ),
            (
                "notify_gone_total",
                "counter",
                "Messages put aside that went, too many lay there.",
                self.gone.get(),
            ),
            ("notify_letters", "gauge", "Messages that lie aside; notify redrive.", self.letters.get()),
            ("notify_following", "gauge", "Alerts whose end is to be told.", self.following.get()),
            ("notify_waiting", "gauge", "Messages and groups that wait.", self.waiting.get()),
            ("notify_leased", "gauge", "Whether this process delivers to it.", self.is_here.get()),
            ("notify_full", "gauge", "Whether the stream waits until something arrives.", self.is_full.get()),
            ("notify_circuit_open", "gauge", "Whether it has failed again and again.", self.is_open.get()),
        ]
    }
}
