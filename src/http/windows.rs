//! Windows of one series, or of all series that match labels.
//!
//! Intuition: a client may request any time range; the cost depends only on the windows that exist in it.
//! Open windows come from the engine in this process, a few series at a time. Sealed windows come from the
//! store, outside the server's threads.

use super::reads::Asker;
use super::series::{ANSWER_BYTES_MAX, Found, SERIES_MAX, Wanted, find};
use super::{Answer, App, Failure, Shared, json_response, params};
use crate::core::measure::window::{WindowKey, WindowSize};
use crate::core::vocab::identity::Labels;
use crate::core::vocab::limits::LABELS_MAX;
use crate::core::vocab::pipeline::PIPELINE;
use crate::core::vocab::series_info::SeriesInfo;
use crate::core::{Engine, Span, Timestamp};
use crate::driver::ports::Views;
use crate::pipeline::diagnostic::nearest;
use crate::wire::row::Row;
use crate::wire::window::WindowView;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum number of query parameters: the labels of a series and the other fields.
const PARAMETERS_MAX: usize = LABELS_MAX + FIELDS.len();

/// Windows that one answer may hold: 10,000 × about 500 B.
const WINDOWS_MAX: usize = 10_000;

/// Number of windows before `to` that are returned if `from` is not given.
const WINDOWS_DEFAULT: i64 = 60;

/// Number of series whose open windows an engine returns between two records, which takes about 1 ms.
const PAGE_SERIES: usize = 64;

/// Maximum number of labels that a refusal lists.
const LABELS_NAMED: usize = 32;

pub(crate) async fn windows<S: Views + Send + Sync + 'static>(State(shared): App<S>, uri: Uri) -> Answer {
    let now = shared.log_time();
    let asked = WindowQuery::parse(params::free(&uri)?, now)?;
    let seen = Arc::<Mutex<SeenLabels>>::default();
    let found = find(&shared, asked.wanted(seen.clone()), SERIES_MAX).await?;
    if found.is_empty() {
        asked.check_labels(&seen.lock().unwrap_or_else(PoisonError::into_inner))?;
    }
    let to = asked.to.unwrap_or(now + Span::from_mins(10));
    let from = asked.from.unwrap_or(to - asked.size.span() * WINDOWS_DEFAULT);
    let range = Range { size: asked.size, from, to, limit: asked.limit };
    let found: Vec<Found> = found.into_values().collect();
    let (open, owned) = open(&shared, &found, range).await;
    let stores = shared.clone();
    let read = move |asker: &Asker| read(&stores, &found, range, &owned, open, asker);
    let (windows, is_cut) = shared.reads.run(read).await?;
    let mut body = serde_json::to_string(&json!({ "windows": [] })).unwrap_or_default();
    body.truncate(body.len() - 2);
    body.push_str(&windows);
    body.push_str(if is_cut { "],\"truncated\":true}" } else { "]}" });
    Ok(json_response(StatusCode::OK, body))
}

/// The requested windows, and the limit on their number.
#[derive(Debug, Clone, Copy)]
struct Range {
    size: WindowSize,
    from: Timestamp,
    to: Timestamp,
    limit: usize,
}

type Shown = (WindowKey, Row);

/// Returns the open windows from the engines in this process, by the index of the series in `found`, and the
/// partitions that this process owns.
async fn open<S: Views + Send + Sync + 'static>(
    shared: &Shared<S>,
    found: &[Found],
    range: Range,
) -> (BTreeMap<usize, Vec<Shown>>, BTreeSet<usize>) {
    let (mut open, mut owned, mut count) = (BTreeMap::new(), BTreeSet::new(), 0);
    for place in 0..shared.partitions.len() {
        let here: Vec<(usize, u32, u64)> = found
            .iter()
            .enumerate()
            .filter(|(_, one)| one.place == place)
            .filter_map(|(at, one)| Some((at, one.slot?, one.row.series.id)))
            .collect();
        for some in here.chunks(PAGE_SERIES) {
            let some = some.to_vec();
            let Some(shown) = shared.ask_one(place, move |engine| open_of(engine, &some, range)).await else {
                break;
            };
            owned.insert(place);
            count += shown.iter().map(|(_, shown)| shown.len()).sum::<usize>();
            open.extend(shown);
            if count >= range.limit {
                break;
            }
        }
    }
    (open, owned)
}

