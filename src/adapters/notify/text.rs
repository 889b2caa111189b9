//! Plain text shared by all channels that people read, and functions to cut and escape it.

use crate::core::alert::Transition;
use crate::core::alert::transition::ChangeName;
use crate::core::notify::Message;
use crate::core::notify::message::named;
use crate::core::vocab::severity::Severity;

/// Maximum number of alerts listed in one message for people; the rest is counted.
pub(super) const LISTED_MAX: usize = 10;

/// Cuts a text to a number of characters; a text that was cut ends in `…`.
pub(super) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_string(),
        Some(_) => text.chars().take(chars.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Puts a backslash before each markup character.
pub(super) fn escaped(text: &str, markup: &str) -> String {
    text.chars().flat_map(|c| markup.contains(c).then_some('\\').into_iter().chain([c])).collect()
}

/// Formats an alert as one line: rule and key, value and threshold, the rule's summary, and since when no data has
/// arrived. For an ended alert, the line states why it ended, and then the summary after `it was:`.
pub(super) fn line(alert: &Transition) -> String {
    // A summary equal to the rule's name adds nothing.
    let summary = Some(&alert.summary).filter(|summary| !summary.is_empty() && ***summary != *alert.rule);
    let parts = match (alert.is_active(), summary) {
        (true, Some(summary)) => [Some(alert.judged()), Some(summary.clone()), alert.silence()],
        (true, None) if says_its_value(alert) => [Some(alert.reason.clone()), alert.silence(), None],
        (true, None) => [Some(alert.judged()), Some(alert.reason.clone()), alert.silence()],
        (false, summary) => {
            [Some(alert.reason.clone()), summary.map(|summary| format!("it was: {summary}")), None]
        }
    };
    let said = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<String>>();
    format!("{}: {}", named(alert), said.join("; "))
}

/// Whether the reason of a change already states the value and its threshold.
fn says_its_value(alert: &Transition) -> bool {
    matches!(alert.change, ChangeName::Firing | ChangeName::Level | ChangeName::Pending)
}

/// Returns an active alert's severity and who acknowledged it, or an ended alert's state.
pub(super) fn standing(alert: &Transition) -> String {
    match (alert.is_active(), &alert.acknowledged_by) {
        (false, _) => alert.state.name().into(),
        (true, Some(by)) => format!("{}, acknowledged by {by}", alert.severity.name()),
        (true, None) => alert.severity.name().into(),
    }
}

/// Returns the alerts to list, active ones first, and the number of those left out.
pub(super) fn listed(message: &Message) -> (Vec<&Transition>, usize) {
    let mut all: Vec<&Transition> = message.alerts.iter().collect();
    all.sort_by_key(|alert| (!alert.is_active(), std::cmp::Reverse(alert.severity)));
    let left_out = all.len().saturating_sub(LISTED_MAX);
    all.truncate(LISTED_MAX);
    (all, left_out)
}

/// Returns the highest severity of the active alerts; `None` if all have ended.
pub(super) fn worst(message: &Message) -> Option<Severity> {
    message.alerts.iter().filter(|alert| alert.is_active()).map(|alert| alert.severity).max()
}

/// Returns the colour of the highest active severity: red, orange, blue, and green if all have ended.
pub(super) fn colour(message: &Message) -> u32 {
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

    use crate::core::Timestamp;
    use crate::core::alert::Display;
    use crate::core::alert::self_alerts::bare;
    use crate::core::alert::transition::State;
    use crate::core::vocab::key::Key;

    fn alert(state: State, change: ChangeName, summary: &str) -> Transition {
        let key = Key::new(vec![("stage".into(), "build".into()), ("source".into(), "checkout".into())]);
        let at = Timestamp::clamped(1_793_491_200_000 + 34_000_000);
        let value = if state == State::Resolved { 0.004 } else { 0.029 };
        Transition {
            state,
            change,
            display: Display::new(Some(value), None, "> 1%", Some(0.01)),
            reason: format!("the reason of {}", state.name()),
            summary: summary.into(),
            ..bare("error_rate".into(), Severity::Warning, key, (at, at))
        }
    }

    #[test]
    fn a_line_is_true_of_the_state_it_is_said_of() {
        let since = Timestamp::from_ms(1_793_491_200_000 + 33_120_000);
        let silent = |alert: Transition| Transition { no_data_since: since, ..alert };
        let firing = |summary| alert(State::Firing, ChangeName::Firing, summary);
        let cases = [
            (firing("errors of checkout"), "2.9 % > 1 %; errors of checkout"),
            (silent(firing("errors")), "2.9 % > 1 %; errors; no data since 09:12"),
            (firing(""), "the reason of firing"),
            (silent(firing("error_rate")), "the reason of firing; no data since 09:12"),
            (
                alert(State::Acknowledged, ChangeName::Acknowledged, ""),
                "2.9 % > 1 %; the reason of acknowledged",
            ),
            (
                alert(State::Resolved, ChangeName::Resolved, "errors of checkout"),
                "the reason of resolved; it was: errors of checkout",
            ),
            (silent(alert(State::Stale, ChangeName::Stale, "")), "the reason of stale"),
        ];
        for (alert, said) in cases {
            assert_eq!(line(&alert), format!("error_rate source=checkout, stage=build: {said}"));
        }
    }

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(cut("größer", 10), "größer");
        assert_eq!(cut("größer", 4), "grö…");
        assert_eq!(cut("", 0), "");
    }
}
