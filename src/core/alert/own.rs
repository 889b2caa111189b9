//! An alert about the system itself as others see it: a reserved rule `_sg_*`, which nobody has to write.

use super::Severity;
use super::transition::{ChangeName, Evidence, Input, State, Transition, Window};
use crate::core::key::Key;
use crate::core::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What such an alert says.
#[derive(Debug, Clone)]
pub struct Said {
    pub rule: Arc<str>,
    pub severity: Severity,
    pub key: Key,
    /// What `value` counts.
    pub input: String,
    pub value: f64,
    pub threshold: String,
    pub reason: String,
    pub summary: String,
}

impl Said {
    /// Its transition number `seq`, `Firing` or an end.
    pub fn transition(self, state: State, seq: u32, started_at: Timestamp, at: Timestamp) -> Transition {
        let is_over = state != State::Firing;
        let input = Input { input: self.input, value: Some(self.value), count: None, unknown: None };
        Transition {
            id: format!("{}:{:016x}:{}", self.rule, self.key.hash(), started_at.ms()),
            seq,
            rule: self.rule.clone(),
            state,
            change: if is_over { ChangeName::Resolved } else { ChangeName::Firing },
            severity: self.severity,
            severity_highest: self.severity,
            key: self.key.into(),
            labels: BTreeMap::new(),
            value: Some(self.value),
            unit: None,
            threshold: self.threshold.into(),
            started_at,
            at,
            event_time: None,
            ended_at: is_over.then_some(at),
            reason: self.reason,
            evidence: Evidence { inputs: vec![input], window: Window::default(), ..Evidence::default() },
            escalation_level: 0,
            notify: Vec::new(),
            escalate_to: None,
            acknowledged_by: None,
            suppressed_by: None,
            flapping: false,
            actions: Vec::new(),
            summary: self.summary,
            runbook: None,
            rule_hash: self.rule,
        }
    }
}
