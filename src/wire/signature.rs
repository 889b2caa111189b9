//! Signatures of the alert messages that a deployment publishes.
//!
//! Intuition: on a shared broker, any client with permission to publish could insert a forged alert, or a
//! forged end of one. The workers of a deployment share a key, which is kept only in their store, and sign
//! what they publish. A worker verifies the signature before it delivers a published message or resumes from
//! it.
//! A store that lost its data gets a new key while some processes still use the old one. The key is therefore
//! read again before a message is treated as forged, and earlier keys stay valid.
//! Invariant: a message is genuine if its signature matches its subject and payload under one of the keys, or
//! if the message is older than all keys. Rejected: trusting subjects (the operator sets the permissions,
//! which may be wide); public keys (only the workers verify signatures).

use crate::core::Timestamp;
use ring::hmac;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// The header that holds the signature.
pub(crate) const HEADER: &str = "Sg-Signature";

/// Maximum number of keys remembered: a store rarely loses its data, and a restart of the process clears the
/// list.
const KEYS_MAX: usize = 8;

/// The error of a failed read of the key.
pub(crate) type Unread = Box<dyn Error + Send + Sync>;

/// A key and the time of its creation.
pub(crate) type Secret = (Vec<u8>, Timestamp);

/// Reads the key of the deployment from the store. The argument is the newest key that this process knows. A store
/// without a key may restore it.
type Source = Box<dyn Fn(Option<Secret>) -> Result<Secret, Unread> + Send + Sync>;

/// The keys of a deployment and a counter of forged messages. Clones share both.
#[derive(Clone, Default)]
pub struct Signing(Arc<Inner>);

#[derive(Default)]
struct Inner {
    source: OnceLock<Source>,
    /// The known keys; the last one is in force.
    known: RwLock<Vec<Known>>,
    forged: AtomicU64,
}

struct Known {
    secret: Vec<u8>,
    key: hmac::Key,
    /// Time at which the key was created. No older message is signed with it.
    since: Timestamp,
}

impl std::fmt::Debug for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signing").field("is_known", &self.is_known()).finish_non_exhaustive()
    }
}

impl Signing {
    /// Sets the source of the key. Only the first call has an effect.
    pub fn read_from(&self, source: Source) {
        self.0.source.get_or_init(|| source);
    }

    /// Reads the key that is in force now; blocks on the store.
    pub fn reread(&self) -> Result<(), Unread> {
        let Some(source) = self.0.source.get() else { return Ok(()) };
        let (secret, since) = source(self.newest_secret())?;
        self.know(secret, since);
        Ok(())
    }

    fn newest_secret(&self) -> Option<Secret> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.last().map(|last| (last.secret.clone(), last.since))
    }

    fn know(&self, secret: Vec<u8>, since: Timestamp) {
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.last().is_some_and(|last| last.secret == secret) {
            return;
        }
        known.retain(|one| one.secret != secret);
        if known.len() >= KEYS_MAX {
            known.remove(0);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        known.push(Known { secret, key, since });
    }

    pub fn is_known(&self) -> bool {
        !self.0.known.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Signs a message with the newest key. Returns `None` if no key is known.
    pub fn sign(&self, subject: &str, payload: &[u8]) -> Option<String> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        let tag = hmac::sign(&known.last()?.key, &signed(subject, payload));
        Some(tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Returns whether a message that the broker received at `at` is genuine. If no key is known, every message
    /// counts as genuine.
    pub fn is_genuine(&self, subject: &str, payload: &[u8], signature: Option<&str>, at: Timestamp) -> bool {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        let Some(since) = known.iter().map(|one| one.since).min() else { return true };
        if at < since {
            return true;
        }
        let Some(tag) = signature.and_then(bytes_of) else { return false };
        let signed = signed(subject, payload);
        known.iter().any(|one| hmac::verify(&one.key, &signed, &tag).is_ok())
    }

    /// Returns whether a message is genuine. If it seems forged, the key is read again, because the store may have a
    /// new one, and the message is checked once more. `is_fresh` records that the key was read again, so one read
    /// serves all messages that were published before it.
    pub fn settle(&self, is_fresh: &mut bool, is_genuine: impl Fn(&Signing) -> bool) -> Result<bool, Unread> {
        let is_ours = is_genuine(self);
        if is_ours || *is_fresh {
            return Ok(is_ours);
        }
        self.reread()?;
        *is_fresh = true;
        Ok(is_genuine(self))
    }

    /// Counts a forged message.
    pub fn note_forged(&self, subject: &str) {
        let count = self.0.forged.fetch_add(1, Ordering::Relaxed) + 1;
        // Only the 1st, 2nd, 4th, 8th … forged message is logged, so that thousands of them cannot flood the
        // program's log.
        if count.is_power_of_two() {
            tracing::warn!(
                subject,
                count,
                "a message in the alert stream has no valid signature; it is ignored"
            );
        }
    }

    /// Returns the number of forged messages.
    pub fn forged(&self) -> u64 {
        self.0.forged.load(Ordering::Relaxed)
    }
}

/// Returns the signed bytes. They include the subject, so that a genuine end of one alert cannot be replayed
/// as the end of another.
fn signed(subject: &str, payload: &[u8]) -> Vec<u8> {
    [subject.as_bytes(), &[0], payload].concat()
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    let pairs = (0..hex.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_for_its_place_is_genuine() {
        let signing = Signing::default();
        let (now, before) = (Timestamp::clamped(1_000), Timestamp::clamped(999));
        assert!(signing.is_genuine("a", b"x", None, now) && signing.sign("a", b"x").is_none());
        signing.know(b"secret".into(), now);
        let signature = signing.sign("a", b"x").expect("a key");
        let is_genuine = |subject, payload: &[u8], signature: &str| {
            signing.is_genuine(subject, payload, Some(signature), now)
        };
        assert!(is_genuine("a", b"x", &signature));
        assert!(!is_genuine("b", b"x", &signature) && !is_genuine("a", b"y", &signature));
        assert!(!is_genuine("a", b"x", "") && !is_genuine("a", b"x", "zz") && !is_genuine("a", b"x", "äö"));
        assert!(!signing.is_genuine("a", b"x", None, now) && signing.is_genuine("a", b"x", None, before));
    }

    #[test]
    fn a_key_that_was_lost_with_its_store_is_followed_by_another() {
        let (ours, theirs) = (Signing::default(), Signing::default());
        let now = Timestamp::clamped(1_000);
        let stored = Arc::new(RwLock::new((b"first".to_vec(), now)));
        for signing in [&ours, &theirs] {
            let stored = stored.clone();
            signing.read_from(Box::new(move |_| Ok(stored.read().expect("no panic").clone())));
            signing.reread().expect("it is there");
        }
        let early = theirs.sign("a", b"x");
        *stored.write().expect("no panic") = (b"second".to_vec(), Timestamp::clamped(2_000));
        theirs.reread().expect("it is there");
        let late = theirs.sign("a", b"x");
        assert_ne!(early, late);
        let at = Timestamp::clamped(3_000);
        let by = |signature: &Option<String>| {
            let signature = signature.clone();
            move |signing: &Signing| signing.is_genuine("a", b"x", signature.as_deref(), at)
        };
        assert!(!by(&late)(&ours), "not read again yet");
        let mut is_fresh = false;
        assert!(ours.settle(&mut is_fresh, by(&late)).expect("it is there") && is_fresh);
        assert!(by(&early)(&ours) && !by(&None)(&ours));
        assert_eq!(ours.sign("a", b"x"), late);
    }
}
