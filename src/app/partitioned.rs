//! Replay of the export of several partitions: each log has its own engine.
//!
//! Intuition: partitions share no state, neither live nor in a replay. So the export is split by partition,
//! each part is replayed like any log, and the outputs are combined. Alerts are ordered by time, and by
//! partition where the time is equal.
//! Invariant: parts and intermediate outputs are unnamed temporary files, so memory is bounded.

use crate::core::vocab::limits::PARTITIONS_MAX;
use crate::core::vocab::partition::Partition;
use crate::driver::file::input::{self, Finding, Input};
use crate::driver::file::sort::{OriginsWriter, Sorter};
use crate::wire::ndjson::OfPartition;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufWriter, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Returns the number of partitions of the deployment if the input is an export of several.
pub(crate) fn count(input: &mut Input) -> Result<Option<u32>> {
    let count = OfPartition::of_line(input.peek()).map_or(1, |of| of.partitions);
    if count > PARTITIONS_MAX {
        bail!("the input is an export of {count} partitions; at most {PARTITIONS_MAX} are possible");
    }
    Ok((count > 1).then_some(count))
}

/// An export, split by partition.
#[derive(Debug)]
pub(crate) struct SplitExport {
    /// Unusual but harmless findings about the inputs.
    pub remarks: Vec<Finding>,
    /// Errors of the inputs.
    pub troubles: Vec<Finding>,
    count: u32,
    logs: Vec<Input>,
}

impl SplitExport {
    /// Writes the lines of each partition to a file of its own.
    pub(crate) fn split(first: Input, rest: &[PathBuf], count: u32) -> Result<SplitExport> {
        let mut split = Split::new(count).context(NO_ROOM)?;
        split.add(first)?;
        for path in rest {
            match input::open(path) {
                Ok(input) => split.add(input)?,
                Err(error) => split.troubles.push(error.finding(path)?),
            }
        }
        let files: Arc<[PathBuf]> = split.files.into();
        let logs = split.logs.into_iter().map(|log| log.finish(files.clone()));
        let logs = logs.collect::<io::Result<_>>().context(NO_ROOM)?;
        Ok(SplitExport { remarks: split.remarks, troubles: split.troubles, count, logs })
    }

    /// Returns the log of each partition, the aggregate partition's last.
    pub(crate) fn into_logs(self) -> impl Iterator<Item = (Partition, Input)> {
        Partition::logs(self.count).zip(self.logs)
    }
}

const NO_ROOM: &str = "cannot write a temporary file; is there room in the temp dir?";

/// The log of one partition while it is written to a file.
#[derive(Debug)]
struct Log {
    out: BufWriter<File>,
    origins: OriginsWriter,
}

impl Log {
    fn new() -> io::Result<Log> {
        Ok(Log { out: BufWriter::new(tempfile::tempfile()?), origins: OriginsWriter::new()? })
    }

    fn put(&mut self, line: &[u8], file: u32, number: u64) -> io::Result<()> {
        self.out.write_all(line)?;
        self.out.write_all(b"\n")?;
        self.origins.note(file, number)
    }

    fn finish(self, files: Arc<[PathBuf]>) -> io::Result<Input> {
        let mut file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let size = file.stream_position()?;
        file.rewind()?;
        Ok(Input::of_file(file, size).with_origins(self.origins.finish(files)?))
    }
}

/// The inputs that were split so far.
struct Split {
    count: u32,
    files: Vec<PathBuf>,
    logs: Vec<Log>,
    remarks: Vec<Finding>,
    troubles: Vec<Finding>,
}

impl Split {
    fn new(count: u32) -> io::Result<Split> {
        let logs = Partition::logs(count).map(|_| Log::new()).collect::<io::Result<_>>()?;
        Ok(Split { count, files: Vec::new(), logs, remarks: Vec::new(), troubles: Vec::new() })
    }

    fn add(&mut self, mut input: Input) -> Result<()> {
        let file = self.files.len() as u32;
        self.files.push(input.path().into());
        self.remarks.append(&mut input.remarks);
        let mut lines = input.into_lines();
        while let Some((number, line)) = lines.next_line() {
            // A line without a partition is given to the first one, where it is refused and counted.
            let index = OfPartition::of_line(line).map_or(0, |of| of.partition.min(self.count));
            self.logs[index as usize].put(line, file, number).context(NO_ROOM)?;
        }
        self.troubles.extend(lines.finish());
        Ok(())
    }
}

/// Alerts that are written one partition after the other, sorted by time.
#[derive(Debug, Default)]
pub(crate) struct AlertsByTime {
    partition: u32,
    lines: u64,
    begun: Vec<u8>, // an incomplete line
    sorter: Sorter,
}

impl AlertsByTime {
    /// Selects the partition of everything that is written from now on.
    pub(crate) fn of(&mut self, partition: Partition) -> &mut AlertsByTime {
        self.partition = partition.index;
        self
    }

    /// Writes all alerts to `out`, in order.
    pub(crate) fn finish(self, out: &mut dyn Write) -> io::Result<()> {
        self.sorter.finish(out, &mut |_| Ok(()))?;
        out.flush()
    }

    fn push(&mut self, line: &[u8]) -> io::Result<()> {
        #[derive(Deserialize)]
        struct At<'a> {
            at: &'a str,
        }
        let parsed: At<'_> = serde_json::from_slice(line)?;
        let at = crate::wire::time::parse(parsed.at.as_bytes());
        let at = at.ok_or_else(|| io::Error::other("an alert that was just written has no time"))?;
        self.lines += 1;
        self.sorter.push((at, self.partition, self.lines), line)
    }
}

impl Write for AlertsByTime {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pieces = bytes.split_inclusive(|byte| *byte == b'\n');
        pieces.try_for_each(|piece| {
            let Some(end) = piece.strip_suffix(b"\n") else {
                self.begun.extend_from_slice(piece);
                return Ok(());
            };
            let mut line = std::mem::take(&mut self.begun);
            line.extend_from_slice(end);
            self.push(&line)
        })?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_come_in_the_order_of_their_time_then_of_their_partition() {
        let mut alerts = AlertsByTime::default();
        for (index, minutes) in [(0, [1, 5]), (1, [1, 3])] {
            let out = alerts.of(Partition { index, count: 2 });
            for minute in minutes {
                writeln!(out, r#"{{"at":"2026-11-01T00:0{minute}:00Z","p":{index}}}"#).expect("room");
            }
        }
        let mut text = Vec::new();
        alerts.finish(&mut text).expect("room");
        let text = String::from_utf8(text).expect("text");
        let order: Vec<&str> = text.lines().map(|line| &line[22..]).collect();
        assert_eq!(order, ["1:00Z\",\"p\":0}", "1:00Z\",\"p\":1}", "3:00Z\",\"p\":1}", "5:00Z\",\"p\":0}"]);
    }

    #[test]
    fn an_export_of_absurdly_many_partitions_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = r#"{"seq":1,"partition":0,"partitions":4000000000,"ingest_time":"2026-11-01T00:00:00Z"}"#;
        std::fs::write(file.path(), text).expect("room");
        let mut input = input::open(file.path()).expect("opened");
        assert!(count(&mut input).is_err_and(|error| error.to_string().contains("at most 256")));
    }
}
