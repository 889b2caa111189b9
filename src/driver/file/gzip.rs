//! Gzip, member by member.
//!
//! Invariant: memory use does not depend on the data, and padding after a member is no error. Rejected: the library's
//! reader of many members, which drops the bytes inflated in the call that meets an error, and treats padding as a
//! broken member.

use super::inflate::{cause, damaged, ends_early, foreign_end, skip, skip_zeros, wrong_sum};
use flate2::{Crc, Decompress, FlushDecompress, Status};
use std::io::{self, BufRead, Read};

/// The first bytes of a member; the third byte is the only compression method that exists.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

// Flag bits in a member's header, one for each optional field that follows. The upper three bits are reserved.
const HAS_SUM: u8 = 1 << 1;
const HAS_EXTRA: u8 = 1 << 2;
const HAS_NAME: u8 = 1 << 3;
const HAS_COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

const FORM: &str = "gzip";

/// The position of the reader relative to the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Within,
    /// After the member's data, before its checksum and length.
    Behind,
    Damaged,
    Over,
}

/// Inflates all members.
pub(super) struct Gzip<R> {
    inner: R,
    inflate: Decompress,
    sum: Crc,
    state: State,
}

impl<R: BufRead> Gzip<R> {
    pub(super) fn new(inner: R) -> Gzip<R> {
        Gzip { inner, inflate: Decompress::new(false), sum: Crc::new(), state: State::Between }
    }

    /// Reads up to the data of the next member.
    fn begin(&mut self) -> io::Result<State> {
        if !skip_zeros(&mut self.inner)? {
            return Ok(State::Over);
        }
        if self.inner.fill_buf()?.first() != Some(&MAGIC[0]) {
            return Err(foreign_end(FORM));
        }
        let head: [u8; 10] = self.bytes()?;
        if head[..2] != MAGIC[..2] {
            return Err(foreign_end(FORM));
        }
        let flags = head[3];
        if head[2] != MAGIC[2] || flags & RESERVED != 0 {
            return Err(damaged(FORM));
        }
        if flags & HAS_EXTRA != 0 {
            let length = u16::from_le_bytes(self.bytes()?);
            skip(FORM, &mut self.inner, length.into())?;
        }
        for _ in 0..(flags & (HAS_NAME | HAS_COMMENT)).count_ones() {
            self.skip_text()?;
        }
        if flags & HAS_SUM != 0 {
            self.bytes::<2>()?;
        }
        self.inflate.reset(false);
        self.sum.reset();
        Ok(State::Within)
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(|error| cause(FORM, &error))?;
        Ok(bytes)
    }

    /// Skips a zero-terminated text of any length.
    fn skip_text(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.inner.fill_buf()?;
            if buffer.is_empty() {
                return Err(ends_early(FORM));
            }
            let end = memchr::memchr(0, buffer);
            let passed = end.map_or(buffer.len(), |end| end + 1);
            self.inner.consume(passed);
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// Inflates some bytes; returns how many. Zero does not mean the end.
    fn inflate(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let input = self.inner.fill_buf()?;
        let is_at_end = input.is_empty();
        let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
        let result = self.inflate.decompress(input, out, FlushDecompress::None);
        let taken = (self.inflate.total_in() - in_before) as usize;
        let made = (self.inflate.total_out() - out_before) as usize;
        self.inner.consume(taken);
        self.sum.update(&out[..made]);
        match result {
            Ok(Status::StreamEnd) => self.state = State::Behind,
            Ok(_) if made == 0 && is_at_end => return Err(ends_early(FORM)),
            Ok(_) if made == 0 && taken == 0 => self.state = State::Damaged,
            Ok(_) => {}
            // The bytes inflated in this call are returned before the error.
            Err(_) => self.state = State::Damaged,
        }
        Ok(made)
    }

    fn check(&mut self) -> io::Result<State> {
        let (sum, length) = (u32::from_le_bytes(self.bytes()?), u32::from_le_bytes(self.bytes()?));
        let is_right = sum == self.sum.sum() && length == self.sum.amount();
        if is_right { Ok(State::Between) } else { Err(wrong_sum(FORM)) }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                State::Between => self.state = self.begin()?,
                State::Behind => self.state = self.check()?,
                State::Damaged => return Err(damaged(FORM)),
                State::Over => return Ok(0),
                State::Within => {
                    let made = self.inflate(out)?;
                    if made > 0 {
                        return Ok(made);
                    }
                }
            }
        }
    }
}
