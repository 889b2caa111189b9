//! The alert about what could not be delivered: it goes to all other receivers.

use crate::core::Timestamp;
use crate::core::alert::transition::{ChangeName, Evidence, State};
use crate::core::alert::{Severity, Transition};
use crate::core::key::Key;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The rule's reserved name.
const RULE: &str = "_sg_undelivered";

/// That messages to a receiver lie aside since some time, or that none does any more.
pub fn alert(receiver: &str, since: Timestamp, at: Timestamp, error: Option<&str>) -> Transition {
    let key = Key::new(vec![("receiver".into(), receiver.into())]);
    let (state, change, ended_at) = match error {
        Some(_) => (State::Firing, ChangeName::Firing, None),
        None => (State::Resolved, ChangeName::Resolved, Some(at)),
    };
    let reason = error.map_or("they were taken up again".to_string(), ToString::to_string);
    Transition {
        id: format!("{RULE}:{:016x}:{}", key.hash(), since.ms()),
        seq: u32::from(error.is_none()),
        rule: RULE.into(),
        state,
        change,
        severity: Severity::Critical,
        severity_highest: Severity::Critical,
        key: Arc::new(key),
        labels: BTreeMap::new(),
        value: None,
        unit: None,
        threshold: "".into(),
        started_at: since,
        at,
        event_time: None,
        ended_at,
        summary: format!("messages to receiver {receiver} could not be delivered: {reason}"),
        reason,
        evidence: Evidence::default(),
        escalation_level: 0,
        notify: Vec::new(),
        escalate_to: None,
        acknowledged_by: None,
        suppressed_by: None,
        flapping: false,
        actions: Vec::new(),
        runbook: None,
        rule_hash: "".into(),
    }
}