fn open_of(engine: &Engine, some: &[(usize, u32, u64)], range: Range) -> Vec<(usize, Vec<Shown>)> {
    let of_one = |(at, slot, id): &(usize, u32, u64)| {
        let open = engine.open_windows_of(*slot, &[range.size]).into_iter();
        // The slot may hold another series by now.
        let open = open.filter(|(key, _)| key.series.id == *id);
        let open = open.filter(|(key, _)| key.start >= range.from && key.start < range.to);
        let shown = open.map(|(key, pane)| {
            let row = Row::new(&pane, key.shape, 0, true, key.is_incomplete);
            (key, row)
        });
        (*at, shown.collect())
    };
    some.iter().map(of_one).collect()
}

/// Writes the windows of all series as the elements of a JSON array, and returns whether there were more.
fn read<S: Views>(
    shared: &Shared<S>,
    found: &[Found],
    range: Range,
    owned: &BTreeSet<usize>,
    mut open: BTreeMap<usize, Vec<Shown>>,
    asker: &Asker,
) -> Result<(String, bool), Failure> {
    let (mut out, mut count) = (String::new(), 0);
    for (at, Found { place, row, .. }) in found.iter().enumerate() {
        asker.still_waits()?;
        // The engine in this process has newer open windows than the store.
        let is_owned = owned.contains(place);
        let left = range.limit - count + 1;
        let stored = shared.partitions[*place].store.shown(row, range.size, (range.from, range.to), left);
        let stored = stored.map_err(super::failed)?.into_iter();
        let stored = stored.filter(|(_, row)| !(row.open && is_owned)).map(|(start, shown)| {
            let (series, unit, shape) = (row.series.clone(), row.unit.clone(), row.shape);
            (WindowKey { series, unit, shape, size: range.size, start, is_incomplete: false }, shown)
        });
        for (key, row) in stored.chain(open.remove(&at).unwrap_or_default()) {
            if count >= range.limit || out.len() > ANSWER_BYTES_MAX {
                return Ok((out, true));
            }
            if count > 0 {
                out.push(',');
            }
            count += 1;
            // Numbers and texts always serialise.
            out.push_str(&serde_json::to_string(&WindowView::of_row(&key, &row)).unwrap_or_default());
        }
    }
    Ok((out, false))
}

/// A query for windows.
struct WindowQuery {
    series: Option<u64>,
    labels: BTreeMap<String, String>,
    size: WindowSize,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    limit: usize,
}

impl WindowQuery {
    fn parse(mut query: BTreeMap<String, String>, now: Timestamp) -> Result<WindowQuery, Failure> {
        if query.len() > PARAMETERS_MAX {
            let message = format!("{} query parameters; at most {PARAMETERS_MAX} are taken", query.len());
            return Err(Failure::bad(message));
        }
        let instant = |text: Option<String>| text.map(|text| params::instant(&text, now)).transpose();
        let size = query.remove("window").unwrap_or_else(|| "1m".into());
        let series = query
            .remove("series")
            .map(|id| u64::from_str_radix(&id, 16).map_err(|_| Failure::bad("series is 16 hex digits")));
        let limit = query.remove("limit").map(|text| {
            text.parse().map_err(|_| Failure::bad(format!("limit is a number from 1 to {WINDOWS_MAX}")))
        });
        let asked = WindowQuery {
            size: WindowSize::from_name(&size).ok_or_else(|| Failure::bad("window is 1m, 5m or 1h"))?,
            from: instant(query.remove("from"))?,
            to: instant(query.remove("to"))?,
            series: series.transpose()?,
            limit: params::limit(limit.transpose()?, WINDOWS_MAX)?,
            labels: query,
        };
        match (&asked.series, asked.labels.is_empty()) {
            (None, true) => Err(Failure::bad("say which series: series=<id>, or source=, name= and labels")),
            (Some(_), false) => Err(asked.unknown(&BTreeSet::new())),
            _ => Ok(asked),
        }
    }

    /// Returns the filter for series that match all fields. The labels of a series that matches only in
    /// source and name are noted in `seen`.
    fn wanted(&self, seen: Arc<Mutex<SeenLabels>>) -> Wanted {
        let (series, labels) = (self.series, self.labels.clone());
        let is_one = |series: &SeriesInfo, label: &str, value: &str| {
            series.label(label).is_some_and(|known| **known == *value)
        };
        Arc::new(move |info: &SeriesInfo| {
            if series.is_some_and(|id| id != info.id) {
                return false;
            }
            let mut named = labels.iter().filter(|(label, _)| is_name(label));
            if !named.all(|(label, value)| is_one(info, label, value)) {
                return false;
            }
            let is_match = labels.iter().all(|(label, value)| is_one(info, label, value));
            if !is_match {
                seen.lock().unwrap_or_else(PoisonError::into_inner).note(&info.labels);
            }
            is_match
        })
    }

