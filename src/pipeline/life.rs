//! Sections about the handling of alerts: `escalations:`, `maintenance:`, `inhibit:`.

use super::bounds::{MATCHERS_MAX, MUTES_MAX, NAMES_MAX, STEPS_MAX};
use super::expr::check::matchers;
use super::firsts::Firsts;
use super::tree::File;
use super::yaml::{Kind, Node, TextPlace};
use crate::core::mute::{Maintenance, Mode};
use crate::core::rule::Inhibit;
use crate::core::vocab::calendar::{Interval, Plan, Written};
use crate::core::vocab::escalation::{Escalation, Step};
use crate::core::vocab::pattern::Pattern;
use crate::core::vocab::selector::{Matcher, Selector, Test};
use crate::core::{Span, Timestamp};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// The shortest interval after which a step may be repeated, so that no receiver gets one alert more often.
const REPEAT_MIN: Span = Span::from_mins(1);

/// Escalations by name.
pub(crate) type Escalations = BTreeMap<String, Escalation>;

pub(crate) fn escalations(file: &File<'_>, node: &Node, out: &mut Escalations, firsts: &mut Firsts) {
    for (name, node) in file.names(node) {
        firsts.note(file, "escalation", &name.text, name.at);
        let written = file.list(node);
        if written.len() > STEPS_MAX {
            file.error(node.at, format!("an escalation has at most {STEPS_MAX} steps"), None);
            continue;
        }
        let mut steps: Vec<Step> = written.iter().filter_map(|step| self::step(file, step)).collect();
        steps.sort_by_key(|step| step.after);
        if let Some((_, earlier)) = steps.split_last()
            && earlier.iter().any(|step| step.repeat.is_some())
        {
            file.error(node.at, "only the last step can repeat", Some("move `repeat` there".into()));
        }
        if steps.is_empty() {
            file.error(
                node.at,
                "an escalation needs at least one step",
                Some("`- { after: 0m, notify: [log] }`".into()),
            );
        }
        out.insert(name.text.clone(), Escalation { name: name.text.as_str().into(), steps });
    }
}

fn step(file: &File<'_>, node: &Node) -> Option<Step> {
    let mut step =
        Step { after: Span::ZERO, notify: Vec::new(), escalate_to: None, when: None, repeat: None };
    let mut has_after = false;
    for (key, value) in file.map(node, &["after", "notify", "escalate_to", "when", "repeat"]) {
        match key.text.as_str() {
            "after" => {
                step.after = file.span(value)?;
                has_after = true;
            }
            "notify" => step.notify = file.names_in(value).into_iter().map(Into::into).collect(),
            "when" => step.when = Some(kept(file, value.at, intervals(file, value)?)?),
            "repeat" => step.repeat = Some(file.span(value).filter(|span| span.is_positive())?),
            _ => step.escalate_to = file.name_of(value).map(Into::into),
        }
    }
    if step.repeat.is_some_and(|repeat| repeat < REPEAT_MIN) {
        file.error(node.at, format!("`repeat` must be {REPEAT_MIN} or more"), None);
    }
    if !has_after {
        file.error(node.at, "a step needs `after`", Some("`after: 0m` is taken when the alert fires".into()));
    }
    Some(step)
}

pub(crate) fn maintenance(file: &File<'_>, node: &Node, out: &mut Vec<Maintenance>, firsts: &mut Firsts) {
    for item in file.list(node) {
        if let Some(id) = super::define::section(item, "id").and_then(Node::text) {
            firsts.note(file, "maintenance", id, item.at);
        }
        if out.len() >= MUTES_MAX {
            return file.error(item.at, format!("there are more than {MUTES_MAX} maintenance windows"), None);
        }
        out.extend(planned(file, item));
    }
}

const PLANNED: [&str; 11] = [
    "id",
    "match",
    "start",
    "end",
    "schedule",
    "duration",
    "tz",
    "except",
    "mode",
    "reason",
    "time_intervals",
];

