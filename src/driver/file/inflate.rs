//! Compressed data as they are found in the wild: padding, ends that are missing, damage.
//!
//! Invariant: an error is given out after all that could be inflated before it, and its text says what
//! is wrong in words for people.

use std::io::{self, BufRead, ErrorKind};

/// The data stop before they are over.
pub(super) fn ends_early(form: &str) -> io::Error {
    let message = format!("the {form} data end early (is the copy complete?)");
    io::Error::new(ErrorKind::UnexpectedEof, message)
}

/// The data are not what was written.
pub(super) fn damaged(form: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the {form} data are damaged"))
}

/// The sum of what was inflated is not the one that was written with it.
pub(super) fn wrong_sum(form: &str) -> io::Error {
    let message = format!("the checksum of the {form} data is wrong: some of these lines are damaged");
    io::Error::new(ErrorKind::InvalidData, message)
}

/// Something else stands behind the data.
pub(super) fn foreign_end(form: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("what stands behind the {form} data is no {form}"))
}

/// A reader's own error, or the end where there should be more.
pub(super) fn cause(form: &str, error: &io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => ends_early(form),
        kind => io::Error::new(kind, error.to_string()),
    }
}

/// Passes over padding: tapes, block devices and some tools fill up with zeros. False at the end.
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

/// Passes over so many bytes.
pub(super) fn skip(form: &str, inner: &mut impl BufRead, count: u64) -> io::Result<()> {
    let passed = io::copy(&mut io::Read::take(inner, count), &mut io::sink())?;
    if passed == count { Ok(()) } else { Err(ends_early(form)) }
}
