//! Identities: the source, name and sorted labels of an observation, checked once.
//!
//! Intuition: producers repeat a handful of identities millions of times. So a decoder turns each distinct
//! one into an [`Identity`] once and from then on returns a small number, a [`SeriesRef`].
//! Invariant: labels are sorted by name, unique and non-empty; every name fits in `NAME_BYTES_MAX`. A `SeriesRef`
//! serves only for look-ups; no output depends on it.

use super::limits::{LABELS_MAX, NAME_BYTES_MAX};
use super::unit::Unit;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Label pairs, ascending by name, each name once, no empty value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

/// The reason for which labels or names are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("{what} is empty; give it a name")]
    Empty { what: &'static str },
    #[error("{what} has {bytes} bytes; at most {NAME_BYTES_MAX} are taken")]
    TooLong { what: &'static str, bytes: usize },
    #[error("{count} labels; at most {LABELS_MAX} are taken")]
    TooManyLabels { count: usize },
    #[error("label `{0}` is there twice; keep one")]
    DuplicateLabel(String),
    #[error("a label must not be named `{0}`; that is a field of the event itself")]
    ReservedLabel(String),
}

impl Labels {
    /// Sorts and checks pairs as received. An empty value means that the label is absent.
    pub fn new(mut pairs: Vec<(Arc<str>, Arc<str>)>) -> Result<Labels, IdentityError> {
        if pairs.len() > LABELS_MAX {
            return Err(IdentityError::TooManyLabels { count: pairs.len() });
        }
        for (name, value) in &pairs {
            check_name("a label name", name)?;
            check_length("a label value", value)?;
            if matches!(&**name, "source" | "name") {
                return Err(IdentityError::ReservedLabel(name.to_string()));
            }
        }
        pairs.sort();
        if let Some(twice) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(IdentityError::DuplicateLabel(twice[0].0.to_string()));
        }
        pairs.retain(|(_, value)| !value.is_empty());
        Ok(Labels(pairs.into()))
    }

    /// Labels from pairs that are known to be few, short and distinct, such as those of the engine itself.
    pub fn of<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
        let mut pairs: Vec<_> = pairs.map(|(k, v)| (Arc::from(k), Arc::from(v))).into();
        pairs.retain(|(_, value): &(Arc<str>, Arc<str>)| !value.is_empty());
        pairs.sort();
        Labels(pairs.into())
    }

    /// Like [`Self::of`], for strings that are shared already.
    pub fn from_pairs(mut pairs: Vec<(Arc<str>, Arc<str>)>) -> Labels {
        pairs.retain(|(_, value)| !value.is_empty());
        pairs.sort();
        pairs.dedup_by(|a, b| a.0 == b.0);
        Labels(pairs.into())
    }

    pub fn get(&self, name: &str) -> Option<&Arc<str>> {
        self.0.iter().find(|(label, _)| **label == *name).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Checks a required name: not empty and within the limit.
pub fn check_name(what: &'static str, text: &str) -> Result<(), IdentityError> {
    if text.is_empty() {
        return Err(IdentityError::Empty { what });
    }
    check_length(what, text)
}

fn check_length(what: &'static str, text: &str) -> Result<(), IdentityError> {
    if text.len() > NAME_BYTES_MAX {
        return Err(IdentityError::TooLong { what, bytes: text.len() });
    }
    Ok(())
}

/// A series as an event names it, with the unit that the event states.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    pub source: Arc<str>,
    pub name: Arc<str>,
    pub labels: Labels,
    pub unit: Option<Unit>,
}

impl Identity {
    /// Checks the names; labels are checked by their own type.
    pub fn new(
        source: Arc<str>,
        name: Arc<str>,
        labels: Labels,
        unit: Option<Unit>,
    ) -> Result<Identity, IdentityError> {
        check_name("source", &source)?;
        check_name("name", &name)?;
        Ok(Identity { source, name, labels, unit })
    }
}

/// The location of an identity: the number of a decoder, and the index (place) in the table of this decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeriesRef(u32);

/// Number of bits for the index in a table. 2^24 identities of about 200 B would take 3.4 GB, so a decoder
/// resets its table long before.
const PLACE_BITS: u32 = 24;

impl SeriesRef {
    /// `decoder` in [0, 255], `place` in [0, 2^24).
    pub fn new(decoder: usize, place: usize) -> SeriesRef {
        debug_assert!(decoder < 256 && place < 1 << PLACE_BITS);
        SeriesRef((decoder as u32) << PLACE_BITS | place as u32)
    }

    #[inline]
    pub fn decoder(self) -> usize {
        (self.0 >> PLACE_BITS) as usize
    }

    #[inline]
    pub fn place(self) -> usize {
        (self.0 & ((1 << PLACE_BITS) - 1)) as usize
    }
}

/// All identities that the decoders of one reader have found so far.
#[derive(Debug, Default)]
pub struct IdentityTable {
    decoders: Vec<Vec<Arc<Identity>>>,
}

impl IdentityTable {
    /// Appends the identities that a decoder found since its last batch.
    pub fn learn(&mut self, decoder: usize, found: impl IntoIterator<Item = Arc<Identity>>) {
        if self.decoders.len() <= decoder {
            self.decoders.resize_with(decoder + 1, Vec::new);
        }
        self.decoders[decoder].extend(found);
    }

    /// Drops the identities of a decoder that has reset its table.
    pub fn forget(&mut self, decoder: usize) {
        if let Some(table) = self.decoders.get_mut(decoder) {
            table.clear();
        }
    }

    pub fn get(&self, who: SeriesRef) -> Option<&Arc<Identity>> {
        self.decoders.get(who.decoder())?.get(who.place())
    }

    pub fn len(&self, decoder: usize) -> usize {
        self.decoders.get(decoder).map_or(0, Vec::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(Arc<str>, Arc<str>)> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn labels_are_sorted_and_empty_values_are_absent() {
        let labels = Labels::new(pairs(&[("b", "2"), ("c", ""), ("a", "1")])).expect("good labels");
        assert_eq!(labels, Labels::of([("a", "1"), ("b", "2")]));
        assert_eq!(labels.get("c"), None);
    }

    #[test]
    fn bad_labels_are_refused_with_the_reason() {
        let twice = Labels::new(pairs(&[("a", "1"), ("a", "")]));
        assert_eq!(twice, Err(IdentityError::DuplicateLabel("a".into())));
        assert!(matches!(Labels::new(pairs(&[("name", "x")])), Err(IdentityError::ReservedLabel(_))));
        assert!(matches!(Labels::new(pairs(&[("", "x")])), Err(IdentityError::Empty { .. })));
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        assert!(matches!(Labels::new(pairs(&[("a", &long)])), Err(IdentityError::TooLong { .. })));
        let many = (0..33).map(|n| (format!("l{n}").into(), "v".into())).collect();
        assert_eq!(Labels::new(many), Err(IdentityError::TooManyLabels { count: 33 }));
    }
}
