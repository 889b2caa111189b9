//! A message to one receiver: one alert, or some alerts of one group.

use super::super::alert::Transition;
use crate::core::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Why a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// An alert changed.
    News,
    /// Nothing changed, but an alert still fires.
    Repeat,
    /// Many alerts in one message, because they exceed the receiver's limit or flap.
    Digest,
    /// A user tests the receiver.
    Test,
}

/// One message; a retry has the same id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub id: String,
    pub receiver: Arc<str>,
    /// Names the group; stable over restarts.
    pub group: String,
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    pub alerts: Vec<Transition>,
    pub why: Why,
    /// The time since which the news in this message has been waiting.
    pub since: Timestamp,
    /// The id that the target assigned to the first message of the group. This message is posted as a reply to
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Arc<str>>,
}

impl Message {
    pub fn new(
        receiver: &Arc<str>,
        (group, labels): (String, BTreeMap<Arc<str>, Arc<str>>),
        alerts: Vec<Transition>,
        (why, since): (Why, Timestamp),
    ) -> Message {
        let id = match (&alerts[..], why) {
            ([alert], Why::News) => format!("{}:{}:{receiver}", alert.id, alert.seq),
            _ => {
                // A repeat gets an id of its own, although its content is that of the message before it.
                let at = if why == Why::Repeat { since.ms() } else { 0 };
                let mut text = format!("{group}:{at}");
                alerts.iter().for_each(|alert| text.push_str(&format!(" {}:{}", alert.id, alert.seq)));
                format!("{:016x}:{receiver}", xxh3_64(text.as_bytes()))
            }
        };
        Message { id, receiver: receiver.clone(), group, labels, alerts, why, since, answers: None }
    }

    /// Returns how many of its alerts fire, and how many have ended.
    pub fn counts(&self) -> (usize, usize) {
        let firing = self.alerts.iter().filter(|alert| alert.is_active()).count();
        (firing, self.alerts.len() - firing)
    }

    /// Returns one line for people: the alerts that fire, or those that ended.
    pub fn title(&self) -> String {
        let (firing, resolved) = self.counts();
        let counted = match (firing, resolved) {
            (0, 1) => "RESOLVED".to_string(),
            (0, n) => format!("RESOLVED:{n}"),
            (1, 0) => self.alerts[0].severity.name().to_uppercase(),
            (n, 0) => format!("FIRING:{n}"),
            (n, m) => format!("FIRING:{n}, RESOLVED:{m}"),
        };
        let what = match &self.alerts[..] {
            [alert] => named(alert),
            _ => self
                .labels
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join(", "),
        };
        // A label may contain control characters; the title stays on one line.
        let what: String = what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("[{counted}] {}", what.trim()).trim_end().to_string()
    }
}

/// Returns the rule of an alert and its subject: `slow source=checkout, stage=build`.
pub(crate) fn named(alert: &Transition) -> String {
    format!("{} {}", alert.rule, alert.about()).trim_end().to_string()
}
