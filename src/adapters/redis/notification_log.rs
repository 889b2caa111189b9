//! The notification log of one receiver: a hash of its deliveries, and a lease for the process that delivers.
//!
//! Invariant: one script compares the lease and writes the rows, so a process that lost the lease writes
//! nothing. The script also renews the lease, so a process that writes often keeps it. All keys of a receiver have
//! the same hash tag, so they are in one slot of a Redis cluster.

use super::{RedisStore, Settings, lease::nonce};
use crate::core::notify::inbox::Rows;
use crate::core::vocab::partition::escape;
use crate::driver::ports::PortError;
use crate::driver::receivers::ports::{NotificationLog, Written};
use ::redis::Script;
use std::time::{Duration, Instant};

/// KEYS: lease, rows. ARGV: nonce, milliseconds, number of rows to delete, their names, then names and
/// values to set.
const WRITE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local gone = tonumber(ARGV[3])
for at = 4, 3 + gone do redis.call('HDEL', KEYS[2], ARGV[at]) end
for at = 4 + gone, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[at], ARGV[at + 1]) end
return 1";

/// KEYS: lease. ARGV: nonce.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";

/// The rows of one receiver.
#[derive(Debug)]
pub struct SharedNotificationLog {
    store: RedisStore,
    rows: String,
    lease_key: String,
    lease: Duration,
    nonce: String,
    renewed: Instant,
}

impl SharedNotificationLog {
    pub fn new(settings: &Settings, receiver: &str) -> Result<SharedNotificationLog, PortError> {
        let tag = format!("{}:notify:{{{}}}", settings.prefix, escape(receiver));
        Ok(SharedNotificationLog {
            store: RedisStore::new(settings, false)?,
            rows: format!("{tag}:rows"),
            lease_key: format!("{tag}:lease"),
            lease: settings.lease,
            nonce: nonce(),
            renewed: Instant::now(),
        })
    }
}

impl NotificationLog for SharedNotificationLog {
    fn acquire(&mut self) -> Result<bool, PortError> {
        // Each acquisition has a new nonce, so late writes of an earlier one are fenced.
        self.nonce = nonce();
        let (key, nonce, ms) = (&self.lease_key, &self.nonce, millis(self.lease));
        let taken: Option<String> = self.store.ask_once(key, |connection| {
            ::redis::cmd("SET").arg(key).arg(nonce).arg("NX").arg("PX").arg(ms).query(connection)
        })?;
        // A full store refuses SET even if the lease is taken, so any answer proves that writes work.
        self.store.has_written();
        self.renewed = Instant::now();
        Ok(taken.is_some())
    }

    fn load(&mut self) -> Result<Vec<(String, Vec<u8>)>, PortError> {
        let rows = &self.rows;
        self.store.ask_once(rows, |connection| ::redis::cmd("HGETALL").arg(rows).query(connection))
    }

    fn write(&mut self, rows: &Rows) -> Result<Written, PortError> {
        // Each write renews the lease; without rows it is renewed every quarter of its time.
        if rows.is_empty() && self.renewed.elapsed() < self.lease / 4 {
            return Ok(Written::Done);
        }
        self.write_for(self.lease, rows)
    }

    fn hold(&mut self, time: Duration) -> Result<Written, PortError> {
        let left = self.lease.saturating_sub(self.renewed.elapsed());
        match time < left / 2 {
            true => Ok(Written::Done),
            false => self.write_for(self.lease + time, &Rows::default()),
        }
    }

    fn release(&mut self) {
        let (key, nonce) = (&self.lease_key, &self.nonce);
        let released = self
            .store
            .ask_once(key, |connection| Script::new(RELEASE).key(key).arg(nonce).invoke::<u32>(connection));
        if let Err(error) = released {
            tracing::info!(%error, "cannot release the receiver's lease; it expires by itself");
        }
    }
}

impl SharedNotificationLog {
    /// Writes the rows, and renews the lease for this time.
    fn write_for(&mut self, lease: Duration, rows: &Rows) -> Result<Written, PortError> {
        let (ms, gone) = (millis(lease), rows.iter().filter(|(_, value)| value.is_none()).count());
        let script = Script::new(WRITE);
        let mut call = script.key(&self.lease_key);
        call.key(&self.rows).arg(&self.nonce).arg(ms).arg(gone);
        for (key, _) in rows.iter().filter(|(_, value)| value.is_none()) {
            call.arg(key);
        }
        for (key, value) in rows.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
            call.arg(key).arg(value);
        }
        let names = format!("{}, {}", self.lease_key, self.rows);
        let written: u32 = self.store.ask_once(&names, |connection| call.invoke(connection))?;
        self.renewed = Instant::now();
        if written == 1 && rows.iter().any(|(_, value)| value.is_some()) {
            self.store.has_written();
        }
        Ok(if written == 1 { Written::Done } else { Written::Fenced })
    }
}

fn millis(lease: Duration) -> u64 {
    lease.as_millis().max(1) as u64
}
