//! An opened input: a file or standard input, inflated if its first bytes are those of gzip or zstd.
//!
//! Intuition: file names are unreliable, but the first bytes of a file nearly always identify its format. So the name
//! of a file decides nothing; a remark reports a name that does not match the content.
//! Invariant: damage ends an input, not the command: the lines before the damage are passed on, and the
//! damage is reported as a finding.

use super::block::{Blocks, Lines};
use super::gzip::Gzip;
use super::sort::Origins;
use super::zstd::Zstd;
use crate::driver::port_error::chain;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Number of first bytes to examine; the longest known magic number has six.
const HEAD_BYTES: usize = 6;

/// Bytes of compressed data per read.
const PACKED_BYTES: usize = 64 << 10;

/// Formats that are recognised but not read, and the command that turns each into text.
const FOREIGN: [(&[u8], &str, &str); 6] = [
    (b"BZh", "bzip2", "bzip2 -dc"),
    (b"\xfd7zXZ\0", "xz", "xz -dc"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -dc"),
    (b"\x1f\x9d", "compress", "zcat"),
    (b"PK\x03\x04", "zip", "unzip -p"),
    (b"7z\xbc\xaf\x27\x1c", "7z", "7z e -so"),
];

/// Why an input could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    #[error("cannot open {path}; is the path right?")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is {form}, which is not read; inflate it, as in `{tool} {path} | streamgauge replay -`")]
    Foreign { path: PathBuf, form: &'static str, tool: &'static str },
    #[error("cannot keep lines in a temporary file; is there room in the temp dir?")]
    Temporary(#[source] io::Error),
}

impl InputError {
    /// Turns the error of one file among several into a finding. An error of the temporary file stays an error,
    /// because several files cannot be combined without that file.
    pub fn finding(self, file: &Path) -> Result<Finding, InputError> {
        if matches!(self, InputError::Temporary(_)) {
            return Err(self);
        }
        Ok(Finding { file: file.into(), message: format!("left out: {}", chain(&self)) })
    }
}

/// Something unusual or wrong about an input, for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub file: PathBuf,
    pub message: String,
}

/// An input, and the number of its bytes read so far.
#[derive(Debug)]
pub struct Input {
    pub(super) blocks: Blocks,
    pub(super) path: PathBuf,
    /// Bytes of the file; `None` for a pipe.
    pub size: Option<u64>,
    pub consumed: Arc<AtomicU64>,
    /// Unusual but harmless findings.
    pub remarks: Vec<Finding>,
    /// Faults of the inputs that this one was combined from.
    pub(super) troubles: Vec<Finding>,
    /// The origins of its lines, if it was combined from other inputs.
    pub origins: Option<Origins>,
}

/// Opens a file, or standard input for `-`.
pub(crate) fn open(path: &Path) -> Result<Input, InputError> {
    let (inner, size): (Box<dyn Read + Send>, Option<u64>) = if path == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path).map_err(|source| InputError::Open { path: path.into(), source })?;
        let size = file.metadata().ok().filter(|meta| meta.is_file()).map(|meta| meta.len());
        (Box::new(file), size)
    };
    let consumed = Arc::<AtomicU64>::default();
    let mut counted = Counted { inner, consumed: consumed.clone() };
    let head = head(&mut counted).map_err(|source| InputError::Read { path: path.into(), source })?;
    let form = Form::of(&head);
    let remarks = form.remark(path, &head).into_iter().collect();
    let whole = io::Cursor::new(head).chain(counted);
    let text: Box<dyn Read + Send> = match form {
        Form::Text => Box::new(whole),
        Form::Gzip => Box::new(Gzip::new(BufReader::with_capacity(PACKED_BYTES, whole))),
        Form::Zstd => Box::new(Zstd::new(BufReader::with_capacity(PACKED_BYTES, whole))),
        Form::Foreign(form, tool) => return Err(InputError::Foreign { path: path.into(), form, tool }),
    };
    Ok(Input { size, consumed, remarks, ..Input::of_stream(path.into(), text) })
}

impl Input {
    fn of_stream(path: PathBuf, text: Box<dyn Read + Send>) -> Input {
        let (remarks, troubles) = (Vec::new(), Vec::new());
        let blocks = Blocks::new(text);
        Input { blocks, path, size: None, consumed: Arc::default(), remarks, troubles, origins: None }
    }

