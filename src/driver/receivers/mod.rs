//! Delivery of alerts: one thread per receiver, from the alert stream to the receiver's channel.
//!
//! Intuition: the owner of a receiver's lease folds the stream into the receiver's inbox, sends what is due
//! and records each delivery. Invariant: transitions that were taken in are persisted before the stream is
//! acknowledged, and a delivery is persisted before the next message is sent; so a crash repeats at most one
//! message and loses none. A receiver that does not answer blocks only itself.
//! Rejected: acknowledging to the broker after delivery (a group waits for minutes, and a redelivered message
//! comes after younger ones), and marking a message before sending it as well (the message id already lets a
//! target recognise a repeat).

mod attempt;
pub(crate) mod canary;
pub(crate) mod metrics;
pub mod ports;
mod registry;
pub(crate) mod self_alerts;
#[cfg(test)]
mod tests;
mod worker;

pub use attempt::Attempts;
pub use registry::{ReceiverRegistry, RedriveError};
pub use worker::{Order, Receiver, start};
