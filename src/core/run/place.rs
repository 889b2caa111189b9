//! The runs in flight at one place, a pipeline or one of its stages, and the usual durations there.
//!
//! A stay is the time that one run spends in a place. Invariant: usual ages and durations are learned from
//! complete stays only. A run whose beginning is not certain contributes to neither.

use super::super::detect::learned::Durations;
use super::facts::StageFacts;
use super::{Moment, Sight};
use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The runs in flight at one place: the whole pipeline, or one stage of it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Place {
    /// Runs in flight here with the time of their first event here.
    pub(super) in_flight: BTreeSet<(Timestamp, Arc<str>)>,
    /// Ingest time of the newest accepted stage or run event here.
    newest: Option<Timestamp>,
    pub(super) active: u32,
    pub(super) waiting: u32,
    /// Whether the last run in flight was abandoned, so that the state of this place is unknown.
    is_lost: bool,
    /// Usual times between two events while a run was in flight.
    gaps: Durations,
    /// Usual ages of runs when they left: ingest time of the leaving minus time of the first event.
    ages: Durations,
    /// Usual lengths of stays: event time of the end minus event time of the beginning.
    pub(super) times: Durations,
}

impl Place {
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    pub(super) fn sight(&self) -> Sight {
        if self.is_lost {
            return Sight::Lost;
        }
        match (self.in_flight.first(), self.newest) {
            (Some((oldest, _)), Some(newest)) => {
                Sight::Busy { newest, oldest: *oldest, in_flight: self.in_flight.len() }
            }
            _ => Sight::Idle,
        }
    }

    /// Records an accepted event here.
    pub(super) fn hear(&mut self, Moment { now, interruptions }: Moment<'_>) {
        if let (false, Some(newest)) = (self.in_flight.is_empty(), self.newest) {
            self.gaps.add_gap(interruptions.counted(newest, now).ms());
        }
        self.newest = Some(now);
        self.is_lost = false;
    }

    /// Returns the longest usual time without an event while a run is in flight, in seconds; `None` until
    /// enough gaps are known.
    pub fn usual_gap_secs(&self) -> Option<f64> {
        self.gaps.gap_limit_ms().map(|ms| ms / 1e3)
    }

    /// Returns the greatest usual age of a run here, in seconds; `None` until enough ages are known.
    pub fn usual_age_secs(&self) -> Option<f64> {
        self.ages.age_limit_ms().map(|ms| ms / 1e3)
    }

    /// Records the length of a run's stay.
    pub(super) fn learn(&mut self, stay: Span) {
        self.times.add(stay.ms());
    }

    /// Lists a run as in flight under the time of its first event, or removes it if `wanted` is `None`. `left`
    /// is the time at which the run left. It is set only for a run with a certain beginning, because only such
    /// a run teaches an age.
    pub(super) fn relist(
        &mut self,
        run: &Arc<str>,
        listed: &mut Option<Timestamp>,
        wanted: Option<Timestamp>,
        left: Option<Timestamp>,
    ) {
        if *listed == wanted {
            return;
        }
        if let Some(first) = listed.take() {
            self.in_flight.remove(&(first, run.clone()));
            if let (None, Some(left)) = (wanted, left) {
                self.ages.add((left - first).ms());
            }
        }
        if let Some(first) = wanted {
            self.in_flight.insert((first, run.clone()));
        }
        *listed = wanted;
    }

    /// Lists a run in this stage if its facts place it here. `ended` is the end of the run itself.
    pub(super) fn list(
        &mut self,
        run: &Arc<str>,
        facts: &mut StageFacts,
        ended: Option<Timestamp>,
        now: Timestamp,
    ) {
        let (is_active, is_waiting) = if ended.is_some() { (false, false) } else { facts.progress() };
        let is_here = is_active || is_waiting;
        let left = facts.begun().map(|_| now);
        let first = facts.first();
        self.relist(run, &mut facts.listed, is_here.then_some(first), left);
        if is_here {
            facts.is_timed = false;
        } else if let (false, Some(begun), Some(left)) =
            (facts.is_timed, facts.begun(), facts.ended().or(ended).filter(|left| *left >= first))
        {
            self.learn(left - begun);
            facts.is_timed = true;
        }
        self.active = self.active + u32::from(is_active) - u32::from(facts.is_active);
        self.waiting = self.waiting + u32::from(is_waiting) - u32::from(facts.is_waiting);
        (facts.is_active, facts.is_waiting) = (is_active, is_waiting);
    }

    /// Removes an abandoned run.
    pub(super) fn abandon(&mut self, run: &Arc<str>, listed: &mut Option<Timestamp>) {
        self.relist(run, listed, None, None);
        self.is_lost = self.in_flight.is_empty();
    }
}
