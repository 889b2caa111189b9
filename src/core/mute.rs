//! What people asked not to be told of: maintenance windows and silences.
//!
//! Intuition: alerts go on as they are; what is muted is marked with what mutes it, so nothing is lost and
//! everything can be explained. Invariant: what is in force is decided at grid points alone, from the rule
//! set's plans and from control records; the first of maintenance, silence, then id is named. What has no
//! matchers mutes nothing.
//! Rejected: dropping alerts while muted (their end would never be told).

use super::alert::transition::Suppressed;
use super::asked::{Burden, COUNT_MAX};
use super::calendar::Plan;
use super::selector::Selector;
use super::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A planned time in which alerts are expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Maintenance {
    pub id: Arc<str>,
    pub matchers: Selector,
    pub plan: Plan,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub reason: Arc<str>,
    /// Who asked for it; empty where a file says it.
    #[serde(default)]
    pub by: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Judged and published, but not notified.
    #[default]
    Mute,
    /// Not judged.
    Suspend,
}

/// Alerts that somebody does not want to hear of for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    pub id: Arc<str>,
    pub matchers: Selector,
    pub start: Timestamp,
    pub end: Timestamp,
    pub by: Arc<str>,
    #[serde(default)]
    pub reason: Arc<str>,
    /// It ends by itself once no alert has matched it for so long; `None`: at its end only.
    #[serde(default)]
    pub unmatched_for: Option<Span>,
}

impl Maintenance {
    pub fn burden(&self) -> Burden {
        Burden::of(&self.matchers, &self.reason)
    }
}

impl Silence {
    pub fn burden(&self) -> Burden {
        Burden::of(&self.matchers, &self.reason)
    }
}

/// People are told so long before a silence ends that still hides something; one that lasts less than
/// twice as long ends without.
const SILENCE_WARNED_BEFORE: Span = Span::from_mins(15);

/// Times of maintenance are remembered for baselines: longer than the longest season of a month.
const SPANS_KEPT: Span = Span::from_hours(24 * 35);

/// A span a day for a thousand windows is more than anybody plans.
const SPANS_MAX: usize = 10_000;

/// All of them, and which are in force.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Mutes {
    /// Asked for by control records; those of the files are the rule set's.
    asked: BTreeMap<Arc<str>, Maintenance>,
    silences: BTreeMap<Arc<str>, Kept>,
    /// Maintenance in force, by id, with when it began.
    in_force: BTreeMap<Arc<str>, (Maintenance, Timestamp)>,
    /// Past maintenance: baselines learn nothing there.
    spans: Vec<(Timestamp, Timestamp, Selector)>,
    /// Counts changes of what is asked for and in force, for those who show it.
    pub changes: u32,
    /// Counts changes of what baselines may learn: a silence is none.
    pub lessons: u32,
    /// When something begins or ends next.
    next: Option<Timestamp>,
    is_changed: bool,
}

/// A silence, and what became of it so far.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    silence: Silence,
    is_matched: bool,
    /// Since when no alert matches it; from the beginning on where none ever did.
    unmatched_since: Timestamp,
    is_warned: bool,
}

impl Kept {
    fn new(silence: Silence) -> Kept {
        Kept { unmatched_since: silence.start, silence, is_matched: false, is_warned: false }
    }

    fn ends_at(&self) -> Timestamp {
        let patience = self.silence.unmatched_for.filter(|_| !self.is_matched);
        let unmatched = patience.map(|span| self.unmatched_since + span);
        unmatched.unwrap_or(Timestamp::MAX).min(self.silence.end)
    }

    /// When people are told that it ends.
    fn warns_at(&self) -> Option<Timestamp> {
        let Silence { start, end, .. } = self.silence;
        let is_long = end - start >= SILENCE_WARNED_BEFORE * 2;
        (is_long && !self.is_warned).then_some(end - SILENCE_WARNED_BEFORE)
    }

