//! The series of this log: interned once, then found by a number.
//!
//! Intuition: a series is a slot in a vector. A memo maps a decoder's `SeriesRef` to the slot in one array
//! read, so only the first event of an identity pays for hashing strings.
//! Invariant: the generation of a slot changes when its series is forgotten, so a stale memo is detected and
//! never leads to another series. At most `Limits::series_max` series are live. A new series beyond the limit
//! is refused and counted; no old series is evicted for it.

use super::histogram::layout::Digits;
use super::pane::Shape;
use super::window::OpenWindows;
use crate::core::vocab::identity::{Identity, Labels};
use crate::core::vocab::limits::Room;
use crate::core::vocab::series_info::SeriesInfo;
use crate::core::vocab::time::Timestamp;
use crate::core::vocab::unit::Unit;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

/// The settings by which all series of one name are measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    pub name: Arc<str>,
    pub unit: Option<Unit>,
    pub shape: Shape, // fixed when the metric is first seen
    pub is_cumulative: bool,
}

/// The settings of a metric that a rule set states before any event arrives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricSpec {
    pub unit: Option<Unit>,
    pub digits: Digits,
    pub is_cumulative: bool,
}

/// One live series.
#[derive(Debug, Serialize, Deserialize)]
pub struct Series {
    pub info: Arc<SeriesInfo>,
    pub metric: u32,
    pub generation: u32,
    pub is_declared: bool,
    /// Ingest time of the newest observation.
    pub last_seen: Timestamp,
    /// Greatest event time of all observations; MIN before the first.
    pub newest: Timestamp,
    /// Event time and value of the newest point of a cumulative metric.
    pub counter: Option<(Timestamp, f64)>,
    pub windows: OpenWindows,
    /// Whether the series is already in the engine's list of series with new values.
    #[serde(skip)]
    pub is_touched: bool,
    #[serde(skip)]
    pub subscriptions: Vec<Subscription>,
}

/// A series' subscription: the view and the group that it feeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    pub view: u32,
    pub group: u32,
}

/// The slot of a series, and the factor that converts a value from the event's unit to the metric's unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeriesSlot {
    pub slot: u32,
    pub generation: u32,
    pub factor: f64,
}

/// The reason why an event has no series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unplaced {
    /// The unit of the event has another dimension than the unit of the metric.
    Unit,
    /// The limit on series, in total or of this source, is reached.
    Cardinality,
}

/// All live series, with indexes by identity and by metric name.
#[derive(Debug, Default)]
pub struct SeriesTable {
    slots: Vec<Option<Series>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    by_identity: HashTable<u32>,
    metrics: Vec<Metric>,
    metric_by_name: HashMap<Arc<str>, u32, FixedState>,
    specs: HashMap<Arc<str>, MetricSpec, FixedState>,
    /// Live series per source, so that one source cannot use the whole limit.
    by_source: HashMap<Arc<str>, usize, FixedState>,
    live: usize,
}

impl SeriesTable {
    /// Returns the slot of an identity's series, and whether the call created the series.
    pub fn place(
        &mut self,
        identity: &Identity,
        now: Timestamp,
        room: Room,
    ) -> Result<(SeriesSlot, bool), Unplaced> {
        let factor = self.unit_factor(identity)?;
        let hash = identity_hash(&identity.source, &identity.name, &identity.labels);
        if let Some(slot) = self.find(hash, identity) {
            let generation = self.generations[slot as usize];
            self.learn_unit(identity);
            return Ok((SeriesSlot { slot, generation, factor }, false));
        }
        let of_source = self.by_source.get(&identity.source).copied().unwrap_or(0);
        if self.live >= room.series_max || of_source >= room.series_per_source_max {
            return Err(Unplaced::Cardinality);
        }
        let metric = self.metric(identity);
        self.learn_unit(identity);
        let slot = self.insert(hash, identity, metric, now);
        Ok((SeriesSlot { slot, generation: self.generations[slot as usize], factor }, true))
    }

    /// Returns the series in a slot. `None` if the slot's generation has changed since `place` was returned.
    #[inline]
    pub fn at(&mut self, place: SeriesSlot) -> Option<&mut Series> {
        self.slots.get_mut(place.slot as usize)?.as_mut().filter(|s| s.generation == place.generation)
    }

    pub fn get(&self, slot: u32) -> Option<&Series> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Series> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// The series of a slot together with its metric.
    #[inline]
    pub fn with_metric(&mut self, slot: u32) -> Option<(&mut Series, &Metric)> {
        let series = self.slots.get_mut(slot as usize)?.as_mut()?;
        let metric = self.metrics.get(series.metric as usize)?;
        Some((series, metric))
    }

    /// The unit of all series of a name, if one is known.
    pub fn unit_of(&self, name: &str) -> Option<Unit> {
        let metric = self.metric_by_name.get(name)?;
        self.metrics.get(*metric as usize)?.unit.clone()
    }

    pub fn metric_of(&self, series: &Series) -> &Metric {
        // The metric index of each series comes from `metric()`, and metrics are never removed.
        &self.metrics[series.metric as usize]
    }

