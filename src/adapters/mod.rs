//! One outside system each; they do not know each other.

pub mod clock;
pub mod embedded;
pub mod nats;
pub mod notify;
pub mod redis;
