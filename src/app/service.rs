//! The service in one process: workers, stores and the HTTP server, either embedded or with NATS and Redis.

use super::receivers::Receivers;
use super::role::Roles;
use super::rules_keeper::{self, First, RulesKeeper};
use super::telling::Telling;
use crate::adapters::clock::SystemClock;
use crate::adapters::nats::micro::Answerer;
use crate::adapters::nats::{self, Bus};
use crate::adapters::redis::{self, RedisStore};
use crate::core::vocab::limits::Limits;
use crate::core::vocab::partition::Partition;
use crate::driver::command::{self, Command, Sender, StartError};
use crate::driver::fleet;
use crate::driver::metrics::OwnerMetrics;
use crate::driver::outage::Outages;
use crate::driver::owner::{self, Owner};
use crate::driver::port_error::chain;
use crate::driver::ports::{Clock, Intake, PortError, RequestId, Views};
use crate::driver::quota::OwnershipQuota;
use crate::driver::receivers::{ReceiverRegistry, canary};
use crate::driver::rule_documents::{RuleDocumentStore, RuleDocuments};
use crate::http::access::Access;
use crate::http::operate::{OperatorRequest, names, operate};
use crate::http::{self, Shared};
use crate::pipeline::document::Documents;
use crate::wire::signature::Signing;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

/// A running service.
#[derive(Debug)]
pub struct Service<S> {
    pub address: SocketAddr,
    /// The command channels of the workers, one for each log, the aggregate partition's last.
    pub workers: Vec<Sender>,
    /// Receives the reason when a worker ends by itself.
    pub ended: tokio::sync::mpsc::Receiver<StartError>,
    pub rules_keeper: RulesKeeper,
    shared: Arc<Shared<S>>,
    threads: Vec<JoinHandle<()>>,
    telling: Telling,
    /// Dropping `fleet` ends the thread that updates this process's share of the partitions. Dropping `canary` ends
    /// the thread that sends canary events.
    fleet: Option<std::sync::mpsc::Sender<()>>,
    canary: Option<std::sync::mpsc::Sender<()>>,
    server: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

/// The address that a service listens on, and its access rules.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    pub listen: SocketAddr,
    pub access: Arc<Access>,
}

/// The rule files of a process.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// The directory in which the files are watched; without it they are not watched.
    pub dir: Option<PathBuf>,
    pub documents: Option<Documents>,
    /// Whether the files take precedence over rules that were added over the API or are in the store.
    pub is_applying: bool,
}

/// The settings of a service that uses NATS and Redis.
#[derive(Debug, Clone)]
pub struct LiveParts {
    /// The settings of the first partition; those of the others differ only in the partition.
    pub nats: nats::Settings,
    pub redis: redis::Settings,
    pub door: HttpSettings,
    pub limits: Limits,
    pub rules: Files,
    pub snapshot_every: Duration,
    pub is_rolling_up: bool,
    pub roles: Roles,
    pub receivers: Receivers,
}

/// The components that serve one partition: the command channel of its worker, its store, and the work of the
/// worker's thread.
pub(super) struct PartitionService<S> {
    pub(super) worker: Sender,
    pub(super) store: S,
    pub(super) run: Run,
}

pub(super) type Run = Box<dyn FnOnce() -> Result<(), StartError> + Send>;