/// Reads one maintenance window of a file or a request.
pub(super) fn planned(file: &File<'_>, node: &Node) -> Option<Maintenance> {
    let fields: BTreeMap<&str, &Node> =
        file.map(node, &PLANNED).into_iter().map(|(key, value)| (key.text.as_str(), value)).collect();
    let text = |name: &str| fields.get(name).and_then(|node| file.text(node));
    let Some(id) = fields.get("id") else {
        file.error(node.at, "maintenance needs an `id`", None);
        return None;
    };
    let id = file.id_of(id)?;
    let Some(of) = fields.get("match") else {
        let hint = "`match: ['source=~\"db.*\"']`; `rule=~\".+\"` is everything";
        file.error(node.at, "maintenance needs `match`", Some(hint.into()));
        return None;
    };
    let mode = match text("mode").as_deref() {
        None | Some("mute") => Mode::Mute,
        Some("suspend") => Mode::Suspend,
        Some(other) => {
            file.error(fields["mode"].at, format!("`{other}` is no mode"), Some("mute or suspend".into()));
            return None;
        }
    };
    let matchers = selector(file, of)?;
    let plan = plan(file, node, &fields)?;
    let reason = fields.get("reason").and_then(|node| file.prose(node)).unwrap_or_default().into();
    Some(Maintenance { id: id.into(), matchers, plan, mode, reason, by: "".into() })
}

/// Reads the times of a maintenance window: one span, a schedule, or intervals.
fn plan(file: &File<'_>, node: &Node, fields: &BTreeMap<&str, &Node>) -> Option<Plan> {
    let text = |name: &str| fields.get(name).and_then(|node| file.text(node));
    let written = if let Some(intervals) = fields.get("time_intervals") {
        self::intervals(file, intervals)?
    } else if let Some(schedule) = text("schedule") {
        let Some(duration) = fields.get("duration") else {
            file.error(node.at, "a schedule needs a `duration`", Some("`duration: 4h`".into()));
            return None;
        };
        let except = fields.get("except").map(|node| file.names_in(node)).unwrap_or_default();
        let zone = text("tz").unwrap_or_else(|| "UTC".into());
        Written::Recurring { schedule, duration: file.span(duration)?, zone, except }
    } else {
        let time = |name: &str| fields.get(name).and_then(|node| time(file, node));
        let (Some(start), Some(end)) = (time("start"), time("end")) else {
            let hint = "`start` and `end`, or `schedule` and `duration`, or `time_intervals`";
            file.error(node.at, "this maintenance has no times", Some(hint.into()));
            return None;
        };
        if let Some(duration) = fields.get("duration") {
            let hint = "`duration` belongs to `schedule`; here `end` sets the end";
            file.error(duration.at, "`duration` has no effect here", Some(hint.into()));
            return None;
        }
        Written::Once { start, end }
    };
    let places = ["schedule", "tz", "time_intervals"];
    let at = places.iter().find_map(|name| fields.get(name)).map_or(node.at, |node| node.at);
    kept(file, at, written)
}

pub(super) fn time(file: &File<'_>, node: &Node) -> Option<Timestamp> {
    let text = file.text(node)?;
    let parsed = chrono::DateTime::parse_from_rfc3339(&text).ok();
    let found = parsed.and_then(|time| Timestamp::from_ms(time.timestamp_millis()));
    if found.is_none() {
        file.error(node.at, format!("`{text}` is no time"), Some("write it as 2026-11-15T02:00:00Z".into()));
    }
    found
}

/// Reads a `time_intervals` list that stands alone, as in a notification route.
pub(super) fn intervals_alone(file: &File<'_>, node: &Node) -> Option<Plan> {
    kept(file, node.at, intervals(file, node)?)
}

/// Reads a list of intervals.
fn intervals(file: &File<'_>, node: &Node) -> Option<Written> {
    let items = file.list(node);
    if items.len() > NAMES_MAX {
        file.error(node.at, format!("a plan has at most {NAMES_MAX} intervals"), None);
        return None;
    }
    if items.is_empty() && matches!(node.kind, Kind::List(_)) {
        file.error(node.at, "there is no interval here, so it never comes", Some("`[{}]` is always".into()));
        return None;
    }
    let all = items.iter().map(|item| interval(file, item));
    Some(Written::Intervals(all.collect::<Option<Vec<_>>>()?))
}

