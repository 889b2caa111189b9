//! The engine: pure, synchronous, a function of the log.
//!
//! Call contract: [`Engine::handle`] one record, then drain the [`Effects`]; ask
//! [`Engine::next_wake`] when to append a tick if nothing else comes. Nothing here knows the time
//! of day, draws random numbers, reads the environment, does I/O or logs; `tests/tidy.rs` fails
//! when it tries. Equal logs give equal effects, byte for byte.
//!
//! Start reading at [`engine`], then [`window`] (what is measured), [`view`] (what rules read),
//! [`rule`] (what is judged) and [`alert`] (what becomes of it).

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
