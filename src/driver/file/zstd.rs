//! Zstandard, frame by frame.
//!
//! Intuition: the decoder holds back the last window of inflated bytes, because later blocks may refer to it. At
//! damaged data the reader passes it an empty last block, so that the decoder ends the frame and returns the window.
//! Invariant: memory is bounded by one window of at most 128 MiB, whatever size the data declare; skippable
//! frames and padding are skipped. Rejected: the library's own stream, which reads one frame and loses a
//! window at damaged data.

use super::inflate::{cause, damaged, foreign_end, skip, skip_zeros, wrong_sum};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::error::Error;
use std::io::{self, BufRead, ErrorKind, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use xxhash_rust::xxh64::Xxh64;

/// Maximum bytes of a frame's window. The `zstd` tool also reads up to 128 MiB without an option.
const WINDOW_BYTES_MAX: u64 = 128 << 20;

/// An empty block that is marked as the last of its frame (3 bytes), and a placeholder for the checksum (4 bytes).
const LAST_BLOCK: &[u8] = &[1, 0, 0, 0, 0, 0, 0];

const FORM: &str = "zstd";

/// The position of the reader relative to the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Within,
    Over,
}

/// Inflates all frames.
pub(super) struct Zstd<R> {
    inner: R,
    decoder: FrameDecoder,
    sum: Xxh64,
    state: State,
    broken: Option<io::Error>, // returned once the decoder is empty
}

impl<R: BufRead> Zstd<R> {
    pub(super) fn new(inner: R) -> Zstd<R> {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(WINDOW_BYTES_MAX);
        Zstd { inner, decoder, sum: Xxh64::new(0), state: State::Between, broken: None }
    }

    /// Reads up to the blocks of the next frame.
    fn begin(&mut self) -> io::Result<State> {
        loop {
            if !skip_zeros(&mut self.inner)? {
                return Ok(State::Over);
            }
            match self.decoder.reset(&mut self.inner) {
                Ok(()) => break,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => skip(FORM, &mut self.inner, length.into())?,
                Err(error) => return Err(said(&error)),
            }
        }
        self.sum.reset(0);
        Ok(State::Within)
    }

    /// Decodes one block.
    fn decode(&mut self) {
        let (decoder, inner) = (&mut self.decoder, &mut self.inner);
        // The decoder checks some properties of its data with assertions, so invalid data can make it panic.
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            decoder.decode_blocks(inner, BlockDecodingStrategy::UptoBlocks(1))
        }));
        let error = match decoded {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => said(&error),
            Err(_) => damaged(FORM),
        };
        // If this block cannot be read either, the window is lost, and the error is still returned.
        self.decoder.decode_blocks(LAST_BLOCK, BlockDecodingStrategy::UptoBlocks(1)).ok();
        self.broken = Some(error);
    }

    /// Verifies the checksum of a frame whose data were all returned.
    fn check(&self) -> io::Result<State> {
        // The format stores the lower half of the digest.
        let is_right = |stated: u32| stated == self.sum.digest() as u32;
        let is_right = self.decoder.get_checksum_from_data().is_none_or(is_right);
        if is_right { Ok(State::Between) } else { Err(wrong_sum(FORM)) }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                State::Between => self.state = self.begin()?,
                State::Over => return Ok(0),
                State::Within => {
                    let made = self.decoder.read(out)?;
                    if made > 0 {
                        self.sum.update(&out[..made]);
                        return Ok(made);
                    }
                    if let Some(error) = self.broken.take() {
                        self.state = State::Over;
                        return Err(error);
                    }
                    match self.decoder.is_finished() {
                        true => self.state = self.check()?,
                        false => self.decode(),
                    }
                }
            }
        }
    }
}

/// Returns the decoder's error as a text for the user.
fn said(error: &FrameDecoderError) -> io::Error {
    let bad = |message: String| io::Error::new(ErrorKind::InvalidData, message);
    match error {
        FrameDecoderError::WindowSizeTooBig { requested, max } => bad(format!(
            "the zstd data need a window of {} MiB, and at most {} MiB are taken; inflate them with `zstd -dc --long=31`",
            requested.div_ceil(1 << 20),
            max >> 20
        )),
        FrameDecoderError::DictNotProvided { .. } => {
            bad("the zstd data need a dictionary; inflate them with `zstd -dc -D`".into())
        }
        FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::BadMagicNumber(_)) => foreign_end(FORM),
        other => cause_of(other).map_or_else(|| damaged(FORM), |found| cause(FORM, found)),
    }
}

/// Returns the I/O error of the input that caused an error of the decoder, if there is one.
fn cause_of(error: &FrameDecoderError) -> Option<&io::Error> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(one) = next {
        if let Some(found) = one.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = one.source();
    }
    None
}
