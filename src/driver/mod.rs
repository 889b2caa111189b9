//! The shell around the engine: brings records in order, carries effects out.

pub mod applier;
pub mod file;
pub mod owner;
pub mod ports;
pub mod replay;
pub mod sealed;
pub mod window_sink;
pub mod worker;
