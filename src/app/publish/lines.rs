//! Lines of an input, read on a thread of their own.
//!
//! Intuition: a pipe may be silent for hours, and whoever sends must not be. Invariant: what comes is in the order of
//! the input, and each line is one that the service may take, or has the reason why it would not.

use crate::core::counters::Refusal;
use crate::core::limits::PAYLOAD_BYTES_MAX;
use crate::driver::file::input::{self, Finding, Input, InputError};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};

/// Lines that are read ahead: 64 × 1 MiB at worst.
const LINES_AHEAD: usize = 64;

/// Steps of reading a file: it is opened, its lines come one by one, it ends.
pub(super) enum Coming {
    /// The file is open, with what is unusual about it, or cannot be read.
    Opened(Result<Vec<Finding>, InputError>),
    /// Number of a line, and the line as it is sent or the reason why it is not.
    Line(u64, Result<String, (Refusal, String)>),
    /// Damage that was found on the way.
    End(Vec<Finding>),
}

/// Reads on a thread of its own, which ends with the file, or when nobody wants its lines. Opening waits
/// for the first bytes, so that is done there, too.
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
        // Nobody waits for it if the command is over.
        sender.send(Coming::End(lines.finish())).ok();
    });
    receiver
}

/// A line as it is sent, or why the service would refuse it.
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
