//! Series, read page by page from the engines of this process and from the catalogs in the store.
//!
//! Intuition: there may be a million series, so no step reads all of them at once. An engine returns one page
//! between two records, and a catalog is read one page at a time. Only matching series are kept, up to a
//! limit.

use super::params::{self, Params};
use super::reads::Asker;
use super::{Answer, App, Failure, Shared, json_response};
use crate::core::Engine;
use crate::core::measure::series::Series;
use crate::core::vocab::selector::Selector;
use crate::core::vocab::series_info::SeriesInfo;
use crate::driver::ports::{CatalogRow, Views};
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Series that one answer may hold: 10,000 × about 300 B, and at most [`ANSWER_BYTES_MAX`] in total.
pub(crate) const SERIES_MAX: usize = 10_000;

/// Maximum size of one answer in bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Slots of the series table that an engine checks between two records, which takes about 0.2 ms.
const PAGE_SLOTS: usize = 2_048;

/// Maximum number of catalog rows in one read from the store.
const PAGE_ROWS: usize = 1_024;

/// A series, the index of its partition, and its slot if an engine in this process has it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub place: usize,
    pub slot: Option<u32>,
    pub row: CatalogRow,
}

/// A filter that returns true for the requested series.
pub(crate) type Wanted = Arc<dyn Fn(&SeriesInfo) -> bool + Send + Sync>;

/// If an engine gives no answer within this time, it is busy. A missing answer that comes sooner is taken to mean
/// that another process owns the partition.
const TOO_LONG: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeriesQuery {
    #[serde(rename = "match")]
    matches: Option<String>,
    limit: Option<usize>,
}

pub(crate) async fn series<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(query): Params<SeriesQuery>,
) -> Answer {
    let selector = match query.matches {
        Some(text) => Some(shared.reads.run(move |_| selector(&text)).await?),
        None => None,
    };
    let wanted: Wanted =
        Arc::new(move |series| selector.as_ref().is_none_or(|selector| selector.is_match(series)));
    let limit = params::limit(query.limit, SERIES_MAX)?;
    let found = find(&shared, wanted, limit + 1).await?;
    let (mut listed, mut bytes) = (Vec::new(), 0);
    for one in found.values().take(limit) {
        let one = series_json(&one.row);
        bytes += one.to_string().len();
        if bytes > ANSWER_BYTES_MAX {
            break;
        }
        listed.push(one);
    }
    let mut answer = json!({ "series": listed });
    if listed.len() < found.len() {
        answer["truncated"] = json!(true);
    }
    answer["series"] = listed.into();
    Ok(json_response(StatusCode::OK, answer.to_string()))
}

fn series_json(row: &CatalogRow) -> Value {
    let labels: BTreeMap<_, _> = row.series.labels.iter().map(|(k, v)| (k, v)).collect();
    json!({"id": format!("{:016x}", row.series.id), "source": row.series.source, "name": row.series.name,
        "unit": row.unit, "labels": labels})
}

fn selector(text: &str) -> Result<Selector, Failure> {
    use crate::pipeline::expr::parse::TermKind;
    let parsed = crate::pipeline::expr::parse::parse(text).map_err(|error| Failure::bad(error.message))?;
    let TermKind::Selector(term) = parsed.term.kind else {
        return Err(Failure::bad("match is a selector, such as latency_ms{source=\"checkout\"}"));
    };
    crate::pipeline::expr::check::selector_of(&term).map_err(|error| Failure::bad(error.message))
}

/// Finds series in the engines of this process and in the catalogs of the store, by series id. The last page may
/// exceed `max`.
pub(crate) async fn find<S: Views + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    wanted: Wanted,
    max: usize,
) -> Result<BTreeMap<u64, Found>, Failure> {
    let mut found = BTreeMap::new();
    for place in 0..shared.partitions.len() {
        let mut next = Some(0);
        while let Some(from) = next.filter(|_| found.len() < max) {
            let (wanted, begun) = (wanted.clone(), Instant::now());
            let Some((rows, behind)) =
                shared.ask_one(place, move |engine| page(engine, from, &*wanted)).await
            else {
                // For a partition that another process owns, the missing answer comes at once.
                if begun.elapsed() >= TOO_LONG {
                    return Err(shared.unavailable("the engine did not answer in time; ask for less"));
                }
                break;
            };
            for (slot, row) in rows {
                found.insert(row.series.id, Found { place, slot: Some(slot), row });
            }
            next = behind;
        }
    }
    let (of_stores, known) = (shared.clone(), found.keys().copied().collect());
    let stored = shared.reads.run(move |asker| in_catalogs(&of_stores, &*wanted, known, max, asker)).await?;
    for one in stored {
        found.entry(one.row.series.id).or_insert(one);
    }
    Ok(found)
}

/// Returns the wanted series of one page of an engine, and the start of the next page.
fn page(
    engine: &Engine,
    from: u32,
    wanted: &dyn Fn(&SeriesInfo) -> bool,
) -> (Vec<(u32, CatalogRow)>, Option<u32>) {
    let table = engine.series();
    let row = |series: &Series| {
        let metric = table.metric_of(series);
        CatalogRow { series: series.info.clone(), unit: metric.unit.clone(), shape: metric.shape }
    };
    let (page, next) = table.page(from, PAGE_SLOTS);
    // Series that carry the partials of other partitions are internal and are not listed.
    let page = page.filter(|(_, series)| !series.info.is_partial() && wanted(&series.info));
    (page.map(|(slot, series)| (slot, row(series))).collect(), next)
}

fn in_catalogs<S: Views>(
    shared: &Shared<S>,
    wanted: &dyn Fn(&SeriesInfo) -> bool,
    mut known: BTreeSet<u64>,
    max: usize,
    asker: &Asker,
) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for (place, partition) in shared.partitions.iter().enumerate() {
        let mut next = Some(0);
        while let Some(from) = next.filter(|_| known.len() < max) {
            asker.still_waits()?;
            let (rows, behind) = partition.store.catalog_page(from, PAGE_ROWS).map_err(super::failed)?;
            for row in rows.into_iter().filter(|row| wanted(&row.series)) {
                if known.insert(row.series.id) {
                    found.push(Found { place, slot: None, row });
                }
            }
            next = behind;
        }
    }
    Ok(found)
}
