//! Alerts about the system itself, published under reserved rules `_sg_*` that no operator has to write.

use super::display::Display;
use super::transition::{ChangeName, Evidence, Input, State, Transition, Window};
use crate::core::vocab::key::Key;
use crate::core::vocab::severity::Severity;
use crate::core::vocab::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Returns whether a rule is reserved for alerts about the system itself.
pub(crate) fn is_own(rule: &str) -> bool {
    rule.starts_with("_sg_")
}

/// The content of an alert about the system itself.
#[derive(Debug, Clone)]
pub(crate) struct SelfAlert {
    pub rule: Arc<str>,
    pub severity: Severity,
    pub key: Key,
    /// The quantity that `value` counts.
    pub input: String,
    pub value: f64,
    pub threshold: String,
    pub reason: String,
    pub summary: String,
}

impl SelfAlert {
    /// Builds transition number `seq` of the alert: `Firing` or an end.
    pub(crate) fn transition(
        self,
        state: State,
        seq: u32,
        started_at: Timestamp,
        at: Timestamp,
    ) -> Transition {
        let is_over = state != State::Firing;
        // The count at the end is not known, so a resolved transition has no value.
        let value = Some(self.value).filter(|_| !is_over);
        let input = Input { input: self.input, value, count: None, unknown: None };
        Transition {
            seq,
            state,
            change: if is_over { ChangeName::Resolved } else { ChangeName::Firing },
            value,
            display: Display::new(value, None, &self.threshold, None),
            threshold: self.threshold.into(),
            ended_at: is_over.then_some(at),
            reason: self.reason,
            evidence: Evidence { inputs: vec![input], window: Window::default(), ..Evidence::default() },
            summary: self.summary,
            rule_hash: self.rule.clone(),
            ..bare(self.rule, self.severity, self.key, (started_at, at))
        }
    }
}

/// Builds the first transition of an episode, without content. The pair holds the start of the episode and
/// the time of publication.
pub(crate) fn bare(
    rule: Arc<str>,
    severity: Severity,
    key: Key,
    (started_at, at): (Timestamp, Timestamp),
) -> Transition {
    Transition {
        id: format!("{rule}:{:016x}:{}", key.hash(), started_at.ms()),
        seq: 0,
        rule,
        state: State::Firing,
        change: ChangeName::Firing,
        severity,
        severity_highest: severity,
        key: key.into(),
        labels: BTreeMap::new(),
        value: None,
        unit: None,
        threshold: "".into(),
        display: Display::default(),
        started_at,
        at,
        event_time: None,
        no_data_since: None,
        ended_at: None,
        reason: String::new(),
        evidence: Evidence::default(),
        escalation_level: 0,
        notify: Vec::new(),
        escalate_to: None,
        acknowledged_by: None,
        suppressed_by: None,
        flapping: false,
        actions: Vec::new(),
        summary: String::new(),
        runbook: None,
        rule_hash: "".into(),
    }
}
