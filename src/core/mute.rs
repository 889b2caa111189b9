//! What people asked not to be told of: maintenance windows and silences.
//!
//! Intuition: alerts go on as they are; what is muted is marked with what mutes it, so nothing is lost and
//! everything can be explained. Invariant: what is in force is decided at grid points alone, from the rule
//! set's plans and from control records; the first of maintenance, silence, then id is named.
//! Rejected: dropping alerts while muted (their end would never be told).

use super::alert::transition::Suppressed;
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
}

/// Silences and maintenance windows that people add; more are refused.
pub const ASKED_MAX: usize = 1_000;

/// Times of maintenance are remembered for baselines: longer than the longest season of a month.
const SPANS_KEPT: Span = Span::from_hours(24 * 35);

/// A span a day for a thousand windows is more than anybody plans.
const SPANS_MAX: usize = 10_000;

/// All of them, and which are in force.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Mutes {
    /// Asked for by control records; those of the files are the rule set's.
    asked: BTreeMap<Arc<str>, Maintenance>,
    silences: BTreeMap<Arc<str>, Silence>,
    /// Maintenance in force, by id, with when it began.
    in_force: BTreeMap<Arc<str>, (Maintenance, Timestamp)>,
    /// Past maintenance: baselines learn nothing there.
    spans: Vec<(Timestamp, Timestamp, Selector)>,
    /// Counts changes of what baselines may learn.
    pub changes: u32,
    /// When something begins or ends next.
    next: Option<Timestamp>,
    is_changed: bool,
}

/// What began and ended at a grid point.
#[derive(Debug, Default)]
pub struct Turned {
    pub is_any: bool,
    /// A window in which nothing was judged ended.
    pub has_resumed: bool,
    /// Ended maintenance.
    pub ended: Vec<Maintenance>,
}

impl Mutes {
    pub fn add_maintenance(&mut self, maintenance: Maintenance) {
        if self.asked.len() < ASKED_MAX || self.asked.contains_key(&maintenance.id) {
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
        if self.silences.len() < ASKED_MAX || self.silences.contains_key(&silence.id) {
            self.silences.insert(silence.id.clone(), silence);
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
        self.silences.retain(|_, silence| at < silence.end);
        let ends = self.silences.values().map(|s| if at < s.start { s.start } else { s.end });
        self.next = ends.min();
        let mut now: BTreeMap<Arc<str>, (Maintenance, Timestamp)> = BTreeMap::new();
        for maintenance in planned.iter().chain(self.asked.values()) {
            let standing = maintenance.plan.at(at);
            self.next = [self.next, standing.until].into_iter().flatten().min();
            if standing.is_in_force {
                let since = self.in_force.get(&maintenance.id).map_or(at, |(_, since)| *since);
                now.insert(maintenance.id.clone(), (maintenance.clone(), since));
            }
        }
        self.asked.retain(|_, maintenance| {
            let standing = maintenance.plan.at(at);
            standing.is_in_force || standing.until.is_some()
        });
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

    fn remember(&mut self, from: Timestamp, to: Timestamp, matchers: Selector) {
        self.spans.retain(|(_, end, _)| *end + SPANS_KEPT > to);
        if self.spans.len() >= SPANS_MAX {
            self.spans.remove(0);
        }
        self.spans.push((from, to, matchers));
    }

    /// What mutes an alert with these labels.
    pub fn cause<'a>(&self, at: Timestamp, label: impl Fn(&str) -> Option<&'a str>) -> Option<Suppressed> {
        let found = self.in_force.values().find(|(one, _)| one.matchers.is_match_labels(&label));
        let planned = found.map(|(one, _)| Suppressed { kind: "maintenance".into(), id: one.id.to_string() });
        planned.or_else(|| {
            let mut silences =
                self.silences.values().filter(|silence| (silence.start..silence.end).contains(&at));
            let found = silences.find(|silence| silence.matchers.is_match_labels(&label));
            found.map(|silence| Suppressed { kind: "silence".into(), id: silence.id.to_string() })
        })
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
        let is_match = |one: &Maintenance| one.matchers.is_match_labels(&label);
        self.in_force.values().any(|(one, _)| one.mode == Mode::Suspend && is_match(one))
    }

    /// Times of maintenance of a key with these labels, past and present.
    pub fn spans<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> Vec<(Timestamp, Timestamp)> {
        let past = self.spans.iter().filter(|(.., matchers)| matchers.is_match_labels(&label));
        let present = self.in_force.values().filter(|(one, _)| one.matchers.is_match_labels(&label));
        let past = past.map(|(from, to, _)| (*from, *to));
        past.chain(present.map(|(_, since)| (*since, Timestamp::MAX))).collect()
    }

    pub fn silences(&self) -> impl Iterator<Item = &Silence> {
        self.silences.values()
    }

    /// Those that people asked for.
    pub fn asked(&self) -> impl Iterator<Item = &Maintenance> {
        self.asked.values()
    }

    pub fn is_in_force(&self, id: &str) -> bool {
        self.in_force.contains_key(id)
    }
}
