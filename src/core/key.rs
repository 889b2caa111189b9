//! Keys: what one alert of a rule is about, such as `{source: checkout}`.
//!
//! Invariant: pairs ascend by label name; two equal keys are one number. The order of keys is that
//! of their pairs, never that of their numbers, so output does not depend on who came first.

use super::identity::Labels;
use serde::{Deserialize, Serialize, Serializer};
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
    /// Keys with a `version`, by the rest of them.
    versions: HashMap<Key, Vec<KeyId>, foldhash::fast::FixedState>,
}

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
        ids.sort_unstable_by(|a, b| self.get(*a).cmp(self.get(*b)));
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
