//! Event ids already seen, per source, for as long as a producer may retry.
//!
//! Invariant: an id is remembered for `duplicate_window` of ingest time, or until `IDS_PER_SOURCE_MAX` newer
//! ids arrive, whichever comes first. Only a 128-bit digest is kept: the remembered ids of one source collide
//! with a probability of about 2^-97.

use crate::core::vocab::limits::IDS_PER_SOURCE_MAX;
use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

/// The remembered ids of all sources.
#[derive(Debug, Default)]
pub(crate) struct Duplicates {
    sources: BTreeMap<Arc<str>, SourceIds>,
}

#[derive(Debug, Default)]
struct SourceIds {
    order: VecDeque<(Timestamp, u128)>, // ascending by time, at most IDS_PER_SOURCE_MAX
    ids: HashSet<u128, foldhash::fast::FixedState>,
}

/// The kind of an event. Events of different kinds are never duplicates of each other, even if their ids are
/// equal.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Metric,
    Run,
    Gate,
}

impl Duplicates {
    /// Whether this id was remembered within the window.
    pub(crate) fn is_known(
        &mut self,
        source: &str,
        kind: Kind,
        id: &str,
        now: Timestamp,
        window: Span,
    ) -> bool {
        let Some(seen) = self.sources.get_mut(source) else { return false };
        seen.expire(now, window);
        seen.ids.contains(&digest(kind, id))
    }

    /// Remembers the id of an accepted event.
    pub(crate) fn remember(&mut self, source: &Arc<str>, kind: Kind, id: &str, now: Timestamp) {
        let seen = self.sources.entry(source.clone()).or_default();
        let digest = digest(kind, id);
        if seen.ids.insert(digest) {
            seen.order.push_back((now, digest));
        }
        if seen.order.len() > IDS_PER_SOURCE_MAX {
            seen.drop_oldest();
        }
    }

    /// Removes sources without remembered ids.
    pub(crate) fn shrink(&mut self, now: Timestamp, window: Span) {
        self.sources.retain(|_, seen| {
            seen.expire(now, window);
            !seen.order.is_empty()
        });
    }

    /// The remembered ids in their stored form.
    pub(crate) fn image(&self) -> DuplicatesImage {
        let sources = self.sources.iter();
        DuplicatesImage(
            sources.map(|(s, seen)| (s.clone(), seen.order.iter().map(split).collect())).collect(),
        )
    }

    pub(crate) fn restore(image: DuplicatesImage) -> Duplicates {
        let seen = |ids: Vec<(Timestamp, u64, u64)>| {
            let order: VecDeque<_> = ids
                .into_iter()
                .map(|(at, high, low)| (at, u128::from(high) << 64 | u128::from(low)))
                .collect();
            SourceIds { ids: order.iter().map(|(_, id)| *id).collect(), order }
        };
        Duplicates { sources: image.0.into_iter().map(|(source, ids)| (source, seen(ids))).collect() }
    }
}

/// Source → (time of remembering, upper half and lower half of the id's digest).
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DuplicatesImage(Vec<(Arc<str>, Vec<(Timestamp, u64, u64)>)>);

fn split((at, id): &(Timestamp, u128)) -> (Timestamp, u64, u64) {
    (*at, (id >> 64) as u64, *id as u64)
}

impl SourceIds {
    fn expire(&mut self, now: Timestamp, window: Span) {
        while self.order.front().is_some_and(|(at, _)| *at + window < now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, digest)) = self.order.pop_front() {
            self.ids.remove(&digest);
        }
    }
}

fn digest(kind: Kind, id: &str) -> u128 {
    xxhash_rust::xxh3::xxh3_128_with_seed(id.as_bytes(), kind as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_remembered_for_the_window_and_per_source() {
        let (mut ids, window) = (Duplicates::default(), Span::from_mins(10));
        let at = |mins: i64| Timestamp::clamped(mins * 60_000);
        ids.remember(&"a".into(), Kind::Metric, "1", at(0));
        assert!(ids.is_known("a", Kind::Metric, "1", at(10), window));
        assert!(!ids.is_known("a", Kind::Gate, "1", at(10), window));
        assert!(!ids.is_known("b", Kind::Metric, "1", at(10), window));
        assert!(!ids.is_known("a", Kind::Metric, "1", at(11), window));
    }

    #[test]
    fn only_so_many_ids_are_remembered() {
        let mut ids = Duplicates::default();
        let source: Arc<str> = "a".into();
        for id in 0..=IDS_PER_SOURCE_MAX {
            ids.remember(&source, Kind::Metric, &id.to_string(), Timestamp::clamped(0));
        }
        let mut knows = |id| ids.is_known("a", Kind::Metric, id, Timestamp::clamped(0), Span::from_mins(10));
        assert!(!knows("0") && knows("1") && knows("65536"));
    }
}
