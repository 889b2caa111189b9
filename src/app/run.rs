//! `streamgauge run`: runs the service until a signal stops it.

use super::cli::RunArgs;
use super::config::Config;
use super::embedded::{self, EmbeddedParts};
use super::role::Roles;
use super::service::{self, Files, HttpSettings, LiveParts, Service};
use super::{BadConfig, FINE, VERSION, check, logging};
use crate::adapters::clock::SystemClock;
use crate::adapters::notify::exec;
use crate::driver::command::StartError;
use crate::driver::ports::{PortError, Views};
use crate::driver::receivers::metrics::ReceiverMetrics;
use crate::pipeline::document;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub fn run(args: &RunArgs) -> Result<u8> {
    check_threads()
        .context("cannot start threads; raise the limit of processes (ulimit -u, TasksMax, pids.max)")?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    // The runtime is never dropped: threads that still wait for a server at the end use it until the process
    // exits.
    let runtime: &'static tokio::runtime::Runtime = Box::leak(Box::new(runtime));
    // Signals are caught before any slow step, so that a signal during startup is handled instead of being
    // fatal.
    let signals = runtime.block_on(async { Signals::catch() })?;
    let (roles, config) = (Roles::parse(&args.role)?, Config::read(args)?);
    if roles != Roles::ALL && config.servers.is_none() {
        let message = "--role divides the work of a deployment: it needs --nats and --redis";
        return Err(BadConfig(message.into()).into());
    }
    let _written = logging::start();
    // Files that this process writes are accessible to its own user only.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    runtime.block_on(serve(&config, roles, signals))
}

/// Number of threads that a small service starts: the runtime, its blocking calls, the worker, receivers, the log.
/// If the system refused them later, the libraries would panic at the first request.
const THREADS_MIN: usize = 12;

/// Fails if the system refuses the threads that a service needs.
fn check_threads() -> std::io::Result<()> {
    let gate = std::sync::RwLock::new(());
    let closed = gate.write();
    std::thread::scope(|scope| {
        let begin = || std::thread::Builder::new().spawn_scoped(scope, || drop(gate.read()));
        let begun: std::io::Result<Vec<_>> = (0..THREADS_MIN).map(|_| begin()).collect();
        drop(closed);
        begun.map(drop)
    })
}

/// SIGXFSZ. Catching it turns a write beyond `ulimit -f` into an error of that write, as on a full disk,
/// instead of the end of the process.
const FILE_SIZE: SignalKind = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());

/// Catches SIGXFSZ, and for `run` also SIGHUP. This comes before everything else, because the operator may
/// send SIGHUP while the arguments are still being read.
pub fn catch_signals() {
    let is_service = std::env::args_os().nth(1).is_some_and(|word| word == "run");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    // `Signals::catch` reports an error later. Until then the signal keeps its default, fatal effect.
    let _ = runtime.map(|runtime| {
        runtime.block_on(async {
            let _ = signal(FILE_SIZE);
            if is_service {
                let _ = signal(SignalKind::hangup());
            }
        })
    });
}

/// The signals that the service handles.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> Result<Signals> {
        let catch = |kind| signal(kind).context("cannot catch signals");
        Ok(Signals {
            hangup: catch(SignalKind::hangup())?,
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
        })
    }
}

async fn serve(config: &Config, roles: Roles, signals: Signals) -> Result<u8> {
    let dir = config.pipelines.as_deref();
    // The rules are loaded here only to report their errors. The service compiles them together with those
    // that were added over the API.
    let checked = dir.map(check::load).transpose()?;
    let rules_count = checked.map_or(0, |rules| rules.rules.len());
    let documents = dir.map(document::of_dir).transpose();
    let documents = documents.map_err(|error| BadConfig(format!("{:#}", anyhow::Error::new(error))))?;
    let rules = Files { dir: config.pipelines.clone(), documents, is_applying: config.is_applying };
    let door = HttpSettings { listen: config.listen, access: Arc::new(config.access.clone()) };
    let limits = config.limits.clone();
    match &config.servers {
        Some((nats, redis)) => {
            let (nats, redis, snapshot_every) = (nats.clone(), redis.clone(), config.snapshot_every);
            let partitions = nats.partition.count;
            let is_rolling_up = config.rollups;
            let receivers = config.receivers.clone();
            let parts = LiveParts {
                nats,
                redis,
                door,
                limits,
                rules,
                snapshot_every,
                is_rolling_up,
                roles,
                receivers,
            };
            let service = service::start_live(parts).await?;
            tell_start(
                config,
                roles,
                rules_count,
                service.address,
                &format!("nats and redis, {partitions} partitions"),
            );
            watch(config, service, signals).await
        }
        None => {
            let (data_dir, clock) = (config.data_dir.as_path(), SystemClock);
            let receivers = Some(config.receivers.clone());
            let parts = EmbeddedParts {
                data_dir,
                door,
                limits,
                rules,
                clock,
                publish: logging::transitions(),
                receivers,
            };
            let service = embedded::start(parts).await?;
            let place = format!("one process, data in {}", config.data_dir.display());
            tell_start(config, roles, rules_count, service.address, &place);
            watch(config, service, signals).await
        }
    }
}

/// Logs the version, address, mode, roles, rules and receivers, because a reader of the log needs these first.
fn tell_start(config: &Config, roles: Roles, rules: usize, address: SocketAddr, mode: &str) {
    let receivers: Vec<&str> = config.receivers.all.iter().map(|receiver| &*receiver.policy.name).collect();
    let receivers = receivers.join(",");
    tracing::info!(version = VERSION, %address, mode, %roles, rules, receivers, "listening");
}

/// Runs until a signal stops the service, or until a worker cannot continue.
async fn watch<S: Views + Send + Sync + 'static>(
    config: &Config,
    mut service: Service<S>,
    mut signals: Signals,
) -> Result<u8> {
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => service.rules_keeper.reload(),
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            ended = service.ended.recv() => return Err(match ended {
                Some(StartError::Port(error @ PortError::OtherSettings { .. })) => {
                    BadConfig(error.to_string()).into()
                }
                Some(error) => error.into(),
                None => anyhow::anyhow!("the worker has ended without an error; see the log above"),
            }),
        }
    }
    tracing::info!(grace = ?config.grace, "stopping: finishing what was accepted");
    let (registry, begun) = (service.registry(), Instant::now());
    let drained = service.drain(config.grace).await;
    exec::end_all();
    drained?;
    let sum = |of: fn(&ReceiverMetrics) -> u64| registry.receivers().map(of).sum::<u64>();
    let (delivered, waiting) = (sum(|one| one.delivered.get()), sum(|one| one.waiting.get()));
    tracing::info!(took = ?begun.elapsed(), delivered, waiting, "stopped: what was accepted is committed");
    Ok(FINE)
}
