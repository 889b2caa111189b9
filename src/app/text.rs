//! Reads small files that are named on the command line.

use anyhow::{Context, Result, anyhow, bail};
use std::fs::File;
use std::io::{ErrorKind, Read, stdin};
use std::path::Path;

/// Maximum size of such a file in bytes: 30,000 rules at 250 B. A larger input is the wrong file, or endless.
const TEXT_BYTES_MAX: u64 = 8 << 20;

/// Reads a text file; `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<String> {
    let failed = || format!("cannot read {}; is the path right?", path.display());
    let inner: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(stdin()),
        false => Box::new(File::open(path).with_context(failed)?),
    };
    let mut text = String::new();
    let count = match inner.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text) {
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            let hint = "convert it, as in `iconv -f UTF-16 -t UTF-8`";
            return Err(anyhow!("{} is no text in UTF-8; {hint}", path.display()));
        }
        read => read.with_context(failed)?,
    };
    if count as u64 > TEXT_BYTES_MAX {
        bail!("{} has more than {} MiB; is it the right file?", path.display(), TEXT_BYTES_MAX >> 20);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_no_text() {
        assert!(
            read(Path::new("/dev/zero")).is_err_and(|error| error.to_string().contains("more than 8 MiB"))
        );
        assert!(read(Path::new("/nonexistent")).is_err());
    }
}
