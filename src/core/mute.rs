//! Mutes: maintenance windows and silences.
//!
//! Intuition: alerts continue while they are muted and are marked with the cause, so nothing is lost and each
//! suppression can be explained. Invariant: only grid points decide which mutes are in force, from the plans
//! of the rule set and from control records. Of several causes the first is reported: maintenance before
//! silences, then by id. A selector without matchers mutes nothing.
//! Rejected: dropping alerts while they are muted (their end would never be published).

use crate::core::burden::{Burden, COUNT_MAX};
use crate::core::vocab::calendar::Plan;
use crate::core::vocab::selector::Selector;
use crate::core::vocab::time::{Span, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The cause that keeps an alert from being notified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Suppressed {
    pub kind: String,
    pub id: String,
}

/// A maintenance window: a planned time in which alerts are expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Maintenance {
    pub id: Arc<str>,
    pub matchers: Selector,
    pub plan: Plan,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub reason: Arc<str>,
    /// The person who asked for it; empty for a window of a rule file.
    #[serde(default)]
    pub by: Arc<str>,
}

/// The effect of a maintenance window on the alerts that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Rules are evaluated and transitions are published, but no receiver is notified.
    #[default]
    Mute,
    /// Rules are not evaluated; their conditions count as unknown.
    Suspend,
}

/// A silence: from `start` to `end`, no receiver is notified of the alerts that match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    pub id: Arc<str>,
    pub matchers: Selector,
    pub start: Timestamp,
    pub end: Timestamp,
    pub by: Arc<str>,
    #[serde(default)]
    pub reason: Arc<str>,
    /// Time without a matching alert after which the silence ends early; `None`: it ends at `end` only.
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

/// Time before the end of a silence at which a warning is published if it still matches an alert. A silence
/// shorter than twice this time ends without a warning.
const SILENCE_WARNED_BEFORE: Span = Span::from_mins(15);

/// Time for which past maintenance is remembered for baselines: longer than a season of a month.
const SPANS_KEPT: Span = Span::from_hours(24 * 35);

/// Maximum number of remembered maintenance spans; the oldest are forgotten first. 10,000 spans in 35 days are
/// about 285 a day.
const SPANS_MAX: usize = 10_000;

/// All silences and maintenance windows, and their state.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Mutes {
    /// Maintenance windows added by control records. The rule set holds those of the files.
    asked: BTreeMap<Arc<str>, Maintenance>,
    silences: BTreeMap<Arc<str>, SilenceState>,
    /// The maintenance windows in force, by id, with the time at which each began.
    in_force: BTreeMap<Arc<str>, (Maintenance, Timestamp)>,
    /// Past maintenance windows: start, end and matchers. Baselines leave out these times.
    spans: Vec<(Timestamp, Timestamp, Selector)>,
    /// Number of changes of the mutes. A reader compares it to detect that the published mutes are out of
    /// date.
    pub changes: u32,
    /// Number of changes of the maintenance windows in force. A change invalidates cached baselines.
    pub lessons: u32,
    /// The next time at which a mute begins, ends or is due for a warning.
    next: Option<Timestamp>,
    is_changed: bool,
}

/// A silence and its state.
#[derive(Debug, Serialize, Deserialize)]
struct SilenceState {
    silence: Silence,
    is_matched: bool,
    /// The time since which no alert has matched the silence; its start if none ever did.
    unmatched_since: Timestamp,
    is_warned: bool,
}

impl SilenceState {
    fn new(silence: Silence) -> SilenceState {
        SilenceState { unmatched_since: silence.start, silence, is_matched: false, is_warned: false }
    }

    fn ends_at(&self) -> Timestamp {
        let patience = self.silence.unmatched_for.filter(|_| !self.is_matched);
        let unmatched = patience.map(|span| self.unmatched_since + span);
        unmatched.unwrap_or(Timestamp::MAX).min(self.silence.end)
    }

    /// The time at which the warning about the end is due, if it has not been given.
    fn warns_at(&self) -> Option<Timestamp> {
        let Silence { start, end, .. } = self.silence;
        let is_long = end - start >= SILENCE_WARNED_BEFORE * 2;
        (is_long && !self.is_warned).then_some(end - SILENCE_WARNED_BEFORE)
    }

    /// The next time at which a decision about the silence is due.
    fn next(&self, at: Timestamp) -> Timestamp {
        if at < self.silence.start {
            return self.silence.start;
        }
        self.ends_at().min(self.warns_at().unwrap_or(Timestamp::MAX))
    }
}

/// The changes of the mutes at one grid point.
#[derive(Debug, Default)]
pub struct Turned {
    pub is_any: bool,
    /// Whether a maintenance window of mode [`Mode::Suspend`] ended.
    pub has_resumed: bool,
    /// Maintenance windows that ended.
    pub ended: Vec<Maintenance>,
    /// Silences whose warning about their coming end is due.
    pub ending: Vec<Silence>,
}

