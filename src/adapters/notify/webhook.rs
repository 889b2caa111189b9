//! `webhook`: posts a message in Alertmanager's format (version 4), or as an alert event. The request is signed if a
//! secret is configured.
//!
//! The signature follows Standard Webhooks: `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`. There is one
//! signature for each secret, so that secrets can be rotated without an interruption. A message that is sent again
//! has the same id.

use super::http::Http;
use super::log;
use super::secret::Secret;
use crate::core::Timestamp;
use crate::core::alert::Transition;
use crate::core::notify::Message;
use crate::core::notify::route::label;
use crate::driver::receivers::ports::{Channel, Failure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The end of an active alert, as Alertmanager writes it.
const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Alertmanager,
    Event,
}

/// Settings of the target.
#[derive(Debug)]
pub(crate) struct Settings {
    pub url: Secret,
    pub format: Format,
    /// The newest secret first.
    pub secrets: Vec<Secret>,
    /// Maximum number of alerts in one message; 0 for all.
    pub max_alerts: usize,
    pub external_url: String,
}

#[derive(Debug)]
pub(crate) struct Webhook {
    settings: Settings,
    http: Http,
    now: fn() -> Timestamp,
}

impl Webhook {
    pub(crate) fn new(settings: Settings, http: Http, now: fn() -> Timestamp) -> Webhook {
        Webhook { settings, http, now }
    }
}

impl Channel for Webhook {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let settings = &self.settings;
        let body = match settings.format {
            Format::Alertmanager => {
                alertmanager(message, &settings.external_url, settings.max_alerts).to_string()
            }
            Format::Event => log::line(message),
        };
        let timestamp = ((self.now)().ms() / 1_000).to_string();
        let signature = signatures(&settings.secrets, &message.id, &timestamp, &body);
        let mut headers = vec![("webhook-id", &*message.id)];
        if !signature.is_empty() {
            headers.extend([("webhook-timestamp", &*timestamp), ("webhook-signature", &*signature)]);
        }
        self.http.post(settings.url.reveal(), &headers, &body)?.verdict()
    }

    fn attempt_max(&self) -> Duration {
        self.http.request_max()
    }
}

/// Returns one signature for each secret, separated by spaces.
fn signatures(secrets: &[Secret], id: &str, timestamp: &str, body: &str) -> String {
    let text = format!("{id}.{timestamp}.{body}");
    let sign = |secret: &Secret| {
        let plain = secret.reveal();
        let key = plain.strip_prefix("whsec_").and_then(|rest| STANDARD.decode(rest).ok());
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_deref().unwrap_or(plain.as_bytes()));
        format!("v1,{}", STANDARD.encode(ring::hmac::sign(&key, text.as_bytes())))
    };
    secrets.iter().map(sign).collect::<Vec<String>>().join(" ")
}

/// Builds the body in Alertmanager's webhook format. If the message has more than `max_alerts` alerts, the further
/// ones are only counted.
pub(crate) fn alertmanager(message: &Message, external_url: &str, max_alerts: usize) -> Value {
    let (firing, _) = message.counts();
    let shown = if max_alerts == 0 { message.alerts.len() } else { max_alerts.min(message.alerts.len()) };
    let alerts: Vec<Value> = message.alerts[..shown].iter().map(|alert| one(alert, external_url)).collect();
    json!({
        "version": "4",
        "groupKey": message.group,
        "truncatedAlerts": message.alerts.len() - shown,
        "status": status(firing > 0),
        "receiver": message.receiver,
        "groupLabels": message.labels.iter().map(|(name, value)| (metric_name(name), json!(value))).collect::<Map<_, _>>(),
        "commonLabels": common(message.alerts.iter().map(labels)),
        "commonAnnotations": common(message.alerts.iter().map(annotations)),
        "externalURL": external_url,
        "alerts": alerts,
    })
}

fn status(is_firing: bool) -> &'static str {
    if is_firing { "firing" } else { "resolved" }
}

fn one(alert: &Transition, external_url: &str) -> Value {
    json!({
        "status": status(alert.is_active()),
        "labels": labels(alert),
        "annotations": annotations(alert),
        "startsAt": alert.started_at.to_string(),
        "endsAt": alert.ended_at.map_or(NEVER.to_string(), |at| at.to_string()),
        "generatorURL": external_url,
        "fingerprint": format!("{:016x}", xxhash_rust::xxh3::xxh3_64(alert.id.as_bytes())),
    })
}

/// Returns the labels as Alertmanager names them: the rule's labels, the key, name and severity.
pub(crate) fn labels(alert: &Transition) -> BTreeMap<String, String> {
    let key = alert.key.0.iter().map(|(name, value)| (metric_name(name), value.to_string()));
    let own = alert.labels.iter().map(|(name, value)| (metric_name(name), value.to_string()));
    let named = ["alertname", "severity"].map(|name| (name.into(), label(alert, name).unwrap_or("").into()));
    own.chain(key).chain(named).filter(|(_, value)| !value.is_empty()).collect()
}

pub(crate) fn annotations(alert: &Transition) -> BTreeMap<String, String> {
    let runbook = alert.runbook.as_ref().map(|url| ("runbook_url".into(), url.to_string()));
    let since = alert.no_data_since.map_or(String::new(), |since| since.to_string());
    let texts = [
        ("summary".to_string(), alert.summary.clone()),
        ("description".into(), alert.reason.clone()),
        ("value".into(), alert.judged()),
        ("no_data_since".into(), since),
    ];
    texts.into_iter().chain(runbook).filter(|(_, text)| !text.is_empty()).collect()
}

/// Returns the entries that all maps have with the same value.
fn common(mut all: impl Iterator<Item = BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let first = all.next().unwrap_or_default();
    all.fold(first, |mut common, one| {
        common.retain(|name, value| one.get(name) == Some(value));
        common
    })
}

/// Converts a name to a valid Prometheus label name: each invalid character becomes `_`.
fn metric_name(name: &str) -> String {
    let fits = |(at, c): (usize, char)| match c {
        'a'..='z' | 'A'..='Z' | '_' => c,
        '0'..='9' if at > 0 => c,
        _ => '_',
    };
    name.chars().enumerate().map(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_to_fit() {
        assert_eq!(metric_name("k8s.pod-name"), "k8s_pod_name");
        assert_eq!(metric_name("0day"), "_day");
    }
}