/// Binds the address first. The connections to the servers are established in the background, so the HTTP
/// server answers even while a server is unreachable.
pub async fn start_live(parts: LiveParts) -> Result<Service<redis::Shared>> {
    let listener = bind(&parts.door).await?;
    let (owner_metrics, count) = (
        Arc::new(OwnerMetrics::with(parts.nats.outages.clone(), parts.nats.signing.clone())),
        parts.nats.partition.count,
    );
    let keys = redis::Shared::new(RedisStore::new(&parts.redis, true)?);
    parts.nats.signing.read_from(Box::new(move |known| Ok(keys.alert_key(known)?)));
    let (signing, outages) = (parts.nats.signing.clone(), parts.nats.outages.clone());
    // Redis may be unreachable. Only delivery waits for the key, so a separate thread reads it.
    std::thread::Builder::new().name("alert-key".into()).spawn(move || keep_key(&signing, &outages))?;
    let intake = nats::intake::NatsIntake::open(&parts.nats).await?;
    // A single partition is not shared out: its lease alone decides who owns it.
    let share = OwnershipQuota::new(usize::from(count <= 1));
    let (mut partition_services, first) = (Vec::new(), First::default());
    for partition in Partition::logs(count) {
        // The aggregate partition does not count towards the share: its lease alone decides who owns it.
        let share = if partition.is_aggregate() { OwnershipQuota::new(1) } else { share.clone() };
        partition_services.push(partition_service(&parts, partition, share, (&owner_metrics, &first))?);
    }
    let fleet =
        if count > 1 && parts.roles.ingest { Some(keep_share(&parts.redis, share, count)?) } else { None };
    let store: Box<dyn RuleDocumentStore> = Box::new(redis::StoredRules::new(&parts.redis)?);
    let kept = KeeperInputs {
        files: parts.rules.clone(),
        store: Some(store),
        book: RuleDocuments::default(),
        first,
    };
    let (access, roles, limits) = (parts.door.access.clone(), parts.roles, parts.limits.clone());
    let telling = if roles.notify { tell(&parts).await? } else { Telling::default() };
    let intake: Arc<dyn Intake> = Arc::new(intake);
    let is_singing = roles.notify && parts.receivers.has_heartbeat();
    let canary = if is_singing { Some(sing(&intake, count, SystemClock)?) } else { None };
    // The broker itself recognises repeated requests of earlier processes.
    let appended = Vec::new();
    let serving = Serving {
        listener,
        access,
        limits,
        partition_services,
        owner_metrics,
        kept,
        fleet,
        canary,
        roles,
        telling,
        appended,
    };
    let service = serve(serving, intake)?;
    if !parts.roles.api {
        return Ok(service);
    }
    // The broker decides which clients may send requests. If tokens are configured, a request needs one as
    // well.
    let router = http::operations(service.shared.clone(), &parts.door.access);
    let answerer: Answerer = Arc::new(move |name, body, authorization| {
        Box::pin(operate(router.clone(), name, OperatorRequest { body, authorization }))
    });
    let micro = nats::micro::serve(&parts.nats, &names(), answerer).await;
    micro.map_err(|error| anyhow::anyhow!("cannot start the micro service: {error}"))?;
    Ok(service)
}

/// Starts the thread that updates this process's share of the partitions. It ends when the returned sender is
/// dropped.
fn keep_share(
    settings: &redis::Settings,
    share: OwnershipQuota,
    partitions: u32,
) -> Result<std::sync::mpsc::Sender<()>> {
    let fleet = redis::Workers::new(settings)?;
    let (stop, stopped) = std::sync::mpsc::channel();
    let outages = settings.outages.clone();
    let keep = move || fleet::keep(fleet, &share, partitions as usize, &outages, &stopped);
    std::thread::Builder::new().name("fleet".into()).spawn(keep)?;
    Ok(stop)
}

/// Starts the thread that sends the canary events. It ends when the returned sender is dropped.
pub(super) fn sing(
    intake: &Arc<dyn Intake>,
    partitions: u32,
    clock: impl Clock + Send + 'static,
) -> Result<std::sync::mpsc::Sender<()>> {
    let (stop, stopped) = std::sync::mpsc::channel();
    let intake = intake.clone();
    let keep = move || canary::keep(&intake, partitions, &clock, &stopped);
    std::thread::Builder::new().name("canary".into()).spawn(keep)?;
    Ok(stop)
}

/// Builds the [`PartitionService`] of one partition.
fn partition_service(
    parts: &LiveParts,
    partition: Partition,
    share: OwnershipQuota,
    (owner_metrics, first): (&Arc<OwnerMetrics>, &First),
) -> Result<PartitionService<redis::Shared>> {
    let nats = nats::Settings { partition, ..parts.nats.clone() };
    let redis = redis::Settings { partition, ..parts.redis.clone() };
    let store = redis::Shared::new(RedisStore::new(&redis, false)?);
    let own = redis::Shared::new(RedisStore::new(&redis, true)?);
    let limits = Limits { partition, ..parts.limits.clone() };
    let (lease, snapshot_every, is_rolling_up) = (redis.lease, parts.snapshot_every, parts.is_rolling_up);
    let is_ingesting = parts.roles.ingest;
    let (owner_metrics, first, handle) =
        (owner_metrics.clone(), first.clone(), tokio::runtime::Handle::current());
    let (worker, commands) = command::commands();
    let run: Run = Box::new(move || {
        join(&own, &nats)?;
        let feed = Bus::open(handle, &nats)?;
        owner_metrics.standing_by.add(1);
        if !is_ingesting {
            // This process owns no partition. Dropping a command tells its sender that only an owner can
            // answer.
            while commands.recv().is_ok_and(|command| !matches!(command, Command::Stop)) {}
            return Ok(());
        }
        let (store, clock) = (own, SystemClock);
        let parts = owner::SessionParts {
            feed,
            store,
            clock,
            limits,
            rules: first.wait().map(|rules| rules.within(partition)),
            lease,
            snapshot_every,
            is_rolling_up,
            share,
            owner_metrics,
        };
        Owner::new(parts, commands, super::logging::transitions()).run()
    });
    Ok(PartitionService { worker, store, run })
}

/// The name of the keys that all workers of a deployment share, in the list of outages.
const DEPLOYMENT: &str = "keys of the deployment";

