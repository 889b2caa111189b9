//! `alertmanager`: Alertmanager's API v2, so that its routes, silences and pages can be used.
//!
//! Alertmanager resolves alerts that are not repeated. So every firing alert is sent again each [`EVERY`], with an
//! end time of four times [`EVERY`] ahead; if this sender dies, its alerts end by themselves. An ended alert is
//! repeated for [`ENDS_LAST`]. Every Alertmanager peer gets all alerts, because peers do not share alerts with each
//! other.

use super::http::Http;
use super::secret::Secret;
use super::webhook::{annotations, labels};
use crate::core::notify::{GroupBy, Grouping, Message};
use crate::core::{Span, Timestamp};
use crate::driver::receivers::ports::{Channel, Failure};
use serde_json::{Value, json};
use std::time::Duration;

/// Time between two messages about the same alert.
pub(crate) const EVERY: Span = Span::from_mins(1);

/// Time for which an ended alert is repeated.
pub(crate) const ENDS_LAST: Span = Span::from_mins(5);

/// The grouping for Alertmanager: one message with all alerts, without delay, repeated each [`EVERY`]. Alertmanager
/// groups and delays alerts itself.
pub(crate) fn grouping() -> Grouping {
    let by = GroupBy::Labels(Vec::new());
    Grouping { by, wait: Span::ZERO, interval: Span::ZERO, repeat: vec![EVERY] }
}

#[derive(Debug)]
pub(crate) struct Alertmanager {
    /// The base URL of each peer.
    pub urls: Vec<Secret>,
    pub http: Http,
    pub external_url: String,
    pub now: fn() -> Timestamp,
}

impl Channel for Alertmanager {
    /// Succeeds if every peer accepts the message. If one peer fails, the retry sends the message to all peers again.
    /// A repeated message changes nothing.
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

    fn attempt_max(&self) -> Duration {
        self.http.request_max() * self.urls.len() as u32
    }
}

pub(crate) fn body(message: &Message, external_url: &str, now: Timestamp) -> Value {
    let one = |alert: &crate::core::alert::Transition| {
        let ends = alert.ended_at.unwrap_or_else(|| now + EVERY * 4);
        json!({"labels": labels(alert), "annotations": annotations(alert), "startsAt": alert.started_at.to_string(),
            "endsAt": ends.to_string(), "generatorURL": external_url})
    };
    Value::Array(message.alerts.iter().map(one).collect())
}
