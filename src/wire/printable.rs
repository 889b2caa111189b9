//! Foreign text made safe to print.

use std::borrow::Cow;

/// The text with control characters escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) { text.escape_debug().to_string().into() } else { text.into() }
}
