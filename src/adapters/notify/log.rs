//! `log`: one JSON line for each transition, or text that people read, to standard output or a file.
//!
//! Invariant: a line of a file is whole or by itself. A process that is killed, or a disk that is full, may leave the beginning
//! of a line; what is written next begins on a line of its own.

use super::text::{listed, standing};
use super::wording::Wording;
use crate::core::notify::{Message, Why};
use crate::driver::notify::ports::{Channel, Failure};
use crate::wire::printable::{printable, printable_json};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Where lines go; no path: standard output.
#[derive(Debug)]
pub struct Log {
    pub path: Option<PathBuf>,
    /// The words of text; without them it is JSON.
    pub wording: Option<Wording>,
}

impl Log {
    fn write(&self, text: &str) -> std::io::Result<()> {
        match &self.path {
            Some(path) => append(path, text),
            None => std::io::stdout().write_all(text.as_bytes()),
        }
    }
}

fn append(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    // A pipe or a terminal has no end to look at; what may not be read is taken for whole.
    let is_torn = file.metadata()?.is_file() && last_byte(path).is_ok_and(|last| last != b'\n');
    let text = if is_torn { format!("\n{text}") } else { text.to_string() };
    file.write_all(text.as_bytes())
}

/// An error for an empty file, too.
fn last_byte(path: &Path) -> std::io::Result<u8> {
    let (mut file, mut last) = (File::open(path)?, [0]);
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last[0])
}

/// The alert as it stands in the stream; many in one as their number and names.
pub fn line(message: &Message) -> String {
    match (&message.alerts[..], message.why) {
        ([alert], why) if why != Why::Digest => {
            // Plain data always serialises.
            serde_json::to_string(alert).unwrap_or_default()
        }
        _ => digest(message).to_string(),
    }
}

/// The title, and each alert below it; nothing in it moves a terminal's cursor.
fn text(message: &Message, wording: &Wording) -> String {
    let (alerts, left_out) = listed(message);
    let mut lines = vec![format!("{} -> {}: {}", message.since, message.receiver, wording.title(message))];
    lines.extend(alerts.iter().map(|alert| format!("  {}: {}", standing(alert), wording.line(alert))));
    if left_out > 0 {
        lines.push(format!("  and {left_out} more"));
    }
    // A line of somebody's template may be several: they are one here.
    let tame = |line: &String| line.split(['\n', '\t']).map(printable).collect::<Vec<_>>().join(" ");
    lines.iter().map(tame).collect::<Vec<String>>().join("\n")
}

/// Names of alerts in a digest.
const NAMED_MAX: usize = 100;

/// What a digest says to programs.
pub fn digest(message: &Message) -> serde_json::Value {
    let (firing, resolved) = message.counts();
    let ids: Vec<&str> = message.alerts.iter().take(NAMED_MAX).map(|alert| &*alert.id).collect();
    json!({"digest": {"id": message.id, "receiver": message.receiver, "firing": firing, "resolved": resolved,
        "title": message.title(), "alerts": ids}})
}

impl Channel for Log {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let said = match (&self.wording, &self.path) {
            (Some(wording), _) => text(message, wording),
            (None, Some(_)) => line(message),
            // Standard output may be a terminal.
            (None, None) => printable_json(&line(message)).into_owned(),
        };
        let written = self.write(&(said + "\n"));
        written.map_err(|error| Failure::again(format!("cannot write: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_is_not_written_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("alerts.ndjson");
        append(&path, "one\n").expect("writable");
        std::fs::write(&path, "one\ntw").expect("writable");
        append(&path, "two\n").expect("writable");
        append(&path, "three\n").expect("writable");
        let text = std::fs::read_to_string(&path).expect("readable");
        assert_eq!(text, "one\ntw\ntwo\nthree\n");
    }
}
