//! Records of the log as bytes, and the requests by which they were appended.

use crate::core::record::Control;
use crate::core::{Span, Timestamp};
use crate::wire::control;
use crate::wire::event::Codec;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

/// The content of a log record, as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    Events(Codec, Vec<u8>),
    Tick,
    /// JSON of a [`Control`].
    Control(Vec<u8>),
    /// A message of a partition to the aggregate partition.
    Partials {
        from: u32,
        number: u64,
        bytes: Vec<u8>,
    },
}

impl Entry {
    /// Returns the length of the content in bytes; a tick has none.
    pub fn bytes(&self) -> usize {
        match self {
            Entry::Events(_, bytes) | Entry::Control(bytes) | Entry::Partials { bytes, .. } => bytes.len(),
            Entry::Tick => 0,
        }
    }

    pub fn control(control: &Control) -> Entry {
        Entry::Control(control::encode(control))
    }
}

/// The identity of a request whose client sent an idempotency key. A repeat of the request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    /// The `Idempotency-Key` as the client sent it.
    pub key: Arc<[u8]>,
    /// Hash of the request body (xxh3, 128 bits).
    pub body: u128,
    /// The log time at which the request was answered.
    pub at: Timestamp,
}

impl RequestId {
    pub fn new(key: &[u8], body: &[u8], at: Timestamp) -> RequestId {
        RequestId { key: key.into(), body: xxh3_128(body), at }
    }

    /// Returns the message id by which a broker recognises a repeat of this request in one partition.
    pub fn in_partition(&self, partition: u32) -> String {
        format!("http-{:032x}-{partition}", xxh3_128(&[&self.body.to_le_bytes(), &*self.key].concat()))
    }
}

/// Time for which requests are remembered. The API promises to recognise repeats this long.
pub const REQUESTS_KEPT: Span = Span::from_mins(10);

/// Maximum number of remembered requests: 500,000 × about 150 B = 75 MB. At more than 833 requests a second the
/// oldest are evicted before [`REQUESTS_KEPT`] has passed, and each eviction is counted.
pub const REQUESTS_MAX: usize = 500_000;

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    pub seq: u64, // number in the log, from 1
    pub stamp: Timestamp,
    pub entry: Entry,
}

impl Logged {
    /// Returns a hash of stamp, kind and payload that distinguishes this record from any other at its
    /// position; never 0.
    pub fn fingerprint(&self) -> u64 {
        let (kind, payload): (u8, &[u8]) = match &self.entry {
            Entry::Events(_, payload) => (1, payload),
            Entry::Tick => (2, &[]),
            Entry::Control(payload) => (3, payload),
            Entry::Partials { bytes, .. } => (4, bytes),
        };
        xxh3_64_with_seed(payload, (self.stamp.ms() as u64) << 3 | u64::from(kind)).max(1)
    }
}

/// The identity of a log and the range of records it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Creation time of the log.
    pub stream: String,
    pub first: u64,
    pub last: u64, // first - 1 when it is empty
}
