//! Log and store in one redb file, for a deployment without NATS and Redis.
//!
//! Invariant: every write is one transaction with an fsync, so after a kill -9 the file has the whole write or
//! nothing of it. Readers see the last committed state. Rejected: a log file beside the database (two files to
//! keep consistent), Durability::None (an acknowledged event could be lost).

mod alerts;
mod feed;
mod log;
pub mod notification_log;
mod owner;
mod requests;
pub(crate) mod salvage;
mod store;
pub(crate) mod verify;

pub use self::feed::EmbeddedFeed;
pub use self::owner::EmbeddedStore;
use crate::driver::ports::PortError;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// seq → (stamp, entry as MessagePack)
const LOG: TableDefinition<'_, u64, (i64, &[u8])> = TableDefinition::new("log");
/// (size, start, series id) → window as MessagePack
const WINDOWS: TableDefinition<'_, (u8, i64, u64), &[u8]> = TableDefinition::new("windows");
/// series id → catalog row as MessagePack
const CATALOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("catalog");
/// number → transition as JSON
const ALERTS: TableDefinition<'_, u64, &str> = TableDefinition::new("alerts");
/// (seq, index) → refused event as MessagePack
const DEAD: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("dead");
/// (stamp, seq) → hash of the request body, time of the answer, idempotency key: the requests of recent records
const REQUESTS: TableDefinition<'_, (i64, u64), &[u8]> = TableDefinition::new("requests");
/// seq → (): the poison records, which are skipped because they crashed the process
const POISON: TableDefinition<'_, u64, ()> = TableDefinition::new("poison");
/// name → number: `applied`, `snapshot_at`, `checked_from`, and the numbers of the poison guard
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// part number → bytes of the newest snapshot
const SNAPSHOT: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("snapshot");

/// Entry of `META`: number of the first record with a checksum. An earlier version wrote the records before it,
/// without checksums.
const CHECKED_FROM: &str = "checked_from";

/// Size of the database's cache in bytes.
const CACHE_BYTES: usize = 64 << 20;

/// An open data dir. Clones share the database.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// `None` only if it could not be reopened after a failed write.
    database: Arc<RwLock<Option<Database>>>,
    path: PathBuf,
    /// State of the file after this process's last write. A different state means that another process changed it.
    file: Arc<Mutex<Option<FileState>>>,
}

impl Embedded {
    /// Opens or creates the database of a data dir. Fails if another process has it open.
    pub fn open(data_dir: &Path) -> Result<Embedded, PortError> {
        let path = data_dir.join("streamgauge.redb");
        let place = path.display().to_string();
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| PortError::Write {
            place: place.clone(),
            source,
        };
        std::fs::create_dir_all(data_dir).map_err(|error| failed(error.into()))?;
        let is_new = !path.exists();
        close_to_others(data_dir, 0o700);
        let is_empty = std::fs::metadata(&path).is_ok_and(|file| file.len() == 0);
        if is_empty {
            // An empty file is harmless if the first start was killed. But if another program truncated the
            // file, its records are lost.
            tracing::warn!(path = place, "the log is an empty file: if it held something, restore a copy");
        }
        let database = create(&path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => PortError::Locked { place: place.clone() },
            other => verify::cannot_open(&path, other),
        })?;
        close_to_others(&path, 0o600);
        let file = Arc::new(Mutex::new(FileState::of(&path)));
        let embedded = Embedded { database: Arc::new(RwLock::new(Some(database))), path, file };
        if !is_new {
            embedded.check_at_start()?;
        }
        // The check may write, so read the state of the file again.
        *embedded.file.lock().unwrap_or_else(PoisonError::into_inner) = FileState::of(&embedded.path);
        embedded.write(|transaction| {
            transaction.open_table(LOG)?;
            transaction.open_table(WINDOWS)?;
            transaction.open_table(CATALOG)?;
            transaction.open_table(ALERTS)?;
            transaction.open_table(DEAD)?;
            transaction.open_table(POISON)?;
            transaction.open_table(REQUESTS)?;
            let mut meta = transaction.open_table(META)?;
            if meta.get(CHECKED_FROM)?.is_none() {
                let newest = transaction.open_table(LOG)?.last()?.map_or(0, |(seq, _)| seq.value());
                meta.insert(CHECKED_FROM, newest + 1)?;
            }
            transaction.open_table(SNAPSHOT)?;
            Ok(())
        })?;
        embedded.check_end()?;
        Ok(embedded)
    }

    /// Runs one durable transaction.
    fn write<T>(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, PortError> {
        // If the file was removed or replaced, this process would write to the old file, and these writes would be
        // lost when the process ends. So the write fails instead.
        let mut left = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if FileState::of(&self.path) != *left {
            let source = "the file was removed, replaced or written while it is in use; stop this process, and restore it";
            return Err(PortError::Lost { place: self.place(), source: source.into() });
        }
        let all = || -> Result<T, redb::Error> {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            let transaction = database.as_ref().ok_or(redb::Error::PreviousIo)?.begin_write()?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        let done = all().map_err(|source| {
            self.reopen();
            PortError::Write { place: self.place(), source: source.into() }
        });
        *left = FileState::of(&self.path);
        done
    }

    /// Reopens the database, because redb refuses all work after a failed write. The file keeps all earlier commits,
    /// and the whole failed commit or nothing of it.
    fn reopen(&self) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *database = None;
        *database = create(&self.path).ok();
    }

    /// Reads from one consistent view.
    fn read<T>(
        &self,
        work: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, PortError> {
        let all = || -> Result<T, redb::Error> {
            let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
            work(&database.as_ref().ok_or(redb::Error::PreviousIo)?.begin_read()?)
        };
        all().map_err(|source| PortError::Read { place: self.place(), source: source.into() })
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

/// Properties of the file that change when another process replaces it or writes it.
///
/// Intuition: each commit changes the file's header, which contains a transaction counter. Rejected: the modification
/// time (redb may write pages after a commit, when a read evicts them from its cache).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileState {
    device: u64,
    number: u64,
    bytes: u64,
    header: [u8; HEADER_BYTES],
}

/// Bytes at the start of the file that redb changes with each commit.
const HEADER_BYTES: usize = 320;

impl FileState {
    fn of(path: &Path) -> Option<FileState> {
        use std::os::unix::fs::MetadataExt;
        let mut file = std::fs::File::open(path).ok()?;
        let known = file.metadata().ok()?;
        let mut header = [0; HEADER_BYTES];
        file.read_exact(&mut header).ok()?;
        Some(FileState { device: known.dev(), number: known.ino(), bytes: known.len(), header })
    }
}

/// Whether the file can be read but its content is damaged.
fn is_damage(error: &redb::DatabaseError) -> bool {
    match error {
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(_)) => true,
        redb::DatabaseError::Storage(redb::StorageError::Io(error)) => {
            matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
        }
        redb::DatabaseError::RepairAborted => true,
        _ => false,
    }
}

/// Denies other users access to a path, because events may contain secrets of their producers. If the file system
/// does not support this, only a warning is logged.
fn close_to_others(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)) {
        tracing::warn!(path = %path.display(), %error, "cannot restrict the path to its owner");
    }
}

fn create(path: &Path) -> Result<Database, redb::DatabaseError> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder.create(path)
}

/// Wraps a decoding error: a row that cannot be decoded is damage, not a bug of the caller.
fn damaged(error: impl std::fmt::Display) -> redb::Error {
    redb::Error::Corrupted(error.to_string())
}