/// Joins the deployment. While a shared key is unreadable, it retries until an operator has repaired the key.
fn join(own: &redis::Shared, nats: &nats::Settings) -> Result<(), PortError> {
    loop {
        let joined = own.claim().and_then(|()| nats.signing.reread().map_err(PortError::of_alert_key));
        let Err(error @ PortError::Unreadable { .. }) = joined else {
            nats.outages.end(DEPLOYMENT);
            return joined;
        };
        if nats.outages.is_giving_up() {
            return Err(PortError::Stopping { place: "the deployment".into() });
        }
        nats.outages.begin(DEPLOYMENT, "Redis", &chain(&error));
        std::thread::sleep(KEY_RETRY_EVERY);
    }
}

/// Reads the signing key of alerts periodically. No notification is delivered before the key is known. If Redis has
/// lost only this key, the read writes it back before another process creates a new one.
fn keep_key(signing: &Signing, outages: &Outages) {
    let mut is_unread = false;
    loop {
        match signing.reread() {
            Err(error) if matches!(error.downcast_ref(), Some(PortError::Stopping { .. })) => return,
            Err(error) => {
                outages.begin(DEPLOYMENT, "Redis", &error);
                is_unread = true;
            }
            Ok(()) if std::mem::take(&mut is_unread) => outages.end(DEPLOYMENT),
            Ok(()) => {}
        }
        std::thread::sleep(if is_unread { KEY_RETRY_EVERY } else { KEY_EVERY });
    }
}

/// Time between two reads of the signing key of alerts.
const KEY_EVERY: Duration = Duration::from_secs(2);

/// Time between two attempts to read the keys of the deployment.
const KEY_RETRY_EVERY: Duration = Duration::from_secs(5);

/// Starts a thread for each receiver, fed by the alert stream. The process that holds a receiver's lease
/// delivers its notifications.
async fn tell(parts: &LiveParts) -> Result<Telling> {
    let handle = tokio::runtime::Handle::current();
    let mut feeds = BTreeMap::new();
    for receiver in &parts.receivers.all {
        let name = receiver.policy.name.to_string();
        let feed = nats::alerts::Alerts::open(handle.clone(), &parts.nats, &name).await?;
        let others = nats::alerts::Beside::new(&feed, &parts.nats, &name);
        feeds.insert(name, (feed, others));
    }
    Telling::start(&parts.receivers, SystemClock, |name| {
        let notification_log = redis::SharedNotificationLog::new(&parts.redis, name)?;
        // The loop above opened a feed for each receiver.
        let ways = feeds.remove(name);
        let (feed, others) = ways.with_context(|| format!("cannot open the alert stream for {name}"))?;
        Ok((feed, notification_log, Some(Box::new(others))))
    })
}

pub(super) async fn bind(door: &HttpSettings) -> Result<TcpListener> {
    if !door.listen.ip().is_loopback() && door.access.tokens.is_empty() {
        let message = format!(
            "listening on {} needs a token: set STREAMGAUGE_TOKEN, or `tokens` in the configuration",
            door.listen
        );
        return Err(super::BadConfig(message).into());
    }
    let listener = listen(door.listen);
    listener.with_context(|| format!("cannot listen on {}; is another process there?", door.listen))
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A port can then be bound at once after an earlier process released it.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING_CONNECTIONS)
}

/// Length of the listen backlog. It exceeds the maximum number of open connections, because a client that
/// finds the backlog full retries only after a second.
const WAITING_CONNECTIONS: u32 = 4_096;

/// The initial inputs of the rules keeper.
pub(super) struct KeeperInputs {
    pub(super) files: Files,
    pub(super) store: Option<Box<dyn RuleDocumentStore>>,
    pub(super) book: RuleDocuments,
    pub(super) first: First,
}

impl KeeperInputs {
    /// Starts the keeper of the rules.
    fn keeper(
        self,
        workers: Vec<Sender>,
        owner_metrics: Arc<OwnerMetrics>,
        intake: Arc<dyn Intake>,
    ) -> Result<RulesKeeper> {
        let KeeperInputs { files: Files { dir, is_applying, .. }, store, book, first } = self;
        let parts = rules_keeper::KeeperParts {
            first,
            dir,
            is_applying,
            store,
            book,
            workers,
            owner_metrics,
            intake,
        };
        Ok(RulesKeeper::open(parts)?)
    }
}

pub(super) struct Serving<S> {
    pub(super) listener: TcpListener,
    pub(super) access: Arc<Access>,
    pub(super) limits: Limits,
    pub(super) partition_services: Vec<PartitionService<S>>,
    pub(super) owner_metrics: Arc<OwnerMetrics>,
    pub(super) kept: KeeperInputs,
    pub(super) fleet: Option<std::sync::mpsc::Sender<()>>,
    pub(super) canary: Option<std::sync::mpsc::Sender<()>>,
    pub(super) roles: Roles,
    pub(super) telling: Telling,
    /// Requests that an earlier process appended.
    pub(super) appended: Vec<(Duration, RequestId)>,
}

