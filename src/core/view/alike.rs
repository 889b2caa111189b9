//! Lookup of views by a hash of what they read.
//!
//! Intuition: a rule set may have 10,000 views. After a change of the rule set, each view takes over the
//! state of its predecessor. Then each view looks for other views with the same keys.
//! Invariant: views that read the same rows, or have the same keys, have the same hash. So only views with
//! equal hashes are compared.
//! Rejected: comparing every pair (100 million comparisons of selectors, while the engine waits).

use super::{View, ViewSpec};
use std::collections::HashMap;

/// The views of the previous rule set by [`ViewSpec::id`]. Views with the same id keep their order.
#[derive(Debug, Default)]
pub(crate) struct Former(HashMap<u64, Vec<View>>);

impl Former {
    pub(crate) fn new(views: Vec<View>) -> Former {
        let mut by_id: HashMap<u64, Vec<View>> = HashMap::new();
        for view in views {
            by_id.entry(view.spec.id()).or_default().push(view);
        }
        Former(by_id)
    }

    /// Removes and returns the view that reads the requested rows: the one with the same spec, else the one
    /// with the longest period.
    pub(crate) fn take_like(&mut self, spec: &ViewSpec) -> Option<View> {
        let alike = self.0.get_mut(&spec.id())?;
        let very = alike.iter().position(|view| view.spec == *spec);
        let likes = || alike.iter().enumerate().filter(|(_, view)| view.spec.is_like(spec));
        let longest = || likes().max_by_key(|(_, view)| view.spec.kind.period()).map(|(place, _)| place);
        let place = very.or_else(longest)?;
        Some(View { spec: spec.clone(), ..alike.remove(place) })
    }
}

/// Indices of views by the hash that comparable views share; ascending unless sorted otherwise.
#[derive(Debug, Default)]
pub(super) struct Alike(HashMap<u64, Vec<usize>>);

impl Alike {
    /// Groups views by their keys.
    pub(super) fn of_keys(views: &[View]) -> Alike {
        Alike::by(views, |view| Some(view.spec.keys_number()))
    }

    /// Groups baseline views by their keys and window length.
    pub(super) fn of_windows(views: &[View]) -> Alike {
        Alike::by(views, |view| view.spec.window_number())
    }

    fn by(views: &[View], number: impl Fn(&View) -> Option<u64>) -> Alike {
        let mut by_number: HashMap<u64, Vec<usize>> = HashMap::new();
        for (place, view) in views.iter().enumerate() {
            if let Some(number) = number(view) {
                by_number.entry(number).or_default().push(place);
            }
        }
        Alike(by_number)
    }

    /// Sorts the indices of views that share a hash.
    pub(super) fn sort_by_key<K: Ord>(&mut self, key: impl Fn(usize) -> K) {
        self.0.values_mut().for_each(|places| places.sort_by_key(|place| key(*place)));
    }

    pub(super) fn of(&self, number: u64) -> impl Iterator<Item = usize> + use<'_> {
        self.0.get(&number).into_iter().flatten().copied()
    }
}
