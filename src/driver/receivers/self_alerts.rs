//! Alerts that are in no stream: undelivered messages, and tests of a receiver.

use crate::core::Timestamp;
use crate::core::alert::Transition;
use crate::core::alert::self_alerts::bare;
use crate::core::alert::transition::{ChangeName, State};
use crate::core::notify::undelivered::Notice;
use crate::core::notify::{Message, Why};
use crate::core::vocab::key::Key;
use crate::core::vocab::severity::Severity;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reserved rule names.
const UNDELIVERED: &str = "_sg_undelivered";
const TEST: &str = "_sg_test";

/// Returns the alert about a receiver's dead letters: firing since the first one, or ended by a redrive.
pub(crate) fn undelivered(receiver: &str, notice: &Notice) -> Transition {
    let times = (notice.since, notice.at);
    match &notice.error {
        Some(error) => {
            let summary = format!("messages to receiver {receiver} could not be delivered: {error}");
            let alert = firing(UNDELIVERED, receiver, times, summary, Severity::Critical);
            Transition { reason: error.clone(), ..alert }
        }
        None => {
            let summary = format!("messages to receiver {receiver} could not be delivered");
            let alert = firing(UNDELIVERED, receiver, times, summary, Severity::Critical);
            ended(alert, "the dead letters are queued for delivery again", notice.at)
        }
    }
}

/// Returns whether an alert is about this receiver's own dead letters; such an alert is for the other
/// receivers.
pub(crate) fn is_about(alert: &Transition, receiver: &str) -> bool {
    &*alert.rule == UNDELIVERED && alert.key.get("receiver").is_some_and(|name| **name == *receiver)
}

/// Returns the message of a receiver test: the beginning of a test alert, or its end.
pub(crate) fn trial(
    receiver: &Arc<str>,
    by: &str,
    (since, at): (Timestamp, Timestamp),
    is_over: bool,
) -> Message {
    let summary = format!("{by} tests receiver {receiver}: nothing is wrong");
    let alert = firing(TEST, receiver, (since, at), summary, Severity::Info);
    let alert = if is_over { ended(alert, "the test is over", at) } else { alert };
    let group = (format!("test:{}", alert.id), BTreeMap::from([("rule".into(), TEST.into())]));
    Message { why: Why::Test, ..Message::new(receiver, group, vec![alert], (Why::News, at)) }
}

fn ended(alert: Transition, reason: &str, at: Timestamp) -> Transition {
    let (state, change, reason) = (State::Resolved, ChangeName::Resolved, reason.into());
    Transition { seq: 1, state, change, ended_at: Some(at), reason, ..alert }
}

fn firing(
    rule: &str,
    receiver: &str,
    times: (Timestamp, Timestamp),
    summary: String,
    severity: Severity,
) -> Transition {
    let key = Key::new(vec![("receiver".into(), receiver.into())]);
    Transition { summary, ..bare(rule.into(), severity, key, times) }
}