    /// All live series with their slots, in order of the slots.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Series)> {
        self.slots.iter().enumerate().filter_map(|(at, s)| s.as_ref().map(|s| (at as u32, s)))
    }

    /// Returns the live series in the `max` slots that begin at `from`, and the slot at which the next page
    /// begins.
    pub fn page(&self, from: u32, max: usize) -> (impl Iterator<Item = (u32, &Series)>, Option<u32>) {
        let begin = (from as usize).min(self.slots.len());
        let end = begin.saturating_add(max).min(self.slots.len());
        let page = self.slots[begin..end].iter().enumerate();
        let page = page.filter_map(move |(at, s)| s.as_ref().map(|s| ((begin + at) as u32, s)));
        (page, (end < self.slots.len()).then_some(end as u32))
    }

    /// The names of the first `max` metrics.
    pub fn names(&self, max: usize) -> impl Iterator<Item = &Arc<str>> {
        self.metrics.iter().take(max).map(|metric| &metric.name)
    }

    pub fn len(&self) -> usize {
        self.live
    }

    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub fn metric_named(&self, name: &str) -> Option<&Metric> {
        self.metric_by_name.get(name).map(|at| &self.metrics[*at as usize])
    }

    /// Stores the metric settings of a new rule set. Metrics already seen keep their unit and shape.
    pub fn specify(&mut self, specs: impl IntoIterator<Item = (Arc<str>, MetricSpec)>) {
        self.specs = specs.into_iter().collect();
        for metric in &mut self.metrics {
            if let Some(spec) = self.specs.get(&metric.name) {
                metric.is_cumulative = spec.is_cumulative;
            }
        }
    }

    /// The slot of the series of an identity, if the series is known.
    pub fn slot_of(&self, identity: &Identity) -> Option<u32> {
        self.find(identity_hash(&identity.source, &identity.name, &identity.labels), identity)
    }

    /// Removes a series. Its slot may be reused under another generation.
    pub fn forget(&mut self, slot: u32) -> Option<Series> {
        let series = self.slots.get_mut(slot as usize)?.take()?;
        let hash = identity_hash(&series.info.source, &series.info.name, &series.info.labels);
        if let Ok(entry) = self.by_identity.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        if let Some(count) = self.by_source.get_mut(&series.info.source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&series.info.source);
            }
        }
        self.generations[slot as usize] += 1;
        self.free.push(slot);
        self.live -= 1;
        Some(series)
    }

    fn find(&self, hash: u64, identity: &Identity) -> Option<u32> {
        let is_same = |slot: &u32| {
            self.get(*slot).is_some_and(|series| {
                let info = &series.info;
                info.name == identity.name && info.source == identity.source && info.labels == identity.labels
            })
        };
        self.by_identity.find(hash, is_same).copied()
    }

    fn insert(&mut self, hash: u64, identity: &Identity, metric: u32, now: Timestamp) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.generations.push(0);
            self.slots.len() as u32 - 1
        });
        let series = Series {
            info: Arc::new(SeriesInfo::new(identity)),
            metric,
            generation: self.generations[slot as usize],
            is_declared: false,
            last_seen: now,
            newest: Timestamp::MIN,
            counter: None,
            windows: OpenWindows::default(),
            is_touched: false,
            subscriptions: Vec::new(),
        };
        *self.by_source.entry(identity.source.clone()).or_default() += 1;
        self.slots[slot as usize] = Some(series);
        let slots = &self.slots;
        self.by_identity.insert_unique(hash, slot, |slot| {
            slots[*slot as usize].as_ref().map_or(0, |series| {
                identity_hash(&series.info.source, &series.info.name, &series.info.labels)
            })
        });
        self.live += 1;
        slot
    }

    /// Returns the index of the identity's metric. The metric is created, and its shape fixed, when its name
    /// is first seen.
    fn metric(&mut self, identity: &Identity) -> u32 {
        if let Some(metric) = self.metric_by_name.get(&identity.name) {
            return *metric;
        }
        let spec = self.specs.get(&identity.name);
        let stated = spec.and_then(|spec| spec.unit.clone());
        let unit = stated.or_else(|| Unit::from_suffix(&identity.name)).or(identity.unit.clone());
        let metric = Metric {
            name: identity.name.clone(),
            shape: Shape {
                digits: spec.map(|spec| spec.digits).unwrap_or_default(),
                resolution: Unit::resolution(unit.as_ref()),
            },
            unit,
            is_cumulative: spec.is_some_and(|spec| spec.is_cumulative),
        };
        self.metrics.push(metric);
        let at = self.metrics.len() as u32 - 1;
        self.metric_by_name.insert(identity.name.clone(), at);
        at
    }

    fn unit_factor(&self, identity: &Identity) -> Result<f64, Unplaced> {
        let Some(unit) = &identity.unit else { return Ok(1.0) };
        let stated = match self.metric_named(&identity.name) {
            Some(metric) => metric.unit.clone(),
            None => {
                let spec = self.specs.get(&identity.name).and_then(|spec| spec.unit.clone());
                spec.or_else(|| Unit::from_suffix(&identity.name))
            }
        };
        stated.map_or(Ok(1.0), |known| unit.factor_to(&known).ok_or(Unplaced::Unit))
    }

    /// Gives a metric without a unit the unit of its first event that has one.
    fn learn_unit(&mut self, identity: &Identity) {
        if identity.unit.is_some()
            && let Some(at) = self.metric_by_name.get(&identity.name)
        {
            let metric = &mut self.metrics[*at as usize];
            metric.unit = metric.unit.take().or_else(|| identity.unit.clone());
        }
    }
}

