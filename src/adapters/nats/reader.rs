//! Reads the event stream as records in order, across broken consumers and connections.
//!
//! Intuition: [`Continuity`] decides which records may be taken; this module only fetches them. On any
//! error the consumer is discarded, and a new one starts at the stream sequence that `Continuity` states. Invariant:
//! the reader prefetches a bounded number of messages. When its queue is full, it sends no further pull, which is the
//! back-pressure on the broker.

use super::pull::Pull;
use super::raw::{self, Which};
use super::transition_log::is_genuine_placed;
use super::{ANSWER_WITHIN, Cause, RETRY_EVERY, extent, stamp};
use crate::driver::continuity::{self, Continuity};
use crate::driver::outage::Outages;
use crate::driver::ports::{Entry, Logged, PortError};
use crate::wire::signature::Signing;
use crate::wire::subject::{MessageKind, Own, codec};
use async_nats::header::HeaderName;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{Client, Message};
use std::convert::Infallible;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Batches that may wait for the worker; with a full queue reading pauses, which is the back-pressure.
const BATCHES_WAITING: usize = 8;

/// Time without a pull after which the broker deletes a consumer.
const CONSUMER_KEPT: Duration = Duration::from_secs(60);

/// The reading task, and the queue of batches that it hands over.
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
    pub(super) fn start(handle: &Handle, cursor: Cursor) -> Reader {
        let (sender, records) = channel(BATCHES_WAITING);
        Reader { records, task: handle.spawn(cursor.run(sender)) }
    }

    pub(super) async fn next(&mut self, wait: Duration) -> Result<Vec<Logged>, PortError> {
        match tokio::time::timeout(wait, self.records.recv()).await {
            Ok(Some(batch)) => batch,
            Ok(None) | Err(_) => Ok(Vec::new()),
        }
    }
}

/// State of the reading task.
pub(super) struct Cursor {
    pub(super) client: Client,
    /// Number of connections established so far. It changes at a reconnect, and pulls sent before that are lost.
    pub(super) connected: watch::Receiver<u64>,
    pub(super) context: Context,
    pub(super) own: Own,
    pub(super) stream: String,
    pub(super) continuity: Continuity,
    pub(super) signing: Signing,
    pub(super) outages: Outages,
    /// Whether this reader has noted the missing stream as an outage.
    pub(super) is_told: bool,
    /// Time of the newest warning about messages that a consumer cannot deliver.
    pub(super) warned_at: Option<Instant>,
}

/// Time between two polls while messages are read one by one.
const RAW_EVERY: Duration = Duration::from_millis(20);

/// Minimum time between two warnings about messages that a consumer cannot deliver.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Name of the outage that is noted while the broker is reachable but has no event stream.
const EVENTS: &str = "event stream";

/// Why reading with a consumer ended.
pub(super) enum Broken {
    /// The consumer failed; a new one is tried.
    Consumer(Cause),
    /// The connection was lost and is established again.
    Connection,
    /// The stream is not the one that was read before; the operator must act.
    Stream(PortError),
    /// The worker has dropped the [`Reader`], so nobody receives the records.
    Unwanted,
}

/// Wraps an error that a new consumer may resolve.
pub(super) fn lost(error: impl Into<Cause>) -> Broken {
    Broken::Consumer(error.into())
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.end_outage();
    }
}

impl Cursor {
    async fn run(mut self, records: Sender<Result<Vec<Logged>, PortError>>) {
        let mut failures = 0u32;
        loop {
            let before = self.continuity.next();
            // `read` returns only with an error.
            let Err(mut broken) = self.read(&records).await;
            if let Broken::Connection = broken {
                // A message that the client cannot parse also breaks the connection, so the next messages are read
                // without a consumer.
                broken = self.read_raw(&records).await.err().unwrap_or(Broken::Connection);
            }
            match broken {
                Broken::Connection if self.continuity.next() > before => failures = 0,
                Broken::Connection => tokio::time::sleep(RETRY_EVERY).await,
                Broken::Consumer(error) => {
                    let next = self.continuity.next();
                    failures = if next > before { 1 } else { failures + 1 };
                    if failures == 2 {
                        tracing::warn!(%error, next, "the consumer failed; the reader creates a new one");
                    }
                    tokio::time::sleep(RETRY_EVERY).await;
                }
                Broken::Stream(error) => {
                    // Sending fails only if the worker is gone.
                    let _ = records.send(Err(error)).await;
                    return;
                }
                Broken::Unwanted => return,
            }
        }
    }

