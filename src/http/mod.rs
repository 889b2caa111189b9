//! The HTTP interface: it accepts events and changes, and answers queries from the engines of this process and from
//! the stores.
//!
//! Invariant: the cost of a request is bounded by its size. Bodies, answers, store reads and processing time
//! all have limits, and no request blocks the engine or another client.

pub(crate) mod access;
pub(crate) mod alerts;
pub(crate) mod asked;
pub(crate) mod budget;
pub(crate) mod connections;
pub mod encoding;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod guard;
pub(crate) mod idempotency;
pub(crate) mod metrics;
pub(crate) mod notify;
pub(crate) mod openapi;
pub(crate) mod operate;
pub(crate) mod page;
pub mod params;
pub(crate) mod quota;
pub(crate) mod reads;
pub(crate) mod rules;
pub(crate) mod series;
pub(crate) mod server;
pub(crate) mod views;
pub(crate) mod windows;

use crate::core::vocab::counters::Refusal;
use crate::core::vocab::limits::Limits;
use crate::core::{Inspect, Span, Timestamp};
use crate::driver::command::{Command, Sender};
use crate::driver::metrics::{Count, OwnerMetrics};
use crate::driver::outage::Outage;
use crate::driver::ports::{Entry, Intake, PortError, RequestId, Views};
use crate::driver::receivers::ReceiverRegistry;
use crate::driver::rule_documents::RulesApi;
use access::Access;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use budget::Budget;
use connections::Connections;
use idempotency::Keys;
use quota::Quota;
use reads::{Reads, Turns};
use serde_json::json;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// A partition as the HTTP handlers see it: the command channel to its owner, if the owner runs in this
/// process, and the partition's store.
#[derive(Debug)]
pub struct Partition<S> {
    pub worker: Sender,
    pub store: S,
}

type App<S> = State<Arc<Shared<S>>>;
type Answer = Result<Response, Failure>;

/// State shared by all handlers.
pub struct Shared<S> {
    pub partitions: Vec<Partition<S>>,
    pub intake: Arc<dyn Intake>,
    pub owner_metrics: Arc<OwnerMetrics>,
    pub rules_api: Arc<dyn RulesApi>,
    pub registry: ReceiverRegistry,
    pub limits: Limits,
    /// The local wall clock, used if no broker has recently reported a stamp.
    pub now: fn() -> Timestamp,
    pub keys: Arc<Keys>,
    pub questions: Turns,
    pub reads: Reads,
    /// Permits for decoding large payloads, one per processor.
    pub decodes: Arc<Semaphore>,
    pub connections: Arc<Connections>,
    pub is_ready: AtomicBool,
    pub quota: Quota,
    pub refused_at_door: RefusedAtDoor,
    pub begun: Instant,
    /// When the broker last failed to report the stamp of a record, if it ever did.
    untold: Mutex<Option<Instant>>,
}

/// Events refused before they reach the log. They are counted here because the log never contains them.
#[derive(Debug, Default)]
pub struct RefusedAtDoor([Count; Refusal::ALL.len()]);

impl RefusedAtDoor {
    pub fn add(&self, reason: Refusal, events: u64) {
        self.0[reason as usize].add(events);
    }

    pub fn of(&self, reason: Refusal) -> u64 {
        self.0[reason as usize].get()
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(Count::get).sum()
    }
}

/// The dependencies from which [`Shared`] is built.
pub struct SharedParts<S> {
    pub partitions: Vec<Partition<S>>,
    pub intake: Arc<dyn Intake>,
    pub owner_metrics: Arc<OwnerMetrics>,
    pub rules_api: Arc<dyn RulesApi>,
    pub limits: Limits,
    pub now: fn() -> Timestamp,
    pub registry: ReceiverRegistry,
    /// Values that a source may send in one second; `None` means no limit.
    pub values_per_source_per_sec_max: Option<u32>,
    /// Requests that an earlier process appended, each with its age, oldest first.
    pub appended: Vec<(Duration, RequestId)>,
}

