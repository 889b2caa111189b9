//! A stream as blocks of whole lines, and as lines, in bounded memory.
//!
//! Intuition: an arbitrary stream may have no line ends. The search for the end of a line is therefore
//! bounded; beyond the bound only the beginning of the line is kept, and the stream is skipped up to the line
//! end.
//! Invariant: the lines and their numbers do not depend on how the stream is split into reads. A line that is
//! too long stays one line, cut one byte over the bound, so that the decoder recognises it.

use crate::wire::ndjson;
use std::io::{self, Read};

/// Bytes of a block: large enough that threads rarely contend, small enough to stay in the cache.
const BLOCK_BYTES: usize = 256 << 10;

/// Maximum lines of a block. A refused line takes about 450 bytes when decoded, so a block of the shortest lines
/// takes 4 MiB. Events have 100 bytes and more, so a block of events has fewer lines.
const BLOCK_LINES_MAX: usize = 8_192;

/// The byte order mark with which some editors begin a UTF-8 text; concatenated files may each have one.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Returns the line without a leading byte order mark.
pub(super) fn unmarked(line: &[u8]) -> &[u8] {
    line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)
}

/// Cuts a stream into blocks that end with a line.
pub(super) struct Blocks {
    inner: Box<dyn Read + Send>,
    rest: Vec<u8>,                 // the beginning of the next block
    next: u64,                     // number of the next line, from 1
    ahead: Option<(u64, Vec<u8>)>, // a block that was peeked at
    is_done: bool,
    broken: Option<io::Error>,
    bytes_max: fn(&[u8]) -> usize, // maximum length of a line with this beginning
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Blocks {
    pub(super) fn new(inner: Box<dyn Read + Send>) -> Blocks {
        Blocks {
            inner,
            rest: Vec::new(),
            next: 1,
            ahead: None,
            is_done: false,
            broken: None,
            bytes_max: ndjson::bytes_max,
        }
    }

    /// Fills `block` with whole lines; returns the number of the first one, or `None` at the end.
    pub(super) fn next(&mut self, block: &mut Vec<u8>) -> Option<u64> {
        if let Some((first, ahead)) = self.ahead.take() {
            *block = ahead;
            return Some(first);
        }
        block.clear();
        block.append(&mut self.rest);
        let mut looked_at = 0;
        loop {
            if let Some(end) = memchr::memrchr(b'\n', &block[looked_at..]) {
                let lines = self.cut(block, looked_at + end + 1);
                return Some(self.count_lines(lines));
            }
            if self.is_too_long(block) {
                self.pass_over_line();
                return Some(self.count_lines(1));
            }
            looked_at = block.len();
            if self.is_done {
                return (!block.is_empty()).then(|| self.count_lines(1));
            }
            block.resize(looked_at + BLOCK_BYTES, 0);
            let count = self.fill(&mut block[looked_at..]);
            block.truncate(looked_at + count);
        }
    }

    /// Returns the next block without consuming it.
    pub(super) fn peek(&mut self) -> &[u8] {
        if self.ahead.is_none() {
            let mut block = Vec::new();
            self.ahead = self.next(&mut block).map(|first| (first, block));
        }
        match &self.ahead {
            Some((_, block)) => block,
            None => &[],
        }
    }

    /// Returns the error that ended the stream early, and the number of lines before it.
    pub(super) fn broken(&mut self) -> Option<(io::Error, u64)> {
        self.broken.take().map(|error| (error, self.next - 1))
    }

    fn is_too_long(&self, line: &[u8]) -> bool {
        let line = unmarked(line);
        line.len() > (self.bytes_max)(line)
    }

    /// Keeps the first lines of a block, up to [`BLOCK_LINES_MAX`], and returns how many. The first `whole`
    /// bytes are whole lines; everything after the kept lines goes into the next block.
    fn cut(&mut self, block: &mut Vec<u8>, whole: usize) -> u64 {
        let (mut lines, mut end) = (0, 0);
        for at in memchr::memchr_iter(b'\n', &block[..whole]).take(BLOCK_LINES_MAX) {
            (lines, end) = (lines + 1, at + 1);
        }
        self.rest.extend_from_slice(&block[end..]);
        block.truncate(end);
        lines
    }

    /// Counts the lines of a block; returns the number of the first one.
    fn count_lines(&mut self, lines: u64) -> u64 {
        let first = self.next;
        self.next += lines;
        first
    }

    /// Reads some bytes; returns 0 at the end of the stream or at an error.
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let count = loop {
            match self.inner.read(buffer) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.broken = Some(error);
                    break 0;
                }
            }
        };
        self.is_done = count == 0;
        count
    }

    /// Skips the rest of a line; the bytes after it are kept.
    fn pass_over_line(&mut self) {
        let mut passed = vec![0; BLOCK_BYTES];
        while !self.is_done {
            let count = self.fill(&mut passed);
            if let Some(end) = memchr::memchr(b'\n', &passed[..count]) {
                self.rest.extend_from_slice(&passed[end + 1..count]);
                return;
            }
        }
    }
}

/// A stream line by line.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) blocks: Blocks,
    block: Vec<u8>,
    at: usize,   // where the next line begins
    number: u64, // of the next line
}

impl Lines {
    pub(super) fn new(blocks: Blocks) -> Lines {
        Lines { blocks, block: Vec::new(), at: 0, number: 1 }
    }

