//! The keeper of a process's rules: it watches the files and the store, and serves the API and SIGHUP.
//!
//! Intuition: one thread compares the wanted rule set with the set that it last sent to the workers. A worker
//! writes a set into the log if it differs from the set in force. Invariant: a rule set is compiled as a
//! whole or refused as a whole, and a refusal stays visible until a set is accepted. Rejected: file
//! notifications of the operating system (editors replace files, and network mounts send no notifications;
//! checking a directory each second costs nothing).

use super::rule_files::RuleFiles;
use crate::core::record::Control;
use crate::core::rule::RuleSet;
use crate::core::vocab::partition::Partition;
use crate::driver::command::{Command, Sender};
use crate::driver::metrics::OwnerMetrics;
use crate::driver::port_error::chain;
use crate::driver::ports::{Intake, PortError};
use crate::driver::rule_documents::{
    Change, Changed, Decision, Refusal, RuleDocumentStore, RuleDocuments, RulesApi, decide,
};
use crate::pipeline::Diagnostic;
use crate::pipeline::document::{self, Documents};
use crate::wire::control;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two checks of files and store.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// All documents of the store are read this often even if its revision is unchanged, because another program may have
/// changed the documents without incrementing the revision.
const READ_EVERY: Duration = Duration::from_secs(30);

/// Name prefix of documents that were added over the API, in a process whose files are the wanted documents.
pub(crate) const ADDED: &str = "api:";

/// A message to the keeper.
enum KeeperOrder {
    /// Reads the files again, even if they look unchanged.
    Reload,
    Change(Change, Changed),
}

/// The state of the keeper that other threads may read.
#[derive(Debug, Default)]
struct Known {
    book: RuleDocuments,
    is_read: bool,
    /// How the files differ from the wanted documents.
    difference: Option<String>,
    /// Why the newest documents are not in force.
    refused: Option<String>,
    /// Why the current files are not in effect.
    unread: Option<String>,
}

/// A handle of the keeper. The keeper ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct RulesKeeper {
    said: mpsc::Sender<KeeperOrder>,
    known: Arc<Mutex<Known>>,
}

/// The rule set that is wanted when a process starts. Owners wait for it, because a log that is read without
/// rules raises no alerts.
#[derive(Debug, Clone, Default)]
pub struct First(Arc<(Mutex<Option<RuleSet>>, Condvar)>);

/// Maximum time that an owner waits for the first rule set, in case the store answers others but not the
/// keeper. Afterwards the owner continues with the rules in force.
const FIRST_WITHIN: Duration = Duration::from_secs(5);

/// Time between two attempts to read the store, until the first one succeeds.
const FIRST_EVERY: Duration = Duration::from_millis(50);

impl First {
    /// Waits for the first rule set. Returns `None` if it is still unknown or has no documents; the rules in
    /// force then stay.
    pub fn wait(&self) -> Option<RuleSet> {
        let known = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(known, FIRST_WITHIN, |known| known.is_none());
        let (known, _) = waited.unwrap_or_else(PoisonError::into_inner);
        known.clone().filter(|rules| !rules.files.is_empty())
    }

    fn say(&self, rules: RuleSet) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(rules);
        self.0.1.notify_all();
    }
}

/// The components of a keeper.
pub struct KeeperParts {
    pub first: First,
    /// The directory of the files, if there are any.
    pub dir: Option<PathBuf>,
    /// Whether the files take precedence over all other documents.
    pub is_applying: bool,
    /// The documents that several processes share. Without a store, the files are the wanted documents.
    pub store: Option<Box<dyn RuleDocumentStore>>,
    /// The documents in force where there is no store.
    pub book: RuleDocuments,
    pub workers: Vec<Sender>,
    pub owner_metrics: Arc<OwnerMetrics>,
    /// The intake of the log, which limits the bytes of a record.
    pub intake: Arc<dyn Intake>,
}

impl std::fmt::Debug for KeeperParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Returns the wanted documents of a single process: its files and, unless `is_applying`, the documents that
/// were added over the API before. Without files, the documents in force stay.
pub(crate) fn own_documents(files: Option<Documents>, in_force: &RuleSet, is_applying: bool) -> Documents {
    let before = || in_force.files.iter().cloned();
    let Some(mut documents) = files else { return before().collect() };
    if !is_applying {
        documents.extend(before().filter(|(name, _)| name.starts_with(ADDED)));
    }
    documents
}

impl RulesKeeper {
    /// Starts the keeper.
    pub fn open(parts: KeeperParts) -> std::io::Result<RulesKeeper> {
        let (said, heard) = mpsc::channel();
        let known = Arc::new(Mutex::new(Known { book: parts.book.clone(), ..Known::default() }));
        let files = parts.dir.clone().map(|dir| RuleFiles::new(dir, Instant::now()));
        let keeper = Keeper { files, told: None, read_at: None, known: known.clone(), parts };
        std::thread::Builder::new().name("rules_keeper".into()).spawn(move || keeper.run(&heard))?;
        Ok(RulesKeeper { said, known })
    }