/// Makes a plan from its written form; a plan that cannot be evaluated is an error.
fn kept(file: &File<'_>, at: TextPlace, written: Written) -> Option<Plan> {
    let plan = Plan::try_from(written).map_err(|error| file.error(at, error.to_string(), None)).ok()?;
    if let Some(trouble) = plan.trouble() {
        file.error(at, trouble.to_string(), None);
        return None;
    }
    Some(plan)
}

/// Reads one entry of `time_intervals`, in the format of Alertmanager.
fn interval(file: &File<'_>, node: &Node) -> Option<Interval> {
    let mut found = Interval::default();
    let known = ["times", "weekdays", "days_of_month", "months", "years", "location"];
    for (key, value) in file.map(node, &known) {
        let ranges = |names: &[&str], all: RangeInclusive<i32>| {
            let base = *all.start();
            let texts = file.names_in(value);
            let parsed: Option<Vec<(i32, i32)>> = texts.iter().map(|text| range(text, names, base)).collect();
            if parsed.is_none() {
                let hint = "a name or number, or two with `:` between, such as `monday:friday`";
                file.error(value.at, format!("`{}` cannot be read", key.text), Some(hint.into()));
            }
            let wrong = parsed.iter().flatten().zip(&texts).find(|(found, _)| !is_range(**found, &all));
            if let Some((_, text)) = wrong {
                let message = format!("`{text}` in `{}` never comes", key.text);
                let hint = format!("from {} to {}, and the earlier one first", all.start(), all.end());
                file.error(value.at, message, Some(hint));
                return None;
            }
            parsed
        };
        let unsigned = |ranges: Vec<(i32, i32)>| {
            ranges.into_iter().map(|(from, to)| (from.max(0) as u32, to.max(0) as u32)).collect()
        };
        match key.text.as_str() {
            "times" => {
                let times = file.list(value);
                if times.len() > NAMES_MAX {
                    file.error(value.at, format!("an interval has at most {NAMES_MAX} times"), None);
                    return None;
                }
                found.times = times.iter().filter_map(|item| minutes(file, item)).collect();
            }
            "weekdays" => found.weekdays = unsigned(ranges(&WEEKDAYS, 0..=6)?),
            "days_of_month" => found.days_of_month = ranges(&[], -31..=31)?,
            "months" => found.months = unsigned(ranges(&MONTHS, 1..=12)?),
            "years" => found.years = ranges(&[], 0..=9_999)?,
            _ => found.zone = file.text(value)?,
        }
    }
    if !found.has_days() {
        file.error(node.at, "no month of these has such a day, so it never comes", None);
        return None;
    }
    Some(found)
}

/// Whether a range lies within `all` and does not end before it starts. For days of the month, a negative number
/// counts from the end of the month; a range may go from a positive to a negative day, but not the reverse.
fn is_range((from, to): (i32, i32), all: &RangeInclusive<i32>) -> bool {
    let is_day = *all.start() < 0;
    let is_in_order = if is_day && from > 0 && to < 0 { true } else { from <= to && (from < 0) == (to < 0) };
    is_in_order && all.contains(&from) && all.contains(&to) && !(is_day && (from == 0 || to == 0))
}

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// Reads a range such as `monday:friday`, `1:7`, `december`, `-1`.
fn range(text: &str, names: &[&str], base: i32) -> Option<(i32, i32)> {
    let one = |text: &str| {
        let place = names.iter().position(|name| name.eq_ignore_ascii_case(text.trim()));
        place.map(|place| place as i32 + base).or_else(|| text.trim().parse().ok())
    };
    match text.split_once(':') {
        Some((from, to)) => Some((one(from)?, one(to)?)),
        None => one(text).map(|value| (value, value)),
    }
}

