//! Standard error, for messages to people beside the output.
//!
//! Invariant: untrusted text cannot control a terminal, and a closed standard error ends no command.

use crate::wire::printable::printable;
use std::fmt::Display;
use std::io::{self, Write};

/// Prints each line of a text.
pub(crate) fn note(text: impl Display) {
    let text = text.to_string();
    let mut out = io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(out, "{}", printable(line));
    }
}

/// Prints the progress of a command in place of the previous progress.
pub(crate) fn progress(text: impl Display) {
    let _ = write!(io::stderr(), "\r{}   ", printable(&text.to_string()));
}

/// Ends the line of progress.
pub(crate) fn end_progress() {
    let _ = writeln!(io::stderr());
}
