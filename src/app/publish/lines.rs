//! Lines of an input, read on a separate thread.
//!
//! Intuition: a pipe may be silent for hours, and the sending thread must not block with it. Invariant: lines
//! arrive in the order of the input. Each line is one that the service accepts, or carries the reason why it
//! would be refused.

use crate::core::vocab::counters::Refusal;
use crate::core::vocab::limits::PAYLOAD_BYTES_MAX;
use crate::driver::file::input::{self, Finding, Input, InputError};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};

/// Number of lines that are read ahead: at most 64 × 1 MiB = 64 MiB of memory.
const LINES_AHEAD: usize = 64;

/// A message of the reading thread, in this order: the file is opened, each line, the end.
pub(super) enum Coming {
    /// The file is open, with unusual findings about it, or it cannot be read.
    Opened(Result<Vec<Finding>, InputError>),
    /// The number of a line, and the line as it is sent or the reason why it is not sent.
    Line(u64, Result<String, (Refusal, String)>),
    /// The end of the file, with the damage that was found in it.
    End(Vec<Finding>),
}

/// Reads a file on a separate thread, which ends with the file or when the receiver is dropped. The file is
/// opened there, too, because opening waits for the first bytes.
pub(super) fn read_ahead(path: PathBuf) -> Receiver<Coming> {
    let (sender, receiver) = sync_channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let (remarks, input) = match input::open(&path) {
            Ok(mut input) => (Ok(std::mem::take(&mut input.remarks)), input),
            Err(error) => (Err(error), Input::empty()),
        };
        let is_open = remarks.is_ok();
        if sender.send(Coming::Opened(remarks)).is_err() || !is_open {
            return;
        }
        let mut lines = input.into_lines();
        while let Some((number, line)) = lines.next_line() {
            if sender.send(Coming::Line(number, sendable(line))).is_err() {
                return;
            }
        }
        // The send fails if the command has already ended.
        sender.send(Coming::End(lines.finish())).ok();
    });
    receiver
}

/// Returns a line as it is sent, or the reason why the service would refuse it.
fn sendable(line: &[u8]) -> Result<String, (Refusal, String)> {
    let line = line.trim_ascii();
    if line.len() > PAYLOAD_BYTES_MAX {
        let message = format!("the line has more than {} MiB", PAYLOAD_BYTES_MAX >> 20);
        return Err((Refusal::TooLarge, message));
    }
    match std::str::from_utf8(line) {
        Ok(text) => Ok(text.into()),
        Err(_) => Err((Refusal::BadPayload, "the line is no text in UTF-8".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_service_would_refuse_is_not_sent() {
        assert_eq!(sendable(b" {} \r"), Ok("{}".into()));
        let reason = |line: &[u8]| sendable(line).map_err(|(reason, _)| reason);
        assert_eq!(reason(b"{\"a\":\"\xff\"}"), Err(Refusal::BadPayload));
        assert_eq!(reason("x".repeat(PAYLOAD_BYTES_MAX + 1).as_bytes()), Err(Refusal::TooLarge));
    }
}
