//! The shell around the pure engine: it feeds records to the engine in order and carries out the effects.

pub mod applier;
pub mod backtest;
pub mod command;
pub mod continuity;
pub mod decode_ahead;
pub mod file;
pub mod fleet;
pub mod metrics;
pub mod monitor;
pub mod mutant;
pub mod outage;
pub mod owner;
mod poison;
pub mod port_error;
pub mod ports;
pub mod quota;
pub mod receivers;
pub mod record;
pub mod replay;
mod replay_output;
pub mod rule_documents;
pub mod sealed;
mod session;
pub mod window_sink;
