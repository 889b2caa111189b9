//! One receiver's inbox: the alert stream folded into what is still to be told.
//!
//! Intuition: some receivers are told each transition by itself, in order (`Each`); others get what a group
//! of alerts is like now (`Grouped`), and what happened between two messages is one message. Invariants: an
//! episode whose firing was delivered stays until its end was; the order within an episode is that of the
//! stream; [`Inbox::next`] gives the same message until it is [`Inbox::sent`] or put aside.
//! Cost: O(log n) a transition and message.

use super::super::alert::Transition;
use super::super::time::{Span, Timestamp};
use super::aside::{Letter, NOTICE, Notice};
use super::bucket::Bucket;
use super::episode::{Episode, Told, Waiting};
use super::group::Group;
use super::line::FLAPPING_EVERY;
use super::message::{Message, Why};
use super::route::{Grouping, Routes};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::sync::Arc;

/// Alerts with something to tell that are held at once: of most there are a beginning, an end and what it is like
/// now, 20,000 × 3 × 3 KiB = 180 MiB. What comes after waits in the stream.
pub const WAITING_MAX: usize = 20_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Each transition by itself.
    Each,
    /// What a group is like now.
    Grouped,
}

/// What is particular to a receiver.
#[derive(Debug, Clone)]
pub struct Policy {
    pub name: Arc<str>,
    pub style: Style,
    pub max_per_hour: Option<u32>,
    pub max_per_day: Option<u32>,
    /// Stands above that of the routes.
    pub grouping: Option<Grouping>,
    /// An end is told again and again for so long.
    pub ends_last: Span,
    /// Whether silences, maintenance and inhibition do not count: a proof that alerting works must not be mutable
    /// by a wildcard.
    pub is_past_mutes: bool,
}

/// What is kept between starts: (key, value); no value: the row goes.
pub type Rows = Vec<(String, Option<Vec<u8>>)>;

#[derive(Debug)]
pub struct Inbox {
    pub policy: Policy,
    pub(super) routes: Arc<Routes>,
    /// The newest transition that was taken in.
    pub(super) position: u64,
    /// What happened before the receiver existed is read, not told.
    pub(super) is_catching_up: bool,
    pub(super) episodes: BTreeMap<String, Episode>,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) due: BTreeSet<(Timestamp, String)>,
    /// Episodes by the number of what they wait with first.
    pub(super) ready: BTreeMap<u64, String>,
    /// The same of those that wait with the end of what was told by itself: it needs no token.
    pub(super) free: BTreeMap<u64, String>,
    /// The same of those that flap, with since when.
    pub(super) held: BTreeMap<u64, (String, Timestamp)>,
    /// The same of those that are not told at this time of day, with until when.
    pub(super) quiet: BTreeMap<u64, (String, Timestamp)>,
    pub(super) bucket: Bucket,
    pub(super) letters: BTreeMap<String, Letter>,
    pub(super) notice: Option<Notice>,
    pub(super) changed: BTreeSet<String>,
    /// Transitions left out as too many of one episode waited.
    pub left_out: u64,
    /// Messages that lay aside and went as there were too many.
    pub gone: u64,
}

const POSITION: &str = "position";
const BUCKET: &str = "bucket";

