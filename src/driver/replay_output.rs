//! Lines that a replay writes, and the errors that end it.

use super::file::input::InputError;
use std::io::{self, Write};

/// Reasons why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Input(#[from] InputError),
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    #[error("cannot keep sealed windows in a temporary file; is there room in the temp dir?")]
    Temporary(#[source] io::Error),
}

pub(super) fn write_json(out: &mut impl Write, value: &impl serde::Serialize) -> Result<(), ReplayError> {
    serde_json::to_writer(&mut *out, value).map_err(|error| ReplayError::Output(error.into()))?;
    out.write_all(b"\n").map_err(ReplayError::Output)
}
