//! `pagerduty`: Events API v2; an alert's id is the incident's key, so a repeat changes nothing.
//!
//! Limits of the target: summary 1,024 characters, key 255, body 512,000 bytes.

use super::http::Http;
use super::secret::Secret;
use super::text::cut;
use super::webhook::{annotations, labels};
use super::wording::Wording;
use crate::core::alert::Transition;
use crate::core::alert::transition::ChangeName;
use crate::core::notify::{Message, Why};
use crate::core::vocab::severity::Severity;
use crate::driver::receivers::ports::{Channel, Failure};
use serde_json::{Value, json};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

const SUMMARY_CHARS: usize = 1_024;
const KEY_CHARS: usize = 255;

/// The default target of events.
pub(crate) const URL: &str = "https://events.pagerduty.com/v2/enqueue";

#[derive(Debug)]
pub(crate) struct PagerDuty {
    pub url: String,
    pub routing_key: Secret,
    pub http: Http,
    pub external_url: String,
    pub wording: Wording,
}

impl Channel for PagerDuty {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let Some(event) = event(message, &self.external_url, &self.wording) else { return Ok(()) };
        let mut body = event;
        body["routing_key"] = json!(self.routing_key.reveal());
        self.http.post(&self.url, &[], &body.to_string())?.verdict()
    }

    fn attempt_max(&self) -> Duration {
        self.http.request_max()
    }
}

/// Builds the event without its routing key; `None` if the message has no alerts.
pub(crate) fn event(message: &Message, external_url: &str, wording: &Wording) -> Option<Value> {
    let alert = message.alerts.last()?;
    if message.why == Why::Digest {
        return Some(digest(message, alert, (external_url, wording)));
    }
    let action = match alert.change {
        _ if !alert.is_active() => "resolve",
        ChangeName::Acknowledged => "acknowledge",
        _ => "trigger",
    };
    let key = key(&alert.id);
    if action != "trigger" {
        return Some(json!({"event_action": action, "dedup_key": key}));
    }
    let links: Vec<Value> =
        alert.runbook.iter().map(|url| json!({"href": &**url, "text": "runbook"})).collect();
    Some(json!({
        "event_action": action,
        "dedup_key": key,
        "client": "streamgauge",
        "client_url": external_url,
        "links": links,
        "payload": {
            "summary": cut(&wording.line(alert), SUMMARY_CHARS),
            "source": source(alert),
            "severity": severity(alert.severity),
            "timestamp": alert.at.to_string(),
            "group": &*alert.rule,
            "custom_details": {"labels": labels(alert), "annotations": annotations(alert), "value": alert.value},
        },
    }))
}

/// Builds the event of a digest. It opens an incident of its own, which no later event resolves, so users close it.
fn digest(message: &Message, newest: &Transition, (external_url, wording): (&str, &Wording)) -> Value {
    json!({
        "event_action": "trigger",
        "dedup_key": key(&message.id),
        "client": "streamgauge",
        "client_url": external_url,
        "payload": {
            "summary": cut(&format!("{} more alerts than the limit allows: {}", message.alerts.len(), wording.title(message)), SUMMARY_CHARS),
            "source": "streamgauge",
            "severity": severity(newest.severity),
        },
    })
}

fn key(id: &str) -> String {
    if id.chars().count() <= KEY_CHARS { id.into() } else { format!("{:016x}", xxh3_64(id.as_bytes())) }
}

fn source(alert: &Transition) -> String {
    let named = ["source", "pipeline", "host"].iter().find_map(|name| alert.key.get(name));
    named.map_or_else(|| alert.rule.to_string(), |value| value.to_string())
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}