/// Converts `{ start_time: '22:00', end_time: '24:00' }` to minutes of the day.
fn minutes(file: &File<'_>, node: &Node) -> Option<(u32, u32)> {
    let (mut start, mut end) = (None, None);
    for (key, value) in file.map(node, &["start_time", "end_time"]) {
        let text = file.text(value)?;
        let parsed = text.split_once(':').and_then(|(hour, minute)| {
            let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
            let is_time = hour < 24 && minute < 60 || (hour, minute) == (24, 0);
            is_time.then(|| hour * 60 + minute)
        });
        if parsed.is_none() {
            file.error(value.at, format!("`{text}` is no time of day"), Some("write it as '22:00'".into()));
        }
        if key.text == "start_time" { start = parsed } else { end = parsed }
    }
    match (start, end) {
        (Some(start), Some(end)) if start < end => Some((start, end)),
        _ => {
            file.error(
                node.at,
                "a time needs `start_time` before `end_time`",
                Some("over midnight, write two".into()),
            );
            None
        }
    }
}

pub(crate) fn inhibits(file: &File<'_>, node: &Node, out: &mut Vec<Inhibit>) {
    for item in file.list(node) {
        if out.len() >= MUTES_MAX {
            return file.error(item.at, format!("there are more than {MUTES_MAX} inhibitions"), None);
        }
        let (mut source, mut target, mut equal) = (None, None, Vec::new());
        for (key, value) in file.map(item, &["source", "target", "equal"]) {
            match key.text.as_str() {
                "source" => source = selector(file, value),
                "target" => target = selector(file, value),
                _ => equal = file.names_in(value).into_iter().map(Arc::from).collect(),
            }
        }
        let has = |name: &str| super::define::section(item, name).is_some();
        match (source, target) {
            (Some(source), Some(target)) => out.push(Inhibit { source, target, equal }),
            // Both keys are present, so the problem of their values is already noted.
            _ if has("source") && has("target") => {}
            _ => file.error(item.at, "an inhibition needs `source` and `target`", None),
        }
    }
}

/// Reads a list of matchers, or a single one. An empty list would match everything, so it is refused.
pub(super) fn selector(file: &File<'_>, node: &Node) -> Option<Selector> {
    let texts: Vec<(&Node, String)> = match &node.kind {
        Kind::List(items) => items.iter().filter_map(|item| Some((item, file.text(item)?))).collect(),
        _ => vec![(node, file.text(node)?)],
    };
    let mut all = Selector { name: None, matchers: Vec::new() };
    for (item, text) in texts {
        if !file.charge(item.at, 0) {
            return None;
        }
        let found = match matchers(&text) {
            Ok(found) => found.matchers,
            Err(error) => {
                // Compiling a refused expression may have cost as much as the largest accepted one.
                file.charge(item.at, if text.contains('~') { Pattern::BYTES_MAX } else { 0 });
                file.error(item.at, error.message, error.hint.or(Some("`source=~\"db.*\"`".into())));
                return None;
            }
        };
        if all.matchers.len() + found.len() > MATCHERS_MAX {
            file.error(item.at, format!("there are more than {MATCHERS_MAX} matchers"), None);
            return None;
        }
        let bytes: usize = found.iter().map(|matcher| matcher.pattern().map_or(0, Pattern::bytes)).sum();
        if !file.charge(item.at, bytes) {
            return None;
        }
        file.mention(item.at, &found);
        all.matchers.extend(found);
    }
    if all.matchers.is_empty() {
        let hint = "name what is meant, such as `source=\"db\"`; `rule=~\".+\"` is everything";
        file.error(node.at, "there is no matcher here, which would match everything", Some(hint.into()));
        return None;
    }
    if all.matchers.iter().all(is_met_by_nothing) {
        let message = "these matchers match nearly every alert, because a missing label matches them";
        let hint = "name what is meant, such as `source=\"db\"`; `rule=~\".+\"` is everything";
        file.error(node.at, message, Some(hint.into()));
        return None;
    }
    Some(all)
}

/// Whether a matcher demands a value but also matches a missing label. A matcher that excludes a value is
/// intended to match everything else.
fn is_met_by_nothing(matcher: &Matcher) -> bool {
    let is_asking = match &matcher.test {
        Test::Equal(_) | Test::Match(_) => true,
        // This matcher excludes every value that is not empty.
        Test::NotMatch(pattern) => matches!(pattern.text(), ".+" | "..*"),
        Test::NotEqual(_) => false,
    };
    is_asking && matcher.is_match("")
}

#[cfg(test)]
mod tests {
    use super::super::load_files;

