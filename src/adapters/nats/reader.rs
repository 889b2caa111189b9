//! The event stream as records in order, whatever happens to consumers and connections.
//!
//! Intuition: a consumer is only a cursor that the broker keeps for us, and it may forget it, lose
//! messages on the way or go back. So every message is checked: its place in the consumer and its
//! place in the stream must each be the next one. At any break the consumer is thrown away and a new
//! one begins behind the last record that was handed over.
//! Invariant: records leave with ascending numbers; a hole is only where the stream itself has one.

use super::{ANSWER_WITHIN, Cause, RETRY_EVERY, stamp};
use crate::driver::ports::{Entry, Logged, PortError};
use crate::wire::subject::{Said, Subjects, codec};
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::message::Message;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

/// Messages handed over together at most.
const BATCH_MAX: usize = 1_024;

/// Batches that may wait for the worker; then reading stops: back-pressure is the pull.
const BATCHES_WAITING: usize = 8;

/// Messages and bytes of one pull: a quarter of the client's own buffer of 65,536, and what
/// nats-server 2.9 sends without taking the client for a slow one.
const PULL_MESSAGES: usize = 5_000;
const PULL_BYTES: usize = 16 << 20;

/// A consumer that nobody reads is forgotten by the broker after this.
const CONSUMER_KEPT: Duration = Duration::from_secs(60);

/// Without a sign of life for twice this the consumer is made anew.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The task that reads, and what it hands over.
#[derive(Debug)]
pub(super) struct Reader {
    records: Receiver<Result<Vec<Logged>, PortError>>,
    task: JoinHandle<()>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reader {
    pub(super) fn start(handle: &Handle, context: Context, subjects: &Subjects, from: u64) -> Reader {
        let (sender, records) = channel(BATCHES_WAITING);
        let subjects = subjects.clone();
        let cursor =
            Cursor { context, stream: subjects.events_stream(), subjects, next: from, created: None };
        Reader { records, task: handle.spawn(cursor.run(sender)) }
    }

    pub(super) async fn next(&mut self, wait: Duration) -> Result<Vec<Logged>, PortError> {
        match tokio::time::timeout(wait, self.records.recv()).await {
            Ok(Some(batch)) => batch,
            Ok(None) | Err(_) => Ok(Vec::new()),
        }
    }
}

/// Where reading stands.
struct Cursor {
    context: Context,
    subjects: Subjects,
    stream: String,
    next: u64,
    /// When the stream was made; another time means that it is another stream.
    created: Option<String>,
}

/// Why a consumer was given up.
enum Broken {
    /// Try again with a new one.
    Consumer(Cause),
    /// The stream is not the one that was read; somebody must look.
    Stream(PortError),
    /// Nobody reads any more.
    Unwanted,
}

impl Cursor {
    async fn run(mut self, records: Sender<Result<Vec<Logged>, PortError>>) {
        let mut failures = 0u32;
        loop {
            let before = self.next;
            match self.read(&records).await {
                Broken::Consumer(error) => {
                    failures = if self.next > before { 1 } else { failures + 1 };
                    if failures == 2 {
                        tracing::warn!(%error, next = self.next, "reading is interrupted; trying again");
                    }
                    tokio::time::sleep(RETRY_EVERY).await;
                }
                Broken::Stream(error) => {
                    // The worker is gone if nobody takes it.
                    let _ = records.send(Err(error)).await;
                    return;
                }
                Broken::Unwanted => return,
            }
        }
    }

    /// Reads with one consumer until it breaks.
    async fn read(&mut self, records: &Sender<Result<Vec<Logged>, PortError>>) -> Broken {
        match self.consume(records).await {
            Ok(broken) => broken,
            Err(error) => Broken::Consumer(error),
        }
    }

    async fn consume(&mut self, records: &Sender<Result<Vec<Logged>, PortError>>) -> Result<Broken, Cause> {
        let stream = self.context.get_stream(&self.stream).await?;
        let info = stream.cached_info();
        if let Some(error) = self.changed(info) {
            return Ok(Broken::Stream(error));
        }
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next },
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: CONSUMER_KEPT,
            ..pull::Config::default()
        };
        let consumer = tokio::time::timeout(ANSWER_WITHIN, stream.create_consumer(config)).await??;
        let pulled = consumer.stream().max_messages_per_batch(PULL_MESSAGES).max_bytes_per_batch(PULL_BYTES);
        let messages = pulled.heartbeat(HEARTBEAT).expires(HEARTBEAT * 5).messages().await?;
        let mut chunks = messages.ready_chunks(BATCH_MAX);
        let mut delivered = 0;
        while let Some(chunk) = chunks.next().await {
            let mut batch = Vec::with_capacity(chunk.len());
            let mut broken: Option<Cause> = None;
            for message in chunk {
                match message.map_err(Cause::from).and_then(|message| self.take(&message, &mut delivered)) {
                    Ok(Some(record)) => batch.push(record),
                    Ok(None) => {}
                    Err(error) => {
                        broken = Some(error);
                        break;
                    }
                }
            }
            if !batch.is_empty() && records.send(Ok(batch)).await.is_err() {
                return Ok(Broken::Unwanted);
            }
            if let Some(error) = broken {
                return Err(error);
            }
        }
        Err("the consumer has ended".into())
    }

    /// A stream that was made anew or has lost its end is not the log that was read.
    fn changed(&mut self, info: &async_nats::jetstream::stream::Info) -> Option<PortError> {
        let created = info.created.to_string();
        let known = self.created.get_or_insert_with(|| created.clone());
        let found = if *known != created {
            format!("it was made anew at {created}")
        } else if info.state.last_sequence + 1 < self.next {
            format!("it ends at {}, but {} was read before", info.state.last_sequence, self.next - 1)
        } else {
            return None;
        };
        let hint = "the log has gone back; restore the stream, or remove the partition's keys from Redis to begin anew";
        Some(PortError::Changed { place: format!("stream {}", self.stream), found, hint })
    }

    /// One message as a record; nothing if it was handed over before.
    fn take(&mut self, message: &Message, delivered: &mut u64) -> Result<Option<Logged>, Cause> {
        let info = message.info()?;
        if info.consumer_sequence != *delivered + 1 {
            return Err(format!("message {} came after {delivered}", info.consumer_sequence).into());
        }
        *delivered = info.consumer_sequence;
        let seq = info.stream_sequence;
        if seq < self.next {
            return Ok(None);
        }
        if seq > self.next {
            tracing::warn!(from = self.next, to = seq - 1, "the log has a gap: these records are gone");
        }
        self.next = seq + 1;
        Ok(Some(Logged {
            seq,
            stamp: stamp(info.published.unix_timestamp_nanos()),
            entry: self.entry(message),
        }))
    }

    fn entry(&self, message: &Message) -> Entry {
        match self.subjects.said(&message.subject) {
            Said::Tick => Entry::Tick,
            Said::Control => Entry::Control(message.payload.to_vec()),
            Said::Events => {
                let headers = message.headers.as_ref();
                let content_type = headers.and_then(|headers| {
                    let mut all = headers.iter();
                    all.find(|(name, _)| name.to_string().eq_ignore_ascii_case("content-type"))
                });
                let content_type = content_type.and_then(|(_, values)| values.first()).map(|v| v.as_str());
                Entry::Events(codec(content_type), message.payload.to_vec())
            }
        }
    }
}
