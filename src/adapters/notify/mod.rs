//! Channels: each file one way to a person or a program. They do not know each other.

pub mod http;
pub mod log;
pub mod secret;
pub mod webhook;
