//! `streamgauge run`: the service, until a signal says otherwise.

use super::cli::RunArgs;
use super::config::Config;
use super::role::Roles;
use super::service::{self, Door, Files, LiveParts, Parts, Service};
use super::{FINE, check};
use crate::adapters::clock::SystemClock;
use crate::driver::ports::Views;
use crate::driver::worker::Publish;
use crate::pipeline::document;
use anyhow::{Context, Result};
use std::path::PathBuf;

pub fn run(args: &RunArgs) -> Result<u8> {
    let (roles, config) = (Roles::parse(&args.role)?, Config::read(args)?);
    if roles != Roles::ALL && config.servers.is_none() {
        let message = "--role divides the work of a deployment: it needs --nats and --redis";
        return Err(super::BadConfig(message.into()).into());
    }
    start_tracing();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    runtime.block_on(serve(&config, roles))
}

async fn serve(config: &Config, roles: Roles) -> Result<u8> {
    let dir = config.pipelines.as_deref();
    // A first look, for the errors: the service compiles them with what was added.
    dir.map(check::load).transpose()?;
    let documents = dir.map(document::of_dir).transpose()?;
    let rules = Files { dir: config.pipelines.clone(), documents, is_applying: config.is_applying };
    let token = std::env::var("STREAMGAUGE_TOKEN").ok().filter(|token| !token.is_empty());
    let door = Door { listen: config.listen, token };
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
            tracing::info!(address = %service.address, partitions, "listening, over nats and redis");
            watch(config, service).await
        }
        None => {
            let (data_dir, clock) = (config.data_dir.as_path(), SystemClock);
            let receivers = Some(config.receivers.clone());
            let parts = Parts { data_dir, door, limits, rules, clock, publish: tell(), receivers };
            let service = service::start(parts).await?;
            tracing::info!(address = %service.address, data_dir = %config.data_dir.display(), "listening");
            watch(config, service).await
        }
    }
}

/// Says each transition in the log.
pub fn tell() -> Publish {
    Box::new(|transition| {
        tracing::info!(
            alert = %transition.id, seq = transition.seq, change = ?transition.change,
            severity = transition.severity.name(), summary = %transition.summary, "alert"
        );
    })
}

/// Until a signal, or until the worker cannot go on.
async fn watch<S: Views + Send + Sync + 'static>(config: &Config, mut service: Service<S>) -> Result<u8> {
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = hangup.recv() => service.rulebook.reload(),
            _ = terminate.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
            ended = service.ended.recv() => return Err(match ended {
                Some(error) => error.into(),
                None => anyhow::anyhow!("the worker has ended without a word; see the log above"),
            }),
        }
    }
    tracing::info!("stopping");
    service.drain(config.grace).await?;
    Ok(FINE)
}

/// `$XDG_DATA_HOME/streamgauge`, or its default.
pub fn default_data_dir() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    base.unwrap_or_else(|| ".".into()).join("streamgauge")
}

/// Text on a terminal, JSON elsewhere; `RUST_LOG` and `NO_COLOR` are honoured.
fn start_tracing() {
    use std::io::IsTerminal;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.with_ansi(std::env::var_os("NO_COLOR").is_none()).init();
    } else {
        builder.json().init();
    }
}