    /// Reads with one consumer until it fails.
    async fn read(&mut self, records: &Sender<Result<Vec<Logged>, PortError>>) -> Result<Infallible, Broken> {
        self.connected.mark_unchanged();
        let found = self.context.get_stream(&self.stream).await;
        self.tell(found.as_ref().err());
        let stream = found.map_err(lost)?;
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
        let mut held = None;
        let mut pull = Pull::begin(&self.client, &self.stream, &consumer.cached_info().name).await?;
        loop {
            let chunk = tokio::select! {
                chunk = pull.next() => chunk?,
                _ = self.connected.changed() => return Err(Broken::Connection),
            };
            match chunk.is_empty() {
                true => {
                    let next = (">", self.continuity.next());
                    raw::find_held_back(&self.context, &self.stream, next, &mut held).await.map_err(lost)?;
                }
                false => self.hand_over(chunk, records).await?,
            }
        }
    }

    /// Reads without a consumer until [`raw::READ_FOR`] has passed since the newest message that a consumer cannot
    /// deliver. So a client that sends many such messages breaks the connection once, not with each message.
    async fn read_raw(&mut self, records: &Sender<Result<Vec<Logged>, PortError>>) -> Result<(), Broken> {
        let mut met = None;
        loop {
            let found = self.context.get_stream(&self.stream).await.map_err(lost)?;
            let extent = extent(found.cached_info());
            let from = self.continuity.begin(&extent).map_err(Broken::Stream)?;
            let which = Which { seq: Some(from), next_by_subj: Some(">"), ..Which::default() };
            let first = raw::get(&self.context, &self.stream, which).await.map_err(lost)?;
            let from = first.map_or(extent.last + 1, |found| found.message.sequence);
            let until = (from + raw::BLOCK as u64).min(extent.last + 1);
            let block = raw::block(&self.context, &self.stream, from..until).await.map_err(lost)?;
            let unreadable = block.iter().filter(|found| !found.is_readable).count();
            if unreadable > 0 {
                met = Some(Instant::now());
                self.warn(from, unreadable);
            }
            self.hand_over(raw::as_consumed(&self.stream, block), records).await?;
            if met.is_none_or(|met: Instant| met.elapsed() >= raw::READ_FOR) {
                return Ok(());
            }
            if until > extent.last {
                tokio::time::sleep(RAW_EVERY).await;
            }
        }
    }

    fn warn(&mut self, from: u64, unreadable: usize) {
        if self.warned_at.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned_at = Some(Instant::now());
            tracing::warn!(
                from,
                unreadable,
                "the client cannot parse the subjects or headers of messages; the reader fetches one by one"
            );
        }
    }

    /// Converts messages to records and hands over those that `Continuity` accepts.
    async fn hand_over(
        &mut self,
        chunk: Vec<Message>,
        records: &Sender<Result<Vec<Logged>, PortError>>,
    ) -> Result<(), Broken> {
        let ours = self.ours(&chunk).await.map_err(lost)?;
        let mut batch = Vec::with_capacity(chunk.len());
        let taken = chunk.into_iter().zip(ours).try_for_each(|(message, is_ours)| {
            let (place, record) = self.record(message, is_ours).map_err(lost)?;
            if self.take(place, &record)? {
                batch.push(record);
            }
            Ok(())
        });
        if let Some(last) = batch.last() {
            self.continuity.remember(last);
            records.send(Ok(batch)).await.map_err(|_| Broken::Unwanted)?;
        }
        taken
    }

    /// Notes a missing stream as an outage, and ends the outage when the stream is found. Connection events note an
    /// unreachable broker, so other errors are ignored here.
    fn tell(&mut self, error: Option<&GetStreamError>) {
        match error.map(GetStreamError::kind) {
            None => self.end_outage(),
            Some(GetStreamErrorKind::JetStream(error))
                if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                self.is_told = true;
                self.outages.begin(EVENTS, &self.stream, &PortError::NO_LOG);
            }
            Some(_) => {}
        }
    }

    fn end_outage(&mut self) {
        if std::mem::take(&mut self.is_told) {
            self.outages.end(EVENTS);
        }
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

    /// Returns for each message whether it is genuine. Messages to the aggregate partition need a valid signature;
    /// events need none. Before a message is rejected as forged, the key is read again, because it may have changed.
    async fn ours(&self, chunk: &[Message]) -> Result<Vec<bool>, Cause> {
        if !self.own.has_partials() {
            return Ok(vec![true; chunk.len()]);
        }
        let is_ours = |message: &Message| {
            let is_signed = matches!(self.own.said(&message.subject), MessageKind::Partials { .. });
            !is_signed || is_genuine_placed(&self.signing, message)
        };
        let mut ours: Vec<bool> = chunk.iter().map(is_ours).collect();
        if ours.contains(&false) {
            let signing = self.signing.clone();
            tokio::task::spawn_blocking(move || signing.reread()).await??;
            ours.iter_mut()
                .zip(chunk)
                .filter(|(ours, _)| !**ours)
                .for_each(|(ours, one)| *ours = is_ours(one));
        }
        Ok(ours)
    }

    /// Converts a message to its consumer sequence and its record. A forged message becomes a tick, which has no
    /// content, so that its stream sequence does not look like a gap.
    fn record(&self, message: Message, is_ours: bool) -> Result<(u64, Logged), Cause> {
        let reply = message.reply.as_ref().ok_or("the message has no reply subject")?;
        let place = MessagePlace::parse(reply)
            .ok_or_else(|| format!("`{reply}` is not a reply subject of JetStream"))?;
        let stamp = stamp(i128::from(place.stamp_ns));
        if !is_ours {
            self.signing.note_forged(&message.subject);
            return Ok((place.in_consumer, Logged { seq: place.in_stream, stamp, entry: Entry::Tick }));
        }
        let entry = entry(&self.own, message);
        Ok((place.in_consumer, Logged { seq: place.in_stream, stamp, entry }))
    }
}

