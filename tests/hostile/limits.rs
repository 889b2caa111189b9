//! Costs that a case may have, and what others may notice of it: figures for the dev profile on two busy cores.
//!
//! Invariant: time, memory and answer grow no faster than what was sent; nothing else depends on what was sent.

use std::time::Duration;

pub const MIB: usize = 1 << 20;

/// Sizes of what is sent. One MiB is the largest payload that is taken.
pub const SIZES: [usize; 3] = [1 << 10, 32 << 10, MIB];

/// Time until an answer, whatever is asked: most come in 10 ms, and a write to a slow disk takes half a second.
const ANSWER_FIXED: Duration = Duration::from_secs(1);

/// Time for each MiB that is asked or answered: 14,000 events are checked, recorded and judged in 0.4 s.
const ANSWER_PER_MIB: Duration = Duration::from_secs(2);

/// No answer for so long is a hang.
pub const HANG: Duration = Duration::from_secs(20);

/// Memory that a change may take, whatever it is: what the allocator keeps, a commit and a snapshot that fall into
/// its time, and 4 MiB of lines that wait to be written to the log.
const POST_BYTES: u64 = 36 << 20;

/// Memory for each byte that is sent: an event of 75 bytes becomes a series of 2 KiB at most, and an array of `1`
/// has an element for each two bytes.
const BYTES_PER_BYTE: u64 = 64;

/// Memory that a question may take: an answer of [`GET_ANSWER_BYTES`] as a tree, as text and in the socket.
const GET_BYTES: u64 = 64 << 20;

/// Bytes of an answer to a change, and for each byte that is sent: a hundred refusals, or a line that is quoted.
const POST_ANSWER_BYTES: usize = 64 << 10;
const POST_ANSWER_PER_BYTE: usize = 4;

/// Bytes of an answer to a question.
const GET_ANSWER_BYTES: usize = 9 << 20;

/// An honest event is acknowledged within this, whatever is going on beside it: 0.9 s at worst on two cores, and twice
/// as much for machines that are busy with other things.
pub const HONEST_WITHIN: Duration = Duration::from_secs(3);

/// An honest alert is told within this: the next grid point is a second away at most, the commit another one, and
/// the rest is for busy machines.
pub const ALERT_WITHIN: Duration = Duration::from_secs(5);

/// It ends within this once it was told: the pane with the high value lasts ten seconds at most.
pub const RESOLVED_WITHIN: Duration = Duration::from_secs(17);

/// `/healthz` while a case runs, and right after it.
pub const HEALTH_BESIDE: Duration = Duration::from_secs(2);
pub const HEALTH_AFTER: Duration = Duration::from_millis(100);

/// Resident memory that a refused MiB, sent ten times, may leave behind: the allocator keeps up to 20 MiB of what it
/// has freed.
pub const LEAK_BYTES: u64 = 32 << 20;

/// Bodies in the budget of the server (128 MiB), small ones beside it (1,024 × 64 KiB), and the connections themselves.
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

    /// So many at once, each of this size.
    pub fn crowd(of_one: Bounds, count: usize) -> Bounds {
        let size = of_one.size * count;
        Bounds { size, memory: of_one.memory.max(HELD_BYTES), answer: of_one.answer * count }
    }

    /// Time until the answer, which has so many bytes.
    pub fn within(&self, answer: usize) -> Duration {
        ANSWER_FIXED + ANSWER_PER_MIB.mul_f64((self.size + answer) as f64 / MIB as f64)
    }
}