    /// Returns an input over a temporary file of this program, read from the file's current position.
    pub fn of_file(file: File, size: u64) -> Input {
        let consumed = Arc::<AtomicU64>::default();
        let counted = Counted { inner: Box::new(file), consumed: consumed.clone() };
        let input = Input::of_stream("a temporary file".into(), Box::new(counted));
        Input { size: Some(size), consumed, ..input }
    }

    /// Returns an input without lines.
    pub fn empty() -> Input {
        Input { size: Some(0), ..Input::of_stream("nothing".into(), Box::new(io::empty())) }
    }

    /// Returns the same input with the origins of its lines.
    pub fn with_origins(self, origins: Origins) -> Input {
        Input { origins: Some(origins), ..self }
    }

    /// Returns the path to show to users.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the first block of the text without consuming it.
    pub fn peek(&mut self) -> &[u8] {
        self.blocks.peek()
    }

    /// Returns its lines; faults are known after the last line.
    pub fn into_lines(self) -> InputLines {
        InputLines { path: self.path, troubles: self.troubles, lines: Lines::new(self.blocks) }
    }
}

/// The lines of an input.
#[derive(Debug)]
pub struct InputLines {
    path: PathBuf,
    troubles: Vec<Finding>,
    lines: Lines,
}

impl InputLines {
    /// Returns the next line that is not blank, and its number; see `Lines::next_line`.
    pub fn next_line(&mut self) -> Option<(u64, &[u8])> {
        self.lines.next_line()
    }

    /// Returns the faults of the input; call it after the last line.
    pub fn finish(mut self) -> Vec<Finding> {
        self.troubles.extend(broken(&mut self.lines.blocks, &self.path));
        self.troubles
    }
}

/// Returns a finding about the error that ended a stream early.
pub(super) fn broken(blocks: &mut Blocks, path: &Path) -> Option<Finding> {
    let (error, lines) = blocks.broken()?;
    let message = match lines {
        0 => format!("nothing can be read: {error}"),
        _ => format!("broken at line {lines}: {error}; the lines before it are used"),
    };
    Some(Finding { file: path.into(), message })
}

