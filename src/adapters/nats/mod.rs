//! JetStream: the event log, and the transition log where transitions are published.
//!
//! Intuition: the worker is a plain thread that asks for the next records; the NATS client is asynchronous and
//! runs on the tokio runtime. If the broker is unreachable, calls wait for it; the process does not end.
//! Invariant: the settings of every existing stream are compared with the wanted ones, because older
//! servers silently drop settings that they do not know. Rejected: the client's ordered consumer (it may
//! start again at stream sequence 1, and it needs 80 s to recover from a restart of the broker), a pull from the
//! worker's own thread.

pub(crate) mod alerts;
pub(crate) mod intake;
pub(crate) mod micro;
mod outlet;
pub(crate) mod publisher;
mod pull;
mod raw;
mod reader;
mod transition_log;

use crate::core::Timestamp;
use crate::core::vocab::limits::PAYLOAD_BYTES_MAX;
use crate::core::vocab::partition::Partition;
use crate::driver::continuity::Continuity;
use crate::driver::outage::Outages;
use crate::driver::port_error::chain;
use crate::driver::ports::{Entry, Extent, Feed, Logged, PortError, RequestId};
use crate::wire::address::{credentials, without_password};
use crate::wire::control;
use crate::wire::signature::Signing;
use crate::wire::subject::Subjects;
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind, PublishAckFuture, PublishError};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{Client, ConnectOptions};
use reader::{Cursor, Reader};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Settings of one partition's connection and streams.
#[derive(Debug, Clone)]
pub struct Settings {
    pub url: String,
    pub root: String,
    pub partition: Partition,
    /// Registry in which an unreachable broker is noted.
    pub outages: Outages,
    /// The key with which transitions are signed.
    pub signing: Signing,
}

/// Retention of the streams that this program creates. `EVENTS_KEPT` applies to events, dead letters and rollups,
/// `PARCELS_KEPT` to messages to the aggregate partition, `ALERTS_KEPT` to transitions.
const EVENTS_KEPT: Duration = Duration::from_secs(7 * 86_400);
const PARCELS_KEPT: Duration = Duration::from_secs(86_400);
const ALERTS_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Minimum duplicate window of a stream: the time for which the broker recognises a repeated message id.
const DUPLICATES_KNOWN: Duration = Duration::from_secs(120);

/// Time between two attempts while the broker is unreachable.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// Reconnect back-off: the delay before attempt n is n × `RECONNECT_STEP`, at most `RECONNECT_STEPS` steps (250 ms).
const RECONNECT_STEP: Duration = Duration::from_millis(10);
const RECONNECT_STEPS: u32 = 25;

/// Timeout of one request to the broker; short, because an owner renews its lease between two requests.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// One partition's connection to the broker and access to its streams.
pub struct Bus {
    handle: Handle,
    client: Client,
    connected: watch::Receiver<u64>,
    context: Context,
    subjects: Subjects,
    /// Index of the partition.
    partition: u32,
    /// Whether the deployment has an aggregate partition, for rules that span partitions.
    has_aggregate: bool,
    is_aggregate: bool,
    reader: Option<Reader>,
    /// The broker's address without a password, for messages.
    place: String,
    outages: Outages,
    signing: Signing,
}

/// The identity of a stream and the range of sequence numbers that it holds.
fn extent(info: &Info) -> Extent {
    let (first, last) = (info.state.first_sequence.max(1), info.state.last_sequence);
    Extent { stream: info.created.to_string(), first, last }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("subjects", &self.subjects).finish_non_exhaustive()
    }
}

/// Counts a deployment's partitions by its event streams; returns 0 if there is none.
pub fn count_partitions(handle: &Handle, url: &str, root: &str) -> Result<u32, PortError> {
    handle.block_on(async {
        let outages = Outages::default();
        let context = context(connect(url, &outages).await?);
        let mut count = 0;
        loop {
            let name = Subjects::new(root, Partition { index: count, count: u32::MAX }).events_stream();
            match context.get_stream(name).await {
                Ok(_) => count += 1,
                Err(error) if is_not_found(&error) && count == 0 => {
                    let second = Subjects::new(root, Partition { index: 1, count: u32::MAX }).events_stream();
                    if context.get_stream(&second).await.is_ok() {
                        return Err(PortError::OtherSettings {
                            place: "the deployment".into(),
                            found: format!("it has the stream {second}, and none of partition 0"),
                            hint: "restore the stream of partition 0, or start a worker, which creates it",
                        });
                    }
                    return Ok(0);
                }
                Err(error) if is_not_found(&error) => return Ok(count),
                Err(error) => {
                    outages.begin(NATS, &without_password(url), &error);
                    tokio::time::sleep(RETRY_EVERY).await;
                }
            }
        }
    })
}

