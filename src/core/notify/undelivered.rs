//! Dead letters: messages that could not be delivered to a receiver, and the notice of them to the other
//! receivers.
//!
//! Intuition: the existence of dead letters is an alert, too. It fires with the first dead letter and ends
//! when the dead letters are redriven. Invariant: a notice is persisted before it is sent to the other
//! receivers, and its delivery is persisted afterwards, so after a crash the same notice is sent again.
//! Rejected: sending first (after a crash the first dead letter would have another time, so the notice would
//! be another alert, and the alert sent before would never end).

use super::super::alert::Transition;
use super::episode::Episode;
use super::inbox::Inbox;
use super::message::Message;
use crate::core::vocab::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of alerts in dead letters: 10,000 × 3 KiB = 30 MiB. Beyond it, the oldest dead letters are
/// dropped.
pub(crate) const ASIDE_MAX: usize = 10_000;

/// Key of the row that holds the notice.
pub(super) const NOTICE: &str = "notice";

/// A dead letter: a message that could not be delivered, kept for the operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Undelivered {
    pub message: Message,
    pub error: String,
    pub at: Timestamp,
    /// Whether the dead letter was redriven, that is, queued to be sent again. It stays stored until it is
    /// delivered.
    #[serde(default)]
    is_due: bool,
}

/// The notice to the other receivers about dead letters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Notice {
    /// When the first message became a dead letter.
    pub since: Timestamp,
    /// When the alert about the dead letters began or ended.
    pub at: Timestamp,
    /// Why the first message failed; `None` once the dead letters were redriven.
    pub error: Option<String>,
    is_told: bool,
}

impl Inbox {
    /// Returns the dead letters that were not redriven.
    pub(crate) fn letters(&self) -> impl Iterator<Item = &Undelivered> {
        self.letters.values().filter(|letter| !letter.is_due)
    }

    /// Returns the first redriven dead letter; redriven ones are older than the others.
    pub(super) fn again(&self) -> Option<(&String, &Message)> {
        let due = self.letters.iter().find(|(_, letter)| letter.is_due);
        due.map(|(id, letter)| (id, &letter.message))
    }

    /// Removes the dead letter of a redriven message; returns whether the message was one.
    pub(super) fn is_sent_again(&mut self, message: &Message) -> bool {
        let found = self.again().filter(|(_, again)| again.id == message.id).map(|(id, _)| id.clone());
        let Some(id) = found else { return false };
        self.changed.insert(format!("d/{id}"));
        self.letters.remove(&id).is_some()
    }

    /// Makes a dead letter of a message that cannot be delivered. Its content counts as delivered, so that
    /// the end of its alerts is still sent.
    pub(crate) fn give_up(&mut self, message: &Message, error: String, now: Timestamp) {
        if self.notice.is_none() {
            self.put_up(Notice { since: now, at: now, error: Some(error.clone()), is_told: false });
        }
        let id = format!("{:013}-{}", now.ms(), message.id);
        self.changed.insert(format!("d/{id}"));
        self.letters.insert(id, Undelivered { message: message.clone(), error, at: now, is_due: false });
        self.make_room();
        self.sent(message, now);
    }

    /// Drops the oldest dead letters while there are too many; the newest one stays, whatever its size.
    fn make_room(&mut self) {
        let mut aside: usize = self.letters.values().map(|letter| letter.message.alerts.len()).sum();
        while aside > ASIDE_MAX && self.letters.len() > 1 {
            let Some((id, letter)) = self.letters.pop_first() else { return };
            aside -= letter.message.alerts.len();
            self.gone += 1;
            self.changed.insert(format!("d/{id}"));
        }
    }

    /// Redrives all dead letters; returns how many. Outdated alert states are dropped instead. If the
    /// beginning of an alert were sent after its end, the alert would stay open at the target for ever.
    pub(crate) fn redrive(&mut self, now: Timestamp) -> usize {
        self.drop_outdated();
        let mut count = 0;
        for (id, letter) in self.letters.iter_mut().filter(|(_, letter)| !letter.is_due) {
            letter.is_due = true;
            count += 1;
            self.changed.insert(format!("d/{id}"));
        }
        let is_clear = count > 0 || self.letters.is_empty();
        if let Some(notice) = self.notice.take_if(|_| is_clear) {
            self.put_up(Notice { at: now, error: None, is_told: false, ..notice });
        }
        count
    }

    /// Removes an alert from the dead letters if the target already received a later state of it.
    fn drop_outdated(&mut self) {
        // The newest dead letter of an alert decides for all of them, because they are sent in order.
        let mut newest: BTreeMap<&str, &Transition> = BTreeMap::new();
        for alert in self.letters.values().flat_map(|letter| &letter.message.alerts) {
            let known = newest.entry(&alert.id).or_insert(alert);
            *known = if alert.seq > known.seq { alert } else { known };
        }
        let is_outdated = |alert: &&Transition| {
            // An episode is forgotten once its end was delivered.
            let told = |episode: &Episode| episode.told.is_some_and(|told| told.seq > alert.seq);
            alert.is_active() && self.episodes.get(&alert.id).is_none_or(told)
        };
        let outdated: BTreeSet<String> =
            newest.into_values().filter(is_outdated).map(|alert| alert.id.clone()).collect();
        for (id, letter) in self.letters.iter_mut().filter(|(_, letter)| !letter.is_due) {
            let before = letter.message.alerts.len();
            letter.message.alerts.retain(|alert| !outdated.contains(&alert.id));
            if letter.message.alerts.len() < before {
                self.changed.insert(format!("d/{id}"));
            }
        }
        let before = self.letters.len();
        self.letters.retain(|_, letter| !letter.message.alerts.is_empty());
        self.gone += (before - self.letters.len()) as u64;
    }

    /// Returns the notice that the other receivers do not have yet.
    pub(crate) fn untold(&self) -> Option<&Notice> {
        self.notice.as_ref().filter(|notice| !notice.is_told)
    }

    /// Records that the other receivers have the notice.
    pub(crate) fn others_noticed(&mut self) {
        let Some(notice) = self.notice.take() else { return };
        self.changed.insert(NOTICE.into());
        self.notice = notice.error.is_some().then_some(Notice { is_told: true, ..notice });
    }

    fn put_up(&mut self, notice: Notice) {
        self.notice = Some(notice);
        self.changed.insert(NOTICE.into());
    }
}
