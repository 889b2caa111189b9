//! Signatures of what a deployment publishes about its alerts.
//!
//! Intuition: on a broker that many use, anybody who may publish could put an alert, or an end of one, among ours.
//! The workers of a deployment share a key, which lies in their store and nowhere else, and sign what they publish;
//! whoever delivers or goes on from what was published looks at the signature first.
//! Invariant: a message is genuine if its signature is right for its subject and payload, or if it is older than the
//! key. Rejected: trusting subjects (permissions are the operator's, and may be wide), public keys (nobody but the
//! workers needs to check).

use crate::core::Timestamp;
use ring::hmac;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The header that holds it.
pub const HEADER: &str = "Sg-Signature";

/// The key of a deployment, once it is known, and what was found to be forged; clones share both.
#[derive(Clone, Default)]
pub struct Signing(Arc<Inner>);

#[derive(Default)]
struct Inner {
    known: OnceLock<Known>,
    forged: AtomicU64,
}

struct Known {
    key: hmac::Key,
    /// When the key was made: what is older has no signature.
    since: Timestamp,
}

impl std::fmt::Debug for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signing").field("is_known", &self.is_known()).finish_non_exhaustive()
    }
}

impl Signing {
    /// The first key stays.
    pub fn know(&self, secret: &[u8], since: Timestamp) {
        self.0.known.get_or_init(|| Known { key: hmac::Key::new(hmac::HMAC_SHA256, secret), since });
    }

    pub fn is_known(&self) -> bool {
        self.0.known.get().is_some()
    }

    /// The signature of a message; nothing before the key is known.
    pub fn sign(&self, subject: &str, payload: &[u8]) -> Option<String> {
        let tag = hmac::sign(&self.0.known.get()?.key, &signed(subject, payload));
        Some(tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Whether a message that the broker took at some time is one of ours; without a key, everything is.
    pub fn is_genuine(&self, subject: &str, payload: &[u8], signature: Option<&str>, at: Timestamp) -> bool {
        let Some(known) = self.0.known.get() else { return true };
        if at < known.since {
            return true;
        }
        let tag = signature.and_then(bytes_of);
        tag.is_some_and(|tag| hmac::verify(&known.key, &signed(subject, payload), &tag).is_ok())
    }

    /// Counts a message that is none of ours.
    pub fn note_forged(&self, subject: &str) {
        self.0.forged.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            subject,
            "a message that no worker signed stood among the alerts; it counts for nothing"
        );
    }

    /// Messages that were none of ours.
    pub fn forged(&self) -> u64 {
        self.0.forged.load(Ordering::Relaxed)
    }
}

/// The subject belongs to it: a genuine end must not be put in the place of another.
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
        signing.know(b"secret", now);
        let signature = signing.sign("a", b"x").expect("a key");
        let is_genuine = |subject, payload: &[u8], signature: &str| {
            signing.is_genuine(subject, payload, Some(signature), now)
        };
        assert!(is_genuine("a", b"x", &signature));
        assert!(!is_genuine("b", b"x", &signature) && !is_genuine("a", b"y", &signature));
        assert!(!is_genuine("a", b"x", "") && !is_genuine("a", b"x", "zz") && !is_genuine("a", b"x", "äö"));
        assert!(!signing.is_genuine("a", b"x", None, now) && signing.is_genuine("a", b"x", None, before));
    }
}