impl<S> std::fmt::Debug for SharedParts<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("partitions", &self.partitions.len()).finish_non_exhaustive()
    }
}

impl<S> std::fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("partitions", &self.partitions.len()).finish_non_exhaustive()
    }
}

impl<S: Views + Send + Sync + 'static> Shared<S> {
    pub fn new(parts: SharedParts<S>) -> Arc<Shared<S>> {
        let SharedParts {
            partitions, intake, owner_metrics, rules_api, limits, now, registry, appended, ..
        } = parts;
        // The standard library seeds `RandomState` with random keys, so no client can predict this seed.
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), now().ms());
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Arc::new(Shared {
            partitions,
            intake,
            owner_metrics,
            rules_api,
            registry,
            limits,
            now,
            keys: Keys::new(seed, appended),
            questions: Turns::of_questions(),
            reads: Reads::default(),
            decodes: Arc::new(Semaphore::new(processors)),
            connections: Connections::new(),
            is_ready: AtomicBool::new(true),
            quota: Quota::new(parts.values_per_source_per_sec_max),
            refused_at_door: RefusedAtDoor::default(),
            begun: Instant::now(),
            untold: Mutex::default(),
        })
    }

    /// The log time as far as this process knows it: the time last reported by a broker that stamps records,
    /// else the later of the newest applied log time and the local clock.
    pub fn log_time(&self) -> Timestamp {
        self.owner_metrics.heard_time().unwrap_or_else(|| self.owner_metrics.log_time().max((self.now)()))
    }

    /// Returns the log time, or `None` if it would be a guess. If another machine stamps the log, the time is known
    /// only from a recent stamp. If the broker recently failed to report a stamp, [`Self::log_time`] is used.
    pub fn known_log_time(&self) -> Option<Timestamp> {
        match self.intake.is_stamped_elsewhere() {
            true => self.owner_metrics.heard_time().or_else(|| self.is_untold().then(|| self.log_time())),
            false => Some(self.log_time()),
        }
    }

    /// Combines a log time with the time before a clock jump that has not been accepted or rejected yet.
    fn clocks(&self, now: Timestamp) -> events::Clocks {
        let before_jump = self.owner_metrics.jumped_to().map(|_| self.owner_metrics.log_time());
        events::Clocks { now, before_jump }
    }

    /// Learns the log time from the stamp of the record that was just appended. If the record may be a repeat
    /// of an earlier one, the broker returns the earlier stamp, which does not reveal the present time and is
    /// not remembered. Falls back to [`Self::log_time`] if the broker does not report the stamp in time.
    pub async fn learn_log_time(&self, newest: Option<(u32, u64)>, is_repeatable: bool) -> Timestamp {
        let Some((partition, seq)) = newest else { return self.log_time() };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let reply = Box::new(move |result| {
            // The receiver is closed if the timeout has expired.
            let _ = sender.send(result);
        });
        self.intake.read_stamp(partition, seq, reply);
        match tokio::time::timeout(STAMP_WITHIN, receiver).await {
            Ok(Ok(Ok(stamp))) => {
                if !is_repeatable {
                    self.owner_metrics.hear(stamp);
                }
                stamp
            }
            _ => {
                *self.untold.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                self.log_time()
            }
        }
    }

    /// Returns whether the broker recently failed to report the stamp of a record; it may lack the permission
    /// for the query.
    fn is_untold(&self) -> bool {
        let untold = *self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.is_some_and(|at| at.elapsed() < ASK_STAMP_EVERY)
    }

    /// Runs `read` on one engine between two records. Returns `None` if the partition has no owner in this
    /// process or the engine does not answer in time.
    pub async fn ask_one<T: Send + 'static>(
        &self,
        place: usize,
        read: impl FnOnce(&mut Inspect<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        let partition = self.partitions.get(place)?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let command = Command::Ask(Box::new(move |engine| {
            // If the client disconnected before its turn, the read is skipped.
            if !sender.is_closed() {
                // The receiver is closed if the client disconnected during the read.
                let _ = sender.send(read(engine));
            }
        }));
        // The loop waits for room in the command queue without blocking a server thread. If the worker has
        // ended, the command is dropped together with the reply channel.
        let (mut command, begun) = (Some(command), Instant::now());
        while let Some(waiting) = command.take() {
            if self.owner_metrics.outages.is_any() && self.begun.elapsed() > ANSWER_WITHIN {
                // During an outage the worker may be waiting for a server and then reads no commands.
                if let Err(std::sync::mpsc::TrySendError::Full(_)) = partition.worker.try_send(waiting) {
                    return None;
                }
                break;
            }
            match partition.worker.try_send(waiting) {
                Ok(()) => break,
                Err(std::sync::mpsc::TrySendError::Full(_)) if begun.elapsed() >= ANSWER_WITHIN => {
                    return None;
                }
                Err(std::sync::mpsc::TrySendError::Full(waiting)) => command = Some(waiting),
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return None,
            }
            tokio::time::sleep(ROOM_LOOK_EVERY).await;
        }
        let mut receiver = receiver;
        loop {
            match tokio::time::timeout(ANSWER_WITHIN_OUTAGE, &mut receiver).await {
                Ok(answer) => return answer.ok(),
                // An outage may be recorded only while this loop waits, so each timeout checks for one.
                Err(_) if self.owner_metrics.outages.is_any() || begun.elapsed() >= ANSWER_WITHIN => {
                    return None;
                }
                Err(_) => {}
            }
        }
    }

    /// Returns whether the process waits for a server, the disk, or the stored state of a receiver.
    fn is_something_away(&self) -> bool {
        self.owner_metrics.outages.is_any() || self.registry.receivers().any(|post| post.stuck.is_any())
    }

    /// Builds the failure for a missing answer. It names the outages if there are any and uses the given
    /// message otherwise.
    pub fn unavailable(&self, otherwise: &str) -> Failure {
        let mut outages = self.owner_metrics.outages.all();
        outages.extend(self.registry.receivers().flat_map(|post| post.stuck.all()));
        let Some(first) = outages.first() else { return Failure::unavailable(otherwise) };
        let since = |outage: &Outage| (self.now)() - Span::from_ms(outage.lasted.as_millis() as i64);
        let (what, place, error) = (first.what, &first.place, &first.error);
        let message = format!("{what} at {place} is unavailable since {}: {error}", since(first));
        let one = |outage: &Outage| {
            json!({"what": outage.what, "place": outage.place, "error": outage.error,
                "since": since(outage).to_string()})
        };
        let details = json!({ "outages": outages.iter().map(one).collect::<Vec<_>>() });
        Failure { details, ..Failure::again(message) }
    }

    /// Runs `read` on every engine in this process. The entry of a partition that another process owns is
    /// `None`.
    pub async fn ask_each<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Inspect<'_>) -> T + Clone + Send + 'static,
    ) -> Vec<Option<T>> {
        let asked = (0..self.partitions.len()).map(|place| self.ask_one(place, read.clone()));
        futures_util::future::join_all(asked).await
    }

    /// Like [`Self::ask_each`], but fails if no engine answers.
    pub async fn ask_any<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Inspect<'_>) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, Failure> {
        let answers: Vec<T> = self.ask_each(read).await.into_iter().flatten().collect();
        if answers.is_empty() {
            return Err(self.unavailable("no partition is owned here, or the worker has stopped"));
        }
        Ok(answers)
    }

    /// Appends to a partition's log and returns the sequence number once the record is durable.
    pub async fn append(&self, partition: u32, entry: Entry) -> Result<u64, Failure> {
        self.append_once(partition, entry, None).await
    }

    /// Like [`Self::append`], with a request id by which a repeat is recognised.
    pub async fn append_once(
        &self,
        partition: u32,
        entry: Entry,
        request: Option<RequestId>,
    ) -> Result<u64, Failure> {
        // During an outage of the broker the request fails at once, because the client can retry with its own
        // backoff.
        if self.owner_metrics.outages.is_away(NATS) {
            return Err(self.unavailable(""));
        }
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let reply = Box::new(move |result| {
            // The receiver is closed if the client disconnected; the append stands.
            let _ = sender.send(result);
        });
        let intake = self.intake.clone();
        let sent = tokio::task::spawn_blocking(move || intake.append(partition, entry, request, reply)).await;
        match (sent, receiver.await) {
            (Ok(()), Ok(Ok(seq))) => Ok(seq),
            (_, Ok(Err(message))) => Err(Failure::again(message)),
            _ => Err(self.unavailable("the worker has stopped")),
        }
    }
}

