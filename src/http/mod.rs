//! HTTP on loopback: events in, views out (CONTRACT §8). Reads views, never the engine's insides.

pub mod asked;
pub mod events;
pub mod explain;
pub mod metrics;
pub mod notify;
pub mod openapi;
pub mod operate;
pub mod page;
pub mod rules;
pub mod views;

use crate::core::{Engine, Timestamp};
use crate::driver::book::Desk;
use crate::driver::notify::Office;
use crate::driver::ports::{Entry, Intake, Views};
use crate::driver::tally::Tally;
use crate::driver::worker::{Command, Sender};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use dashmap::DashMap;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Instant;

/// Bytes of a request body: one payload, and a little for a kind refusal of a larger one.
const BODY_BYTES_MAX: usize = 2 << 20;

/// Idempotency keys remembered; 100,000 × about 300 B = 30 MB.
pub const KEYS_MAX: usize = 100_000;

/// One partition as seen from here: its owner, if that is in this process, and its store.
#[derive(Debug)]
pub struct Partition<S> {
    pub worker: Sender,
    pub store: S,
}

type App<S> = State<Arc<Shared<S>>>;
type Answer = Result<Response, Failure>;

/// What the handlers share.
pub struct Shared<S> {
    pub partitions: Vec<Partition<S>>,
    pub intake: Arc<dyn Intake>,
    pub tally: Arc<Tally>,
    pub desk: Arc<dyn Desk>,
    pub office: Office,
    /// The time of day, where no log says one.
    pub now: fn() -> Timestamp,
    /// Answers by Idempotency-Key, with when they were given.
    pub answers: DashMap<String, (Instant, u16, String)>,
    pub is_ready: AtomicBool,
    /// Refused at the door, before the log: counted here because the log never sees them.
    pub refused_at_door: AtomicU64,
    pub begun: Instant,
}

/// What the handlers are given.
pub struct Parts<S> {
    pub partitions: Vec<Partition<S>>,
    pub intake: Arc<dyn Intake>,
    pub tally: Arc<Tally>,
    pub desk: Arc<dyn Desk>,
    pub now: fn() -> Timestamp,
    pub office: Office,
}

impl<S> std::fmt::Debug for Parts<S> {
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
    pub fn new(parts: Parts<S>) -> Arc<Shared<S>> {
        let Parts { partitions, intake, tally, desk, now, office } = parts;
        Arc::new(Shared {
            partitions,
            intake,
            tally,
            desk,
            office,
            now,
            answers: DashMap::new(),
            is_ready: AtomicBool::new(true),
            refused_at_door: AtomicU64::new(0),
            begun: Instant::now(),
        })
    }

    /// Reads something of each engine in this process, between two records; the partitions that
    /// others own answer nothing.
    pub async fn ask_each<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Engine) -> T + Clone + Send + 'static,
    ) -> Vec<Option<T>> {
        let mut waiting = Vec::with_capacity(self.partitions.len());
        for partition in &self.partitions {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let read = read.clone();
            let command = Command::Ask(Box::new(move |engine| {
                // Nobody waits any more when the client went away.
                let _ = sender.send(read(engine));
            }));
            let worker = partition.worker.clone();
            // Room is waited for without holding a thread of the server; a worker that has ended drops
            // the question, and with it the answer.
            let _ = tokio::task::spawn_blocking(move || worker.send(command).is_ok()).await;
            waiting.push(receiver);
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for receiver in waiting {
            answers.push(receiver.await.ok());
        }
        answers
    }

    /// The same, where at least one answer is needed.
    pub async fn ask_any<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Engine) -> T + Clone + Send + 'static,
    ) -> Result<Vec<T>, Failure> {
        let answers: Vec<T> = self.ask_each(read).await.into_iter().flatten().collect();
        if answers.is_empty() {
            return Err(Failure::unavailable("no partition is owned here, or the worker has stopped"));
        }
        Ok(answers)
    }

    /// Appends to a partition's log; its number once it is durable.
    pub async fn append(&self, partition: u32, entry: Entry) -> Result<u64, Failure> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let reply = Box::new(move |result| {
            // Nobody waits any more when the client went away; the append stands.
            let _ = sender.send(result);
        });
        let intake = self.intake.clone();
        let sent = tokio::task::spawn_blocking(move || intake.append(partition, entry, reply)).await;
        match (sent, receiver.await) {
            (Ok(()), Ok(Ok(seq))) => Ok(seq),
            (_, Ok(Err(message))) => Err(Failure::unavailable(message)),
            _ => Err(Failure::unavailable("the worker has stopped")),
        }
    }
}

