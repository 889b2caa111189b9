//! Integrity of a data dir: pages and records compared with their checksums.
//!
//! Intuition: disks lose and change bits. The database has a checksum for each page, and each record of the
//! log has its own checksum. A check reads the whole file, so only a small file is checked when it is opened;
//! `streamgauge verify` checks a file of any size. Invariant: damaged data is never read as different data.

use super::log::{checked_from, record};
use super::{Embedded, LOG, META, damaged};
use crate::driver::ports::{Logged, PortError};
use redb::{DatabaseError, ReadableTable};
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::PoisonError;

/// A file of at most this size is checked at each start: at 1 GB a second that takes a tenth of a second.
const CHECKED_AT_START_BYTES: u64 = 128 << 20;

/// Records read at once.
const PAGE_RECORDS: usize = 4_096;

/// Maximum number of damaged records listed.
const NAMED_MAX: usize = 20;

/// Findings of a complete check.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Findings {
    /// Number of intact records.
    pub records: u64,
    /// The first damaged or missing records; `damaged_count` is their total number.
    pub damaged: Vec<u64>,
    pub damaged_count: u64,
    /// Whether every page of the database matches its checksum.
    pub is_sound: bool,
}

impl Findings {
    pub fn is_fine(&self) -> bool {
        self.is_sound && self.damaged_count == 0
    }
}

/// Consecutive records of the log.
#[derive(Debug, Default)]
pub struct Page {
    /// Records by number; `None` for a damaged one.
    rows: Vec<(u64, Option<Logged>)>,
    /// Numbers of damaged or missing records.
    damaged: Vec<Range<u64>>,
}

impl Page {
    pub fn whole(&self) -> impl Iterator<Item = &Logged> {
        self.rows.iter().filter_map(|(_, record)| record.as_ref())
    }

    /// Adds the row with number `seq`. If `record` is `None`, the row is damaged. If `seq` is greater than
    /// `expected`, the records from `expected` to `seq - 1` are missing.
    pub(super) fn push(&mut self, expected: u64, seq: u64, record: Option<Logged>) {
        if expected < seq {
            self.damaged.push(expected..seq);
        }
        if record.is_none() {
            self.damaged.push(seq..seq.saturating_add(1));
        }
        self.rows.push((seq, record));
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= PAGE_RECORDS
    }

    /// Returns the number after the last row.
    pub fn next(&self) -> Option<u64> {
        self.rows.last().map(|(seq, _)| seq.saturating_add(1))
    }

    pub fn damaged_count(&self) -> u64 {
        self.damaged.iter().map(|numbers| numbers.end - numbers.start).fold(0, u64::saturating_add)
    }
}

impl Embedded {
    pub(super) fn check_at_start(&self) -> Result<(), PortError> {
        let bytes = std::fs::metadata(&self.path).map_or(0, |meta| meta.len());
        if bytes > CHECKED_AT_START_BYTES {
            return Ok(());
        }
        match self.is_sound()? {
            true => Ok(()),
            false => Err(unsound(&self.path, "a page does not match its checksum".into())),
        }
    }

    /// Fails if the log ends before the last applied record.
    pub(super) fn check_end(&self) -> Result<(), PortError> {
        let (applied, newest) = self.read(|transaction| {
            let applied = transaction.open_table(META)?.get("applied")?.map_or(0, |value| value.value());
            Ok((applied, transaction.open_table(LOG)?.last()?.map_or(0, |(seq, _)| seq.value())))
        })?;
        match newest < applied {
            true => Err(unsound(
                &self.path,
                format!("the log ends at record {newest}, but {applied} was applied"),
            )),
            false => Ok(()),
        }
    }

    /// Compares all pages in use with their checksums.
    fn is_sound(&self) -> Result<bool, PortError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = database.as_mut() else { return Ok(false) };
        match database.check_integrity() {
            Ok(is_sound) => Ok(is_sound),
            Err(DatabaseError::Storage(redb::StorageError::Corrupted(_))) => Ok(false),
            Err(error) => Err(PortError::Read { place: self.place(), source: error.into() }),
        }
    }

    /// Checks all pages and records.
    pub fn verify(&self) -> Result<Findings, PortError> {
        let is_sound = self.is_sound()?;
        let mut findings = Findings { is_sound, ..Findings::default() };
        let read = self.each_page::<PortError>(&mut |page| {
            findings.records += page.whole().count() as u64;
            findings.damaged_count = findings.damaged_count.saturating_add(page.damaged_count());
            let room = NAMED_MAX - findings.damaged.len();
            findings.damaged.extend(page.damaged.into_iter().flatten().take(room));
            Ok(())
        });
        if read.is_err() {
            findings.is_sound = false;
        }
        Ok(findings)
    }

    /// Passes the records of the log to `take`, in order, one page at a time.
    pub fn each_page<E: From<PortError>>(
        &self,
        take: &mut dyn FnMut(Page) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut next = None;
        loop {
            let page = self.page(next)?;
            let Some((last, _)) = page.rows.last() else { return Ok(()) };
            next = last.checked_add(1);
            take(page)?;
            // The page ended at the largest possible number.
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads the next page of records, from number `from` on. Fails if the numbers do not ascend, because then a
    /// damaged page points back to earlier records, and reading would not end.
    fn page(&self, from: Option<u64>) -> Result<Page, PortError> {
        self.read(|transaction| {
            let (log, checked_from) = (transaction.open_table(LOG)?, checked_from(transaction)?);
            let mut page = Page::default();
            let mut next = from;
            for row in log.range(from.unwrap_or(0)..)?.take(PAGE_RECORDS) {
                let (seq, row) = row?;
                let seq = seq.value();
                let expected = next.unwrap_or(seq);
                if seq < expected {
                    return Err(damaged(format!("record {seq} of the log follows a later record")));
                }
                page.push(expected, seq, record(seq, row.value(), checked_from).ok());
                next = Some(seq.saturating_add(1));
            }
            Ok(page)
        })
    }

    /// Opens a data dir for `verify` and `export`, even if it is damaged.
    pub fn open_damaged(data_dir: &Path) -> Result<Embedded, PortError> {
        let path = data_dir.join("streamgauge.redb");
        let place = path.display().to_string();
        if std::fs::metadata(&path).is_ok_and(|file| file.len() == 0) {
            return Err(empty(&path));
        }
        let database = super::create(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => PortError::Locked { place: place.clone() },
            other => cannot_open(&path, other),
        })?;
        let database = std::sync::Arc::new(std::sync::RwLock::new(Some(database)));
        let file = std::sync::Arc::new(std::sync::Mutex::new(super::FileState::of(&path)));
        Ok(Embedded { database, path, file })
    }
}