impl Inbox {
    /// What the rows say; none: a receiver that is new.
    pub fn new(policy: Policy, routes: Arc<Routes>, rows: Vec<(String, Vec<u8>)>, now: Timestamp) -> Inbox {
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
            // Routes may be others now.
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
        // A row of another version is forgotten: at worst something is told twice.
        read.unwrap_or_default();
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    /// The clock was set back: what was waited for since a time that is to come again is waited for since now.
    /// Otherwise a message would wait for as long as the clock was ahead.
    pub fn set_back(&mut self, now: Timestamp) {
        self.bound_times(now);
        let names: Vec<String> = self.groups.keys().cloned().collect();
        names.iter().for_each(|name| self.settle(name));
        let quiet = take(&mut self.quiet);
        quiet.into_values().for_each(|(id, _)| self.line_up_again(&id, now));
    }

    /// No time of the past is one that is still to come.
    fn bound_times(&mut self, now: Timestamp) {
        self.bucket.bound_times(now);
        for group in self.groups.values_mut() {
            group.sent_at = group.sent_at.map(|at| at.min(now));
            group.since = group.since.map(|since| since.min(now));
        }
        self.episodes.values_mut().for_each(|episode| episode.since = episode.since.min(now));
        self.held.values_mut().for_each(|(_, since)| *since = (*since).min(now));
    }

    /// Alerts this receiver was told of and not yet of their end, and what waits.
    pub fn sizes(&self) -> (usize, usize) {
        let groups = self.groups.values().filter(|group| !group.news.is_empty()).count();
        (self.episodes.len(), self.in_line() + groups)
    }

    fn in_line(&self) -> usize {
        self.ready.len() + self.free.len() + self.held.len() + self.quiet.len()
    }

    /// Whether so much waits that nothing more is to be taken in. What is not taken in stays in the stream, so a
    /// target that is dead for days costs no more memory than one that is for an hour.
    pub fn is_full(&self) -> bool {
        let news = || self.groups.values().map(|group| group.news.len()).sum::<usize>();
        // Of alerts that still fire there are not more than their rules may have; their ends must come in.
        let ends =
            || self.episodes.values().filter(|one| one.news.is_some() && !one.alert.is_active()).count();
        self.ready.len() + self.free.len() + self.held.len() >= WAITING_MAX
            || (news() >= WAITING_MAX && ends() >= WAITING_MAX)
    }

    /// The end of the stream is reached; whether for the first time.
    pub fn caught_up(&mut self) -> bool {
        let is_first = take(&mut self.is_catching_up);
        if is_first {
            self.changed.insert(POSITION.into());
        }
        is_first
    }

    /// Takes a transition in; what was taken in before changes nothing.
    pub fn absorb(&mut self, number: u64, alert: Transition, now: Timestamp) {
        if number <= self.position {
            return;
        }
        self.position = number;
        self.changed.insert(POSITION.into());
        self.take_in(number, alert, now);
    }

    /// The numbers of another log are read from behind this one on.
    pub fn restart(&mut self, number: u64) {
        self.position = number;
        self.changed.insert(POSITION.into());
    }

    /// What stands there is no alert: the next one is behind it.
    pub fn pass(&mut self, number: u64) {
        self.position = self.position.max(number);
        self.changed.insert(POSITION.into());
    }

    /// The same of what stands in no stream.
    pub fn take_in(&mut self, number: u64, mut alert: Transition, now: Timestamp) {
        let id = alert.id.clone();
        if self.policy.is_past_mutes {
            alert.suppressed_by = None;
        }
        match self.episodes.get_mut(&id) {
            Some(known) if known.alert.seq > alert.seq => return,
            Some(known) => known.alert = alert,
            None => {
                let is_addressed = self.routes.to(&self.policy.name, &alert).is_some();
                let new = Episode::new(alert, is_addressed, now);
                if !new.is_wanted() {
                    // Should it become this receiver's later, that transition says all there is to know.
                    return;
                }
                self.episodes.insert(id.clone(), new);
            }
        }
        self.address(&id);
        self.changed.insert(format!("e/{id}"));
        match self.policy.style {
            Style::Each => self.take_step(&id, number, now),
            Style::Grouped => self.take_news(&id, now),
        }
    }

    /// When [`Self::next`] may have something, as of now.
    pub fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        if self.again().is_some() || !self.free.is_empty() {
            return Some(now);
        }
        let groups = self.due.first().map(|(due, _)| *due);
        let held = self.held.values().next().map(|(_, since)| *since + FLAPPING_EVERY);
        let quiet = self.quiet_until();
        let ready = (!self.ready.is_empty()).then(|| self.bucket.next(now));
        [groups, held, quiet, ready].into_iter().flatten().min()
    }

    /// What is to be sent now; the same again until it is sent or given up.
    pub fn next(&mut self, now: Timestamp) -> Option<Message> {
        if let Some((_, again)) = self.again() {
            return Some(again.clone());
        }
        match self.policy.style {
            Style::Each => self.next_step(now),
            Style::Grouped => self.next_group(now),
        }
    }

    /// A message arrived, or was given up: what it says is known.
    pub fn sent(&mut self, message: &Message, now: Timestamp) {
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

    /// How the target calls a message that is about to count as [`Self::sent`]; what follows in its group answers
    /// the first one.
    pub fn named(&mut self, message: &Message, name: &str) {
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

    /// The rows that changed since this was asked last.
    pub fn changes(&mut self) -> Rows {
        let changed = std::mem::take(&mut self.changed);
        let row = |key: String| {
            let value = self.row(&key);
            (key, value)
        };
        changed.into_iter().map(row).collect()
    }

    fn row(&self, key: &str) -> Option<Vec<u8>> {
        // All of it is plain data and always serialises.
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
