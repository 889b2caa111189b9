//! Input files as blocks of whole lines, and blocks as decoded chunks, in order.
//!
//! Intuition: reading is one, decoding is many, applying is one. Whoever is free takes the next
//! block with its number and decodes it; the chunks are put back in the order of their numbers.
//! Invariant: the lines come out in the order of the input, whatever the number of threads.

use super::Chunk;
use crate::wire::event::Decoder;
use crate::wire::line;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};

/// Bytes of a block: large enough that threads hardly meet, small enough to stay in the cache.
const BLOCK_BYTES: usize = 256 << 10;

/// A line longer than this is cut: a payload may have 1 MiB, and an export wraps it in a little.
const LINE_BYTES_MAX: usize = 4 << 20;

/// Chunks that may wait to be applied, per decoder.
const CHUNKS_WAITING: usize = 4;

/// Why an input could not be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("cannot open {path}; is the path right?")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
}

/// An input and how many of its bytes were read.
#[derive(Debug)]
pub struct Input {
    blocks: Blocks,
    path: PathBuf,
    /// Bytes of the file; `None` for a pipe.
    pub size: Option<u64>,
    pub consumed: Arc<AtomicU64>,
}

/// Opens a file, `-` for standard input; `.gz` and `.zst` are inflated on the way.
pub fn open(path: &Path) -> Result<Input, InputError> {
    let consumed = Arc::new(AtomicU64::new(0));
    let failed = |source| InputError::Open { path: path.into(), source };
    let (raw, size): (Box<dyn Read + Send>, Option<u64>) = if path == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
        (Box::new(file), size)
    };
    let counted = Counted { inner: raw, consumed: consumed.clone() };
    let inflated: Box<dyn Read + Send> = match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(counted))),
        Some("zst") => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(BufReader::new(counted));
            Box::new(decoder.map_err(|error| failed(io::Error::other(error.to_string())))?)
        }
        _ => Box::new(counted),
    };
    Ok(Input { blocks: Blocks::new(inflated), path: path.into(), size, consumed })
}

struct Counted {
    inner: Box<dyn Read + Send>,
    consumed: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.consumed.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Cuts a stream into blocks that end with a line.
struct Blocks {
    inner: Box<dyn Read + Send>,
    rest: Vec<u8>, // the beginning of the next block's first line
    is_done: bool,
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks").field("is_done", &self.is_done).finish_non_exhaustive()
    }
}

impl Blocks {
    fn new(inner: Box<dyn Read + Send>) -> Blocks {
        Blocks { inner, rest: Vec::new(), is_done: false }
    }

    /// Fills `block` with whole lines; false at the end.
    fn next(&mut self, block: &mut Vec<u8>) -> io::Result<bool> {
        block.clear();
        block.append(&mut self.rest);
        while !self.is_done {
            let begin = block.len();
            block.resize(begin + BLOCK_BYTES, 0);
            let count = read_some(&mut self.inner, &mut block[begin..])?;
            block.truncate(begin + count);
            if count == 0 {
                self.is_done = true;
            } else if let Some(end) = memchr::memrchr(b'\n', &block[begin..]) {
                self.rest.extend_from_slice(&block[begin + end + 1..]);
                block.truncate(begin + end + 1);
                return Ok(true);
            } else if block.len() > LINE_BYTES_MAX {
                return Ok(true);
            }
        }
        Ok(!block.is_empty())
    }
}

fn read_some(inner: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match inner.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Decodes one block of lines.
fn decode(decoder: &mut Decoder, number: usize, block: &[u8]) -> Chunk {
    let is_anew = decoder.trim();
    let mut lines = Vec::with_capacity(block.len() / 128);
    let mut begin = 0;
    while begin < block.len() {
        let end = memchr::memchr(b'\n', &block[begin..]).map_or(block.len(), |end| begin + end);
        let line = &block[begin..end];
        if !line.trim_ascii().is_empty() {
            lines.push(line::decode(decoder, line));
        }
        begin = end + 1;
    }
    Chunk { decoder: number, is_anew, found: decoder.take_found(), lines, bytes: block.len() as u64 }
}

/// Gives the chunks of an input to `apply`, in order. `threads` counts the calling one: with one,
/// it decodes itself; with more, the others do. Whoever would wait for another calls `help` first.
pub fn read(
    mut input: Input,
    threads: usize,
    decoders_before: usize,
    help: &(dyn Fn() + Sync),
    apply: &mut impl FnMut(Chunk),
) -> Result<(), InputError> {
    let path = input.path.clone();
    let result = if threads <= 1 {
        let mut decoder = Decoder::new(decoders_before);
        let mut block = Vec::new();
        loop {
            match input.blocks.next(&mut block) {
                Ok(true) => apply(decode(&mut decoder, decoders_before, &block)),
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        }
    } else {
        read_threaded(input, threads - 1, decoders_before, help, apply)
    };
    result.map_err(|source| InputError::Read { path, source })
}

type Numbered = (u64, io::Result<Chunk>);

fn read_threaded(
    input: Input,
    workers: usize,
    decoders_before: usize,
    help: &(dyn Fn() + Sync),
    apply: &mut impl FnMut(Chunk),
) -> io::Result<()> {
    let (sender, receiver) = sync_channel::<Numbered>(workers * CHUNKS_WAITING);
    let source = Mutex::new((0u64, input.blocks));
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (source, sender) = (&source, sender.clone());
            scope.spawn(move || work(decoders_before + worker, source, help, &sender));
        }
        drop(sender);
        in_order(&receiver, help, apply)
    })
}

/// Takes blocks and decodes them until there are none, or nobody wants them.
fn work(
    number: usize,
    source: &Mutex<(u64, Blocks)>,
    help: &(dyn Fn() + Sync),
    sender: &SyncSender<Numbered>,
) {
    let mut decoder = Decoder::new(number);
    let mut block = Vec::new();
    loop {
        let taken = {
            // Poisoned only if another worker panicked, which ends the whole read anyway.
            let Ok(mut source) = source.lock() else { return };
            let (sequence, blocks) = &mut *source;
            let read = blocks.next(&mut block);
            *sequence += 1;
            (*sequence - 1, read)
        };
        let (sequence, chunk) = match taken {
            (_, Ok(false)) => return help(),
            (sequence, Ok(true)) => (sequence, Ok(decode(&mut decoder, number, &block))),
            (sequence, Err(error)) => (sequence, Err(error)),
        };
        let is_last = chunk.is_err();
        let sent = sender.try_send((sequence, chunk)).or_else(|failed| match failed {
            TrySendError::Full(chunk) => {
                help();
                sender.send(chunk).map_err(drop)
            }
            TrySendError::Disconnected(_) => Err(()),
        });
        if sent.is_err() || is_last {
            return;
        }
    }
}

fn in_order(
    receiver: &Receiver<Numbered>,
    help: &(dyn Fn() + Sync),
    apply: &mut impl FnMut(Chunk),
) -> io::Result<()> {
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
            apply(chunk?);
            next += 1;
        }
    }
    Ok(())
}

impl Input {
    /// The inflated bytes.
    pub fn into_stream(self) -> Box<dyn Read + Send> {
        self.blocks.inner
    }
}

/// A file that is already open, read from where it stands.
pub fn from_file(file: File, size: u64) -> Input {
    let consumed = Arc::new(AtomicU64::new(0));
    let counted = Counted { inner: Box::new(file), consumed: consumed.clone() };
    Input {
        blocks: Blocks::new(Box::new(counted)),
        path: "a temporary file".into(),
        size: Some(size),
        consumed,
    }
}
