//! `alertmanager`: its API v2, so that its routes, silences and pages can be used.
//!
//! It forgets what is not said again: all that fires is sent each [`EVERY`] with an end that lies four times as
//! far ahead, so a dead sender's alerts end by themselves; an end is said for five minutes. To every peer: they do
//! not tell each other of alerts.

use super::http::Http;
use super::secret::Secret;
use super::webhook::{annotations, labels};
use crate::core::notify::{GroupBy, Grouping, Message};
use crate::core::{Span, Timestamp};
use crate::driver::notify::ports::{Channel, Failure};
use serde_json::{Value, json};

/// Time between two messages about the same.
pub const EVERY: Span = Span::from_mins(1);

/// An end is said again for so long.
pub const ENDS_LAST: Span = Span::from_mins(5);

/// All alerts in one message, news at once.
pub fn grouping() -> Grouping {
    let by = GroupBy::Labels(Vec::new());
    Grouping { by, wait: Span::ZERO, interval: Span::ZERO, repeat: vec![EVERY] }
}

#[derive(Debug)]
pub struct Alertmanager {
    /// Of each peer, without a path.
    pub urls: Vec<Secret>,
    pub http: Http,
    pub external_url: String,
    pub now: fn() -> Timestamp,
}

impl Channel for Alertmanager {
    /// Arrived when each peer has it; one that had it before has it twice, which changes nothing.
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let body = body(message, &self.external_url, (self.now)()).to_string();
        let mut failed = None;
        for url in &self.urls {
            let url = format!("{}/api/v2/alerts", url.reveal().trim_end_matches('/'));
            let sent = self.http.post(&url, &[], &body).and_then(|answer| answer.verdict());
            failed = sent.err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }
}

pub fn body(message: &Message, external_url: &str, now: Timestamp) -> Value {
    let one = |alert: &crate::core::alert::Transition| {
        let ends = alert.ended_at.unwrap_or_else(|| now + EVERY * 4);
        json!({"labels": labels(alert), "annotations": annotations(alert), "startsAt": alert.started_at.to_string(),
            "endsAt": ends.to_string(), "generatorURL": external_url})
    };
    Value::Array(message.alerts.iter().map(one).collect())
}
