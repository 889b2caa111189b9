//! Views that gather for the aggregate partition: their panes are handed over and start empty again.

use super::group::Trail;
use super::pipeline_records::PipelineRecords;
use super::{View, ViewKind, ViewSpec};
use crate::core::vocab::identity::Identity;
use crate::core::vocab::key::{Key, KeyId};
use crate::core::vocab::series_info::SeriesInfo;
use crate::core::vocab::time::{Span, Timestamp};
use serde::Serialize;
use std::sync::Arc;

/// Prefix of the source of a series that stands for the partials of a key.
const PARTIAL_SOURCE: &str = "_partial:";

impl SeriesInfo {
    /// Whether the series stands for partials of other partitions.
    pub fn is_partial(&self) -> bool {
        self.source.starts_with(PARTIAL_SOURCE)
    }
}

impl ViewSpec {
    /// Returns a number that two views share only if they read the same rows. It contains neither the order
    /// of rules nor how far back a view reads, so it stays when other rules are added or removed.
    pub fn id(&self) -> u64 {
        hash(&self.of_any_period())
    }

    /// Returns a number that two views share only if they have the same keys.
    pub(super) fn keys_number(&self) -> u64 {
        hash(&(&self.selector, &self.by))
    }

    /// Returns a number that two baseline views share only if they have the same keys and window length;
    /// `None` for other views.
    pub(super) fn window_number(&self) -> Option<u64> {
        let ViewKind::Baseline { window, .. } = self.kind else { return None };
        Some(hash(&(&self.selector, &self.by, window)))
    }

    fn keys_id(&self) -> String {
        format!("{:016x}", self.keys_number())
    }

    /// Returns the key under which this view reads a series, if it does. `records`: those that
    /// derive from pipeline series.
    pub fn key_of(&self, series: &SeriesInfo, records: &PipelineRecords) -> Option<Key> {
        let label = |name: &str| records.label(series, name);
        match series.source.strip_prefix(PARTIAL_SOURCE) {
            Some(id) => (id == self.keys_id()).then(|| {
                Key(series.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
            }),
            None => self.selector.is_match_with(&series.name, label).then(|| self.by.key(series, label)),
        }
    }

    /// Returns the series that stands for the partials of a key in the aggregate partition. It has no
    /// windows, but it expires like any other series. Its name determines the metric's unit and resolution.
    pub fn partial_identity(&self, key: &Key, unit: Option<crate::core::vocab::unit::Unit>) -> Identity {
        Identity {
            source: format!("{PARTIAL_SOURCE}{}", self.keys_id()).into(),
            name: self.selector.name.clone().unwrap_or_else(|| Arc::from("_")),
            labels: crate::core::vocab::identity::Labels::from_pairs(key.0.clone()),
            unit,
        }
    }
}

fn hash(part: &impl Serialize) -> u64 {
    // Specs are plain data and always serialise.
    xxhash_rust::xxh3::xxh3_64(serde_json::to_string(part).unwrap_or_default().as_bytes())
}

impl View {
    /// Returns the view with which each partition gathers for this view and for those that it feeds.
    pub(crate) fn gathering(&self, all: &[View]) -> ViewSpec {
        let (of, pane) = (self.spec.id(), self.pane);
        let kept = self.feeds.iter().map(|fed| all[*fed as usize].kept).fold(self.kept, Span::max);
        let kind = ViewKind::Gathering { of, pane, kept, takes_late: self.takes_late() };
        let (has_quantiles, has_spread) = self.detail;
        ViewSpec { kind, has_quantiles, has_spread, ..self.spec.clone() }
    }

    pub(crate) fn is_gathering(&self) -> bool {
        matches!(self.spec.kind, ViewKind::Gathering { .. })
    }

    /// Takes the panes of all keys that changed; a key without panes has only joined.
    pub(in crate::core) fn take_gathered(&mut self) -> Vec<(KeyId, Timestamp, Vec<Trail>)> {
        let dirty = std::mem::take(&mut self.dirty);
        let taken = dirty.iter().filter_map(|at| {
            let group = self.groups.get_mut(*at as usize)?.as_mut()?;
            group.is_dirty = false;
            Some((group.key, group.newest, std::mem::take(&mut group.panes).into()))
        });
        taken.collect()
    }
}
