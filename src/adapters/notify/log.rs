//! `log`: one JSON line for each transition, or text for people, to standard output or a file.
//!
//! Invariant: a complete line never continues an incomplete one. A killed process or a full disk may leave an
//! incomplete line; the next write then starts on a new line. If nobody reads a pipe, an attempt fails after 5 s
//! (`WRITE_WITHIN`), and nothing else is blocked. Rejected: writing on the receiver's own thread (a blocked write
//! could neither be reported nor ended), non-blocking pipes (a line longer than the pipe's free space would be cut).

use super::text::{listed, standing};
use super::wording::Wording;
use crate::core::notify::{Message, Why};
use crate::driver::receivers::ports::{Channel, Failure};
use crate::wire::printable::{printable, printable_json};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Time limit of one write. It is shorter than the time that the process has to shut down.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// The target of the lines; without a path it is standard output.
#[derive(Debug)]
pub(crate) struct Log {
    path: Option<PathBuf>,
    /// Wording of the text; `None` writes JSON.
    wording: Option<Wording>,
    writer: Option<Writer>,
}

/// A handle of the thread that writes one text at a time. A separate thread is needed, because a write to a pipe may
/// block for ever.
#[derive(Debug)]
struct Writer {
    texts: SyncSender<String>,
    written: Receiver<std::io::Result<()>>,
    /// The text that is being written.
    pending: Option<String>,
}

impl Log {
    pub(crate) fn new(path: Option<PathBuf>, wording: Option<Wording>) -> Log {
        Log { path, wording, writer: None }
    }

    fn write(&mut self, text: String) -> std::io::Result<()> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(Writer::start(self.path.clone())?),
        };
        writer.write(text, WRITE_WITHIN)
    }
}

impl Writer {
    fn start(path: Option<PathBuf>) -> std::io::Result<Writer> {
        let (texts, to_write) = sync_channel::<String>(1);
        let (done, written) = sync_channel(1);
        let work = move || {
            for text in to_write {
                let result = match &path {
                    Some(path) => append(path, &text),
                    None => std::io::stdout().write_all(text.as_bytes()),
                };
                if done.send(result).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("alert-log".into()).spawn(work)?;
        Ok(Writer { texts, written, pending: None })
    }

    /// Writes a text. If the write does not end in time, the call fails, but the thread continues to write. The next
    /// attempt with the same text waits for that write, so the text is written once.
    fn write(&mut self, text: String, within: Duration) -> std::io::Result<()> {
        let deadline = Instant::now() + within;
        if self.pending.as_ref().is_some_and(|pending| *pending != text) {
            // The receiver has given up the previous text, so the result of its write does not matter. But a new text
            // can be written only after that write has ended.
            let ended = self.wait(deadline);
            self.pending.as_ref().map_or(Ok(()), |_| ended)?;
        }
        if self.pending.is_none() {
            self.texts.send(text.clone()).map_err(std::io::Error::other)?;
            self.pending = Some(text);
        }
        self.wait(deadline)
    }

    fn wait(&mut self, deadline: Instant) -> std::io::Result<()> {
        match self.written.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(result) => {
                self.pending = None;
                result
            }
            Err(RecvTimeoutError::Timeout) => {
                let message = "no program has read the output in time; check its reader";
                Err(std::io::Error::new(std::io::ErrorKind::TimedOut, message))
            }
            Err(error) => Err(std::io::Error::other(error)),
        }
    }
}

fn append(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    // Only a regular file has a last byte. A file that is empty or cannot be read is assumed to end with a complete
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
pub(crate) fn line(message: &Message) -> String {
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
pub(crate) fn digest(message: &Message) -> serde_json::Value {
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
        let written = self.write(said + "\n");
        written.map_err(|error| Failure::again(format!("cannot write: {error}")))
    }

    fn attempt_max(&self) -> Duration {
        WRITE_WITHIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a pipe without a reader fails an attempt, and its text arrives once. Method: a named pipe that is read
    /// only later.
    #[test]
    fn a_pipe_that_nobody_reads_fails_and_is_written_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.is_ok_and(|status| status.success()));
        let mut writer = Writer::start(Some(path.clone())).expect("a thread");
        let within = Duration::from_millis(20);
        for _ in 0..2 {
            let failed = writer.write("one\n".into(), within).expect_err("nobody reads");
            assert_eq!(failed.kind(), std::io::ErrorKind::TimedOut);
        }
        let reader = std::thread::spawn(move || std::fs::read_to_string(path).expect("readable"));
        writer.write("one\n".into(), Duration::from_secs(10)).expect("it is read now");
        assert_eq!(reader.join().expect("no panic"), "one\n");
    }

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
