//! Events: the engine judges each event's lateness once, drops duplicates, and records the rest.

use super::Engine;
use super::measures::LOST;
use crate::core::arrival::Arrival;
use crate::core::duplicates::Kind;
use crate::core::effect::{Effects, Refused, RejectReason};
use crate::core::event::{Event, HistogramEvent, Observation, Samples};
use crate::core::measure::pane::{Pane, Sample};
use crate::core::measure::series::{SeriesSlot, Unplaced};
use crate::core::measure::window::WindowSize;
use crate::core::record::Record;
use crate::core::view::Reading;
use crate::core::vocab::counters::{Outcome, Refusal};
use crate::core::vocab::identity::{Identity, IdentityTable, SeriesRef};
use crate::core::vocab::limits::{LatePolicy, PANE_MIN};
use crate::core::vocab::time::Timestamp;
use std::sync::Arc;

impl Engine {
    /// Ingests the events of one record.
    pub(super) fn ingest(
        &mut self,
        record: &Record<'_>,
        events: &[Event],
        directory: &IdentityTable,
        out: &mut Effects,
    ) {
        let limit = self.timeline.now() + self.limits.max_skew;
        let limit = record.limit.map_or(limit, |stated| stated.min(limit));
        for (index, event) in events.iter().enumerate() {
            let keeps_late = self.limits.late_policy == LatePolicy::Dead;
            let mut note = |time, outcome: Outcome| {
                let reason = match (outcome, outcome.refusal()) {
                    (_, Some(refusal)) => RejectReason::Refused(refusal),
                    (Outcome::Dropped, None) if keeps_late => RejectReason::Late,
                    _ => return,
                };
                let (seq, index, hint) = (record.seq, index as u32, outcome.hint());
                out.refused.push(Refused { seq, index, reason, time, hint });
            };
            match event {
                Event::Metric(observation) => {
                    let outcome = self.metric(*observation, limit, directory);
                    self.counters.count(outcome, 1);
                    note(observation.time, outcome);
                    self.note_refusal(outcome, || event.source(directory));
                }
                Event::Samples(samples) => self.samples(samples, limit, directory, &mut note),
                other => {
                    let outcome = self.event(other, limit, directory);
                    self.counters.count(outcome, 1);
                    note(other.latest().unwrap_or(self.timeline.now()), outcome);
                    self.note_refusal(outcome, || event.source(directory));
                }
            }
        }
    }

