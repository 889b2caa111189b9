//! Keys: the labels by which a rule groups, such as `{source: checkout}`. Each alert of a rule has one key.
//!
//! Invariant: the pairs of a key ascend by label name, and equal keys have the same number. Keys are ordered
//! by their pairs, never by their numbers, so the output does not depend on the order of arrival.

pub(crate) mod table;

use super::identity::Labels;
use serde::{Deserialize, Serialize, Serializer};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The labels that distinguish one alert of a rule from another; empty for `by ()`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(pub Vec<(Arc<str>, Arc<str>)>);

impl Key {
    pub fn new(mut pairs: Vec<(Arc<str>, Arc<str>)>) -> Key {
        pairs.sort();
        Key(pairs)
    }

    pub fn get(&self, name: &str) -> Option<&Arc<str>> {
        self.0.iter().find(|(label, _)| **label == *name).map(|(_, value)| value)
    }

    /// Whether the key has all these labels with these values.
    pub fn has_all(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.iter().all(|(label, value)| self.get(label).is_some_and(|known| **known == **value))
    }

    pub fn without(&self, name: &str) -> Key {
        Key(self.0.iter().filter(|(label, _)| **label != *name).cloned().collect())
    }

    /// The key as text for people: `source=checkout, stage=build`; empty for `by ()`.
    pub fn words(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
    }

    /// The xxh3-64 of the key's JSON object; the part of an alert's id that identifies the key.
    pub fn hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }

    /// The key's labels without `source` and `name`. A recorded series takes these labels, since it has a
    /// source and a name of its own.
    pub fn rest(&self) -> Labels {
        let is_label = |(name, _): &&(Arc<str>, Arc<str>)| !matches!(&**name, "source" | "name");
        Labels::from_pairs(self.0.iter().filter(is_label).cloned().collect())
    }
}

/// Serialises a key as a JSON object with its labels in order.
impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        let pairs = std::collections::BTreeMap::<Arc<str>, Arc<str>>::deserialize(deserializer)?;
        Ok(Key(pairs.into_iter().collect()))
    }
}

/// The number of an interned key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(u32);

/// All keys that this engine has interned.
#[derive(Debug, Default)]
pub struct Keys {
    all: Vec<Arc<Key>>,
    by_key: HashMap<Arc<Key>, KeyId, foldhash::fast::FixedState>,
    /// The place (rank) of each key in the sorted order of all keys, indexed by key number. Keys interned
    /// since the last ranking have no place yet. Comparing places is faster than comparing names.
    places: Vec<u32>,
    /// The inverse of `places`: the key at each place.
    in_order: Vec<KeyId>,
    /// Keys that have a `version` label, by the key without it.
    versions: HashMap<Key, Vec<KeyId>, foldhash::fast::FixedState>,
}

/// `sort_many` assigns new places when it sorts at least one sixteenth of all keys and some keys have no
/// place.
const SORTED_SHARE: usize = 16;

/// The label that distinguishes deployments.
pub const VERSION_LABEL: &str = "version";

impl Keys {
    pub fn intern(&mut self, key: Key) -> KeyId {
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let id = KeyId(self.all.len() as u32);
        let key = Arc::new(key);
        self.all.push(key.clone());
        self.note_version(&key, id);
        self.by_key.insert(key, id);
        id
    }

    fn note_version(&mut self, key: &Key, id: KeyId) {
        if key.get(VERSION_LABEL).is_some() {
            self.versions.entry(key.without(VERSION_LABEL)).or_default().push(id);
        }
    }

    /// The keys that equal this key plus a `version` label, in the order in which they were first seen.
    pub fn versions_of(&self, key: KeyId) -> &[KeyId] {
        self.versions.get(&**self.get(key)).map_or(&[], Vec::as_slice)
    }

    pub fn find(&self, key: &Key) -> Option<KeyId> {
        self.by_key.get(key).copied()
    }

