//! Reads messages of a stream one by one, without a consumer, as JSON.
//!
//! Intuition: a producer chooses its subjects and headers, and they may be invalid UTF-8 or malformed. The
//! client drops the connection when it receives such a message, and after the reconnect a consumer delivers the
//! message again. The broker's message API returns any message: the subject as a JSON string, headers and payload as
//! base64. Invariant: a message that the client can parse has the same content here. Any other message has no
//! headers, and each byte of its subject that is not UTF-8 is replaced. Rejected: reading all messages this way (it
//! takes ten times as long as a consumer).

use super::Cause;
use async_nats::Message;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::RawMessage;
use async_nats::jetstream::{Context, ErrorCode};
use futures_util::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::time::Duration;

/// Maximum number of messages read at once. Each has at most 1 MiB of payload, so a block has at most 64 MiB.
pub(super) const BLOCK: usize = 64;

/// Time for which messages are read one by one after a message that a consumer could not deliver.
pub(super) const READ_FOR: Duration = Duration::from_secs(10);

/// Maximum number of requests in flight.
const UNDER_WAY_MAX: usize = 16;

/// Selects a message of a stream.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Which<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The newest message on these subjects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_by_subj: Option<&'a str>,
    /// The first message on these subjects, from `seq` on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_by_subj: Option<&'a str>,
}

/// A message, and whether the client could have parsed it.
#[derive(Debug)]
pub(super) struct Found {
    pub message: StreamMessage,
    pub is_readable: bool,
}

#[derive(Deserialize)]
struct Answer {
    message: RawMessage,
}

/// Returns the message, if the stream has it.
pub(super) async fn get(context: &Context, stream: &str, which: Which<'_>) -> Result<Option<Found>, Cause> {
    match context.request(format!("STREAM.MSG.GET.{stream}"), &which).await? {
        Response::Ok(Answer { message }) => found(message).map(Some),
        Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
        Response::Err { error } => Err(error.into()),
    }
}

/// Fails if the stream already had a message for the consumer at the previous call, and the consumer has still not
/// delivered it; for example, an operator has paused the consumer. A new consumer delivers the message. The next
/// message for the consumer is the first one on `subjects` from stream sequence `from` on. `held` keeps the stream
/// sequence of that message between two calls.
pub(super) async fn find_held_back(
    context: &Context,
    stream: &str,
    (subjects, from): (&str, u64),
    held: &mut Option<u64>,
) -> Result<(), Cause> {
    let which = Which { seq: Some(from), next_by_subj: Some(subjects), ..Which::default() };
    let next = get(context, stream, which).await?.map(|found| found.message.sequence);
    let before = std::mem::replace(held, next);
    match next.filter(|next| before == Some(*next)) {
        Some(next) => Err(format!("the consumer does not deliver message {next}").into()),
        None => Ok(()),
    }
}

/// Returns the messages of the stream in this range of stream sequences, in order; deleted ones are left out.
pub(super) async fn block(context: &Context, stream: &str, seqs: Range<u64>) -> Result<Vec<Found>, Cause> {
    let ask = |seq| get(context, stream, Which { seq: Some(seq), ..Which::default() });
    let found = futures_util::stream::iter(seqs).map(ask).buffered(UNDER_WAY_MAX);
    found.try_filter_map(|found| std::future::ready(Ok(found))).try_collect().await
}

/// Returns the first messages on `subjects` in this range of stream sequences, at most `count_max`, in order.
pub(super) async fn some(
    context: &Context,
    stream: &str,
    subjects: &str,
    seqs: Range<u64>,
    count_max: usize,
) -> Result<Vec<Found>, Cause> {
    let (mut all, mut next) = (Vec::new(), seqs.start);
    while all.len() < count_max {
        let which = Which { seq: Some(next), next_by_subj: Some(subjects), ..Which::default() };
        let found = get(context, stream, which).await?.filter(|found| found.message.sequence < seqs.end);
        let Some(found) = found else { break };
        next = found.message.sequence + 1;
        all.push(found);
    }
    Ok(all)
}

fn found(mut message: RawMessage) -> Result<Found, Cause> {
    // The payload is taken out while the headers are parsed, so that `clone` does not copy it.
    let payload = std::mem::take(&mut message.payload);
    let has_headers = StreamMessage::try_from(message.clone()).is_ok();
    if !has_headers {
        message.headers = None;
    }
    let is_readable = has_headers && !message.subject.contains(char::REPLACEMENT_CHARACTER);
    Ok(Found { message: StreamMessage::try_from(RawMessage { payload, ..message })?, is_readable })
}

/// Converts messages to the form in which a consumer delivers them; consumer sequences count from 1.
pub(super) fn as_consumed(stream: &str, found: Vec<Found>) -> Vec<Message> {
    (1..).zip(found).map(|(place, found)| placed(stream, place, found.message)).collect()
}

/// Converts a message to one delivered by a consumer; `place` is its consumer sequence.
fn placed(stream: &str, place: u64, message: StreamMessage) -> Message {
    let StreamMessage { subject, sequence, headers, payload, time } = message;
    let reply = format!("$JS.ACK.{stream}.raw.1.{sequence}.{place}.{}.0", time.unix_timestamp_nanos());
    let (reply, headers) = (Some(reply.into()), (!headers.is_empty()).then_some(headers));
    Message { subject, reply, length: payload.len(), payload, headers, status: None, description: None }
}

#[cfg(test)]
mod tests {
    use super::super::reader::MessagePlace;
    use super::*;
    use base64::Engine;

    fn stored(subject: &str, headers: Option<&[u8]>) -> RawMessage {
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        serde_json::from_value(serde_json::json!({
            "subject": subject, "seq": 7, "data": encode(b"{}"), "hdrs": headers.map(encode),
            "time": "2026-01-02T03:04:05.678901234Z",
        }))
        .expect("a message")
    }

    #[test]
    fn headers_that_are_none_are_left_out() {
        let good =
            found(stored("sg.v1.metric.a.b", Some(b"NATS/1.0\r\nContent-Type: x/y\r\n\r\n"))).expect("read");
        assert!(good.is_readable && good.message.headers.get("Content-Type").is_some());
        for bad in [
            &b"NATS/1.0\r\nabc\r\n\r\n"[..],
            b"NATS/1.0\r\nA: \xff\r\n\r\n",
            b"NATS/2.0\r\n\r\n",
            b"\0\x01\x02\x03",
        ] {
            let bad = found(stored("sg.v1.metric.a.b", Some(bad))).expect("read");
            assert!(!bad.is_readable && bad.message.headers.is_empty(), "{bad:?}");
        }
        assert!(!found(stored("sg.v1.metric.\u{fffd}.b", None)).expect("read").is_readable);
    }

    #[test]
    fn a_message_has_its_place() {
        let message = placed("SG_EVENTS_0", 3, found(stored("a", None)).expect("read").message);
        let place = MessagePlace::parse(message.reply.as_deref().expect("a place")).expect("a place");
        assert_eq!((place.in_stream, place.in_consumer, place.pending), (7, 3, 0));
        assert_eq!(place.stamp().ms(), 1_767_323_045_678);
    }
}
