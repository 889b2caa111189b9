//! Selectors: names, matchers and windows.

use super::super::parse::{MatcherTerm, SelectorTerm, Term, TermKind};
use super::super::{ExprError, Spot};
use super::{Check, Checker, Doubt, Typed};
use crate::core::Span;
use crate::core::rule::ast::pane_of;
use crate::core::vocab::limits::{PANES_PER_WINDOW_MAX, WINDOW_MAX};
use crate::core::vocab::pattern::{Pattern, PatternError};
use crate::core::vocab::selector::{By, Matcher, Selector, Test};
use crate::pipeline::bounds::{MATCHERS_BYTES_MAX, REGEXES_BYTES_MAX};
use crate::pipeline::builtin::{self, Wrong, has, labels_in_words};
use std::collections::HashMap;
use std::sync::Arc;

const DAY_MS: i64 = 86_400_000;

/// Aggregates by name, for hints.
pub(super) const AGGREGATES: [&str; 14] = [
    "count", "sum", "avg", "min", "max", "last", "stddev", "rate", "p50", "p75", "p90", "p95", "p99", "p999",
];

impl Checker {
    /// Checks a name without arguments. In a rule with `metric:` it may be an aggregate of that metric;
    /// elsewhere it is an error.
    pub(super) fn bare(&mut self, term: &Term, selector: &SelectorTerm) -> Check<Typed> {
        let name = selector.name.clone().unwrap_or_default();
        if let Some(metric) = self.metric.clone()
            && AGGREGATES.contains(&name.as_str())
            && selector.matchers.is_empty()
        {
            let of = SelectorTerm {
                name: Some(metric),
                matchers: Vec::new(),
                window: Some(selector.window.unwrap_or((Span::from_mins(1), term.at))),
            };
            return self.aggregate(term.at, &name, &of, Some(&["source".to_string()]), None);
        }
        let hint =
            format!("write an aggregate over it, such as `avg({name}[1m])` or `p99({name}[5m]) by (source)`");
        Err(ExprError::new(term.at, format!("`{name}` is a series, not a value")).hint(hint))
    }
}

/// Reads matchers without a series, as they select alerts: `source=~"db.*"`, several separated by commas.
pub fn matchers(text: &str) -> Check<Selector> {
    let wrapped = format!("x{{{text}}}");
    let parsed = super::super::parse::parse(&wrapped)?;
    let TermKind::Selector(SelectorTerm { matchers, window: None, .. }) = parsed.term.kind else {
        return Err(ExprError::new(parsed.term.at, format!("`{text}` is no matcher")));
    };
    let matchers = matchers.iter().map(bounded()).collect::<Check<Vec<_>>>()?;
    Ok(Selector { name: None, matchers })
}

/// Makes a selector from its parsed form.
pub fn selector(term: &SelectorTerm) -> Check<Selector> {
    selector_with(term, &mut bounded())
}

/// Returns a reader of matchers that limits the bytes of all their regular expressions together.
fn bounded() -> impl FnMut(&MatcherTerm) -> Check<Matcher> {
    let mut bytes = 0;
    move |written| {
        let matcher = matcher(written)?;
        bytes += matcher.pattern().map_or(0, Pattern::bytes);
        if bytes <= MATCHERS_BYTES_MAX {
            return Ok(matcher);
        }
        let most = MATCHERS_BYTES_MAX >> 20;
        let message = format!("the regular expressions up to here take more than {most} MiB");
        Err(ExprError::new(written.at, message).hint("match by `=` where you can"))
    }
}

fn selector_with(
    term: &SelectorTerm,
    matcher: &mut dyn FnMut(&MatcherTerm) -> Check<Matcher>,
) -> Check<Selector> {
    let mut name: Option<Arc<str>> = term.name.as_deref().map(Into::into);
    let mut matchers = Vec::new();
    for written in &term.matchers {
        if written.label == "name" && written.op == "=" && name.is_none() {
            name = Some(written.value.as_str().into());
            continue;
        }
        matchers.push(matcher(written)?);
    }
    Ok(Selector { name, matchers })
}

/// Reads one matcher.
fn matcher(written: &MatcherTerm) -> Check<Matcher> {
    matcher_with(written, Pattern::new)
}

