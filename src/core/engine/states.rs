//! The state of each rule and record: alerts, what they remember, and their timers.
//!
//! Invariant: each key of a rule or record has at most one timer of its own, stored with its state. The table of all
//! timers, which finds the next one, is built from these. A key that lost its series gets an additional entry in
//! the table only, and keeps its own timer.

use super::fdr::Chances;
use super::records::RecordState;
use super::timeline::Timeline;
use crate::core::alert::Instance;
use crate::core::alert::flap::Flaps;
use crate::core::evaluate::baseline_freeze::BaselineFreeze;
use crate::core::evaluate::proportion::Shares;
use crate::core::vocab::key::KeyId;
use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The `record:` series or rule that a timer wakes. Records precede rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Owner {
    Record(u32),
    Rule(u32),
}

/// The state of all rules and records of a rule set, in its order.
#[derive(Debug, Default)]
pub(super) struct States {
    rules: Vec<RuleState>,
    records: Vec<RecordState>,
    timers: BTreeSet<(Timestamp, Owner, KeyId)>,
}

/// The state of one rule.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct RuleState {
    pub(super) instances: BTreeMap<KeyId, Instance>,
    pub(super) shares: Shares,
    pub(super) baseline_freeze: BaselineFreeze,
    pub(super) flaps: BTreeMap<KeyId, Flaps>,
    /// Keys whose alerts were not opened because the rule already has too many alerts.
    pub(super) capped: BTreeSet<KeyId>,
    /// The due time of each key's timer in the engine's timer table.
    timers: BTreeMap<KeyId, Timestamp>,
    /// The p-value of each unusual key, if the rule controls the false discovery rate.
    pub(super) chances: Chances,
}

impl RuleState {
    /// Returns whether the rule holds state of a key that an evaluation may change.
    pub(super) fn remembers(&self, key: KeyId) -> bool {
        self.instances.contains_key(&key) || self.timers.contains_key(&key) || self.flaps.contains_key(&key)
    }

    /// Drops everything that was learned about a key. Its alert and its timer stay.
    pub(super) fn forget(&mut self, key: KeyId) {
        self.shares.forget(key);
        self.baseline_freeze.forget(key);
        self.flaps.remove(&key);
        self.chances.remove(&key);
    }

    /// Returns when the timer of a key is due.
    pub(super) fn timer(&self, key: KeyId) -> Option<Timestamp> {
        self.timers.get(&key).copied()
    }

    /// Returns the keys that have timers.
    pub(super) fn timed_keys(&self) -> impl Iterator<Item = KeyId> {
        self.timers.keys().copied()
    }

    /// Sets the timer of a key before the state is put into [`States`].
    pub(super) fn prepare_timer(&mut self, key: KeyId, at: Timestamp) {
        self.timers.insert(key, at);
    }
}

impl States {
    pub(super) fn new(rules: Vec<RuleState>, records: Vec<RecordState>) -> States {
        let of_rules = rules.iter().zip(0..).flat_map(|(state, at)| {
            state.timers.iter().map(move |(key, when)| (*when, Owner::Rule(at), *key))
        });
        let of_records = records.iter().zip(0..).flat_map(|(state, at)| {
            state.timers.iter().map(move |(key, when)| (*when, Owner::Record(at), *key))
        });
        let timers = of_rules.chain(of_records).collect();
        States { rules, records, timers }
    }

    /// Sets the timer of one key of a rule or record; `None` removes it. The time is rounded up to the grid.
    pub(super) fn set_timer(
        &mut self,
        owner: Owner,
        key: KeyId,
        at: Option<Timestamp>,
        timeline: &mut Timeline,
    ) {
        let soonest = timeline.now() + Span::MILLISECOND;
        let wanted = at.map(|at| at.max(soonest).ceil(timeline.interval()));
        let timers = self.timers_of(owner);
        let before = match wanted {
            Some(wanted) => timers.insert(key, wanted),
            None => timers.remove(&key),
        };
        if before == wanted {
            return;
        }
        if let Some(before) = before {
            self.timers.remove(&(before, owner, key));
        }
        if let Some(wanted) = wanted {
            self.timers.insert((wanted, owner, key));
            timeline.wake_at(wanted);
        }
    }

    /// Schedules an evaluation of a key at a grid point, in addition to the key's own timer.
    pub(super) fn wake(&mut self, rule: usize, key: KeyId, at: Timestamp) {
        self.timers.insert((at, Owner::Rule(rule as u32), key));
    }

    /// Takes the next timer that is due by `at`.
    pub(super) fn take_due(&mut self, at: Timestamp) -> Option<(Owner, KeyId)> {
        let (when, owner, key) = self.timers.first().copied().filter(|(when, ..)| *when <= at)?;
        self.timers.pop_first();
        let timers = self.timers_of(owner);
        if timers.get(&key) == Some(&when) {
            timers.remove(&key);
        }
        Some((owner, key))
    }

    fn timers_of(&mut self, owner: Owner) -> &mut BTreeMap<KeyId, Timestamp> {
        match owner {
            Owner::Record(record) => &mut self.records[record as usize].timers,
            Owner::Rule(rule) => &mut self.rules[rule as usize].timers,
        }
    }

    /// Takes the states of all records, so that another rule set can take them over.
    pub(super) fn take_records(&mut self) -> Vec<RecordState> {
        std::mem::take(&mut self.records)
    }

    pub(super) fn take_rule(&mut self, rule: usize) -> RuleState {
        std::mem::take(&mut self.rules[rule])
    }

    /// Forgets everything of all rules.
    pub(super) fn clear_rules(&mut self) {
        let empty = self.rules.iter().map(|_| RuleState::default()).collect();
        *self = States::new(empty, std::mem::take(&mut self.records));
    }

    pub(super) fn rule(&self, rule: usize) -> &RuleState {
        &self.rules[rule]
    }

    pub(super) fn rule_mut(&mut self, rule: usize) -> &mut RuleState {
        &mut self.rules[rule]
    }

    pub(super) fn record(&self, record: usize) -> &RecordState {
        &self.records[record]
    }

    pub(super) fn record_mut(&mut self, record: usize) -> &mut RecordState {
        &mut self.records[record]
    }

    pub(super) fn rules(&self) -> &[RuleState] {
        &self.rules
    }

    pub(super) fn records(&self) -> &[RecordState] {
        &self.records
    }

    /// Returns when the next timer is due.
    pub(super) fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(when, ..)| *when)
    }
}
