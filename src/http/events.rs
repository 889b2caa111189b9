//! `POST /api/v1/events`: 202 only after the append is durable.

use super::{Failure, KEYS_MAX, Shared, json_response};
use crate::core::partition::Partition;
use crate::driver::ports::{Entry, Views};
use crate::wire::event::route::route;
use crate::wire::event::{Codec, Decoded, Decoder};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long an answer is remembered for its Idempotency-Key.
const KEY_KEPT: Duration = Duration::from_secs(600);

/// Bytes of an Idempotency-Key.
const KEY_BYTES_MAX: usize = 256;

pub async fn post<S: Views + Send + Sync + 'static>(
    State(shared): State<Arc<Shared<S>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let key = text("idempotency-key").filter(|key| key.len() <= KEY_BYTES_MAX).map(str::to_string);
    if let Some(known) = key.as_ref().and_then(|key| shared.answers.get(key)) {
        let (given, status, body) = known.value();
        if given.elapsed() < KEY_KEPT {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::ACCEPTED);
            return Ok(json_response(status, body.clone()));
        }
    }
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let Some(codec) = Codec::from_content_type(content_type) else {
        let message = "send application/json, application/x-ndjson or application/msgpack";
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    };
    let answer = take(&shared, codec, body).await?;
    if let Some(key) = key {
        if shared.answers.len() >= KEYS_MAX {
            shared.answers.retain(|_, (given, _, _)| given.elapsed() < KEY_KEPT);
        }
        shared.answers.insert(key, (Instant::now(), StatusCode::ACCEPTED.as_u16(), answer.clone()));
    }
    Ok(json_response(StatusCode::ACCEPTED, answer))
}

/// Appends a payload that holds at least one good event; the body of the answer.
async fn take<S: Views + Send + Sync + 'static>(
    shared: &Shared<S>,
    codec: Codec,
    body: Bytes,
) -> Result<String, Failure> {
    let mut decoded = Decoded::default();
    Decoder::new(0).payload(codec, &body, &mut decoded);
    let refused: Vec<Value> = decoded
        .bad
        .iter()
        .map(|bad| json!({"index": bad.index, "reason": bad.reason.name(), "message": bad.message}))
        .collect();
    if decoded.events.is_empty() {
        shared.refused_at_door.fetch_add(decoded.bad.len() as u64, Ordering::Relaxed);
        let failure =
            Failure::new(StatusCode::BAD_REQUEST, "refused", "no event of the payload could be taken");
        return Err(Failure { details: json!({"accepted": 0, "refused": refused}), ..failure });
    }
    // A part that could not be appended fails the whole: sent again, ids tell what was there.
    let count = Partition::count_of(shared.partitions.len());
    for (partition, codec, part) in route(codec, body.to_vec(), count) {
        shared.append(partition, Entry::Events(codec, part)).await?;
    }
    Ok(json!({"accepted": decoded.events.len(), "refused": refused}).to_string())
}
