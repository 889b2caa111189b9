//! How fresh the inputs of an alert are: since when nothing came that it is judged by.
//!
//! Intuition: an alert whose inputs stopped looks like one that goes on. So it says so, long before it ends as
//! stale, and also where the absence itself is what it tells of. Invariant: a function of the log's clock and of
//! the newest times that views and runs keep anyway; the engine wakes when it begins to be so, and those who look
//! later see it. Rejected: the time in the evidence (a window that is empty has none), a timer of wall clock time.

use super::Engine;
use super::rules::run_selectors;
use crate::core::alert::{Instance, Unknown};
use crate::core::key::KeyId;
use crate::core::rule::Rule;
use crate::core::rule::evaluate::{Notes, run_sight};
use crate::core::run::Sight;
use crate::core::time::{Span, Timestamp};
use crate::core::view::{self, ViewKind};

/// Inputs may stay away for so long before an alert says it: as long as a pending one may be unknown.
const AWAY_MAX: Span = Span::from_mins(5);

impl Engine {
    /// Time of the newest input of a key, once there was none for five minutes. `lacks`: why nobody knows what it
    /// is now; where data is missing, the operand without it counts, however fresh the others are.
    pub(super) fn no_data_since(
        &self,
        rule: &Rule,
        key: KeyId,
        (lacks, notes): (Option<Unknown>, &Notes),
        at: Timestamp,
    ) -> Option<Timestamp> {
        self.newest_input(rule, key, lacks, notes).filter(|newest| at - *newest >= AWAY_MAX)
    }

    /// When an active alert begins to say so, if nothing comes until then.
    pub(super) fn falls_silent(
        &self,
        place: usize,
        rule: &Rule,
        key: KeyId,
        notes: &Notes,
        at: Timestamp,
    ) -> Option<Timestamp> {
        let instance = self.rule_states[place].instances.get(&key).filter(|one| one.is_active())?;
        let newest = self.newest_input(rule, key, lack(instance), notes)?;
        Some(newest + AWAY_MAX).filter(|due| *due > at)
    }

    fn newest_input(
        &self,
        rule: &Rule,
        key: KeyId,
        lacks: Option<Unknown>,
        notes: &Notes,
    ) -> Option<Timestamp> {
        if lacks.is_some_and(Unknown::is_want_of_data) && notes.missing.is_some() {
            return notes.missing;
        }
        let is_read = |view: &&u32| {
            let spec = &self.views[**view as usize].spec;
            !spec.per_version && matches!(spec.kind, ViewKind::Trailing { .. } | ViewKind::Newest)
        };
        let views =
            rule.views.iter().filter(is_read).filter_map(|view| view::newest(&self.views, *view, key));
        let newest = views.max();
        if !rule.reads.has_runs {
            return newest;
        }
        let sights = run_selectors(rule).into_iter().filter_map(|selector| {
            match run_sight(&self.runs, self.keys.get(key), selector)? {
                Sight::Busy { newest, .. } => Some(newest),
                Sight::Idle | Sight::Lost => None,
            }
        });
        newest.max(sights.max())
    }
}

/// Why an alert is not known now.
pub(super) fn lack(instance: &Instance) -> Option<Unknown> {
    instance.unknown.map(|(reason, _)| reason)
}
