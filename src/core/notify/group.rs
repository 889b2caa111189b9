//! Groups of an inbox: alerts that are sent together, in their current state.
//!
//! Intuition: a transition of an episode is news for its group, and the group determines when its next
//! message is due: `group_wait` after the first news, `group_interval` after the last message, at once if an
//! alert got worse, and after `repeat_interval` without news. Invariant: a group exists as long as it has
//! members, and what it waits for follows from its members' news. Rejected: a timer per alert, and visiting
//! the whole group with each transition (5,000 alerts of one group cost 25 million visits).

use super::super::alert::Transition;
use super::episode::{Episode, News};
use super::inbox::{Inbox, Style};
use super::message::{Message, Why};
use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The state of a group's messages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) path: String,
    pub(super) labels: BTreeMap<Arc<str>, Arc<str>>,
    pub(super) sent_at: Option<Timestamp>,
    pub(super) repeats: usize,
    /// The id that the target assigned to the group's first message, so that later messages are posted as
    /// replies to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<Arc<str>>,
    #[serde(skip)]
    pub(super) members: BTreeSet<String>,
    #[serde(skip)]
    pub(super) news: BTreeSet<String>,
    /// The time since which the oldest news has been waiting.
    #[serde(skip)]
    pub(super) since: Option<Timestamp>,
    #[serde(skip)]
    pub(super) urgent: BTreeSet<String>,
    #[serde(skip)]
    pub(super) lasting: BTreeSet<String>,
    #[serde(skip)]
    pub(super) due: Option<Timestamp>,
}

impl Inbox {
    /// Determines the route and the group of an episode; an ended episode keeps the ones it had.
    pub(super) fn address(&mut self, id: &str) {
        let Some(episode) = self.episodes.get_mut(id) else { return };
        let routes = self.routes.clone();
        let route = routes.to(&self.policy.name, &episode.alert);
        episode.is_addressed = route.is_some();
        // Alerts that are delivered one by one are in no group.
        let is_grouped = self.policy.style == Style::Grouped && episode.alert.is_active();
        if let (Some(route), true) = (route, is_grouped) {
            let by = &self.policy.grouping.as_ref().unwrap_or(&route.grouping).by;
            let (group, labels) = route.group(by, &episode.alert);
            if episode.group != group {
                let before = std::mem::replace(&mut episode.group, group.clone());
                episode.path = route.path.clone();
                self.leave(&before, id);
            }
            let path = route.path.clone();
            self.groups.entry(group).or_insert_with(|| Group { path, labels, ..Group::default() });
        }
    }

    /// Takes the newest transition of an episode as news. `rises`: its severity is higher than that of the
    /// transition before.
    pub(super) fn take_news(&mut self, id: &str, rises: bool, now: Timestamp) {
        let is_brief = self.is_brief_news(id, now);
        let Some(episode) = self.episodes.get_mut(id) else { return };
        if !episode.alert.is_active() && episode.told.is_none() && !is_brief {
            return self.forget(id);
        }
        let rises = rises && episode.told.is_none() && episode.is_wanted();
        let news = episode.news_of().or(is_brief.then_some(News::Soon));
        let news = if rises { Some(News::Now) } else { news };
        if episode.news.is_none() && news.is_some() {
            episode.since = now;
        }
        let is_still = episode.is_wanted() || !episode.alert.is_active();
        episode.news = if is_still { episode.news.max(news) } else { None };
        match episode.is_nothing() {
            true => self.forget(id),
            false => self.refresh(id),
        }
    }

    /// Returns whether an alert that began and ended before it was delivered is included in its group's next
    /// message. It is included, because the receiver would otherwise count too few alerts of the group. Before
    /// a group's first message it is not included, because `group_wait` is meant to suppress such short
    /// alerts.
    fn is_brief_news(&self, id: &str, now: Timestamp) -> bool {
        let Some(episode) = self.episodes.get(id) else { return false };
        let is_open = self.groups.get(&episode.group).is_some_and(|group| group.sent_at.is_some());
        let is_muted = || self.routes.at(&episode.path).muted_until(now).is_some();
        is_open && episode.is_brief() && !is_muted()
    }

