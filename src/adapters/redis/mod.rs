//! The store in Redis: checkpoint, read model, lease.
//!
//! Intuition: everything of a partition has one hash tag, so one script can compare the fence and
//! write windows, alerts, position and outbox in one step that is there whole or not at all.
//! Invariant: epoch, nonce and version are compared for equality; a commit whose result is not
//! known is sent again with the same bytes until it is. Rejected: MULTI (cannot be conditional),
//! WATCH (state of a connection), an epoch alone (Redis may lose its last second and give it twice).

mod book;
mod commit;
mod keys;
mod lease;
mod ledger;
mod read;
mod roster;

use crate::core::histogram::layout::Digits;
use crate::core::partition::Partition;
use crate::driver::outage::Outages;
use crate::driver::ports::{CatalogRow, Numbers, PortError};
use crate::driver::worker::chain;
use crate::wire::address::without_password;
use crate::wire::hdr::Writer;
use ::redis::{Client, ClientTlsConfig, Connection, RedisError, RedisResult, TlsCertificates};
pub use book::RulesBook;
use keys::Keys;
pub use ledger::SharedLedger;
pub use read::Shared;
pub use roster::Workers;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// What a store in Redis is asked to be.
#[derive(Debug, Clone)]
pub struct Settings {
    pub url: String,
    pub prefix: String,
    pub partition: Partition,
    /// How long a lease lives without being renewed.
    pub lease: Duration,
    /// Where it is noted that the store does not answer.
    pub outages: Outages,
}

/// Name of the store among outages.
pub const REDIS: &str = "redis";

/// It answers, and takes nothing: reads do not end that.
pub const REDIS_WRITES: &str = "redis writes";

/// It answers, and what it has is of another kind than was written: somebody must mend a key.
pub const REDIS_DATA: &str = "redis data";

/// Time in which Redis must answer; a commit of 4 MiB takes milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The same for reads that somebody waits for.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// Time between two attempts while Redis is out of reach.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// One partition's store.
pub struct RedisStore {
    client: Client,
    connection: Option<Connection>,
    place: String,
    keys: Keys,
    partitions: u32,
    lease: Duration,
    /// Whether an unreachable Redis is waited for; readers of views do not.
    is_patient: bool,
    catalog: HashMap<u64, CatalogRow>,
    writers: [Writer; 2], // two digits, three digits
    /// Keys that were given their end, as hashes: it is said once each, not with every row.
    expiring: HashSet<u64>,
    /// The newest snapshot in the store: position and number of parts.
    snapshot: Option<(u64, u32)>,
    published: Numbers,
    /// The address, as it may be shown.
    address: String,
    outages: Outages,
    /// The newest answer was an error of the data, noted as [`REDIS_DATA`].
    has_bad_data: bool,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("place", &self.place).finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Only parses the URL; the first call connects.
    pub fn new(settings: &Settings, is_patient: bool) -> Result<RedisStore, PortError> {
        // The URL may hold a password: it is named nowhere.
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

    /// Asks about a key until there is an answer; an impatient one asks twice, as the connection may be stale.
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
            // A connection may have been closed meanwhile; a server that hangs is not asked twice.
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

    /// One attempt.
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
            // Whatever comes over this connection later is no answer to the next question.
            self.connection = None;
            self.expiring.clear();
            let place = self.place.clone();
            let what = self.what_of(&failed);
            if what == REDIS_DATA && !self.is_patient {
                return damaged(key, failed);
            }
            match what {
                // The server was started anew since: that is known for sure only with a new connection.
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

    /// The outage that an error stands for.
    fn what_of(&mut self, error: &RedisError) -> &'static str {
        let is_redis = |store: &mut RedisStore| {
            store.connected().and_then(|connection| ::redis::cmd("PING").query::<String>(connection)).is_ok()
        };
        match error.kind() {
            // The answer is not of Redis, or has another type than the key should have; PING tells which.
            ::redis::ErrorKind::Parse if is_redis(self) => REDIS_DATA,
            _ => what_of(error),
        }
    }

    /// It took something new: also one that is full takes what makes nothing larger.
    fn has_written(&self) {
        self.outages.end(REDIS_WRITES);
    }

    /// A read that a person waits for has the shorter time-out.
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
        // It was made just now where there was none.
        self.connection.as_mut().ok_or_else(|| RedisError::from(std::io::Error::other("no connection")))
    }
}

/// The error of a key whose value no worker wrote.
fn damaged(key: &str, error: impl std::error::Error + Send + Sync + 'static) -> PortError {
    PortError::Unreadable { place: key.into(), source: error.into() }
}

/// Finds out whether this is an address of Redis, before anybody waits for it.
pub fn check(url: &str) -> Result<(), String> {
    let place = without_password(url);
    if url.ends_with("#insecure") {
        return Err(format!(
            "`{place}`: certificates are always verified; without `#insecure`, and with REDIS_CA for your own authority"
        ));
    }
    let checked = client(url).map(drop);
    checked.map_err(|error| format!("`{place}` is no address of Redis, such as redis://host:6379: {error}"))
}

/// For `rediss://` with the system's certificates, or with those that REDIS_CA, and for the client
/// REDIS_CERT and REDIS_KEY, name as files in PEM.
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

/// The outage that an error stands for. Each is waited for: a password is changed, a key is mended, a server comes back.
fn what_of(error: &RedisError) -> &'static str {
    use ::redis::ErrorKind;
    if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
        return REDIS;
    }
    let is_login = || matches!(error.kind(), ErrorKind::AuthenticationFailed);
    // Whatever answers there is no Redis.
    let is_foreign = || matches!(error.kind(), ErrorKind::Io | ErrorKind::Parse);
    let is_full = || error.detail().is_some_and(|detail| detail.contains("max number of clients"));
    match error.code().unwrap_or_default() {
        "OOM" | "READONLY" | "MISCONF" | "NOREPLICAS" | "NOPERM" => REDIS_WRITES,
        "LOADING" | "BUSY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "NOAUTH" | "WRONGPASS" => REDIS,
        _ if is_login() || is_foreign() || is_full() => REDIS,
        _ => REDIS_DATA,
    }
}
