//! The HTTP server: accepts connections, serves them, and ends when the service drains.
//!
//! Intuition: a client may be slow, silent or hostile, and other clients must not be affected. Request heads,
//! bodies and answers therefore each have a timeout for progress, and all bodies and answers together have a
//! limit in bytes.
//! Rejected: `axum::serve`, which has neither timeouts nor a limit on connections.

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

/// Timeout for a request head, which includes the idle time between two requests of one connection.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// Maximum size of a request head in bytes, and of one read of a body.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A client that reads nothing of its answer for this long is disconnected.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// Delay before the next attempt when accepting a connection fails, for example for lack of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Serves until `stop` is cancelled and every request that was begun is answered.
pub(crate) async fn serve(
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

/// Serves one connection until the client, a timeout, an eviction or the end of the service closes it.
async fn converse(stream: TcpStream, router: Router, connection: Arc<Connection>, stop: CancellationToken) {
    // Nagle's algorithm would delay a small answer until the client has acknowledged earlier data.
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
            // A connection that breaks off or speaks no HTTP is not worth a log line.
            _ = conversation.as_mut() => return,
            () = connection.evicted.cancelled() => return,
            () = stop.cancelled(), if !is_stopping => {
                conversation.as_mut().graceful_shutdown();
                is_stopping = true;
            }
        }
    }
}
