//! The engine: routes each record to the parts of the state and keeps their order.
//!
//! Intuition: only records advance time. Before the engine applies a record at `t`, it processes everything
//! that is due up to `t`, each item at its own due time, in the order: seal windows, evaluate `record:`
//! series, evaluate rules.
//! Invariant: the effects of a record depend only on the log up to and including that record. A snapshot
//! taken between two records and restored continues exactly as the original engine would.
//! Rejected: evaluation on arrival, because two equal logs read in other batches would give different
//! results; a timer thread, because it would be a second clock.

mod aggregate;
mod control;
pub(crate) mod explain;
mod fdr;
mod freshness;
mod gather;
mod grid;
mod ingest;
pub(crate) mod inspect;
mod measures;
mod membership;
mod publish;
mod reason;
mod records;
mod rules;
mod self_alerts;
pub mod snapshot;
mod states;
mod suppress;
mod timeline;
mod tracked;
mod views;

use super::duplicates::Duplicates;
use super::effect::Effects;
use super::mute::Mutes;
use super::refusals::{Refusals, Silenced};
use super::rule::RuleSet;
use super::run::Tracker;
use crate::core::evaluate::memos::Memos;
use crate::core::measure::pane::Pane;
use crate::core::measure::series::SeriesTable;
use crate::core::measure::window::{WindowKey, WindowSize};
use crate::core::record::{Body, Record};
use crate::core::vocab::counters::{Counters, Outcome, Refusal};
use crate::core::vocab::identity::IdentityTable;
use crate::core::vocab::key::Keys;
use crate::core::vocab::limits::Limits;
use crate::core::vocab::time::{Span, Timestamp};
use measures::Measures;
use states::{Owner, RuleState, States};
use std::collections::BTreeMap;
use std::sync::Arc;
use timeline::Timeline;
use views::Views;

/// One partition's state.
#[derive(Debug)]
pub struct Engine {
    limits: Limits,
    timeline: Timeline,
    measures: Measures,
    duplicates: Duplicates,
    runs: Tracker,
    gauges: BTreeMap<Arc<str>, records::Gauges>,
    /// The rule set in force. It is replaced as a whole, so a loop over the rules may hold a clone of the `Arc`
    /// while it changes the engine.
    rules: Arc<RuleSet>,
    views: Views,
    states: States,
    keys: Keys,
    /// Cache of what rules and `record:` series learned from past windows; it only saves time.
    memos: Memos,
    mutes: Mutes,
    self_alerts: self_alerts::SelfAlerts,
    /// Interruptions and losses that the next partials report, and when those partials are due.
    pending_partials: gather::PendingPartials,
    /// Aggregate only: the clock of each partition, and its partials that wait for other partitions.
    feeders: Vec<aggregate::Feeder>,
    counters: Counters,
    /// Refusals by source, reported to operators; not part of the state.
    refusals: Refusals,
}

/// How much of a record was handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Handled {
    Wholly,
    /// The caller must call again with the same record.
    Partly,
}

impl Engine {
    pub fn new(limits: Limits) -> Engine {
        Engine {
            timeline: Timeline::new(&limits),
            measures: Measures::new(limits.allowed_lateness),
            limits,
            duplicates: Duplicates::default(),
            runs: Tracker::default(),
            gauges: BTreeMap::new(),
            rules: Arc::default(),
            views: Views::default(),
            states: States::default(),
            keys: Keys::default(),
            memos: Memos::default(),
            mutes: Mutes::default(),
            self_alerts: self_alerts::SelfAlerts::new(),
            pending_partials: gather::PendingPartials::default(),
            feeders: Vec::new(),
            counters: Counters::default(),
            refusals: Refusals::default(),
        }
    }

    /// Applies one record: first everything that is due up to its time, then its body.
    #[inline]
    pub fn handle(&mut self, record: &Record<'_>, directory: &IdentityTable, out: &mut Effects) {
        while self.handle_some(record, directory, out, usize::MAX) == Handled::Partly {}
    }

