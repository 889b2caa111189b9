//! What is in flight at one place, a pipeline or one of its stages, and how long things usually take there.
//!
//! Invariant: what is learned here comes of whole stays only: a run whose beginning is not certain teaches
//! neither an age nor a duration.

use super::super::detect::learned::Durations;
use super::super::time::{Span, Timestamp};
use super::ledger::StageFacts;
use super::{Moment, Sight};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is in flight at one place: the whole pipeline, or one stage of it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Place {
    /// Runs in flight here with the time of their first event here.
    pub(super) in_flight: BTreeSet<(Timestamp, Arc<str>)>,
    /// Ingest time of the newest accepted stage or run event here.
    newest: Option<Timestamp>,
    pub(super) active: u32,
    pub(super) waiting: u32,
    /// The last run in flight was abandoned: nobody knows what goes on here.
    is_lost: bool,
    /// Times without an event while something was in flight.
    gaps: Durations,
    /// How old runs were when they left, by the log's clock.
    ages: Durations,
    /// How long they were here, by their events.
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

    /// Something happened here.
    pub(super) fn hear(&mut self, Moment { now, interruptions }: Moment<'_>) {
        if let (false, Some(newest)) = (self.in_flight.is_empty(), self.newest) {
            self.gaps.add_gap(interruptions.counted(newest, now).ms());
        }
        self.newest = Some(now);
        self.is_lost = false;
    }

    /// The longest time without an event that is usual while something is in flight, and the greatest usual
    /// age, in seconds; `None` until enough is known.
    pub fn usual_gap_secs(&self) -> Option<f64> {
        self.gaps.gap_limit_ms().map(|ms| ms / 1e3)
    }

    pub fn usual_age_secs(&self) -> Option<f64> {
        self.ages.age_limit_ms().map(|ms| ms / 1e3)
    }

    /// A run was here for so long.
    pub(super) fn learn(&mut self, stay: Span) {
        self.times.add(stay.ms());
    }

    /// Lists a run under its first-event time, or not at all. `left`: when one with a certain beginning was
    /// seen to leave.
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

    /// Lists a run where what is known of it here says that it is; `ended`: when the run itself did.
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

    /// An abandoned run is taken out.
    pub(super) fn abandon(&mut self, run: &Arc<str>, listed: &mut Option<Timestamp>) {
        self.relist(run, listed, None, None);
        self.is_lost = self.in_flight.is_empty();
    }
}
