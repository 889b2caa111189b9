//! The server: accepts, converses, and ends when the service drains.
//!
//! Intuition: a client may be slow, silent or hostile, and the next one must not notice. So a head, a body and an
//! answer each have a time within which they must move, and all bodies and answers together have a bound in bytes.
//! Rejected: `axum::serve`, which has neither time-outs nor a limit on connections.

use super::connections::{Connection, Connections};
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

/// Time for the head of a request, and between two requests of one connection.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// Bytes of a head, and of what is read of a body at once.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A client that takes nothing of its answer for so long is gone.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Time between two attempts to accept while the process has no file left.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves until it is stopped and every request that was begun is answered.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
    stop: CancellationToken,
) {
    let mut conversations = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = conversations.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(connection) = connections.open(peer) {
                    conversations.spawn(converse(stream, router.clone(), connection, stop.clone()));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                connections.evict_stalled(Duration::ZERO);
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    drop(listener);
    while conversations.join_next().await.is_some() {}
}

/// One connection until its client, the time or the service ends it.
async fn converse(stream: TcpStream, router: Router, connection: Arc<Connection>, stop: CancellationToken) {
    // Answers are small and waited for; without this they wait for the client's acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(TAKEN_WITHIN));
    let known = connection.clone();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(known.clone());
        let (mut router, known) = (router.clone(), known.clone());
        async move {
            let answer = router.call(request).await;
            known.wait();
            answer
        }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    tokio::pin!(conversation);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            // A client that breaks off, or speaks no HTTP, is no news.
            _ = conversation.as_mut() => return,
            () = connection.evicted.cancelled() => return,
            () = stop.cancelled(), if !is_stopping => {
                conversation.as_mut().graceful_shutdown();
                is_stopping = true;
            }
        }
    }
}