    /// Applies one record like [`Self::handle`], but stops when `out` holds about `windows_max` windows. At
    /// one instant 100,000 series may be sealed, and this limit keeps their windows from all being in memory
    /// at once. After [`Handled::Partly`] the caller empties `out` and calls again with the same record.
    #[inline]
    pub fn handle_some(
        &mut self,
        record: &Record<'_>,
        directory: &IdentityTable,
        out: &mut Effects,
        windows_max: usize,
    ) -> Handled {
        if self.limits.partition.is_aggregate() {
            self.handle_aggregate(record, directory, out);
            return Handled::Wholly;
        }
        let at = record.stamp.max(self.timeline.now());
        let gap = match record.body {
            Body::Gap(from, to) => Some((from, to)),
            _ => None,
        };
        if at > self.timeline.now() || gap.is_some() {
            self.settle_runs();
        }
        if let (Some((from, to)), false) = (gap, self.timeline.is_underway()) {
            self.note_gap(from, to, at);
        }
        let was_begun = self.timeline.has_begun();
        if !was_begun {
            self.begin(at);
        }
        if at > self.timeline.now() {
            if self.timeline.get_underway() && gap.is_none() {
                self.note_interruption(at);
            }
            if self.advance(at, out, windows_max) == Handled::Partly {
                return Handled::Partly;
            }
            self.timeline.advance_to(at);
        }
        self.timeline.arrive();
        self.counters.refuse(record.bad);
        match record.body {
            Body::Events(events) => self.ingest(record, events, directory, out),
            Body::Tick => self.timeline.note_tick(),
            Body::Control(control) => self.control(control, out),
            // A gap as the first record is not reported, because no earlier state depends on the lost records.
            Body::Gap(from, to) if was_begun => self.tell_gap(from, to, out),
            Body::Poison => {
                self.counters.count(Outcome::Refused(Refusal::BadPayload), 1);
                self.tell_poison(record.seq, out);
            }
            // Only the aggregate handles partials.
            Body::Gap(..) | Body::Partials { .. } => {}
        }
        Handled::Wholly
    }

    /// Returns when the log's owner should append a tick if no record arrives before then; `None` if no tick is
    /// needed. The aggregate needs no ticks, because its time comes from the clocks of the partitions.
    pub fn next_wake(&self) -> Option<Timestamp> {
        self.next_due().filter(|_| !self.limits.partition.is_aggregate())
    }

    /// Returns the next time at which a window is sealed or a grid point has work to do.
    fn next_due(&self) -> Option<Timestamp> {
        let wake = self.measures.next_seal().min(self.timeline.grid_due());
        (wake < Timestamp::MAX).then_some(wake)
    }

    /// Ends the input: settles the runs and emits the corrections that no grid point has emitted yet.
    pub fn finish(&mut self, out: &mut Effects) {
        self.settle_runs();
        self.measures.flush_corrections(self.timeline.now(), out);
    }

    /// Returns the effective ingest time of the newest record.
    pub fn now(&self) -> Timestamp {
        self.timeline.now()
    }

    /// Returns the sources whose events were all refused; `limit` is the least number of refusals and the
    /// least time they span.
    pub fn silenced_sources(&self, limit: (u64, Span)) -> Vec<Silenced> {
        self.refusals.silenced(self.measures.series(), self.timeline.now(), limit)
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub fn series(&self) -> &SeriesTable {
        self.measures.series()
    }

    pub fn runs(&self) -> &Tracker {
        &self.runs
    }

    pub fn mutes(&self) -> &Mutes {
        &self.mutes
    }

    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Iterates over all open windows, ordered by size, id, start. Each includes its open windows of finer
    /// size. The panes are built series by series, because all of them together take twice the memory of the
    /// engine.
    pub fn open_windows(&self) -> impl Iterator<Item = (WindowKey, Pane)> + '_ {
        let mut slots: Vec<(u64, u32)> =
            self.series().iter().map(|(slot, series)| (series.info.id, slot)).collect();
        slots.sort_unstable();
        let sized = move |size| slots.clone().into_iter().map(move |(_, slot)| (size, slot));
        let all = WindowSize::ALL.into_iter().flat_map(sized);
        all.flat_map(move |(size, slot)| self.open_windows_of(slot, &[size]))
    }

    /// Starts to record which series get new values, for [`Self::take_touched`].
    pub fn track_changes(&mut self) {
        self.measures.track_changes();
    }

    /// Returns the slots of the series with new values since the last call, each once.
    pub fn take_touched(&mut self) -> Vec<u32> {
        self.measures.take_touched()
    }

    /// Returns the open windows of one series. Each includes its open windows of finer size.
    pub fn open_windows_of(&self, slot: u32, sizes: &[WindowSize]) -> Vec<(WindowKey, Pane)> {
        self.measures.open_windows_of(slot, sizes, &self.timeline)
    }

    /// Starts the engine's time at the first record. Declared series are expected from this time on.
    fn begin(&mut self, at: Timestamp) {
        self.timeline.begin(at);
        self.declare_series();
    }

    /// Records an interruption of the log if a record arrives more than `tick_gap` after the due wake-up: no
    /// owner was there to append a tick.
    fn note_interruption(&mut self, at: Timestamp) {
        if !self.timeline.has_ticks() {
            return;
        }
        if let Some(due) = self.next_wake()
            && at > due + self.limits.tick_gap
        {
            self.interrupt(due, at);
            self.counters.interruptions += 1;
        }
    }

    /// Processes everything that is due up to `at`, each item at its own due time.
    #[inline]
    fn advance(&mut self, at: Timestamp, out: &mut Effects, windows_max: usize) -> Handled {
        while let Some(due) = self.next_due()
            && due <= at
        {
            self.timeline.advance_to(due);
            if self.measures.seal(due, &self.timeline, out, windows_max) == Handled::Partly {
                return Handled::Partly;
            }
            if self.timeline.grid_due() <= due {
                self.grid(due, out);
            }
        }
        Handled::Wholly
    }
}