    /// When something is to be decided of it next.
    fn next(&self, at: Timestamp) -> Timestamp {
        if at < self.silence.start {
            return self.silence.start;
        }
        self.ends_at().min(self.warns_at().unwrap_or(Timestamp::MAX))
    }
}

/// What began and ended at a grid point.
#[derive(Debug, Default)]
pub struct Turned {
    pub is_any: bool,
    /// A window in which nothing was judged ended.
    pub has_resumed: bool,
    /// Ended maintenance.
    pub ended: Vec<Maintenance>,
    /// Silences that end soon.
    pub ending: Vec<Silence>,
}

impl Mutes {
    pub fn add_maintenance(&mut self, maintenance: Maintenance) {
        if self.asked.len() < COUNT_MAX || self.asked.contains_key(&maintenance.id) {
            self.asked.insert(maintenance.id.clone(), maintenance);
        }
        self.look_again();
    }

    /// Ends one that was asked for.
    pub fn end_maintenance(&mut self, id: &str) {
        self.asked.remove(id);
        self.look_again();
    }

    pub fn add_silence(&mut self, silence: Silence) {
        if self.silences.len() < COUNT_MAX || self.silences.contains_key(&silence.id) {
            self.silences.insert(silence.id.clone(), Kept::new(silence));
        }
        self.look_again();
    }

    pub fn end_silence(&mut self, id: &str) {
        self.silences.remove(id);
        self.look_again();
    }

    /// Something was asked for, or the rules changed: the next grid point decides.
    pub fn look_again(&mut self) {
        self.is_changed = true;
    }