fn is_not_found(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

impl Bus {
    /// Connects, creates missing streams and checks existing ones. Must not be called from a task of the
    /// runtime.
    pub fn open(handle: Handle, settings: &Settings) -> Result<Bus, PortError> {
        let subjects = Subjects::new(&settings.root, settings.partition);
        let outages = settings.outages.clone();
        let (sender, connected) = watch::channel(0);
        let client = handle.block_on(connect_and_tell(&settings.url, sender, outages.clone()))?;
        let context = handle.block_on(async { context(client.clone()) });
        let has_aggregate = settings.partition.count > 1;
        let place = without_password(&settings.url);
        let reader = None;
        let signing = settings.signing.clone();
        let bus = Bus {
            handle,
            client,
            connected,
            context,
            subjects,
            partition: settings.partition.index,
            has_aggregate,
            is_aggregate: settings.partition.is_aggregate(),
            reader,
            place,
            outages,
            signing,
        };
        bus.check_streams()?;
        Ok(bus)
    }

    /// Creates missing streams and checks existing ones.
    fn check_streams(&self) -> Result<(), PortError> {
        if self.has_aggregate {
            let name = self.subjects.partials_stream().into();
            self.check_stream(wanted(name, self.subjects.partials(), PARCELS_KEPT))?;
        }
        if !self.is_aggregate {
            self.check_stream(wanted(self.subjects.events_stream(), self.subjects.events(), EVENTS_KEPT))?;
        }
        self.streams_out().into_iter().try_for_each(|wanted| self.check_stream(wanted))
    }

    /// The streams that a partition writes: alerts, dead letters and rollups.
    fn streams_out(&self) -> Vec<Config> {
        let asides = self.subjects.asides().into_iter();
        let asides = asides.map(|(name, subjects)| wanted(name.into(), subjects, EVENTS_KEPT));
        let alerts = wanted(self.subjects.alerts_stream().into(), self.subjects.alerts(), ALERTS_KEPT);
        std::iter::once(alerts).chain(asides).collect()
    }

    /// Recreates deleted output streams. A failure here is harmless, because the next failed publish tries
    /// again.
    async fn make_streams_out(&self) {
        for wanted in self.streams_out() {
            let name = wanted.name.clone();
            if let Err(error) = self.context.get_or_create_stream(wanted).await {
                tracing::debug!(%error, name, "cannot create a missing stream");
            }
        }
    }

    fn check_stream(&self, wanted: Config) -> Result<(), PortError> {
        let name = wanted.name.clone();
        let stream = self.patiently("find or create a stream", || {
            let (context, wanted) = (self.context.clone(), wanted.clone());
            async move { context.get_or_create_stream(wanted).await }
        })?;
        let found = &stream.cached_info().config;
        difference(&wanted, found).map_or(Ok(()), |difference| {
            Err(PortError::OtherSettings {
                place: format!("stream {name}"),
                found: difference,
                hint: "change the stream, or choose another root for this deployment",
            })
        })
    }

    /// Repeats a request until the broker answers, or the process stops.
    fn patiently<T, E, F>(&self, what: &str, mut ask: impl FnMut() -> F) -> Result<T, PortError>
    where
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        self.handle.block_on(async {
            let mut attempts = 0u32;
            loop {
                match ask().await {
                    Ok(answer) => {
                        self.outages.end(NATS);
                        return Ok(answer);
                    }
                    // The first two failures are not noted as an outage, because they may come from a
                    // connection that was just lost.
                    Err(error) if attempts >= 2 => {
                        self.outages.begin(NATS, &self.place, &format_args!("cannot {what}: {error}"));
                    }
                    Err(_) => {}
                }
                attempts += 1;
                if self.outages.is_giving_up() {
                    return Err(PortError::Stopping { place: self.place.clone() });
                }
                tokio::time::sleep(RETRY_EVERY).await;
            }
        })
    }

    /// Returns whether the log has a record with stream sequence `seq` or a higher one.
    pub fn has_records_from(&self, seq: u64) -> Result<bool, PortError> {
        let which = raw::Which { seq: Some(seq), next_by_subj: Some(">"), ..raw::Which::default() };
        let name = self.subjects.events_stream();
        let found = self.patiently("look for the next record", || raw::get(&self.context, &name, which))?;
        Ok(found.is_some())
    }

    fn stream(&self, name: &str) -> Result<Stream, PortError> {
        self.patiently("find a stream", || {
            let (context, name) = (self.context.clone(), name.to_string());
            async move { context.get_stream(name).await }
        })
    }
}

