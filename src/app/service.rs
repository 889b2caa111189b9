//! The embedded service: worker, store and HTTP in one process.

use crate::adapters::embedded::Embedded;
use crate::core::limits::Limits;
use crate::core::rule::RuleSet;
use crate::driver::ports::Clock;
use crate::driver::worker::{Command, Publish, Sender, Worker};
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
pub struct Service {
    pub address: SocketAddr,
    pub worker: Sender,
    shared: Arc<Shared<Embedded>>,
    thread: JoinHandle<()>,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
}

/// What a service is made of.
pub struct Parts<'a, C> {
    pub data_dir: &'a Path,
    pub listen: SocketAddr,
    pub token: Option<String>,
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

/// Restores what is durable, binds the address, and starts.
pub async fn start<C: Clock + 'static>(parts: Parts<'_, C>) -> Result<Service> {
    if !parts.listen.ip().is_loopback() && parts.token.is_none() {
        let message = format!("listening on {} needs a token: set STREAMGAUGE_TOKEN", parts.listen);
        return Err(super::BadConfig(message).into());
    }
    let listener = TcpListener::bind(parts.listen)
        .await
        .with_context(|| format!("cannot listen on {}; is another process there?", parts.listen))?;
    let address = listener.local_addr()?;
    let store = Embedded::open(parts.data_dir)?;
    let (worker, sender) =
        Worker::start(store.clone(), parts.clock, parts.limits, parts.rules, parts.publish)?;
    let thread = std::thread::Builder::new().name("worker".into()).spawn(move || worker.run())?;
    let shared = Shared::new(sender.clone(), store);
    let stop = CancellationToken::new();
    let router = http::router(shared.clone(), parts.token);
    let stopped = stop.clone();
    let server = tokio::spawn(async move {
        axum::serve(listener, router).with_graceful_shutdown(async move { stopped.cancelled().await }).await
    });
    Ok(Service { address, worker: sender, shared, thread, server, stop })
}

impl Service {
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
