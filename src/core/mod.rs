//! The engine: pure, synchronous, a function of the log.
//!
//! Call contract: pass one record to [`Engine::handle`], then drain the [`Effects`]. [`Engine::next_wake`]
//! returns the time at which the caller appends a tick if no other record arrives. No code here reads the
//! time of day, draws random numbers, reads the environment, does I/O or logs; `tests/tidy.rs` fails if it
//! does. Equal logs give equal effects, byte for byte.
//!
//! Start reading at [`engine`], then [`measure`] (the measured values), [`view`] (the data that rules read),
//! [`rule`] (the conditions), [`evaluate`] (their judgement) and [`alert`] (its result). The modules depend on each
//! other in one direction; [`vocab`], the words that all of them share, is the lowest.

pub mod alert;
pub(crate) mod arrival;
pub(crate) mod burden;
pub mod detect;
pub(crate) mod duplicates;
pub mod effect;
pub mod engine;
pub(crate) mod evaluate;
pub mod event;
pub(crate) mod gap;
pub(crate) mod inhibition;
pub(crate) mod interruption;
pub(crate) mod log_clock;
pub mod measure;
pub mod mute;
pub(crate) mod notify;
pub mod record;
pub(crate) mod refusals;
pub mod rule;
pub(crate) mod run;
pub(crate) mod steady;
pub(crate) mod view;
pub mod vocab;

pub use effect::Effects;
pub use engine::Engine;
pub use engine::inspect::Inspect;
pub use vocab::time::{Span, Timestamp};
