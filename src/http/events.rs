//! `POST /api/v1/events`: answers 202 only after the append is durable.
//!
//! Invariant: the answer is bounded whatever the payload holds: the first refusals are listed, all are
//! counted. An append continues after its client has disconnected, so a retry with the same idempotency key
//! finds its outcome. A large payload is decompressed and decoded on a blocking thread, so small ones do not
//! wait for it.

use super::budget::{Held, SMALL_BYTES};
use super::encoding::{self, DecodeError};
use super::idempotency::{Found, Given};
use super::params::{Empty, Params, single};
use super::quota::Quota;
use super::{App, Failure, Shared, json_response};
use crate::core::Timestamp;
use crate::core::arrival::Doubt;
use crate::core::event::Event;
use crate::core::log_clock::LASTS;
use crate::core::vocab::counters::Refusal;
use crate::core::vocab::identity::IdentityTable;
use crate::core::vocab::limits::{Limits, PAYLOAD_BYTES_MAX};
use crate::core::vocab::partition::Partition;
use crate::driver::ports::{Entry, RequestId, Views};
use crate::wire::event::route::route;
use crate::wire::event::{BadEvent, Codec, Decoded, Decoder};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;

/// Refused or doubtful events that an answer lists individually: 100 × about 300 B = 30 KB.
const LISTED_MAX: usize = 100;

/// Maximum length of an `Idempotency-Key` in bytes.
const KEY_BYTES_MAX: usize = 256;

/// Formats the answer if every event was accepted. This is the most frequent answer, so it is built without a JSON
/// tree.
fn all_accepted(count: usize) -> String {
    format!("{{\"accepted\":{count},\"doubtful\":[],\"refused\":[]}}")
}

pub(crate) async fn post<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
    held: Option<Extension<Arc<Held>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let key = single(&headers, "idempotency-key")?.map(|value| value.as_bytes());
    if key.is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
        let message = format!("an Idempotency-Key has 1 to {KEY_BYTES_MAX} characters");
        return Err(Failure::bad(message));
    }
    let known = shared.known_log_time();
    let of_now = || known.unwrap_or_else(|| shared.log_time());
    let request = key.map(|key| RequestId::new(key, &encoding::without_time(&body), of_now()));
    let (turn, appended) = match &request {
        None => (None, None),
        Some(request) => match shared.keys.find(request).await {
            Found::First(turn) => (Some(turn), None),
            Found::Known(given) => return Ok(accepted(&given)),
            Found::Appended(stamp) => (None, Some(stamp)),
            Found::OtherBody => return Err(other_body()),
        },
    };
    let sent = Sent::new(&headers, body)?;
    // If the client disconnects during this wait, the request ends and nothing is appended.
    let place = match sent.is_small() {
        true => None,
        false => shared.decodes.clone().acquire_owned().await.ok(),
    };
    // The task continues after the client has disconnected. The append then completes, and its answer is stored under
    // the idempotency key.
    let work = tokio::spawn(async move {
        let _held = held;
        // If an earlier process appended this request, its events are judged at the log time of that append.
        let now = appended.or(known);
        let Judged { parts, answer } = judge_in_place(&shared, sent, now, place).await?;
        let newest = match appended {
            None => append(&shared, parts, request.as_ref()).await?,
            Some(_) => None,
        };
        let given = match answer {
            Answer::Final(given) => given,
            Answer::Open(decoded) => {
                let now = shared.learn_log_time(newest, request.is_some()).await;
                given(&decoded, shared.clocks(now), &shared.limits)
            }
        };
        if let Some(turn) = turn {
            turn.finish(given.clone());
        }
        Ok::<_, Failure>(given)
    });
    let given = work.await.map_err(|_| Failure::unavailable("the process is stopping"))??;
    Ok(accepted(&given))
}

fn accepted(given: &Given) -> Response {
    let body = match given {
        Given::All(count) => all_accepted(*count),
        Given::Text(text) => text.to_string(),
    };
    json_response(StatusCode::ACCEPTED, body)
}

fn other_body() -> Failure {
    let message = "another body came with this Idempotency-Key before; take a new key for a new request";
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "key_reused", message)
}

/// A payload as received.
struct Sent {
    encoding: Option<String>,
    media_type: Option<String>,
    body: Bytes,
}

