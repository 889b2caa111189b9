//! Encoding of windows: one JSON object per window and revision.

use super::row::Row;
use crate::core::Timestamp;
use crate::core::alert::transition::rfc3339;
use crate::core::measure::pane::Pane;
use crate::core::measure::window::{WindowKey, WindowSize};
use crate::core::vocab::identity::Labels;
use crate::core::vocab::unit::Unit;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// The published form of a window of a series.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "window")]
pub(crate) struct WindowView<'a> {
    pub source: &'a str,
    pub name: &'a str,
    #[schemars(with = "Option<String>")]
    pub unit: Option<Unit>,
    #[serde(serialize_with = "as_map")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub labels: &'a Labels,
    #[schemars(with = "String")]
    pub window: WindowSize,
    #[serde(with = "rfc3339")]
    #[schemars(with = "String")]
    pub start: Timestamp,
    #[serde(with = "rfc3339")]
    #[schemars(with = "String")]
    pub end: Timestamp,
    pub count: u64,
    pub sum: f64,
    pub min: Option<f64>,
    pub max: Option<f64>,
    /// The value with the greatest event time; null if the window holds only histograms.
    pub last: Option<f64>,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
    pub p999: Option<f64>,
    /// The number of values whose magnitude exceeds the range of the histogram.
    pub overflow: u64,
    pub revision: u32,
    pub open: bool,
    pub incomplete: bool,
}

fn as_map<S: Serializer>(labels: &&Labels, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels.iter().map(|(name, value)| (name, value)))
}

impl<'a> WindowView<'a> {
    pub(crate) fn new(key: &'a WindowKey, pane: &Pane, revision: u32, open: bool) -> WindowView<'a> {
        WindowView::of_row(key, &Row::new(pane, key.shape, revision, open, key.is_incomplete))
    }

    /// Builds the view of a window from its stored row.
    pub(crate) fn of_row(key: &'a WindowKey, row: &Row) -> WindowView<'a> {
        WindowView {
            source: &key.series.source,
            name: &key.series.name,
            unit: key.unit.clone(),
            labels: &key.series.labels,
            window: key.size,
            start: key.start,
            end: key.start + key.size.span(),
            count: row.n,
            sum: row.sum,
            min: row.min,
            max: row.max,
            last: row.last,
            p50: row.p50,
            p90: row.p90,
            p95: row.p95,
            p99: row.p99,
            p999: row.p999,
            overflow: row.overflow,
            revision: row.revision,
            open: row.open,
            incomplete: row.incomplete,
        }
    }
}
