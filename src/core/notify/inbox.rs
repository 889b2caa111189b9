//! The inbox of one receiver: the alert stream folded into the notifications that are still to be sent.
//!
//! Intuition: some receivers get each transition by itself, in order (`Each`). Others get the current state
//! of a group of alerts (`Grouped`), and all changes between two messages become one message. Invariants: an
//! episode whose firing was delivered stays until its end was delivered; transitions of an episode keep the
//! order of the stream; [`Inbox::next`] returns the same message until it is [`Inbox::sent`] or put aside as
//! a dead letter.
//! Cost: O(log n) per transition and message.

use super::super::alert::Transition;
use super::bucket::Bucket;
use super::episode::{Episode, Told, Waiting};
use super::group::Group;
use super::message::{Message, Why};
use super::queue::FLAPPING_EVERY;
use super::route::{Grouping, Routes};
use super::undelivered::{NOTICE, Notice, Undelivered};
use crate::core::vocab::time::{Span, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::sync::Arc;

/// Maximum number of alerts that wait to be sent. Most hold a beginning, an end and their current state:
/// 20,000 × 3 × 3 KiB = 180 MiB. Further transitions wait in the stream.
pub(crate) const WAITING_MAX: usize = 20_000;

/// How a receiver gets its notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Each transition by itself.
    Each,
    /// The current state of a group.
    Grouped,
}

/// The settings of one receiver.
#[derive(Debug, Clone)]
pub struct Policy {
    pub name: Arc<str>,
    pub style: Style,
    pub max_per_hour: Option<u32>,
    pub max_per_day: Option<u32>,
    /// Takes precedence over the grouping of the routes.
    pub grouping: Option<Grouping>,
    /// How long the end of an alert is repeated.
    pub ends_last: Span,
    /// Whether silences, maintenance windows and inhibition are ignored. This is set for the heartbeat
    /// alert, which proves that alerting works: a silence with a wildcard must not mute it.
    pub is_past_mutes: bool,
}

/// Rows to persist: (key, value); a row without a value is deleted.
pub(crate) type Rows = Vec<(String, Option<Vec<u8>>)>;

/// The state of one receiver: episodes, groups, waiting messages and dead letters.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub policy: Policy,
    pub(super) routes: Arc<Routes>,
    /// Stream number of the newest transition taken in.
    pub(super) position: u64,
    /// Whether the receiver is new and has not reached the end of the stream yet. Meanwhile a newer
    /// transition of an episode replaces the waiting ones, so history is read but not delivered.
    pub(super) is_catching_up: bool,
    pub(super) episodes: BTreeMap<String, Episode>,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) due: BTreeSet<(Timestamp, String)>,
    /// Episodes by the stream number of their first waiting transition.
    pub(super) ready: BTreeMap<u64, String>,
    /// Likewise, episodes whose first waiting transition ends an alert that was delivered by itself; it needs
    /// no token.
    pub(super) free: BTreeMap<u64, String>,
    /// Likewise, flapping episodes that wait for a digest, with the start of their wait.
    pub(super) held: BTreeMap<u64, (String, Timestamp)>,
    /// Likewise, episodes muted at this time of day, with the end of the mute time.
    pub(super) quiet: BTreeMap<u64, (String, Timestamp)>,
    pub(super) bucket: Bucket,
    pub(super) letters: BTreeMap<String, Undelivered>,
    pub(super) notice: Option<Notice>,
    pub(super) changed: BTreeSet<String>,
    /// Number of dropped transitions. A transition is dropped if too many of its episode wait, or if it waits
    /// for a token when the end of its alert arrives, which needs none.
    pub left_out: u64,
    /// Number of dead letters dropped because there were too many, or because they were out of date.
    pub gone: u64,
}

const POSITION: &str = "position";
const BUCKET: &str = "bucket";

