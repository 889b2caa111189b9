//! The lease of a partition. Its owner may commit until the lease expires. Every commit carries the owner's fencing
//! token (epoch, nonce and version), so Redis refuses commits of an earlier owner.

use super::{RedisStore, damaged};
use crate::core::Timestamp;
use crate::driver::ports::{Fence, PortError};
use crate::wire::signature::Secret;
use ::redis::Script;
use ring::rand::{SecureRandom, SystemRandom};
use std::hash::{BuildHasher, RandomState};

const ACQUIRE: &str = include_str!("acquire.lua");

/// KEYS: lease, checkpoint. ARGV: nonce, milliseconds, version. Renews the lease. The version is compared, too: if
/// Redis lost its newest writes, it has an older version, and an owner that has nothing to commit must notice that.
const RENEW: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('HGET', KEYS[2], 'ver') ~= ARGV[3] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// KEYS: lease, checkpoint. ARGV: nonce. Releases the lease. An owner that releases its lease did not crash, so the
/// counter of take-overs (`tries`) is reset.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[2], 'tries', 'trying')
return redis.call('DEL', KEYS[1])";

/// KEYS: checkpoint. ARGV: nonce. Resets the counters of take-overs and of deaths at a record.
const CALM: &str = "if redis.call('HGET', KEYS[1], 'nonce') ~= ARGV[1] then return 0 end
return redis.call('HDEL', KEYS[1], 'tries', 'trying', 'suspect', 'deaths')";

/// KEYS: checkpoint. ARGV: nonce, record. Notes that the owner is about to apply this record. Returns how many owners
/// in a row died at this record, or -1 if this owner is fenced.
const ATTEMPT: &str = "if redis.call('HGET', KEYS[1], 'nonce') ~= ARGV[1] then return -1 end
redis.call('HSET', KEYS[1], 'trying', ARGV[2])
if redis.call('HGET', KEYS[1], 'suspect') ~= ARGV[2] then return 0 end
return tonumber(redis.call('HGET', KEYS[1], 'deaths'))";

/// KEYS: the signing key of alerts. ARGV: an offered key, the time at which it was created (empty: now). Stores the
/// offered key if there is none. Returns the stored key, and its creation time in epoch milliseconds.
const ALERT_KEY: &str = "local time = redis.call('TIME')
if redis.call('HSETNX', KEYS[1], 'key', ARGV[1]) == 1 then redis.call('HSET', KEYS[1], 'since', ARGV[2] ~= '' and ARGV[2] or time[1] * 1000 + math.floor(time[2] / 1000)) end
return redis.call('HMGET', KEYS[1], 'key', 'since')";

fn meta_of(meta: &str, partitions: &str) -> ::redis::Cmd {
    let mut command = ::redis::cmd("HSET");
    command.arg(meta).arg(&[("partitions", partitions), ("version", "1"), ("resolutions", "1m,5m,1h")]);
    command
}

impl RedisStore {
    /// Reads the signing key of alerts and its creation time. If Redis has no key, stores `known`, the key that this
    /// process has used so far; without `known`, stores a new key.
    pub(super) fn read_alert_key(&mut self, known: Option<Secret>) -> Result<Secret, PortError> {
        let mut fresh = [0; 32];
        // The random bytes become the key if Redis has none. Without a source of randomness no key is safe, so the
        // call fails.
        let (key, script) = (self.keys.alert_key(), Script::new(ALERT_KEY));
        SystemRandom::new().fill(&mut fresh).map_err(|_| PortError::Read {
            place: "the system's source of randomness".into(),
            source: "it returned no bytes".into(),
        })?;
        let (offered, since) = match known {
            Some((secret, since)) => (secret, since.ms().to_string()),
            None => (fresh.to_vec(), String::new()),
        };
        let found: (Vec<u8>, String) =
            self.ask(&key, |connection| script.key(&key).arg(&offered).arg(&since).invoke(connection))?;
        let since: f64 = found.1.parse().map_err(|error| damaged(&key, error))?;
        if found.0.len() != fresh.len() {
            let error = std::io::Error::other(format!("it has {} bytes, not {}", found.0.len(), fresh.len()));
            return Err(damaged(&key, error));
        }
        Ok((found.0, Timestamp::clamped(since as i64)))
    }

    pub(super) fn take_lease(&mut self) -> Result<Option<Fence>, PortError> {
        let (checkpoint, lease) = (self.keys.of("ckpt"), self.keys.of("lease"));
        let (nonce, ms) = (nonce(), self.lease.as_millis() as u64);
        let script = Script::new(ACQUIRE);
        let answer: Vec<u64> = self.ask_once(&both(&checkpoint, &lease), |connection| {
            script.key(&checkpoint).key(&lease).arg(&nonce).arg(ms).invoke(connection)
        })?;
        let [epoch, version] = answer.as_slice() else { return Ok(None) };
        self.has_written();
        let fence = Fence { epoch: *epoch, nonce, version: *version };
        // Redis may have been emptied in the meantime, so the metadata is written again; a failure is
        // harmless.
        let _ = self.write_meta();
        Ok(Some(fence))
    }