    fn said(text: &str) -> Vec<String> {
        load_files(vec![("f.yaml".into(), text.into())])
            .diagnostics
            .into_iter()
            .map(|one| one.message)
            .collect()
    }

    #[test]
    fn no_matcher_is_not_everything() {
        let when = "start: '2026-11-15T02:00:00Z', end: '2026-11-15T03:00:00Z'";
        for of in ["[]", "''", "['']"] {
            let found = said(&format!("maintenance:\n  - {{ id: m, match: {of}, {when} }}\n"));
            assert!(found.len() == 1 && found[0].contains("no matcher"), "{of}: {found:?}");
        }
        for of in ["'team=\"\"'", "'source=~\".*\"'", "'team!~\".+\"'", "['a=\"\"', 'b=~\"x?\"']"] {
            let found = said(&format!("maintenance:\n  - {{ id: m, match: {of}, {when} }}\n"));
            assert!(found.len() == 1 && found[0].contains("nearly every alert"), "{of}: {found:?}");
        }
        for of in ["'a!=\"b\"'", "['a=\"\"', 'source=\"db\"']", "'severity!=\"critical\"'"] {
            assert_eq!(said(&format!("maintenance:\n  - {{ id: m, match: {of}, {when} }}\n")), [""; 0]);
        }
        let found = said("inhibit:\n  - { source: [], target: ['severity=\"info\"'], equal: [] }\n");
        assert!(found.len() == 1 && found[0].contains("no matcher"), "{found:?}");
        let found = said("inhibit:\n  - { target: ['severity=\"info\"'] }\n");
        assert!(found.len() == 1 && found[0].contains("needs `source`"), "{found:?}");
        assert_eq!(
            said(&format!("maintenance:\n  - {{ id: m, match: ['rule=~\".+\"'], {when} }}\n")),
            [""; 0]
        );
    }

    #[test]
    fn a_rule_or_a_severity_that_is_misspelt_is_a_doubt() {
        let rules = "rules:\n  - { id: latency_high, expr: 'max(x[1m]) > 1', severity: info }\n";
        let of = |matcher: &str| {
            let when = "start: '2026-11-15T02:00:00Z', end: '2026-11-15T03:00:00Z'";
            said(&format!("{rules}maintenance:\n  - {{ id: m, match: ['{matcher}'], {when} }}\n"))
        };
        assert!(of("rule=\"latency_hihg\"")[0].contains("no rule `latency_hihg`"));
        assert!(of("severity=\"warn\"")[0].contains("no severity `warn`"));
        for fine in
            ["rule=\"latency_high\"", "rule=\"of another directory\"", "severity=\"warning\"", "a=\"b\""]
        {
            assert!(of(fine).is_empty(), "{fine}: {:?}", of(fine));
        }
    }

    /// Goal: the total size of regular expressions is bounded. Method: many patterns of ten bytes that
    /// compile to a hundred thousand bytes each.
    #[test]
    fn regular_expressions_of_a_file_are_bounded_together() {
        let each = r#"'a=~"\w"'"#;
        let list = vec![each; 60].join(", ");
        let when = "start: '2026-11-15T02:00:00Z', end: '2026-11-15T03:00:00Z'";
        let one = |n: usize| format!("  - {{ id: m{n}, match: [{list}], {when} }}\n");
        let many: String = (0..40).map(one).collect();
        let found = said(&format!("maintenance:\n{many}"));
        assert!(found.iter().any(|message| message.contains("MiB")), "{found:?}");
        assert_eq!(said(&format!("maintenance:\n{}", one(0))), [""; 0]);
        let wide = vec!["'a=\"b\"'"; 65].join(", ");
        let found = said(&format!("maintenance:\n  - {{ id: m, match: [{wide}], {when} }}\n"));
        assert!(found[0].contains("more than 64 matchers"), "{found:?}");
    }

    #[test]
    fn an_hour_of_any_size_is_no_time_of_day() {
        let text = "maintenance:\n  - { id: m, match: ['a=\"b\"'], time_intervals: [{ times: [{ start_time: '99999999:00', end_time: '24:00' }] }] }\n";
        assert!(said(text)[0].contains("no time of day"), "{:?}", said(text));
    }
}
