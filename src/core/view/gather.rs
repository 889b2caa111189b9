//! Gathering views: a partition collects panes in them for the aggregate partition. Sending the panes empties
//! the view.

use super::group::Trail;
use super::pipeline_records::PipelineRecords;
use super::{View, ViewKind, ViewSpec};
use crate::core::vocab::identity::Identity;
use crate::core::vocab::key::{Key, KeyId};
use crate::core::vocab::series_info::SeriesInfo;
use crate::core::vocab::time::{Span, Timestamp};
use serde::Serialize;
use std::sync::Arc;

/// Prefix of the source of a series that stands for one key's partials.
const PARTIAL_SOURCE: &str = "_partial:";

impl SeriesInfo {
    /// Whether the series stands for the partials that other partitions sent.
    pub fn is_partial(&self) -> bool {
        self.source.starts_with(PARTIAL_SOURCE)
    }
}

impl ViewSpec {
    /// Returns a hash of the rows that the view reads. It depends neither on the order of rules nor on how
    /// far back a view reads, so it stays when other rules are added or removed.
    pub fn id(&self) -> u64 {
        hash(&self.of_any_period())
    }

    /// Returns a hash of the view's keys: views with the same keys have the same hash.
    pub(super) fn keys_number(&self) -> u64 {
        hash(&(&self.selector, &self.by))
    }

    /// Returns a hash of the keys and the window length of a baseline view; `None` for other views.
    pub(super) fn window_number(&self) -> Option<u64> {
        let ViewKind::Baseline { window, .. } = self.kind else { return None };
        Some(hash(&(&self.selector, &self.by, window)))
    }

    fn keys_id(&self) -> String {
        format!("{:016x}", self.keys_number())
    }

    /// Returns the key under which this view reads a series; `None` if it does not read the series.
    /// `records`: the recorded series that derive from pipeline series.
    pub fn key_of(&self, series: &SeriesInfo, records: &PipelineRecords) -> Option<Key> {
        let label = |name: &str| records.label(series, name);
        match series.source.strip_prefix(PARTIAL_SOURCE) {
            Some(id) => (id == self.keys_id()).then(|| {
                Key(series.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
            }),
            None => self.selector.is_match_with(&series.name, label).then(|| self.by.key(series, label)),
        }
    }

    /// Returns the series that stands for a key's partials in the aggregate partition. The series has no
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
    /// Returns the view in which each partition gathers panes for this view and for those that it feeds.
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

    /// Removes and returns the panes of all keys marked as changed. A key has no panes if a series only
    /// joined it.
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
