//! Several files as one input, and files sorted by time.
//!
//! Intuition: both tasks need the lines of all files at once, so the lines pass through a sorter into a temporary
//! file, which is then read like any other input. A second file records the origin of each line.

use crate::core::Timestamp;
use crate::wire::event::Decoder;
use crate::wire::ndjson::{self, Line};
use std::io::{self, BufWriter, Seek};
use std::path::{Path, PathBuf};

use super::input::{self, Finding, Input, InputError};
use super::sort::{Origins, OriginsWriter, Sorter};

/// Opens all files as one input; without files, the input has no lines.
pub(crate) fn open(files: &[PathBuf], sort: bool) -> Result<Input, InputError> {
    match files.split_first() {
        Some((first, rest)) => gather(input::open(first)?, rest, sort),
        None => Ok(Input::empty()),
    }
}

/// Combines several inputs into one, ordered by time. With `sort`, each line is placed at its own time. Otherwise the
/// lines of one file keep their order: each line is placed at the largest time of its file so far.
pub(crate) fn gather(first: Input, rest: &[PathBuf], sort: bool) -> Result<Input, InputError> {
    if rest.is_empty() && !sort {
        return Ok(first);
    }
    // A wrong path is reported before the files are read, which may take hours.
    for path in rest.iter().filter(|path| *path != Path::new("-")) {
        std::fs::metadata(path).map_err(|source| InputError::Open { path: path.clone(), source })?;
    }
    let mut gathered = Gathered { sort, ..Gathered::default() };
    gathered.add(first)?;
    for path in rest {
        match input::open(path) {
            Ok(input) => gathered.add(input)?,
            // A file that cannot be opened does not stop the others.
            Err(error) => gathered.troubles.push(error.finding(path)?),
        }
    }
    gathered.finish()
}

/// The inputs read so far.
#[derive(Debug, Default)]
struct Gathered {
    sort: bool,
    files: Vec<PathBuf>,
    sorter: Sorter,
    decoder: Option<Decoder>,
    remarks: Vec<Finding>,
    troubles: Vec<Finding>,
}

impl Gathered {
    fn add(&mut self, mut input: Input) -> Result<(), InputError> {
        let origins = input.origins.take();
        let before = self.files.len() as u32;
        match &origins {
            Some(origins) => self.files.extend_from_slice(origins.files()),
            None => self.files.push(input.path.clone()),
        }
        self.remarks.append(&mut input.remarks);
        let decoder = self.decoder.get_or_insert_with(|| Decoder::new(0));
        let mut newest = Timestamp::MIN;
        let mut lines = input.into_lines();
        while let Some((number, text)) = lines.next_line() {
            // Only times are needed here, so known identities may be dropped.
            decoder.trim();
            let time = time_of(&ndjson::decode(decoder, text)).unwrap_or(newest);
            newest = newest.max(time);
            let origin = origins.as_ref().and_then(|origins| origins.of(number));
            let (file, number) = origin.map_or((before, number), |(file, number)| (before + file, number));
            let time = if self.sort { time } else { newest };
            self.sorter.push((time, file, number), text).map_err(InputError::Temporary)?;
        }
        self.troubles.extend(lines.finish());
        Ok(())
    }

    fn finish(self) -> Result<Input, InputError> {
        let (input, origins) = write(self.sorter, self.files).map_err(InputError::Temporary)?;
        Ok(Input { origins: Some(origins), remarks: self.remarks, troubles: self.troubles, ..input })
    }
}

/// Writes the sorted lines to a file, and the origin of each line to another.
fn write(sorter: Sorter, files: Vec<PathBuf>) -> io::Result<(Input, Origins)> {
    let mut origins = OriginsWriter::new()?;
    let mut out = BufWriter::new(tempfile::tempfile()?);
    sorter.finish(&mut out, &mut |(_, file, number)| origins.note(file, number))?;
    let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    let size = file.stream_position()?;
    file.rewind()?;
    Ok((Input::of_file(file, size), origins.finish(files.into())?))
}

fn time_of(line: &Line) -> Option<Timestamp> {
    line.ingest_time.or_else(|| line.content.time_max())
}
