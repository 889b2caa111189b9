//! The event stream as records in order, whatever happens to consumers and connections.
//!
//! Intuition: what may be taken is decided by [`Continuity`]; this is the way there and back. At any
//! break the consumer is thrown away, and a new one begins where continuity says.
//! Invariant: back-pressure is the pull; nobody reads further than the worker may want.

use super::{ANSWER_WITHIN, Cause, RETRY_EVERY, extent, stamp};
use crate::driver::continuity::{self, Continuity};
use crate::driver::ports::{Entry, Logged, PortError};
use crate::wire::subject::{Said, Subjects, codec};
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::message::Message;
use futures_util::StreamExt;
use std::convert::Infallible;
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
    pub(super) fn start(
        handle: &Handle,
        context: Context,
        subjects: &Subjects,
        continuity: Continuity,
    ) -> Reader {
        let (sender, records) = channel(BATCHES_WAITING);
        let subjects = subjects.clone();
        let cursor = Cursor { context, stream: subjects.events_stream(), subjects, continuity };
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
    continuity: Continuity,
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

/// Whatever goes wrong on the way is a reason for a new consumer.
fn lost(error: impl Into<Cause>) -> Broken {
    Broken::Consumer(error.into())
}

impl Cursor {
    async fn run(mut self, records: Sender<Result<Vec<Logged>, PortError>>) {
        let mut failures = 0u32;
        loop {
            let before = self.continuity.next();
            // Reading only ends by breaking.
            let Err(broken) = self.read(&records).await;
            match broken {
                Broken::Consumer(error) => {
                    let next = self.continuity.next();
                    failures = if next > before { 1 } else { failures + 1 };
                    if failures == 2 {
                        tracing::warn!(%error, next, "reading is interrupted; trying again");
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
    async fn read(&mut self, records: &Sender<Result<Vec<Logged>, PortError>>) -> Result<Infallible, Broken> {
        let stream = self.context.get_stream(&self.stream).await.map_err(lost)?;
        let from = self.continuity.begin(&extent(stream.cached_info())).map_err(Broken::Stream)?;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: CONSUMER_KEPT,
            ..pull::Config::default()
        };
        let made = tokio::time::timeout(ANSWER_WITHIN, stream.create_consumer(config)).await;
        let consumer = made.map_err(lost)?.map_err(lost)?;
        let pulled = consumer.stream().max_messages_per_batch(PULL_MESSAGES).max_bytes_per_batch(PULL_BYTES);
        let messages = pulled.heartbeat(HEARTBEAT).expires(HEARTBEAT * 5).messages().await.map_err(lost)?;
        let mut chunks = messages.ready_chunks(BATCH_MAX);
        while let Some(chunk) = chunks.next().await {
            let mut batch = Vec::with_capacity(chunk.len());
            let taken = chunk.into_iter().try_for_each(|message| {
                let (place, record) = self.record(&message.map_err(lost)?).map_err(lost)?;
                if self.take(place, &record)? {
                    batch.push(record);
                }
                Ok(())
            });
            if let Some(last) = batch.last() {
                self.continuity.remember(last);
                records.send(Ok(batch)).await.map_err(|_| Broken::Unwanted)?;
            }
            taken?;
        }
        Err(lost("the consumer has ended"))
    }

    fn take(&mut self, place: u64, record: &Logged) -> Result<bool, Broken> {
        let next = self.continuity.next();
        let is_new = self.continuity.take(place, record).map_err(|broken| match broken {
            continuity::Broken::Consumer(why) => lost(why),
            continuity::Broken::Log(error) => Broken::Stream(error),
        })?;
        if is_new && record.seq > next {
            tracing::warn!(from = next, to = record.seq - 1, "the log has a gap: these records are gone");
        }
        Ok(is_new)
    }

    /// A message with its place in the consumer.
    fn record(&self, message: &Message) -> Result<(u64, Logged), Cause> {
        let info = message.info()?;
        let stamp = stamp(info.published.unix_timestamp_nanos());
        let record = Logged { seq: info.stream_sequence, stamp, entry: self.entry(message) };
        Ok((info.consumer_sequence, record))
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
