//! Several files as one log, and files put in order first.
//!
//! Both need the lines side by side, so they are read into memory as (time, place) pairs and
//! written in order to a temporary file, which is then read like any other input.

use crate::core::Timestamp;
use crate::wire::event::Decoder;
use crate::wire::line;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::reader::{Input, InputError};

/// One line: its time, its file, where it stands there.
struct Place {
    time: Timestamp,
    file: usize,
    offset: u64,
    length: u32,
}

/// One input out of several: merged by time, or with `sort` each line at its own time.
/// Lines of one file keep their order when only merged: a line counts for the largest time so far.
pub fn merged(paths: &[PathBuf], sort: bool) -> Result<Input, InputError> {
    let read = |path: &Path, source| InputError::Read { path: path.into(), source };
    let mut places = Vec::new();
    let mut plain = tempfile::tempfile().map_err(|source| read(Path::new("a temporary file"), source))?;
    let mut offset = 0;
    for (file, path) in paths.iter().enumerate() {
        let input = super::reader::open(path)?;
        offset = append(input, file, offset, sort, &mut plain, &mut places).map_err(|e| read(path, e))?;
    }
    places.sort_by_key(|place| (place.time, place.file));
    let sorted = write_in_order(&plain, &places);
    let sorted = sorted.map_err(|source| read(Path::new("a temporary file"), source))?;
    Ok(super::reader::from_file(sorted, offset))
}

/// Copies the lines of one input, noting the time and place of each.
fn append(
    input: Input,
    file: usize,
    mut offset: u64,
    sort: bool,
    plain: &mut File,
    places: &mut Vec<Place>,
) -> io::Result<u64> {
    let mut decoder = Decoder::new(0);
    let mut writer = BufWriter::new(plain);
    let mut newest = Timestamp::MIN;
    let mut lines = input.into_lines();
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        if line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        let time = time_of(&line::decode(&mut decoder, line.trim_ascii_end())).unwrap_or(newest);
        newest = newest.max(time);
        let time = if sort { time } else { newest };
        writer.write_all(&line)?;
        places.push(Place { time, file, offset, length: line.len() as u32 });
        offset += line.len() as u64;
        line.clear();
    }
    writer.flush()?;
    Ok(offset)
}

fn time_of(line: &line::Line) -> Option<Timestamp> {
    line.ingest_time.or_else(|| line.content.time_max())
}

fn write_in_order(plain: &File, places: &[Place]) -> io::Result<File> {
    use std::os::unix::fs::FileExt;
    let mut writer = BufWriter::new(tempfile::tempfile()?);
    let mut line = Vec::new();
    for place in places {
        line.resize(place.length as usize, 0);
        plain.read_exact_at(&mut line, place.offset)?;
        writer.write_all(&line)?;
    }
    let mut file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

impl Input {
    /// The inflated lines.
    pub fn into_lines(self) -> impl BufRead {
        BufReader::with_capacity(1 << 20, self.into_stream())
    }
}
