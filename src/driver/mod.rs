//! The shell around the engine: brings records in order, carries effects out.

pub mod file;
pub mod replay;
pub mod sealed;