fn identity_hash(source: &str, name: &str, labels: &Labels) -> u64 {
    FixedState::default().hash_one((source, name, labels))
}

/// The stored form of the table: the parts that cannot be rebuilt from the others.
#[derive(Debug, Serialize, Deserialize)]
pub struct SeriesImage {
    slots: Vec<Option<Series>>,
    generations: Vec<u32>,
    free: Vec<u32>,
    metrics: Vec<Metric>,
}

impl SeriesTable {
    /// The table in its stored form, borrowed while it is written.
    pub fn image(&self) -> impl Serialize + '_ {
        (&self.slots, &self.generations, &self.free, &self.metrics)
    }

    pub fn restore(image: SeriesImage) -> SeriesTable {
        let mut table = SeriesTable {
            slots: image.slots,
            generations: image.generations,
            free: image.free,
            metrics: image.metrics,
            ..SeriesTable::default()
        };
        let names = table.metrics.iter().enumerate();
        table.metric_by_name = names.map(|(at, m)| (m.name.clone(), at as u32)).collect();
        table.rebuild_index();
        table
    }

    fn rebuild_index(&mut self) {
        let hash_of =
            |series: &Series| identity_hash(&series.info.source, &series.info.name, &series.info.labels);
        for (slot, series) in self.slots.iter().enumerate() {
            let Some(series) = series else { continue };
            self.live += 1;
            *self.by_source.entry(series.info.source.clone()).or_default() += 1;
            self.by_identity.insert_unique(hash_of(series), slot as u32, |slot| {
                self.slots[*slot as usize].as_ref().map_or(0, hash_of)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vocab::series_info::series_id;

    const NINE: Room = Room { series_max: 9, series_per_source_max: 9 };
    const ONE: Room = Room { series_max: 1, series_per_source_max: 9 };

    fn identity(name: &str, unit: Option<&str>) -> Identity {
        let unit = unit.map(Unit::from_name);
        Identity::new("s".into(), name.into(), Labels::of([("host", "h1")]), unit).expect("valid")
    }

    #[test]
    fn ids_are_those_of_the_contract() {
        let labels = Labels::of([("host", "h1"), ("stage", "build")]);
        let json = r#"["checkout","latency_ms",[["host","h1"],["stage","build"]]]"#;
        let id = xxhash_rust::xxh3::xxh3_64(json.as_bytes());
        assert_eq!(series_id("checkout", "latency_ms", &labels), id);
    }

    #[test]
    fn a_metric_takes_the_unit_of_its_first_event_that_has_one() {
        let mut table = SeriesTable::default();
        let now = Timestamp::clamped(0);
        table.place(&identity("depth", None), now, NINE).expect("placed");
        assert_eq!(table.metric_named("depth").and_then(|m| m.unit.clone()), None);
        table.place(&identity("depth", Some("s")), now, NINE).expect("placed");
        let (place, is_new) = table.place(&identity("depth", Some("ms")), now, NINE).expect("placed");
        assert_eq!((place.factor, is_new), (0.001, false));
        assert_eq!(table.place(&identity("depth", Some("percent")), now, NINE), Err(Unplaced::Unit));
    }

    #[test]
    fn one_source_does_not_take_the_room_of_all() {
        let (mut table, now) = (SeriesTable::default(), Timestamp::clamped(0));
        let room = Room { series_max: 9, series_per_source_max: 1 };
        let (first, _) = table.place(&identity("a", None), now, room).expect("placed");
        assert_eq!(table.place(&identity("b", None), now, room), Err(Unplaced::Cardinality));
        let other = Identity { source: "t".into(), ..identity("b", None) };
        assert!(table.place(&other, now, room).is_ok());
        table.forget(first.slot);
        assert!(table.place(&identity("b", None), now, room).is_ok(), "a forgotten one makes room");
    }

    #[test]
    fn old_series_live_on_when_there_is_no_room() {
        let mut table = SeriesTable::default();
        let now = Timestamp::clamped(0);
        let (first, _) = table.place(&identity("a", None), now, ONE).expect("placed");
        assert_eq!(table.place(&identity("b", None), now, ONE), Err(Unplaced::Cardinality));
        assert_eq!(table.place(&identity("a", None), now, ONE), Ok((first, false)));
        table.forget(first.slot);
        let (second, is_new) = table.place(&identity("b", None), now, ONE).expect("placed");
        assert!(is_new && second.slot == first.slot && second.generation != first.generation);
        assert!(table.at(first).is_none());
    }
}
