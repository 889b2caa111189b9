//! A memory budget for request bodies and answers.
//!
//! Intuition: small bodies and answers are not counted, because the limit on connections bounds their memory. Large
//! ones share a budget. If the budget is spent, a request waits up to 5 s. During this wait, connections of stalled
//! clients are closed, which returns their part of the budget.
//! Rejected: a limit per request alone (500 half-sent bodies of 2 MiB are 1 GB).

use super::Failure;
use super::connections::{Connection, Connections};
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Bodies and answers up to this size are not counted: 1,024 connections × 64 KiB = 64 MiB.
pub(super) const SMALL_BYTES: usize = 64 << 10;

/// Limit in bytes on all larger bodies and answers together.
const LARGE_BYTES_MAX: usize = 128 << 20;

/// Bytes of the budget that one semaphore permit stands for.
const PIECE_BYTES: usize = 1 << 10;

/// Timeout for a whole body, and timeout for its next part.
const BODY_WITHIN: Duration = Duration::from_secs(60);
const MOVES_WITHIN: Duration = Duration::from_secs(10);

/// Limits, in bytes and in time, on reading and discarding the rest of a refused body. Many clients read the answer
/// only after they have sent their whole body. A client that exceeds a limit may get no answer.
const DISCARDED_BYTES_MAX: u64 = 8 << 20;
const DISCARDED_WITHIN: Duration = Duration::from_secs(5);

/// A client without progress for this long loses its connection if the budget is spent.
const STALLED: Duration = Duration::from_secs(1);

/// Timeout for room in the budget, and the interval between two attempts.
const ROOM_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Maximum number of answers that wait for room, up to 8 MiB each. Further answers are refused at once.
const ANSWERS_WAITING_MAX: usize = 8;

/// The budget. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    pieces: Arc<Semaphore>,
    answers_waiting: Arc<Semaphore>,
    connections: Arc<Connections>,
}

/// A part of the budget; it is returned when this value is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held(Option<OwnedSemaphorePermit>);

impl Budget {
    pub(crate) fn new(connections: Arc<Connections>) -> Budget {
        let pieces = Arc::new(Semaphore::new(LARGE_BYTES_MAX / PIECE_BYTES));
        let answers_waiting = Arc::new(Semaphore::new(ANSWERS_WAITING_MAX));
        Budget { pieces, answers_waiting, connections }
    }