/// The error of a partly damaged file.
pub(super) fn unsound(path: &Path, found: String) -> PortError {
    PortError::Changed {
        place: path.display().to_string(),
        found,
        hint: "`streamgauge verify --data-dir …` lists the damage, `export --skip-damaged` saves the intact \
               records; or restore a copy",
    }
}

/// The error of a file that cannot be opened.
pub(super) fn cannot_open(path: &Path, error: DatabaseError) -> PortError {
    let place = path.display().to_string();
    match &error {
        DatabaseError::Storage(redb::StorageError::Io(io)) if io.kind() == ErrorKind::ReadOnlyFilesystem => {
            let found = "its file system is read-only, and opening the database writes to it".into();
            PortError::Changed {
                place,
                found,
                hint: "copy the data dir to a writable file system, and give the path of the copy",
            }
        }
        DatabaseError::Storage(redb::StorageError::Io(io)) if io.kind() == ErrorKind::PermissionDenied => {
            let found = "this user may not read and write it".into();
            PortError::Changed {
                place,
                found,
                hint: "run this command as the user of `streamgauge run`, or on a copy of the data dir",
            }
        }
        other if super::is_damage(other) => beyond_repair(path, error.to_string()),
        _ => PortError::Write { place, source: error.into() },
    }
}

fn empty(path: &Path) -> PortError {
    PortError::Changed {
        place: path.display().to_string(),
        found: "it is an empty file".into(),
        hint: "if it held records, restore a copy of the data dir; `run` starts a new log in it",
    }
}

/// The error of a file in which the database cannot find its tables.
fn beyond_repair(path: &Path, found: String) -> PortError {
    PortError::Changed {
        place: path.display().to_string(),
        found,
        hint: "restore a copy of the data dir; `streamgauge export --skip-damaged` saves the records that it still finds",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Timestamp;
    use crate::driver::ports::Entry;
    use crate::wire::event::Codec;
    use std::os::unix::fs::{FileExt, PermissionsExt};

    /// Goal: no bit that the disk changes is read as another event. Method: flip one bit at a time, all
    /// over the file; a database that opens must read the same records.
    #[test]
    fn bits_that_change_are_found_or_do_not_matter() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = Embedded::open(dir.path()).expect("a database");
        for n in 0..200u32 {
            let payload = format!("payload {n} {}", "x".repeat(n as usize)).into_bytes();
            let entry = Entry::Events(Codec::Json, payload);
            log.append(Timestamp::clamped(i64::from(n)), &[(entry, None)]).expect("room");
        }
        let written = log.records(1, 1_000).expect("whole");
        assert!(log.verify().expect("readable").is_fine());
        drop(log);
        let path = dir.path().join("streamgauge.redb");
        let whole = std::fs::read(&path).expect("readable");
        let (mut found, mut harmless) = (0, 0);
        for at in (0..whole.len()).step_by(whole.len() / 97) {
            std::fs::write(&path, &whole).expect("writable");
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("there");
            file.write_all_at(&[whole[at] ^ 0x10], at as u64).expect("room");
            drop(file);
            let opened = std::panic::catch_unwind(|| Embedded::open(dir.path()));
            match opened.map(|opened| opened.and_then(|log| log.records(1, 1_000))) {
                Ok(Ok(records)) => {
                    assert_eq!(records, written, "byte {at}");
                    harmless += 1;
                }
                _ => found += 1,
            }
        }
        assert!(found > 0 && harmless > 0, "{found} found, {harmless} harmless");
    }

    #[test]
    fn nobody_else_reads_the_data_dir() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let _open = Embedded::open(&data).expect("a database");
        let mode =
            |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(&data.join("streamgauge.redb"))), (0o700, 0o600));
    }
}