/// The settings with which a missing stream is created.
fn wanted(name: String, subjects: Vec<String>, kept: Duration) -> Config {
    Config {
        name,
        subjects,
        max_age: kept,
        discard: DiscardPolicy::Old,
        duplicate_window: DUPLICATES_KNOWN,
        num_replicas: 1,
        ..Config::default()
    }
}

/// Describes the first setting of `found` with which the stream does not work; `None` if there is none. The
/// operator may choose the maximum age and the number of replicas, so these are not compared.
fn difference(wanted: &Config, found: &Config) -> Option<String> {
    let sorted = |config: &Config| {
        let mut subjects = config.subjects.clone();
        subjects.sort();
        subjects
    };
    if sorted(wanted) != sorted(found) {
        return Some(format!("it takes {:?}, not {:?}", found.subjects, wanted.subjects));
    }
    if found.discard != wanted.discard {
        return Some("its discard policy refuses new messages; it must be `old`".into());
    }
    if found.sealed {
        return Some("it is sealed and takes no messages".into());
    }
    if found.retention != RetentionPolicy::Limits {
        return Some(
            "its retention deletes records that others still have to read; it must be `limits`".into(),
        );
    }
    if usize::try_from(found.max_message_size).is_ok_and(|most| most > 0 && most < PAYLOAD_BYTES_MAX) {
        return Some(format!("it takes messages of {} bytes at most", found.max_message_size));
    }
    if found.duplicate_window < wanted.duplicate_window {
        return Some(format!("its duplicate window is only {:?}", found.duplicate_window));
    }
    None
}

/// Returns a JetStream context with the timeout [`ANSWER_WITHIN`]. The context starts a task, so this function must
/// be called within the runtime.
fn context(client: Client) -> Context {
    let mut context = async_nats::jetstream::new(client);
    context.set_timeout(ANSWER_WITHIN);
    context
}

/// Waits for the broker's acknowledgement of a message that was sent.
async fn acknowledged(sent: Result<PublishAckFuture, PublishError>) -> Result<PublishAck, PublishError> {
    PublishAckFuture::into_future(sent?).await
}

/// Name of the outage of a log that accepts no appends.
const APPENDS: &str = "appends to the log";

/// Name of the broker's outage.
pub const NATS: &str = "nats";

/// Environment variables that name files; the files are read for each connection.
const FILES: [&str; 5] = ["NATS_CREDS", "NATS_NKEY", "NATS_CA", "NATS_CERT", "NATS_KEY"];

/// Checks at start that the addresses are valid and the credential files readable, before anything waits
/// for the broker.
pub fn check(url: &str) -> Result<(), String> {
    for place in without_password(url).split(',') {
        place
            .parse::<async_nats::ServerAddr>()
            .map_err(|error| format!("`{place}` is no address of NATS, such as nats://host:4222: {error}"))?;
    }
    let named = FILES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    for (name, path) in named.filter(|(_, path)| !path.is_empty()) {
        std::fs::File::open(&path)
            .map_err(|error| format!("{name}: cannot read {}: {error}", path.display()))?;
    }
    Ok(())
}

/// Time after which a lost connection counts as an outage. It is longer than one reconnect delay (250 ms).
const MISSED_AFTER: Duration = Duration::from_millis(400);

/// Ping interval. The client closes the connection to a hanging broker after the third unanswered ping.
const PING_EVERY: Duration = Duration::from_secs(2);

/// Connects with the credentials in the URL or in the environment variables of the `nats` command line tool.
async fn connect(url: &str, outages: &Outages) -> Result<Client, PortError> {
    connect_and_tell(url, watch::channel(0).0, outages.clone()).await
}

