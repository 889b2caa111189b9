//! Snapshots: the engine as plain data, and its restoration.
//!
//! Invariant: `restore(snapshot)` continues exactly as the original would. The snapshot holds everything that
//! any output depends on. Indexes, caches and the series behind each `SeriesRef` are rebuilt. Equal logs give
//! equal snapshots, byte for byte, because every map in a snapshot is ordered.

use super::aggregate::Feeder;
use super::gather::PendingPartials;
use super::measures::Measures;
use super::self_alerts::SelfAlerts;
use super::states::States;
use super::timeline::{Timeline, TimelineImage};
use super::views::Views;
use super::{Engine, RuleState, records};
use crate::core::duplicates::{Duplicates, DuplicatesImage};
use crate::core::gap::Gaps;
use crate::core::interruption::Interruptions;
use crate::core::measure::pane::{Pane, Shape};
use crate::core::measure::series::{SeriesImage, SeriesTable};
use crate::core::measure::window::{WindowKey, WindowSize};
use crate::core::mute::Mutes;
use crate::core::rule::RuleSet;
use crate::core::run::Tracker;
use crate::core::run::v19::TrackerV19;
use crate::core::view::{View, ViewImage};
use crate::core::vocab::counters::{Counters, CountersV19};
use crate::core::vocab::key::{Key, Keys};
use crate::core::vocab::limits::Limits;
use crate::core::vocab::series_info::SeriesInfo;
use crate::core::vocab::time::Timestamp;
use crate::core::vocab::unit::Unit;
use serde::ser::SerializeTuple;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The stored state of an engine. A change of its shape requires a new [`VERSION`], and a conversion from
/// the old one; `tests/fixtures/` holds state that older binaries wrote.
#[derive(Debug, Deserialize)]
pub struct Snapshot<Runs = Tracker, Counts = Counters> {
    #[expect(dead_code, reason = "the reader chooses the shape by it before it decodes the rest")]
    version: u32,
    now: Timestamp,
    has_begun: bool,
    has_ticks: bool,
    series: SeriesImage,
    seals: Vec<((Timestamp, WindowSize), Vec<(u32, Timestamp)>)>,
    corrections: Vec<CorrectionImage>,
    reviews: BTreeMap<Timestamp, Vec<(u32, u32)>>,
    duplicates: DuplicatesImage,
    runs: Runs,
    gauges: BTreeMap<Arc<str>, records::Gauges>,
    rules: RuleSet,
    views: Vec<ViewImage>,
    rule_states: Vec<RuleState>,
    record_states: Vec<records::RecordState>,
    keys: Vec<Arc<Key>>,
    interruptions: Interruptions,
    counters: Counts,
    grid_due: Timestamp,
    gaps: Gaps,
    self_alerts: SelfAlerts,
    pending_partials: PendingPartials,
    feeders: Vec<Feeder>,
    mutes: Mutes,
}

/// A snapshot of version 19, which has no checksum.
pub type SnapshotV19 = Snapshot<TrackerV19, CountersV19>;

/// Version of the shape of [`Snapshot`].
pub const VERSION: u32 = 20;

const FIELDS: usize = 24;

type CorrectionImage = (Arc<SeriesInfo>, Option<Unit>, Shape, WindowSize, Timestamp, Pane);

impl From<SnapshotV19> for Snapshot {
    fn from(old: SnapshotV19) -> Snapshot {
        Snapshot {
            version: VERSION,
            now: old.now,
            has_begun: old.has_begun,
            has_ticks: old.has_ticks,
            series: old.series,
            seals: old.seals,
            corrections: old.corrections,
            reviews: old.reviews,
            duplicates: old.duplicates,
            runs: old.runs.into(),
            gauges: old.gauges,
            rules: old.rules,
            views: old.views,
            rule_states: old.rule_states,
            record_states: old.record_states,
            keys: old.keys,
            interruptions: old.interruptions,
            counters: old.counters.into(),
            grid_due: old.grid_due,
            gaps: old.gaps,
            self_alerts: old.self_alerts,
            pending_partials: old.pending_partials,
            feeders: old.feeders,
            mutes: old.mutes,
        }
    }
}

