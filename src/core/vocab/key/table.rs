//! A table of values by key number.
//!
//! Intuition: at a grid point the engine looks up thousands of keys in dozens of tables, once each. A hash
//! table scatters the keys over memory, so each look-up waits for a cache miss. Key numbers are dense, so in
//! this table neighbouring keys share a page, and a look-up is two array accesses. Invariant: a page without
//! values is freed.
//! Rejected: one vector (a table of a few keys among a million would be as large as a table of all).

use super::KeyId;

/// Keys per page.
const PAGE: usize = 32;

/// Values by key number, in pages that are allocated on demand.
#[derive(Debug)]
pub(crate) struct KeyTable<T> {
    pages: Vec<Option<Box<Page<T>>>>,
    len: usize,
}

#[derive(Debug)]
struct Page<T> {
    used: usize,
    values: [Option<T>; PAGE],
}

impl<T> Default for KeyTable<T> {
    fn default() -> KeyTable<T> {
        KeyTable { pages: Vec::new(), len: 0 }
    }
}

impl<T> KeyTable<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn get(&self, key: KeyId) -> Option<&T> {
        let (page, at) = place(key);
        self.pages.get(page)?.as_ref()?.values[at].as_ref()
    }

    pub(crate) fn get_or_insert_with(&mut self, key: KeyId, make: impl FnOnce() -> T) -> &mut T {
        let (page, at) = place(key);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages[page].get_or_insert_with(|| Box::new(Page::default()));
        if page.values[at].is_none() {
            page.used += 1;
            self.len += 1;
        }
        page.values[at].get_or_insert_with(make)
    }

    pub(crate) fn insert(&mut self, key: KeyId, value: T) {
        let mut value = Some(value);
        // The closure takes the value if the key is new. Otherwise the value replaces the old one here.
        let known = self.get_or_insert_with(key, || value.take().expect("not taken yet"));
        if let Some(value) = value {
            *known = value;
        }
    }

    pub(crate) fn remove(&mut self, key: KeyId) -> Option<T> {
        let (at_page, at) = place(key);
        let page = self.pages.get_mut(at_page)?.as_mut()?;
        let gone = page.values[at].take()?;
        page.used -= 1;
        self.len -= 1;
        if page.used == 0 {
            self.pages[at_page] = None;
        }
        Some(gone)
    }

    /// The keys that have a value, by ascending number.
    pub(crate) fn keys(&self) -> impl Iterator<Item = KeyId> + '_ {
        let pages = self.pages.iter().enumerate().filter_map(|(at, page)| Some((at, page.as_ref()?)));
        pages.flat_map(|(page, values)| {
            let used = values.values.iter().enumerate().filter(|(_, value)| value.is_some());
            used.map(move |(at, _)| KeyId((page * PAGE + at) as u32))
        })
    }
}

impl<T> FromIterator<(KeyId, T)> for KeyTable<T> {
    fn from_iter<I: IntoIterator<Item = (KeyId, T)>>(all: I) -> KeyTable<T> {
        let mut table = KeyTable::default();
        all.into_iter().for_each(|(key, value)| table.insert(key, value));
        table
    }
}

impl<T> Default for Page<T> {
    fn default() -> Page<T> {
        Page { used: 0, values: std::array::from_fn(|_| None) }
    }
}

fn place(KeyId(number): KeyId) -> (usize, usize) {
    (number as usize / PAGE, number as usize % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::detect::dice::Dice;
    use std::collections::BTreeMap;

    #[test]
    fn a_table_holds_what_a_map_holds_and_gives_pages_back() {
        let (mut dice, mut table, mut map) = (Dice(1), KeyTable::default(), BTreeMap::new());
        for round in 0..20_000u32 {
            let key = KeyId((dice.uniform() * 300.0) as u32);
            match round % 3 {
                0 => assert_eq!(table.remove(key), map.remove(&key)),
                1 => {
                    table.insert(key, round);
                    map.insert(key, round);
                }
                _ => {
                    let known = *map.entry(key).or_insert(round);
                    assert_eq!(*table.get_or_insert_with(key, || round), known);
                    assert_eq!(table.get(key).copied(), Some(known));
                }
            }
            assert_eq!((table.len(), table.get(key)), (map.len(), map.get(&key)));
        }
        assert!(table.keys().eq(map.keys().copied()));
        let again: KeyTable<u32> = map.iter().map(|(key, value)| (*key, *value)).collect();
        assert!(again.keys().eq(table.keys()));
        map.keys().for_each(|key| assert!(table.remove(*key).is_some()));
        assert!(table.is_empty() && table.pages.iter().all(Option::is_none));
    }
}
