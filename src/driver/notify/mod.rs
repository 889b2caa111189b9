//! Delivering alerts: one thread a receiver, from the alert stream to the person.
//!
//! Intuition: whoever holds a receiver's lease folds the stream into its inbox, sends what is due and writes
//! down that it arrived. Invariant: what was taken in is written before the stream is told so, and what
//! arrived is written before the next message goes; so a crash repeats at most one message, and loses none.
//! A receiver that does not answer holds only itself up.
//! Rejected: acknowledging to the broker after delivery (a group waits for minutes, and a redelivered message
//! comes after younger ones), marking before sending as well (the id says the same to whoever can tell).

mod attempt;
pub mod canary;
mod desk;
mod office;
pub mod own;
pub mod ports;
pub mod post;

pub use attempt::Attempts;
pub use desk::{Order, Receiver, start};
pub use office::{Office, RedriveError};
