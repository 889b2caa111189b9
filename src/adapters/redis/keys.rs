//! Names of keys; the hash tag is the partition, so that one commit is one slot of a cluster.

use crate::core::partition::Partition;
use crate::core::window::WindowSize;
use crate::core::{Span, Timestamp};
use crate::driver::ports::Asked;

#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    tag: String,
}

/// A window's hash keys: of its row, of its histograms, and the field in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WindowPlace {
    pub(super) rows: String,
    pub(super) histograms: String,
    pub(super) field: String,
    /// When the keys may go, in epoch seconds.
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

    /// The deployment's key of alerts; nobody but its workers may read it.
    pub(super) fn alert_key(&self) -> String {
        format!("{}:alertkey", self.prefix)
    }

    /// `sg:{P}:<name>`
    pub(super) fn of(&self, name: &str) -> String {
        format!("{}:{name}", self.tag)
    }

    /// What people asked for is the deployment's, not a partition's: `sg:silences`.
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

/// How long the oldest row of a size may be there.
pub(super) fn rows_kept(size: WindowSize) -> Span {
    chunk_of(size) + kept(size).0
}

/// Windows of one series that share a key.
fn chunk_of(size: WindowSize) -> Span {
    match size {
        WindowSize::Minute => Span::from_hours(1),
        WindowSize::FiveMinutes => Span::from_hours(12),
        WindowSize::Hour => Span::from_hours(24 * 7),
    }
}

/// How long rows and histograms are kept after their chunk ends. A histogram is needed until
/// nothing can correct its window any more: an hour of lateness and ten minutes to spare.
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
