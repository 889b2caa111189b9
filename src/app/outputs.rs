//! Checks the outputs of a command against its inputs and against each other.
//!
//! Intuition: a file is identified by device and inode number, whatever path, link or redirection leads to
//! it. A file that does not exist yet is identified by the path to which its links lead. Invariant: the check
//! precedes the opening of any output, because opening an output empties it. Pipes and devices may be shared,
//! and `-` twice is one stream.

use super::cli::Usage;
use rustix::fs::{FileType, fstat};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Maximum number of links that are followed to a file that does not exist yet; Linux itself follows 40.
const LINKS_MAX: usize = 40;

/// The identity of the file behind a path.
#[derive(Debug, PartialEq, Eq)]
enum FileIdentity {
    /// Device and inode number of an existing file, whatever its name.
    File(u64, u64),
    /// Resolved path of a file that does not exist yet.
    New(PathBuf),
}

/// Refuses an output, named by its flag, that is the same file as another output, an input, standard output
/// or standard error.
pub(crate) fn check(outputs: &[(&str, Option<&Path>)], inputs: &[PathBuf]) -> Result<(), Usage> {
    let input = |path: &PathBuf| {
        let place = if is_stream(path) { place_of_stream(std::io::stdin()) } else { place(path) };
        Some((format!("the input {}", path.display()), place?))
    };
    let mut known: Vec<(String, FileIdentity)> = inputs.iter().filter_map(input).collect();
    let streams = [
        ("standard output", place_of_stream(std::io::stdout())),
        ("standard error", place_of_stream(std::io::stderr())),
    ];
    known.extend(streams.into_iter().filter_map(|(name, place)| Some((name.to_string(), place?))));
    let files =
        outputs.iter().filter_map(|(flag, path)| Some((*flag, path.filter(|path| !is_stream(path))?)));
    for (flag, found) in files.filter_map(|(flag, path)| Some((flag, place(path)?))) {
        if let Some((other, _)) = known.iter().find(|(_, place)| *place == found) {
            return Err(Usage(format!("{flag} would overwrite {other}; write to another file")));
        }
        known.push((format!("what {flag} writes"), found));
    }
    Ok(())
}

fn is_stream(path: &Path) -> bool {
    path == Path::new("-")
}

fn place(path: &Path) -> Option<FileIdentity> {
    match std::fs::metadata(path) {
        Ok(found) => found.is_file().then(|| FileIdentity::File(found.dev(), found.ino())),
        Err(_) => Some(FileIdentity::New(target(path)?)),
    }
}

/// Returns the file to which a stream is redirected.
fn place_of_stream(stream: impl AsFd) -> Option<FileIdentity> {
    let found = fstat(stream).ok()?;
    let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    is_file.then_some(FileIdentity::File(found.st_dev as u64, found.st_ino as u64))
}

/// Returns the path of a file that does not exist, with all links resolved.
fn target(path: &Path) -> Option<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        path = dir.canonicalize().ok()?.join(path.file_name()?);
        match std::fs::read_link(&path) {
            Ok(to) => path = path.parent()?.join(to),
            Err(_) => return Some(path),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_is_known_by_any_name() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("in"), "").expect("writable");
        symlink("in", at("link")).expect("linked");
        symlink("new", at("to-new")).expect("linked");
        symlink("loop", at("loop")).expect("linked");
        let check = |a: &str, b: &str| check(&[("--a", Some(&at(a))), ("--b", Some(&at(b)))], &[at("in")]);
        let refused = |a: &str, b: &str| check(a, b).expect_err("refused").0;
        assert!(refused("link", "other").contains("--a would overwrite the input"));
        assert!(refused("to-new", "new").contains("--b would overwrite what --a writes"));
        assert!(check("new", "other").is_ok() && check("loop", "other").is_ok());
    }
}
