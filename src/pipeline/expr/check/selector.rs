//! Selectors: names and matchers, and the window they are read over.

use super::super::parse::{MatcherTerm, SelectorTerm, Term, TermKind};
use super::super::{ExprError, Spot};
use super::{Check, Checker, Typed};
use crate::core::Span;
use crate::core::limits::PANES_PER_WINDOW_MAX;
use crate::core::rule::ast::pane_of;
use crate::core::selector::{By, Matcher, Pattern, Selector, Test};

/// The longest window: what 1h windows are kept for.
const WINDOW_MAX: Span = Span::from_hours(24 * 30);

/// Aggregates by name, for hints.
pub(super) const AGGREGATES: [&str; 14] = [
    "count", "sum", "avg", "min", "max", "last", "stddev", "rate", "p50", "p75", "p90", "p95", "p99", "p999",
];

impl Checker {
    /// A name by itself: the aggregate of a rule that has `metric:`, else a slip.
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

/// Matchers by themselves, as alerts are chosen: `source=~"db.*"`, several with commas.
pub fn matchers(text: &str) -> Check<Selector> {
    let wrapped = format!("x{{{text}}}");
    let parsed = super::super::parse::parse(&wrapped)?;
    let TermKind::Selector(SelectorTerm { matchers, window: None, .. }) = parsed.term.kind else {
        return Err(ExprError::new(parsed.term.at, format!("`{text}` is no matcher")));
    };
    let matchers = matchers.iter().map(matcher).collect::<Check<Vec<_>>>()?;
    Ok(Selector { name: None, matchers })
}

/// A selector from what was written.
pub fn selector(term: &SelectorTerm) -> Check<Selector> {
    let mut name: Option<std::sync::Arc<str>> = term.name.as_deref().map(Into::into);
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

pub(super) fn matcher(written: &MatcherTerm) -> Check<Matcher> {
    if written.label == "__name__" {
        // It would match nothing, and nobody would say so.
        let error = ExprError::new(written.at, "there is no label `__name__`");
        return Err(error.hint("a metric's name is the label `name` in a matcher"));
    }
    let pattern = || {
        Pattern::new(&written.value).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or("invalid").trim().to_string();
            ExprError::new(written.at, format!("`{}` is no regular expression: {reason}", written.value))
        })
    };
    let test = match written.op {
        "=" => Test::Equal(written.value.as_str().into()),
        "!=" => Test::NotEqual(written.value.as_str().into()),
        "=~" => Test::Match(pattern()?),
        _ => Test::NotMatch(pattern()?),
    };
    Ok(Matcher { label: written.label.as_str().into(), test })
}

/// The window of a selector, within what can be kept (RULES.md, "Trailing windows").
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
        return Err(ExprError::new(
            spot,
            format!("{window} is longer than the {WINDOW_MAX} that windows are kept"),
        ));
    }
    Ok(window)
}

/// `by (…)` as keys: sorted, each once; without it each series is a key.
pub(super) fn by(labels: Option<&[String]>) -> By {
    match labels {
        None => By::Series,
        Some(labels) => {
            let mut labels: Vec<std::sync::Arc<str>> = labels.iter().map(|l| l.as_str().into()).collect();
            labels.sort();
            labels.dedup();
            By::Labels(labels)
        }
    }
}
