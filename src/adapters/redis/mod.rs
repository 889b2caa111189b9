//! The store in Redis: checkpoint, read model, lease.
//!
//! Intuition: all keys of a partition have the same hash tag, so one script can compare the fencing token and write
//! windows, alerts, position and outbox in one atomic step. Invariant: the fencing token is epoch, nonce and version,
//! all compared for equality. A commit with an unknown result is sent again with the same bytes until the
//! result is known. Rejected: MULTI (it cannot be conditional), WATCH (its state is lost with the connection), an
//! epoch alone (after a crash, Redis may lose the writes of its last second and issue the same epoch twice).

mod commit;
mod fleet;
mod keys;
mod lease;
mod notification_log;
mod read;
mod stored_rules;

use crate::core::measure::histogram::layout::Digits;
use crate::core::vocab::partition::Partition;
use crate::driver::outage::Outages;
use crate::driver::port_error::chain;
use crate::driver::ports::{CatalogRow, Numbers, PortError};
use crate::wire::address::without_password;
use crate::wire::hdr::Writer;
use ::redis::{Client, ClientTlsConfig, Connection, RedisError, RedisResult, TlsCertificates};
pub use fleet::Workers;
use keys::Keys;
pub use notification_log::SharedNotificationLog;
pub use read::Shared;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
pub use stored_rules::StoredRules;

/// Settings of a store in Redis.
#[derive(Debug, Clone)]
pub struct Settings {
    pub url: String,
    pub prefix: String,
    pub partition: Partition,
    /// Time after which a lease that is not renewed expires.
    pub lease: Duration,
    /// Registry in which an unavailable store is noted.
    pub outages: Outages,
}

/// Name of the outage of a Redis that does not answer.
pub const REDIS: &str = "redis";

/// Name of the outage of a Redis that answers but refuses writes; a successful read does not end it.
pub const REDIS_WRITES: &str = "redis writes";

/// Name of the outage of a Redis that answers with data of the wrong type or form; the operator must repair
/// a key.
pub const REDIS_DATA: &str = "redis data";

/// Timeout of a request; a commit of 4 MiB takes milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Timeout of a read that a client waits for.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// Time between two attempts while Redis is unreachable.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// The store of one partition.
pub struct RedisStore {
    client: Client,
    connection: Option<Connection>,
    place: String,
    keys: Keys,
    partitions: u32,
    lease: Duration,
    /// Whether calls wait for an unreachable Redis. Stores that serve clients' reads do not wait.
    is_patient: bool,
    catalog: HashMap<u64, CatalogRow>,
    writers: [Writer; 2], // for two and for three significant digits
    /// Hashes of keys whose expiry is set: it is set once for each key, not with every row.
    expiring: HashSet<u64>,
    /// The newest snapshot in the store: position and number of parts.
    snapshot: Option<(u64, u32)>,
    published: Numbers,
    /// The address without its password, for messages.
    address: String,
    outages: Outages,
    /// Whether [`REDIS_DATA`] is noted because of a data error since the last successful answer.
    has_bad_data: bool,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("place", &self.place).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Parses the URL; the first call connects.
    pub fn new(settings: &Settings, is_patient: bool) -> Result<RedisStore, PortError> {
        // The URL may hold a password, so no message contains it.
        let place = format!("redis ({}:{{{}}})", settings.prefix, settings.partition);
        let failed = |source: RedisError| PortError::Read { place: place.clone(), source: source.into() };
        Ok(RedisStore {
            client: client(&settings.url).map_err(failed)?,
            connection: None,
            writers: [Writer::new(Digits::Two), Writer::new(Digits::Three)],
            keys: Keys::new(&settings.prefix, settings.partition),
            partitions: settings.partition.count,
            lease: settings.lease,
            is_patient,
            catalog: HashMap::new(),
            expiring: HashSet::new(),
            snapshot: None,
            published: Numbers::default(),
            address: without_password(&settings.url),
            outages: settings.outages.clone(),
            has_bad_data: false,
            place,
        })
    }

    /// Repeats a request until Redis answers. A store that is not patient tries at most twice: the first attempt may
    /// fail only because the connection is stale. `key` is used in error messages.
    fn ask<T>(&mut self, key: &str, ask: impl Fn(&mut Connection) -> RedisResult<T>) -> Result<T, PortError> {
        if !self.is_patient && self.outages.was_tried_within(REDIS, READ_WITHIN) {
            let (place, source) = (self.place.clone(), "it did not answer a moment ago".into());
            return Err(PortError::Away { place, source });
        }
        let mut attempts = 0;
        loop {
            let begun = Instant::now();
            let away = match self.ask_once(key, &ask) {
                Err(away @ PortError::Away { .. }) => away,
                known => return known,
            };
            let is_timeout = begun.elapsed() >= self.answer_within();
            attempts += 1;
            // The connection may have been closed since the last request, so one retry is made. After a timeout there
            // is no retry, because a server that hangs would time out again.
            if !self.is_patient && (attempts > 1 || is_timeout) {
                return Err(away);
            }
            if self.outages.is_giving_up() {
                return Err(PortError::Stopping { place: self.place.clone() });
            }
            if attempts > 1 {
                std::thread::park_timeout(RETRY_EVERY);
            }
        }
    }

