//! The delivery state of one episode at one receiver. An episode is one firing of an alert, from its beginning
//! to its end.

use super::super::alert::Transition;
use super::super::alert::transition::ChangeName;
use crate::core::vocab::severity::Severity;
use crate::core::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Maximum number of waiting transitions per episode: 16 × 3 KiB. Beyond it, those in the middle are dropped.
pub(crate) const QUEUE_MAX: usize = 16;

/// The urgency of news that was not delivered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum News {
    /// With the next message of its group.
    Soon,
    /// At once: the alert got worse, escalated, or is no longer suppressed.
    Now,
}

/// The state that was delivered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub seq: u32,
    pub severity: Severity,
    /// Whether it was delivered only as part of a digest.
    pub is_digest: bool,
}

/// A transition with its number in the alert stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub number: u64,
    pub alert: Transition,
}

/// One episode as its receiver follows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Episode {
    /// The newest transition of the alert.
    pub alert: Transition,
    /// The path of its route, and its group.
    pub path: String,
    pub group: String,
    /// Whether its route leads to this receiver now; the end of a delivered alert is delivered in any case.
    pub is_addressed: bool,
    pub told: Option<Told>,
    pub news: Option<News>,
    /// The time since which the news has been waiting.
    pub since: Timestamp,
    /// Transitions that wait to be delivered one by one.
    pub queue: VecDeque<Waiting>,
}

impl Episode {
    pub(crate) fn new(alert: Transition, is_addressed: bool, now: Timestamp) -> Episode {
        Episode {
            alert,
            path: String::new(),
            group: String::new(),
            is_addressed,
            told: None,
            news: None,
            since: now,
            queue: VecDeque::new(),
        }
    }

    /// Returns whether nothing of the episode was delivered, and nothing waits to be delivered.
    pub(crate) fn is_nothing(&self) -> bool {
        self.told.is_none() && self.queue.is_empty() && self.news.is_none() && !self.is_wanted()
    }

    /// Returns whether the alert began and ended before its group's next message was due, and only that wait
    /// kept it from being delivered: it was neither suppressed nor flapping.
    pub(crate) fn is_brief(&self) -> bool {
        let is_waiting = self.news.is_some() && self.told.is_none();
        is_waiting && !self.alert.is_active() && self.alert.suppressed_by.is_none() && !self.alert.flapping
    }

    /// Returns whether the alert has ended and its beginning was delivered.
    pub(crate) fn is_told_end(&self) -> bool {
        self.told.is_some() && !self.alert.is_active()
    }

    /// Returns whether the beginning and the changes of the alert are to be delivered to this receiver now.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_addressed && self.alert.is_active() && self.alert.suppressed_by.is_none()
    }

    /// Returns whether the alert is sent again after `repeat_interval` if nothing changes.
    pub(crate) fn is_lasting(&self) -> bool {
        self.told.is_some() && self.is_wanted() && self.alert.acknowledged_by.is_none()
    }

    /// Returns the urgency of the newest transition, compared with the state delivered last; `None` if nothing
    /// is to be sent.
    pub(crate) fn news_of(&self) -> Option<News> {
        let alert = &self.alert;
        let Some(told) = self.told else {
            let is_late = matches!(alert.change, ChangeName::Unsuppressed | ChangeName::Escalated);
            return self.is_wanted().then_some(if is_late { News::Now } else { News::Soon });
        };
        match alert.change {
            _ if !alert.is_active() => Some(News::Soon),
            _ if !self.is_wanted() => None,
            _ if alert.severity > told.severity => Some(News::Now),
            ChangeName::Escalated => Some(News::Now),
            ChangeName::Level => Some(News::Soon),
            _ => None,
        }
    }

    /// Returns whether the newest transition is to be delivered in a message of its own.
    pub(crate) fn is_step(&self) -> bool {
        match self.alert.is_active() {
            true => self.is_wanted(),
            // An end is not delivered if its beginning was neither delivered nor queued.
            false => self.told.is_some() || !self.queue.is_empty(),
        }
    }

    /// Queues the newest transition. Returns `false` if the queue was full and a transition in its middle was
    /// dropped.
    pub(crate) fn line_up(&mut self, number: u64) -> bool {
        let is_full = self.queue.len() >= QUEUE_MAX;
        if is_full {
            self.queue.remove(QUEUE_MAX / 2);
        }
        self.queue.push_back(Waiting { number, alert: self.alert.clone() });
        !is_full
    }
}
