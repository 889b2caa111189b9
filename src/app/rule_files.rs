//! The rule files of a process, which are checked periodically.
//!
//! Intuition: the files are read once they have settled, which means that none of them has changed for a
//! second. Then no program is still writing, moving or mounting them. Invariant: missing content never counts
//! as "no rules". If all files disappear, the earlier rules stay and the problem is reported. The same
//! applies if a file that had rules contains nothing but its version. An empty file is refused when the
//! documents are compiled.
//! Rejected: relying on locks or on renames alone (editors, `kubectl` and `rsync` each replace files in their
//! own way).

use crate::driver::port_error::chain;
use crate::pipeline::document::{self, Documents};
use crate::pipeline::load;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Files that have not changed for this long count as completely written; that takes two checks at least.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// Files that keep changing for this long are reported as the reason why they are not read. No ordinary write
/// takes this long.
const UNSETTLED_SAID_AFTER: Duration = Duration::from_secs(10);

/// Paths with their modification times and sizes, which change when a file does.
type FileStamps = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// The directory of the files, and the documents that were read from it.
#[derive(Debug)]
pub(crate) struct RuleFiles {
    dir: PathBuf,
    seen: FileStamps,
    /// The time at which `seen` last changed.
    since: Instant,
    /// The time since which changes wait to be read.
    due_since: Instant,
    /// Whether the files are to be read once they have settled.
    is_due: bool,
    /// Whether a reload was requested, which counts as a change even if the documents are equal.
    is_asked: bool,
    documents: Option<Documents>,
    remark: Option<String>,
}

impl RuleFiles {
    pub(crate) fn new(dir: PathBuf, now: Instant) -> RuleFiles {
        let seen = seen(&dir);
        RuleFiles {
            dir,
            seen,
            since: now,
            due_since: now,
            is_due: true,
            is_asked: false,
            documents: None,
            remark: None,
        }
    }

    /// Returns the documents as they were last read.
    pub(crate) fn documents(&self) -> Option<&Documents> {
        self.documents.as_ref()
    }

    /// Returns the reason why the current files are not in effect.
    pub(crate) fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// Checks the files. Returns `true` if their documents changed or a reload was requested. The first check
    /// reads them at once, because without rules no alert is raised.
    pub(crate) fn look(&mut self, is_asked: bool, now: Instant) -> bool {
        self.is_asked |= is_asked;
        let found = seen(&self.dir);
        if found != self.seen {
            if !self.is_due {
                self.due_since = now;
            }
            (self.seen, self.since, self.is_due) = (found, now, true);
        }
        if !(self.is_due || self.is_asked) {
            return false;
        }
        let has_settled = self.documents.is_none() || now.duration_since(self.since) >= SETTLED_AFTER;
        if !has_settled {
            self.say_if_unsettled(now);
            return false;
        }
        match document::of_dir(&self.dir) {
            // The files changed while they were read, so the next check reads them again.
            Ok(_) if seen(&self.dir) != self.seen => {
                self.say_if_unsettled(now);
                false
            }
            Ok(documents) => self.take(documents),
            Err(error) => {
                // The next check tries again, because permissions and mounts can recover without a change of
                // the files.
                self.say(Some(format!("{}; the previous rules stay in force", chain(&error))));
                false
            }
        }
    }

    fn take(&mut self, documents: Documents) -> bool {
        self.is_due = false;
        let is_asked = std::mem::take(&mut self.is_asked);
        if let Some(lost) = self.lost(&documents) {
            self.say(Some(format!(
                "{lost}, which does not count as an empty rule set: the previous rules stay in force; a file \
                 with `rules: []` says that there are none"
            )));
            return false;
        }
        self.say(None);
        let is_new = self.documents.as_ref() != Some(&documents);
        self.documents = Some(documents);
        is_new || is_asked
    }

    /// Describes the directory or file that had rules before and has none now, without stating `rules: []`.
    fn lost(&self, documents: &Documents) -> Option<String> {
        let before = self.documents.as_ref()?;
        if documents.is_empty() && !before.is_empty() {
            return Some(format!("{} has no rule file any more", self.dir.display()));
        }
        let is_cut = |(name, text): &(&String, &String)| {
            before.get(*name).is_some_and(|before| !is_bare(before)) && is_bare(text)
        };
        let (name, _) = documents.iter().find(is_cut)?;
        Some(format!("{name} contains nothing but its version"))
    }

    /// Reports files that keep changing: they are never read, and the operator has to know.
    fn say_if_unsettled(&mut self, now: Instant) {
        if self.is_due && now.duration_since(self.due_since) >= UNSETTLED_SAID_AFTER {
            self.say(Some(format!(
                "{}: the rule files keep changing; they are read once nothing about them changes for {} s, and the \
                 previous rules stay in force until then",
                self.dir.display(),
                SETTLED_AFTER.as_secs()
            )));
        }
    }

    /// Logs a problem once, and keeps it as the remark until it is resolved.
    fn say(&mut self, remark: Option<String>) {
        if let Some(said) = remark.as_ref().filter(|_| self.remark != remark) {
            tracing::error!("{said}");
        }
        self.remark = remark;
    }
}

