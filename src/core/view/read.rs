//! Reads of a trailing window: its totals, its quantiles, and the distribution of its values.
//!
//! Intuition: all reads of a key at a grid point use the same panes, so results are cached until the panes
//! change.
//! Invariant: a read changes nothing but the caches.

use super::View;
use super::feed::{self, Open};
use super::group::{QuantilePanes, Trail};
use super::totals::Totals;
use crate::core::detect::regression::{Profile, Window};
use crate::core::vocab::key::KeyId;
use crate::core::vocab::time::Timestamp;

impl View {
    /// Returns the totals of the trailing window that ends at `at`; all zero for a key without a group.
    fn totals(&mut self, key: KeyId, at: Timestamp, open: Option<Open<'_>>) -> Totals {
        let ((first, last), has_spread) = (self.range(at), self.spec.has_spread);
        let open = self.within(open, first, last);
        let group = self.group_of(key);
        let Some(group) = group.and_then(|group| self.group_mut(group)) else { return Totals::default() };
        group.remember(at);
        if let Some(totals) = group.totals {
            return totals;
        }
        let mut totals = Totals::default();
        group.within(first, last).chain(open).for_each(|trail| totals.add(trail, has_spread));
        group.totals = Some(totals);
        totals
    }

    /// Returns a quantile of the trailing window that ends at `at`; `None` when it is empty.
    fn quantile(&mut self, key: KeyId, at: Timestamp, q: f64, open: Option<Open<'_>>) -> Option<f64> {
        let ((range, parts), shape) = (self.parts(at, open), self.shape);
        let place = self.asked.iter().position(|asked| *asked == q).unwrap_or_else(|| {
            self.asked.push(q);
            self.asked.len() - 1
        });
        let group = self.group_of(key)?;
        let group = self.groups.get_mut(group as usize)?.as_mut()?;
        group.remember(at);
        group.quantile(shape, range, (&self.asked, place), parts)
    }

    /// Does the same as [`View::quantile`] without caching, for a quantile that is read only once.
    fn rank(&mut self, key: KeyId, at: Timestamp, q: f64, open: Option<Open<'_>>) -> Option<f64> {
        let ((range, parts), shape) = (self.parts(at, open), self.shape);
        let group = self.group_of(key)?;
        self.group_mut(group)?.answer_one(shape, range, q, parts)
    }

    /// Returns the pane range of the trailing window that ends at `at`, and how its panes are combined.
    fn parts<'a>(&self, at: Timestamp, open: Option<Open<'a>>) -> ((i64, i64), QuantilePanes<'a>) {
        let (first, last) = self.range(at);
        let parts = match self.is_fed() {
            true => QuantilePanes::AllAnd(self.within(open, first, last)),
            false => QuantilePanes::OlderAndNewest,
        };
        ((first, last), parts)
    }

    /// Returns the pane in `open`, which the source view has not yet handed on to this view, if its index is between
    /// `first` and `last`.
    fn within<'a>(&self, open: Option<Open<'a>>, first: i64, last: i64) -> Option<&'a Trail> {
        let open = open.filter(|open| (first..=last).contains(&open.start.index(self.pane)));
        open.map(|open| open.trail)
    }

    /// Returns the distribution of the values in the trailing window that ends at `at`.
    fn profile(
        &mut self,
        key: KeyId,
        at: Timestamp,
        above: Option<f64>,
        open: Option<Open<'_>>,
    ) -> Option<Profile> {
        let ((range, parts), shape) = (self.parts(at, open), self.shape);
        let group = self.group_of(key)?;
        self.group_mut(group)?.profile(shape, range, above, parts)
    }
}

/// Returns the totals of a view's trailing window that ends at `at`; all zero for a key without a group.
pub(crate) fn totals(views: &mut [View], view: u32, key: KeyId, at: Timestamp) -> Totals {
    feed::with_open(views, view, key, |view, open| view.totals(key, at, open))
}

/// Returns the time of a key's newest observation, even if it lies before the window. For a declared series
/// without observations, it is the time of the declaration. A fed view knows the time only to within a pane,
/// so its source is read, too.
pub(crate) fn newest(views: &[View], view: u32, key: KeyId) -> Option<Timestamp> {
    let of = |view: &View| Some(view.group(view.group_of(key)?)?.newest);
    let view = &views[view as usize];
    of(view).max(view.source().and_then(|source| of(&views[source as usize])))
}

/// Returns a quantile of a view's trailing window that ends at `at`; `None` when it is empty.
pub(crate) fn quantile(views: &mut [View], view: u32, key: KeyId, at: Timestamp, q: f64) -> Option<f64> {
    feed::with_open(views, view, key, |view, open| view.quantile(key, at, q, open))
}

/// Does the same as [`quantile`] for a quantile that is read only once.
pub(crate) fn rank(views: &mut [View], view: u32, key: KeyId, at: Timestamp, q: f64) -> Option<f64> {
    feed::with_open(views, view, key, |view, open| view.rank(key, at, q, open))
}

/// Returns the distribution of the values in a view's trailing window that ends at `at`.
pub(super) fn profile(
    views: &mut [View],
    view: u32,
    key: KeyId,
    at: Timestamp,
    above: Option<f64>,
) -> Option<Profile> {
    feed::with_open(views, view, key, |view, open| view.profile(key, at, above, open))
}

/// Returns a key's trailing window that ends at `at`, in the form that detectors compare. `value`: the
/// requested aggregate of the window; `above`: the threshold of the past's tail, without which there is no
/// profile.
pub(crate) fn trailing(
    views: &mut [View],
    (view, key): (u32, KeyId),
    at: Timestamp,
    value: f64,
    above: Option<f64>,
) -> Window {
    let profile = above.and_then(|_| profile(views, view, key, at, above));
    Window { count: totals(views, view, key, at).count, value, profile }
}
