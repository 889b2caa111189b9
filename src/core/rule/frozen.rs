//! What alerts keep their baselines from learning.
//!
//! Intuition: an alert must not teach the baseline that what it tells is normal. Invariant: while a key is
//! pending or fires it is compared with what was learned before, and the windows of that time teach a regression
//! nothing afterwards, unless it never fired, or somebody accepted the change. This is state, not a cache.
//! Rejected: the same for what is merely far from the past ([`super::ast::Past::leaves_alerts_out`]): a daily
//! course was told each morning, for ever.

use super::super::key::KeyId;
use super::super::time::{Span, Timestamp};
use super::past::Version;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the alerts of one rule keep their baselines from learning.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Frozen {
    /// What a pending or firing key is compared with as long as it is.
    versions: BTreeMap<(u32, KeyId), Version>,
    keys: BTreeMap<KeyId, Lessons>,
}

/// Which windows of one key teach nothing.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Lessons {
    /// Times of alerts, the newest last; its end is MAX while it fires.
    left_out: Vec<(Timestamp, Timestamp)>,
    /// A change was accepted: what was before it is no baseline any more.
    since: Option<Timestamp>,
    /// Counts changes of the above.
    changes: u32,
}

/// Alerts of one key whose windows are left out; what is older has left most periods.
const EPISODES_MAX: usize = 64;

impl Frozen {
    /// An alert of this key began to be pending at a grid point.
    pub fn begin(&mut self, key: KeyId, started_at: Timestamp) {
        let lessons = self.keys.entry(key).or_default();
        if lessons.left_out.len() >= EPISODES_MAX {
            lessons.left_out.remove(0);
        }
        lessons.left_out.push((started_at, Timestamp::MAX));
        lessons.changes += 1;
    }

    /// It ended at a grid point; without one it never fired.
    pub fn end(&mut self, key: KeyId, at: Option<Timestamp>) {
        self.versions.retain(|(_, owner), _| *owner != key);
        let Some(lessons) = self.keys.get_mut(&key) else { return };
        let newest = lessons.left_out.pop_if(|(_, to)| *to == Timestamp::MAX);
        lessons.left_out.extend(newest.zip(at).map(|((from, _), at)| (from, at)));
        lessons.changes += 1;
    }

    /// Somebody accepted what changed: from `since` on it is normal.
    pub fn accept(&mut self, key: KeyId, since: Timestamp) {
        self.versions.retain(|(_, owner), _| *owner != key);
        let lessons = self.keys.entry(key).or_default();
        lessons.left_out.clear();
        lessons.since = Some(since);
        lessons.changes += 1;
    }

    pub fn forget(&mut self, key: KeyId) {
        self.versions.retain(|(_, owner), _| *owner != key);
        self.keys.remove(&key);
    }

    /// What a pending or firing key is compared with.
    pub(super) fn version(&self, place: u32, key: KeyId) -> Option<Version> {
        self.versions.get(&(place, key)).cloned()
    }

    pub(super) fn keep(&mut self, place: u32, key: KeyId, version: Version) {
        self.versions.insert((place, key), version);
    }

    /// Whether a window teaches what is normal; `leaves_out`: whether those of alerts teach nothing.
    pub(super) fn teaches(&self, key: KeyId, start: Timestamp, window: Span, leaves_out: bool) -> bool {
        let Some(lessons) = self.keys.get(&key) else { return true };
        let is_left_out =
            |(from, to): &(Timestamp, Timestamp)| start + window > *from - window && start < *to;
        lessons.since.is_none_or(|since| start >= since)
            && !(leaves_out && lessons.left_out.iter().any(is_left_out))
    }

    /// Whether all windows from one on teach.
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
