//! Work on a data dir whose pages may be damaged: it ends with words, whatever the database does.
//!
//! Intuition: a database follows the pages that it reads. One bit that has flipped sends it to a page that is none, and
//! it panics, or to one where it was before, and it never ends.
//! Rejected: reading the pages ourselves (a second database); a limit of time for an export (whoever reads it may be
//! slow).

use anyhow::{Result, bail};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Time for the check of a data dir, and for each MiB of it: at 200 MiB a second it takes a fiftieth of that.
const FIXED: Duration = Duration::from_secs(10);
const PER_MIB: Duration = Duration::from_millis(250);

const WAY_OUT: &str =
    "its pages are damaged so that the database cannot go on; restore a copy of the data dir";

/// Does the work, and makes an error of a panic.
pub fn caught<T>(data_dir: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let done = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    done.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
        bail!("{}: {WAY_OUT} (it ended with: {words})", data_dir.display())
    })
}

/// The same, and gives up work that takes longer than its size deserves. The command ends then, and the work with it.
pub fn caught_in_time<T: Send + 'static>(
    data_dir: &Path,
    work: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    let files = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    let bytes: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    let within = FIXED + PER_MIB * u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
    let (sender, receiver) = channel();
    let dir = data_dir.to_path_buf();
    std::thread::spawn(move || {
        // Nobody waits for it if it took too long.
        sender.send(caught(&dir, || work(&dir))).ok();
    });
    match receiver.recv_timeout(within) {
        Ok(done) => done,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let secs = within.as_secs();
            bail!(
                "{}: not read within {secs} s; if the disk is no slower than that, {WAY_OUT}",
                data_dir.display()
            )
        }
    }
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
}
