//! Decodes one batch ahead of the engine, on a thread of its own.
//!
//! Intuition: decoding is more than half of the work of a record and does not need the engine, so the next batch is
//! decoded while the current one is applied. A small batch is decoded on the applying thread, because handing it to
//! another thread costs more than it saves. Invariant: batches come back one at a time in the order they were given.
//! Records that are not applied when a session ends are read again by the next session.

use super::ports::{Entry, Logged};
use crate::core::vocab::identity::Identity;
use crate::wire::event::{Decoded, Decoder};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Minimum payload bytes of a batch that is decoded ahead: about 100 µs of work.
const WORTH_BYTES: usize = 32 << 10;

/// The number of the decoding thread's decoder; the applier's own decoder has number 0.
pub(crate) const DECODER: usize = 1;

/// A batch of records with their decoded payloads.
#[derive(Debug)]
pub(crate) struct Batch {
    pub records: Vec<(Logged, Option<Decoded>)>,
    /// Whether the decoder cleared its table of identities before this batch, so that its numbers start anew.
    pub is_anew: bool,
    /// The identities that the decoder found, in the order of their numbers.
    pub found: Vec<Arc<Identity>>,
}

/// The decoding thread, which starts with the first batch and ends when this value is dropped.
#[derive(Debug, Default)]
pub(crate) struct DecodeAhead {
    thread: Option<(SyncSender<Vec<Logged>>, Receiver<Batch>)>,
    is_busy: bool,
}

fn start() -> (SyncSender<Vec<Logged>>, Receiver<Batch>) {
    let (to, batches) = sync_channel::<Vec<Logged>>(1);
    let (sender, from) = sync_channel(1);
    std::thread::spawn(move || {
        let mut decoder = Decoder::new(DECODER);
        for records in batches {
            if sender.send(decode(&mut decoder, records)).is_err() {
                break;
            }
        }
    });
    (to, from)
}

impl DecodeAhead {
    /// Whether a batch was given and not taken yet.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Whether a batch is large enough to be decoded ahead.
    pub(crate) fn is_worth(records: &[Logged]) -> bool {
        let bytes = records.iter().map(|record| match &record.entry {
            Entry::Events(_, payload) => payload.len(),
            Entry::Tick | Entry::Control(_) | Entry::Partials { .. } => 0,
        });
        bytes.sum::<usize>() >= WORTH_BYTES
    }

    /// Gives a batch to the thread. The previous batch must have been taken.
    pub(crate) fn give(&mut self, records: Vec<Logged>) {
        let (to, _) = self.thread.get_or_insert_with(start);
        // The send fails only if the thread has panicked, because the thread otherwise ends when this value is
        // dropped.
        assert!(to.send(records).is_ok(), "the decoding thread has panicked");
        self.is_busy = true;
    }

    /// Waits for the batch that was given and returns it; `None` if none was given.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        let is_busy = std::mem::take(&mut self.is_busy);
        let (_, from) = self.thread.as_ref().filter(|_| is_busy)?;
        let batch = from.recv();
        // Its records would be missing without a word; a panic here is what decoding in this thread would have been.
        assert!(batch.is_ok(), "the decoding thread has panicked");
        batch.ok()
    }
}

fn decode(decoder: &mut Decoder, records: Vec<Logged>) -> Batch {
    let is_anew = decoder.trim();
    let one = |record: Logged| {
        let decoded = match &record.entry {
            Entry::Events(codec, payload) => {
                super::mutant::die_of(payload);
                let mut decoded = Decoded::default();
                decoder.payload(*codec, payload, &mut decoded);
                Some(decoded)
            }
            Entry::Tick | Entry::Control(_) | Entry::Partials { .. } => None,
        };
        (record, decoded)
    };
    let records = records.into_iter().map(one).collect();
    Batch { records, is_anew, found: decoder.take_found() }
}