    /// Refuses a parameter that is neither a field of the query nor a label of a series in `seen`. If `source` and
    /// `name` are given and `seen` is empty, the source may not have sent its first event. Any parameter is then
    /// accepted as a label, unless it resembles a field and is probably mistyped.
    fn check_labels(&self, seen: &SeenLabels) -> Result<(), Failure> {
        let is_whole = self.labels.keys().filter(|label| is_name(label)).count() == NAMES.len();
        let may_be_label = |label: &str| is_whole && !seen.is_any && nearest(label, FIELDS).is_none();
        let known = |label: &str| is_name(label) || label == PIPELINE || seen.labels.contains(label);
        match self.labels.keys().all(|label| known(label) || may_be_label(label)) {
            true => Ok(()),
            false => Err(self.unknown(&seen.labels)),
        }
    }

    fn unknown(&self, seen: &BTreeSet<Arc<str>>) -> Failure {
        let known = |label: &str| {
            self.series.is_none() && (is_name(label) || label == PIPELINE || seen.contains(label))
        };
        let wrong: Vec<String> = self
            .labels
            .keys()
            .filter(|label| !known(label))
            .take(LABELS_NAMED)
            .map(|label| format!("`{}`", label.chars().take(params::SHOWN_CHARS).collect::<String>()))
            .collect();
        let labels: Vec<&str> = seen.iter().take(LABELS_NAMED).map(|label| &**label).collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!(", and the labels of these series: {}", labels.join(", ")),
        };
        Failure::bad(format!(
            "unknown query parameter {}; known here: {}{labels}",
            wrong.join(", "),
            FIELDS.join(", ")
        ))
    }
}

/// All fields of a query for windows; other parameters are labels.
const FIELDS: [&str; 7] = ["series", "source", "name", "window", "from", "to", "limit"];

/// The fields that select a series if the query does not state its id.
const NAMES: [&str; 2] = ["source", "name"];

fn is_name(label: &str) -> bool {
    NAMES.contains(&label)
}

/// The labels seen on series with the queried source and name.
#[derive(Debug, Default)]
struct SeenLabels {
    is_any: bool,
    labels: BTreeSet<Arc<str>>,
}

impl SeenLabels {
    fn note(&mut self, labels: &Labels) {
        self.is_any = true;
        for (label, _) in labels.iter() {
            if self.labels.len() < SEEN_MAX {
                self.labels.insert(label.clone());
            }
        }
    }
}

/// Maximum number of label names noted in [`SeenLabels`].
const SEEN_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::clamped(1_793_491_200_000);

    fn parse(pairs: &[(&str, &str)]) -> Result<WindowQuery, String> {
        let query = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        WindowQuery::parse(query, NOW).map_err(|failure| failure.message)
    }

    fn info(labels: &[(&str, &str); 1]) -> SeriesInfo {
        let labels = Labels::of(*labels);
        let id = crate::core::vocab::series_info::series_id("a", "m", &labels);
        SeriesInfo { id, source: "a".into(), name: "m".into(), labels }
    }

    #[test]
    fn a_field_that_is_no_label_is_refused_with_those_that_are() {
        let asked = parse(&[("source", "a"), ("name", "m"), ("form", "-24h")]).expect("perhaps a label");
        let seen = Arc::<Mutex<SeenLabels>>::default();
        assert!(!asked.wanted(seen.clone())(&info(&[("host", "h1")])));
        let said = asked.check_labels(&seen.lock().expect("free")).expect_err("no label").message;
        assert!(said.contains("`form`") && said.contains("from, to") && said.contains("host"), "{said}");
        let asked = parse(&[("source", "a"), ("host", "h2")]).expect("labels");
        assert!(!asked.wanted(seen.clone())(&info(&[("host", "h1")])));
        assert!(asked.check_labels(&seen.lock().expect("free")).is_ok(), "a label without such a value");
        let asked = parse(&[("source", "new"), ("name", "m"), ("host", "h1")]).expect("labels");
        assert!(asked.check_labels(&SeenLabels::default()).is_ok(), "its first event may come");
        let near = [("source", "new"), ("name", "m"), ("form", "-1h")];
        for pairs in [&near[..], &[("source", "new"), ("host", "h1")]] {
            let asked = parse(pairs).expect("perhaps a label");
            assert!(asked.check_labels(&SeenLabels::default()).is_err(), "{pairs:?}");
        }
        assert!(parse(&[("series", "1f"), ("host", "h")]).is_err(), "an id says it all");
        assert!(parse(&[]).is_err() && parse(&[("series", "xyz")]).is_err());
        let asked = parse(&[("name", "m"), ("from", "-24h")]).expect("a time before now");
        assert_eq!(asked.from, Some(NOW - Span::from_hours(24)));
    }
}