/// Converts a message to the kind of entry that its subject states.
fn entry(own: &Own, message: Message) -> Entry {
    match own.said(&message.subject) {
        MessageKind::Tick => Entry::Tick,
        MessageKind::Control => Entry::Control(message.payload.to_vec()),
        MessageKind::Partials { from, number } => {
            Entry::Partials { from, number, bytes: message.payload.to_vec() }
        }
        MessageKind::Events => {
            let headers = message.headers.as_ref();
            let content_type = headers.and_then(|headers| {
                let is_it =
                    |name: &HeaderName| AsRef::<str>::as_ref(name).eq_ignore_ascii_case("content-type");
                headers.iter().find(|(name, _)| is_it(name)).and_then(|(_, values)| values.first())
            });
            Entry::Events(codec(content_type.map(|value| value.as_str())), message.payload.to_vec())
        }
    }
}

/// A message's position, parsed from the reply subject that the broker creates for the acknowledgement:
/// `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer sequence>.<time>.<pending>`. Newer servers
/// add domain and account before the stream, and a random token at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessagePlace {
    /// The stream sequence.
    pub(super) in_stream: u64,
    /// The consumer sequence.
    pub(super) in_consumer: u64,
    stamp_ns: i64,
    /// Messages that the consumer has still to deliver.
    pub(super) pending: u64,
}

impl MessagePlace {
    /// Returns the time at which the broker stored the message.
    pub(super) fn stamp(&self) -> crate::core::Timestamp {
        stamp(i128::from(self.stamp_ns))
    }

    pub(super) fn parse(reply: &str) -> Option<MessagePlace> {
        let skipped = match reply.bytes().filter(|byte| *byte == b'.').count() {
            8 => 5,
            10.. => 7,
            _ => return None,
        };
        let mut tokens = reply.strip_prefix("$JS.ACK.")?.split('.').skip(skipped - 2);
        let in_stream = tokens.next()?.parse().ok()?;
        let in_consumer = tokens.next()?.parse().ok()?;
        let stamp_ns = tokens.next()?.parse().ok()?;
        let pending = tokens.next()?.parse().ok()?;
        Some(MessagePlace { in_stream, in_consumer, stamp_ns, pending })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_old_and_new_servers_are_read() {
        let place =
            MessagePlace { in_stream: 7, in_consumer: 3, stamp_ns: 1_700_000_000_000_000_001, pending: 42 };
        assert_eq!(MessagePlace::parse("$JS.ACK.SG_EVENTS_0.abc.1.7.3.1700000000000000001.42"), Some(place));
        let new = "$JS.ACK._.ACCOUNT.SG_EVENTS_0.abc.1.7.3.1700000000000000001.42.token";
        assert_eq!(MessagePlace::parse(new), Some(place));
        assert_eq!(MessagePlace::parse("$JS.ACK.SG_EVENTS_0.abc.1.7"), None);
    }
}
