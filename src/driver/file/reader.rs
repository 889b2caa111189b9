//! Inputs as decoded chunks, in order.
//!
//! Intuition: one thread at a time reads, many decode, one applies. A free worker takes the next block with
//! its number and decodes it; the chunks are put back into the order of their numbers.
//! Invariant: the lines come out in the order of the input, whatever the number of threads.

use super::Chunk;
use super::block::{Blocks, unmarked};
use super::input::{self, Finding, Input};
use crate::wire::event::Decoder;
use crate::wire::ndjson::{self, Line};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};

/// Chunks that may wait to be applied, per decoder.
const CHUNKS_WAITING: usize = 4;

/// Decodes one block of lines; `first` is the number of its first line in the input.
fn decode(decoder: &mut Decoder, number: usize, first: u64, block: &[u8]) -> Chunk {
    let is_anew = decoder.trim();
    let mut lines = Vec::with_capacity(block.len() / 128);
    let (mut begin, mut at) = (0, first);
    while begin < block.len() {
        let end = memchr::memchr(b'\n', &block[begin..]).map_or(block.len(), |end| begin + end);
        let text = unmarked(&block[begin..end]);
        if !text.trim_ascii().is_empty() || text.len() > ndjson::bytes_max(text) {
            lines.push(Line { number: at, ..ndjson::decode(decoder, text) });
        }
        (begin, at) = (end + 1, at + 1);
    }
    Chunk { decoder: number, is_anew, found: decoder.take_found(), lines }
}

/// Passes the chunks of an input to `apply` in order, until `apply` breaks; returns the faults of the input.
/// `threads` includes the calling thread: with one, it decodes itself; with more, the others decode. Before a thread
/// blocks on another one, it calls `help`, which may do other work.
pub(crate) fn read(
    input: Input,
    threads: usize,
    decoders_before: usize,
    help: &(dyn Fn() + Sync),
    apply: &mut impl FnMut(Chunk) -> ControlFlow<()>,
) -> Vec<Finding> {
    let Input { mut blocks, path, mut troubles, .. } = input;
    if threads <= 1 {
        let mut decoder = Decoder::new(decoders_before);
        let mut block = Vec::new();
        while let Some(first) = blocks.next(&mut block) {
            if apply(decode(&mut decoder, decoders_before, first, &block)).is_break() {
                break;
            }
        }
    } else {
        blocks = read_threaded(blocks, threads - 1, decoders_before, help, apply);
    }
    troubles.extend(input::broken(&mut blocks, &path));
    troubles
}

type Numbered = (u64, Chunk);

/// The next block's number, and the blocks.
type Source = Mutex<(u64, Blocks)>;

fn read_threaded(
    blocks: Blocks,
    workers: usize,
    decoders_before: usize,
    help: &(dyn Fn() + Sync),
    apply: &mut impl FnMut(Chunk) -> ControlFlow<()>,
) -> Blocks {
    let (sender, receiver) = sync_channel::<Numbered>(workers * CHUNKS_WAITING);
    let source: Source = Mutex::new((0, blocks));
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (source, sender) = (&source, sender.clone());
            scope.spawn(move || work(decoders_before + worker, source, help, &sender));
        }
        drop(sender);
        in_order(receiver, help, apply);
    });
    source.into_inner().unwrap_or_else(PoisonError::into_inner).1
}

/// Takes blocks and decodes them, until none is left or the receiver is dropped.
fn work(number: usize, source: &Source, help: &(dyn Fn() + Sync), sender: &SyncSender<Numbered>) {
    let mut decoder = Decoder::new(number);
    let mut block = Vec::new();
    loop {
        let taken = {
            // The lock is poisoned only if another worker panicked, which ends the whole read anyway.
            let Ok(mut source) = source.lock() else { return };
            let (sequence, blocks) = &mut *source;
            *sequence += 1;
            blocks.next(&mut block).map(|first| (*sequence - 1, first))
        };
        let Some((sequence, first)) = taken else { return help() };
        let chunk = (sequence, decode(&mut decoder, number, first, &block));
        let sent = sender.try_send(chunk).or_else(|failed| match failed {
            TrySendError::Full(chunk) => {
                help();
                sender.send(chunk).map_err(drop)
            }
            TrySendError::Disconnected(_) => Err(()),
        });
        if sent.is_err() {
            return;
        }
    }
}

/// Applies chunks in the order of their numbers. The receiver is dropped on return, so that no worker blocks
/// on sending another chunk.
fn in_order(
    receiver: Receiver<Numbered>,
    help: &(dyn Fn() + Sync),
    apply: &mut impl FnMut(Chunk) -> ControlFlow<()>,
) {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    let receive = || {
        let ready = receiver.try_recv();
        ready.or_else(|_| {
            help();
            receiver.recv()
        })
    };
    while let Ok((sequence, chunk)) = receive() {
        waiting.insert(sequence, chunk);
        while let Some(chunk) = waiting.remove(&next) {
            if apply(chunk).is_break() {
                return;
            }
            next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::vocab::counters::Refusal;
    use crate::wire::ndjson::{Content, LINE_BYTES_MAX};

    /// Returns the number of lines, and (number, reason of the refusal) of each refused line.
    fn refusals(text: &[u8], threads: usize) -> (usize, Vec<(u64, Refusal)>) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("room");
        let input = input::open(file.path()).expect("opened");
        let (mut count, mut found) = (0, Vec::new());
        let troubles = read(input, threads, 0, &|| {}, &mut |chunk| {
            count += chunk.lines.len();
            for line in &chunk.lines {
                if let Content::Many(decoded) = &line.content {
                    found.extend(decoded.bad.iter().map(|bad| (line.number, bad.reason)));
                }
            }
            ControlFlow::Continue(())
        });
        assert!(troubles.is_empty(), "{troubles:?}");
        (count, found)
    }

    #[test]
    fn lines_keep_their_numbers_whatever_stands_between_them() {
        let event = r#"{"type":"metric","time":1793491200000,"source":"s","name":"m","value":1}"#;
        let mut text = String::from("\u{feff}");
        for _ in 0..9_000 {
            text.push_str(&format!("{event}\n\n"));
        }
        text.push_str(&"x".repeat(LINE_BYTES_MAX + 600_000));
        text.push_str(&format!("{event}\n{event}\ngarbage\n\u{feff}{event}\n"));
        text.push_str(&format!("{}{event}\n{event}", " ".repeat(LINE_BYTES_MAX)));
        let expected =
            [(18_001, Refusal::TooLarge), (18_003, Refusal::BadPayload), (18_005, Refusal::TooLarge)];
        for threads in [1, 2, 5] {
            let (count, found) = refusals(text.as_bytes(), threads);
            assert_eq!((count, &found[..]), (9_006, &expected[..]), "{threads} threads");
        }
    }

    #[test]
    fn who_has_enough_ends_the_reading() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "x\n".repeat(5_000_000)).expect("room");
        for threads in [1, 4] {
            let input = input::open(file.path()).expect("opened");
            let mut chunks = 0;
            read(input, threads, 0, &|| {}, &mut |_| {
                chunks += 1;
                ControlFlow::Break(())
            });
            assert_eq!(chunks, 1);
        }
    }
}