impl Inbox {
    /// Restores the inbox from its rows; without rows the receiver is new.
    pub(crate) fn new(
        policy: Policy,
        routes: Arc<Routes>,
        rows: Vec<(String, Vec<u8>)>,
        now: Timestamp,
    ) -> Inbox {
        let bucket = Bucket::new(policy.max_per_hour, policy.max_per_day, now);
        let mut inbox = Inbox {
            policy,
            routes,
            position: 0,
            is_catching_up: true,
            episodes: BTreeMap::new(),
            groups: BTreeMap::new(),
            due: BTreeSet::new(),
            ready: BTreeMap::new(),
            free: BTreeMap::new(),
            held: BTreeMap::new(),
            quiet: BTreeMap::new(),
            bucket,
            letters: BTreeMap::new(),
            notice: None,
            changed: BTreeSet::new(),
            left_out: 0,
            gone: 0,
        };
        rows.iter().for_each(|(key, value)| inbox.restore(key, value));
        inbox.bound_times(now);
        let ids: Vec<String> = inbox.episodes.keys().cloned().collect();
        for id in ids {
            // The routes may have changed since the rows were written.
            inbox.address(&id);
            inbox.refresh(&id);
            inbox.line_up_again(&id, now);
        }
        inbox
    }

    fn restore(&mut self, key: &str, value: &[u8]) {
        let read = match key.split_once('/') {
            None if key == POSITION => serde_json::from_slice(value).map(|at| {
                self.position = at;
                self.is_catching_up = false;
            }),
            None if key == BUCKET => serde_json::from_slice(value).map(|before: Bucket| {
                self.bucket = self.bucket.clone().after(&before);
            }),
            None if key == NOTICE => serde_json::from_slice(value).map(|notice| self.notice = Some(notice)),
            Some(("e", id)) => {
                serde_json::from_slice(value).map(|one| drop(self.episodes.insert(id.into(), one)))
            }
            Some(("g", id)) => {
                serde_json::from_slice(value).map(|one| drop(self.groups.insert(id.into(), one)))
            }
            Some(("d", id)) => {
                serde_json::from_slice(value).map(|one| drop(self.letters.insert(id.into(), one)))
            }
            _ => Ok(()),
        };
        // A row of another version is ignored: at worst a notification is delivered twice.
        read.unwrap_or_default();
    }

    /// Returns the stream number of the newest transition taken in.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Adapts to a clock that was set back: a wait whose beginning now lies in the future begins now.
    /// Otherwise a message would wait until the clock reaches that time again.
    pub(crate) fn set_back(&mut self, now: Timestamp) {
        self.bound_times(now);
        let names: Vec<String> = self.groups.keys().cloned().collect();
        names.iter().for_each(|name| self.settle(name));
        let quiet = take(&mut self.quiet);
        quiet.into_values().for_each(|(id, _)| self.line_up_again(&id, now));
    }

    /// Moves all recorded past times that lie after `now` to `now`.
    fn bound_times(&mut self, now: Timestamp) {
        self.bucket.bound_times(now);
        for group in self.groups.values_mut() {
            group.sent_at = group.sent_at.map(|at| at.min(now));
            group.since = group.since.map(|since| since.min(now));
        }
        self.episodes.values_mut().for_each(|episode| episode.since = episode.since.min(now));
        self.held.values_mut().for_each(|(_, since)| *since = (*since).min(now));
    }