/// Whether a file contains its version and nothing else.
fn is_bare(text: &str) -> bool {
    let is_said = |line: &str| !line.trim().is_empty() && !line.starts_with('#') && line.trim_end() != "---";
    let mut said = text.lines().filter(|line| is_said(line)).peekable();
    said.peek().is_some() && said.all(|line| line.starts_with("version:"))
}

/// Lists the rule files only, so that other changes in their directory do not delay reading.
fn seen(dir: &Path) -> FileStamps {
    let paths = load::rule_files(dir).unwrap_or_default();
    let seen = paths.into_iter().filter_map(|path| {
        let meta = std::fs::metadata(&path).ok()?;
        Some((path, meta.modified().ok(), meta.len()))
    });
    seen.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory of rule files, and a virtual clock.
    struct Bench {
        dir: tempfile::TempDir,
        files: RuleFiles,
        now: Instant,
    }

    impl Bench {
        fn new(text: &str) -> Bench {
            let dir = tempfile::tempdir().expect("a directory");
            fs::write(dir.path().join("r.yaml"), text).expect("writable");
            let now = Instant::now();
            let mut files = RuleFiles::new(dir.path().into(), now);
            assert!(files.look(true, now), "the first time they are read at once");
            Bench { dir, files, now }
        }

        fn write(&self, text: &str) {
            fs::write(self.dir.path().join("r.yaml"), text).expect("writable");
        }

        /// Advances the clock, then checks the files.
        fn look(&mut self, later_ms: u64) -> bool {
            self.now += Duration::from_millis(later_ms);
            self.files.look(false, self.now)
        }

        fn said(&self) -> &str {
            &self.files.documents().expect("read")["r.yaml"]
        }
    }

    #[test]
    fn a_file_that_is_being_written_is_not_read() {
        let mut bench = Bench::new("rules: []\n# whole");
        bench.write("rules:");
        assert!(!bench.look(1_000), "it has just changed");
        bench.write("rules: []\n# half and");
        assert!(!bench.look(1_000), "and again");
        assert!(!bench.files.look(true, bench.now), "nor if somebody asks");
        assert!(!bench.look(999) && bench.said().contains("whole"));
        assert!(bench.look(1), "it has settled");
        assert!(bench.said().contains("half and"));
        assert!(!bench.look(5_000), "nothing new");
        assert!(bench.files.look(true, bench.now), "but somebody asks");
    }

    #[test]
    fn files_that_never_rest_are_said_to_hold_up_reading() {
        let mut bench = Bench::new("rules: []\n# whole");
        for round in 0..20 {
            assert_eq!(bench.files.remark(), None);
            bench.write(&format!("rules: []\n# {}", "x".repeat(round)));
            assert!(!bench.look(500));
        }
        bench.write("rules: []\n# at last");
        assert!(!bench.look(500));
        assert!(bench.files.remark().is_some_and(|said| said.contains("keep changing")));
        assert!(!bench.look(500) && bench.look(500), "they rest");
        assert_eq!((bench.files.remark(), bench.said()), (None, "rules: []\n# at last"));
    }

    #[test]
    fn a_directory_that_lost_its_files_has_not_no_rules() {
        let mut bench = Bench::new("rules: []\n# one");
        let path = bench.dir.path().join("r.yaml");
        fs::remove_file(&path).expect("there");
        assert!(!bench.look(1_000) && bench.files.remark().is_none());
        assert!(!bench.look(1_000) && bench.files.remark().is_some_and(|said| said.contains("rules: []")));
        assert!(bench.said().contains("one"), "those of before");
        bench.write("rules: []\n# one");
        assert!(!bench.look(1_000) && !bench.look(1_000), "they say the same");
        assert_eq!(bench.files.remark(), None);
        // The directory itself disappears for a while.
        let aside = bench.dir.path().with_extension("aside");
        fs::rename(bench.dir.path(), &aside).expect("moved");
        assert!(!bench.look(1_000) && !bench.look(1_000) && bench.files.remark().is_some());
        fs::rename(&aside, bench.dir.path()).expect("moved back");
        assert!(!bench.look(1_000) && !bench.look(1_000) && bench.files.remark().is_none());
        assert!(bench.said().contains("one"));
    }

    #[test]
    fn a_file_that_was_cut_after_its_version_has_not_no_rules() {
        let mut bench = Bench::new("version: 1\nrules: []\n# one");
        bench.write("version: 1\n");
        assert!(!bench.look(1_000) && !bench.look(1_000) && bench.said().contains("one"));
        assert!(bench.files.remark().is_some_and(|said| said.starts_with("r.yaml contains nothing")));
        assert!(is_bare("# x\n\nversion: 1") && !is_bare("") && !is_bare("version: 1\nmetrics: {}"));
    }

    #[test]
    fn an_empty_directory_is_no_rules_from_the_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let now = Instant::now();
        let mut files = RuleFiles::new(dir.path().into(), now);
        assert!(files.look(true, now) && files.documents().is_some_and(Documents::is_empty));
        assert_eq!(files.remark(), None);
    }
}
