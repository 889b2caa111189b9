//! Channels: each file one way to a person or a program. They do not know each other.

pub mod address;
pub mod alertmanager;
pub mod discord;
pub mod email;
pub mod exec;
pub mod heartbeat;
pub mod hook;
pub mod http;
pub mod log;
pub mod nats;
pub mod pagerduty;
pub mod secret;
pub mod slack;
pub mod teams;
mod text;
pub mod webhook;
pub mod wording;

#[cfg(test)]
mod tests;
