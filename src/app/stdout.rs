//! Standard output; every command writes to it through this module.
//!
//! Intuition: in `streamgauge … | head -1`, the reader closes the pipe once it has read enough. That ends a
//! command without a message, whereas a full disk is an error like any other.
//! Invariant: only whole lines are written, so that several outputs on standard output do not split each
//! other's lines. Nothing panics. Untrusted text cannot control a terminal, and reaches a pipe byte for byte.

use crate::wire::printable::printable_json;
use anyhow::Result;
use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// Number of bytes that are buffered before the whole lines among them are written: twice the capacity of a pipe.
const HELD_BYTES: usize = 128 << 10;

/// Why standard output cannot be written.
#[derive(Debug, thiserror::Error)]
enum Unwritten {
    #[error("the reader closed standard output")]
    Closed,
    #[error("cannot write to standard output: {0}")]
    Failed(io::Error),
}

/// Prints one line.
pub(crate) fn say(line: impl Display) -> Result<()> {
    put(format_args!("{line}\n"))
}

/// Prints one line with colours of this program. The caller has made the rest of the line printable.
pub(crate) fn say_coloured(line: impl Display) -> Result<()> {
    io::stdout().write_all(format!("{line}\n").as_bytes()).map_err(unwritten)?;
    Ok(io::stdout().flush().map_err(unwritten)?)
}

/// Prints a text.
pub(crate) fn put(text: impl Display) -> Result<()> {
    let mut out = Stdout::default();
    write!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Whether an error only means that the reader closed standard output.
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    let is_it = |cause: &io::Error| {
        let inner = cause.get_ref().and_then(|inner| inner.downcast_ref::<Unwritten>());
        matches!(inner, Some(Unwritten::Closed))
    };
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(is_it))
}

/// Buffered standard output for long texts. A flush empties the buffer.
#[derive(Debug, Default)]
pub(crate) struct Stdout {
    held: Vec<u8>,
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() > HELD_BYTES
            && let Some(end) = memchr::memrchr(b'\n', &self.held)
        {
            write_out(&self.held[..=end])?;
            self.held.drain(..=end);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_out(&self.held)?;
        self.held.clear();
        io::stdout().flush().map_err(unwritten)
    }
}

/// Writes the held text even if an error elsewhere ended the command.
impl Drop for Stdout {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            let _ = self.flush();
        }
    }
}

fn write_out(bytes: &[u8]) -> io::Result<()> {
    let out = match io::stdout().is_terminal() {
        true => for_terminal(bytes),
        false => Cow::Borrowed(bytes),
    };
    io::stdout().write_all(&out).map_err(unwritten)
}

/// Escapes control characters for a terminal. Most output is JSON, where these escapes mean the same
/// characters.
fn for_terminal(bytes: &[u8]) -> Cow<'_, [u8]> {
    Cow::Owned(printable_json(&String::from_utf8_lossy(bytes)).into_owned().into_bytes())
}

fn unwritten(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::BrokenPipe => io::Error::new(ErrorKind::BrokenPipe, Unwritten::Closed),
        kind => io::Error::new(kind, Unwritten::Failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_terminal_is_not_steered() {
        let shown = for_terminal("{\"a\":\"\u{9b}31m\u{1b}[2J\"}\n".as_bytes()).into_owned();
        assert_eq!(String::from_utf8_lossy(&shown), "{\"a\":\"\\u009b31m\\u001b[2J\"}\n");
    }

    #[test]
    fn only_the_end_of_standard_output_is_quiet() {
        let of = |error: io::Error| anyhow::Error::new(error).context("in a command");
        assert!(is_closed(&of(unwritten(ErrorKind::BrokenPipe.into()))));
        assert!(!is_closed(&of(ErrorKind::BrokenPipe.into())), "of a server, that is an error");
        let full = Err::<(), _>(unwritten(ErrorKind::StorageFull.into())).context("cannot write the output");
        let full = full.expect_err("full");
        assert!(!is_closed(&full) && format!("{full:#}").contains("cannot write to standard output: "));
    }
}
