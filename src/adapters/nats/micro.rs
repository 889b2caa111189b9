//! The NATS micro service `streamgauge`: serves the API's operations over the broker.
//!
//! Intuition: a client that can reach the broker needs no address of a worker. The broker delivers each request to
//! one worker, and any worker can answer. Each endpoint handles a bounded number of requests at a time and refuses
//! further ones at once, so a flood of requests takes bounded memory and other clients wait for a bounded time.
//! Requests over the broker and over HTTP share one limit of concurrent reads.

use super::{Cause, Settings, connect};
use crate::driver::outage::Outages;
use crate::wire::printable::printable;
use async_nats::service::{Request, Service, ServiceExt, endpoint::Endpoint, error::Error};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Maximum number of requests that one endpoint handles at a time. Each has at most 1 MiB (the broker's default
/// `max_payload`), so an endpoint holds at most 64 MiB.
const QUESTIONS_MAX: usize = 64;

/// The answer to a request beyond [`QUESTIONS_MAX`].
const FULL: &str = "too many questions wait here; ask again in a second";

/// Handles a request: the endpoint's name, the request's body, and its `Authorization` header.
pub(crate) type Answerer =
    Arc<dyn Fn(&'static str, Vec<u8>, Option<String>) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A response body, or an HTTP status code and a reason.
pub(crate) type Answer = Result<Vec<u8>, (u16, String)>;

/// Answers at `<root>.api.<name>` until the runtime ends.
pub(crate) async fn serve(
    settings: &Settings,
    names: &[&'static str],
    answerer: Answerer,
) -> Result<(), Cause> {
    // The client chooses the reply subject, and one that is not UTF-8 makes the NATS library drop the connection. So
    // requests have a connection of their own, and its losses are not noted as outages.
    let client = connect(&settings.url, &Outages::quiet()).await?;
    let builder =
        client.service_builder().description("windows, rules and alerts of a streamgauge deployment");
    let service = builder.start("streamgauge", env!("CARGO_PKG_VERSION")).await?;
    let service: Arc<Service> = Arc::new(service);
    let group = service.group(format!("{}.api", settings.root));
    for name in names {
        let endpoint = group.endpoint(name).await?;
        let place = ServedEndpoint { name, root: settings.root.clone(), _service: service.clone() };
        tokio::spawn(answer_all(place, endpoint, answerer.clone()));
    }
    Ok(())
}

/// An endpoint that is being served. It holds the service, so the service ends when its last endpoint is dropped.
struct ServedEndpoint {
    name: &'static str,
    root: String,
    _service: Arc<Service>,
}

/// Whether a reply subject belongs neither to the broker nor to this service. The client chooses the reply
/// subject, and the answer is published with this service's permissions, not the client's: an empty message
/// to `$JS.API.STREAM.DELETE.…` deletes a stream.
fn may_answer_at(subject: &str, root: &str) -> bool {
    let is_ours = subject.strip_prefix(root).is_some_and(|rest| rest.starts_with('.'));
    !subject.starts_with('$') && !is_ours
}

async fn answer_all(place: ServedEndpoint, mut endpoint: Endpoint, answerer: Answerer) {
    let ServedEndpoint { name, root, .. } = &place;
    let (places, mut refused) = (Arc::new(Semaphore::new(QUESTIONS_MAX)), 0u64);
    while let Some(request) = endpoint.next().await {
        let reply = request.message.reply.as_deref().unwrap_or_default();
        if !may_answer_at(reply, root) {
            refused += 1;
            tell_refused(name, reply, refused);
            continue;
        }
        let place = places.clone().try_acquire_owned().ok();
        let (name, answerer) = (*name, answerer.clone());
        // Each request has its own task, so a panic ends that task and not the endpoint.
        tokio::spawn(async move {
            let answer = match place {
                Some(_) => answered(name, &request, &answerer).await,
                None => Err((503, FULL.into())),
            };
            respond(name, &request, answer).await;
            drop(place);
        });
    }
}

async fn answered(name: &'static str, request: &Request, answerer: &Answerer) -> Answer {
    let headers = request.message.headers.as_ref();
    let token = headers.and_then(|headers| headers.get("Authorization")).map(|token| token.to_string());
    answerer(name, request.message.payload.to_vec(), token).await
}

async fn respond(name: &'static str, request: &Request, answer: Answer) {
    // The reason becomes a header, and the client library panics at a line break in a header.
    let error =
        |(code, status): (u16, String)| Error { code: code.into(), status: printable(&status).into() };
    if let Err(error) = request.respond(answer.map(Into::into).map_err(error)).await {
        tracing::warn!(%error, endpoint = name, "an answer could not be sent");
    }
}

/// Logs the 1st, 2nd, 4th, 8th refusal: a client that repeats the question thousands of times must not fill
/// the log.
fn tell_refused(endpoint: &str, reply: &str, count: u64) {
    if count.is_power_of_two() {
        tracing::warn!(
            endpoint,
            reply,
            count,
            "the reply subject belongs to the broker or to this service; the request is not answered"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_nobody_but_askers() {
        for reply in ["_INBOX.a.b", "_INBOX.team-a.x", "inbox.1", "", "sg.v10.x"] {
            assert!(may_answer_at(reply, "sg.v1"), "{reply}");
        }
        for reply in ["$JS.API.STREAM.DELETE.SG_ALERTS", "$SYS.x", "sg.v1.p.0.control", "sg.v1.api.alerts"] {
            assert!(!may_answer_at(reply, "sg.v1"), "{reply}");
        }
    }
}
