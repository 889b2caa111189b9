//! The aggregate: an engine whose log is the partials of all partitions.
//!
//! Intuition: each partition says how far its log is; what happened in all of them up to the slowest
//! one's clock can be judged. Until then the others' partials wait. So a rule over all partitions sees at
//! a grid point just what one partition with all events would have seen.
//! Invariant: what happens depends on the clocks in the partials, never on when they arrived; the
//! stamps of this log mean nothing. Rejected: a watermark from event times (one wrong clock of a
//! producer would move it), and waiting for ever (one partition that nobody can own would blind the
//! rules of all: after [`LAG_MAX`] its time is a gap, and they say that they do not know).

use super::Engine;
use crate::core::effect::Effects;
use crate::core::event::{Body, Record};
use crate::core::identity::Directory;
use crate::core::partial::{PARTIALS_EVERY, Partial, Partials};
use crate::core::time::{Span, Timestamp};
use crate::core::view::Reading;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A partition that is so far behind the fastest one is not waited for any longer.
/// 60 messages wait for it at most, of each of the others and of about 256 KiB.
const LAG_MAX: Span = Span::from_mins(10);

/// What is known of one partition.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Feeder {
    /// Of its newest message; 0 before the first.
    number: u64,
    /// How far its log is; `None` before the first grid point is whole.
    clock: Option<Timestamp>,
    waiting: VecDeque<Partials>,
}

impl Engine {
    /// One record of the aggregate's log.
    pub(super) fn handle_aggregate(&mut self, record: &Record<'_>, directory: &Directory, out: &mut Effects) {
        match record.body {
            Body::Partials { from, number, partials } => self.take_partials(from, number, partials, out),
            Body::Control(control) => self.control(control, out),
            // Events do not belong here, and are refused one by one.
            Body::Events(events) => self.ingest(record, events, directory, out),
            Body::Gap(from, to) => {
                self.counters.lose(from, to);
                if self.has_begun {
                    self.tell_gap(from, to, out);
                }
            }
            Body::Poison if self.has_begun => self.tell_poison(record.seq, out),
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

    /// The clock up to which all partitions are known, or too late.
    fn common_clock(&mut self) -> Option<Timestamp> {
        let clocks = || self.feeders.iter().filter_map(|feeder| feeder.clock);
        let newest = clocks().max()?;
        // One that was never heard of may be as late as the first of the others.
        let first =
            self.feeders.iter().filter_map(|feeder| feeder.waiting.front()).map(|one| one.clock).min();
        let unheard = if self.has_begun { self.now } else { first? - PARTIALS_EVERY };
        let clock = |feeder: &Feeder| feeder.clock.unwrap_or(unheard).max(newest - LAG_MAX);
        self.feeders.iter().map(clock).min()
    }

    /// Lets everything happen up to a clock, partition by partition at each grid point.
    fn aggregate(&mut self, until: Timestamp, out: &mut Effects) {
        let since = self.now;
        let next = |feeders: &[Feeder]| {
            let waiting = feeders.iter().enumerate();
            let first = waiting.filter_map(|(at, feeder)| Some((feeder.waiting.front()?.clock, at)));
            first.filter(|(clock, _)| *clock <= until).min()
        };
        while let Some((clock, from)) = next(&self.feeders) {
            let Some(partials) = self.feeders[from].waiting.pop_front() else { break };
            // A grid point sees what came before it.
            self.reach(clock - Span::MILLISECOND, out);
            self.merge_partials(partials);
        }
        self.note_laggards(since, until);
        self.reach(until, out);
    }

    fn reach(&mut self, at: Timestamp, out: &mut Effects) {
        if !self.has_begun {
            self.begin(at);
        }
        if at > self.now {
            // All windows at once: only recorded series have any here.
            let _ = self.advance(at, out, usize::MAX);
            self.now = at;
        }
    }

    /// What partitions that are not waited for have not said is missing.
    fn note_laggards(&mut self, since: Timestamp, until: Timestamp) {
        let is_late = |feeder: &Feeder| feeder.clock.is_none_or(|clock| clock < until);
        if since > Timestamp::MIN && until > since && self.feeders.iter().any(is_late) {
            self.counters.partials_overdue += 1;
            self.gaps.add(since, until);
            self.interruptions.add(since, until);
        }
    }

    fn merge_partials(&mut self, partials: Partials) {
        for (from, to) in partials.interrupted {
            self.interruptions.add(from, to);
        }
        for (from, to) in partials.lost {
            self.gaps.add(from, to);
        }
        for part in partials.parts {
            self.merge_partial(part);
        }
    }

    fn merge_partial(&mut self, part: Partial) {
        let Some(view) = self.views_by_id.get(&part.view).copied() else {
            // The rules here are not those that it was gathered for: on their way, or gone.
            self.counters.partials_unread += 1;
            return;
        };
        let identity = self.views[view as usize].spec.partial_identity(&part.key, part.unit.clone());
        let Ok(place) = self.place_identity(&identity) else {
            self.counters.partials_unread += 1;
            return;
        };
        let Some((series, metric)) = self.series.with_metric(place.slot) else { return };
        (series.last_seen, series.newest) = (self.now, series.newest.max(part.time));
        if part.pane.is_empty() {
            return self.wake_grid();
        }
        let is_same = place.factor == 1.0 && metric.shape == part.shape;
        let pane =
            if is_same { part.pane } else { part.pane.reshaped(part.shape, metric.shape, place.factor) };
        let m2 = part.m2 * place.factor * place.factor;
        self.feed_one_view(place.slot, view, &Reading::Many(&pane, m2, part.time));
    }
}
