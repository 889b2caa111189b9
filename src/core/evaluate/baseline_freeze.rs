//! Keeps baselines from learning from alerts.
//!
//! Intuition: an alert must not teach the baseline that the state it reports is normal.
//! Invariant: while a key is pending or firing, it is compared with the baseline learned before. Afterwards
//! the windows of that time are excluded from the baseline of a regression or a season, unless the alert never
//! fired or an operator accepted the change. This is state, not a cache.
//! Rejected: excluding alert windows for every function (see
//! [`crate::core::rule::ast::Past::leaves_alerts_out`]), because an ordinary daily peak would fire every morning,
//! without end.

use super::lookback::Version;
use crate::core::vocab::key::KeyId;
use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The frozen baselines of one rule, and the times that are excluded from its baselines.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct BaselineFreeze {
    /// The baselines of pending and firing keys.
    versions: BTreeMap<(u32, KeyId), Version>,
    keys: BTreeMap<KeyId, Lessons>,
}

/// The times of one key that are excluded from its baseline.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Lessons {
    /// Begin and end of alerts, the newest last; the end is MAX while the alert is active.
    left_out: Vec<(Timestamp, Timestamp)>,
    /// Set once an operator accepted a change: windows before this time are excluded from the baseline.
    since: Option<Timestamp>,
    /// Counts changes of the two fields above.
    changes: u32,
}

/// Maximum number of alerts remembered per key; the windows of older alerts lie outside most periods.
const EPISODES_MAX: usize = 64;

impl BaselineFreeze {
    /// Notes that an alert of this key became pending at a grid point.
    pub(crate) fn begin(&mut self, key: KeyId, started_at: Timestamp) {
        let lessons = self.keys.entry(key).or_default();
        if lessons.left_out.len() >= EPISODES_MAX {
            lessons.left_out.remove(0);
        }
        lessons.left_out.push((started_at, Timestamp::MAX));
        lessons.changes += 1;
    }

    /// Notes that the alert ended at grid point `at`; `None` if it never fired.
    pub(crate) fn end(&mut self, key: KeyId, at: Option<Timestamp>) {
        self.versions.retain(|(_, owner), _| *owner != key);
        let Some(lessons) = self.keys.get_mut(&key) else { return };
        let newest = lessons.left_out.pop_if(|(_, to)| *to == Timestamp::MAX);
        lessons.left_out.extend(newest.zip(at).map(|((from, _), at)| (from, at)));
        lessons.changes += 1;
    }

    /// Notes that an operator accepted the change: from `since` on the state is normal.
    pub(crate) fn accept(&mut self, key: KeyId, since: Timestamp) {
        self.versions.retain(|(_, owner), _| *owner != key);
        let lessons = self.keys.entry(key).or_default();
        lessons.left_out.clear();
        lessons.since = Some(since);
        lessons.changes += 1;
    }

    pub(crate) fn forget(&mut self, key: KeyId) {
        self.versions.retain(|(_, owner), _| *owner != key);
        self.keys.remove(&key);
    }

    /// Returns the frozen baseline of a pending or firing key.
    pub(super) fn version(&self, place: u32, key: KeyId) -> Option<Version> {
        self.versions.get(&(place, key)).cloned()
    }

    pub(super) fn keep(&mut self, place: u32, key: KeyId, version: Version) {
        self.versions.insert((place, key), version);
    }

    /// Returns whether the baseline may be learned from a window, given by start and end. `leaves_out`: whether
    /// windows of alerts, and windows that end within `margin` before an alert, are excluded.
    pub(super) fn teaches(
        &self,
        key: KeyId,
        (start, end): (Timestamp, Timestamp),
        margin: Span,
        leaves_out: bool,
    ) -> bool {
        let Some(lessons) = self.keys.get(&key) else { return true };
        let is_left_out = |(from, to): &(Timestamp, Timestamp)| end > *from - margin && start < *to;
        lessons.since.is_none_or(|since| start >= since)
            && !(leaves_out && lessons.left_out.iter().any(is_left_out))
    }

    /// Whether no window from `start` on is excluded from the baseline.
    pub(super) fn teaches_all(&self, key: KeyId, start: Timestamp, window: Span, leaves_out: bool) -> bool {
        let Some(lessons) = self.keys.get(&key) else { return true };
        let is_over = |(_, to): &(Timestamp, Timestamp)| *to <= start - window;
        lessons.since.is_none_or(|since| start >= since)
            && (!leaves_out || lessons.left_out.iter().all(is_over))
    }

    pub(super) fn changes(&self, key: KeyId) -> u32 {
        self.keys.get(&key).map_or(0, |lessons| lessons.changes)
    }
}
