//! Names the commit in the version of a release build.
//!
//! Other builds do not name it, because each commit would then compile the whole crate again.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=STREAMGAUGE_COMMIT");
    println!("cargo:rerun-if-changed=src/build.rs");
    let stated = std::env::var("STREAMGAUGE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = stated.or_else(|| if is_release { of_checkout() } else { None });
    let commit = commit.map_or(String::new(), |commit| format!(" ({commit})"));
    println!("cargo:rustc-env=STREAMGAUGE_COMMIT_NAMED={commit}");
}

/// Returns the commit of the checkout, if this is one; an archive of the source has none.
fn of_checkout() -> Option<String> {
    println!("cargo:rerun-if-changed=.git/HEAD");
    println!("cargo:rerun-if-changed=.git/index");
    let found = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output().ok()?;
    let text = String::from_utf8(found.stdout).ok()?;
    Some(text.trim().to_string()).filter(|commit| found.status.success() && !commit.is_empty())
}
