//! Adapters: each connects the program to one external system. The adapters do not depend on each other.

pub mod clock;
pub mod embedded;
pub mod nats;
pub(crate) mod notify;
pub mod redis;