    /// Makes the keeper read the files again now.
    pub fn reload(&self) {
        // The send cannot fail, because the keeper lives as long as any handle.
        let _ = self.said.send(KeeperOrder::Reload);
    }
}

impl RulesApi for RulesKeeper {
    fn change(&self, change: Change, reply: Changed) {
        let _ = self.said.send(KeeperOrder::Change(change, reply));
    }

    fn book(&self) -> RuleDocuments {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).book.clone()
    }

    fn remarks(&self) -> Vec<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        [&known.unread, &known.refused, &known.difference].into_iter().flatten().cloned().collect()
    }

    fn is_read(&self) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).is_read
    }
}

/// The name of the store's rules in the list of outages.
const RULES: &str = "rules in the store";

struct Keeper {
    parts: KeeperParts,
    known: Arc<Mutex<Known>>,
    files: Option<RuleFiles>,
    /// The rule set that was last sent to the workers.
    told: Option<RuleSet>,
    read_at: Option<Instant>,
}

impl Keeper {
    fn run(mut self, heard: &Receiver<KeeperOrder>) {
        let mut is_anew = true;
        loop {
            self.look(is_anew);
            let is_read = self.read_at.is_some() || self.parts.store.is_none();
            self.know(|known| known.is_read |= is_read);
            let every = if is_read { LOOK_EVERY } else { FIRST_EVERY };
            is_anew = match heard.recv_timeout(every) {
                Ok(KeeperOrder::Reload) => true,
                Ok(KeeperOrder::Change(change, reply)) => {
                    let was_refused = self.has_refused();
                    reply(self.change(change));
                    // Refused files are checked again, because they may compile together with the changed documents.
                    was_refused
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
        }
    }

    /// Checks files and store. With `is_anew`, unchanged files count as changed.
    fn look(&mut self, is_anew: bool) {
        let is_changed = self.look_at_files(is_anew);
        match self.parts.store.is_some() {
            true => {
                let looked = self.look_at_store(is_changed);
                let outages = &self.parts.owner_metrics.outages;
                match looked {
                    Ok(()) => outages.end(RULES),
                    // The rules in force stay, and the next check tries again.
                    Err(error @ PortError::Unreadable { .. }) => {
                        outages.begin(RULES, "Redis", &chain(&error));
                    }
                    Err(error) => {
                        tracing::debug!(error = %chain(&error), "the rules in the store cannot be read now");
                    }
                }
            }
            false if is_changed => {
                let files = self.documents().cloned().unwrap_or_default();
                let added = self.book().documents.into_iter().filter(|(name, _)| name.starts_with(ADDED));
                let documents = files.into_iter().chain(added).collect();
                self.compile_and_put(documents);
            }
            false => {}
        }
    }

    /// Checks the files. Returns whether their documents changed, or count as changed because `is_anew`
    /// requests a reload.
    fn look_at_files(&mut self, is_anew: bool) -> bool {
        let Some(files) = &mut self.files else { return false };
        let is_new = files.look(is_anew, Instant::now());
        let unread = files.remark().map(String::from);
        self.know(|known| known.unread = unread);
        is_new
    }

    /// Returns the documents of the files.
    fn documents(&self) -> Option<&Documents> {
        self.files.as_ref().and_then(RuleFiles::documents)
    }

    fn look_at_store(&mut self, is_changed: bool) -> Result<(), PortError> {
        let is_due = self.read_at.is_none_or(|at| at.elapsed() >= READ_EVERY);
        let (known, record_bytes_max) = (self.book().revision, self.parts.intake.record_bytes_max());
        let Some(store) = &mut self.parts.store else { return Ok(()) };
        if !is_changed && !is_due && store.revision()? == known {
            return Ok(());
        }
        let mut book = store.read()?;
        self.read_at = Some(Instant::now());
        let files = self.files.as_ref().and_then(RuleFiles::documents);
        let difference = match decide(files, &book, self.parts.is_applying) {
            Decision::Keep(difference) => difference,
            Decision::Write(documents) => {
                // Invalid documents must not get into the store.
                if let Err(refusal) = compiled(&documents, record_bytes_max) {
                    self.note_refused(&refusal);
                    return Ok(());
                }
                match store.write(book.revision, &documents)? {
                    Some(revision) => book = RuleDocuments { revision, documents },
                    // Another process wrote first; the next check reads what it wrote.
                    None => {
                        self.read_at = None;
                        return Ok(());
                    }
                }
                None
            }
        };
        self.note_difference(difference);
        if !book.documents.is_empty() {
            self.know(|known| known.book.revision = book.revision);
            self.compile_and_put(book.documents);
        }
        self.parts.first.say(self.told.clone().unwrap_or_default());
        Ok(())
    }

    fn compile_and_put(&mut self, documents: Documents) {
        match compiled(&documents, self.parts.intake.record_bytes_max()) {
            Ok(rules) => self.put_in_force(documents, rules),
            Err(refusal) => self.note_refused(&refusal),
        }
    }

    /// Sends the compiled rules to the workers, unless the workers already have them.
    fn put_in_force(&mut self, documents: Documents, rules: RuleSet) {
        self.know(|known| (known.book.documents, known.refused) = (documents, None));
        if self.told.as_ref() == Some(&rules) {
            return;
        }
        let workers = &self.parts.workers;
        for (partition, worker) in Partition::logs(Partition::count_of(workers.len())).zip(workers) {
            let index = partition.index;
            let reply = Box::new(move |result: Result<u64, String>| match result {
                Ok(0) => {}
                Ok(seq) => tracing::info!(partition = index, seq, "new rules in force"),
                Err(error) => {
                    tracing::error!(partition = index, %error, "the new rules could not be written to the log");
                }
            });
            // A send fails only while the process is stopping, because workers end only then.
            let _ = worker.send(Command::Rules(Box::new(rules.within(partition)), reply));
        }
        self.told = Some(rules);
    }

    /// Makes a change that was requested over the API. Returns the new revision.
    fn change(&mut self, change: Change) -> Result<u64, Refusal> {
        let away = |error: PortError| Refusal::Away(chain(&error));
        let mut book = match &mut self.parts.store {
            Some(store) => store.read().map_err(away)?,
            None => self.book(),
        };
        let prefix = if self.parts.store.is_some() { "" } else { ADDED };
        book.documents = changed(book.documents, change, prefix)?;
        let rules = compiled(&book.documents, self.parts.intake.record_bytes_max())?;
        let revision = match &mut self.parts.store {
            Some(store) => {
                store.write(book.revision, &book.documents).map_err(away)?.ok_or(Refusal::Crossed)?
            }
            None => book.revision + 1,
        };
        self.know(|known| known.book.revision = revision);
        self.put_in_force(book.documents, rules);
        Ok(revision)
    }

    fn book(&self) -> RuleDocuments {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).book.clone()
    }

    /// Returns whether a set of documents is refused now.
    fn has_refused(&self) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).refused.is_some()
    }

    fn know(&self, learn: impl FnOnce(&mut Known)) {
        learn(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn note_difference(&self, difference: Option<String>) {
        self.know(|known| {
            if let Some(said) = difference.as_ref().filter(|_| known.difference != difference) {
                tracing::warn!("{said}");
            }
            known.difference = difference;
        });
    }

    /// Records and logs a refusal. A set is refused as a whole, and the old one stays in force.
    fn note_refused(&self, refusal: &Refusal) {
        let said = format!("the new rules are refused, the old ones stay in force: {}", words(refusal));
        self.know(|known| {
            if known.refused.as_ref() != Some(&said) {
                self.parts.owner_metrics.rules_refused.add(1);
                tracing::error!("{said}");
            }
            known.refused = Some(said);
        });
    }
}

/// Compiles a rule set. A set that does not fit into one record of the log is refused.
fn compiled(documents: &Documents, record_bytes_max: Option<usize>) -> Result<RuleSet, Refusal> {
    let rules = document::compile(documents).map_err(Refusal::Bad)?;
    let Some(max) = record_bytes_max else { return Ok(rules) };
    let record = control::encode(&Control::Rules(Box::new(rules.clone())));
    let bytes = control::packed(record, max).len();
    if bytes > max { Err(Refusal::TooLarge { bytes, max }) } else { Ok(rules) }
}

/// Formats a refusal with its first error.
fn words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Bad(wrong) => {
            let first = wrong.iter().find(|one: &&Diagnostic| one.is_error);
            let first = first.map(|one| format!("{}:{}:{}: {}", one.file, one.line, one.column, one.message));
            format!("{refusal}, first {}", first.unwrap_or_default())
        }
        other => other.to_string(),
    }
}

