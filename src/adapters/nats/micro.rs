//! The NATS micro service `streamgauge`: the API's answers, over the broker.
//!
//! Intuition: a client that can reach the broker needs no address of a worker. Any worker can answer,
//! because the broker delivers each request to one of them. Each endpoint answers its requests one after
//! the other, so a flood of requests takes no memory here.

use super::{Cause, Settings, connect};
use crate::driver::outage::Outages;
use async_nats::service::{Service, ServiceExt, endpoint::Endpoint, error::Error};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// Handles a request: the endpoint's name, the request's body, and its `Authorization` header.
pub type Answerer =
    Arc<dyn Fn(&'static str, Vec<u8>, Option<String>) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A response body, or an HTTP status code and a reason.
pub type Answer = Result<Vec<u8>, (u16, String)>;

/// Answers at `<root>.api.<name>` until the runtime ends.
pub async fn serve(settings: &Settings, names: &[&'static str], answerer: Answerer) -> Result<(), Cause> {
    // A reply subject that is not UTF-8 breaks the connection that receives it, and the client chooses that
    // subject. So requests have a connection of their own, and its breaks are not noted as outages.
    let client = connect(&settings.url, &Outages::quiet()).await?;
    let builder =
        client.service_builder().description("windows, rules and alerts of a streamgauge deployment");
    let service = builder.start("streamgauge", env!("CARGO_PKG_VERSION")).await?;
    let service: Arc<Service> = Arc::new(service);
    let group = service.group(format!("{}.api", settings.root));
    for name in names {
        let endpoint = group.endpoint(name).await?;
        let place = Place { name, root: settings.root.clone(), _service: service.clone() };
        tokio::spawn(answer_all(place, endpoint, answerer.clone()));
    }
    Ok(())
}

/// An endpoint; the service lives until its last endpoint is dropped.
struct Place {
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

async fn answer_all(place: Place, mut endpoint: Endpoint, answerer: Answerer) {
    let Place { name, root, .. } = &place;
    let mut refused = 0u64;
    while let Some(request) = endpoint.next().await {
        let reply = request.message.reply.as_deref().unwrap_or_default();
        if !may_answer_at(reply, root) {
            refused += 1;
            // Log the 1st, 2nd, 4th, 8th refusal: a client that repeats the request thousands of times must
            // not fill the log.
            if !refused.is_power_of_two() {
                continue;
            }
            tracing::warn!(
                endpoint = name,
                reply,
                count = refused,
                "a question asks for its answer at a subject of the broker or of this service; it is not answered"
            );
            continue;
        }
        let headers = request.message.headers.as_ref();
        let token = headers.and_then(|headers| headers.get("Authorization")).map(|token| token.to_string());
        let answer = answerer(name, request.message.payload.to_vec(), token).await;
        let answer = answer.map(Into::into).map_err(|(code, status)| Error { code: code.into(), status });
        if let Err(error) = request.respond(answer).await {
            tracing::warn!(%error, endpoint = name, "an answer could not be sent");
        }
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