    /// Returns the number of tracked episodes (mostly alerts that were delivered and whose end was not), and
    /// the number of waiting messages.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        let groups = self.groups.values().filter(|group| !group.news.is_empty()).count();
        (self.episodes.len(), self.in_line() + groups)
    }

    fn in_line(&self) -> usize {
        self.ready.len() + self.free.len() + self.held.len() + self.quiet.len()
    }

    /// Returns whether the inbox must take in nothing more (back-pressure). Transitions that are not taken in
    /// stay in the stream, so a target that is down for days costs no more memory than one that is down for
    /// an hour.
    pub(crate) fn is_full(&self) -> bool {
        let news = || self.groups.values().map(|group| group.news.len()).sum::<usize>();
        // Beginnings alone do not make the inbox full: the rules bound the number of firing alerts, and the
        // ends of these alerts must still be taken in.
        let ends =
            || self.episodes.values().filter(|one| one.news.is_some() && !one.alert.is_active()).count();
        self.ready.len() + self.free.len() + self.held.len() >= WAITING_MAX
            || (news() >= WAITING_MAX && ends() >= WAITING_MAX)
    }

    /// Notes that the end of the stream was reached; returns whether for the first time.
    pub(crate) fn caught_up(&mut self) -> bool {
        let is_first = take(&mut self.is_catching_up);
        if is_first {
            self.changed.insert(POSITION.into());
        }
        is_first
    }

    /// Takes in a transition of the stream; one that was taken in before changes nothing.
    pub(crate) fn absorb(&mut self, number: u64, alert: Transition, now: Timestamp) {
        if number <= self.position {
            return;
        }
        self.position = number;
        self.changed.insert(POSITION.into());
        self.take_in(number, alert, now);
    }

    /// The newest transition of each alert that is tracked.
    pub(crate) fn alerts(&self) -> impl Iterator<Item = &Transition> {
        self.episodes.values().map(|episode| &episode.alert)
    }

    /// The highest number of a waiting transition; 0 if none waits.
    pub(crate) fn last_number(&self) -> u64 {
        let waiting = self.episodes.values().flat_map(|episode| &episode.queue);
        waiting.map(|waiting| waiting.number).max().unwrap_or(0)
    }

    /// Continues with a recreated alert stream, of which the transitions after this number are read.
    pub(crate) fn restart(&mut self, number: u64) {
        self.position = number;
        self.changed.insert(POSITION.into());
    }

    /// Skips a record of the stream that is not an alert for this receiver.
    pub(crate) fn pass(&mut self, number: u64) {
        self.position = self.position.max(number);
        self.changed.insert(POSITION.into());
    }

    /// Takes in a transition without moving the position in the stream. `number` only determines the order of
    /// delivery, so a transition from outside the stream may be given any number.
    pub(crate) fn take_in(&mut self, number: u64, mut alert: Transition, now: Timestamp) {
        let id = alert.id.clone();
        if self.policy.is_past_mutes {
            alert.suppressed_by = None;
        }
        let known = self.episodes.get(&id).map(|known| known.alert.severity);
        let rises = known.is_some_and(|known| alert.severity > known);
        match self.episodes.get_mut(&id) {
            Some(known) if known.alert.seq > alert.seq => return,
            Some(known) => known.alert = alert,
            None => {
                let is_addressed = self.routes.to(&self.policy.name, &alert).is_some();
                let new = Episode::new(alert, is_addressed, now);
                if !new.is_wanted() {
                    // If a later transition addresses this receiver, that one carries the full state.
                    return;
                }
                self.episodes.insert(id.clone(), new);
            }
        }
        self.address(&id);
        self.changed.insert(format!("e/{id}"));
        match self.policy.style {
            Style::Each => self.take_step(&id, number, now),
            Style::Grouped => self.take_news(&id, rises, now),
        }
    }

    /// Returns when [`Self::next`] may have a message, as known at `now`.
    pub(crate) fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_catching_up {
            return None;
        }
        if self.again().is_some() || !self.free.is_empty() {
            return Some(now);
        }
        let groups = self.due.first().map(|(due, _)| *due);
        let held = self.held.values().next().map(|(_, since)| *since + FLAPPING_EVERY);
        let quiet = self.quiet_until();
        let ready = (!self.ready.is_empty()).then(|| self.bucket.next(now));
        [groups, held, quiet, ready].into_iter().flatten().min()
    }

    /// Returns the message to send now; the same one until it is sent or given up.
    pub(crate) fn next(&mut self, now: Timestamp) -> Option<Message> {
        // Before the end of the stream is reached, nothing is sent: a record still to be read may end the
        // alert.
        if self.is_catching_up {
            return None;
        }
        if let Some((_, again)) = self.again() {
            return Some(again.clone());
        }
        match self.policy.style {
            Style::Each => self.next_step(now),
            Style::Grouped => self.next_group(now),
        }
    }

    /// Records that a message was delivered or given up, so that its content counts as known.
    pub(crate) fn sent(&mut self, message: &Message, now: Timestamp) {
        if self.is_sent_again(message) {
            return;
        }
        let is_free =
            self.free.values().next().is_some_and(|id| message.alerts.iter().all(|one| one.id == *id));
        if !is_free {
            self.bucket.take(now);
            self.changed.insert(BUCKET.into());
        }
        for alert in &message.alerts {
            self.is_told(alert, message.why, now);
        }
        if let Some(group) = self.groups.get_mut(&message.group) {
            group.sent_at = Some(now);
            group.repeats = if message.why == Why::Repeat { group.repeats + 1 } else { 0 };
            self.changed.insert(format!("g/{}", message.group));
            self.settle(&message.group);
        }
    }

    /// Stores the id that the target assigned to a message. Must be called before [`Self::sent`]. Later
    /// messages of the group are posted as replies to the group's first one.
    pub(crate) fn named(&mut self, message: &Message, name: &str) {
        if let Some(group) = self.groups.get_mut(&message.group) {
            group.first.get_or_insert_with(|| name.into());
        }
    }

    fn is_told(&mut self, alert: &Transition, why: Why, now: Timestamp) {
        let Some(episode) = self.episodes.get_mut(&alert.id) else { return };
        let is_known = |waiting: &Waiting| waiting.alert.seq <= alert.seq;
        let known = episode.queue.iter().take_while(|waiting| is_known(waiting)).count();
        let known: Vec<Waiting> = episode.queue.drain(..known).collect();
        let (seq, severity) = (alert.seq, alert.severity);
        episode.told = Some(Told { seq, severity, is_digest: why == Why::Digest });
        if episode.alert.seq == seq {
            episode.news = None;
        }
        let lasts = episode.alert.is_active() || now < episode.alert.at + self.policy.ends_last;
        let is_over = episode.queue.is_empty() && !lasts && episode.alert.seq == seq;
        known.iter().for_each(|waiting| self.leave_line(waiting.number));
        self.changed.insert(format!("e/{}", alert.id));
        match is_over {
            true => self.forget(&alert.id),
            false => {
                self.refresh(&alert.id);
                self.line_up_again(&alert.id, now);
            }
        }
    }

    pub(super) fn forget(&mut self, id: &str) {
        let Some(episode) = self.episodes.remove(id) else { return };
        for waiting in &episode.queue {
            self.leave_line(waiting.number);
        }
        self.changed.insert(format!("e/{id}"));
        self.leave(&episode.group, id);
    }

    /// Returns the rows that changed since the last call.
    pub(crate) fn changes(&mut self) -> Rows {
        let changed = std::mem::take(&mut self.changed);
        let row = |key: String| {
            let value = self.row(&key);
            (key, value)
        };
        changed.into_iter().map(row).collect()
    }

    fn row(&self, key: &str) -> Option<Vec<u8>> {
        // All rows are plain data and always serialise.
        match key.split_once('/') {
            Some(("e", id)) => self.episodes.get(id).and_then(|one| serde_json::to_vec(one).ok()),
            Some(("g", id)) => self.groups.get(id).and_then(|one| serde_json::to_vec(one).ok()),
            Some(("d", id)) => self.letters.get(id).and_then(|one| serde_json::to_vec(one).ok()),
            _ if key == NOTICE => self.notice.as_ref().and_then(|one| serde_json::to_vec(one).ok()),
            _ if key == BUCKET => serde_json::to_vec(&self.bucket).ok(),
            _ if self.is_catching_up => None,
            _ => serde_json::to_vec(&self.position).ok(),
        }
    }
}