/// Names of the servers in the list of outages.
const NATS: &str = "nats";
const REDIS: &str = "redis";

/// Timeout for an engine's answer, and the interval at which a waiting request checks for an outage. An engine
/// answers between two batches of records, and it may be blocked during an outage.
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);
const ANSWER_WITHIN_OUTAGE: std::time::Duration = std::time::Duration::from_millis(100);

/// Timeout for the broker to report the stamp of a record; after that the local clock is used. The second
/// constant is how long such a failure is remembered.
const STAMP_WITHIN: Duration = Duration::from_secs(1);
const ASK_STAMP_EVERY: Duration = Duration::from_secs(60);

/// Interval between two attempts to put a command into a worker's full queue.
const ROOM_LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(2);

/// An error answer: `{"error":{"code","message","details"}}`.
#[derive(Debug)]
pub struct Failure {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    pub details: serde_json::Value,
    /// Seconds after which the client may retry the request; sent as `Retry-After`.
    pub retry_after: Option<u32>,
}

impl Failure {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Failure {
        Failure { status, code, message: message.into(), details: json!(null), retry_after: None }
    }

    pub fn unavailable(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// A temporary failure: the client may retry the request after one second.
    pub fn again(message: impl Into<String>) -> Failure {
        Failure { retry_after: Some(1), ..Failure::unavailable(message) }
    }

    pub fn bad(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub fn body(&self) -> String {
        json!({"error": {"code": self.code, "message": self.message, "details": self.details}}).to_string()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let response = json_response(self.status, self.body());
        match self.retry_after {
            Some(seconds) => ([budget::retry_after(seconds)], response).into_response(),
            None => response,
        }
    }
}

pub fn json_response(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Converts an error of a store into an answer.
fn failed(error: PortError) -> Failure {
    let message = crate::driver::port_error::chain(&error);
    match error {
        PortError::Away { .. } | PortError::Unreadable { .. } => Failure::again(message),
        _ => Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "store", message),
    }
}

/// All routes with the limits for requests that arrive over a socket.
pub fn router<S: Views + Send + Sync + 'static>(shared: Arc<Shared<S>>, access: &Arc<Access>) -> Router {
    let budget = Budget::new(shared.connections.clone());
    guard::with_limits(operations(shared, access), access.clone(), budget)
}

/// All routes without the socket limits, for requests that arrive over another transport such as NATS.
pub fn operations<S: Views + Send + Sync + 'static>(shared: Arc<Shared<S>>, access: &Arc<Access>) -> Router {
    guard::with_roles(routes(shared), access.clone())
}

