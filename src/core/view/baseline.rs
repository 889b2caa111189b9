//! Views that look back: aligned windows, sealed ones mostly, of a period or of each version.

use super::View;
use super::ViewKind;
use super::history::Reader;
use crate::core::detect::regression::Window;
use crate::core::key::KeyId;
use crate::core::time::{Span, Timestamp};

/// Windows kept of one version: what it was like in the end. 64 x 34 bytes.
pub const WINDOWS_OF_A_VERSION: usize = 64;

/// Versions kept beyond those that are asked for, as one that begins may be old.
const VERSIONS_SPARE: usize = 4;

/// Versions of keys that are gone, of which something is still known; 4,096 x 2 KiB.
const GONE_MAX: usize = 4_096;

/// What is kept of closed windows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kept {
    For(Span),
    Newest,
}

impl Kept {
    /// Windows that begin before this are let go.
    pub(super) fn before(self, at: Timestamp) -> Option<Timestamp> {
        match self {
            Kept::For(span) => Some(at - span),
            Kept::Newest => None,
        }
    }
}

impl View {
    pub(super) fn is_of_deploys(&self) -> bool {
        matches!(self.spec.kind, ViewKind::Deploys { .. })
    }

    /// How a window is read, and what is kept.
    pub(super) fn reader(&self) -> Option<(Reader, Kept)> {
        let reader =
            |window, aggregate, is_profiled| Reader { shape: self.shape, aggregate, window, is_profiled };
        match self.spec.kind {
            ViewKind::Baseline { window, period, aggregate, is_profiled } => {
                let kept = Kept::For(period + self.lateness.max + window * 2);
                Some((reader(window, aggregate, is_profiled), kept))
            }
            ViewKind::Deploys { window, aggregate, is_profiled, .. } => {
                Some((reader(window, aggregate, is_profiled), Kept::Newest))
            }
            _ => None,
        }
    }

    /// The aligned windows of these indexes that are known, oldest first. For what is counted, a window
    /// without anything counts, too.
    pub fn past(&self, key: KeyId, first: i64, last: i64) -> Vec<(i64, Window)> {
        let group = self.group_of(key).and_then(|group| self.group(group));
        match (group, self.reader()) {
            (Some(group), Some((reader, _))) => group.past(first, last, &reader),
            _ => Vec::new(),
        }
    }

    /// Where the tail of a key's past begins.
    pub fn tail_begin(&self, key: KeyId) -> Option<f64> {
        let group = self.group_of(key).and_then(|group| self.group(group))?;
        group.tail_begin(&self.reader()?.0)
    }

    /// Counts changes of a key's sealed windows.
    pub fn changes(&self, key: KeyId) -> u32 {
        self.group_of(key).and_then(|group| self.group(group)).map_or(0, |group| group.changes)
    }

    /// Index of the first window in which a key was seen.
    pub fn begun(&self, key: KeyId) -> Option<i64> {
        self.group_of(key).and_then(|group| self.group(group))?.begun()
    }

    /// A version was seen for the first time: the oldest of the same key go, and of keys that are gone.
    pub fn prune_versions(&mut self, versions: &[KeyId]) {
        let ViewKind::Deploys { deploys, .. } = self.spec.kind else { return };
        let mut known: Vec<(Option<i64>, KeyId)> = versions
            .iter()
            .filter(|key| self.group_of(**key).is_some())
            .map(|key| (self.begun(*key), *key))
            .collect();
        // One that was not recorded yet is the newest.
        known.sort_by_key(|(begun, _)| begun.unwrap_or(i64::MAX));
        let surplus = known.len().saturating_sub(deploys as usize + 1 + VERSIONS_SPARE);
        known[..surplus].iter().for_each(|(_, key)| self.drop_gone(*key));
        if self.gone > GONE_MAX {
            let all_gone = self.groups.iter().flatten().filter(|group| group.members == 0);
            let mut all_gone: Vec<(Timestamp, KeyId)> =
                all_gone.map(|group| (group.newest, group.key)).collect();
            all_gone.sort();
            // Some more than must, so that not each new version looks at all groups.
            all_gone.truncate(all_gone.len().saturating_sub(GONE_MAX - GONE_MAX / 8));
            all_gone.iter().for_each(|(_, key)| self.drop_gone(*key));
        }
    }

    pub(super) fn count_gone(&mut self) {
        let is_gone = |group: &&super::group::Group| group.members == 0;
        self.gone =
            if self.is_of_deploys() { self.groups.iter().flatten().filter(is_gone).count() } else { 0 };
    }

    /// Lets the group of a key go, if no series feeds it any more.
    fn drop_gone(&mut self, key: KeyId) {
        let Some(at) = self.group_of(key) else { return };
        if self.group(at).is_some_and(|group| group.members == 0) {
            self.remove(at);
            self.gone = self.gone.saturating_sub(1);
        }
    }
}
