//! Values of the configuration that are checked when it is read.

use super::BadConfig;
use crate::core::Span;

pub(super) type Checked<T> = Result<T, BadConfig>;

pub(super) fn bad(message: impl Into<String>) -> BadConfig {
    BadConfig(message.into())
}

pub(super) fn span(text: &str) -> Checked<Span> {
    text.parse().map_err(|error| bad(format!("`{text}`: {error}")))
}
