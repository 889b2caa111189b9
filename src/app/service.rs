//! The embedded service: worker, store and HTTP in one process.

use crate::adapters::clock::SystemClock;
use crate::adapters::embedded::Embedded;
use crate::adapters::nats::{self, Bus};
use crate::adapters::redis::{self, RedisStore};
use crate::core::limits::Limits;
use crate::core::rule::RuleSet;
use crate::driver::owner::{self, Owner};
use crate::driver::ports::{Clock, Store};
use crate::driver::share::Share;
use crate::driver::tally::Tally;
use crate::driver::worker::{Command, Publish, Sender, StartError, Worker};
use crate::http::{self, Shared};
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A service that runs.
#[derive(Debug)]
pub struct Service<S> {
    pub address: SocketAddr,
    pub worker: Sender,
    /// Says why the worker ended, if it ends by itself.
    pub ended: tokio::sync::oneshot::Receiver<StartError>,
    shared: Arc<Shared<S>>,
    thread: JoinHandle<()>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
}

/// Where a service listens, and who may ask.
#[derive(Debug, Clone)]
pub struct Door {
    pub listen: SocketAddr,
    pub token: Option<String>,
}

/// What an embedded service is made of.
pub struct Parts<'a, C> {
    pub data_dir: &'a Path,
    pub door: Door,
    pub limits: Limits,
    pub rules: Option<RuleSet>,
    pub clock: C,
    pub publish: Publish,
}

impl<C> std::fmt::Debug for Parts<'_, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// A service over servers.
#[derive(Debug, Clone)]
pub struct LiveParts {
    pub nats: nats::Settings,
    pub redis: redis::Settings,
    pub door: Door,
    pub limits: Limits,
    pub rules: Option<RuleSet>,
    pub snapshot_every: Duration,
}

/// Restores what is durable, binds the address, and starts.
pub async fn start<C: Clock + Send + 'static>(parts: Parts<'_, C>) -> Result<Service<Embedded>> {
    let listener = bind(&parts.door).await?;
    let store = Embedded::open(parts.data_dir)?;
    let (worker, sender) =
        Worker::start(store.clone(), parts.clock, parts.limits, parts.rules, parts.publish)?;
    let run = move || {
        worker.run();
        Ok(())
    };
    serve(listener, parts.door.token, sender, store, run)
}

/// Opens the door at once; whatever it takes to reach the servers happens behind it.
pub async fn start_live(parts: LiveParts, publish: Publish) -> Result<Service<redis::Shared>> {
    let listener = bind(&parts.door).await?;
    let views = redis::Shared::new(RedisStore::new(&parts.redis, false)?);
    let store = redis::Shared::new(RedisStore::new(&parts.redis, true)?);
    let handle = tokio::runtime::Handle::current();
    let (lease, limits, rules) = (parts.redis.lease, parts.limits, parts.rules);
    let snapshot_every = parts.snapshot_every;
    let (sender, commands) = owner::commands();
    let run = move || {
        let feed = Bus::open(handle, &parts.nats)?;
        let (share, tally) = (Share::new(1), Arc::new(Tally::default()));
        let clock = SystemClock;
        let parts = owner::Parts { feed, store, clock, limits, rules, lease, snapshot_every, share, tally };
        Owner::new(parts, commands, publish).run()
    };
    serve(listener, parts.door.token, sender, views, run)
}

async fn bind(door: &Door) -> Result<TcpListener> {
    if !door.listen.ip().is_loopback() && door.token.is_none() {
        let message = format!("listening on {} needs a token: set STREAMGAUGE_TOKEN", door.listen);
        return Err(super::BadConfig(message).into());
    }
    let listener = TcpListener::bind(door.listen).await;
    listener.with_context(|| format!("cannot listen on {}; is another process there?", door.listen))
}

fn serve<S: Store + Send + Sync + 'static>(
    listener: TcpListener,
    token: Option<String>,
    worker: Sender,
    views: S,
    run: impl FnOnce() -> Result<(), StartError> + Send + 'static,
) -> Result<Service<S>> {
    let address = listener.local_addr()?;
    let (tell, ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("worker".into()).spawn(move || {
        if let Err(error) = run() {
            // Nobody listens any more while the process is stopping anyway.
            let _ = tell.send(error);
        }
    })?;
    let shared = Shared::new(worker.clone(), views);
    let stop = CancellationToken::new();
    let router = http::router(shared.clone(), token);
    let stopped = stop.clone();
    let server = tokio::spawn(async move {
        axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await }).await
    });
    Ok(Service { address, worker, ended, shared, thread, server, stop })
}

impl<S: Store + Send + Sync + 'static> Service<S> {
    /// Stops intake, finishes what was accepted, commits, snapshots; bounded by `grace`.
    pub async fn drain(self, grace: Duration) -> Result<()> {
        self.shared.is_ready.store(false, Ordering::Relaxed);
        self.stop.cancel();
        // Connections that do not end in time are cut: what they sent was not acknowledged.
        let _ = tokio::time::timeout(grace / 2, self.server).await;
        let (worker, thread) = (self.worker, self.thread);
        let stopped = tokio::task::spawn_blocking(move || {
            // The worker is gone already if sending fails; then there is nothing to stop.
            let _ = worker.send(Command::Stop);
            thread.join()
        });
        match tokio::time::timeout(grace, stopped).await {
            Ok(_) => Ok(()),
            Err(_) => {
                anyhow::bail!("did not finish within {grace:?}; what was acknowledged is safe in the log")
            }
        }
    }
}
