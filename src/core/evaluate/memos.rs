//! Caches of what rules learned from past windows.
//!
//! Invariant: a cached baseline is used only while all its inputs are the same, so a cache only saves time.

use super::baseline_cache::{CacheKey, Normal};
use super::lookback::Version;
use super::trend_line::SharedLine;
use crate::core::view::{self, StateBefore};
use crate::core::vocab::key::KeyId;
use crate::core::vocab::key::table::KeyTable;
use crate::core::vocab::time::Timestamp;
use std::collections::HashMap;

/// The rule or record that a function belongs to, by its index in the rule set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reader {
    Rule(u32),
    Record(u32),
}

/// Caches of learned baselines.
#[derive(Debug, Default)]
pub(crate) struct Memos {
    /// Baselines that are not shared between rules: those with excluded windows or gaps, of seasons, of
    /// deployments, and correlations. The key is the reader and the number of the function within it.
    pub(super) learned: Table<(Reader, u32), KeyTable<Memo>>,
    pub(super) normal: Table<CacheKey, KeyTable<Normal>>,
    pub(super) lines: Table<CacheKey, KeyTable<SharedLine>>,
}

type Table<K, V> = HashMap<K, V, foldhash::fast::FixedState>;

/// A cached baseline; `None` if there were too few windows.
#[derive(Debug)]
pub(super) struct Memo {
    pub(super) of: MemoOf,
    pub(super) version: Option<Version>,
}

/// The inputs of a cached baseline; a cached baseline with other inputs is out of date.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MemoOf {
    /// The end of the newest window.
    pub(super) end: Timestamp,
    pub(super) state: StateBefore,
    /// The version that is compared with the versions before it.
    pub(super) deployed: Option<KeyId>,
    /// With `season`: the hour that contains most of the trailing window.
    pub(super) slot: Timestamp,
    pub(super) min_count: u64,
    /// Counters of changes to the windows left out: by alerts of the key, and by maintenance.
    pub(super) lessons: (u32, u32),
}

impl Memos {
    pub(crate) fn clear(&mut self) {
        *self = Memos::default();
    }

    /// Prefetches what an evaluation of these keys reads; see [`view::prefetch`].
    pub(crate) fn prefetch(&self, keys: &[KeyId]) -> view::prefetch::Token {
        let ask = |token, one: Option<u64>| token ^ one.unwrap_or(0);
        let normal = self.normal.values().flat_map(|known| keys.iter().map(|key| known.get(*key)));
        let lines = self.lines.values().flat_map(|known| keys.iter().map(|key| known.get(*key)));
        let normal = normal.map(|known| known.map(Normal::prefetch)).fold(0, ask);
        lines.map(|known| known.map(SharedLine::prefetch)).fold(normal, ask)
    }

    pub(crate) fn forget(&mut self, key: KeyId) {
        for keys in self.learned.values_mut() {
            keys.remove(key);
        }
        for keys in self.normal.values_mut() {
            keys.remove(key);
        }
        for keys in self.lines.values_mut() {
            keys.remove(key);
        }
    }
}
