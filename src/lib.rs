//! streamgauge: a gauge in the stream of your events. It measures, and warns.
//!
//! ```text
//!  services ─▶ log ─▶ ENGINE ─▶ commit ─▶ windows, alerts
//!                     pure: handle(record, &mut effects)
//! ```
//!
//! One idea: the log is the clock, the engine is a function. Equal logs give equal windows and
//! alerts, byte for byte, whether they are read live, after a restart, by `replay` or in a test.
//!
//! Rooms, each of which only knows those below it:
//!
//! | room | holds |
//! |---|---|
//! | [`app`] | commands and composition roots; the only place where concrete types meet |
//! | [`http`] | API and page; reads views, never decides |
//! | [`adapters`] | one outside system each: the embedded database, NATS, Redis, the clock |
//! | [`driver`] | brings records in order, commits effects, then publishes; files and live |
//! | [`pipeline`] | what people write: YAML, expressions, test cases → a checked rule set |
//! | [`wire`] | bytes: event codecs, windows, alerts, snapshots, schemas |
//! | [`core`] | THE ENGINE: windows, rules, alerts; pure |
//!
//! What is absent: `core` never reads a clock, a file, the environment or a random number, and
//! never logs; `http` never changes the engine but through a record of the log; no adapter knows
//! another; nothing is published before it is committed, nothing acknowledged before it is durable.
//!
//! Start reading at [`core::engine`], then [`driver::worker`] (alone) and [`driver::owner`] (one of many).

pub mod adapters;
pub mod app;
pub mod core;
pub mod driver;
pub mod http;
pub mod pipeline;
pub mod wire;

/// A key's state is a few dozen small allocations that come and go each minute, and how they lie in memory is most of
/// what reading them costs: with a hundred thousand series detectors take a third less time than with the system's
/// allocator, for two percent more memory. Here, so that benches and tests have what is shipped. Rejected: the
/// third generation of the same (no faster, four percent more memory), and jemalloc (no faster, and half as much
/// memory again with few series).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
