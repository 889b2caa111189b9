//! The notification logs of the embedded deployment: one file for each receiver, beside the database.
//!
//! Intuition: each row is a line appended to the file, and a later line with the same key overrides an earlier one.
//! The file is compacted at a restart, and when most of its lines are overridden. Invariant: a written line
//! survives a kill -9. Lines are not flushed to the disk, so after a power cut the newest messages may be sent again;
//! none is lost, because the alerts are in the database. Rejected: a table of the database (it needs a flush for each
//! message, which allows about 200 messages a second).

use crate::core::notify::inbox::Rows;
use crate::core::vocab::partition::escape;
use crate::driver::ports::PortError;
use crate::driver::receivers::ports::{NotificationLog, Written};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Minimum number of lines before a compaction. A longer file is compacted once its lines are more than twice the
/// rows of the last compaction.
const LINES_MIN: usize = 10_000;

/// The file of one receiver. Only the process that has the data dir open writes it.
#[derive(Debug)]
pub struct FileNotificationLog {
    path: PathBuf,
    file: Option<File>,
    lines: usize,
    rows: usize,
}

impl FileNotificationLog {
    /// Does not open the file; [`NotificationLog::load`] opens it.
    pub fn new(data_dir: &Path, receiver: &str) -> FileNotificationLog {
        let path = data_dir.join("notify").join(format!("{}.ledger", escape(receiver)));
        FileNotificationLog { path, file: None, lines: 0, rows: 0 }
    }

    fn failed(&self, error: std::io::Error) -> PortError {
        PortError::Write { place: self.path.display().to_string(), source: error.into() }
    }

    fn read(&mut self) -> std::io::Result<BTreeMap<String, String>> {
        let text = match std::fs::read(&self.path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let (mut rows, mut unreadable) = (BTreeMap::new(), 0u64);
        self.lines = 0;
        for line in text.lines() {
            self.lines += 1;
            // A kill during a write may leave an incomplete last line; its row counts as not written.
            match serde_json::from_str::<(String, Option<String>)>(line) {
                Ok((key, Some(value))) => drop(rows.insert(key, value)),
                Ok((key, None)) => drop(rows.remove(&key)),
                Err(_) => unreadable += 1,
            }
        }
        // A kill leaves at most one incomplete line, so several unreadable lines mean damage.
        if unreadable > 1 {
            let path = self.path.display();
            tracing::warn!(
                %path,
                unreadable,
                "the notification log has damaged lines; delivered messages may be sent again"
            );
        }
        self.rows = rows.len();
        Ok(rows)
    }

    /// Replaces the file by a new one that has only the newest line of each row.
    fn compact(&mut self, rows: &BTreeMap<String, String>) -> std::io::Result<()> {
        let parent = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent)?;
        let mut text = String::new();
        for (key, value) in rows {
            text.push_str(&line(key, Some(value)));
        }
        let mut new = tempfile::NamedTempFile::new_in(parent)?;
        new.write_all(text.as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(&self.path).map_err(|error| error.error)?;
        self.lines = rows.len();
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        Ok(())
    }

    fn append(&mut self, rows: &Rows) -> std::io::Result<()> {
        let mut text = String::new();
        for (key, value) in rows {
            let value = value.as_deref().map(String::from_utf8_lossy);
            text.push_str(&line(key, value.as_deref()));
        }
        self.lines += rows.len();
        // All rows are written in a single call, so a kill can cut off only the end of the text.
        self.file.as_mut().ok_or(std::io::ErrorKind::NotFound)?.write_all(text.as_bytes())
    }
}

fn line(key: &str, value: Option<&str>) -> String {
    // Serialising strings cannot fail.
    serde_json::to_string(&(key, value)).unwrap_or_default() + "\n"
}

impl NotificationLog for FileNotificationLog {
    /// Always succeeds, because a data dir has only one process.
    fn acquire(&mut self) -> Result<bool, PortError> {
        Ok(true)
    }

    fn load(&mut self) -> Result<Vec<(String, Vec<u8>)>, PortError> {
        let read = self.read().and_then(|rows| self.compact(&rows).map(|()| rows));
        let rows = read.map_err(|error| self.failed(error))?;
        Ok(rows.into_iter().map(|(key, value)| (key, value.into_bytes())).collect())
    }

    fn write(&mut self, rows: &Rows) -> Result<Written, PortError> {
        if rows.is_empty() {
            return Ok(Written::Done);
        }
        self.append(rows).map_err(|error| self.failed(error))?;
        if self.lines > LINES_MIN.max(2 * self.rows) {
            let again = self.read().and_then(|rows| self.compact(&rows));
            again.map_err(|error| self.failed(error))?;
        }
        Ok(Written::Done)
    }

    fn hold(&mut self, _: Duration) -> Result<Written, PortError> {
        Ok(Written::Done)
    }

    fn release(&mut self) {
        self.file = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_rows_come_back_also_from_a_torn_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut notification_log = FileNotificationLog::new(dir.path(), "ops/on call");
        assert!(notification_log.load().expect("room").is_empty());
        let put = |key: &str, value: &str| (key.to_string(), Some(value.as_bytes().to_vec()));
        notification_log.write(&vec![put("position", "1"), put("e/a", "{\"x\":\"\\n\"}")]).expect("room");
        notification_log
            .write(&vec![put("position", "2"), ("e/a".into(), None), put("e/b", "{}")])
            .expect("room");
        let path = notification_log.path.clone();
        notification_log.release();
        OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(b"[\"e/c\",\"{"))
            .expect("room");
        let mut again = FileNotificationLog::new(dir.path(), "ops/on call");
        let rows: Vec<String> = again.load().expect("readable").into_iter().map(|(key, _)| key).collect();
        assert_eq!(rows, ["e/b", "position"]);
        for number in 0..2 * LINES_MIN {
            again.write(&vec![put("position", &number.to_string())]).expect("room");
        }
        let lines = std::fs::read_to_string(&path).expect("readable").lines().count();
        assert!(lines <= LINES_MIN, "{lines}");
    }
}
