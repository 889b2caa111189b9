//! The shell around the pure engine: it feeds records to the engine in order and carries out the effects.

pub mod ahead;
pub mod applier;
pub mod backtest;
pub mod book;
mod care;
pub mod continuity;
pub mod file;
pub mod fleet;
pub mod mutant;
pub mod notify;
pub mod outage;
pub mod owner;
pub mod ports;
pub mod replay;
pub mod sealed;
pub mod sentinel;
pub mod share;
pub mod tally;
mod term;
pub mod window_sink;
pub mod worker;
