//! What is about to be read of some keys, asked for together.
//!
//! Intuition: what is known of a key lies in a dozen places of memory, each found from the one before, and of a
//! hundred thousand keys none is at hand. Who reads one key after another waits for each place; where the places of
//! neighbouring keys are asked for one after another, with nothing else between, they come together. Invariant:
//! nothing but time depends on it. Rejected: the processor's own instructions for it (they need `unsafe`), and
//! rows of all keys side by side (a key that comes or goes would move all others).

use super::View;
use super::group::Group;
use super::history::History;
use crate::core::key::KeyId;

/// Anything that depends on what was read, so that it is read.
pub type Token = u64;

impl View {
    /// Asks for what an evaluation of these keys reads; `has_changed`: whether windows may have been sealed, so
    /// that rows are read, too.
    pub fn ask_ahead(&self, keys: &[KeyId], has_changed: bool) -> Token {
        self.ask_for(keys.iter().filter_map(|key| self.group_of(*key)), has_changed)
    }

    /// Asks for what is read and written of groups when their windows are sealed. Step by step: where the next
    /// place is, is known only once the one before it has come, so all groups take each step together.
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

/// Values at each end of a history that are read when a window comes and one goes, each as far from the next as what
/// memory gives at once.
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
        ends ^ count(0) ^ count(last) ^ self.panes.ask_ahead()
    }
}