    /// Waits for room for `bytes`; returns `None` on timeout.
    async fn hold(&self, bytes: usize) -> Option<Held> {
        if bytes <= SMALL_BYTES {
            return Some(Held(None));
        }
        let pieces = bytes.min(LARGE_BYTES_MAX).div_ceil(PIECE_BYTES) as u32;
        let until = Instant::now() + ROOM_WITHIN;
        while Instant::now() < until {
            if let Ok(permit) = self.pieces.clone().try_acquire_many_owned(pieces) {
                return Some(Held(Some(permit)));
            }
            self.connections.evict_stalled(STALLED);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        None
    }

    /// Reads the whole body of a request, at most `max` bytes. The rest of a refused body is discarded, so
    /// that the client can finish sending and read the answer.
    pub(crate) async fn read(
        &self,
        mut body: Body,
        max: usize,
        connection: Option<&Connection>,
        is_asking_first: bool,
    ) -> Result<(Bytes, Held), Failure> {
        // A client that sends `Expect: 100-continue` holds the body back until the server reads it. A stated size is
        // checked before that, so that a body that is too large is never sent.
        if is_asking_first && body.size_hint().lower() as usize > max {
            return Err(too_large(max));
        }
        let read = self.read_whole(&mut body, max, connection).await;
        if read.is_err() {
            discard(body).await;
        }
        read
    }

    async fn read_whole(
        &self,
        body: &mut Body,
        max: usize,
        connection: Option<&Connection>,
    ) -> Result<(Bytes, Held), Failure> {
        let stated = body.size_hint().lower() as usize;
        if stated > max {
            return Err(too_large(max));
        }
        let mut held = Held(None);
        let mut taken = Vec::with_capacity(stated.min(SMALL_BYTES));
        let until = Instant::now() + BODY_WITHIN;
        while Instant::now() < until {
            let Ok(frame) = timeout(MOVES_WITHIN, body.frame()).await else { break };
            let Some(frame) = frame else { return Ok((taken.into(), held)) };
            let frame = frame.map_err(|_| Failure::bad("the body broke off, or is longer than 2 MiB"))?;
            let Some(data) = frame.data_ref() else { continue };
            if taken.len() + data.len() > max {
                return Err(too_large(max));
            }
            if taken.len() + data.len() > SMALL_BYTES && held.0.is_none() {
                held = self.hold(stated.max(max)).await.ok_or_else(no_room)?;
            }
            taken.extend_from_slice(data);
            connection.inspect(|connection| connection.progress(data.len()));
        }
        Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not arrive in time"))
    }

    /// Charges an answer to the budget until the client has received it.
    pub(crate) async fn answer(&self, response: Response) -> Response {
        let bytes = response.body().size_hint().exact().unwrap_or(0) as usize;
        if bytes <= SMALL_BYTES {
            return response;
        }
        let held = match self.answers_waiting.try_acquire() {
            Ok(_waiting) => self.hold(bytes).await,
            Err(_) => None,
        };
        match held {
            Some(Held(None)) => response,
            Some(held) => response.map(|body| Body::new(Counted { body, held: Arc::new(held) })),
            None => axum::response::IntoResponse::into_response(no_room()),
        }
    }
}

/// A large answer with its part of the budget. Each chunk also shares that part, because the connection takes all
/// chunks at once and keeps them in memory until the client has read them.
struct Counted {
    body: Body,
    held: Arc<Held>,
}

struct CountedBytes {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let counted = |bytes| Bytes::from_owner(CountedBytes { bytes, _held: self.held.clone() });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(counted))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads and discards the rest of a body. Closing a connection while the client is still sending resets it,
/// and the client never sees the answer.
pub(crate) async fn discard(mut body: Body) {
    if body.size_hint().lower() > DISCARDED_BYTES_MAX {
        return;
    }
    let all = async {
        let mut discarded = 0;
        while let Some(Ok(frame)) = body.frame().await
            && discarded < DISCARDED_BYTES_MAX
        {
            discarded += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
    };
    // On a timeout the rest of the body is not read.
    let _ = timeout(DISCARDED_WITHIN, all).await;
}

fn too_large(max: usize) -> Failure {
    let message = format!("the body has more than {max} bytes; send less at once");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

/// The failure for a spent budget. The same request is likely to succeed after a short wait.
fn no_room() -> Failure {
    Failure::again("too many large bodies and answers are in transfer; try again in a second")
}

/// The `Retry-After` header.
pub(crate) fn retry_after(seconds: u32) -> (header::HeaderName, String) {
    (header::RETRY_AFTER, seconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_answers_wait_for_one_another() {
        let budget = Budget::new(Connections::with_max(4));
        let half = budget.hold(LARGE_BYTES_MAX / 2 + PIECE_BYTES).await.expect("room");
        assert!(budget.hold(SMALL_BYTES).await.is_some(), "a small one never waits");
        assert!(budget.hold(LARGE_BYTES_MAX / 2).await.is_none());
        drop(half);
        assert!(budget.hold(LARGE_BYTES_MAX / 2).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_bounded_in_bytes_and_time() {
        let budget = Budget::new(Connections::with_max(4));
        let (body, _) = budget.read(Body::from("abc"), 3, None, false).await.expect("three bytes");
        assert_eq!(&body[..], b"abc");
        let failure = budget.read(Body::from("abcd"), 3, None, false).await.expect_err("four bytes");
        assert_eq!(failure.status, StatusCode::PAYLOAD_TOO_LARGE);
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let failure = budget.read(never, 3, None, false).await.expect_err("nothing comes");
        assert_eq!(failure.status, StatusCode::REQUEST_TIMEOUT);
    }
}
