//! Channels: each file delivers to one kind of target. The channels do not depend on each other.

pub(crate) mod address;
pub(crate) mod alertmanager;
pub(crate) mod discord;
pub(crate) mod email;
pub(crate) mod exec;
pub(crate) mod heartbeat;
pub(crate) mod hook;
pub(crate) mod http;
pub(crate) mod log;
pub(crate) mod nats;
pub(crate) mod pagerduty;
pub(crate) mod secret;
pub(crate) mod slack;
pub(crate) mod smtp;
pub(crate) mod teams;
mod text;
pub(crate) mod webhook;
pub(crate) mod wording;

#[cfg(test)]
mod tests;
