//! The aggregate: an engine whose log holds the partials of all partitions.
//!
//! Intuition: each partition reports its clock, which is how far its log has advanced. The aggregate
//! judges everything up to the clock of the slowest partition; until then the partials of the others
//! wait. So at each grid point a rule over all partitions sees exactly what one partition with all
//! events would have seen.
//! Invariant: results depend on the clocks in the partials and, for a partition that lags by more than
//! [`LAG_MAX`], on the order of this log. The ingest times of this log's records are ignored.
//! Rejected: a watermark from event times, because one wrong clock of a producer would move it; waiting
//! without a timeout, because one partition without an owner would block the rules over all partitions. After
//! [`LAG_MAX`] the time of a lagging partition is a gap, and rules that read it report unknown.

use super::Engine;
use crate::core::effect::Effects;
use crate::core::measure::partial::{PARTIALS_EVERY, Partial, Partials};
use crate::core::record::{Body, Record};
use crate::core::view::Reading;
use crate::core::vocab::identity::IdentityTable;
use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The aggregate no longer waits for a partition whose clock is this far behind the newest clock. Meanwhile each
/// other partition reports 60 times (every 10 s), and its messages of up to about 256 KiB wait in memory.
const LAG_MAX: Span = Span::from_mins(10);

/// The aggregate's state of one partition.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Feeder {
    /// The number of its newest message; 0 before the first.
    number: u64,
    /// The log time up to which its partials have arrived completely; `None` before the first complete set.
    clock: Option<Timestamp>,
    waiting: VecDeque<Partials>,
}

impl Engine {
    /// Applies one record of the aggregate's log.
    pub(super) fn handle_aggregate(
        &mut self,
        record: &Record<'_>,
        directory: &IdentityTable,
        out: &mut Effects,
    ) {
        match record.body {
            Body::Partials { from, number, partials } => self.take_partials(from, number, partials, out),
            Body::Control(control) => self.control(control, out),
            // Events do not belong in this log; each one is refused.
            Body::Events(events) => self.ingest(record, events, directory, out),
            Body::Gap(from, to) => {
                self.counters.lose(from, to);
                if self.timeline.has_begun() {
                    self.tell_gap(from, to, out);
                }
            }
            Body::Poison if self.timeline.has_begun() => self.tell_poison(record.seq, out),
            Body::Tick | Body::Poison => {}
        }
        self.counters.refuse(record.bad);
    }

    fn take_partials(&mut self, from: u32, number: u64, partials: &Partials, out: &mut Effects) {
        if from >= self.limits.partition.count {
            return;
        }
        let count = self.limits.partition.count as usize;
        self.feeders.resize_with(count.max(self.feeders.len()), Feeder::default);
        let feeder = &mut self.feeders[from as usize];
        if number <= feeder.number || feeder.clock.is_some_and(|clock| partials.clock <= clock) {
            self.counters.partials_repeated += 1;
            return;
        }
        let missing = if feeder.number > 0 { number - feeder.number - 1 } else { 0 };
        self.counters.partials_missing = self.counters.partials_missing.saturating_add(missing);
        feeder.number = number;
        let mut partials = partials.clone();
        if let (true, Some(clock)) = (missing > 0, feeder.clock) {
            partials.lost.push((clock, partials.clock));
        }
        if partials.is_last {
            feeder.clock = Some(partials.clock);
        }
        feeder.waiting.push_back(partials);
        if let Some(until) = self.common_clock() {
            self.aggregate(until, out);
        }
    }

    /// Returns the time up to which every partition has reported or lags by more than [`LAG_MAX`].
    fn common_clock(&mut self) -> Option<Timestamp> {
        let clocks = || self.feeders.iter().filter_map(|feeder| feeder.clock);
        let newest = clocks().max()?;
        // The clock of a partition that has not reported yet is assumed to be the engine's time. Before the
        // engine has begun, it is assumed to be `PARTIALS_EVERY` before the earliest waiting partials.
        let first =
            self.feeders.iter().filter_map(|feeder| feeder.waiting.front()).map(|one| one.clock).min();
        let unheard = if self.timeline.has_begun() { self.timeline.now() } else { first? - PARTIALS_EVERY };
        let clock = |feeder: &Feeder| feeder.clock.unwrap_or(unheard).max(newest - LAG_MAX);
        self.feeders.iter().map(clock).min()
    }

