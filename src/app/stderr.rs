//! Standard error, for what people should know beside the output.
//!
//! Invariant: what strangers wrote does not steer a terminal; who closed standard error reads nothing,
//! and that ends no command.

use crate::wire::printable::printable;
use std::fmt::Display;
use std::io::{self, Write};

/// Tells some lines, each ended.
pub fn note(text: impl Display) {
    let text = text.to_string();
    let mut out = io::stderr().lock();
    for line in text.lines() {
        let _ = writeln!(out, "{}", printable(line));
    }
}

/// Tells how far a command is, in the place of what was told before.
pub fn progress(text: impl Display) {
    let _ = write!(io::stderr(), "\r{}   ", printable(&text.to_string()));
}

/// Ends the line in which progress was told.
pub fn end_progress() {
    let _ = writeln!(io::stderr());
}
