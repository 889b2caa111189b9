//! What one receiver knows of one episode, and what it does not know yet.

use super::super::alert::transition::ChangeName;
use super::super::alert::{Severity, Transition};
use super::super::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Transitions that wait of one episode; of more, those in the middle are left out: 16 × 3 KiB.
pub const QUEUE_MAX: usize = 16;

/// How much the receiver's person wants to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum News {
    /// With the next message of its group.
    Soon,
    /// At once: it got worse, or was kept back long enough.
    Now,
}

/// What was delivered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub seq: u32,
    pub severity: Severity,
    /// Only as one of many.
    pub is_digest: bool,
}

/// A transition with its place in the alert stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    pub number: u64,
    pub alert: Transition,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// As it is now.
    pub alert: Transition,
    /// Its route, and its group.
    pub path: String,
    pub group: String,
    /// Whether it is this receiver's now; once told, its end is in any case.
    pub is_addressed: bool,
    pub told: Option<Told>,
    pub news: Option<News>,
    /// Since when the news waits.
    pub since: Timestamp,
    /// What is delivered one by one.
    pub queue: VecDeque<Waiting>,
}

impl Episode {
    pub fn new(alert: Transition, is_addressed: bool, now: Timestamp) -> Episode {
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

    /// Whether nothing is known of it and nothing is to be.
    pub fn is_nothing(&self) -> bool {
        self.told.is_none() && self.queue.is_empty() && self.news.is_none() && !self.is_wanted()
    }

    /// Whether it came and went untold, with nothing that held it back but its group's next message.
    pub fn is_brief(&self) -> bool {
        let is_waiting = self.news.is_some() && self.told.is_none();
        is_waiting && !self.alert.is_active() && self.alert.suppressed_by.is_none() && !self.alert.flapping
    }

    /// Whether it is over, and its beginning was told.
    pub fn is_told_end(&self) -> bool {
        self.told.is_some() && !self.alert.is_active()
    }

    /// Whether its beginning and its changes are to be told.
    pub fn is_wanted(&self) -> bool {
        self.is_addressed && self.alert.is_active() && self.alert.suppressed_by.is_none()
    }

    /// Whether it is said again when nothing changes.
    pub fn is_lasting(&self) -> bool {
        self.told.is_some() && self.is_wanted() && self.alert.acknowledged_by.is_none()
    }

    /// What the newest transition means to somebody who knows what was told.
    pub fn news_of(&self) -> Option<News> {
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

    /// Whether the newest transition is to be delivered one by one.
    pub fn is_step(&self) -> bool {
        match self.alert.is_active() {
            true => self.is_wanted(),
            // The end of what was never begun is no news.
            false => self.told.is_some() || !self.queue.is_empty(),
        }
    }

    /// Lines up a transition; `false` where one in the middle had to go.
    pub fn line_up(&mut self, number: u64) -> bool {
        let is_full = self.queue.len() >= QUEUE_MAX;
        if is_full {
            self.queue.remove(QUEUE_MAX / 2);
        }
        self.queue.push_back(Waiting { number, alert: self.alert.clone() });
        !is_full
    }
}
