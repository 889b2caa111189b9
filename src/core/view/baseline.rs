//! Baseline views: the aligned windows of a past period or of each version, nearly all of them sealed.

use super::history::{History, Reader};
use super::{View, ViewKind};
use crate::core::detect::regression::Window;
use crate::core::vocab::key::KeyId;
use crate::core::vocab::time::{Span, Timestamp};

/// Number of newest windows kept per version; 34 bytes each.
pub(crate) const WINDOWS_OF_A_VERSION: usize = 64;

/// Number of windows kept beyond the period. The trailing window overlaps two, and one more is not sealed
/// yet. [`WINDOWS_BEHIND`] more stay until the next evaluation of a rule subtracts them from its counts. A
/// window takes 10 bytes, with a profile 34.
const WINDOWS_SPARE: i64 = 3 + WINDOWS_BEHIND;

/// Maximum number of windows between two evaluations of a rule. After more windows, the rule counts all
/// windows of its baseline from scratch.
const WINDOWS_BEHIND: i64 = 8;

/// Number of versions kept beyond those that rules compare, because a version that appears may be an old one.
const VERSIONS_SPARE: usize = 4;

/// Maximum number of groups kept for versions that no series feeds any more; about 2 KiB each.
const GONE_MAX: usize = 4_096;

/// The rows that a view keeps per key: those of a time span, or the newest [`WINDOWS_OF_A_VERSION`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Retention {
    For(Span),
    Newest,
}

/// The sealed windows of one key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SealedWindows<'a> {
    history: &'a History,
    rewrites: u32,
    /// From this index on, a window without observations counts as zero.
    zeros_since: Option<i64>,
}

/// The state returned by [`SealedWindows::state_before`]. A window that is sealed after `end` does not
/// change it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct StateBefore {
    pub changes: u32,
    pub end: i64,
    pub tail: Option<u32>,
}

impl SealedWindows<'_> {
    /// Returns the state by which a reader detects changed windows: the number of rewritten rows, the index
    /// of the oldest window, and the index after the newest.
    pub(crate) fn state(&self) -> (u32, i64, i64) {
        let (first, end) = self.history.range();
        (self.rewrites, first, end)
    }

    /// Returns the state by which a reader detects that a baseline of the windows before `end` is out of
    /// date: the number of rewritten rows, the index after the newest of these windows, and the threshold of
    /// the tail.
    pub(crate) fn state_before(&self, end: i64) -> StateBefore {
        let (_, newest_end) = self.history.range();
        StateBefore {
            changes: self.rewrites,
            end: newest_end.min(end),
            tail: self.history.tail_begin().map(f32::to_bits),
        }
    }

    /// Returns the threshold above which a value belongs to the tail of the past.
    pub(crate) fn tail_begin(&self) -> Option<f64> {
        self.history.tail_begin().map(f64::from)
    }

    /// Returns the statistics of one window; `None` if the window is unknown.
    pub(crate) fn window(&self, index: i64) -> Option<Window> {
        let (value, count) = self.value(index)?;
        Some(Window { count, value, profile: self.history.profile(index) })
    }

    /// Returns value and count of a window. A window without a row is unknown, with one exception: if the
    /// aggregate of an empty window is zero, a window after the key's first one counts as zero.
    #[inline]
    pub(crate) fn value(&self, index: i64) -> Option<(f64, u64)> {
        self.history.value(index).or_else(|| self.is_zero(index).then_some((0.0, 0)))
    }

    /// Returns the known windows from `first` to `last`, with their indexes.
    pub(crate) fn within(&self, first: i64, last: i64) -> impl Iterator<Item = (i64, Window)> + '_ {
        (first..=last).filter_map(|index| Some((index, self.window(index)?)))
    }

    /// Returns index, value and count of each known window, from either end.
    pub(crate) fn values(
        &self,
        first: i64,
        last: i64,
    ) -> impl DoubleEndedIterator<Item = (i64, f64, u64)> + '_ {
        (first..=last).filter_map(|index| self.value(index).map(|(value, count)| (index, value, count)))
    }

    fn is_zero(&self, index: i64) -> bool {
        self.zeros_since.is_some_and(|since| index >= since)
    }
}

impl View {
    pub(super) fn is_of_deploys(&self) -> bool {
        matches!(self.spec.kind, ViewKind::Deploys { .. })
    }

