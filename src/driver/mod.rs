//! The shell around the pure engine: it feeds records to the engine in order and carries out the effects.

pub mod applier;
pub(crate) mod backtest;
pub mod command;
pub mod continuity;
pub(crate) mod decode_ahead;
pub(crate) mod file;
pub(crate) mod fleet;
pub mod metrics;
pub(crate) mod monitor;
pub mod mutant;
pub mod outage;
pub mod owner;
mod poison;
pub(crate) mod port_error;
pub mod ports;
pub mod quota;
pub mod receivers;
pub(crate) mod record;
pub mod replay;
mod replay_output;
pub(crate) mod rule_documents;
pub(crate) mod sealed;
mod session;
pub(crate) mod window_sink;