struct Counted {
    inner: Box<dyn Read + Send>,
    consumed: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.consumed.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// Returns the first `HEAD_BYTES` bytes; fewer only if the input is shorter.
fn head(inner: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    io::Read::take(inner, HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// The format of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Gzip,
    Zstd,
    /// Name of the format, and the command that turns it into text.
    Foreign(&'static str, &'static str),
}

impl Form {
    fn of(head: &[u8]) -> Form {
        let foreign = FOREIGN.into_iter().find(|(mark, ..)| head.starts_with(mark));
        match (head, foreign) {
            ([0x1f, 0x8b, ..], _) => Form::Gzip,
            // The magic number of a frame, or of a skippable frame.
            ([0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..], _) => Form::Zstd,
            (_, Some((_, form, tool))) => Form::Foreign(form, tool),
            _ => Form::Text,
        }
    }

    /// Returns a remark if the name of a file does not match its first bytes.
    fn remark(self, path: &Path, head: &[u8]) -> Option<Finding> {
        let ending = path.extension().and_then(|ending| ending.to_str());
        let message = match (self, ending) {
            _ if head.is_empty() || path == Path::new("-") => return None,
            (Form::Gzip, Some("gz")) | (Form::Zstd, Some("zst")) => return None,
            (Form::Gzip, _) => "the content is gzip, which does not match the file name; it is inflated",
            (Form::Zstd, _) => "the content is zstd, which does not match the file name; it is inflated",
            (Form::Text, Some("gz" | "zst")) => {
                "the content is not compressed, which does not match the file name; it is read as text"
            }
            (Form::Text | Form::Foreign(..), _) => return None,
        };
        Some(Finding { file: path.into(), message: message.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    /// Returns the lines of a range, each with its number.
    fn text(lines: std::ops::RangeInclusive<u64>) -> Vec<u8> {
        lines.flat_map(|number| format!("line {number}\n").into_bytes()).collect()
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    /// Returns a frame with a checksum, as the `zstd` tool writes it.
    fn zstd(text: &[u8]) -> Vec<u8> {
        let mut frame = ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
        frame[4] |= 1 << 2;
        frame.extend_from_slice(&(xxhash_rust::xxh64::xxh64(text, 0) as u32).to_le_bytes());
        frame
    }

    /// Returns how many lines of a file have the expected text, and the troubles and remarks about the file.
    fn read(name: &str, content: &[u8]) -> (u64, Vec<String>, Vec<String>) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("room");
        let input = open(&path).expect("opened");
        let messages = |found: &[Finding]| found.iter().map(|one| one.message.clone()).collect::<Vec<_>>();
        let remarks = messages(&input.remarks);
        let (mut lines, mut whole) = (input.into_lines(), 0);
        while let Some((number, line)) = lines.next_line() {
            whole += u64::from(line == format!("line {number}").as_bytes());
        }
        (whole, messages(&lines.finish()), remarks)
    }

    type Pack = fn(&[u8]) -> Vec<u8>;
    const PACKS: [(&str, Pack); 2] = [("a.gz", gzip), ("a.zst", zstd)];

    #[test]
    fn members_and_padding_are_read_over() {
        for (name, pack) in PACKS {
            let parts =
                [pack(&text(1..=9)), pack(b""), vec![0; 5_000], pack(&text(10..=20)), vec![0; 70_000]];
            assert_eq!(read(name, &parts.concat()), (20, vec![], vec![]), "{name}");
        }
        let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9][..], &zstd(&text(1..=5))[..]];
        let skippable = skippable.concat();
        assert_eq!(read("a.zst", &skippable), (5, vec![], vec![]));
    }

    #[test]
    fn what_is_whole_of_a_file_that_was_cut_is_kept() {
        for (name, pack) in PACKS {
            let all = pack(&text(1..=50_000));
            for kept in [all.len() / 2, all.len() - 2] {
                let (whole, troubles, _) = read(name, &all[..kept]);
                assert!(
                    whole * 3 > 50_000,
                    "{name}: {whole} of 50000 lines in {kept} of {} bytes",
                    all.len()
                );
                assert!(troubles.len() == 1 && troubles[0].contains("end early"), "{name}: {troubles:?}");
                assert!(troubles[0].contains("broken at line"), "{name}: {troubles:?}");
            }
            let (whole, troubles, _) = read(name, &all[..7]);
            assert!(whole == 0 && troubles.len() == 1, "{name}: {troubles:?}");
        }
    }

    #[test]
    fn damage_is_found_and_what_stands_behind_it_is_not_taken() {
        for (name, pack) in PACKS {
            let mut all = pack(&text(1..=50_000));
            let middle = all.len() / 2;
            all[middle] ^= 0x10;
            let (whole, troubles, _) = read(name, &all);
            assert!(whole > 10_000, "{name}: {whole}");
            assert!(troubles.len() == 1 && troubles[0].contains("damaged"), "{name}: {troubles:?}");
            let garbage = [pack(&text(1..=5)), b"garbage".to_vec()].concat();
            let (whole, troubles, _) = read(name, &garbage);
            assert_eq!(whole, 5);
            assert!(troubles.len() == 1 && troubles[0].contains("the bytes after"), "{name}: {troubles:?}");
        }
    }

    #[test]
    fn content_counts_and_a_name_that_differs_is_said() {
        let said = |name: &str, content: &[u8]| {
            let (whole, troubles, remarks) = read(name, content);
            assert_eq!((whole, troubles.len()), (5, 0), "{name}");
            remarks.join("")
        };
        assert!(said("a.ndjson", &gzip(&text(1..=5))).contains("gzip"));
        assert!(said("a.gz", &zstd(&text(1..=5))).contains("zstd"));
        assert!(said("a.gz", &text(1..=5)).contains("not compressed"));
        assert_eq!(said("a.ndjson", &text(1..=5)), "");
        let mark = [&b"\xef\xbb\xbf"[..], &text(1..=5)[..]].concat();
        assert_eq!(said("a.gz", &gzip(&mark)), "");
        assert_eq!(read("a.gz", b""), (0, vec![], vec![]));
        let xz = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(xz.path(), b"\xfd7zXZ\0rest").expect("room");
        assert!(open(xz.path()).is_err_and(|error| error.to_string().contains("xz -dc")));
    }

    #[test]
    fn a_window_beyond_the_bound_is_refused_before_it_is_made() {
        // Window descriptor 0xb0: 2^32 bytes. No checksum, no size, one empty block.
        let (whole, troubles, _) = read("a.zst", &[0x28, 0xb5, 0x2f, 0xfd, 0, 0xb0, 1, 0, 0]);
        assert!(whole == 0 && troubles[0].contains("a window of 4096 MiB"), "{troubles:?}");
    }
}
