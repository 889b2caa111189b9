//! Lines sorted by time, in bounded memory (external merge sort).
//!
//! Intuition: lines are gathered in memory up to `RUN_BYTES`, then sorted and written to disk as a run. At the end
//! all runs are merged.
//! Invariant: lines of equal time keep the order of files, then of lines. Temporary files are unnamed, so
//! none is left behind, however the process ends. Rejected: the positions of all lines in memory, because a
//! file of a few megabytes can inflate to billions of lines.

use crate::core::Timestamp;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Maximum bytes buffered before a sorted run is written to disk. Merging needs 8 KiB per run, so 1 TB of input
/// (64,000 runs) needs 512 MiB.
const RUN_BYTES: usize = 16 << 20;

/// The sort key of a line: its time, the number of its file, and its number there.
pub(crate) type Rank = (Timestamp, u32, u64);

/// Bytes before each line of a run: its rank (time, file, line number) and its length.
const HEAD_BYTES: usize = 8 + 4 + 8 + 4;

/// Gathers lines and returns them in order.
#[derive(Debug)]
pub(crate) struct Sorter {
    run_bytes: usize,
    text: Vec<u8>,
    lines: Vec<(Rank, Range<usize>)>, // rank of each line, and its bytes in `text`
    spilled: Option<Spilled>,
}

/// Runs in a file, one after the other.
#[derive(Debug)]
struct Spilled {
    file: File,
    length: u64,
    runs: Vec<Range<u64>>,
}

impl Default for Sorter {
    fn default() -> Sorter {
        Sorter::new(RUN_BYTES)
    }
}

impl Sorter {
    fn new(run_bytes: usize) -> Sorter {
        Sorter { run_bytes, text: Vec::new(), lines: Vec::new(), spilled: None }
    }

    /// Adds a line, without a line end.
    pub(crate) fn push(&mut self, rank: Rank, line: &[u8]) -> io::Result<()> {
        let held = self.text.len() + self.lines.len() * size_of::<(Rank, Range<usize>)>();
        if held + line.len() > self.run_bytes && !self.lines.is_empty() {
            self.spill()?;
        }
        let begin = self.text.len();
        self.text.extend_from_slice(line);
        self.lines.push((rank, begin..self.text.len()));
        Ok(())
    }

    /// Sorts the lines in memory and writes them as a run.
    fn spill(&mut self) -> io::Result<()> {
        self.lines.sort_unstable_by_key(|(rank, _)| *rank);
        let mut spilled = match self.spilled.take() {
            Some(spilled) => spilled,
            None => Spilled { file: tempfile::tempfile()?, length: 0, runs: Vec::new() },
        };
        let (begin, mut length) = (spilled.length, 0);
        let mut out = BufWriter::new(&spilled.file);
        for ((time, file, number), place) in &self.lines {
            out.write_all(&time.ms().to_le_bytes())?;
            out.write_all(&file.to_le_bytes())?;
            out.write_all(&number.to_le_bytes())?;
            out.write_all(&(place.len() as u32).to_le_bytes())?; // a line has 32 MiB at most
            out.write_all(&self.text[place.clone()])?;
            length += (HEAD_BYTES + place.len()) as u64;
        }
        out.flush()?;
        drop(out);
        spilled.length += length;
        spilled.runs.push(begin..spilled.length);
        self.spilled = Some(spilled);
        self.text.clear();
        self.lines.clear();
        Ok(())
    }

