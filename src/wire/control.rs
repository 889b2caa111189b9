//! Decoding of control records.
//!
//! Invariant: a control that [`decode`] returns can be put into force. A refused control only advances the
//! log time, both live and in a replay of an export.

use crate::core::event::Control;
use crate::core::rule::sound::Unsound;

/// The reason why bytes are not a control record.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("no control: {0}")]
    Json(#[from] serde_json::Error),
    #[error("no rule set that can be judged: {0}")]
    Unsound(#[from] Unsound),
}

/// Decodes a control record.
pub fn decode(json: &[u8]) -> Result<Control, ControlError> {
    let control: Control = serde_json::from_slice(json)?;
    check(&control)?;
    Ok(control)
}

/// Checks a control that was decoded as part of another structure.
pub fn check(control: &Control) -> Result<(), Unsound> {
    match control {
        Control::Rules(rules) => rules.check_sound(),
        _ => Ok(()),
    }
}
