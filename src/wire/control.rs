//! Control records as bytes.
//!
//! Invariant: what [`decode`] gives can be put in force; what it refuses passes time in a log and does no more, live
//! and in an export alike.

use crate::core::event::Control;
use crate::core::rule::sound::Unsound;

/// Why bytes are no control.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("no control: {0}")]
    Json(#[from] serde_json::Error),
    #[error("no rule set that can be judged: {0}")]
    Unsound(#[from] Unsound),
}

/// Reads a control record.
pub fn decode(json: &[u8]) -> Result<Control, ControlError> {
    let control: Control = serde_json::from_slice(json)?;
    check(&control)?;
    Ok(control)
}

/// Checks one that was read as part of something else.
pub fn check(control: &Control) -> Result<(), Unsound> {
    match control {
        Control::Rules(rules) => rules.check_sound(),
        _ => Ok(()),
    }
}
