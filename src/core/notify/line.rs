//! The line of an inbox: transitions that are told one by one, in the order of the stream.
//!
//! Intuition: an episode stands in line with the first of its transitions that waits; the end of what was told
//! goes without a token, what is beyond the receiver's limit becomes one digest. Invariant: an episode is in one
//! place at most, by the number of its first waiting transition. Rejected: a line of transitions (taking out
//! those of an alert that came and went looks at all of them).

use super::super::time::{Span, Timestamp};
use super::episode::Episode;
use super::inbox::Inbox;
use super::message::{Message, Why};
use std::collections::BTreeMap;

/// Alerts that flap are told together this often.
pub(super) const FLAPPING_EVERY: Span = Span::from_mins(5);

impl Inbox {
    pub(super) fn take_step(&mut self, id: &str, number: u64, now: Timestamp) {
        let Some(episode) = self.episodes.get_mut(id) else { return };
        if self.is_catching_up {
            episode.queue.clear();
            self.ready.retain(|_, known| known != id);
            self.held.retain(|_, (known, _)| known != id);
        }
        let is_over = !episode.alert.is_active();
        let is_untold_flapping = episode.told.is_none() && self.held.values().any(|(known, _)| known == id);
        if is_over && is_untold_flapping {
            // It came and went while it was kept back.
            return self.forget(id);
        }
        if episode.is_step() {
            episode.since = if episode.queue.is_empty() { now } else { episode.since };
            self.left_out += u64::from(!episode.line_up(number));
            self.line_up_again(id);
        } else if is_over || episode.is_nothing() {
            self.forget(id);
        }
    }

    /// Puts an episode where its first waiting transition belongs.
    pub(super) fn line_up_again(&mut self, id: &str) {
        let Some(episode) = self.episodes.get(id) else { return };
        let Some(first) = episode.queue.front() else { return };
        let is_held = episode.alert.flapping && episode.told.is_none();
        match is_held && !self.ready.contains_key(&first.number) {
            true => drop(self.held.entry(first.number).or_insert((id.into(), episode.since))),
            false if !self.held.contains_key(&first.number) => {
                drop(self.ready.insert(first.number, id.into()))
            }
            false => {}
        }
    }

    /// The end of what was told by itself: it needs no token.
    pub(super) fn free(&self) -> Option<&Episode> {
        let (_, id) = self.ready.first_key_value()?;
        let episode = self.episodes.get(id)?;
        let first = episode.queue.front()?;
        (!first.alert.is_active() && episode.told.is_some_and(|told| !told.is_digest)).then_some(episode)
    }

    pub(super) fn next_step(&self, now: Timestamp) -> Option<Message> {
        let of = |episode: &Episode| {
            let alert = episode.queue.front().map_or(&episode.alert, |waiting| &waiting.alert).clone();
            let group = (alert.id.clone(), BTreeMap::from([("rule".into(), alert.rule.clone())]));
            Message::new(&self.policy.name, group, vec![alert], (Why::News, episode.since))
        };
        if let Some(free) = self.free() {
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

    /// Many in one: what each is like now.
    fn digest<'a>(&self, ids: impl Iterator<Item = &'a String>) -> Message {
        let episodes: Vec<&Episode> = ids.filter_map(|id| self.episodes.get(id)).collect();
        let since = episodes.iter().map(|episode| episode.since).min().unwrap_or(Timestamp::MAX);
        let alerts = episodes.iter().map(|episode| episode.alert.clone()).collect();
        let group = (format!("digest:{}", self.policy.name), BTreeMap::new());
        Message::new(&self.policy.name, group, alerts, (Why::Digest, since))
    }
}