impl Sent {
    fn new(headers: &HeaderMap, body: Bytes) -> Result<Sent, Failure> {
        let text = |name: &str| {
            let value = single(headers, name)?;
            Ok(value.map(|value| value.to_str().unwrap_or("?").to_string()))
        };
        Ok(Sent { encoding: text("content-encoding")?, media_type: text("content-type")?, body })
    }

    /// Returns whether decoding takes less than a millisecond. A payload with a histogram does not count as
    /// small, because a histogram may inflate to 64 times its size.
    fn is_small(&self) -> bool {
        let has_histogram = || memchr::memmem::find(&self.body, b"hdr").is_some();
        self.encoding.is_none() && self.body.len() <= SMALL_BYTES && !has_histogram()
    }
}

/// Decodes the payload to the bytes that enter the log, and finds its codec.
fn payload<S>(shared: &Shared<S>, sent: Sent) -> Result<(Codec, Bytes), Failure> {
    let Sent { encoding, media_type, body } = sent;
    let plain = encoding::decode(encoding.as_deref(), &body, PAYLOAD_BYTES_MAX);
    let body = match plain {
        Ok(plain) => plain.map_or(body, Bytes::from),
        Err(error @ DecodeError::Unknown(_)) => return Err(unsupported(error.to_string())),
        Err(error @ DecodeError::TooLarge { .. }) => {
            shared.refused_at_door.add(Refusal::TooLarge, 1);
            return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error.to_string()));
        }
        Err(error) => {
            shared.refused_at_door.add(Refusal::BadPayload, 1);
            return Err(Failure::bad(error.to_string()));
        }
    };
    let body = body.strip_prefix(b"\xef\xbb\xbf").map_or_else(|| body.clone(), |rest| body.slice_ref(rest));
    let codec = Codec::of_body(media_type.as_deref(), &body);
    let hint = "send application/json, application/x-ndjson or application/msgpack";
    codec.map(|codec| (codec, body)).ok_or_else(|| unsupported(hint))
}

fn unsupported(message: impl Into<String>) -> Failure {
    Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
}

/// Judges a payload: on a blocking thread if `place` is a permit for one, else on the current thread.
async fn judge_in_place<S: Views + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    sent: Sent,
    now: Option<Timestamp>,
    place: Option<OwnedSemaphorePermit>,
) -> Result<Judged, Failure> {
    let Some(place) = place else { return judge(shared, sent, now) };
    let shared = shared.clone();
    let judged = tokio::task::spawn_blocking(move || {
        let _place = place;
        judge(&shared, sent, now)
    });
    judged.await.map_err(|_| Failure::unavailable("the process is stopping"))?
}

/// Appends each part to its partition and returns the newest record with its partition. A failed part fails
/// the whole request; a repeat of the request recognises the parts that were appended.
async fn append<S: Views + Send + Sync + 'static>(
    shared: &Shared<S>,
    parts: Vec<(u32, Codec, Vec<u8>)>,
    request: Option<&RequestId>,
) -> Result<Option<(u32, u64)>, Failure> {
    let mut newest = None;
    for (partition, codec, part) in parts {
        let seq = shared.append_once(partition, Entry::Events(codec, part), request.cloned()).await?;
        newest = Some((partition, seq));
    }
    Ok(newest)
}

/// A payload of which at least one event is accepted.
struct Judged {
    /// For each partition with events: its number, and the codec and bytes of its part of the payload.
    parts: Vec<(u32, Codec, Vec<u8>)>,
    answer: Answer,
}

/// The answer to give once the payload is in the log.
enum Answer {
    /// The final answer.
    Final(Given),
    /// The answer depends on the log time, which only the stamp of the appended record tells.
    Open(Box<Decoded>),
}

