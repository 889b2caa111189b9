//! Partitions: the assignment of events to the logs of a deployment.
//!
//! The hash is the one of the broker's own subject mapping: FNV-1a-32 of the subject's token, modulo the
//! number of partitions. So a producer, the broker and the engine agree without communication.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// One of `count` partitions, or after the last of them the aggregate partition, where rules that span
/// partitions run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// From 0 to `count`, which is the index of the aggregate partition.
    pub index: u32,
    /// At least 1; fixed for the life of a deployment.
    pub count: u32,
}

impl Default for Partition {
    fn default() -> Partition {
        Partition { index: 0, count: 1 }
    }
}

impl Partition {
    /// The aggregate partition, which receives the partials of all partitions.
    pub fn aggregate(count: u32) -> Partition {
        Partition { index: count, count }
    }

    /// The partitions that have a log in a deployment: all of them, then the aggregate partition if there are
    /// several.
    pub fn logs(count: u32) -> impl Iterator<Item = Partition> {
        let last = if count > 1 { count } else { 0 };
        (0..=last).map(move |index| Partition { index, count })
    }

    /// The number of partitions of a deployment with this many logs.
    pub fn count_of(logs: usize) -> u32 {
        if logs > 1 { logs as u32 - 1 } else { 1 }
    }

    pub fn is_aggregate(self) -> bool {
        self.index >= self.count
    }

    /// Whether events of this source or pipeline belong to this partition.
    #[inline]
    pub fn holds(self, name: &str) -> bool {
        self.count <= 1 || partition_of(name, self.count) == self.index
    }
}

/// The form in subjects and keys: a number, or `agg`.
impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_aggregate() { f.write_str("agg") } else { write!(f, "{}", self.index) }
    }
}

/// The partition of a source or pipeline.
pub fn partition_of(name: &str, count: u32) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    for byte in escape(name).bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash % count.max(1)
}

/// Escapes one token of a subject: each byte outside `[A-Za-z0-9_-]` becomes `=XX`. So names may contain dots
/// and spaces, and a subject keeps its number of tokens.
pub fn escape(token: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if token.bytes().all(is_plain) {
        return Cow::Borrowed(token);
    }
    let mut escaped = String::with_capacity(token.len() + 8);
    for byte in token.bytes() {
        if is_plain(byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("={byte:02X}"));
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_brokers() {
        // FNV-1a-32 of "a" is 0xe40c292c.
        assert_eq!(partition_of("a", 1 << 16), 0x292c);
        assert_eq!(escape("a.b c"), "a=2Eb=20c");
        let escaped =
            "a=2Eb".bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
        assert_eq!(partition_of("a.b", 7), escaped % 7);
        assert!(Partition::default().holds("anything") && !Partition::default().is_aggregate());
        assert!(!Partition::aggregate(8).holds("anything"));
        for (count, logs) in [(1, 1), (2, 3), (8, 9)] {
            assert_eq!((Partition::logs(count).count(), Partition::count_of(logs)), (logs, count));
        }
        assert_eq!(format!("{} {}", Partition::aggregate(8), Partition { index: 3, count: 8 }), "agg 3");
        let places = (0..8).filter(|index| Partition { index: *index, count: 8 }.holds("checkout")).count();
        assert_eq!(places, 1);
    }
}
