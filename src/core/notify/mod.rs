//! Who is told what, and when: routes, groups, limits; sending is somebody else's.
//!
//! Intuition: a receiver is an inbox that folds the alert stream into what its person does not know yet, and
//! hands out one message at a time. Invariant: whoever was told that an alert fires is told once that it ended,
//! whatever happens in between; what was handed out stays due until [`inbox::Inbox::sent`] says that it
//! arrived. State is plain rows, so a restart goes on where it stopped.
//! Rejected: one queue for all receivers (a dead one holds the others up), forgetting what could not be sent.

pub mod aside;
pub mod bucket;
pub mod episode;
mod group;
pub mod inbox;
mod line;
pub mod message;
pub mod route;

#[cfg(test)]
mod tests;

pub use inbox::{Inbox, Policy, Style};
pub use message::{Message, Why};
pub use route::{GroupBy, Grouping, Route, Routes};