    /// Makes one attempt.
    fn ask_once<T>(
        &mut self,
        key: &str,
        ask: impl FnOnce(&mut Connection) -> RedisResult<T>,
    ) -> Result<T, PortError> {
        let was_connected = self.connection.is_some();
        let answer = self.connected().and_then(ask);
        if answer.is_ok() {
            self.outages.end(REDIS);
            if std::mem::take(&mut self.has_bad_data) {
                self.outages.end(REDIS_DATA);
            }
        }
        answer.map_err(|failed| {
            // The answer may still arrive on this connection, and the next request would take it for its own. So
            // the connection is dropped. Redis may have lost keys, so their expiry is set again.
            self.connection = None;
            self.expiring.clear();
            let place = self.place.clone();
            let what = self.what_of(&failed);
            if what == REDIS_DATA && !self.is_patient {
                return damaged(key, failed);
            }
            match what {
                // The server may have restarted since the connection was made, and may be reachable again. So an
                // outage is noted only after an error on a new connection.
                REDIS if was_connected && !failed.is_timeout() => {}
                REDIS if failed.is_timeout() => self.outages.begin(what, &self.address, &"no answer in time"),
                REDIS_DATA => {
                    let error = chain(&damaged(key, failed.clone()));
                    self.outages.begin(what, &self.address, &error);
                }
                _ => self.outages.begin(what, &self.address, &format_args!("{key}: {failed}")),
            }
            self.has_bad_data |= what == REDIS_DATA;
            PortError::Away { place, source: failed.into() }
        })
    }

    /// Returns the name of the outage that an error means.
    fn what_of(&mut self, error: &RedisError) -> &'static str {
        let is_redis = |store: &mut RedisStore| {
            store.connected().and_then(|connection| ::redis::cmd("PING").query::<String>(connection)).is_ok()
        };
        match error.kind() {
            // The answer has an unexpected form. If the server answers PING, it is Redis, and the key has a value of
            // the wrong type; otherwise the server is not Redis.
            ::redis::ErrorKind::Parse if is_redis(self) => REDIS_DATA,
            _ => what_of(error),
        }
    }

    /// Ends the outage [`REDIS_WRITES`]. Call it only after a command that a Redis with full memory refuses. Success
    /// of another command does not prove that writes work.
    fn has_written(&self) {
        self.outages.end(REDIS_WRITES);
    }

    /// Returns the timeout; it is shorter for a read that a client waits for.
    fn answer_within(&self) -> Duration {
        if self.is_patient { ANSWER_WITHIN } else { READ_WITHIN }
    }

    fn connected(&mut self) -> RedisResult<&mut Connection> {
        if self.connection.is_none() {
            let within = self.answer_within();
            let connection = self.client.get_connection_with_timeout(within)?;
            connection.set_read_timeout(Some(within))?;
            connection.set_write_timeout(Some(within))?;
            self.connection = Some(connection);
        }
        // The error is never returned, because the connection was made above if there was none.
        self.connection.as_mut().ok_or_else(|| RedisError::from(std::io::Error::other("no connection")))
    }
}

/// Builds the error of a key whose value has a form that no worker writes.
fn damaged(key: &str, error: impl std::error::Error + Send + Sync + 'static) -> PortError {
    PortError::Unreadable { place: key.into(), source: error.into() }
}

/// Checks at start that this is a valid address of Redis, before anything waits for it.
pub fn check(url: &str) -> Result<(), String> {
    let place = without_password(url);
    if url.ends_with("#insecure") {
        return Err(format!(
            "`{place}`: certificates are always verified; remove `#insecure`, and name the certificate of \
             your own authority in REDIS_CA"
        ));
    }
    let checked = client(url).map(drop);
    checked.map_err(|error| format!("`{place}` is no address of Redis, such as redis://host:6379: {error}"))
}

/// Creates a client. For `rediss://`, it trusts the root certificates in the PEM file that REDIS_CA names, or else
/// the system's. REDIS_CERT and REDIS_KEY name the PEM files of the client's own certificate and key.
fn client(url: &str) -> RedisResult<Client> {
    if !url.starts_with("rediss:") {
        return Client::open(url);
    }
    let read = |name: &str| {
        let path = std::env::var_os(name).filter(|value| !value.is_empty());
        path.map(std::fs::read).transpose()
    };
    let root_cert = read("REDIS_CA")?;
    let client_tls = match (read("REDIS_CERT")?, read("REDIS_KEY")?) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        _ => None,
    };
    Client::build_with_tls(url, TlsCertificates { client_tls, root_cert })
}

/// Returns the name of the outage that an error indicates. No error is final: an operator may correct a password or
/// repair a key, or the server may return.
fn what_of(error: &RedisError) -> &'static str {
    use ::redis::ErrorKind;
    if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
        return REDIS;
    }
    let is_login = || matches!(error.kind(), ErrorKind::AuthenticationFailed);
    // An unexpected form of the answer means that the server is not Redis.
    let is_foreign = || matches!(error.kind(), ErrorKind::Io | ErrorKind::Parse);
    let is_full = || error.detail().is_some_and(|detail| detail.contains("max number of clients"));
    match error.code().unwrap_or_default() {
        "OOM" | "READONLY" | "MISCONF" | "NOREPLICAS" | "NOPERM" => REDIS_WRITES,
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "NOAUTH" | "WRONGPASS" => REDIS,
        _ if is_login() || is_foreign() || is_full() => REDIS,
        _ => REDIS_DATA,
    }
}