    /// Updates the group of an episode with what the episode waits for.
    pub(super) fn refresh(&mut self, id: &str) {
        let Some(episode) = self.episodes.get(id) else { return };
        if self.policy.style == Style::Each || episode.group.is_empty() {
            return;
        }
        let name = episode.group.clone();
        let path = episode.path.clone();
        let group = self.groups.entry(name.clone()).or_insert_with(|| Group { path, ..Group::default() });
        let ends_last = self.policy.ends_last > Span::ZERO && !episode.alert.is_active();
        let put = |set: &mut BTreeSet<String>, is_in: bool| match is_in {
            true => drop(set.insert(id.into())),
            false => drop(set.remove(id)),
        };
        put(&mut group.members, true);
        if episode.news.is_some() {
            group.since = Some(group.since.map_or(episode.since, |since| since.min(episode.since)));
        }
        put(&mut group.news, episode.news.is_some());
        put(&mut group.urgent, episode.news == Some(News::Now));
        put(&mut group.lasting, episode.is_lasting() || (ends_last && episode.news.is_none()));
        self.schedule(&name);
    }

    /// Sets when a group's next message is due: by its news, or else by the repeat interval. Cost: O(log n),
    /// because this runs at each transition.
    fn schedule(&mut self, name: &str) {
        let Some(group) = self.groups.get_mut(name) else { return };
        if group.news.is_empty() {
            group.since = None;
        }
        let route = self.routes.at(&group.path);
        let grouping = self.policy.grouping.as_ref().unwrap_or(&route.grouping);
        let due = match (group.since, group.sent_at) {
            (Some(since), _) if !group.urgent.is_empty() => Some(since),
            (Some(since), None) => Some(since + grouping.wait),
            (Some(since), Some(sent)) => Some(since.max(sent + grouping.interval)),
            (None, Some(sent)) if !group.lasting.is_empty() => {
                let at = group.repeats.min(grouping.repeat.len().saturating_sub(1));
                grouping.repeat.get(at).map(|every| sent + *every)
            }
            _ => None,
        };
        self.set_due(name, due);
    }

    fn set_due(&mut self, name: &str, due: Option<Timestamp>) {
        let Some(group) = self.groups.get_mut(name) else { return };
        if let Some(before) = std::mem::replace(&mut group.due, due) {
            self.due.remove(&(before, name.to_string()));
        }
        self.due.extend(due.map(|due| (due, name.to_string())));
    }

    pub(super) fn next_group(&mut self, now: Timestamp) -> Option<Message> {
        while let Some((due, name)) = self.due.first().cloned() {
            if due > now {
                return None;
            }
            match self.later(&name, now) {
                Some(later) => self.set_due(&name, Some(later)),
                None => match self.message(&name) {
                    Some(message) => return Some(message),
                    None => self.set_due(&name, None),
                },
            }
        }
        None
    }

    /// Returns the time until which a due group must wait, because its route is muted at this time of day or
    /// no token is left; `None` if it need not wait. A message that only ends delivered alerts does not wait.
    fn later(&self, name: &str, now: Timestamp) -> Option<Timestamp> {
        let group = self.groups.get(name)?;
        let is_end = |id: &String| self.episodes.get(id).is_some_and(Episode::is_told_end);
        if !group.news.is_empty() && group.news.iter().all(is_end) {
            return None;
        }
        let muted = self.routes.at(&group.path).muted_until(now);
        let token = Some(self.bucket.next(now)).filter(|next| *next > now);
        muted.max(token)
    }

    fn message(&self, name: &str) -> Option<Message> {
        let group = self.groups.get(name)?;
        let is_said = |episode: &&Episode| {
            episode.is_wanted() || episode.news.is_some() || group.lasting.contains(&episode.alert.id)
        };
        let members = group.members.iter().filter_map(|id| self.episodes.get(id)).filter(is_said);
        let alerts: Vec<Transition> = members.map(|episode| episode.alert.clone()).collect();
        let (why, since) = match group.since {
            Some(since) => (Why::News, since),
            None => (Why::Repeat, group.sent_at?),
        };
        let named = (name.to_string(), group.labels.clone());
        (!alerts.is_empty()).then(|| Message {
            answers: group.first.clone(),
            ..Message::new(&self.policy.name, named, alerts, (why, since))
        })
    }

    /// Removes an episode from a group.
    pub(super) fn leave(&mut self, name: &str, id: &str) {
        let Some(group) = self.groups.get_mut(name) else { return };
        for set in [&mut group.members, &mut group.news, &mut group.urgent, &mut group.lasting] {
            set.remove(id);
        }
        self.settle(name);
    }

    /// Removes a group without members; reschedules any other group.
    pub(super) fn settle(&mut self, name: &str) {
        if self.groups.get(name).is_some_and(|group| !group.members.is_empty()) {
            return self.schedule(name);
        }
        self.set_due(name, None);
        self.groups.remove(name);
        self.changed.insert(format!("g/{name}"));
    }
}
