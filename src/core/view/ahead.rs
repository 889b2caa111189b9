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
    /// Asks for what an evaluation of these keys reads.
    pub fn ask_ahead(&self, keys: &[KeyId]) -> Token {
        keys.iter().fold(0, |token, key| token ^ self.group_of(*key).map_or(0, |group| self.ask_for(group)))
    }

    /// Asks for what is written of a group when a window is sealed.
    pub(super) fn ask_for(&self, group: u32) -> Token {
        self.group(group).map_or(0, Group::ask_ahead)
    }
}

impl Group {
    fn ask_ahead(&self) -> Token {
        let pane = self.panes.back().map_or(0, |trail| trail.index as u64 ^ trail.pane.count);
        let totals = self.totals.map_or(0, |totals| totals.count);
        let history = self.history().map_or(0, History::ask_ahead);
        pane ^ totals ^ history ^ u64::from(self.rewrites)
    }
}

/// Values at each end of a history that are read when a window comes and one goes, each as far from the next as what
/// memory gives at once.
const ENDS: [usize; 3] = [0, 8, 16];

impl History {
    fn ask_ahead(&self) -> Token {
        let value = |at: usize| self.values.get(at).map_or(0, |value| value.to_bits());
        let count = |at: usize| self.counts.get(at).map_or(0, |count| u64::from(*count));
        let last = self.values.len().saturating_sub(1);
        let ends = ENDS.iter().fold(0, |token, at| token ^ value(*at) ^ value(last.saturating_sub(*at)));
        ends ^ count(0) ^ count(last) ^ self.panes.ask_ahead()
    }
}
