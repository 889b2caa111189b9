//! The rule set as documents: the wanted documents, changes to them, and the choice between files and the
//! store.
//!
//! Intuition: a rule set is compiled from documents, most of which are files. Where several processes share a
//! store, the store holds the wanted documents with a revision, and the files are only its first content. In
//! embedded mode the files are the wanted documents, and documents added over the API are kept beside them.
//! Invariant: a change names the revision it was made from, so two concurrent changes cannot undo one another.
//! Rejected: each process puts its own files in force (two processes with different files would replace each other's
//! rules again and again).

use super::ports::PortError;
use crate::pipeline::Diagnostic;
use crate::pipeline::document::Documents;

/// The wanted documents: those whose rules should be in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleDocuments {
    /// Grows with every change; 0 before the first.
    pub revision: u64,
    pub documents: Documents,
}

/// The storage of the wanted documents, which several processes share.
pub trait RuleDocumentStore: Send {
    /// Returns the revision. Makes one attempt.
    fn revision(&mut self) -> Result<u64, PortError>;
    /// Returns the wanted documents with their revision. Makes one attempt.
    fn read(&mut self) -> Result<RuleDocuments, PortError>;
    /// Replaces the wanted documents if they still have this revision. Returns the new revision, or `None` if the
    /// revision differs. Makes one attempt.
    fn write(&mut self, revision: u64, documents: &Documents) -> Result<Option<u64>, PortError>;
}

/// A change that a client requests over the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds or replaces a document. A document without a name is one rule, and is named after that rule's id.
    Put {
        name: Option<String>,
        text: String,
    },
    Remove {
        name: String,
    },
}

/// Reasons why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{} of the rules would be wrong", .0.len())]
    Bad(Vec<Diagnostic>),
    #[error("document `{0}` does not exist; GET /api/v1/rules/documents lists the documents")]
    Unknown(String),
    #[error("`{0}` is a file; change it there, it is watched")]
    File(String),
    #[error("another client changed the rules at the same time; read them and try again")]
    Crossed,
    #[error(
        "the compiled, compressed rules take {bytes} bytes, and the broker takes messages of {max} bytes; \
         raise its `max_payload`, or remove rules"
    )]
    TooLarge { bytes: usize, max: usize },
    #[error("cannot change the rules: {0}")]
    Away(String),
}

/// Callback for the result of a change: the number of the revision, or of the log record, that holds it.
pub(crate) type Changed = Box<dyn FnOnce(Result<u64, Refusal>) + Send>;

/// The interface to the component that keeps the rules of a process.
pub trait RulesApi: Send + Sync {
    fn change(&self, change: Change, reply: Changed);
    /// Returns the wanted documents as this process knows them.
    fn book(&self) -> RuleDocuments;
    /// Returns remarks for the operator, such as a difference between the files and the wanted documents, or
    /// a refused change.
    fn remarks(&self) -> Vec<String>;
    /// Whether the wanted documents were read since the process started.
    fn is_read(&self) -> bool;
}

/// The decision after the files were read, or after the wanted documents have changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Replaces the wanted documents with the files.
    Write(Documents),
    /// Keeps the wanted documents. The text, if any, tells the operator how the files differ from them.
    Keep(Option<String>),
}

/// Decides whether the files replace the wanted documents in `book`. They do if `book` is empty or `is_applying` is
/// set. A directory without files replaces nothing, because it may not be mounted yet.
pub(crate) fn decide(files: Option<&Documents>, book: &RuleDocuments, is_applying: bool) -> Decision {
    match files {
        Some(files) if *files == book.documents => Decision::Keep(None),
        Some(files) if files.is_empty() => Decision::Keep(is_applying.then(|| NO_FILES.into())),
        Some(files) if is_applying || book.documents.is_empty() => Decision::Write(files.clone()),
        Some(files) => Decision::Keep(Some(difference(files, &book.documents))),
        None => Decision::Keep(None),
    }
}

const NO_FILES: &str = "there are no rule files to apply; the rules wanted in the store stay in force (a file with `rules: []` would put none in force)";

fn difference(files: &Documents, wanted: &Documents) -> String {
    let differing = files.iter().filter(|(name, text)| wanted.get(*name) != Some(text)).map(|(name, _)| name);
    let missing = wanted.keys().filter(|name| !files.contains_key(*name));
    let names: Vec<&str> = differing.chain(missing).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let shown = names[..names.len().min(NAMES_SHOWN)].join(", ");
    format!(
        "the files differ from the rules wanted in the store, which stay in force ({shown}{more}); start with --apply to put the files in force"
    )
}

/// Maximum document names listed in a remark.
const NAMES_SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(of: &[(&str, &str)]) -> Documents {
        of.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect()
    }

    #[test]
    fn files_fill_an_empty_book_and_no_other() {
        let (empty, files) = (RuleDocuments::default(), documents(&[("a.yaml", "1")]));
        assert_eq!(decide(Some(&files), &empty, false), Decision::Write(files.clone()));
        let other = RuleDocuments { revision: 3, documents: documents(&[("a.yaml", "2"), ("b.yaml", "")]) };
        let Decision::Keep(Some(said)) = decide(Some(&files), &other, false) else { panic!("kept") };
        assert!(said.contains("(a.yaml, b.yaml)"), "{said}");
        assert_eq!(decide(Some(&files), &other, true), Decision::Write(files.clone()));
        let none = documents(&[]);
        assert_eq!(decide(Some(&none), &other, false), Decision::Keep(None));
        let Decision::Keep(Some(said)) = decide(Some(&none), &other, true) else { panic!("kept") };
        assert!(said.contains("rules: []"), "a directory without files empties no store: {said}");
        let same = RuleDocuments { revision: 1, documents: files.clone() };
        assert_eq!(decide(Some(&files), &same, true), Decision::Keep(None));
        assert_eq!(
            decide(None, &other, true),
            Decision::Keep(None),
            "a process without files changes nothing"
        );
    }
}
