//! Stores in a file how far each input file is published, so that a later run can resume there.

use super::text;
use anyhow::{Context, Result, anyhow};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The first line of each file that is not acknowledged yet.
#[derive(Debug)]
pub(crate) struct Positions {
    kept_in: PathBuf,
    lines: BTreeMap<String, u64>,
}

impl Positions {
    pub(crate) fn read(kept_in: &Path) -> Result<Positions> {
        let text = match kept_in.try_exists() {
            Ok(false) => "{}".into(),
            _ => text::read(kept_in)?,
        };
        let lines = serde_json::from_str(&text);
        let lines = lines.map_err(|_| {
            let path = kept_in.display();
            anyhow!(
                "{path} holds no positions as --position keeps them; name another file, or remove this one"
            )
        })?;
        let positions = Positions { kept_in: kept_in.into(), lines };
        // This write precedes all sending: if positions could not be saved, a later run would send events
        // again.
        positions.write()?;
        Ok(positions)
    }

    pub(crate) fn of(&self, path: &Path) -> Option<u64> {
        self.lines.get(&path.display().to_string()).copied()
    }

    /// Saves a position atomically: a kill during the write leaves the older file intact.
    pub(crate) fn note(&mut self, path: &Path, line: u64) -> Result<()> {
        self.lines.insert(path.display().to_string(), line);
        self.write()
    }

    fn write(&self) -> Result<()> {
        let new = self.kept_in.with_extension("new");
        let text = serde_json::to_string(&self.lines)?;
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &self.kept_in))
            .with_context(|| format!("cannot write {}", self.kept_in.display()))
    }
}