    /// Whether the view has sealed windows.
    pub(super) fn is_looking_back(&self) -> bool {
        matches!(self.spec.kind, ViewKind::Baseline { .. } | ViewKind::Deploys { .. })
    }

    /// Returns how the view reduces a window to a row, and which rows it keeps.
    pub(super) fn reader(&self) -> Option<(Reader, Retention)> {
        let reader =
            |window, aggregate, is_profiled| Reader { shape: self.shape, aggregate, window, is_profiled };
        match self.spec.kind {
            ViewKind::Baseline { window, period, aggregate, is_profiled } => {
                let kept = Retention::For(period + self.lateness.allowed + window * WINDOWS_SPARE);
                Some((reader(window, aggregate, is_profiled), kept))
            }
            ViewKind::Deploys { window, aggregate, is_profiled, .. } => {
                Some((reader(window, aggregate, is_profiled), Retention::Newest))
            }
            _ => None,
        }
    }

    /// Returns the sealed aligned windows of these indexes, oldest first. If the aggregate of an empty
    /// window is zero, empty windows are included.
    pub(crate) fn past(&self, key: KeyId, first: i64, last: i64) -> Vec<(i64, Window)> {
        self.sealed(key).map_or_else(Vec::new, |windows| windows.within(first, last).collect())
    }

    /// Returns the sealed windows of a key.
    pub(crate) fn sealed(&self, key: KeyId) -> Option<SealedWindows<'_>> {
        let group = self.group_of(key).and_then(|group| self.group(group))?;
        let (reader, _) = self.reader()?;
        Some(SealedWindows {
            history: group.history()?,
            rewrites: group.rewrites,
            zeros_since: if reader.aggregate.is_zero_of_nothing() { group.begun() } else { None },
        })
    }

    /// Returns how often a window of the key was sealed or sealed again; 0 for a key without a group.
    pub(crate) fn changes(&self, key: KeyId) -> u32 {
        self.group_of(key).and_then(|group| self.group(group)).map_or(0, |group| group.changes)
    }

    /// Returns the index of the first window with an observation of the key.
    pub(crate) fn begun(&self, key: KeyId) -> Option<i64> {
        self.group_of(key).and_then(|group| self.group(group))?.begun()
    }

    /// Makes room for a new version. Removes versions that no series feeds any more: the oldest of the same
    /// key, and the oldest of all keys if there are too many.
    pub(crate) fn prune_versions(&mut self, versions: &[KeyId]) {
        let ViewKind::Deploys { deploys, .. } = self.spec.kind else { return };
        let mut known: Vec<(Option<i64>, KeyId)> = versions
            .iter()
            .filter(|key| self.group_of(**key).is_some())
            .map(|key| (self.begun(*key), *key))
            .collect();
        // A version without observations yet is the newest.
        known.sort_by_key(|(begun, _)| begun.unwrap_or(i64::MAX));
        let surplus = known.len().saturating_sub(deploys as usize + 1 + VERSIONS_SPARE);
        known[..surplus].iter().for_each(|(_, key)| self.drop_gone(*key));
        if self.gone > GONE_MAX {
            let all_gone = self.groups.iter().flatten().filter(|group| group.members == 0);
            let mut all_gone: Vec<(Timestamp, KeyId)> =
                all_gone.map(|group| (group.newest, group.key)).collect();
            all_gone.sort();
            // More groups are removed than necessary; otherwise every new version would visit all groups.
            all_gone.truncate(all_gone.len().saturating_sub(GONE_MAX - GONE_MAX / 8));
            all_gone.iter().for_each(|(_, key)| self.drop_gone(*key));
        }
    }

    pub(super) fn count_gone(&mut self) {
        let is_gone = |group: &&super::group::Group| group.members == 0;
        self.gone =
            if self.is_of_deploys() { self.groups.iter().flatten().filter(is_gone).count() } else { 0 };
    }

    /// Removes the group of a key, if no series feeds it any more.
    fn drop_gone(&mut self, key: KeyId) {
        let Some(at) = self.group_of(key) else { return };
        if self.group(at).is_some_and(|group| group.members == 0) {
            self.remove(at);
            self.gone = self.gone.saturating_sub(1);
        }
    }
}