fn matcher_with(
    written: &MatcherTerm,
    mut pattern: impl FnMut(&str) -> Result<Pattern, PatternError>,
) -> Check<Matcher> {
    if written.label == "__name__" {
        // A matcher of `__name__` would match nothing, and no error would show it.
        let error = ExprError::new(written.at, "there is no label `__name__`");
        return Err(error.hint("a metric's name is the label `name` in a matcher"));
    }
    let mut compiled = || {
        pattern(&written.value).map_err(|error| {
            ExprError::new(written.at, format!("`{}` is no regular expression: {error}", written.value))
        })
    };
    let test = match written.op {
        "=" => Test::Equal(written.value.as_str().into()),
        "!=" => Test::NotEqual(written.value.as_str().into()),
        "=~" => Test::Match(compiled()?),
        _ => Test::NotMatch(compiled()?),
    };
    Ok(Matcher { label: written.label.as_str().into(), test })
}

impl Checker {
    /// Reads the selector of an expression. Each distinct regular expression of a rule set is compiled once, and the
    /// total size is bounded.
    pub(super) fn selector(&mut self, term: &SelectorTerm) -> Check<Selector> {
        let selector = selector_with(term, &mut |written: &MatcherTerm| self.matcher(written))?;
        let written = term.matchers.iter().filter(|one| !is_name(one, term));
        let places: Vec<Spot> = written.map(|one| one.at).collect();
        self.doubt_exclusion(selector.name.as_deref(), &selector.matchers, &places);
        if let Some(name) = &selector.name
            && self.records.contains_key(name)
        {
            self.doubt_recorded(name, &selector.matchers, &places);
        } else if let Some(name) = &selector.name
            && !self.metrics.contains_key(name)
        {
            if let Some(Wrong { place, message, hint }) = builtin::wrong(name, &selector.matchers) {
                return Err(ExprError { at: places[place], message, hint: Some(hint) });
            }
            self.doubt_stages(Some(&**name), &selector.matchers, &places);
        }
        Ok(selector)
    }

    pub(super) fn matcher(&mut self, written: &MatcherTerm) -> Check<Matcher> {
        let is_regex = matches!(written.op, "=~" | "!~");
        if is_regex && self.regex_bytes > REGEXES_BYTES_MAX && !self.patterns.contains_key(&*written.value) {
            let most = REGEXES_BYTES_MAX >> 20;
            let message = format!("the regular expressions up to here take more than {most} MiB");
            return Err(ExprError::new(written.at, message).hint("match by `=` where you can"));
        }
        let (patterns, bytes) = (&mut self.patterns, &mut self.regex_bytes);
        matcher_with(written, |text| {
            if let Some(known) = patterns.get(text) {
                return Ok(known.clone());
            }
            let pattern = Pattern::new(text);
            // Compiling a refused expression may have cost as much as the largest accepted one.
            *bytes += pattern.as_ref().map_or(Pattern::BYTES_MAX, Pattern::bytes);
            let pattern = pattern?;
            patterns.insert(text.into(), pattern.clone());
            Ok(pattern)
        })
    }

    /// Warns about matchers of one label that no single value can meet together.
    pub(super) fn doubt_exclusion(&mut self, name: Option<&str>, matchers: &[Matcher], places: &[Spot]) {
        // The source of a derived series is its pipeline.
        let is_derived = name.is_some_and(|name| builtin::labels_of(name).is_some());
        let label = |matcher: &Matcher| match &*matcher.label {
            "pipeline" if is_derived => Arc::from("source"),
            _ => matcher.label.clone(),
        };
        let fixed = matchers.iter().filter_map(|matcher| Some((matcher, matcher.equal()?)));
        let first: HashMap<Arc<str>, (&Matcher, &Arc<str>)> =
            fixed.rev().map(|(matcher, value)| (label(matcher), (matcher, value))).collect();
        for (matcher, at) in matchers.iter().zip(places) {
            let Some((other, value)) = first.get(&label(matcher)) else { continue };
            if !matcher.is_match(value) {
                let message = format!("no series has `{other}` and `{matcher}`, so this matches nothing");
                self.doubts.push(Doubt { at: *at, message, hint: None });
            }
        }
    }

    /// Warns about a pipeline or stage that is not declared. `places`: the places of the matchers.
    pub(super) fn doubt_stages(&mut self, of: Option<&str>, matchers: &[Matcher], places: &[Spot]) {
        let found = builtin::doubts(of, matchers, &self.pipelines);
        let doubt = |Wrong { place, message, hint }| Doubt { at: places[place], message, hint: Some(hint) };
        self.doubts.extend(found.into_iter().map(doubt));
    }

