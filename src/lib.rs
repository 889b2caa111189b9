//! streamgauge rolls metrics and pipeline events into windows, judges them by rules, and sends alerts to
//! receivers.
//!
//! ```text
//!  services ─▶ log ─▶ ENGINE ─▶ commit ─▶ windows, alerts
//!                     pure: handle(record, &mut effects)
//! ```
//!
//! The central idea: the log is the only clock, and the engine is a pure function of the log. Equal logs
//! therefore give equal windows and alerts, byte for byte, whether they are read live, after a restart, by
//! `replay` or in a test.
//!
//! Modules, each of which depends only on modules below it:
//!
//! | module | contents |
//! |---|---|
//! | [`app`] | commands and composition roots; the only module that combines concrete types |
//! | [`http`] | the API and the web page; reads committed effects, never decides |
//! | [`adapters`] | one external system each: the embedded database, NATS, Redis, the clock, the receivers |
//! | [`driver`] | reads records in order, commits their effects, then publishes; from files and live |
//! | [`pipeline`] | user input: YAML, expressions and test cases, compiled to a checked rule set |
//! | [`wire`] | byte formats: event codecs, windows, alerts, snapshots, schemas |
//! | [`core`] | the engine: windows, rules, alerts; pure |
//!
//! Guarantees: `core` never reads a clock, a file, the environment or a random number, and never logs. `http`
//! changes the engine only through a record of the log. No adapter depends on another. Nothing is published
//! before it is committed, and nothing is acknowledged before it is durable.
//!
//! Start reading at [`core::engine`], then [`driver::owner`] (the process that
//! owns a partition).

#![warn(unreachable_pub)]
// The library is no public API: what is public is what the tests and benches use. Its documentation is for those
// who change it, and has the private items, too.
#![allow(rustdoc::private_intra_doc_links)]

pub mod adapters;
pub mod app;
pub mod core;
pub mod driver;
pub mod http;
pub mod pipeline;
pub mod wire;