/// Connects like [`connect`]; `connected` counts the connections that were established.
async fn connect_and_tell(
    url: &str,
    connected: watch::Sender<u64>,
    outages: Outages,
) -> Result<Client, PortError> {
    let failed = |source: Cause| PortError::Read { place: "the broker's address".into(), source };
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    // The client logs addresses, so it gets them without the password.
    let place = without_password(url);
    let link = Link { outages, place: place.clone(), connected: Arc::new(connected), is_up: Arc::default() };
    let tell = move |event| {
        link.hear(event);
        std::future::ready(())
    };
    let mut options =
        ConnectOptions::new().name("streamgauge").retry_on_initial_connect().event_callback(tell);
    options = options.ping_interval(PING_EVERY);
    options =
        options.reconnect_delay_callback(|attempts| RECONNECT_STEP * (attempts as u32).min(RECONNECT_STEPS));
    if let Some(path) = set("NATS_CREDS") {
        options = options.credentials_file(path).await.map_err(|error| failed(error.into()))?;
    }
    if let Some(path) = set("NATS_NKEY") {
        let seed = std::fs::read_to_string(path).map_err(|error| failed(error.into()))?;
        options = options.nkey(seed.trim().into());
    }
    if let Some(token) = set("NATS_TOKEN") {
        options = options.token(token);
    }
    if let (Some(user), Some(password)) = (set("NATS_USER"), set("NATS_PASSWORD")) {
        options = options.user_and_password(user, password);
    }
    if let Some(path) = set("NATS_CA") {
        options = options.add_root_certificates(path.into()).require_tls(true);
    }
    if let (Some(certificate), Some(key)) = (set("NATS_CERT"), set("NATS_KEY")) {
        options = options.add_client_certificate(certificate.into(), key.into()).require_tls(true);
    }
    match credentials(url) {
        Some((user, Some(password))) => options = options.user_and_password(user, password),
        Some((token, None)) => options = options.token(token),
        None => {}
    }
    let servers: Vec<&str> = place.split(',').collect();
    options.connect(servers).await.map_err(|error| failed(error.into()))
}

/// Connections that the broker has accepted from this process so far.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// State of one connection, updated by the client's events.
#[derive(Clone)]
struct Link {
    outages: Outages,
    place: String,
    connected: Arc<watch::Sender<u64>>,
    is_up: Arc<AtomicBool>,
}

impl Link {
    fn hear(&self, event: async_nats::Event) {
        match event {
            async_nats::Event::Connected => {
                self.is_up.store(true, Ordering::Relaxed);
                CONNECTIONS.fetch_add(1, Ordering::Relaxed);
                self.outages.end(NATS);
                self.outages.forget_refusal(NATS);
                self.connected.send_modify(|count| *count += 1);
            }
            async_nats::Event::Disconnected => {
                self.is_up.store(false, Ordering::Relaxed);
                self.miss("the connection was lost".into());
            }
            async_nats::Event::ClientError(error) => self.miss(error.to_string()),
            async_nats::Event::ServerError(error) => self.outages.refuse(NATS, &self.place, &error),
            _ => {}
        }
    }

    /// Notes an outage unless the connection is back within [`MISSED_AFTER`].
    fn miss(&self, error: String) {
        let (link, before) = (self.clone(), CONNECTIONS.load(Ordering::Relaxed));
        tokio::spawn(async move {
            tokio::time::sleep(MISSED_AFTER).await;
            // If another connection of this process was accepted since, the broker is reachable, and this
            // connection returns at its next attempt.
            let is_away = CONNECTIONS.load(Ordering::Relaxed) == before;
            if is_away && !link.is_up.load(Ordering::Relaxed) {
                link.outages.begin(NATS, &link.place, &error);
            }
        });
    }
}