/// Borrows the engine while it is written, because a copy would double the memory.
impl Serialize for Engine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seals: Vec<_> = self.measures.seals().iter().collect();
        let corrections: Vec<_> = self
            .measures
            .corrections()
            .map(|(key, part)| (&key.series, &key.unit, key.shape, key.size, key.start, part))
            .collect();
        let views: Vec<_> = self.views.all().iter().map(View::image).collect();
        let mut tuple = serializer.serialize_tuple(FIELDS)?;
        tuple.serialize_element(&VERSION)?;
        tuple.serialize_element(&self.timeline.now())?;
        tuple.serialize_element(&self.timeline.has_begun())?;
        tuple.serialize_element(&self.timeline.has_ticks())?;
        tuple.serialize_element(&self.series().image())?;
        tuple.serialize_element(&seals)?;
        tuple.serialize_element(&corrections)?;
        tuple.serialize_element(self.measures.reviews())?;
        tuple.serialize_element(&self.duplicates.image())?;
        tuple.serialize_element(&self.runs)?;
        tuple.serialize_element(&self.gauges)?;
        tuple.serialize_element(&*self.rules)?;
        tuple.serialize_element(&views)?;
        tuple.serialize_element(&self.states.rules())?;
        tuple.serialize_element(&self.states.records())?;
        tuple.serialize_element(&self.keys.image())?;
        tuple.serialize_element(self.timeline.interruptions())?;
        tuple.serialize_element(&self.counters)?;
        tuple.serialize_element(&self.timeline.grid_due())?;
        tuple.serialize_element(self.timeline.gaps())?;
        tuple.serialize_element(&self.self_alerts)?;
        tuple.serialize_element(&self.pending_partials)?;
        tuple.serialize_element(&self.feeders)?;
        tuple.serialize_element(&self.mutes)?;
        tuple.end()
    }
}

impl Engine {
    /// Restores an engine that continues where the snapshot was taken. The limits may differ, because
    /// they are configuration.
    pub fn restore(snapshot: Snapshot, limits: Limits) -> Engine {
        let timeline = TimelineImage {
            now: snapshot.now,
            has_begun: snapshot.has_begun,
            has_ticks: snapshot.has_ticks,
            grid_due: snapshot.grid_due,
            interruptions: snapshot.interruptions,
            gaps: snapshot.gaps,
        };
        let measures = Measures::restore(
            SeriesTable::restore(snapshot.series),
            snapshot.seals.into_iter().collect(),
            snapshot.reviews,
            limits.allowed_lateness,
        );
        let mut engine = Engine {
            timeline: Timeline::restore(timeline, &limits),
            measures,
            duplicates: Duplicates::restore(snapshot.duplicates),
            runs: snapshot.runs,
            gauges: snapshot.gauges,
            views: Views::restore(&snapshot.rules, snapshot.views, &limits),
            rules: Arc::new(snapshot.rules),
            states: States::new(snapshot.rule_states, snapshot.record_states),
            keys: Keys::restore(snapshot.keys),
            counters: snapshot.counters,
            self_alerts: snapshot.self_alerts,
            pending_partials: snapshot.pending_partials,
            feeders: snapshot.feeders,
            mutes: snapshot.mutes,
            ..Engine::new(limits)
        };
        for (series, unit, shape, size, start, part) in snapshot.corrections {
            let is_incomplete = engine.timeline.is_incomplete(size, start);
            let key = WindowKey { series, unit, shape, size, start, is_incomplete };
            engine.measures.restore_correction(key, part);
        }
        engine
            .measures
            .series_mut()
            .specify(engine.rules.metrics.iter().map(|(n, s)| (n.clone(), s.clone())));
        engine.find_subscriptions();
        engine
    }
}