    /// Processes the waiting partials up to a clock, ordered by clock and then partition.
    fn aggregate(&mut self, until: Timestamp, out: &mut Effects) {
        let since = self.timeline.now();
        let next = |feeders: &[Feeder]| {
            let waiting = feeders.iter().enumerate();
            let first = waiting.filter_map(|(at, feeder)| Some((feeder.waiting.front()?.clock, at)));
            first.filter(|(clock, _)| *clock <= until).min()
        };
        while let Some((clock, from)) = next(&self.feeders) {
            let Some(partials) = self.feeders[from].waiting.pop_front() else { break };
            // A grid point reads only data that arrived before it. Time stops 1 ms before `clock`, so that the
            // grid point at `clock` reads these partials.
            self.reach(clock - Span::MILLISECOND, out);
            self.merge_partials(partials);
        }
        self.note_laggards(since, until);
        self.reach(until, out);
    }

    fn reach(&mut self, at: Timestamp, out: &mut Effects) {
        if !self.timeline.has_begun() {
            self.begin(at);
        }
        if at > self.timeline.now() {
            // The number of windows is not limited, because in the aggregate only `record:` series have windows.
            let _ = self.advance(at, out, usize::MAX);
            self.timeline.advance_to(at);
        }
    }

    /// Marks the time from `since` to `until` as lost and interrupted if a partition has not reported up to
    /// `until`.
    fn note_laggards(&mut self, since: Timestamp, until: Timestamp) {
        let is_late = |feeder: &Feeder| feeder.clock.is_none_or(|clock| clock < until);
        if since > Timestamp::MIN && until > since && self.feeders.iter().any(is_late) {
            self.counters.partials_overdue += 1;
            self.timeline.lose(since, until);
            self.timeline.interrupt(since, until);
        }
    }

    fn merge_partials(&mut self, partials: Partials) {
        for (from, to) in partials.interrupted {
            self.timeline.interrupt(from, to);
        }
        for (from, to) in partials.lost {
            self.timeline.lose(from, to);
        }
        for part in partials.parts {
            self.merge_partial(part);
        }
    }

    fn merge_partial(&mut self, part: Partial) {
        let Some(view) = self.views.by_id(part.view) else {
            // The partial was gathered for a view that is no longer, or not yet, in this rule set.
            self.counters.partials_unread += 1;
            return;
        };
        let identity = self.views.at(view).spec.partial_identity(&part.key, part.unit.clone());
        let Ok(place) = self.place_identity(&identity) else {
            self.counters.partials_unread += 1;
            return;
        };
        let Some((series, metric)) = self.measures.with_metric(place.slot) else { return };
        (series.last_seen, series.newest) = (self.timeline.now(), series.newest.max(part.time));
        if part.pane.is_empty() {
            return self.timeline.wake();
        }
        let is_same = place.factor == 1.0 && metric.shape == part.shape;
        let pane =
            if is_same { part.pane } else { part.pane.reshaped(part.shape, metric.shape, place.factor) };
        let m2 = part.m2 * place.factor * place.factor;
        self.feed_one_view(place.slot, view, &Reading::Many(&pane, m2, part.time));
    }

    /// Adds a reading to the group of one view only, the view for which it was gathered.
    fn feed_one_view(&mut self, slot: u32, view: u32, reading: &Reading<'_>) {
        let Some((series, metric)) = self.measures.with_metric(slot) else { return };
        if let Some(to) = series.subscriptions.iter().find(|to| to.view == view) {
            self.views.record_one(*to, reading, metric.shape, self.timeline.when());
        }
        self.timeline.wake();
    }
}
