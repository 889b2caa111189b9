//! Requests of operators while the system runs: silences and maintenance windows, in the format of the files.
//!
//! Invariant: a request is parsed like a part of a pipeline file, so its errors have a place and a hint, and
//! every field of the file format is allowed.
//! Rejected: separate types for the API (users would have to learn two formats).

use super::bounds::MATCHERS_BYTES_MAX;
use super::diagnostic::{Diagnostic, clipped};
use super::life;
use super::tree::File;
use super::yaml::{self, Node, TextPlace};
use crate::core::mute::{Maintenance, Silence};
use crate::core::vocab::calendar::Plan;
use crate::core::{Span, Timestamp};

/// The duration of a silence without an end, as Alertmanager's user interface proposes.
const SILENCE_DEFAULT: Span = Span::from_hours(2);

/// The file name that stands for the request in errors.
const PLACE: &str = "the request";

const SILENCE: [&str; 8] = ["id", "match", "start", "end", "duration", "by", "reason", "unmatched_for"];

/// Values from the server for the fields of a request. `id` is used if the request has none.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    pub id: &'a str,
    /// The signed-in user; takes precedence over `by` in the request.
    pub by: Option<&'a str>,
}

/// Maximum bytes of a request. 100 matchers of 100 bytes with a reason of 8 KiB need less than 20 KiB.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Reads a maintenance window.
pub fn maintenance(text: &str, new: New<'_>) -> Result<Maintenance, Vec<Diagnostic>> {
    read(text, new, |file, node| {
        let by = field(node, "by").and_then(|by| file.name_of(by)).unwrap_or_default();
        let without = without(node, "by");
        life::planned(file, &without).map(|planned| Maintenance { by: by.into(), ..planned })
    })
}

/// Reads a silence that begins `now` unless it states another start.
pub fn silence(text: &str, new: New<'_>, now: Timestamp) -> Result<Silence, Vec<Diagnostic>> {
    read(text, new, |file, node| silence_of(file, node, now))
}

/// Reads a `time_intervals: [...]` list that stands alone, as in a notification route.
pub fn intervals(text: &str) -> Result<Plan, Vec<Diagnostic>> {
    read(text, New { id: "", by: None }, |file, node| {
        let intervals = field(node, "time_intervals")?;
        life::intervals_alone(file, intervals)
    })
}

/// Reads any number of matchers: `source="a",stage=~"b.*"`.
pub fn matchers(text: &str) -> Result<crate::core::vocab::selector::Selector, String> {
    super::expr::check::matchers(text).map_err(|error| clipped(&error.message))
}

fn read<T>(
    text: &str,
    New { id, by }: New<'_>,
    read: impl FnOnce(&File<'_>, &Node) -> Option<T>,
) -> Result<T, Vec<Diagnostic>> {
    let is_long = text.len() > REQUEST_BYTES_MAX;
    let file = File::new(PLACE, if is_long { "" } else { text }).with_regexes_within(MATCHERS_BYTES_MAX);
    if is_long {
        let message = format!("the request has {} bytes; at most {REQUEST_BYTES_MAX} are taken", text.len());
        file.error(TextPlace { line: 1, column: 1 }, message, None);
        return Err(file.into_diagnostics());
    }
    let found = match yaml::parse(text) {
        Ok(node) => {
            let node = by.map_or_else(|| node.clone(), |by| with("by", without(&node, "by"), by));
            read(&file, &with("id", node, id))
        }
        Err(error) => {
            let at = error.at.unwrap_or(TextPlace { line: 1, column: 1 });
            file.error(at, error.message, error.hint.map(Into::into));
            None
        }
    };
    let found_errors = file.into_diagnostics();
    let is_bad = found_errors.iter().any(|found| found.is_error);
    found.filter(|_| !is_bad).ok_or(found_errors)
}

fn silence_of(file: &File<'_>, node: &Node, now: Timestamp) -> Option<Silence> {
    let mut silence = Silence {
        id: "".into(),
        matchers: crate::core::vocab::selector::Selector { name: None, matchers: Vec::new() },
        start: now,
        end: Timestamp::MAX,
        by: "".into(),
        reason: "".into(),
        unmatched_for: None,
    };
    let (mut end, mut duration) = (None, None);
    for (key, value) in file.map(node, &SILENCE) {
        match key.text.as_str() {
            "id" => silence.id = file.id_of(value)?.into(),
            "match" => silence.matchers = life::selector(file, value)?,
            "start" => silence.start = life::time(file, value)?,
            "end" => end = Some(life::time(file, value)?),
            "duration" => duration = Some(file.span(value)?),
            "by" => silence.by = file.name_of(value)?.into(),
            "reason" => silence.reason = file.prose(value)?.into(),
            "unmatched_for" => silence.unmatched_for = Some(file.span(value)?),
            _ => {}
        }
    }
    silence.end = end.unwrap_or(silence.start + duration.unwrap_or(SILENCE_DEFAULT));
    let wrong = match &silence {
        one if one.matchers.matchers.is_empty() => {
            Some(("a silence needs `match`", "`match: ['source=\"db\"']`"))
        }
        one if one.by.is_empty() => Some(("a silence needs `by`", "who asks for it")),
        one if one.end <= one.start => Some(("it ends before it begins", "`end`, or `duration: 2h`")),
        _ if end.is_some() && duration.is_some() => {
            Some(("`end` and `duration` both say when it ends", "give one of them"))
        }
        one if one.end <= now => Some(("the silence has ended already", "set `end` later than now")),
        _ => None,
    };
    if let Some((message, hint)) = wrong {
        file.error(node.at, message, Some(hint.into()));
    }
    Some(silence)
}

fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    super::define::section(node, name)
}

