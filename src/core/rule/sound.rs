//! Checks that a rule set from the log can be evaluated.
//!
//! Intuition: the `pipeline` module checks the rules of the files, and they enter the log as data that refers
//! to views by index. A log may also hold rule sets that were not checked: from a damaged export, or from any
//! client that may publish. So each rule set is checked once more when it is read from the log, for the
//! properties that the engine relies on.
//! Invariant: a sound rule set makes no engine panic, and every rule set from the `pipeline` module is sound.
//! Rejected: building the rule set again from its files (a log outlives the version that wrote it).

use super::ast::{Expr, Past, Period};
use super::{OnUnknown, Rule, RuleSet, Subject};
use crate::core::view::{ViewKind, ViewSpec};
use crate::core::vocab::aggregate::Aggregate;
use crate::core::vocab::limits::{PANE_MIN, PANES_PER_WINDOW_MAX, SEASON_WINDOWS_MAX, WINDOW_MAX};
use crate::core::vocab::severity::LEVELS_MAX;
use crate::core::vocab::time::{SPAN_MAX, Span};

/// The defect of a rule set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    #[error("view {0} has a length that cannot be kept")]
    View(usize),
    #[error("`{0}` reads a view that is not there, or of another kind")]
    Reads(String),
    #[error("rule `{0}` has no levels, or some that do not fit what it judges")]
    Levels(String),
    #[error("`{0}` has a number outside its range")]
    Number(String),
}

impl RuleSet {
    /// Checks the properties that the engine relies on.
    pub fn check_sound(&self) -> Result<(), Unsound> {
        let bad = self.views.iter().position(|view| !view.is_sound());
        bad.map_or(Ok(()), |place| Err(Unsound::View(place)))?;
        for record in &self.records {
            let mut sound = true;
            record.expr.for_each(&mut |part| sound &= self.is_sound(part, &record.views));
            self.check_reads(&record.name, sound, &record.views)?;
        }
        self.rules.iter().try_for_each(|rule| self.check_rule(rule))
    }

    fn check_rule(&self, rule: &Rule) -> Result<(), Unsound> {
        let mut sound = true;
        let mut visit = |part: &Expr| sound &= self.is_sound(part, &rule.views);
        match &rule.subject {
            Subject::Value(expr) => expr.for_each(&mut visit),
            Subject::Condition(cond) => cond.for_each(&mut visit),
        }
        self.check_reads(&rule.id, sound, &rule.views)?;
        if !rule.has_sound_levels() {
            return Err(Unsound::Levels(rule.id.to_string()));
        }
        let unknown = match rule.on_unknown {
            OnUnknown::ClearAfter(span) => span,
            OnUnknown::Hold | OnUnknown::Fire => Span::ZERO,
        };
        let spans = [rule.keep_firing_for, rule.cooldown, unknown];
        let pending = rule.levels.iter().map(|level| level.pending_for);
        let steps = rule.escalation.iter().flat_map(|policy| &policy.steps).map(|step| step.after);
        match spans.into_iter().chain(pending).chain(steps).all(|span| span >= Span::ZERO) {
            true => Ok(()),
            false => Err(Unsound::Number(rule.id.to_string())),
        }
    }

    fn check_reads(&self, name: &str, is_sound: bool, views: &[u32]) -> Result<(), Unsound> {
        let are_there = views.iter().all(|view| (*view as usize) < self.views.len());
        let ascend = views.windows(2).all(|pair| pair[0] < pair[1]);
        if is_sound && are_there && ascend { Ok(()) } else { Err(Unsound::Reads(name.into())) }
    }

