//! Who may commit: a lease with an end, and an epoch and nonce that every commit is compared with.

use super::{Fence, RedisStore};
use crate::driver::ports::{Lease, PortError};
use ::redis::Script;
use std::hash::{BuildHasher, RandomState};

const ACQUIRE: &str = include_str!("acquire.lua");

/// KEYS: lease. ARGV: nonce, milliseconds.
const RENEW: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// KEYS: lease. ARGV: nonce.
const RELEASE: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";

impl Lease for RedisStore {
    fn acquire(&mut self) -> Result<bool, PortError> {
        let (checkpoint, lease) = (self.keys.of("ckpt"), self.keys.of("lease"));
        let (nonce, ms) = (nonce(), self.lease.as_millis() as u64);
        let script = Script::new(ACQUIRE);
        let answer: Vec<String> = self
            .ask(|connection| script.key(&checkpoint).key(&lease).arg(&nonce).arg(ms).invoke(connection))?;
        let [epoch, version] = answer.as_slice() else { return Ok(false) };
        let version = version.parse().unwrap_or(0);
        self.fence = Fence { epoch: epoch.clone(), nonce, version };
        let meta = self.keys.meta();
        let fields = [("partitions", "1"), ("version", "1"), ("resolutions", "1m,5m,1h")];
        self.ask(|connection| ::redis::cmd("HSET").arg(&meta).arg(&fields).query::<()>(connection))?;
        Ok(true)
    }

    fn renew(&mut self) -> Result<bool, PortError> {
        let (lease, nonce, ms) =
            (self.keys.of("lease"), self.fence.nonce.clone(), self.lease.as_millis() as u64);
        let script = Script::new(RENEW);
        let answer: i64 = self.ask(|connection| script.key(&lease).arg(&nonce).arg(ms).invoke(connection))?;
        Ok(answer == 1)
    }

    fn release(&mut self) -> Result<(), PortError> {
        let (lease, nonce) = (self.keys.of("lease"), self.fence.nonce.clone());
        let script = Script::new(RELEASE);
        self.ask(|connection| script.key(&lease).arg(&nonce).invoke::<i64>(connection)).map(drop)
    }

    fn anchor(&mut self, anchor: String) {
        self.anchor = anchor;
    }
}

/// 128 bits that no other worker has; the standard library's own random state is their source.
fn nonce() -> String {
    let word = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", word(), word())
}
