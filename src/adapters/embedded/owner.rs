//! The store of a data dir, as its owner writes it.
//!
//! Intuition: the lock on the file admits one process, so the lease is always free, and no other owner can fence
//! this one. The only part of the owner protocol that is still needed is the poison guard, because a record that
//! crashes the process would crash it again after each restart. Invariant: the guard's numbers about a record are
//! durable before the record is applied.

use super::{Embedded, META};
use crate::core::measure::pane::Shape;
use crate::core::{Span, Timestamp};
use crate::driver::outage::{Outages, STORE};
use crate::driver::port_error::chain;
use crate::driver::ports::{
    Answer, Asked, Checkpoint, Commit, Fence, OwnerStore, PortError, Shown, Store, WindowAt, WindowRow,
};
use redb::Table;

/// Entries of `META` for the poison guard. `TRIES` counts the starts since a process last ran well or ended normally.
/// `APPLYING` is the record that is being applied, or 0. `SUSPECT` is the record during which the process died last.
/// `DEATHS` counts the deaths in a row during that record.
pub(super) const TRIES: &str = "tries";
const APPLYING: &str = "applying";
const SUSPECT: &str = "suspect";
const DEATHS: &str = "deaths";

/// Records are kept this long for export. Records after the newest snapshot are kept in any case.
const LOG_KEPT: Span = Span::from_hours(24 * 7);

/// The store of a data dir.
#[derive(Debug)]
pub struct EmbeddedStore {
    data: Embedded,
    outages: Outages,
}

impl EmbeddedStore {
    pub fn new(data: Embedded, outages: Outages) -> EmbeddedStore {
        EmbeddedStore { data, outages }
    }

    fn guard<T>(
        &self,
        work: impl FnOnce(&mut Table<'_, &'static str, u64>) -> Result<T, redb::Error>,
    ) -> Result<T, PortError> {
        self.data.write(|transaction| work(&mut transaction.open_table(META)?))
    }
}

impl Store for EmbeddedStore {
    fn checkpoint(&self) -> Result<Checkpoint, PortError> {
        self.data.checkpoint()
    }

    fn windows(&self, wanted: &[(WindowAt, Shape)]) -> Result<Vec<Option<WindowRow>>, PortError> {
        self.data.windows(wanted)
    }
}

impl OwnerStore for EmbeddedStore {
    type Prepared<'c> = &'c Commit;

    fn is_read_elsewhere(&self) -> bool {
        false
    }

    /// Writes nothing: the commit contains the sealed windows, and the engine in this process serves the open ones.
    fn show(&mut self, _: &Fence, _: &Shown<'_>) -> Result<Answer, PortError> {
        Ok(Answer::Done)
    }

    fn prepare<'c>(&mut self, _: &Fence, commit: &'c Commit) -> Result<&'c Commit, PortError> {
        Ok(commit)
    }

    /// Writes the commit. A failure, such as a full disk, is noted as an outage. The next successful commit ends it.
    fn send(&mut self, commit: &&Commit) -> Result<Answer, PortError> {
        match self.data.commit(commit) {
            Ok(()) => {
                self.outages.end(STORE);
                Ok(Answer::Done)
            }
            Err(error) => {
                self.outages.begin(STORE, "the data dir", &chain(&error));
                tracing::debug!(error = %chain(&error), "cannot commit; trying again");
                Ok(Answer::Failed)
            }
        }
    }

    fn acquire(&mut self) -> Result<Option<Fence>, PortError> {
        self.guard(|meta| {
            let number = |meta: &Table<'_, _, _>, name| Ok::<_, redb::Error>(get(meta, name)?.unwrap_or(0));
            let tries = number(meta, TRIES)?.saturating_add(1);
            let (applying, suspect) = (number(meta, APPLYING)?, number(meta, SUSPECT)?);
            let deaths = match applying {
                0 => 0,
                seq if seq == suspect => number(meta, DEATHS)?.saturating_add(1),
                _ => 1,
            };
            for (name, value) in [(TRIES, tries), (APPLYING, 0), (SUSPECT, applying), (DEATHS, deaths)] {
                meta.insert(name, value)?;
            }
            Ok(Some(Fence::default()))
        })
    }

    fn renew(&mut self, _: &Fence) -> Result<bool, PortError> {
        Ok(true)
    }

    fn attempt(&mut self, _: &Fence, seq: u64) -> Result<u32, PortError> {
        self.guard(|meta| {
            meta.insert(APPLYING, seq)?;
            let is_suspect = seq > 0 && get(meta, SUSPECT)? == Some(seq);
            let deaths = if is_suspect { get(meta, DEATHS)?.unwrap_or(0) } else { 0 };
            Ok(u32::try_from(deaths).unwrap_or(u32::MAX))
        })
    }

    fn calm(&mut self, _: &Fence) {
        if let Err(error) = self.rest() {
            tracing::debug!(error = %chain(&error), "cannot note that the process runs well");
        }
    }

    /// Writes nothing: the engine in this process serves silences and maintenance windows.
    fn show_asked(&mut self, _: Asked, _: &[(String, String)]) -> Result<(), PortError> {
        Ok(())
    }

    fn release(&mut self, _: &Fence) -> Result<(), PortError> {
        self.rest()
    }

    fn expire(&mut self, now: Timestamp) -> Result<(), PortError> {
        let snapshot_at = self.data.snapshot_at()?;
        self.data.expire(now)?;
        self.data.trim(snapshot_at, now - LOG_KEPT)
    }
}

impl EmbeddedStore {
    /// Forgets the deaths of earlier processes.
    fn rest(&self) -> Result<(), PortError> {
        self.guard(|meta| {
            [TRIES, APPLYING, SUSPECT, DEATHS].iter().try_for_each(|name| {
                meta.insert(name, 0)?;
                Ok(())
            })
        })
    }
}

fn get(meta: &Table<'_, &'static str, u64>, name: &str) -> Result<Option<u64>, redb::Error> {
    use redb::ReadableTable;
    Ok(meta.get(name)?.map(|value| value.value()))
}
