//! Faults of real compressed data: padding, missing ends, damage.
//!
//! Invariant: an error is returned after all data that could be inflated before it, and its text describes
//! the fault for the user.

use std::io::{self, BufRead, ErrorKind};

/// Returns the error for compressed data that end early.
pub(super) fn ends_early(form: &str) -> io::Error {
    let message = format!("the {form} data end early (is the copy complete?)");
    io::Error::new(ErrorKind::UnexpectedEof, message)
}

/// Returns the error for damaged data.
pub(super) fn damaged(form: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the {form} data are damaged"))
}

/// Returns the error for inflated data whose checksum does not match the stored one.
pub(super) fn wrong_sum(form: &str) -> io::Error {
    let message = format!("the checksum of the {form} data is wrong: some of these lines are damaged");
    io::Error::new(ErrorKind::InvalidData, message)
}

/// Returns the error for compressed data that are followed by other data.
pub(super) fn foreign_end(form: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the bytes after the {form} data are not {form}"))
}

/// Returns the error of a reader; an unexpected end becomes [`ends_early`].
pub(super) fn cause(form: &str, error: &io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => ends_early(form),
        kind => io::Error::new(kind, error.to_string()),
    }
}

/// Skips zero bytes, with which tapes, block devices and some tools pad data. Returns `false` at the end of the data.
pub(super) fn skip_zeros(inner: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let buffer = inner.fill_buf()?;
        if buffer.is_empty() {
            return Ok(false);
        }
        let (all, zeros) = (buffer.len(), buffer.iter().take_while(|byte| **byte == 0).count());
        inner.consume(zeros);
        if zeros < all {
            return Ok(true);
        }
    }
}

/// Skips `count` bytes.
pub(super) fn skip(form: &str, inner: &mut impl BufRead, count: u64) -> io::Result<()> {
    let passed = io::copy(&mut io::Read::take(inner, count), &mut io::sink())?;
    if passed == count { Ok(()) } else { Err(ends_early(form)) }
}