fn without(node: &Node, name: &str) -> Node {
    let mut node = node.clone();
    if let yaml::Kind::Map(entries) = &mut node.kind {
        entries.retain(|(key, _)| key.text != name);
    }
    node
}

/// Removes all null fields, then adds the field `name` with `value` if it is missing.
fn with(name: &str, mut node: Node, value: &str) -> Node {
    if let yaml::Kind::Map(entries) = &mut node.kind {
        entries.retain(|(_, value)| value.kind != yaml::Kind::Null);
    }
    if field(&node, name).is_none()
        && let yaml::Kind::Map(entries) = &mut node.kind
    {
        let key = yaml::Key { at: node.at, text: name.into() };
        entries.push((key, Node::of_text(node.at, value)));
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(id: &str) -> New<'_> {
        New { id, by: None }
    }

    const NOW: Timestamp = Timestamp::clamped(1_793_491_200_000);

    #[test]
    fn a_silence_says_who_what_and_for_how_long() {
        let read = silence(r#"{"match": ["source=\"db\""], "by": "ann", "duration": "30m"}"#, new("s1"), NOW);
        let read = read.expect("complete");
        assert_eq!((&*read.id, read.start, read.end), ("s1", NOW, NOW + Span::from_mins(30)));
        assert_eq!(read.matchers.texts(), [r#"source="db""#]);
        let messages = |text: &str| -> Vec<String> {
            silence(text, new("s"), NOW)
                .map_or_else(|all| all.into_iter().map(|one| one.message).collect(), |_| vec![])
        };
        assert_eq!(messages(r#"{"by": "ann"}"#), ["a silence needs `match`"]);
        assert_eq!(messages(r#"{"match": ["a=\"b\""]}"#), ["a silence needs `by`"]);
        let of_all = messages(r#"{"match": [], "by": "ann"}"#);
        assert!(of_all.len() == 1 && of_all[0].contains("would match everything"), "{of_all:?}");
        let wordy = format!(r#"{{"match": ["a=\"b\""], "by": "ann", "reason": "{}"}}"#, "x".repeat(20_000));
        assert!(messages(&wordy)[0].contains("at most 8192"), "{:?}", messages(&wordy));
        assert_eq!(messages(r#"{"match": ["a=\"b\""], "by": "x", "untill": 1}"#), ["unknown key `untill`"]);
        let long = format!(r#"{{"match": ["a=\"b\""], "by": "{}"}}"#, "x".repeat(1 << 20));
        assert!(messages(&long)[0].contains("at most 65536"));
        assert_eq!(messages("{"), messages("{"), "garbage is refused, not a panic");
    }

    #[test]
    fn maintenance_is_read_as_in_a_file() {
        let text = r#"{"match": "a=\"b\"", "schedule": "0 22 * * FRI", "duration": "4h", "by": "ann", "mode": "suspend"}"#;
        let read = maintenance(text, new("m1")).expect("complete");
        assert_eq!((&*read.id, &*read.by), ("m1", "ann"));
        assert_eq!(read.plan.next(NOW, 2).len(), 2);
        assert!(
            maintenance(r#"{"match": ["a=\"b\""]}"#, new("m"))
                .is_err_and(|all| all[0].message.contains("has no times"))
        );
        assert!(
            maintenance(r#"{"match": []}"#, new("m")).is_err_and(|all| all[0].message.contains("no matcher"))
        );
        assert!(intervals(r#"{"time_intervals": [{"weekdays": ["monday:friday"]}]}"#).is_ok());
    }
}