/// An answer that is no success: `{"error":{"code","message","details"}}`.
#[derive(Debug)]
pub struct Failure {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    pub details: serde_json::Value,
}

impl Failure {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Failure {
        Failure { status, code, message: message.into(), details: json!(null) }
    }

    pub fn unavailable(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
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
        json_response(self.status, self.body())
    }
}

pub fn json_response(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// All routes; with a token, each request must carry it.
pub fn router<S: Views + Send + Sync + 'static>(shared: Arc<Shared<S>>, token: Option<String>) -> Router {
    guarded(routes(shared), token)
}

fn guarded(router: Router, token: Option<String>) -> Router {
    let Some(token) = token else { return router };
    let wanted: Arc<str> = format!("Bearer {token}").into();
    router.layer(axum::middleware::from_fn(move |request: Request, next: Next| {
        let wanted = wanted.clone();
        async move {
            let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
            if given.is_some_and(|given| is_equal(given, wanted.as_bytes())) {
                return next.run(request).await;
            }
            let message = "send `Authorization: Bearer …` with the service's token";
            Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message).into_response()
        }
    }))
}

/// Compares without telling by its time where the difference is.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (x, y)| all | (x ^ y)) == 0
}

/// What a supervisor asks, and no more: for a process that answers no one else.
pub fn probes<S: Views + Send + Sync + 'static>(shared: Arc<Shared<S>>) -> Router {
    probe_routes().with_state(shared)
}

/// For a process that delivers and answers nobody else: how its receivers are, and what lies aside.
pub fn receivers<S: Views + Send + Sync + 'static>(shared: Arc<Shared<S>>, token: Option<String>) -> Router {
    let probes = probes(shared.clone());
    probes.merge(guarded(receiver_routes().with_state(shared), token))
}

fn receiver_routes<S: Views + Send + Sync + 'static>() -> Router<Arc<Shared<S>>> {
    Router::new()
        .route("/api/v1/receivers", get(notify::receivers::<S>))
        .route("/api/v1/receivers/{name}/redrive", post(notify::redrive::<S>))
}

fn probe_routes<S: Views + Send + Sync + 'static>() -> Router<Arc<Shared<S>>> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(metrics::ready::<S>))
        .route("/metrics", get(metrics::metrics::<S>))
}

fn routes<S: Views + Send + Sync + 'static>(shared: Arc<Shared<S>>) -> Router {
    probe_routes()
        .route("/", get(page::page::<S>))
        .route("/openapi.json", get(openapi::openapi))
        .route("/api/v1/events", post(events::post::<S>))
        .route("/api/v1/series", get(views::series::<S>))
        .route("/api/v1/windows", get(views::windows::<S>))
        .route("/api/v1/alerts", get(views::alerts::<S>))
        .route("/api/v1/alerts/log", get(views::alert_log::<S>))
        .route("/api/v1/alerts/ack", post(asked::ack::<S>).delete(asked::unack::<S>))
        .route("/api/v1/explain", get(explain::explain::<S>))
        .route("/api/v1/silences", get(asked::silences::<S>).post(asked::silence::<S>))
        .route("/api/v1/silences/{id}", delete(asked::expire_silence::<S>))
        .route("/api/v1/maintenance", get(asked::maintenance::<S>).post(asked::add_maintenance::<S>))
        .route("/api/v1/maintenance/preview", post(asked::preview::<S>))
        .route("/api/v1/maintenance/{id}", delete(asked::end_maintenance::<S>))
        .route("/api/v1/rules", get(rules::rules::<S>).post(rules::put::<S>))
        .route("/api/v1/rules/documents", get(rules::documents::<S>))
        .route("/api/v1/rules/{name}", delete(rules::remove::<S>))
        .route("/api/v1/pipelines", get(views::pipelines::<S>))
        .route("/api/v1/health", get(views::healths::<S>))
        .route("/api/v1/bottlenecks", get(views::bottlenecks::<S>))
        .route("/api/v1/dead", get(views::dead::<S>))
        .merge(receiver_routes())
        .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "not_found", "there is nothing here") })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}