    /// Returns the number and the text of the next line that is not blank, without its line end. A line that
    /// is too long is cut to one byte more than the bound.
    pub(super) fn next_line(&mut self) -> Option<(u64, &[u8])> {
        let range = loop {
            if self.at >= self.block.len() {
                self.number = self.blocks.next(&mut self.block)?;
                self.at = 0;
                continue;
            }
            let rest = &self.block[self.at..];
            let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let is_there = !unmarked(&rest[..length]).trim_ascii().is_empty();
            // A line that is too long is returned even if its kept beginning is blank, because its skipped rest may
            // not be blank.
            let is_there = is_there || self.blocks.is_too_long(&rest[..length]);
            let begin = self.at;
            self.at += length + 1;
            self.number += 1;
            if is_there {
                break begin..begin + length;
            }
        };
        let line = unmarked(&self.block[range]);
        let bytes_max = (self.blocks.bytes_max)(line);
        Some((self.number - 1, &line[..line.len().min(bytes_max + 1)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    /// A reader that returns its bytes in pieces, and then the error, if there is one.
    struct Pieces(VecDeque<Vec<u8>>, Option<io::Error>);

    impl Read for Pieces {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some(mut piece) = self.0.pop_front() else { return self.1.take().map_or(Ok(0), Err) };
            let rest = piece.split_off(piece.len().min(out.len()));
            out[..piece.len()].copy_from_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
            Ok(piece.len())
        }
    }

    /// Maximum line length in tests: ten bytes, or thirty for a line that begins with `r`, which stands for a record.
    fn bytes_max(beginning: &[u8]) -> usize {
        if beginning.starts_with(b"r") { 30 } else { 10 }
    }

    fn lines(text: &[u8], cuts: &[usize], error: Option<io::Error>) -> (Vec<(u64, Vec<u8>)>, Option<u64>) {
        let (mut pieces, mut begin) = (VecDeque::new(), 0);
        for cut in cuts.iter().copied().chain([text.len()]).filter(|cut| *cut > 0) {
            let end = (begin + cut).min(text.len());
            if end > begin {
                pieces.push_back(text[begin..end].to_vec());
            }
            begin = end;
        }
        let mut lines = Lines::new(Blocks { bytes_max, ..Blocks::new(Box::new(Pieces(pieces, error))) });
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next_line() {
            found.push((number, line.to_vec()));
        }
        (found, lines.blocks.broken().map(|(_, lines)| lines))
    }

    /// The reference implementation, with everything in memory.
    fn naive(text: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let numbered = (1..).zip(text.split(|byte| *byte == b'\n').map(unmarked));
        let is_too_long = |line: &[u8]| line.len() > bytes_max(line);
        let full = numbered.filter(|(_, line)| is_too_long(line) || !line.trim_ascii().is_empty());
        full.map(|(number, line)| (number, line[..line.len().min(bytes_max(line) + 1)].to_vec())).collect()
    }

    proptest! {
        #[test]
        fn however_a_stream_arrives_its_lines_are_the_same(
            has_mark in any::<bool>(),
            text in prop::collection::vec(prop_oneof![4 => Just(b'x'), 2 => Just(b'\n'), 1 => Just(b'r'), 1 => Just(b' ')], 0..300),
            cuts in prop::collection::vec(1..40usize, 0..40),
        ) {
            let text = [if has_mark { BYTE_ORDER_MARK } else { b"" }, &text[..]].concat();
            let (found, broken) = lines(&text, &cuts, None);
            prop_assert_eq!(&found, &naive(&text));
            prop_assert_eq!(broken, None);
            let (kept, broken) = lines(&text, &cuts, Some(io::Error::other("gone")));
            prop_assert_eq!(&kept, &found, "what came before an error is kept");
            prop_assert!(broken.is_some_and(|lines| lines >= found.last().map_or(0, |(number, _)| *number)));
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_one_line() {
        let text = b"short\n0123456789ABCDEF{\"type\":1}\n\nnext\nr0123456789ABCDEF\n0123456789abc";
        let found = lines(text, &[7, 9, 3], None).0;
        let of = |number, line: &[u8]| (number, line.to_vec());
        let expected = [
            of(1, b"short"),
            of(2, b"0123456789A"),
            of(4, b"next"),
            of(5, b"r0123456789ABCDEF"),
            of(6, b"0123456789a"),
        ];
        assert_eq!(found, expected);
    }

    /// Regression: a block of 256 KiB contained 131,072 one-letter lines, whose refusals took 60 MB.
    #[test]
    fn a_block_has_a_bounded_number_of_lines() {
        let count = 3 * BLOCK_LINES_MAX + 7;
        let text = "x\n".repeat(count);
        let mut blocks = Blocks::new(Box::new(std::io::Cursor::new(text.into_bytes())));
        let (mut block, mut seen) = (Vec::new(), 0);
        while let Some(first) = blocks.next(&mut block) {
            assert_eq!(first, seen as u64 + 1);
            assert!(block.len() <= 2 * BLOCK_LINES_MAX, "{}", block.len());
            seen += block.len() / 2;
        }
        assert_eq!(seen, count);
    }

    #[test]
    fn a_block_that_was_looked_at_is_still_read() {
        let mut blocks = Blocks::new(Box::new(&b"one\ntwo\n"[..]));
        assert_eq!(blocks.peek(), b"one\ntwo\n");
        assert_eq!(blocks.peek(), b"one\ntwo\n");
        let mut block = Vec::new();
        assert_eq!((blocks.next(&mut block), &block[..]), (Some(1), &b"one\ntwo\n"[..]));
        assert_eq!(blocks.next(&mut block), None);
        assert_eq!(blocks.peek(), b"");
    }
}