impl Feed for Bus {
    fn extent(&mut self) -> Result<Option<Extent>, PortError> {
        self.patiently("find a stream", || {
            let (context, name) = (self.context.clone(), self.subjects.events_stream());
            async move {
                match context.get_stream(name).await {
                    Ok(stream) => Ok(Some(extent(stream.cached_info()))),
                    Err(error) if is_not_found(&error) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        })
    }

    fn create(&mut self) -> Result<(), PortError> {
        self.check_streams()
    }

    fn seek(&mut self, continuity: Continuity) -> Result<(), PortError> {
        let cursor = Cursor {
            client: self.client.clone(),
            connected: self.connected.clone(),
            context: self.context.clone(),
            own: self.subjects.read_as(),
            stream: self.subjects.events_stream(),
            continuity,
            signing: self.signing.clone(),
            outages: self.outages.clone(),
            is_told: false,
            warned_at: None,
        };
        self.reader = Some(Reader::start(&self.handle, cursor));
        Ok(())
    }

    fn next(&mut self, wait: Duration) -> Result<Vec<Logged>, PortError> {
        match &mut self.reader {
            Some(reader) => self.handle.block_on(reader.next(wait)),
            None => Ok(Vec::new()),
        }
    }

    /// Ignores the time and the request ids: the broker stamps the records, and requests of clients are appended by
    /// the module `intake`.
    fn append(
        &mut self,
        entries: Vec<(Entry, Option<RequestId>)>,
        _confirmed: Timestamp,
    ) -> Vec<Result<u64, PortError>> {
        let entries = entries.into_iter().map(|(entry, _)| (entry, None)).collect();
        let results = self.handle.block_on(append(&self.context, &self.subjects, entries));
        // Ticks are appended regularly, so a successful append ends the outage soon.
        let of = (APPENDS, self.partition);
        match results.iter().find_map(|result| result.as_ref().err()) {
            None => self.outages.end_of(of),
            // The error already names the stream, so only the broker's address is added.
            Some(error) => self.outages.begin_of(of, &self.place, &chain(error)),
        }
        results
    }
}

/// Bytes reserved for the subject and headers of a record: `Nats-Msg-Id` (at most 300 bytes) and content type.
const RECORD_HEADERS_BYTES: usize = 1_024;

/// Returns the maximum bytes of a record's payload; `None` before the broker has sent its `max_payload`.
fn record_bytes_max(context: &Context) -> Option<usize> {
    let max_payload = Some(context.client().server_info().max_payload).filter(|max| *max > 0);
    max_payload.map(|max| max.saturating_sub(RECORD_HEADERS_BYTES))
}

/// Publishes entries and returns the stream sequence of each. The broker recognises a repeated entry by its message
/// id, if it has one.
async fn append(
    context: &Context,
    subjects: &Subjects,
    entries: Vec<(Entry, Option<String>)>,
) -> Vec<Result<u64, PortError>> {
    let room = record_bytes_max(context).unwrap_or(usize::MAX);
    let mut waiting = Vec::with_capacity(entries.len());
    for (entry, id) in entries {
        let publish = PublishMessage::build();
        let publish = id.into_iter().fold(publish, PublishMessage::message_id);
        let (subject, publish) = match entry {
            Entry::Events(codec, payload) => {
                let publish = publish.header("Content-Type", codec.content_type()).payload(payload.into());
                (subjects.own_events(), publish)
            }
            Entry::Tick => (subjects.tick(), publish),
            Entry::Control(json) => (subjects.control(), publish.payload(control::packed(json, room).into())),
            // Messages to the aggregate have subjects of their own; see [`TransitionLog::post`].
            Entry::Partials { number, bytes, .. } => {
                (subjects.partials_subject(number), publish.payload(bytes.into()))
            }
        };
        waiting.push(context.send_publish(subject, publish).await);
    }
    let mut results = Vec::with_capacity(waiting.len());
    for sent in waiting {
        let failed = |source: Cause| PortError::Away { place: subjects.events_stream(), source };
        let acknowledged = acknowledged(sent).await;
        results.push(acknowledged.map(|ack| ack.sequence).map_err(|error| failed(error.into())));
    }
    results
}

/// Converts a message's time to whole milliseconds.
fn stamp(epoch_ns: i128) -> Timestamp {
    Timestamp::clamped((epoch_ns / 1_000_000) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_would_lose_records_is_refused_by_name() {
        let wanted = wanted("SG_EVENTS_0".into(), vec!["sg.v1.>".into()], EVENTS_KEPT);
        let said = |change: fn(&mut Config)| {
            let mut found = wanted.clone();
            change(&mut found);
            difference(&wanted, &found).unwrap_or_default()
        };
        assert_eq!(said(|_| {}), "");
        assert_eq!(said(|found| found.max_message_size = -1), "");
        assert_eq!(said(|found| found.max_message_size = 8 << 20), "");
        assert!(said(|found| found.max_message_size = 100).contains("100 bytes at most"));
        assert!(said(|found| found.sealed = true).contains("sealed"));
        assert!(said(|found| found.retention = RetentionPolicy::WorkQueue).contains("`limits`"));
        assert!(said(|found| found.discard = DiscardPolicy::New).contains("refuses new messages"));
    }
}
