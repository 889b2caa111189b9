//! The vocabulary: small types that all modules of the core share, from times to selectors.
//!
//! Invariant: nothing here depends on another module of the core. The types are data with their own arithmetic;
//! none of them holds the state of a log.

pub(crate) mod aggregate;
pub mod calendar;
pub mod comparison;
pub mod counters;
pub(crate) mod escalation;
pub mod identity;
pub mod key;
pub mod limits;
pub mod partition;
pub(crate) mod pattern;
pub(crate) mod pipeline;
pub(crate) mod selector;
pub mod series_info;
pub mod severity;
pub(crate) mod time;
pub mod unit;