pub(super) fn serve<S: Views + Send + Sync + 'static>(
    parts: Serving<S>,
    intake: Arc<dyn Intake>,
) -> Result<Service<S>> {
    let Serving {
        listener,
        access,
        limits,
        partition_services,
        owner_metrics,
        kept,
        fleet,
        canary,
        roles,
        telling,
        appended,
    } = parts;
    let address = listener.local_addr()?;
    let (tell, ended) = tokio::sync::mpsc::channel(partition_services.len());
    let (mut workers, mut partitions, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    for (index, partition_service) in partition_services.into_iter().enumerate() {
        let tell = tell.clone();
        let work = move || match (partition_service.run)() {
            Ok(()) | Err(StartError::Port(PortError::Stopping { .. })) => {}
            // The channel has capacity for every worker. While the process is stopping, nothing receives from
            // it.
            Err(error) => drop(tell.try_send(error)),
        };
        threads.push(std::thread::Builder::new().name(format!("worker-{index}")).spawn(work)?);
        workers.push(partition_service.worker.clone());
        partitions.push(http::Partition { worker: partition_service.worker, store: partition_service.store });
    }
    let rules_keeper = kept.keeper(workers.clone(), owner_metrics.clone(), intake.clone())?;
    let rules_api = Arc::new(rules_keeper.clone());
    let registry = telling.registry.clone();
    let now = SystemClock::time;
    let values_per_source_per_sec_max = access.values_per_source_per_sec_max;
    let parts = http::SharedParts {
        partitions,
        intake,
        owner_metrics,
        rules_api,
        limits,
        now,
        registry,
        values_per_source_per_sec_max,
        appended,
    };
    let shared = Shared::new(parts);
    let stop = CancellationToken::new();
    let router = match roles.api {
        true => http::router(shared.clone(), &access),
        false if roles.notify => http::receivers(shared.clone(), &access),
        false => http::probes(shared.clone(), &access),
    };
    let server = http::server::serve(listener, router, shared.connections.clone(), stop.clone());
    let server = tokio::spawn(server);
    Ok(Service {
        address,
        workers,
        ended,
        rules_keeper,
        shared,
        threads,
        telling,
        fleet,
        canary,
        server,
        stop,
    })
}

/// Sends the stop command to a worker. The channel may be full, because a worker that waits for a server
/// reads no commands.
fn stop_worker(worker: &Sender, outages: &Outages) {
    let mut command = Command::Stop;
    // If the worker is gone, it has already stopped.
    while let Err(std::sync::mpsc::TrySendError::Full(waiting)) = worker.try_send(command) {
        if outages.is_giving_up() {
            return;
        }
        command = waiting;
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

impl<S: Views + Send + Sync + 'static> Service<S> {
    /// The receivers of this process.
    pub fn registry(&self) -> ReceiverRegistry {
        self.telling.registry.clone()
    }

    /// Stops intake, finishes accepted work, commits it and takes snapshots, all within `grace`.
    pub async fn drain(self, grace: Duration) -> Result<()> {
        self.shared.is_ready.store(false, Ordering::Relaxed);
        self.stop.cancel();
        drop((self.fleet, self.canary));
        // Connections that do not end within half of `grace` are closed. Their requests were not
        // acknowledged.
        let server = tokio::time::timeout(grace / 2, self.server);
        let (workers, threads, telling) = (self.workers, self.threads, self.telling);
        let outages = self.shared.owner_metrics.outages.clone();
        let given_up = outages.clone();
        let mut stopped = tokio::task::spawn_blocking(move || {
            workers.iter().for_each(|worker| stop_worker(worker, &given_up));
            threads.into_iter().for_each(|thread| drop(thread.join()));
            // The receivers stop after the workers, so that the workers' last transitions can still be
            // delivered.
            telling.stop();
        });
        let begun = tokio::time::Instant::now();
        let _ = server.await;
        let patience = (grace * 3 / 5).saturating_sub(begun.elapsed());
        if tokio::time::timeout(patience, &mut stopped).await.is_ok() {
            return Ok(());
        }
        // From here on no thread waits for an unreachable server. Acknowledged events are already in the log.
        outages.give_up();
        let rest = grace.saturating_sub(begun.elapsed());
        match tokio::time::timeout(rest, stopped).await {
            Ok(_) => Ok(()),
            Err(_) if outages.is_any() => {
                tracing::warn!("stopping while a server is down; what was acknowledged is safe in the log");
                Ok(())
            }
            Err(_) => {
                let seconds = grace.as_secs_f64();
                anyhow::bail!("did not finish within {seconds} s; what was acknowledged is safe in the log")
            }
        }
    }
}