/// The probe routes only, for a process that serves no API.
pub fn probes<S: Views + Send + Sync + 'static>(shared: Arc<Shared<S>>, access: &Arc<Access>) -> Router {
    let budget = Budget::new(shared.connections.clone());
    let routes = probe_routes()
        .fallback(guard::nothing)
        .method_not_allowed_fallback(guard::other_method)
        .with_state(shared);
    guard::with_limits(guard::with_roles(routes, access.clone()), access.clone(), budget)
}

/// The probe and receiver routes, for a process that only delivers notifications: the state of its receivers
/// and the redelivery of dead letters.
pub fn receivers<S: Views + Send + Sync + 'static>(shared: Arc<Shared<S>>, access: &Arc<Access>) -> Router {
    let budget = Budget::new(shared.connections.clone());
    let routes = probe_routes()
        .merge(receiver_routes())
        .fallback(guard::nothing)
        .method_not_allowed_fallback(guard::other_method)
        .with_state(shared);
    guard::with_limits(guard::with_roles(routes, access.clone()), access.clone(), budget)
}

fn receiver_routes<S: Views + Send + Sync + 'static>() -> Router<Arc<Shared<S>>> {
    Router::new()
        .route("/api/v1/receivers", get(notify::receivers::<S>))
        .route("/api/v1/receivers/{name}/redrive", post(notify::redrive::<S>))
}