    /// Whether an expression itself, without its parts, reads views of the right kind, and only views in
    /// `stated`, the list of its rule or record. The binary search needs this list in ascending order, which
    /// `check_reads` verifies.
    fn is_sound(&self, expr: &Expr, stated: &[u32]) -> bool {
        let is_stated = expr.views().iter().all(|view| stated.binary_search(view).is_ok());
        is_stated
            && match expr {
                Expr::Aggregate { view, aggregate } => self.is_trailing(*view) && aggregate.is_sound(),
                Expr::Change { view, aggregate, period } => {
                    self.is_trailing(*view) && aggregate.is_sound() && is_duration(*period)
                }
                Expr::Past(past) => self.is_past(past),
                Expr::Correlation(both) => self.is_past(&both.a) && self.is_past(&both.b),
                Expr::Sustained { period, .. } | Expr::Occurrences { period, .. } => is_duration(*period),
                _ => true,
            }
    }

    fn is_past(&self, past: &Past) -> bool {
        let baseline = self.kind(past.baseline);
        let is_baseline = match past.period {
            Period::Deploys(count) => {
                matches!(baseline, Some(ViewKind::Deploys { window, .. }) if window == past.window)
                    && count > 0
            }
            Period::Span(span) => is_baseline(baseline, past.window) && is_kept(span, past.window),
            Period::Season { every, times } => {
                let is_season = every.is_positive() && times > 0;
                is_baseline(baseline, past.window) && is_season && is_kept(past.period.reach(), past.window)
            }
        };
        let has_versions = past.per_version.is_none_or(|view| self.is_trailing(view));
        self.is_trailing(past.current) && is_baseline && has_versions && past.aggregate.is_sound()
    }

    fn is_trailing(&self, view: u32) -> bool {
        matches!(self.kind(view), Some(ViewKind::Trailing { .. }))
    }

    fn kind(&self, view: u32) -> Option<ViewKind> {
        Some(self.views.get(view as usize)?.kind)
    }
}

fn is_baseline(kind: Option<ViewKind>, length: Span) -> bool {
    matches!(kind, Some(ViewKind::Baseline { window, .. }) if window == length)
}

fn is_duration(span: Span) -> bool {
    span.is_positive() && span <= SPAN_MAX
}

fn is_window(window: Span) -> bool {
    window.is_positive() && window <= WINDOW_MAX
}

/// Whether the windows of a period can be kept.
fn is_kept(period: Span, window: Span) -> bool {
    is_window(window) && period.is_positive() && period.ms() / window.ms() <= SEASON_WINDOWS_MAX
}

impl ViewSpec {
    fn is_sound(&self) -> bool {
        match self.kind {
            ViewKind::Trailing { window, pane, history } => {
                let has_panes = pane.is_positive() && is_window(window) && window.ms() % pane.ms() == 0;
                has_panes
                    && window.ms() / pane.ms() <= PANES_PER_WINDOW_MAX
                    && (history == Span::ZERO || is_kept(history, window))
            }
            ViewKind::Baseline { window, period, aggregate, .. } => {
                is_kept(period, window) && aggregate.is_sound()
            }
            ViewKind::Deploys { window, deploys, aggregate, .. } => {
                is_window(window) && deploys > 0 && aggregate.is_sound()
            }
            ViewKind::Newest => true,
            // A gathering view collects partials for the aggregate partition; no rule reads it.
            ViewKind::Gathering { pane, kept, .. } => {
                let kept_max = WINDOW_MAX * (SEASON_WINDOWS_MAX + 1);
                pane >= PANE_MIN && kept >= Span::ZERO && kept <= kept_max
            }
        }
    }
}

impl Aggregate {
    fn is_sound(self) -> bool {
        match self {
            Aggregate::Quantile(q) => (0.0..=1.0).contains(&q),
            _ => true,
        }
    }
}

impl Rule {
    fn has_sound_levels(&self) -> bool {
        let (count, is_condition) = (self.levels.len(), matches!(self.subject, Subject::Condition(_)));
        let ascend = self.levels.windows(2).all(|pair| pair[0].severity < pair[1].severity);
        let fit = self.levels.iter().all(|level| level.condition.is_none() == is_condition);
        let most = if is_condition { 1 } else { LEVELS_MAX };
        (1..=most).contains(&count) && ascend && fit
    }
}
