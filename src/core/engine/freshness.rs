//! The freshness of an alert's inputs: since when the alert has had no input.
//!
//! Intuition: an alert whose inputs stopped looks like one that continues. So the alert reports the lack of
//! data, long before it ends as stale, and also if the lack of data is what it alerts on.
//! Invariant: the result is a function of the log time and of the newest times that views and runs keep
//! anyway. The engine wakes when an input becomes overdue, and every later read of the alert shows it.
//! Rejected: taking the time of the newest input from the alert's evidence (an empty window has none); a
//! timer on the wall clock.

use super::Engine;
use super::rules::run_selectors;
use crate::core::alert::{Instance, Unknown};
use crate::core::evaluate::{Notes, run_sight};
use crate::core::rule::Rule;
use crate::core::run::Sight;
use crate::core::view::{self, ViewKind};
use crate::core::vocab::key::KeyId;
use crate::core::vocab::time::{Span, Timestamp};

/// Time without input after which an alert reports that it has no data. It equals the least time for which a
/// pending alert may stay unknown.
const AWAY_MAX: Span = Span::from_mins(5);

impl Engine {
    /// Returns the time of the newest input of a key, once there was none for five minutes. `lacks` is why the
    /// value is unknown now. If it is unknown because an operand has no data, the newest input of that operand
    /// counts, however fresh the other operands are.
    pub(super) fn no_data_since(
        &self,
        rule: &Rule,
        key: KeyId,
        (lacks, notes): (Option<Unknown>, &Notes),
        at: Timestamp,
    ) -> Option<Timestamp> {
        self.newest_input(rule, key, lacks, notes).filter(|newest| at - *newest >= AWAY_MAX)
    }

    /// Returns when an active alert begins to report the lack of input, if none arrives until then.
    pub(super) fn falls_silent(
        &self,
        place: usize,
        rule: &Rule,
        key: KeyId,
        notes: &Notes,
        at: Timestamp,
    ) -> Option<Timestamp> {
        let instance = self.states.rule(place).instances.get(&key).filter(|one| one.is_active())?;
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
            let spec = &self.views.at(**view).spec;
            !spec.per_version && matches!(spec.kind, ViewKind::Trailing { .. } | ViewKind::Newest)
        };
        let views =
            rule.views.iter().filter(is_read).filter_map(|view| view::newest(self.views.all(), *view, key));
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

/// Returns why the value of an alert is unknown now, if it is.
pub(super) fn lack(instance: &Instance) -> Option<Unknown> {
    instance.unknown.map(|(reason, _)| reason)
}
