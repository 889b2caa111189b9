//! Control of the false discovery rate: decides which unusual keys of a rule with many keys are significant.
//!
//! Intuition: among ten thousand quiet keys, some pass any limit each minute. So a rule with many keys
//! observes all due keys of a grid point, and compares their p-values, before it opens an alert for any of them.
//! Invariant: keys that are pending or firing are judged by their own limit. A key whose p-value is not
//! significant is judged again with the largest significant p-value as its limit, so its published value agrees.
//! Level: the stated share of false alerts among those published, but at most one false alert a day over all
//! keys. A rule evaluates once per pane, so each evaluation may err with probability pane / 24 h.
//! Rejected: a limit for each key, because its false alarms grow with the keys; looking only at the keys of
//! one window, because each window then has its own false alarms.

use super::Engine;
use super::rules::Observed;
use crate::core::alert::{Instance, Levels, Observation};
use crate::core::detect::fdr;
use crate::core::evaluate::Notes;
use crate::core::rule::{FDR_DEFAULT, FDR_KEYS, Fdr, Rule};
use crate::core::view::{View, ViewKind};
use crate::core::vocab::key::KeyId;
use crate::core::vocab::time::{Span, Timestamp};
use std::collections::BTreeMap;

/// False alerts a day that all quiet keys of one rule together may cause.
const FALSE_A_DAY: f64 = 1.0;

/// The p-value of each unusual key of one rule, from its last evaluation.
pub(super) type Chances = BTreeMap<KeyId, f64>;

impl Engine {
    /// Returns the false discovery rate that a rule accepts; `None` if its keys are judged separately.
    pub(super) fn shared_share(&self, rule: &Rule) -> Option<f64> {
        let keys = self.keys_read(rule);
        match rule.fdr {
            Fdr::Off => None,
            Fdr::Share(share) => Some(share),
            Fdr::ByKeys => (rule.reads.has_chances && keys > FDR_KEYS).then_some(FDR_DEFAULT),
        }
    }

    fn keys_read(&self, rule: &Rule) -> usize {
        self.views.of(&rule.views).filter(|view| !view.spec.per_version).map(View::len).max().unwrap_or(0)
    }

    /// Evaluates again, with a stricter limit, each key whose condition is met but whose p-value is not
    /// significant among all keys. It runs after all due keys were observed, because significance depends on the
    /// p-values of all keys.
    pub(super) fn judge_unbelieved(
        &mut self,
        place: usize,
        rule: &Rule,
        seen: &mut [Observed],
        at: Timestamp,
    ) {
        let Some(share) = self.shared_share(rule).filter(|_| !seen.is_empty()) else { return };
        let believed = self.believed(place, rule, share);
        for one in seen {
            let (state, key) = (self.states.rule(place), one.key);
            let is_active = state.instances.get(&key).is_some_and(Instance::is_active);
            let is_doubted = state.chances.get(&key).is_some_and(|chance| *chance > believed);
            let is_met = matches!(one.observation, Observation::Known { met, .. } if met != Levels::NONE);
            if is_met && is_doubted && !is_active {
                *one = self.observe_key(place, rule, key, at, Notes::of_many(believed));
            }
        }
    }

    /// Stores the p-value of a key if it is below 1. A p-value of 1 is never significant and makes no other
    /// key significant.
    pub(super) fn note_p_value(&mut self, place: usize, Observed { key, notes, .. }: &Observed) {
        let chances = &mut self.states.rule_mut(place).chances;
        match notes.chance_of_all().filter(|chance| *chance < 1.0) {
            Some(chance) => chances.insert(*key, chance),
            None => chances.remove(key),
        };
    }

    /// Returns the largest significant p-value (Benjamini–Hochberg); 0 if none is significant.
    fn believed(&self, place: usize, rule: &Rule, share: f64) -> f64 {
        let mut chances: Vec<f64> = self.states.rule(place).chances.values().copied().collect();
        let panes = self.views.of(&rule.views).filter_map(|view| match view.spec.kind {
            ViewKind::Trailing { pane, .. } => Some(pane),
            _ => None,
        });
        let pane = panes.min().unwrap_or(Span::from_mins(1));
        let budget = FALSE_A_DAY * pane.secs_f64() / Span::from_hours(24).secs_f64();
        fdr::believed(&mut chances, self.keys_read(rule), share.min(budget)).unwrap_or(0.0)
    }
}
