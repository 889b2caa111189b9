//! Several files as one input, and files put in order first.
//!
//! Intuition: both need the lines side by side, so they go through a sorter into a temporary file,
//! which is then read like any other input. Beside it stands where each line came from.

use crate::core::Timestamp;
use crate::wire::event::Decoder;
use crate::wire::line::{self, Line};
use std::io::{self, BufWriter, Seek};
use std::path::{Path, PathBuf};

use super::input::{self, Finding, Input, InputError};
use super::sort::{Origins, OriginsWriter, Sorter};

/// One input of all files; none is an input without lines.
pub fn open(files: &[PathBuf], sort: bool) -> Result<Input, InputError> {
    match files.split_first() {
        Some((first, rest)) => gather(input::open(first)?, rest, sort),
        None => Ok(Input::empty()),
    }
}

/// One input out of several: merged by time, or with `sort` each line at its own time.
/// Lines of one file keep their order when only merged: a line counts for the largest time so far.
pub fn gather(first: Input, rest: &[PathBuf], sort: bool) -> Result<Input, InputError> {
    if rest.is_empty() && !sort {
        return Ok(first);
    }
    // A path that is wrong is better said before hours of reading.
    for path in rest.iter().filter(|path| *path != Path::new("-")) {
        std::fs::metadata(path).map_err(|source| InputError::Open { path: path.clone(), source })?;
    }
    let mut gathered = Gathered { sort, ..Gathered::default() };
    gathered.add(first)?;
    for path in rest {
        match input::open(path) {
            Ok(input) => gathered.add(input)?,
            // The lines of the other files are kept.
            Err(error) => gathered.troubles.push(error.finding(path)?),
        }
    }
    gathered.finish()
}

/// Inputs that were read so far.
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
            // Only times are read here; identities that were met need not be kept.
            decoder.trim();
            let time = time_of(&line::decode(decoder, text)).unwrap_or(newest);
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

/// The lines in order in a file, and where each came from.
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
