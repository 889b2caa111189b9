//! `log`: one JSON line for each transition, or text for people, to standard output or a file.
//!
//! Invariant: a complete line never shares a line of the file with another one. A killed process or a full
//! disk may leave the beginning of a line; the next write then begins on a new line.

use super::text::{listed, standing};
use super::wording::Wording;
use crate::core::notify::{Message, Why};
use crate::driver::receivers::ports::{Channel, Failure};
use crate::wire::printable::{printable, printable_json};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The target of the lines; without a path it is standard output.
#[derive(Debug)]
pub struct Log {
    pub path: Option<PathBuf>,
    /// Wording of the text; `None` writes JSON.
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
    // A pipe or terminal has no last byte, and a file that cannot be read is taken to end with a whole
    // line.
    let is_torn = file.metadata()?.is_file() && last_byte(path).is_ok_and(|last| last != b'\n');
    let text = if is_torn { format!("\n{text}") } else { text.to_string() };
    file.write_all(text.as_bytes())
}

/// Returns the last byte of a file; fails for an empty one.
fn last_byte(path: &Path) -> std::io::Result<u8> {
    let (mut file, mut last) = (File::open(path)?, [0]);
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last[0])
}

/// Formats one alert as it is in the alert stream, and several as a digest.
pub fn line(message: &Message) -> String {
    match (&message.alerts[..], message.why) {
        ([alert], why) if why != Why::Digest => {
            // Plain data always serialises.
            serde_json::to_string(alert).unwrap_or_default()
        }
        _ => digest(message).to_string(),
    }
}

/// Formats the title and each alert below it, without characters that move a terminal's cursor.
fn text(message: &Message, wording: &Wording) -> String {
    let (alerts, left_out) = listed(message);
    let mut lines = vec![format!("{} -> {}: {}", message.since, message.receiver, wording.title(message))];
    lines.extend(alerts.iter().map(|alert| format!("  {}: {}", standing(alert), wording.line(alert))));
    if left_out > 0 {
        lines.push(format!("  and {left_out} more"));
    }
    // A template may produce several lines; they are joined into one.
    let tame = |line: &String| line.split(['\n', '\t']).map(printable).collect::<Vec<_>>().join(" ");
    lines.iter().map(tame).collect::<Vec<String>>().join("\n")
}

/// Maximum number of alerts named in a digest.
const NAMED_MAX: usize = 100;

/// Builds the digest as JSON, for programs.
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
            // Standard output may be a terminal, so control characters are escaped.
            (None, None) => printable_json(&line(message)).into_owned(),
        };
        let written = self.write(&(said + "\n"));
        written.map_err(|error| Failure::again(format!("cannot write: {error}")))
    }

    fn attempt_max(&self) -> Duration {
        Duration::ZERO
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