/// Returns the documents after a change. With a prefix, only documents whose name begins with it can be
/// changed.
fn changed(mut documents: Documents, change: Change, prefix: &str) -> Result<Documents, Refusal> {
    match change {
        Change::Put { name, text } => {
            let rule = document::of_rule(&text);
            let (name, text) = match (name, rule) {
                (Some(name), Some((_, document))) => (name, document),
                (Some(name), None) => (name, text),
                (None, Some((id, document))) => (id, document),
                (None, None) => {
                    let hint = "send one rule as JSON with `id` and `expr`, or a document with ?name=";
                    return Err(Refusal::Bad(vec![unnamed(hint)]));
                }
            };
            documents.insert(format!("{prefix}{name}"), text);
        }
        Change::Remove { name } => {
            // Lists show added documents with their prefix, so a name is accepted with and without it.
            let stored = [Some(format!("{prefix}{name}")), name.starts_with(prefix).then(|| name.clone())];
            let removed = stored.into_iter().flatten().find_map(|key| documents.remove(&key));
            if removed.is_none() {
                let is_file = documents.contains_key(&name);
                return Err(if is_file { Refusal::File(name) } else { Refusal::Unknown(name) });
            }
        }
    }
    Ok(documents)
}

fn unnamed(hint: &str) -> Diagnostic {
    Diagnostic::of_file("the request", "the body is not a rule, and a document needs a name", Some(hint))
}
