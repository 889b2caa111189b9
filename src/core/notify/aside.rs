//! What lies aside of a receiver: messages that could not be delivered, and what the other receivers know of it.
//!
//! Intuition: that something lies aside is an alert, too, which fires with the first message and ends when they
//! are taken up again. Invariant: what the others are to know is written down before they are told, and that they
//! were told after it; so after a crash they are told the same again. Rejected: telling them first (another
//! time of the first message is another alert, which nobody would end).

use super::super::time::Timestamp;
use super::inbox::Inbox;
use super::message::Message;
use serde::{Deserialize, Serialize};

/// Alerts in the messages that lie aside: 10,000 × 3 KiB = 30 MiB. The oldest messages go.
pub const ASIDE_MAX: usize = 10_000;

/// The row of what the others are to know.
pub(super) const NOTICE: &str = "notice";

/// A message that could not be delivered, for people to look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    pub message: Message,
    pub error: String,
    pub at: Timestamp,
    /// It was taken up again, and lies here until it arrives.
    #[serde(default)]
    is_due: bool,
}

/// What the other receivers are to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// When the first message was put aside.
    pub since: Timestamp,
    /// When it began, or ended.
    pub at: Timestamp,
    /// Why it was; `None`: they were taken up again.
    pub error: Option<String>,
    is_told: bool,
}

impl Inbox {
    /// What nobody has taken up again.
    pub fn letters(&self) -> impl Iterator<Item = &Letter> {
        self.letters.values().filter(|letter| !letter.is_due)
    }

    /// The first of those that were taken up again; they are older than the others.
    pub(super) fn again(&self) -> Option<(&String, &Message)> {
        let due = self.letters.iter().find(|(_, letter)| letter.is_due);
        due.map(|(id, letter)| (id, &letter.message))
    }

    /// Whether a message was one of those, which need not lie here any longer.
    pub(super) fn is_sent_again(&mut self, message: &Message) -> bool {
        let found = self.again().filter(|(_, again)| again.id == message.id).map(|(id, _)| id.clone());
        let Some(id) = found else { return false };
        self.changed.insert(format!("d/{id}"));
        self.letters.remove(&id).is_some()
    }

    /// Puts a message aside that cannot be delivered; what it says counts as told, so that its end is tried.
    pub fn give_up(&mut self, message: &Message, error: String, now: Timestamp) {
        if self.notice.is_none() {
            self.put_up(Notice { since: now, at: now, error: Some(error.clone()), is_told: false });
        }
        let id = format!("{:013}-{}", now.ms(), message.id);
        self.changed.insert(format!("d/{id}"));
        self.letters.insert(id, Letter { message: message.clone(), error, at: now, is_due: false });
        self.make_room();
        self.sent(message, now);
    }

    /// The oldest of what lies aside goes where it is too much; the newest stays, whatever its size.
    fn make_room(&mut self) {
        let mut aside: usize = self.letters.values().map(|letter| letter.message.alerts.len()).sum();
        while aside > ASIDE_MAX && self.letters.len() > 1 {
            let Some((id, letter)) = self.letters.pop_first() else { return };
            aside -= letter.message.alerts.len();
            self.gone += 1;
            self.changed.insert(format!("d/{id}"));
        }
    }

    /// Takes all messages that were put aside up again; how many.
    pub fn redrive(&mut self, now: Timestamp) -> usize {
        let mut count = 0;
        for (id, letter) in self.letters.iter_mut().filter(|(_, letter)| !letter.is_due) {
            letter.is_due = true;
            count += 1;
            self.changed.insert(format!("d/{id}"));
        }
        if let Some(notice) = self.notice.take_if(|_| count > 0) {
            self.put_up(Notice { at: now, error: None, is_told: false, ..notice });
        }
        count
    }

    /// What the others are to be told.
    pub fn untold(&self) -> Option<&Notice> {
        self.notice.as_ref().filter(|notice| !notice.is_told)
    }

    /// They were.
    pub fn others_noticed(&mut self) {
        let Some(notice) = self.notice.take() else { return };
        self.changed.insert(NOTICE.into());
        self.notice = notice.error.is_some().then_some(Notice { is_told: true, ..notice });
    }

    fn put_up(&mut self, notice: Notice) {
        self.notice = Some(notice);
        self.changed.insert(NOTICE.into());
    }
}