    /// Warns about a matcher of a label that a recorded series never has. This is not an error, because events may
    /// use the name of the record too.
    fn doubt_recorded(&mut self, name: &Arc<str>, matchers: &[Matcher], places: &[Spot]) {
        let Some(known) = self.labels_of(name) else { return };
        let asking = matchers.iter().zip(places).filter(|(matcher, _)| !matcher.is_match(""));
        for (matcher, at) in asking.filter(|(matcher, _)| !has(&known, &matcher.label)) {
            let message = format!("`{name}` has no label `{}`, so this matches nothing", matcher.label);
            self.doubts.push(Doubt { at: *at, message, hint: Some(labels_in_words(&known)) });
        }
    }

    /// Warns about a label in `by (…)` that a derived or recorded series cannot have.
    pub(super) fn doubt_keys(&mut self, at: Spot, selector: &Selector, by: &By) {
        let By::Labels(labels) = by else { return };
        let Some(name) = &selector.name else { return };
        let Some(known) = self.labels_of(name) else { return };
        for label in labels.iter().filter(|label| !has(&known, label)) {
            let message = format!("`{name}` has no label `{label}`, so all of it is one key");
            self.doubts.push(Doubt { at, message, hint: Some(labels_in_words(&known)) });
        }
    }

    /// Returns the labels that a series of this name can have; `None` if they are not known.
    fn labels_of(&self, name: &Arc<str>) -> Option<Vec<Arc<str>>> {
        match self.records.get(name) {
            Some(recorded) => recorded.labels.clone(),
            None if self.metrics.contains_key(name) => None,
            None => builtin::labels_of(name),
        }
    }

    /// Warns about the rate of a metric that looks like a counter or a gauge and is not declared.
    pub(super) fn doubt_rate(&mut self, at: Spot, aggregate: &str, selector: &Selector) {
        let Some(name) = selector.name.as_deref().filter(|_| aggregate == "rate") else { return };
        if self.metrics.contains_key(name) || self.records.contains_key(name) {
            return;
        }
        let (message, hint) = if name.ends_with("_total") {
            (
                format!("`{name}` looks like a counter that only grows; this is how often it is reported"),
                format!(
                    "`metrics: {{ {name}: {{ temporality: cumulative }} }}`, or `delta` if each value is new"
                ),
            )
        } else if GAUGES.iter().any(|unit| name.ends_with(unit)) {
            let hint = format!("`trend(avg({name}[5m]), 1h)` is how much it changes in an hour");
            (format!("`{name}` looks like a gauge; this is how often it is reported, per second"), hint)
        } else {
            return;
        };
        self.doubts.push(Doubt { at, message, hint: Some(hint) });
    }
}

/// Suffixes of names of gauges.
const GAUGES: [&str; 3] = ["_percent", "_ratio", "_celsius"];

/// Whether a matcher is the `name="…"` matcher that became the selector's name.
fn is_name(written: &MatcherTerm, term: &SelectorTerm) -> bool {
    let is_one = |one: &MatcherTerm| one.label == "name" && one.op == "=";
    let first = term.matchers.iter().find(|one| is_one(one));
    term.name.is_none() && first.is_some_and(|first| first.at == written.at)
}

/// Returns the window of a selector. A window longer than the retention of windows is an error.
pub(super) fn window(term: &SelectorTerm, at: Spot) -> Check<Span> {
    let Some((window, spot)) = term.window else {
        let name = term.name.as_deref().unwrap_or("{…}");
        return Err(ExprError::new(at, "the series needs a window").hint(format!("write `{name}[5m]`")));
    };
    let (ten_seconds, hour) = (Span::from_secs(10), Span::from_hours(1));
    if window < ten_seconds || window.ms() % ten_seconds.ms() != 0 {
        return Err(ExprError::new(spot, format!("{window} is no multiple of 10s")));
    }
    if window > hour && window.ms() % hour.ms() != 0 {
        return Err(ExprError::new(spot, format!("{window} is above 1h, so it must be a multiple of 1h")));
    }
    if window > WINDOW_MAX || window.ms() / pane_of(window).ms() > PANES_PER_WINDOW_MAX {
        let message = format!(
            "this window is longer than the {} days that windows of 1h are kept",
            WINDOW_MAX.ms() / DAY_MS
        );
        return Err(ExprError::new(spot, message));
    }
    Ok(window)
}

/// Makes keys from `by (…)`, sorted and without duplicates; without `by`, each series is a key.
pub(super) fn by(labels: Option<&[String]>) -> By {
    match labels {
        None => By::Series,
        Some(labels) => {
            let mut labels: Vec<Arc<str>> = labels.iter().map(|l| l.as_str().into()).collect();
            labels.sort();
            labels.dedup();
            By::Labels(labels)
        }
    }
}
