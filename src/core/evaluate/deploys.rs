//! `deploys(n)`: the current version against the versions before it.
//!
//! Intuition: after a deployment the question is not whether the last minutes are unusual, but whether this
//! version is worse than versions usually are. The spread between versions is larger than the spread
//! between the windows of one version.
//! Invariant: a version is represented by its newest windows, without those in which its alert fired. The
//! version that is judged is the newest one with observations in the trailing window, so a version that was
//! rolled back is no longer judged.
//! Rejected: ordering by the label (it is not a number everywhere), and comparing with the windows before
//! the deployment (a day of one version does not show how versions differ).

use super::Evaluation;
use super::lookback::Learned;
use crate::core::detect::{median, regression};
use crate::core::rule::ast::Past;
use crate::core::view::{self, WINDOWS_OF_A_VERSION};
use crate::core::vocab::key::KeyId;
use crate::core::vocab::time::Timestamp;
use regression::Window;
use std::cmp::Reverse;
use std::sync::Arc;

impl Evaluation<'_> {
    /// Returns the view and the key of the trailing window to judge; `None` if no version has enough
    /// observations.
    pub(super) fn looked_at(&mut self, asked: &Past) -> Option<(u32, KeyId)> {
        let Some(per_version) = asked.per_version else { return Some((asked.current, self.target.key)) };
        let least = self.notes.min_count.max(1);
        let mut newest: Option<(i64, KeyId)> = None;
        for version in self.inputs.keys.versions_of(self.target.key) {
            let Some(begun) = self.inputs.views[asked.baseline as usize].begun(*version) else { continue };
            let is_newer = newest.is_none_or(|(other, key)| {
                (begun, self.inputs.keys.get(*version)) > (other, self.inputs.keys.get(key))
            });
            if is_newer
                && view::totals(self.inputs.views, per_version, *version, self.target.at).count >= least
            {
                newest = Some((begun, *version));
            }
        }
        newest.map(|(_, version)| (per_version, version))
    }

    /// Learns from the newest `count` versions other than the deployed one.
    pub(super) fn learn_deploys(
        &self,
        asked: &Past,
        deployed: Option<KeyId>,
        end: Timestamp,
        count: u32,
    ) -> Option<(Learned, usize)> {
        let view = &self.inputs.views[asked.baseline as usize];
        let versions = self
            .inputs
            .keys
            .versions_of(self.target.key)
            .iter()
            .filter(|version| Some(**version) != deployed);
        let mut versions: Vec<(i64, KeyId)> =
            versions.filter_map(|version| Some((view.begun(*version)?, *version))).collect();
        versions.sort_by_key(|(begun, key)| (Reverse(*begun), self.inputs.keys.get(*key)));
        // A version whose windows are all excluded from the baseline is skipped.
        let deploy =
            |(begun, key): &(i64, KeyId)| regression::Deploy::of(&self.windows_of(asked, *begun, *key, end));
        let deploys: Vec<regression::Deploy> =
            versions.iter().filter_map(deploy).take(count as usize).collect();
        let reference = regression::Reference::learn_deploys(&deploys)?;
        let mut tails: Vec<f64> =
            versions.iter().filter_map(|(_, key)| view.sealed(*key)?.tail_begin()).collect();
        let above = (!tails.is_empty()).then(|| median(&mut tails));
        Some((Learned::Regression(Arc::new(reference), above), deploys.len()))
    }

    /// Returns the windows of one version from which the baseline is learned.
    fn windows_of(&self, asked: &Past, begun: i64, key: KeyId, end: Timestamp) -> Vec<Window> {
        let view = &self.inputs.views[asked.baseline as usize];
        let newest = view.group_of(key).and_then(|group| view.group(group)).map(|group| group.newest);
        // Windows after the version's newest observation do not belong to the version.
        let last = newest.map_or(begun, |newest| newest.index(asked.window)).min(end.index(asked.window) - 1);
        let first = begun.max(last + 1 - WINDOWS_OF_A_VERSION as i64);
        let windows = self.taught(asked, self.whole(asked, view.past(key, first, last)), asked.window);
        windows.into_iter().map(|(_, window)| window).collect()
    }
}
