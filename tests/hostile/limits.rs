//! Limits on the cost of a case, and on its effect on other clients: figures for the dev profile on two
//! busy cores.
//!
//! Invariant: time, memory and answer grow no faster than the size of the request, and depend on nothing
//! else in it.

use std::time::Duration;

pub const MIB: usize = 1 << 20;

/// Sizes of requests. One MiB is the largest payload that is accepted.
pub const SIZES: [usize; 3] = [1 << 10, 32 << 10, MIB];

/// Time until an answer to any request: most arrive in 10 ms, and a write to a slow disk takes half a
/// second.
const ANSWER_FIXED: Duration = Duration::from_secs(1);

/// Time for each MiB of request and answer: 14,000 events are checked, recorded and evaluated in 0.4 s.
const ANSWER_PER_MIB: Duration = Duration::from_secs(2);

/// A request without an answer for this long counts as hung.
pub const HANG: Duration = Duration::from_secs(20);

/// Memory that any change may take: memory that the allocator keeps, a commit and a snapshot that coincide
/// with it, and 4 MiB of lines that wait to be written to the log.
const POST_BYTES: u64 = 36 << 20;

/// Memory for each byte of a request: an event of 75 bytes becomes a series of at most 2 KiB, and an array
/// of `1` has one element per two bytes.
const BYTES_PER_BYTE: u64 = 64;

/// Memory that a query may take: an answer of [`GET_ANSWER_BYTES`] as a tree, as text and in the socket.
const GET_BYTES: u64 = 64 << 20;

/// Bytes of an answer to a change, fixed and for each byte of the request: a hundred refusals, or a quoted
/// line.
const POST_ANSWER_BYTES: usize = 64 << 10;
const POST_ANSWER_PER_BYTE: usize = 4;

/// Bytes of an answer to a query.
const GET_ANSWER_BYTES: usize = 9 << 20;

/// Limit for the acknowledgement of an honest event, whatever other clients do: 0.9 s at worst on two
/// cores, and twice as much for machines that are busy with other work.
pub const HONEST_WITHIN: Duration = Duration::from_secs(3);

/// Limit for publishing an honest alert: at most one second to the next grid point, another one for the
/// commit, and the rest for busy machines.
pub const ALERT_WITHIN: Duration = Duration::from_secs(5);

/// Limit for its end after it was published: the pane with the high value lasts ten seconds at most.
pub const RESOLVED_WITHIN: Duration = Duration::from_secs(17);

/// Limits of `/healthz` while a case runs, and right after it.
pub const HEALTH_BESIDE: Duration = Duration::from_secs(2);
pub const HEALTH_AFTER: Duration = Duration::from_millis(100);

/// Resident memory that a refused MiB, sent ten times, may leave behind: the allocator keeps up to 20 MiB
/// of freed memory.
pub const LEAK_BYTES: u64 = 32 << 20;

/// Bodies in the budget of the server (128 MiB), small ones beside it (1,024 × 64 KiB), and the connections
/// themselves.
pub const HELD_BYTES: u64 = 256 << 20;

/// The limits of one case.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub size: usize,
    pub memory: u64,
    pub answer: usize,
}

impl Bounds {
    pub fn post(size: usize) -> Bounds {
        let memory = POST_BYTES + BYTES_PER_BYTE * size as u64;
        Bounds { size, memory, answer: POST_ANSWER_BYTES + POST_ANSWER_PER_BYTE * size }
    }

    pub fn get(size: usize) -> Bounds {
        Bounds { size, memory: GET_BYTES, answer: GET_ANSWER_BYTES }
    }

    /// The limits of `count` simultaneous requests, each of this size.
    pub fn crowd(of_one: Bounds, count: usize) -> Bounds {
        let size = of_one.size * count;
        Bounds { size, memory: of_one.memory.max(HELD_BYTES), answer: of_one.answer * count }
    }

    /// Time limit for an answer of `answer` bytes.
    pub fn within(&self, answer: usize) -> Duration {
        ANSWER_FIXED + ANSWER_PER_MIB.mul_f64((self.size + answer) as f64 / MIB as f64)
    }
}