impl Mutes {
    pub fn add_maintenance(&mut self, maintenance: Maintenance) {
        if self.asked.len() < COUNT_MAX || self.asked.contains_key(&maintenance.id) {
            self.asked.insert(maintenance.id.clone(), maintenance);
        }
        self.look_again();
    }

    /// Ends a maintenance window that a control record added.
    pub fn end_maintenance(&mut self, id: &str) {
        self.asked.remove(id);
        self.look_again();
    }

    pub fn add_silence(&mut self, silence: Silence) {
        if self.silences.len() < COUNT_MAX || self.silences.contains_key(&silence.id) {
            self.silences.insert(silence.id.clone(), SilenceState::new(silence));
        }
        self.look_again();
    }

    pub fn end_silence(&mut self, id: &str) {
        self.silences.remove(id);
        self.look_again();
    }

    /// Makes the next grid point decide again, after a request or a change of the rules.
    pub fn look_again(&mut self) {
        self.is_changed = true;
    }

    /// The next time at which a grid point has a decision to make.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_changed { Some(now) } else { self.next }
    }

    /// Decides at a grid point which mutes are in force.
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

    /// Removes silences that have ended, collects the warnings that are due, and computes the time of the
    /// next decision.
    fn turn_silences(&mut self, at: Timestamp, turned: &mut Turned) {
        self.silences.retain(|_, kept| at < kept.ends_at());
        for kept in self.silences.values_mut().filter(|kept| kept.warns_at().is_some_and(|due| due <= at)) {
            kept.is_warned = true;
            turned.ending.push(kept.silence.clone());
        }
        self.next = self.silences.values().map(|kept| kept.next(at)).min();
    }

    /// The maintenance windows in force at `at`. Added windows that are over, or that a file replaces, are removed.
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
        // A window of a rule file replaces an added window with the same id. An id then names one window only,
        // so the window in force is the one that is listed and that its owner can end.
        asked.retain(|id, one| !planned.iter().any(|planned| planned.id == *id) && is_to_come(one));
        now
    }

    /// Records for each silence with `unmatched_for` whether a firing alert matches it. `is_matched` receives
    /// the selector, and whether an alert matched it at the last call.
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

    /// The mute that suppresses an alert with these labels; of several, the first in the order of reporting.
    pub fn cause<'a>(&self, at: Timestamp, label: impl Fn(&str) -> Option<&'a str>) -> Option<Suppressed> {
        self.causes(at, &label).next()
    }

    /// All mutes that suppress an alert with these labels, in the order of reporting.
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

    /// Whether any mute may suppress an alert now.
    pub fn has_any(&self) -> bool {
        !self.in_force.is_empty() || !self.silences.is_empty()
    }

    /// Whether any maintenance window suspends judging now.
    pub fn has_suspended(&self) -> bool {
        self.in_force.values().any(|(one, _)| one.mode == Mode::Suspend)
    }

    pub fn is_suspended<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let is_match = |one: &Maintenance| one.matchers.selects(&label);
        self.in_force.values().any(|(one, _)| one.mode == Mode::Suspend && is_match(one))
    }

    /// The maintenance times of a key with these labels, past and present.
    pub fn spans<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> Vec<(Timestamp, Timestamp)> {
        let past = self.spans.iter().filter(|(.., matchers)| matchers.selects(&label));
        let present = self.in_force.values().filter(|(one, _)| one.matchers.selects(&label));
        let past = past.map(|(from, to, _)| (*from, *to));
        past.chain(present.map(|(_, since)| (*since, Timestamp::MAX))).collect()
    }

    /// The total burden of all silences except the one of this id.
    pub fn silences_beside(&self, id: &str) -> Burden {
        self.silences().filter(|one| *one.id != *id).map(Silence::burden).sum()
    }

    /// The total burden of all added maintenance windows except the one of this id.
    pub fn maintenance_beside(&self, id: &str) -> Burden {
        self.asked().filter(|one| *one.id != *id).map(Maintenance::burden).sum()
    }

    pub fn silences(&self) -> impl Iterator<Item = &Silence> {
        self.silences.values().map(|kept| &kept.silence)
    }

    /// The maintenance windows that control records added.
    pub fn asked(&self) -> impl Iterator<Item = &Maintenance> {
        self.asked.values()
    }

    pub fn is_in_force(&self, id: &str) -> bool {
        self.in_force.contains_key(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_the_files_replaces_an_added_one() {
        let window = |by: &str| Maintenance {
            id: "m".into(),
            matchers: Selector { name: Some(by.into()), matchers: Vec::new() },
            plan: Plan::Once { start: Timestamp::clamped(0), end: Timestamp::clamped(1_000) },
            mode: Mode::default(),
            reason: "".into(),
            by: by.into(),
        };
        let mut mutes = Mutes::default();
        mutes.add_maintenance(window("ann"));
        mutes.turn(&[], Timestamp::clamped(1));
        assert_eq!(&*mutes.in_force["m"].0.by, "ann");
        mutes.look_again();
        mutes.turn(&[window("")], Timestamp::clamped(2));
        assert_eq!((&*mutes.in_force["m"].0.by, mutes.asked().count()), ("", 0));
    }
}