    /// Warns of server settings with which Redis may lose or evict committed data. Fails if the server is a replica.
    pub(super) fn check_settings(&mut self) -> Result<(), PortError> {
        let wanted = [
            ("appendonly", "yes", "a crash of redis loses what was committed since its last snapshot"),
            ("maxmemory-policy", "noeviction", "redis may evict keys that are needed"),
        ];
        for (name, value, danger) in wanted {
            // Redis may refuse `CONFIG GET`. Then the setting is not checked, and no outage is noted.
            let found: Vec<String> =
                self.ask_leave(::redis::cmd("CONFIG").arg("GET").arg(name)).unwrap_or_default();
            if found.get(1).is_some_and(|found| found != value) {
                tracing::warn!(setting = name, found = %found[1], wanted = value, "{danger}");
            }
        }
        let role: Vec<::redis::Value> = self.ask_leave(&::redis::cmd("ROLE")).unwrap_or_default();
        let is_replica = role.first().is_some_and(
            |role| matches!(role, ::redis::Value::BulkString(text) if text.as_slice() == b"slave"),
        );
        if is_replica {
            return Err(PortError::OtherSettings {
                place: self.place.clone(),
                found: "it is a replica, which takes no writes".into(),
                hint: "give the address of the master",
            });
        }
        Ok(())
    }

    /// Runs a command that Redis may refuse. Returns `None` after any error, and notes no outage.
    fn ask_leave<T: ::redis::FromRedisValue>(&mut self, command: &::redis::Cmd) -> Option<T> {
        let answer = self.connected().and_then(|connection| command.query(connection));
        if answer.is_err() {
            // The answer may still arrive on this connection, and the next request would take it for its own. So
            // the connection is dropped.
            self.connection = None;
        }
        answer.ok()
    }

    /// Writes the settings of the deployment; fails if it was created with another number of partitions.
    pub(super) fn claim_deployment(&mut self) -> Result<(), PortError> {
        let meta = self.keys.meta();
        let known: Option<u32> = self
            .ask(&meta, |connection| ::redis::cmd("HGET").arg(&meta).arg("partitions").query(connection))?;
        match known.filter(|known| *known != self.partitions) {
            Some(known) => Err(PortError::OtherSettings {
                place: format!("the deployment at {meta}"),
                found: format!("it has {known} partitions, not {}", self.partitions),
                hint: "start with that number of --partitions, or choose another prefix and root",
            }),
            None => self.claim_meta(),
        }
    }

    /// Writes the settings of the deployment. Waits while Redis refuses writes, because it is a replica, or its
    /// memory or disk is full.
    fn claim_meta(&mut self) -> Result<(), PortError> {
        let (meta, partitions) = (self.keys.meta(), self.partitions.to_string());
        self.ask(&meta, |connection| meta_of(&meta, &partitions).query::<()>(connection))?;
        self.has_written();
        Ok(())
    }

    fn write_meta(&mut self) -> Result<(), PortError> {
        let (meta, partitions) = (self.keys.meta(), self.partitions.to_string());
        self.ask_once(&meta, |connection| meta_of(&meta, &partitions).query::<()>(connection))
    }

    pub(super) fn renew_lease(&mut self, fence: &Fence) -> Result<bool, PortError> {
        let (checkpoint, lease) = (self.keys.of("ckpt"), self.keys.of("lease"));
        let ms = self.lease.as_millis() as u64;
        let script = Script::new(RENEW);
        let answer: i64 = self.ask_once(&both(&checkpoint, &lease), |connection| {
            let mut call = script.key(&lease);
            call.key(&checkpoint).arg(&fence.nonce).arg(ms).arg(fence.version).invoke(connection)
        })?;
        // `has_written` is not called, because a full Redis still renews a lease, so this does not prove that writes
        // work.
        Ok(answer == 1)
    }

    pub(super) fn release_lease(&mut self, fence: &Fence) -> Result<(), PortError> {
        let (checkpoint, lease) = (self.keys.of("ckpt"), self.keys.of("lease"));
        let script = Script::new(RELEASE);
        self.ask_once(&both(&checkpoint, &lease), |connection| {
            script.key(&lease).key(&checkpoint).arg(&fence.nonce).invoke::<i64>(connection)
        })
        .map(drop)
    }

    pub(super) fn note_attempt(&mut self, fence: &Fence, seq: u64) -> Result<u32, PortError> {
        let checkpoint = self.keys.of("ckpt");
        let script = Script::new(ATTEMPT);
        let answer: i64 = self.ask(&checkpoint, |connection| {
            script.key(&checkpoint).arg(&fence.nonce).arg(seq).invoke(connection)
        })?;
        u32::try_from(answer).map_err(|_| PortError::Fenced { place: self.place.clone() })
    }

    pub(super) fn be_calm(&mut self, fence: &Fence) {
        let checkpoint = self.keys.of("ckpt");
        let script = Script::new(CALM);
        // A failure is harmless: the counters stay, and are reset by a later call or at the release of the lease.
        let _ = self.ask_once(&checkpoint, |connection| {
            script.key(&checkpoint).arg(&fence.nonce).invoke::<i64>(connection)
        });
    }
}

/// Returns the names of both keys for error messages, because Redis may report a script's error without the key.
fn both(checkpoint: &str, lease: &str) -> String {
    format!("{checkpoint}, {lease}")
}

/// Returns a random nonce of 128 bits, from the standard library's random hasher keys. It only has to differ from the
/// nonces of other workers; it is no secret.
pub(super) fn nonce() -> String {
    let word = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", word(), word())
}
