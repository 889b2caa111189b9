//! What all channels for people say, as plain text, and how it is cut and escaped.

use crate::core::alert::{Severity, Transition};
use crate::core::notify::Message;
use crate::core::notify::message::values;

/// Alerts listed in one message for people; the rest is counted.
pub const LISTED_MAX: usize = 10;

/// At most so many characters; what is cut ends in `…`.
pub fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_string(),
        Some(_) => text.chars().take(chars.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// With a backslash before each character that is markup.
pub fn escaped(text: &str, markup: &str) -> String {
    text.chars().flat_map(|c| markup.contains(c).then_some('\\').into_iter().chain([c])).collect()
}

/// One line of an alert: what it is about, and what it says of itself.
pub fn line(alert: &Transition) -> String {
    let summary = if alert.summary.is_empty() { &alert.reason } else { &alert.summary };
    let named = format!("{} {}", alert.rule, values(alert));
    match summary == &*alert.rule {
        true => format!("{}: {}", named.trim(), alert.reason),
        false => format!("{}: {summary}", named.trim()),
    }
}

/// The word for how it stands.
pub fn standing(alert: &Transition) -> String {
    match (alert.is_active(), &alert.acknowledged_by) {
        (false, _) => format!("{:?}", alert.state).to_lowercase(),
        (true, Some(by)) => format!("{}, acknowledged by {by}", alert.severity.name()),
        (true, None) => alert.severity.name().into(),
    }
}

/// The alerts that are listed, those that fire first, and how many are not.
pub fn listed(message: &Message) -> (Vec<&Transition>, usize) {
    let mut all: Vec<&Transition> = message.alerts.iter().collect();
    all.sort_by_key(|alert| (!alert.is_active(), std::cmp::Reverse(alert.severity)));
    let left_out = all.len().saturating_sub(LISTED_MAX);
    all.truncate(LISTED_MAX);
    (all, left_out)
}

/// The worst that fires; none: all is over.
pub fn worst(message: &Message) -> Option<Severity> {
    message.alerts.iter().filter(|alert| alert.is_active()).map(|alert| alert.severity).max()
}

/// A colour for it: red, orange, blue, green.
pub fn colour(message: &Message) -> u32 {
    match worst(message) {
        Some(Severity::Critical) => 0x00d9_2d20,
        Some(Severity::Warning) => 0x00f7_9009,
        Some(Severity::Info) => 0x0015_70ef,
        None => 0x0012_b76a,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(cut("größer", 10), "größer");
        assert_eq!(cut("größer", 4), "grö…");
        assert_eq!(cut("", 0), "");
    }
}
