//! One suite for each port of the owner and of the receivers, run over both of its implementations: the embedded
//! one, and the one over NATS or Redis.
//!
//! The owner's protocol is the same over both, so whatever it relies on is asked here of both. A suite is a
//! function over the port's trait; `open` opens the implementation again, as a process that is started again does.

#[allow(dead_code)] // shared with tests/embedded
#[path = "../embedded/edge.rs"]
mod edge;
#[allow(dead_code)] // shared with tests/live
#[path = "../embedded/fixture.rs"]
mod fixture;
mod log;
mod receivers;
#[allow(dead_code)] // shared with tests/live, which needs all of it
#[path = "../live/servers.rs"]
mod servers;
mod store;

use servers::Servers;
use std::path::Path;
use std::time::Duration;
use streamgauge::adapters::clock::SystemClock;
use streamgauge::adapters::embedded::{Embedded, EmbeddedFeed, EmbeddedStore};
use streamgauge::adapters::nats::{self, Bus};
use streamgauge::adapters::redis::{self, RedisStore};
use streamgauge::core::vocab::partition::Partition;
use streamgauge::driver::outage::Outages;
use streamgauge::driver::receivers::ReceiverRegistry;
use tokio::runtime::Runtime;

/// A lease after whose end a former owner is fenced; the suites wait for it.
const LEASE: Duration = Duration::from_millis(500);

fn embedded_feed(data: &Embedded) -> EmbeddedFeed<SystemClock> {
    EmbeddedFeed::new(data.clone(), SystemClock, Outages::default(), Box::new(ReceiverRegistry::default()))
}

fn embedded_store(dir: &Path) -> (EmbeddedStore, Embedded) {
    let data = Embedded::open(dir).expect("a data dir");
    (EmbeddedStore::new(data.clone(), Outages::default()), data)
}

fn bus(runtime: &Runtime, servers: &Servers) -> Bus {
    let settings = nats::Settings {
        url: servers.nats_url(),
        root: "sg".into(),
        partition: Partition::default(),
        outages: Outages::default(),
        signing: Default::default(),
    };
    Bus::open(runtime.handle().clone(), &settings).expect("a broker")
}

/// Returns the settings of a Redis that has begun to answer.
fn redis_settings(servers: &Servers) -> redis::Settings {
    while std::net::TcpStream::connect(("127.0.0.1", servers.redis_port)).is_err() {
        edge::pause();
    }
    redis::Settings {
        url: format!("redis://127.0.0.1:{}", servers.redis_port),
        prefix: "sg".into(),
        partition: Partition::default(),
        lease: LEASE,
        outages: Outages::default(),
    }
}

fn redis_store(servers: &Servers) -> (redis::Shared, redis::Shared) {
    let open =
        |is_owner| redis::Shared::new(RedisStore::new(&redis_settings(servers), is_owner).expect("a store"));
    (open(true), open(false))
}
