//! The service over real servers: nats-server and redis-server, killed under load.
//!
//! Each test starts servers of its own on free ports with directories of their own, and stops them.
//! `SG_KILLS=100 SG_PROGRESS=22000 cargo test --test live kills` runs the long form.

mod agreement;
#[path = "../embedded/answer.rs"]
mod answer;
mod counterparts;
mod desired;
#[path = "../embedded/edge.rs"]
mod edge;
mod fencing;
#[path = "../embedded/fixture.rs"]
mod fixture;
mod fleet;
mod forged;
mod kills;
mod load;
mod loss;
mod micro;
mod outages;
mod permissions;
mod poison;
mod publishing;
mod read_model;
mod recovery;
mod refusing;
mod roles;
mod secure;
mod servers;
#[allow(dead_code)] // shared with tests/embedded, which needs all of it
#[path = "../embedded/sink.rs"]
mod sink;
mod snippets;
mod strangers;
mod telling;
mod unreadable;
mod upgrade;
