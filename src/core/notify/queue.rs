//! The queue of an inbox: transitions that are delivered one by one, in the order of the stream.
//!
//! Intuition: an episode with waiting transitions is in one of four maps. `quiet`: its route mutes it at this
//! time of day. `held`: it is flapping and waits for a digest. `free`: it begins with the end of a delivered
//! alert, which is sent first and without a token. `ready`: it waits for a token; episodes beyond the
//! receiver's rate limit become one digest. Invariant: an episode is in at most one map, under the stream
//! number of its first waiting transition. Rejected: a queue of transitions (to remove those of one alert, the
//! whole queue must be searched), and ends in queue order (an incident would stay open until there is a token
//! for everything before its end).

use super::episode::Episode;
use super::inbox::Inbox;
use super::message::{Message, Why};
use crate::core::vocab::time::{Span, Timestamp};
use std::collections::BTreeMap;
use std::mem::take;

/// Interval between digests of flapping alerts.
pub(super) const FLAPPING_EVERY: Span = Span::from_mins(5);

impl Inbox {
    pub(super) fn take_step(&mut self, id: &str, number: u64, now: Timestamp) {
        if self.is_catching_up {
            self.step_out(id);
        }
        let Some(episode) = self.episodes.get_mut(id) else { return };
        let is_over = !episode.alert.is_active();
        let waits_for_token = episode.queue.front().is_some_and(|first| {
            self.ready.contains_key(&first.number) && self.bucket.left(now) < self.ready.len() as f64
        });
        if is_over && waits_for_token && episode.told.is_some_and(|told| !told.is_digest) {
            self.left_out += episode.queue.len() as u64;
            self.step_out(id);
        }
        let Some(episode) = self.episodes.get_mut(id) else { return };
        let is_kept_back = episode.queue.front().is_some_and(|first| {
            self.held.contains_key(&first.number) || self.quiet.contains_key(&first.number)
        });
        if is_over && is_kept_back {
            // The alert ended while it was held or quiet. If its beginning was not delivered, nothing is sent;
            // otherwise only the end is sent.
            if episode.told.is_none() {
                return self.forget(id);
            }
            self.step_out(id);
        }
        let Some(episode) = self.episodes.get_mut(id) else { return };
        if episode.is_step() {
            episode.since = if episode.queue.is_empty() { now } else { episode.since };
            self.left_out += u64::from(!episode.line_up(number));
            self.line_up_again(id, now);
        } else if is_over || episode.is_nothing() {
            self.forget(id);
        }
    }

    /// Removes all waiting transitions of an episode.
    fn step_out(&mut self, id: &str) {
        let Some(episode) = self.episodes.get_mut(id) else { return };
        for waiting in std::mem::take(&mut episode.queue) {
            self.leave_line(waiting.number);
        }
    }

    pub(super) fn leave_line(&mut self, number: u64) {
        self.ready.remove(&number);
        self.free.remove(&number);
        self.held.remove(&number);
        self.quiet.remove(&number);
    }

    /// Adds an episode to the map that fits its first waiting transition, unless the episode is in a map
    /// already.
    pub(super) fn line_up_again(&mut self, id: &str, now: Timestamp) {
        let Some(episode) = self.episodes.get(id) else { return };
        let Some(first) = episode.queue.front() else { return };
        let number = first.number;
        let is_there = self.ready.contains_key(&number)
            || self.free.contains_key(&number)
            || self.held.contains_key(&number)
            || self.quiet.contains_key(&number);
        if is_there {
            return;
        }
        // An end is delivered at any time of day, so that the episode can be forgotten.
        let route = || self.routes.to(&self.policy.name, &episode.alert);
        let quiet = first.alert.is_active().then(route).flatten().and_then(|route| route.muted_until(now));
        match quiet {
            Some(until) => drop(self.quiet.insert(number, (id.into(), until))),
            None if episode.alert.flapping && episode.told.is_none() => {
                drop(self.held.insert(number, (id.into(), episode.since)));
            }
            None if is_free(episode) => drop(self.free.insert(number, id.into())),
            None => drop(self.ready.insert(number, id.into())),
        }
    }

    /// Moves the episodes whose mute time is over from `quiet` to the map that now fits.
    fn end_quiet(&mut self, now: Timestamp) {
        if self.quiet_until().is_none_or(|until| until > now) {
            return;
        }
        let (over, left) = take(&mut self.quiet).into_iter().partition(|(_, (_, until))| *until <= now);
        self.quiet = left;
        let over: BTreeMap<u64, (String, Timestamp)> = over;
        let over: Vec<String> = over.into_values().map(|(id, _)| id).collect();
        over.iter().for_each(|id| self.line_up_again(id, now));
    }

    /// Returns when the first mute time ends.
    pub(super) fn quiet_until(&self) -> Option<Timestamp> {
        self.quiet.values().map(|(_, until)| *until).min()
    }

    pub(super) fn next_step(&mut self, now: Timestamp) -> Option<Message> {
        self.end_quiet(now);
        let of = |episode: &Episode| {
            let alert = episode.queue.front().map_or(&episode.alert, |waiting| &waiting.alert).clone();
            let group = (alert.id.clone(), BTreeMap::from([("rule".into(), alert.rule.clone())]));
            Message::new(&self.policy.name, group, vec![alert], (Why::News, episode.since))
        };
        if let Some(free) = self.free.values().next().and_then(|id| self.episodes.get(id)) {
            return Some(of(free));
        }
        let is_held_due = self.held.values().next().is_some_and(|(_, since)| *since + FLAPPING_EVERY <= now);
        if is_held_due {
            return Some(self.digest(self.held.values().map(|(id, _)| id)));
        }
        let (_, id) = self.ready.first_key_value()?;
        if self.bucket.next(now) > now {
            return None;
        }
        match self.bucket.left(now) < self.ready.len() as f64 {
            true => Some(self.digest(self.ready.values())),
            false => self.episodes.get(id).map(of),
        }
    }

    /// Returns one message with the current state of many episodes.
    fn digest<'a>(&self, ids: impl Iterator<Item = &'a String>) -> Message {
        let episodes: Vec<&Episode> = ids.filter_map(|id| self.episodes.get(id)).collect();
        let since = episodes.iter().map(|episode| episode.since).min().unwrap_or(Timestamp::MAX);
        let alerts = episodes.iter().map(|episode| episode.alert.clone()).collect();
        let group = (format!("digest:{}", self.policy.name), BTreeMap::new());
        Message::new(&self.policy.name, group, alerts, (Why::Digest, since))
    }
}

/// Returns whether the first waiting transition ends an alert that was delivered in a message of its own.
fn is_free(episode: &Episode) -> bool {
    let is_end = episode.queue.front().is_some_and(|first| !first.alert.is_active());
    is_end && episode.told.is_some_and(|told| !told.is_digest)
}
