//! Work on a data dir whose pages may be damaged. It ends with a message, even if the database panics or
//! never returns.
//!
//! Intuition: a database follows the page numbers that it reads. One flipped bit can lead it to an invalid
//! page, where it panics, or back to a page that it has visited, so that it never ends.
//! Rejected: following the pages ourselves (that is a second database; salvage searches for records only, by
//! their checksums), and a timeout for a whole export (its reader may be slow).

use anyhow::{Result, bail};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::mpsc::{RecvTimeoutError, channel, sync_channel};
use std::time::Duration;

/// Timeout for the check of a data dir: a fixed part, and a part for each MiB. At 200 MiB a second, the check
/// takes a fiftieth of the latter.
const FIXED: Duration = Duration::from_secs(10);
const PER_MIB: Duration = Duration::from_millis(250);

const WAY_OUT: &str =
    "the database cannot continue, because its pages are damaged; restore a copy of the data dir";

/// Number of portions (groups of records) that are read ahead.
const PORTIONS_WAITING: usize = 2;

thread_local! {
    /// Whether a panic of this thread is caught and returned as an error.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Installs a panic hook that prints nothing for a caught panic and calls the previous hook for all others.
fn keep_caught_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_CAUGHT.get() {
                hook(panic);
            }
        }));
    });
}

/// Returns the path of the log in a data dir, or an error if there is none.
pub(crate) fn log_of(data_dir: &Path) -> Result<PathBuf> {
    let (log, dir) = (data_dir.join("streamgauge.redb"), data_dir.display());
    match log.try_exists() {
        Ok(true) => Ok(log),
        Ok(false) => bail!("{dir} holds no log; is it the --data-dir that `run` used?"),
        Err(error) => bail!("cannot read {dir}: {error}; only the user that runs `run` has access"),
    }
}

/// Runs the work, and turns a panic into an error.
pub(crate) fn caught<T>(data_dir: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    keep_caught_panics_quiet();
    let before = IS_CAUGHT.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(before);
    done.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
        bail!("{}: {WAY_OUT} (it ended with: {words})", data_dir.display())
    })
}

/// Like [`caught`], and also fails if the work exceeds the timeout for the size of the data dir. The command
/// then ends, and the thread of the work with it.
pub(crate) fn caught_in_time<T: Send + 'static>(
    data_dir: &Path,
    work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    let within = deserved(data_dir);
    let (sender, receiver) = channel();
    let dir = data_dir.to_path_buf();
    std::thread::spawn(move || {
        // After a timeout nothing receives the result.
        sender.send(caught(&dir, || work(&dir))).ok();
    });
    match receiver.recv_timeout(within) {
        Ok(done) => done,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => too_slow(data_dir, within),
    }
}

/// Reads portions on a separate thread while the caller takes them. Fails if a single portion takes longer
/// than the timeout for the whole data dir.
pub(crate) fn portions_in_time<T: Send + 'static>(
    data_dir: &Path,
    read: impl FnOnce(&Path, Put<'_, T>) -> Result<()> + Send + 'static,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let within = deserved(data_dir);
    let (sender, receiver) = sync_channel(PORTIONS_WAITING);
    let dir = data_dir.to_path_buf();
    let reading = std::thread::spawn(move || {
        let put = |portion| sender.send(portion).map_err(|_| anyhow::anyhow!("the portions have no reader"));
        caught(&dir, || read(&dir, &mut { put }))
    });
    loop {
        match receiver.recv_timeout(within) {
            Ok(portion) => take(portion)?,
            Err(RecvTimeoutError::Timeout) => return too_slow(data_dir, within),
            // The reader has ended. It cannot have panicked, because its panics are caught.
            Err(RecvTimeoutError::Disconnected) => return reading.join().unwrap_or(Ok(())),
        }
    }
}

/// Callback that takes a portion.
pub(crate) type Put<'a, T> = &'a mut dyn FnMut(T) -> Result<()>;

fn deserved(data_dir: &Path) -> Duration {
    let files = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    let bytes: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    FIXED + PER_MIB * u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

fn too_slow<T>(data_dir: &Path, within: Duration) -> Result<T> {
    let (dir, secs) = (data_dir.display(), within.as_secs());
    bail!("{dir}: not read within {secs} s; if the disk is no slower than that, {WAY_OUT}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_the_way_out() {
        let dir = Path::new("data");
        let failed: Result<()> = caught(dir, || panic!("page"));
        assert!(failed.expect_err("a panic").to_string().contains("restore a copy"));
        assert_eq!(caught(dir, || Ok(7)).expect("no panic"), 7);
    }

    #[test]
    fn portions_come_in_order_and_then_the_error() {
        let mut taken = Vec::new();
        let read = |_: &Path, put: Put<'_, u32>| {
            (0..5).try_for_each(&mut *put)?;
            panic!("page")
        };
        let failed = portions_in_time(Path::new("data"), read, |portion| {
            taken.push(portion);
            Ok(())
        });
        assert!(failed.expect_err("a panic").to_string().contains("restore a copy"));
        assert_eq!(taken, [0, 1, 2, 3, 4]);
    }
}
