//! A replay of the export of several partitions: each log has an engine of its own.
//!
//! Intuition: partitions know nothing of each other, live or in replay. So the export is taken apart
//! again, each part is replayed like any log, and the outputs are put together: alerts in the order
//! of their time, and of the partition where that is equal.

use crate::core::partition::Partition;
use crate::driver::file::reader;
use crate::wire::line::OfPartition;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Which deployment an input is an export of, if it is one of several partitions.
pub fn of_files(files: &[PathBuf]) -> Result<Option<u32>> {
    let Some(first) = files.first() else { return Ok(None) };
    let of = if first == Path::new("-") {
        // Looked at without being taken: whoever reads next begins with it.
        OfPartition::of_line(std::io::stdin().lock().fill_buf()?)
    } else {
        let mut line = Vec::new();
        reader::open(first)?.into_lines().read_until(b'\n', &mut line)?;
        OfPartition::of_line(&line)
    };
    Ok(of.map(|of| of.partitions).filter(|count| *count > 1))
}

/// An export, taken apart.
#[derive(Debug)]
pub struct Parts {
    dir: tempfile::TempDir,
    count: u32,
}

impl Parts {
    /// Writes the lines of each partition to a file of its own.
    pub fn split(files: &[PathBuf], count: u32) -> Result<Parts> {
        let dir = tempfile::tempdir().context("cannot make a temporary directory; is there room?")?;
        let parts = Parts { dir, count };
        let create = |index| Ok(BufWriter::new(File::create(parts.path("log", index))?));
        let mut outs = (0..=count).map(create).collect::<Result<Vec<_>>>()?;
        for path in files {
            let mut lines = reader::open(path)?.into_lines();
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line)? > 0 {
                // A line of no partition is of the first: it is refused there, and counted.
                let index = OfPartition::of_line(&line).map_or(0, |of| of.partition.min(count));
                outs[index as usize].write_all(&line)?;
                line.clear();
            }
        }
        outs.iter_mut().try_for_each(|out| out.flush()).context("cannot write a temporary file")?;
        Ok(parts)
    }

    /// The aggregate last.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        Partition::logs(self.count)
    }

    /// The file of one kind and partition: `log`, or an output.
    pub fn path(&self, kind: &str, index: u32) -> PathBuf {
        self.dir.path().join(format!("{kind}-{index}.ndjson"))
    }

    /// Puts the outputs of one kind together, one partition after the other.
    pub fn join(&self, kind: &str, out: &mut dyn Write) -> Result<()> {
        for partition in self.partitions() {
            std::io::copy(&mut File::open(self.path(kind, partition.index))?, out)?;
        }
        Ok(out.flush()?)
    }

    /// Puts alerts together in the order of their time.
    pub fn join_by_time(&self, kind: &str, out: &mut dyn Write) -> Result<()> {
        #[derive(Deserialize)]
        struct At {
            at: String,
        }
        let mut lines = Vec::new();
        for partition in self.partitions() {
            for line in BufReader::new(File::open(self.path(kind, partition.index))?).lines() {
                let line = line?;
                let at: At = serde_json::from_str(&line).context("an alert that was just written")?;
                let at = crate::wire::time::parse(at.at.as_bytes());
                lines.push((at, line));
            }
        }
        // Stable: what happened at one time stays in the order of the partitions.
        lines.sort_by_key(|(at, _)| *at);
        lines.iter().try_for_each(|(_, line)| writeln!(out, "{line}"))?;
        Ok(out.flush()?)
    }
}
