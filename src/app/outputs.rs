//! Outputs of a command, compared with its inputs and with each other.
//!
//! Invariant: no output is opened, and so emptied, before this was asked. Pipes and devices may be shared.

use super::cli::Usage;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file behind a path.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// Device and number of a file, whatever it is called.
    File(u64, u64),
    /// One that is not there yet.
    New(PathBuf),
}

fn place(path: &Path) -> Option<Place> {
    // The shell opens what standard output is redirected to, and two outputs may share it.
    if path == Path::new("-") || path.starts_with("/dev") {
        return None;
    }
    match std::fs::metadata(path) {
        Ok(found) => found.is_file().then(|| Place::File(found.dev(), found.ino())),
        Err(_) => {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Some(Place::New(dir.canonicalize().ok()?.join(path.file_name()?)))
        }
    }
}

/// Refuses outputs, each with its flag, that are one file, or one of the inputs.
pub fn check(outputs: &[(&str, Option<&Path>)], inputs: &[PathBuf]) -> Result<(), Usage> {
    let mut known: Vec<(String, Place)> = inputs
        .iter()
        .filter_map(|path| Some((format!("the input {}", path.display()), place(path)?)))
        .collect();
    for (flag, found) in outputs.iter().filter_map(|(flag, path)| Some((*flag, place((*path)?)?))) {
        if let Some((other, _)) = known.iter().find(|(_, place)| *place == found) {
            return Err(Usage(format!("{flag} would overwrite {other}; write to another file")));
        }
        known.push((format!("what {flag} writes"), found));
    }
    Ok(())
}
