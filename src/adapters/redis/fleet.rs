//! The live workers of a deployment: a sorted set of their names in Redis. An entry expires by the clock of Redis.

use super::{RedisStore, Settings};
use crate::driver::ports::{Fleet, PortError};
use ::redis::Script;
use std::time::Duration;

/// KEYS: workers. ARGV: name, lifetime in milliseconds. Renews the worker's entry, removes expired entries, and
/// returns the number of live workers. An entry that expires more than ten lifetimes ahead was not written by a
/// worker, so it is removed, too.
const BEAT: &str = "local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%d', now + 10 * ARGV[2]), '+inf')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])";

/// Minimum lifetime of an entry, however short the lease.
const KEPT_MIN: Duration = Duration::from_millis(700);

/// The entry of one worker.
#[derive(Debug)]
pub struct Workers {
    store: RedisStore,
    key: String,
    name: String,
    kept: Duration,
}

impl Workers {
    /// Creates a worker with a new name. Its entry expires after two thirds of a lease, so that the other workers
    /// notice a dead worker before its leases expire.
    pub fn new(settings: &Settings) -> Result<Workers, PortError> {
        let store = RedisStore::new(settings, false)?;
        let key = format!("{}:workers", settings.prefix);
        Ok(Workers { store, key, name: super::lease::nonce(), kept: (settings.lease * 2 / 3).max(KEPT_MIN) })
    }
}

impl Fleet for Workers {
    fn beat(&mut self) -> Result<usize, PortError> {
        let (key, name, ms) = (&self.key, &self.name, self.kept.as_millis() as u64);
        let script = Script::new(BEAT);
        let count =
            self.store.ask_once(key, |connection| script.key(key).arg(name).arg(ms).invoke(connection))?;
        self.store.has_written();
        Ok(count)
    }

    fn leave(&mut self) -> Result<(), PortError> {
        let (key, name) = (&self.key, &self.name);
        self.store.ask_once(key, |connection| ::redis::cmd("ZREM").arg(key).arg(name).query(connection))
    }
}
