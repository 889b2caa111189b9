//! Which receiver is notified of what, and when: routes, groups and limits. `driver::notify` does the
//! sending.
//!
//! Intuition: a receiver has an inbox that folds the alert stream into what the receiver does not know yet,
//! and hands out one message at a time. Invariant: a receiver that was notified of a firing alert is notified
//! of its end once, whatever happens in between; a message that was handed out stays due until
//! [`inbox::Inbox::sent`] reports its delivery. The state consists of plain rows, so a restarted process
//! continues where it stopped.
//! Rejected: one queue for all receivers (a dead receiver would block the others), dropping messages that
//! could not be sent.

pub(crate) mod bucket;
pub(crate) mod episode;
mod group;
pub(crate) mod inbox;
pub(crate) mod message;
mod queue;
pub(crate) mod route;
pub(crate) mod undelivered;

#[cfg(test)]
mod tests;

pub(crate) use inbox::{Inbox, Policy, Style};
pub(crate) use message::{Message, Why};
pub(crate) use route::{GroupBy, Grouping, Route, Routes};
