//! Channels: each file delivers to one kind of target. The channels do not depend on each other.

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
pub mod smtp;
pub mod teams;
mod text;
pub mod webhook;
pub mod wording;

#[cfg(test)]
mod tests;