fn probe_routes<S: Views + Send + Sync + 'static>() -> Router<Arc<Shared<S>>> {
    Router::new()
        .route("/healthz", get(metrics::alive))
        .route("/readyz", get(metrics::ready::<S>))
        .route("/metrics", get(metrics::metrics::<S>))
}

fn routes<S: Views + Send + Sync + 'static>(shared: Arc<Shared<S>>) -> Router {
    probe_routes()
        .route("/", get(page::page::<S>))
        .route("/openapi.json", get(openapi::openapi))
        .route("/api/v1/events", post(events::post::<S>))
        .route("/api/v1/series", get(series::series::<S>))
        .route("/api/v1/windows", get(windows::windows::<S>))
        .route("/api/v1/alerts", get(alerts::alerts::<S>))
        .route("/api/v1/alerts/log", get(alerts::alert_log::<S>))
        .route("/api/v1/explain", get(explain::explain::<S>))
        .route("/api/v1/rules/documents", get(rules::documents::<S>))
        .route("/api/v1/pipelines", get(views::pipelines::<S>))
        .route("/api/v1/health", get(views::healths::<S>))
        .route("/api/v1/bottlenecks", get(views::bottlenecks::<S>))
        .route("/api/v1/dead", get(views::dead::<S>))
        .merge(change_routes())
        .fallback(guard::nothing)
        .method_not_allowed_fallback(guard::other_method)
        .layer(from_fn_with_state(shared.clone(), in_turn::<S>))
        .layer(from_fn_with_state(shared.clone(), name_outages::<S>))
        .with_state(shared)
}

/// Limits the number of API reads that run at once, because each holds its gathered data until it is
/// answered. Probes and changes do not wait.
async fn in_turn<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    request: Request,
    next: Next,
) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_question = is_read && request.uri().path().starts_with("/api/");
    if !is_question {
        return next.run(request).await;
    }
    match shared.questions.take().await {
        Ok(_place) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

/// Replaces a 503 answer during an outage by one that names the server, its address and the start of the
/// outage.
async fn name_outages<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    if response.status() == StatusCode::SERVICE_UNAVAILABLE && shared.owner_metrics.outages.is_any() {
        return shared.unavailable("").into_response();
    }
    response
}

/// Routes that make changes: bodies must be documents (JSON or YAML), and each change is written to the audit
/// log.
fn change_routes<S: Views + Send + Sync + 'static>() -> Router<Arc<Shared<S>>> {
    Router::new()
        .route("/api/v1/alerts/ack", post(asked::ack::<S>).delete(asked::unack::<S>))
        .route("/api/v1/silences", get(asked::silences::<S>).post(asked::silence::<S>))
        .route("/api/v1/silences/{id}", delete(asked::expire_silence::<S>))
        .route("/api/v1/maintenance", get(asked::maintenance::<S>).post(asked::add_maintenance::<S>))
        .route("/api/v1/maintenance/preview", post(asked::preview::<S>))
        .route("/api/v1/maintenance/{id}", delete(asked::end_maintenance::<S>))
        .route("/api/v1/rules", get(rules::rules::<S>).post(rules::put::<S>))
        .route("/api/v1/rules/{name}", delete(rules::remove::<S>))
        .merge(receiver_routes())
        .layer(from_fn(guard::documents_only))
        .layer(from_fn(guard::audited))
}