    /// When a grid point has something to decide.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_changed { Some(now) } else { self.next }
    }

    /// Decides what is in force at a grid point.
    pub fn turn(&mut self, planned: &[Maintenance], at: Timestamp) -> Turned {
        let mut turned = Turned::default();
        if !self.is_changed && self.next.is_none_or(|next| at < next) {
            return turned;
        }
        self.turn_silences(at, &mut turned);
        let now = self.turn_maintenance(planned, at);
        self.lessons += u32::from(now != self.in_force);
        let before = std::mem::replace(&mut self.in_force, now);
        for (id, (maintenance, since)) in before {
            if !self.in_force.contains_key(&id) {
                turned.has_resumed |= maintenance.mode == Mode::Suspend;
                self.remember(since, at, maintenance.matchers.clone());
                turned.ended.push(maintenance);
            }
        }
        turned.is_any = true;
        self.changes += 1;
        self.is_changed = false;
        turned
    }

    /// Lets silences go that are over, and finds out when something is to be decided next.
    fn turn_silences(&mut self, at: Timestamp, turned: &mut Turned) {
        self.silences.retain(|_, kept| at < kept.ends_at());
        for kept in self.silences.values_mut().filter(|kept| kept.warns_at().is_some_and(|due| due <= at)) {
            kept.is_warned = true;
            turned.ending.push(kept.silence.clone());
        }
        self.next = self.silences.values().map(|kept| kept.next(at)).min();
    }

    /// The maintenance in force at `at`; what was asked for and is over goes.
    fn turn_maintenance(
        &mut self,
        planned: &[Maintenance],
        at: Timestamp,
    ) -> BTreeMap<Arc<str>, (Maintenance, Timestamp)> {
        let Mutes { asked, in_force, next, .. } = self;
        let mut now = BTreeMap::new();
        let mut is_to_come = |one: &Maintenance| {
            let standing = one.plan.at(at);
            *next = [*next, standing.until].into_iter().flatten().min();
            if standing.is_in_force {
                let since = in_force.get(&one.id).map_or(at, |(_, since)| *since);
                now.insert(one.id.clone(), (one.clone(), since));
            }
            standing.is_in_force || standing.until.is_some()
        };
        for one in planned {
            is_to_come(one);
        }
        asked.retain(|_, one| is_to_come(one));
        now
    }

    /// Silences that end without alerts learn whether any that fires matches them.
    /// `is_matched` is told whether one matched before.
    pub fn note_matches(&mut self, at: Timestamp, is_matched: impl Fn(&Selector, bool) -> bool) {
        for kept in self.silences.values_mut().filter(|kept| kept.silence.unmatched_for.is_some()) {
            let was_matched = kept.is_matched;
            kept.is_matched = is_matched(&kept.silence.matchers, was_matched);
            if was_matched && !kept.is_matched {
                kept.unmatched_since = at;
            }
            self.next = [self.next, Some(kept.next(at))].into_iter().flatten().min();
        }
    }

    fn remember(&mut self, from: Timestamp, to: Timestamp, matchers: Selector) {
        self.spans.retain(|(_, end, _)| *end + SPANS_KEPT > to);
        if self.spans.len() >= SPANS_MAX {
            self.spans.remove(0);
        }
        self.spans.push((from, to, matchers));
    }

    /// What mutes an alert with these labels: the first that is named.
    pub fn cause<'a>(&self, at: Timestamp, label: impl Fn(&str) -> Option<&'a str>) -> Option<Suppressed> {
        self.causes(at, &label).next()
    }

    /// Everything that mutes an alert with these labels, in the order in which one of them is named.
    pub fn causes<'a>(
        &self,
        at: Timestamp,
        label: &impl Fn(&str) -> Option<&'a str>,
    ) -> impl Iterator<Item = Suppressed> {
        let named = |kind: &str, id: &Arc<str>| Suppressed { kind: kind.into(), id: id.to_string() };
        let planned = self.in_force.values().filter(move |(one, _)| one.matchers.selects(label));
        let silences = self.silences.values().map(|kept| &kept.silence).filter(move |silence| {
            (silence.start..silence.end).contains(&at) && silence.matchers.selects(label)
        });
        let planned = planned.map(move |(one, _)| named("maintenance", &one.id));
        planned.chain(silences.map(move |one| named("silence", &one.id)))
    }

    /// Whether there is anything that may suppress an alert now.
    pub fn has_any(&self) -> bool {
        !self.in_force.is_empty() || !self.silences.is_empty()
    }

    /// Whether anything is not to be judged now.
    pub fn has_suspended(&self) -> bool {
        self.in_force.values().any(|(one, _)| one.mode == Mode::Suspend)
    }

    pub fn is_suspended<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let is_match = |one: &Maintenance| one.matchers.selects(&label);
        self.in_force.values().any(|(one, _)| one.mode == Mode::Suspend && is_match(one))
    }

    /// Times of maintenance of a key with these labels, past and present.
    pub fn spans<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> Vec<(Timestamp, Timestamp)> {
        let past = self.spans.iter().filter(|(.., matchers)| matchers.selects(&label));
        let present = self.in_force.values().filter(|(one, _)| one.matchers.selects(&label));
        let past = past.map(|(from, to, _)| (*from, *to));
        past.chain(present.map(|(_, since)| (*since, Timestamp::MAX))).collect()
    }

    /// Burden of all silences but the one of this id.
    pub fn silences_beside(&self, id: &str) -> Burden {
        self.silences().filter(|one| *one.id != *id).map(Silence::burden).sum()
    }

    /// Burden of all maintenance windows that people added, but the one of this id.
    pub fn maintenance_beside(&self, id: &str) -> Burden {
        self.asked().filter(|one| *one.id != *id).map(Maintenance::burden).sum()
    }

    pub fn silences(&self) -> impl Iterator<Item = &Silence> {
        self.silences.values().map(|kept| &kept.silence)
    }

    /// Those that people asked for.
    pub fn asked(&self) -> impl Iterator<Item = &Maintenance> {
        self.asked.values()
    }

    pub fn is_in_force(&self, id: &str) -> bool {
        self.in_force.contains_key(id)
    }
}
