//! Prefetch: reads the state of several keys before they are evaluated.
//!
//! Intuition: the state of a key lies in a dozen places in memory, and the address of each place is read from
//! the one before. With 100,000 keys, none of the places is in the processor's cache. Evaluating one key
//! after another waits for each cache miss in turn. If the same place of several keys is read with nothing
//! else between, the cache misses overlap.
//! Invariant: prefetching changes nothing but the time that an evaluation takes.
//! Rejected: the processor's prefetch instructions (they need `unsafe`), and storing the rows of all keys
//! side by side (adding or removing a key would move all others).

use super::View;
use super::group::Group;
use super::history::History;
use crate::core::vocab::key::KeyId;

/// A number that depends on every prefetched value, so that the compiler cannot remove the reads.
pub(crate) type Token = u64;

impl View {
    /// Prefetches the state that an evaluation of these keys reads. `has_changed`: whether windows may have
    /// been sealed; if so, rows are read, too.
    pub(crate) fn prefetch(&self, keys: &[KeyId], has_changed: bool) -> Token {
        self.ask_for(keys.iter().filter_map(|key| self.group_of(*key)), has_changed)
    }

    /// Prefetches the state of these groups that sealing reads and writes; the rows only if `has_rows`. An
    /// address is known only after the previous read, so each step is done for all groups before the next
    /// step.
    pub(super) fn ask_for(&self, places: impl Iterator<Item = u32>, has_rows: bool) -> Token {
        let groups: Vec<&Group> = places.filter_map(|place| self.group(place)).collect();
        let histories: Vec<&History> = groups.iter().filter_map(|group| group.history()).collect();
        let first = groups.iter().fold(0, |token, group| token ^ group.ask_first());
        let heads = histories.iter().fold(0, |token, history| token ^ history.ask_first());
        let panes = groups.iter().fold(0, |token, group| token ^ group.ask_for_panes());
        let histories = histories.iter().filter(|_| has_rows);
        let rows = histories.fold(0, |token, history| token ^ history.ask_for_rows());
        first ^ heads ^ panes ^ rows
    }
}

impl Group {
    fn ask_first(&self) -> Token {
        let totals = self.totals.map_or(0, |totals| totals.count);
        self.panes.len() as u64 ^ totals ^ u64::from(self.rewrites)
    }

    fn ask_for_panes(&self) -> Token {
        self.panes.back().map_or(0, |trail| trail.index as u64 ^ trail.pane.count)
    }
}

/// Offsets of the values to prefetch at each end of a history, where one window is added and one removed.
/// Eight values of 8 B are one cache line.
const ENDS: [usize; 3] = [0, 8, 16];

impl History {
    fn ask_first(&self) -> Token {
        let tail = self.tail_begin().map_or(0, f32::to_bits);
        (self.values.len() ^ self.counts.len()) as u64 ^ u64::from(tail)
    }

    fn ask_for_rows(&self) -> Token {
        let value = |at: usize| self.values.get(at).map_or(0, |value| value.to_bits());
        let count = |at: usize| self.counts.get(at).map_or(0, |count| u64::from(*count));
        let last = self.values.len().saturating_sub(1);
        let ends = ENDS.iter().fold(0, |token, at| token ^ value(*at) ^ value(last.saturating_sub(*at)));
        ends ^ count(0) ^ count(last) ^ self.panes.prefetch()
    }
}
