//! Adapters: one outside system each. The adapters do not depend on each other.

pub mod clock;
pub mod embedded;
pub mod nats;
pub mod notify;
pub mod redis;