    /// Counts a refusal by its source. The source is only looked up for a refusal, because nearly
    /// every event is accepted.
    #[inline]
    fn note_refusal<'a>(&mut self, outcome: Outcome, source: impl FnOnce() -> Option<&'a Arc<str>>) {
        if let Outcome::Refused(reason) = outcome
            && let Some(source) = source()
        {
            self.refusals.note(source, reason, self.timeline.now());
        }
    }

    fn event(&mut self, event: &Event, limit: Timestamp, directory: &IdentityTable) -> Outcome {
        match event {
            Event::Metric(observation) => self.metric(*observation, limit, directory),
            Event::Identified(identified) => {
                let (observation, id) = &**identified;
                let Some(identity) = directory.get(observation.who) else { return LOST };
                let source = &identity.source;
                self.once(source, Kind::Metric, Some(id), |e| e.metric(*observation, limit, directory))
            }
            Event::Histogram(histogram) => self.histogram(histogram, limit, directory),
            Event::Stage(stage) if !self.holds(&stage.pipeline) => MISPLACED,
            Event::Run(run) if !self.holds(&run.pipeline) => MISPLACED,
            Event::Gate(gate) if !self.holds(&gate.pipeline) => MISPLACED,
            Event::Stage(stage) => self.stage(stage, limit),
            Event::Run(run) => {
                self.once(&run.pipeline, Kind::Run, run.id.as_deref(), |engine| engine.run_event(run, limit))
            }
            Event::Gate(gate) => {
                self.once(&gate.pipeline, Kind::Gate, gate.id.as_deref(), |engine| engine.gate(gate, limit))
            }
            // `ingest` handles samples and counts them value by value.
            Event::Samples(_) => LOST,
        }
    }

    fn holds(&self, pipeline: &str) -> bool {
        self.limits.partition.holds(pipeline)
    }

    /// Accepts an event with an id only once. A refused event is not remembered, so the producer
    /// may send it again.
    fn once(
        &mut self,
        source: &Arc<str>,
        kind: Kind,
        id: Option<&str>,
        take: impl FnOnce(&mut Engine) -> Outcome,
    ) -> Outcome {
        let Some(id) = id else { return take(self) };
        if self.duplicates.is_known(source, kind, id, self.timeline.now(), self.limits.duplicate_window) {
            return Outcome::Duplicate;
        }
        let outcome = take(self);
        if outcome.refusal().is_none() {
            self.duplicates.remember(source, kind, id, self.timeline.now());
        }
        outcome
    }

    #[inline]
    fn metric(&mut self, observation: Observation, limit: Timestamp, directory: &IdentityTable) -> Outcome {
        let arrival = self.arrival(observation.time, limit);
        if let Some(outcome) = self.limits.turned_away(arrival) {
            return outcome;
        }
        match self.place(observation.who, directory) {
            Ok(place) => self.observe(place, observation.time, observation.value, arrival),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn samples(
        &mut self,
        samples: &Samples,
        limit: Timestamp,
        directory: &IdentityTable,
        note: &mut impl FnMut(Timestamp, Outcome),
    ) {
        // All values have the same series; it is looked up for the first value that needs it.
        let mut place = None;
        let mut rest = samples.columns.as_slice();
        while let Some((time, value)) = rest.first().copied() {
            let arrival = self.arrival(time, limit);
            let (outcome, taken) = match self.limits.turned_away(arrival) {
                Some(outcome) => (outcome, 1),
                None => match *place.get_or_insert_with(|| self.place(samples.who, directory)) {
                    Ok(place) if arrival == Arrival::OnTime && !self.is_cumulative(place) => {
                        let run = &rest[..run_length(rest, limit)];
                        (self.observe_run(place, run), run.len())
                    }
                    Ok(place) => (self.observe(place, time, value, arrival), 1),
                    Err(refusal) => (Outcome::Refused(refusal), 1),
                },
            };
            self.counters.count(outcome, taken as u64);
            self.note_refusal(outcome, || directory.get(samples.who).map(|identity| &identity.source));
            rest[..taken].iter().for_each(|(time, _)| note(*time, outcome));
            rest = &rest[taken..];
        }
    }

    fn is_cumulative(&mut self, place: SeriesSlot) -> bool {
        self.measures.with_metric(place.slot).is_some_and(|(_, metric)| metric.is_cumulative)
    }

    /// Records values of one series that are on time and fall into one pane. Work that is the same for all
    /// of them is done once.
    fn observe_run(&mut self, place: SeriesSlot, run: &[(Timestamp, f64)]) -> Outcome {
        let mut samples = self.measures.take_run();
        let Some((series, metric)) = self.measures.with_metric(place.slot) else { return LOST };
        let (shape, factor) = (metric.shape, place.factor);
        samples.extend(run.iter().map(|(time, value)| Sample::new(shape, value * factor, *time)));
        let newest = samples.iter().fold(Timestamp::MIN, |newest, sample| newest.max(sample.time));
        series.last_seen = self.timeline.now();
        series.newest = series.newest.max(newest);
        self.counters.overflow += samples.iter().filter(|sample| sample.is_saturated()).count() as u64;
        let outcome = self.add(place.slot, &Reading::Run(&samples, newest), Arrival::OnTime);
        self.measures.give_run(samples);
        outcome
    }

    fn histogram(&mut self, event: &HistogramEvent, limit: Timestamp, directory: &IdentityTable) -> Outcome {
        let arrival = self.arrival(event.time, limit);
        if let Some(outcome) = self.limits.turned_away(arrival) {
            return outcome;
        }
        let place = match self.place(event.who, directory) {
            Ok(place) => place,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let Some((series, metric)) = self.measures.with_metric(place.slot) else { return LOST };
        let mut part = Pane::default();
        for (value, count) in &event.cells {
            part.record_many(metric.shape, value * place.factor, *count);
        }
        part.widen(event.min * place.factor, event.max * place.factor);
        self.counters.overflow += part.overflow;
        (series.last_seen, series.newest) = (self.timeline.now(), series.newest.max(event.time));
        self.add(place.slot, &Reading::Many(&part, 0.0, event.time), arrival)
    }

    #[inline]
    pub(super) fn arrival(&mut self, time: Timestamp, limit: Timestamp) -> Arrival {
        let end = self.measures.minute_of(time) + WindowSize::Minute.span();
        if time > limit { Arrival::Future } else { self.limits.arrival(end, self.timeline.now()) }
    }

    /// Returns the series of a `SeriesRef` with one array read, unless the series is new or was forgotten.
    #[inline]
    fn place(&mut self, who: SeriesRef, directory: &IdentityTable) -> Result<SeriesSlot, Refusal> {
        if let Some(place) = self.measures.known(who) {
            return Ok(place);
        }
        let identity = directory.get(who).ok_or(Refusal::BadEvent)?;
        if !self.limits.partition.holds(&identity.source) {
            return Err(Refusal::WrongPartition);
        }
        let place = self.place_identity(identity)?;
        self.measures.remember(who, directory.len(who.decoder()), place);
        Ok(place)
    }

    /// Forgets the series that a decoder's `SeriesRef` numbers stand for, because the decoder has restarted its
    /// table of numbers.
    pub fn forget_decoder(&mut self, decoder: usize) {
        self.measures.forget_decoder(decoder);
    }

    pub(super) fn place_identity(&mut self, identity: &Identity) -> Result<SeriesSlot, Refusal> {
        let placed = self.measures.series_mut().place(identity, self.timeline.now(), self.limits.room());
        let (place, is_new) = placed.map_err(|reason| match reason {
            Unplaced::Unit => Refusal::Unit,
            Unplaced::Cardinality => Refusal::Cardinality,
        })?;
        if is_new {
            self.subscribe(place.slot);
            self.review_series(place.slot, place.generation, self.timeline.now() + self.limits.forget_after);
        }
        Ok(place)
    }

    /// Records one value of a placed series.
    #[inline]
    fn observe(&mut self, place: SeriesSlot, time: Timestamp, value: f64, arrival: Arrival) -> Outcome {
        let Some((series, metric)) = self.measures.with_metric(place.slot) else { return LOST };
        let mut value = value * place.factor;
        let now = self.timeline.now();
        if metric.is_cumulative {
            match increment(&mut series.counter, time, value) {
                Increment::First => {
                    (series.last_seen, series.newest) = (now, series.newest.max(time));
                    return Outcome::Recorded;
                }
                Increment::Stale => return Outcome::Late,
                Increment::By(by) => value = by,
            }
        }
        series.last_seen = now;
        series.newest = series.newest.max(time);
        let sample = Sample::new(metric.shape, value, time);
        self.counters.overflow += u64::from(sample.is_saturated());
        self.add(place.slot, &Reading::One(sample), arrival)
    }

    /// Adds a reading to the windows of its series and to the groups that rules read.
    #[inline]
    fn add(&mut self, slot: u32, reading: &Reading<'_>, arrival: Arrival) -> Outcome {
        let outcome = match arrival {
            Arrival::OnTime => self.measures.add_on_time(slot, reading),
            _ => self.measures.add_late(slot, reading, &mut self.timeline),
        };
        self.feed_views(slot, reading, arrival == Arrival::OnTime);
        outcome
    }

    /// Adds a reading to the groups that its series belongs to.
    #[inline]
    fn feed_views(&mut self, slot: u32, reading: &Reading<'_>, is_on_time: bool) {
        let Some((series, metric)) = self.measures.with_metric(slot) else { return };
        if series.subscriptions.is_empty() {
            return;
        }
        let when = self.timeline.when();
        self.views.record(&series.subscriptions, reading, metric.shape, is_on_time, when);
        self.timeline.wake();
    }

    /// Records a value of a series that the engine itself produces.
    pub(super) fn observe_own(&mut self, identity: &Identity, time: Timestamp, value: f64) {
        let arrival = self.arrival(time, Timestamp::MAX);
        let outcome = match self.limits.turned_away(arrival) {
            Some(outcome) => outcome,
            None => match self.place_identity(identity) {
                Ok(place) => self.observe(place, time, value, arrival),
                Err(refusal) => Outcome::Refused(refusal),
            },
        };
        if !matches!(outcome, Outcome::Recorded | Outcome::Late) {
            self.counters.derived_dropped += 1;
        }
    }
}

/// Counts the leading values that fall into the first value's pane and are within the limit.
fn run_length(values: &[(Timestamp, f64)], limit: Timestamp) -> usize {
    let start = values.first().map_or(Timestamp::MIN, |(time, _)| time.floor(PANE_MIN));
    let end = start + PANE_MIN;
    let is_within = |(time, _): &(Timestamp, f64)| *time >= start && *time < end && *time <= limit;
    values.iter().position(|value| !is_within(value)).unwrap_or(values.len())
}

const MISPLACED: Outcome = Outcome::Refused(Refusal::WrongPartition);

enum Increment {
    First,
    Stale,
    By(f64),
}

/// Returns the increment of a cumulative counter since its previous point. After a decrease (a counter reset),
/// the increment is the value itself.
fn increment(counter: &mut Option<(Timestamp, f64)>, time: Timestamp, value: f64) -> Increment {
    match counter.replace((time, value)) {
        None => Increment::First,
        Some((newest, before)) if time <= newest => {
            *counter = Some((newest, before));
            Increment::Stale
        }
        Some((_, before)) if value < before => Increment::By(value),
        Some((_, before)) => Increment::By(value - before),
    }
}
