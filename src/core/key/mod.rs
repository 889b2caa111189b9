//! Keys: what one alert of a rule is about, such as `{source: checkout}`.
//!
//! Invariant: pairs ascend by label name; two equal keys are one number. The order of keys is that
//! of their pairs, never that of their numbers, so output does not depend on who came first.

pub mod table;

use super::identity::Labels;
use serde::{Deserialize, Serialize, Serializer};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The labels that tell one alert of a rule from another; empty for `by ()`.
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

    /// Whether it has all these labels with these values.
    pub fn has_all(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.iter().all(|(label, value)| self.get(label).is_some_and(|known| **known == **value))
    }

    pub fn without(&self, name: &str) -> Key {
        Key(self.0.iter().filter(|(label, _)| **label != *name).cloned().collect())
    }

    /// As people read it: `source=checkout, stage=build`; empty for `by ()`.
    pub fn words(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
    }

    /// xxh3-64 of the key's JSON object: the part of an alert's id that names the key.
    pub fn hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }

    /// The key's labels without `source` and `name`: those of a recorded series, which has its own.
    pub fn rest(&self) -> Labels {
        let is_label = |(name, _): &&(Arc<str>, Arc<str>)| !matches!(&**name, "source" | "name");
        Labels::from_pairs(self.0.iter().filter(is_label).cloned().collect())
    }
}

/// A JSON object with the labels in order.
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

/// A key by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(u32);

/// All keys ever seen by this engine.
#[derive(Debug, Default)]
pub struct Keys {
    all: Vec<Arc<Key>>,
    by_key: HashMap<Arc<Key>, KeyId, foldhash::fast::FixedState>,
    /// Where each of the oldest keys stands among these: numbers are compared faster than names.
    places: Vec<u32>,
    /// And which one stands at each place.
    in_order: Vec<KeyId>,
    /// Keys with a `version`, by the rest of them.
    versions: HashMap<Key, Vec<KeyId>, foldhash::fast::FixedState>,
}

/// All keys get their places when so large a share of them is sorted, and some have none.
const SORTED_SHARE: usize = 16;

/// The label that tells deployments apart.
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

    /// The keys that have a `version` more than this one, in the order in which they were first seen.
    pub fn versions_of(&self, key: KeyId) -> &[KeyId] {
        self.versions.get(&**self.get(key)).map_or(&[], Vec::as_slice)
    }

    pub fn find(&self, key: &Key) -> Option<KeyId> {
        self.by_key.get(key).copied()
    }

    #[inline]
    pub fn get(&self, id: KeyId) -> &Arc<Key> {
        // Ids are only made by `intern` and never removed.
        &self.all[id.0 as usize]
    }

    /// Sorts ids by what they stand for.
    pub fn sort(&self, ids: &mut [KeyId]) {
        ids.sort_unstable_by(|a, b| self.compare(*a, *b));
    }

    /// The same, each once, for what may be most of them, as at each grid point.
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

    /// Marks the place of each, and reads the marks in order: no two are compared. All have a place.
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

    /// Whether what one stands for comes before what the other does.
    pub fn is_before(&self, a: KeyId, b: KeyId) -> bool {
        self.compare(a, b) == Ordering::Less
    }

    fn compare(&self, a: KeyId, b: KeyId) -> Ordering {
        match (self.places.get(a.0 as usize), self.places.get(b.0 as usize)) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => self.get(a).cmp(self.get(b)),
        }
    }

    /// Those that have a place are in order already, so that few new ones are found theirs quickly.
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
            // The new ones alone have no place when there are many others.
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
