//! Names of keys in Redis. The partition is the hash tag of its keys, so all keys of a commit are in one slot of a
//! Redis cluster, as a script requires.

use crate::core::measure::window::WindowSize;
use crate::core::vocab::partition::Partition;
use crate::core::{Span, Timestamp};
use crate::driver::ports::Asked;

#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    tag: String,
}

/// Where a window is stored: the key of the hash with its row, the key of the hash with its histograms, and the field
/// name in both hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WindowPlace {
    pub(super) rows: String,
    pub(super) histograms: String,
    pub(super) field: String,
    /// Expiry of the keys, in epoch seconds.
    pub(super) rows_expire_s: i64,
    pub(super) histograms_expire_s: i64,
}

impl Keys {
    pub(super) fn new(prefix: &str, partition: Partition) -> Keys {
        Keys { prefix: prefix.into(), tag: format!("{prefix}:{{{partition}}}") }
    }

    pub(super) fn meta(&self) -> String {
        format!("{}:meta", self.prefix)
    }

    /// The deployment's signing key of alerts; only its workers may read it.
    pub(super) fn alert_key(&self) -> String {
        format!("{}:alertkey", self.prefix)
    }

    /// A key of the partition: `sg:{P}:<name>`.
    pub(super) fn of(&self, name: &str) -> String {
        format!("{}:{name}", self.tag)
    }

    /// Key of the silences or maintenance windows, such as `sg:silences`; they belong to the deployment,
    /// not to a partition.
    pub(super) fn asked(&self, kind: Asked) -> String {
        format!("{}:{}", self.prefix, kind.name())
    }

    pub(super) fn snapshot_part(&self, at: u64, part: u32) -> String {
        format!("{}:snap:{at}:{part}", self.tag)
    }

    pub(super) fn window(&self, size: WindowSize, start: Timestamp, series: u64) -> WindowPlace {
        let chunk = start.floor(chunk_of(size));
        let key =
            |kind: &str| format!("{}:{kind}:{}:{series:016x}:{}", self.tag, size.name(), chunk.ms() / 1_000);
        let end = chunk + chunk_of(size);
        let (rows, histograms) = kept(size);
        WindowPlace {
            rows: key("w"),
            histograms: key("h"),
            field: (start.ms() / 1_000).to_string(),
            rows_expire_s: (end + rows).ms() / 1_000,
            histograms_expire_s: (end + histograms).ms() / 1_000,
        }
    }
}

/// Returns the maximum time for which a row of this size may exist after its window's start.
pub(super) fn rows_kept(size: WindowSize) -> Span {
    chunk_of(size) + kept(size).0
}

/// Returns the length of a chunk. The windows of one series and one chunk share a key.
fn chunk_of(size: WindowSize) -> Span {
    match size {
        WindowSize::Minute => Span::from_hours(1),
        WindowSize::FiveMinutes => Span::from_hours(12),
        WindowSize::Hour => Span::from_hours(24 * 7),
    }
}

/// Returns for how long rows and histograms are kept after their chunk ends. A histogram is needed until no late
/// event can correct its window: for one hour of lateness, plus a margin of ten minutes.
fn kept(size: WindowSize) -> (Span, Span) {
    match size {
        WindowSize::Minute => (Span::from_hours(6), Span::from_mins(70)),
        WindowSize::FiveMinutes => (Span::from_hours(48), Span::from_hours(6)),
        WindowSize::Hour => (Span::from_hours(24 * 30), Span::from_hours(48)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_contract() {
        let keys = Keys::new("sg", Partition::default());
        let start = Timestamp::clamped(1_793_491_200_000 + 61 * 60_000);
        let place = keys.window(WindowSize::Minute, start, 0xabc);
        assert_eq!(place.rows, "sg:{0}:w:1m:0000000000000abc:1793494800");
        assert_eq!(place.field, "1793494860");
        assert_eq!(keys.of("catalog"), "sg:{0}:catalog");
    }
}
