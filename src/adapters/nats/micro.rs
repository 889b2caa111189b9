//! The NATS micro service `streamgauge`: what the API answers, over the broker.
//!
//! Intuition: whoever can reach the broker needs no address of a worker; any worker answers, as the
//! broker gives each question to one of them. Questions are answered one after the other at each
//! endpoint, so a flood of them takes no memory here.

use super::{Cause, Settings, connect};
use async_nats::service::{Service, ServiceExt, endpoint::Endpoint, error::Error};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// A question: the endpoint's name, the body of the request, and its header `Authorization`.
pub type Answerer =
    Arc<dyn Fn(&'static str, Vec<u8>, Option<String>) -> BoxFuture<'static, Answer> + Send + Sync>;

/// An answer, or a code as HTTP has it with a reason.
pub type Answer = Result<Vec<u8>, (u16, String)>;

/// Answers at `<root>.api.<name>` until the runtime ends.
pub async fn serve(settings: &Settings, names: &[&'static str], answerer: Answerer) -> Result<(), Cause> {
    let client = connect(&settings.url, &settings.outages).await?;
    let builder =
        client.service_builder().description("windows, rules and alerts of a streamgauge deployment");
    let service = builder.start("streamgauge", env!("CARGO_PKG_VERSION")).await?;
    let service: Arc<Service> = Arc::new(service);
    let group = service.group(format!("{}.api", settings.root));
    for name in names {
        let endpoint = group.endpoint(name).await?;
        tokio::spawn(answer_all(service.clone(), endpoint, name, answerer.clone()));
    }
    Ok(())
}

/// The service lives as long as one of its endpoints.
async fn answer_all(_service: Arc<Service>, mut endpoint: Endpoint, name: &'static str, answerer: Answerer) {
    while let Some(request) = endpoint.next().await {
        let headers = request.message.headers.as_ref();
        let token = headers.and_then(|headers| headers.get("Authorization")).map(|token| token.to_string());
        let answer = answerer(name, request.message.payload.to_vec(), token).await;
        let answer = answer.map(Into::into).map_err(|(code, status)| Error { code: code.into(), status });
        if let Err(error) = request.respond(answer).await {
            tracing::warn!(%error, endpoint = name, "an answer could not be sent");
        }
    }
}
