//! The engine: pure, synchronous, a function of the log.
//!
//! Call contract: pass one record to [`Engine::handle`], then drain the [`Effects`]. [`Engine::next_wake`]
//! returns the time at which the caller appends a tick if no other record arrives. No code here reads the
//! time of day, draws random numbers, reads the environment, does I/O or logs; `tests/tidy.rs` fails if it
//! does. Equal logs give equal effects, byte for byte.
//!
//! Start reading at [`engine`], then [`window`] (the measured values), [`view`] (the data that rules read),
//! [`rule`] (the conditions) and [`alert`] (the result of a judgement).

pub mod alert;
pub mod arrival;
pub mod asked;
pub mod calendar;
pub mod counters;
pub mod detect;
pub mod duplicates;
pub mod effect;
pub mod engine;
pub mod escalation;
pub mod event;
pub mod gap;
pub mod histogram;
pub mod identity;
pub mod inhibition;
pub mod interruption;
pub mod key;
pub mod limits;
pub mod log_clock;
pub mod mute;
pub mod notify;
pub mod packed;
pub mod pane;
pub mod partial;
pub mod partition;
pub mod pattern;
pub mod refusals;
pub mod rule;
pub mod run;
pub mod selector;
pub mod series;
pub mod steady;
pub mod time;
pub mod unit;
pub mod view;
pub mod window;

pub use effect::Effects;
pub use engine::Engine;
pub use time::{Span, Timestamp};