fn judge<S: Views + Send + Sync + 'static>(
    shared: &Shared<S>,
    sent: Sent,
    now: Option<Timestamp>,
) -> Result<Judged, Failure> {
    let (codec, body) = payload(shared, sent)?;
    fits(shared, &body)?;
    let mut decoded = Decoded::default();
    let mut decoder = Decoder::judging();
    decoder.payload(codec, &body, &mut decoded);
    if decoder.has_too_many_cells() {
        // The payload is refused as a whole. The limit applies per payload, so the smaller parts for the
        // partitions would pass it, and the partitions would accept what this answer refuses.
        shared.refused_at_door.add(Refusal::BadEvent, (decoded.events.len() + decoded.bad.len()) as u64);
        let message = "its histograms have too many counts together; send fewer at once";
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message));
    }
    if decoded.events.is_empty() {
        decoded.bad.iter().for_each(|bad| shared.refused_at_door.add(bad.reason, 1));
        let message = match decoded.bad.is_empty() {
            true => "the payload holds no event",
            false => "no event of the payload could be taken",
        };
        let failure = Failure::new(StatusCode::BAD_REQUEST, "refused", message);
        return Err(Failure { details: answer(0, &decoded.bad, &[]), ..failure });
    }
    within_quota(&shared.quota, &decoded, &mut decoder)?;
    let count = Partition::count_of(shared.partitions.len());
    let parts = route(codec, body.to_vec(), count);
    let answer = match now {
        Some(now) => Answer::Final(given(&decoded, shared.clocks(now), &shared.limits)),
        None => Answer::Open(Box::new(decoded)),
    };
    Ok(Judged { parts, answer })
}

/// Refuses a payload that the broker would refuse as a record.
fn fits<S>(shared: &Shared<S>, body: &[u8]) -> Result<(), Failure> {
    match shared.intake.record_bytes_max().filter(|max| body.len() > *max) {
        None => Ok(()),
        Some(max) => {
            shared.refused_at_door.add(Refusal::TooLarge, 1);
            let message =
                format!("the broker takes payloads of at most {max} bytes; send fewer events at once");
            Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message))
        }
    }
}

/// Builds the answer for a payload that enters the log at the log time in `clocks`.
fn given(decoded: &Decoded, clocks: Clocks, limits: &Limits) -> Given {
    let doubtful = doubtful(decoded, clocks, limits);
    match decoded.bad.is_empty() && doubtful.is_empty() {
        true => Given::All(decoded.events.len()),
        false => Given::Text(answer(decoded.events.len(), &decoded.bad, &doubtful).to_string().into()),
    }
}

/// Refuses a request whose source exceeds its quota.
fn within_quota(quota: &Quota, decoded: &Decoded, decoder: &mut Decoder) -> Result<(), Failure> {
    if !quota.is_limited() {
        return Ok(());
    }
    let mut directory = IdentityTable::default();
    directory.learn(0, decoder.take_found());
    let mut values: HashMap<Arc<str>, u64> = HashMap::new();
    for event in &decoded.events {
        let Some(source) = event.source(&directory) else { continue };
        match values.get_mut(source) {
            Some(count) => *count += event.values(),
            None => drop(values.insert(source.clone(), event.values())),
        }
    }
    quota.take(&values, Instant::now()).map_err(|exceeded| {
        let wait_secs = exceeded.wait.as_secs() as u32 + 1;
        let message = format!(
            "the source `{}` sends more values than it may in a second; send this request again in {wait_secs} s",
            exceeded.source
        );
        let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message);
        Failure { retry_after: Some(wait_secs), ..failure }
    })
}

/// An event of a payload that is lost in whole or in part.
trait Lost {
    fn reason(&self) -> &'static str;
    fn told(&self) -> Value;
}

impl Lost for BadEvent {
    fn reason(&self) -> &'static str {
        self.reason.name()
    }

    fn told(&self) -> Value {
        json!({"index": self.index, "reason": self.reason(), "message": self.message})
    }
}

/// The log time and, while a jump of the log's clock is not confirmed yet, the time before the jump.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) now: Timestamp,
    pub(super) before_jump: Option<Timestamp>,
}

/// An accepted event that the engine will probably lose in whole or in part because of its time. `index` is its index
/// in the payload, and `now` the log time used for this prediction.
struct Doubtful {
    index: usize,
    doubt: Doubt,
    now: Timestamp,
    /// Whether the event is lost only if the jump of the log's clock is confirmed, or only if it is not.
    depends_on_jump: bool,
}

impl Doubtful {
    fn new(index: usize, event: &Event, clocks: Clocks, limits: &Limits) -> Option<Doubtful> {
        let Clocks { now, before_jump } = clocks;
        let doubt = limits.doubt(event, now);
        let before = before_jump.and_then(|before| Some((limits.doubt(event, before)?, before)));
        let depends_on_jump = before_jump.is_some() && doubt.is_some() != before.is_some();
        let (doubt, now) = doubt.map(|doubt| (doubt, now)).or(before)?;
        Some(Doubtful { index, doubt, now, depends_on_jump })
    }