    #[inline]
    pub fn get(&self, id: KeyId) -> &Arc<Key> {
        // Ids come from `intern` alone and are never removed, so the index is in range.
        &self.all[id.0 as usize]
    }

    /// Sorts ids by the pairs of their keys.
    pub fn sort(&self, ids: &mut [KeyId]) {
        ids.sort_unstable_by(|a, b| self.compare(*a, *b));
    }

    /// Sorts ids by the pairs of their keys and removes duplicates. Fast for a large share of all keys, as at
    /// a grid point.
    pub fn sort_many(&mut self, ids: &mut Vec<KeyId>) {
        let are_many = ids.len() >= self.all.len() / SORTED_SHARE;
        if are_many && self.places.len() < self.all.len() {
            self.place_all();
        }
        if are_many {
            return self.mark_and_collect(ids);
        }
        self.sort(ids);
        ids.dedup();
    }

    /// Sorts with a bitmap: sets the bit of each place and reads the bits in order, without any comparison.
    /// All keys must have a place.
    fn mark_and_collect(&self, ids: &mut Vec<KeyId>) {
        let mut marks = vec![0u64; self.in_order.len().div_ceil(64)];
        for id in ids.drain(..) {
            let place = self.places[id.0 as usize];
            marks[(place / 64) as usize] |= 1 << (place % 64);
        }
        for (word, mut marks) in marks.into_iter().enumerate() {
            while marks != 0 {
                ids.push(self.in_order[word * 64 + marks.trailing_zeros() as usize]);
                marks &= marks - 1;
            }
        }
    }

    /// Whether the pairs of key `a` sort before those of key `b`.
    pub fn is_before(&self, a: KeyId, b: KeyId) -> bool {
        self.compare(a, b) == Ordering::Less
    }

    fn compare(&self, a: KeyId, b: KeyId) -> Ordering {
        match (self.places.get(a.0 as usize), self.places.get(b.0 as usize)) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => self.get(a).cmp(self.get(b)),
        }
    }

    /// Gives every key a place. The keys that have a place are already sorted, so the stable sort inserts a
    /// few new keys fast.
    fn place_all(&mut self) {
        let (known, all) = (self.places.len(), self.all.len());
        let mut order = std::mem::take(&mut self.in_order);
        order.extend((known..all).map(|id| KeyId(id as u32)));
        order.sort_by(|a, b| self.compare(*a, *b));
        self.places.resize(all, 0);
        for (place, id) in order.iter().enumerate() {
            self.places[id.0 as usize] = place as u32;
        }
        self.in_order = order;
    }

    pub fn image(&self) -> &[Arc<Key>] {
        &self.all
    }

    pub fn restore(all: Vec<Arc<Key>>) -> Keys {
        let mut keys = Keys::default();
        for (at, key) in all.iter().enumerate() {
            keys.note_version(key, KeyId(at as u32));
            keys.by_key.insert(key.clone(), KeyId(at as u32));
        }
        keys.all = all;
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_sorted_by_what_they_stand_for_whoever_came_first() {
        let mut keys = Keys::default();
        for round in 1..40u64 {
            let mut ids = Vec::new();
            for at in 0..=round {
                let name = format!("{:x}", (round * 41 + at).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 50);
                ids.push(keys.intern(Key::new(vec![("source".into(), name.into())])));
            }
            // With many other keys, only the new ones have no place.
            ids.extend([KeyId(1), KeyId(0)]);
            let given = ids.clone();
            keys.sort_many(&mut ids);
            let names = |ids: &[KeyId]| ids.iter().map(|id| keys.get(*id).clone()).collect::<Vec<_>>();
            let wanted: BTreeSet<Arc<Key>> = names(&given).into_iter().collect();
            assert_eq!(names(&ids), wanted.into_iter().collect::<Vec<_>>(), "{round}");
        }
        assert!((2..keys.all.len()).contains(&keys.places.len()), "{}", keys.places.len());
    }
}