    /// Writes all lines in order, each with a line end, and passes the rank of each to `tell`.
    pub(crate) fn finish(
        mut self,
        out: &mut dyn Write,
        tell: &mut dyn FnMut(Rank) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.spilled.is_some() {
            self.spill()?;
        }
        if let Some(spilled) = &self.spilled {
            return merge(spilled, out, tell);
        }
        self.lines.sort_unstable_by_key(|(rank, _)| *rank);
        for (rank, place) in &self.lines {
            tell(*rank)?;
            out.write_all(&self.text[place.clone()])?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// Merges the sorted runs and writes the lines in ascending order of rank.
fn merge(
    spilled: &Spilled,
    out: &mut dyn Write,
    tell: &mut dyn FnMut(Rank) -> io::Result<()>,
) -> io::Result<()> {
    let run = |places: &Range<u64>| Run::new(&spilled.file, places);
    let mut runs: Vec<Run<'_>> = spilled.runs.iter().map(run).collect();
    let mut least = BinaryHeap::with_capacity(runs.len());
    for (index, run) in runs.iter_mut().enumerate() {
        if let Some((rank, length)) = run.head()? {
            least.push(Reverse((rank, index, length)));
        }
    }
    while let Some(Reverse((rank, index, length))) = least.pop() {
        tell(rank)?;
        let run = &mut runs[index];
        io::copy(&mut (&mut run.0).take(length.into()), out)?;
        out.write_all(b"\n")?;
        if let Some((rank, length)) = run.head()? {
            least.push(Reverse((rank, index, length)));
        }
    }
    Ok(())
}

/// A run that is read from its beginning.
struct Run<'f>(BufReader<Section<'f>>);

impl<'f> Run<'f> {
    fn new(file: &'f File, places: &Range<u64>) -> Run<'f> {
        Run(BufReader::new(Section { file, rest: places.clone() }))
    }

    /// Returns the rank and the length of the next line, whose text follows them.
    fn head(&mut self) -> io::Result<Option<(Rank, u32)>> {
        if self.0.buffer().is_empty() && self.0.get_ref().rest.is_empty() {
            return Ok(None);
        }
        let (time, file) = (i64::from_le_bytes(self.bytes()?), u32::from_le_bytes(self.bytes()?));
        let (number, length) = (u64::from_le_bytes(self.bytes()?), u32::from_le_bytes(self.bytes()?));
        Ok(Some(((Timestamp::clamped(time), file, number), length)))
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// A part of a file.
struct Section<'f> {
    file: &'f File,
    rest: Range<u64>,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = (self.rest.end - self.rest.start).min(buffer.len() as u64) as usize;
        let count = self.file.read_at(&mut buffer[..wanted], self.rest.start)?;
        self.rest.start += count as u64;
        Ok(count)
    }
}

/// The origin of each line of a combined input, in a temporary file: 12 bytes a line.
#[derive(Debug)]
pub struct Origins {
    files: Arc<[PathBuf]>,
    table: File,
}

impl Origins {
    /// Returns the file's number and the line's number in that file.
    pub fn of(&self, line: u64) -> Option<(u32, u64)> {
        let mut entry = [0; 12];
        self.table.read_exact_at(&mut entry, line.checked_sub(1)? * 12).ok()?;
        let (file, number) = entry.split_first_chunk::<4>()?;
        Some((u32::from_le_bytes(*file), u64::from_le_bytes(number.try_into().ok()?)))
    }

    /// Returns all files.
    pub fn files(&self) -> &Arc<[PathBuf]> {
        &self.files
    }

    /// Returns the path of a file if there are several.
    pub fn file(&self, number: u32) -> Option<&Path> {
        let is_one = self.files.len() == 1;
        self.files.get(number as usize).filter(|_| !is_one).map(PathBuf::as_path)
    }
}

/// Records the origins of lines, one after the other.
#[derive(Debug)]
pub(crate) struct OriginsWriter(BufWriter<File>);

impl OriginsWriter {
    pub(crate) fn new() -> io::Result<OriginsWriter> {
        Ok(OriginsWriter(BufWriter::new(tempfile::tempfile()?)))
    }

    pub(crate) fn note(&mut self, file: u32, number: u64) -> io::Result<()> {
        self.0.write_all(&file.to_le_bytes())?;
        self.0.write_all(&number.to_le_bytes())
    }

    pub(crate) fn finish(self, files: Arc<[PathBuf]>) -> io::Result<Origins> {
        Ok(Origins { files, table: self.0.into_inner().map_err(io::IntoInnerError::into_error)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_on_disk_and_in_memory_give_the_same_order(
            lines in prop::collection::vec((-5..5i64, 0..3u32, 0..40usize), 0..200),
            run_bytes in prop_oneof![Just(1usize), Just(500), Just(RUN_BYTES)],
        ) {
            let line = |at: usize, length: usize| format!("{at}:{}", "x".repeat(length));
            let ranked = lines.iter().enumerate().map(|(at, (time, file, length))| {
                ((Timestamp::clamped(*time), *file, at as u64), line(at, *length))
            });
            let mut expected: Vec<(Rank, String)> = ranked.collect();
            let mut sorter = Sorter::new(run_bytes);
            for (rank, line) in &expected {
                sorter.push(*rank, line.as_bytes()).expect("room");
            }
            let (mut out, mut ranks) = (Vec::new(), Vec::new());
            let mut tell = |rank: Rank| -> io::Result<()> {
                ranks.push(rank);
                Ok(())
            };
            sorter.finish(&mut out, &mut tell).expect("room");
            expected.sort();
            let text: String = expected.iter().map(|(_, line)| format!("{line}\n")).collect();
            prop_assert_eq!(String::from_utf8(out).expect("text"), text);
            prop_assert_eq!(ranks, expected.iter().map(|(rank, _)| *rank).collect::<Vec<_>>());
        }
    }

    #[test]
    fn origins_are_found_by_the_number_of_a_line() {
        let mut writer = OriginsWriter::new().expect("room");
        for (file, number) in [(0, 7), (1, 1 << 40)] {
            writer.note(file, number).expect("room");
        }
        let files: Arc<[PathBuf]> = vec!["a".into(), "b".into()].into();
        let origins = writer.finish(files).expect("room");
        assert_eq!((origins.of(1), origins.of(2)), (Some((0, 7)), Some((1, 1 << 40))));
        assert_eq!((origins.of(0), origins.of(3)), (None, None));
        assert_eq!(origins.file(1), Some(Path::new("b")));
    }
}