    fn message(&self) -> String {
        let message = self.doubt.message(self.now);
        match self.depends_on_jump {
            true => format!(
                "the log's clock has jumped, and the next {LASTS} decide whether the jump is confirmed; \
                 if log time is then about {}: {message}",
                self.now
            ),
            false => message,
        }
    }
}

impl Lost for Doubtful {
    fn reason(&self) -> &'static str {
        self.doubt.outcome.name()
    }

    fn told(&self) -> Value {
        json!({"index": self.index, "reason": self.reason(), "message": self.message()})
    }
}

/// Builds the body of an answer: the first refused and doubtful events, and counts by reason if there are
/// more.
fn answer(accepted: usize, refused: &[BadEvent], doubtful: &[Doubtful]) -> Value {
    let mut answer = json!({"accepted": accepted});
    list(&mut answer, "refused", refused);
    list(&mut answer, "doubtful", doubtful);
    answer
}

/// Lists the first events of a kind, and counts all of them by reason if there are more.
fn list(answer: &mut Value, name: &str, all: &[impl Lost]) {
    answer[name] = all.iter().take(LISTED_MAX).map(Lost::told).collect();
    if all.len() > LISTED_MAX {
        answer[format!("{name}_by_reason")] = by_reason(all);
    }
}

fn by_reason(all: &[impl Lost]) -> Value {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    all.iter().for_each(|lost| *counts.entry(lost.reason()).or_default() += 1);
    counts.into_iter().map(|(reason, count)| (reason.to_string(), json!(count))).collect::<Map<_, _>>().into()
}

/// Returns the accepted events that the engine will lose in whole or in part because of their times. This is a
/// prediction from the newest known log time.
fn doubtful(decoded: &Decoded, clocks: Clocks, limits: &Limits) -> Vec<Doubtful> {
    let mut bad = decoded.bad.iter().map(|bad| bad.index).peekable();
    // An index counts all events of the payload, so the indexes of refused events are skipped.
    let places = (0..).filter(|index| bad.next_if_eq(index).is_none());
    let judged = decoded.events.iter().zip(places);
    judged.filter_map(|(event, index)| Doubtful::new(index, event, clocks, limits)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Span;

    #[test]
    fn an_answer_is_bounded_and_counts_everything() {
        let bad: Vec<BadEvent> =
            (0..5_000).map(|n| BadEvent::new(n, Refusal::BadEvent, "nonsense")).collect();
        let answer = answer(1, &bad, &[]);
        assert_eq!(answer["refused"].as_array().map(Vec::len), Some(LISTED_MAX));
        assert_eq!(answer["refused_by_reason"]["bad_event"], 5_000);
        let few = super::answer(1, &bad[..2], &[]);
        assert!(few.get("refused_by_reason").is_none());
        assert_eq!(all_accepted(3), super::answer(3, &[], &[]).to_string());
    }

    #[test]
    fn events_that_will_be_refused_are_named_with_their_places() {
        let now = Timestamp::clamped(1_793_491_200_000);
        let event = |time: Timestamp| {
            format!(r#"{{"type":"metric","time":"{time}","source":"a","name":"b","value":1}}"#)
        };
        let (old, ahead) = (now - Span::from_hours(2), now + Span::from_hours(1));
        let text = format!("[{}, {{}}, {}, {}]", event(now), event(old), event(ahead));
        let mut decoded = Decoded::default();
        Decoder::new(0).payload(Codec::Json, text.as_bytes(), &mut decoded);
        let found = |clocks| {
            let found = doubtful(&decoded, clocks, &Limits::default());
            found.iter().map(|one| (one.index, one.reason(), one.depends_on_jump)).collect::<Vec<_>>()
        };
        let clocks = Clocks { now, before_jump: None };
        assert_eq!(found(clocks), [(2, "too_late", false), (3, "future", false)]);
        let jumped = Clocks { now: now + Span::from_hours(2), before_jump: Some(now) };
        let expected = [(0, "too_late", true), (2, "too_late", false), (3, "future", true)];
        assert_eq!(found(jumped), expected, "one of an hour ahead is fine if the jump counts");
    }
}
