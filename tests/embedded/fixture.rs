//! State that older binaries wrote: the archives of `tests/fixtures/` and what the service said at their end.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The versions of the snapshot that have a fixture, in ascending order, each with its directory.
pub fn all() -> Vec<(u32, PathBuf)> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let entries = std::fs::read_dir(all).expect("fixtures").map(|entry| entry.expect("readable").path());
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    let mut found: Vec<_> = entries.filter_map(|path| Some((version(&path)?, path))).collect();
    found.sort();
    found
}

/// Unpacks an archive of a fixture into a directory. Returns what the service said.
pub fn unpack(fixture: &Path, name: &str, into: &Path) -> Value {
    let archive = fixture.join(format!("{name}.tar.gz"));
    let unpacked = Command::new("tar").arg("-C").arg(into).arg("-xzf").arg(&archive).status();
    assert!(unpacked.expect("tar runs").success(), "{}", archive.display());
    let said = std::fs::read_to_string(fixture.join(format!("{name}.json"))).expect("readable");
    serde_json::from_str(&said).expect("JSON")
}

/// One field of each entry of a list.
pub fn column(list: &Value, field: &str) -> Vec<Value> {
    list.as_array().into_iter().flatten().map(|one| one[field].clone()).collect()
}
