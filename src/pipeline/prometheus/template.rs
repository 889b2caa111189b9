//! Translates the templates of annotations, as far as they only show labels and the value.
//!
//! Intuition: nearly all annotations contain only `{{ $labels.x }}` and `{{ $value | humanizePercentage }}`.
//! Invariant: a text is translated with all its placeholders, or refused because of the first one without an
//! equivalent; no placeholder is dropped.

use super::ast::label_here;
use crate::core::rule::template::check;

/// Whether a text has placeholders.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("{{")
}

/// Returns the translated text, or the reason why there is none.
pub(super) fn translate(text: &str) -> Result<String, String> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((inner, next)) = after.split_once("}}") else {
            return Err("`{{` without `}}`".into());
        };
        out.push_str(before);
        // A dash trims the blanks next to the placeholder.
        let inner = match inner.strip_prefix("- ") {
            Some(inner) => {
                out.truncate(out.trim_end().len());
                inner
            }
            None => inner,
        };
        let (inner, next) = match inner.strip_suffix(" -") {
            Some(inner) => (inner, next.trim_start()),
            None => (inner, next),
        };
        out.push_str(&hole(inner.trim())?);
        rest = next;
    }
    out.push_str(rest);
    check(&out).map_err(|error| error.to_string())?;
    Ok(out)
}

/// Whether a text shows the label of this name.
pub(super) fn has_label(text: &str, label: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
    text.split("abels.").skip(1).any(|rest| rest.strip_prefix(label).is_some_and(ends))
}

/// Translates the content of one placeholder.
fn hole(inner: &str) -> Result<String, String> {
    if inner.starts_with("/*") && inner.ends_with("*/") {
        return Ok(String::new());
    }
    let none = || format!("`{{{{ {inner} }}}}` has no counterpart");
    let words = words(inner).ok_or_else(none)?;
    let mut parts = words.split(|word| word == "|");
    let (subject, mut filters) = subject(parts.next().unwrap_or_default()).ok_or_else(none)?;
    for filter in parts {
        filters.push(filter.to_vec());
    }
    match subject {
        Subject::Label(name) => {
            let name = label_here(&name);
            super::translate::readable(name)?;
            match filters.iter().all(|filter| is_plain_text(filter)) {
                true => Ok(format!("{{{{ labels.{name} }}}}")),
                false => Err(none()),
            }
        }
        Subject::Value => {
            let filters: Option<Vec<&str>> = filters.iter().map(|filter| number_filter(filter)).collect();
            match filters.ok_or_else(none)?.as_slice() {
                [] => Ok("{{ value }}".into()),
                [filter] => Ok(format!("{{{{ value{filter} }}}}")),
                _ => Err(none()),
            }
        }
    }
}

enum Subject {
    Label(String),
    Value,
}

/// Returns the label or value that is shown, and the function that is called with it as its last argument:
/// `printf "%.2f" $value`.
fn subject(words: &[String]) -> Option<(Subject, Vec<Vec<String>>)> {
    let (last, call) = words.split_last()?;
    let label = last.strip_prefix("$labels.").or_else(|| last.strip_prefix(".Labels."));
    if let Some(name) = label {
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        return is_name.then(|| (Subject::Label(name.into()), calls(call)));
    }
    match (call, last.as_str()) {
        (_, "$value" | ".Value") => Some((Subject::Value, calls(call))),
        ([index, labels], name) if index == "index" && labels == "$labels" => {
            let name = name.strip_prefix('"')?.strip_suffix('"')?;
            Some((Subject::Label(name.into()), Vec::new()))
        }
        _ => None,
    }
}

fn calls(call: &[String]) -> Vec<Vec<String>> {
    if call.is_empty() { Vec::new() } else { vec![call.to_vec()] }
}

/// Returns the equivalent of a filter for numbers. A filter that only rounds is dropped, because values are
/// formatted anyway.
fn number_filter(filter: &[String]) -> Option<&'static str> {
    let words: Vec<&str> = filter.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["humanizePercentage"] => Some(" | percent"),
        ["humanizeDuration"] => Some(" | duration"),
        ["humanize" | "humanize1024"] => Some(""),
        ["printf", "\"%.0f\"" | "\"%d\""] => Some(" | round"),
        ["printf", format] => {
            let verb = format.strip_prefix("\"%")?.strip_suffix('"')?;
            let digits = verb.strip_suffix(['f', 'g', 'v', 'e', 's'])?;
            digits.chars().all(|c| c.is_ascii_digit() || c == '.').then_some("")
        }
        _ => None,
    }
}

fn is_plain_text(filter: &[String]) -> bool {
    matches!(filter, [printf, format] if printf == "printf" && matches!(format.as_str(), "\"%s\"" | "\"%v\""))
}

/// Splits a placeholder into words and pipes; a quoted text is one word, including its quotes.
fn words(inner: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in inner.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => {
                word.push(c);
                quote = None;
            }
            (Some(_), c) => word.push(c),
            (None, '"' | '`') => {
                word.push(c);
                quote = Some(c);
            }
            (None, c) if c.is_whitespace() || c == '|' => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                if c == '|' {
                    words.push("|".into());
                }
            }
            (None, c) => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_labels_and_the_value_is_said() {
        let cases = [
            ("plain", "plain"),
            ("{{ $labels.job }}: {{$value}}", "{{ labels.job }}: {{ value }}"),
            ("{{ .Labels.job }} {{ .Value }}", "{{ labels.job }} {{ value }}"),
            ("{{ $value | humanizePercentage }}", "{{ value | percent }}"),
            ("{{ humanizeDuration $value }}", "{{ value | duration }}"),
            ("{{ printf \"%.2f\" $value }}%", "{{ value }}%"),
            ("{{ $value | printf \"%.0f\" }}", "{{ value | round }}"),
            ("{{ printf \"%s\" $labels.job }}", "{{ labels.job }}"),
            ("{{ index $labels \"job\" }}", "{{ labels.job }}"),
            ("a {{- /* why */ -}} b", "ab"),
            ("a {{- $labels.job -}} b", "a{{ labels.job }}b"),
            ("{{ $value | humanize1024 }}B", "{{ value }}B"),
        ];
        for (there, here) in cases {
            assert_eq!(translate(there).as_deref(), Ok(here), "{there}");
        }
    }

    #[test]
    fn what_does_more_is_refused_with_its_words() {
        let cases = [
            ("{{ with query \"up\" }}x{{ end }}", "`{{ with query \"up\" }}` has no counterpart"),
            ("{{ $externalURL }}", "`{{ $externalURL }}` has no counterpart"),
            ("{{ $labels.job | toUpper }}", "`{{ $labels.job | toUpper }}` has no counterpart"),
            ("{{ $value | humanizeTimestamp }}", "`{{ $value | humanizeTimestamp }}` has no counterpart"),
            ("{{ printf \"%.2f of %s\" $value }}", "`{{ printf \"%.2f of %s\" $value }}` has no counterpart"),
            ("{{ $value", "`{{` without `}}`"),
            ("{{ }}", "`{{  }}` has no counterpart"),
        ];
        for (there, reason) in cases {
            assert_eq!(translate(there), Err(reason.into()), "{there}");
        }
        assert_eq!(translate("{{ $labels.name }}").as_deref(), Ok("{{ labels.exported_name }}"));
        assert!(translate("{{ $labels.source }}").is_err_and(|reason| reason.contains("label `source`")));
    }
}
