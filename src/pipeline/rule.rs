//! Checks one entry of `rules:`.

use super::bounds::ESCALATIONS_BYTES_MAX;
use super::diagnostic::nearest;
use super::expr::check::range::says_nothing;
use super::expr::check::{Checked, Checker, Keys, Typed};
use super::expr::parse::parse;
use super::expr::{ExprError, check::Measure};
use super::tree::File;
use super::yaml::{Kind, Node, TextPlace};
use super::{reset, summary};
use crate::core::Span;
use crate::core::alert::self_alerts::is_own;
use crate::core::rule::ast::{Cond, Elapsed, Expr};
use crate::core::rule::{Fdr, Level, OnUnknown, Reads, Rule, Subject};
use crate::core::vocab::calendar::Plan;
use crate::core::vocab::comparison::Compare;
use crate::core::vocab::escalation::Escalation;
use crate::core::vocab::limits::{LABELS_MAX, NAME_BYTES_MAX};
use crate::core::vocab::severity::Severity;
use std::collections::BTreeMap;
use std::sync::Arc;

const KEYS: [&str; 19] = [
    "id",
    "expr",
    "metric",
    "severity",
    "levels",
    "reset",
    "for",
    "keep_firing_for",
    "min_count",
    "on_unknown",
    "cooldown",
    "actions",
    "labels",
    "summary",
    "runbook",
    "escalation",
    "actions_in_maintenance",
    "fdr",
    "shadow",
];

/// A key that users expect here but that belongs to an escalation.
const ELSEWHERE: (&str, &str, &str) =
    ("notify", "a rule has no `notify`", "name a policy with `escalation:`; its steps have `notify`");

/// The fields of a rule as nodes of the file.
#[derive(Debug)]
struct Raw<'n> {
    at: TextPlace,
    fields: BTreeMap<&'n str, &'n Node>,
}

/// Checks one rule; returns `None` after an error is noted.
pub(crate) fn rule(file: &File<'_>, checker: &mut Checker, node: &Node) -> Option<Rule> {
    let entries = file.map_without(node, &KEYS, ELSEWHERE);
    let raw =
        Raw { at: node.at, fields: entries.iter().map(|(key, value)| (key.text.as_str(), *value)).collect() };
    let id = raw.id(file)?;
    let expr = raw.fields.get("expr").copied();
    let Some(expr) = expr else {
        file.error(node.at, format!("rule `{id}` has no `expr`"), None);
        return None;
    };
    let text = file.text(expr)?;
    checker.metric = raw.fields.get("metric").and_then(|node| file.name_of(node));
    checker.places = 0;
    checker.doubts.clear();
    let noted = |error: ExprError| {
        let length = error.at.end.saturating_sub(error.at.start);
        file.error_within(expr, error.at.start, length, error.message, error.hint);
    };
    let parsed = parse(&text).map_err(noted).ok()?;
    let checked = checker.check(&parsed.term).map_err(noted).ok()?;
    checker.tell_doubts(file, expr);
    let keys = match &checked {
        Checked::Value(typed) => typed.keys.clone(),
        Checked::Condition(_, keys) => keys.clone(),
    };
    let labels = raw.labels(file);
    let pending_for = raw.pending_for(file, parsed.pending_for)?;
    let (subject, levels, unit) = raw.judge(file, checker, expr, checked, &pending_for)?;
    let levels = super::threshold::as_written(levels, &parsed.term, &text);
    let mut rule = Rule {
        id: id.as_str().into(),
        views: Vec::new(),
        reads: Reads::default(),
        subject,
        levels,
        keep_firing_for: raw.span(file, "keep_firing_for")?,
        min_count: raw.fields.get("min_count").map_or(Some(0), |node| file.whole(node))?,
        on_unknown: raw.on_unknown(file)?,
        cooldown: raw.span(file, "cooldown")?,
        summary: raw.summary(file, &keys, &labels)?,
        labels,
        runbook: raw.fields.get("runbook").and_then(|node| fixed(file, node, "runbook")).map(Into::into),
        escalation: raw.escalation(file, checker)?,
        acts_in_maintenance: raw.flag(file, "actions_in_maintenance"),
        fdr: raw.fdr(file)?,
        is_shadow: raw.flag(file, "shadow"),
        unit: unit.and_then(|measure| match measure {
            Measure::Unit(unit) | Measure::Literal(unit) => Some(unit),
            Measure::Number | Measure::Unknown(_) => None,
        }),
        hash: "".into(),
        text: text.as_str().into(),
    };
    note_reads(&mut rule);
    rule.hash = hash(&rule).into();
    Some(rule)
}

impl<'n> Raw<'n> {
    fn id(&self, file: &File<'_>) -> Option<String> {
        let Some(node) = self.fields.get("id") else {
            file.error(
                self.at,
                "a rule needs an `id`",
                Some("the id names its alerts: `id: high_latency`".into()),
            );
            return None;
        };
        let id = file.text(node)?;
        let is_good = !id.is_empty()
            && id.len() <= NAME_BYTES_MAX
            && !is_own(&id)
            && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if !is_good {
            let hint = "letters, digits, `_`, `-` and `.`; `_sg_` is reserved";
            file.error(node.at, format!("`{id}` cannot be an id"), Some(hint.into()));
            return None;
        }
        Some(id)
    }

    fn span(&self, file: &File<'_>, key: &str) -> Option<Span> {
        self.fields.get(key).map_or(Some(Span::ZERO), |node| file.span(node))
    }

    /// Reads `for`: one duration for all levels, or one for each level. `said`: the duration of a trailing
    /// `for` in the expression, which is the default.
    fn pending_for(&self, file: &File<'_>, said: Option<Span>) -> Option<BTreeMap<Option<Severity>, Span>> {
        let mut spans = BTreeMap::from([(None, said.unwrap_or(Span::ZERO))]);
        match self.fields.get("for") {
            None => {}
            Some(node @ Node { kind: Kind::Map(_), .. }) => {
                for (key, value) in file.names(node) {
                    spans.insert(Some(severity(file, key.at, &key.text)?), file.span(value)?);
                }
            }
            Some(node) => {
                spans.insert(None, file.span(node)?);
            }
        }
        Some(spans)
    }

    /// Determines the subject of the rule, its levels, and the measure of its value.
    fn judge(
        &self,
        file: &File<'_>,
        checker: &Checker,
        expr: &Node,
        checked: Checked,
        pending_for: &BTreeMap<Option<Severity>, Span>,
    ) -> Option<(Subject, Vec<Level>, Option<Measure>)> {
        match (checked, self.fields.get("levels")) {
            (Checked::Value(typed), Some(levels)) => {
                let judged = self.levels(file, checker, levels, &typed, pending_for)?;
                let (expr, measure) = (typed.expr, typed.measure);
                Some((Subject::Value(expr), judged, Some(measure)))
            }
            (Checked::Condition(cond, _), None) => {
                let measure = leading_measure(checker, &cond);
                let level = self.single_level(file, checker, &cond, measure.clone(), pending_for)?;
                Some((Subject::Condition(cond), vec![level], measure))
            }
            (Checked::Value(_), None) => {
                let hint = "write `expr: … > 10` with `severity:`, or add `levels: { warning: '> 10' }`";
                file.error(expr.at, "this is a value without a threshold", Some(hint.into()));
                None
            }
            (Checked::Condition(..), Some(levels)) => {
                let hint = "take the comparison out of `expr`, or take `levels` away";
                file.error(
                    levels.at,
                    "`levels` judge a value, but `expr` is a condition already",
                    Some(hint.into()),
                );
                None
            }
        }
    }

    fn levels(
        &self,
        file: &File<'_>,
        checker: &Checker,
        node: &Node,
        typed: &Typed,
        pending_for: &BTreeMap<Option<Severity>, Span>,
    ) -> Option<Vec<Level>> {
        if self.fields.contains_key("severity") {
            file.error(
                self.at,
                "`severity` and `levels` do not go together; the levels are severities",
                None,
            );
        }
        let resets: BTreeMap<Severity, &Node> = match self.fields.get("reset") {
            None => BTreeMap::new(),
            Some(node) => {
                let names = file.names(node).into_iter();
                names.filter_map(|(key, value)| Some((Severity::from_name(&key.text)?, value))).collect()
            }
        };
        let mut levels = Vec::new();
        for (key, value) in file.names(node) {
            let severity = severity(file, key.at, &key.text)?;
            let (condition, threshold) = compare(file, checker, typed, value)?;
            let reset = match resets.get(&severity) {
                Some(node) => Some(reset_of(file, checker, (typed, node), Some((condition, &threshold)))?),
                None => None,
            };
            levels.push(Level {
                severity,
                condition: Some(condition),
                reset,
                pending_for: span_of(pending_for, severity),
                actions: self.actions(file, severity),
                threshold: threshold.into(),
            });
        }
        levels.sort_by_key(|level| level.severity);
        if levels.is_empty() {
            file.error(node.at, "`levels` is empty", None);
            return None;
        }
        if let Some((below, above)) = reset::out_of_order(&levels) {
            let (below, above) = (below.severity.name(), above.severity.name());
            let message = format!("`{above}` is met whenever `{below}` is, so `{below}` never fires");
            file.warn(node.at, message, Some("give the higher level a stricter limit".into()));
        }
        self.name_levels(file, &levels);
        Some(levels)
    }

    /// Checks that `reset`, `for` and `actions` name only levels that the rule has.
    fn name_levels(&self, file: &File<'_>, levels: &[Level]) {
        for of in ["reset", "for", "actions"] {
            let Some(Node { kind: Kind::Map(entries), .. }) = self.fields.get(of).copied() else { continue };
            for (key, _) in entries {
                let is_there = levels.iter().any(|level| level.severity.name() == key.text);
                if !is_there {
                    let names: Vec<&str> = levels.iter().map(|level| level.severity.name()).collect();
                    let message = format!("`{of}` names `{}`, which is no level of this rule", key.text);
                    file.error(key.at, message, Some(format!("its levels: {}", names.join(", "))));
                }
            }
        }
    }

    fn single_level(
        &self,
        file: &File<'_>,
        checker: &Checker,
        cond: &Cond,
        measure: Option<Measure>,
        pending_for: &BTreeMap<Option<Severity>, Span>,
    ) -> Option<Level> {
        let Some(node) = self.fields.get("severity") else {
            file.error(self.at, "a rule needs `severity` or `levels`", Some("`severity: warning`".into()));
            return None;
        };
        let severity = severity(file, node.at, &file.text(node)?)?;
        let (leading, op, right) = cond.leading();
        let typed = Typed {
            expr: leading.clone(),
            measure: measure.clone().unwrap_or(Measure::Unknown(None)),
            keys: super::expr::check::Keys::Any,
        };
        let threshold = match (right, &measure) {
            (Expr::Number(limit), Some(Measure::Unit(unit))) => format!("{} {limit} {unit}", op.symbol()),
            (Expr::Number(limit), _) => format!("{} {limit}", op.symbol()),
            (Expr::Learned(_), _) => format!("{} learned", op.symbol()),
            _ => op.symbol().to_string(),
        };
        let reset = match self.fields.get("reset").copied() {
            Some(Node { kind: Kind::Map(entries), .. }) => entries.first().map(|(_, node)| node),
            other => other,
        };
        // In a condition with `and` or `or`, one comparison says little about the whole. The reset is
        // therefore checked only against a single comparison.
        let condition = match (cond, right) {
            (Cond::Compare { .. }, Expr::Number(limit)) => Some(Compare { op, limit: *limit }),
            _ => None,
        };
        let of = condition.map(|condition| (condition, threshold.as_str()));
        let reset = match reset {
            Some(node) => Some(reset_of(file, checker, (&typed, node), of)?),
            None => None,
        };
        let level = Level {
            severity,
            condition: None,
            reset,
            pending_for: span_of(pending_for, severity),
            actions: self.actions(file, severity),
            threshold: threshold.into(),
        };
        self.name_levels(file, std::slice::from_ref(&level));
        Some(level)
    }

    /// Reads the actions of a level: one list for all levels, or one for each level.
    fn actions(&self, file: &File<'_>, severity: Severity) -> Vec<Arc<str>> {
        let texts = |node| file.names_in(node).into_iter().map(Into::into).collect();
        match self.fields.get("actions") {
            None => Vec::new(),
            Some(Node { kind: Kind::Map(entries), .. }) => {
                let own = entries.iter().find(|(key, _)| key.text == severity.name());
                own.map(|(_, node)| texts(node)).unwrap_or_default()
            }
            Some(node) => texts(node),
        }
    }

    /// Reads `hold`, `clear_after 30m` or `fire`.
    fn on_unknown(&self, file: &File<'_>) -> Option<OnUnknown> {
        let Some(node) = self.fields.get("on_unknown") else { return Some(OnUnknown::default()) };
        let text = file.text(node)?;
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["hold"] => Some(OnUnknown::Hold),
            ["fire"] => Some(OnUnknown::Fire),
            ["clear_after", span] if span.parse::<Span>().is_ok() => {
                Some(OnUnknown::ClearAfter(span.parse().unwrap_or_default()))
            }
            _ => {
                file.error(
                    node.at,
                    format!("`{text}` is not known"),
                    Some("hold, clear_after 30m, or fire".into()),
                );
                None
            }
        }
    }

    fn labels(&self, file: &File<'_>) -> BTreeMap<Arc<str>, Arc<str>> {
        let Some(node) = self.fields.get("labels") else { return BTreeMap::new() };
        let names = file.names(node);
        if names.len() > LABELS_MAX {
            let message = format!("a rule has {} labels; at most {LABELS_MAX} are taken", names.len());
            file.error(node.at, message, None);
            return BTreeMap::new();
        }
        let mut labels = BTreeMap::new();
        for (key, value) in names {
            let Some(text) = fixed(file, value, "label") else { continue };
            labels.insert(Arc::from(key.text.as_str()), Arc::from(text));
        }
        labels
    }

    /// Returns the escalation that the rule names.
    fn escalation(&self, file: &File<'_>, checker: &mut Checker) -> Option<Option<Escalation>> {
        let Some(node) = self.fields.get("escalation") else { return Some(None) };
        let name = file.name_of(node)?;
        let Some(found) = checker.escalations.get(&name) else {
            let near = nearest(&name, checker.escalations.keys().map(String::as_str));
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            file.error(node.at, format!("there is no escalation `{name}`"), hint);
            return None;
        };
        // The escalation is stored with each rule, so its bytes count each time.
        checker.escalation_bytes += bytes_of(found);
        if checker.escalation_bytes > ESCALATIONS_BYTES_MAX {
            let most = ESCALATIONS_BYTES_MAX >> 20;
            let message = format!("the escalations of the rules up to here take more than {most} MiB");
            file.error(node.at, message, Some("shorten them: each rule keeps its own".into()));
            return None;
        }
        Some(Some(found.clone()))
    }

    /// Reads the target false discovery rate: `5%`, `0.05` or `off`.
    fn fdr(&self, file: &File<'_>) -> Option<Fdr> {
        let Some(node) = self.fields.get("fdr") else { return Some(Fdr::ByKeys) };
        if matches!(node.kind, Kind::Bool(false)) {
            return Some(Fdr::Off);
        }
        let text = file.text(node)?;
        let (number, scale) = text.strip_suffix('%').map_or((&*text, 1.0), |percent| (percent, 0.01));
        match number.trim().parse::<f64>().map(|number| number * scale) {
            _ if text == "off" => Some(Fdr::Off),
            Ok(share) if share > 0.0 && share < 1.0 => Some(Fdr::Share(share)),
            _ => {
                let hint =
                    "the share of published alerts that may be chance: `5%`; `off` judges each key by itself";
                file.error(node.at, format!("`{text}` is no share"), Some(hint.into()));
                None
            }
        }
    }

    fn flag(&self, file: &File<'_>, key: &str) -> bool {
        match self.fields.get(key) {
            None => false,
            Some(Node { kind: Kind::Bool(value), .. }) => *value,
            Some(node) => {
                file.wrong(node, "true or false");
                false
            }
        }
    }

    fn summary(
        &self,
        file: &File<'_>,
        keys: &Keys,
        labels: &BTreeMap<Arc<str>, Arc<str>>,
    ) -> Option<Option<Arc<str>>> {
        let Some(node) = self.fields.get("summary") else { return Some(None) };
        summary::read(file, node, keys, labels).map(Some)
    }
}

/// The approximate size of an escalation in bytes.
fn bytes_of(escalation: &Escalation) -> usize {
    let step = |step: &crate::core::vocab::escalation::Step| {
        let names: usize = step.notify.iter().map(|name| name.len() + 16).sum();
        let when = step.when.as_ref().map_or(0, Plan::bytes);
        names + when + step.escalate_to.as_ref().map_or(0, |name| name.len()) + 128
    };
    escalation.name.len() + escalation.steps.iter().map(step).sum::<usize>()
}

/// Reads a reset and checks that no value meets both it and its level. `of`: the level and its text.
fn reset_of(
    file: &File<'_>,
    checker: &Checker,
    (typed, node): (&Typed, &Node),
    of: Option<(Compare, &str)>,
) -> Option<Compare> {
    let (reset, _) = compare(file, checker, typed, node)?;
    let Some((level, written)) = of else { return Some(reset) };
    if reset::met_by_both(level, reset).is_some() {
        let message = format!("this reset overlaps with `{written}`, so the level would end at once");
        file.error(node.at, message, Some(reset::side(level, written)));
        return None;
    }
    Some(reset)
}

fn severity(file: &File<'_>, at: TextPlace, text: &str) -> Option<Severity> {
    let found = Severity::from_name(text);
    if found.is_none() {
        file.error(at, format!("`{text}` is no severity"), Some("info, warning or critical".into()));
    }
    found
}

fn span_of(spans: &BTreeMap<Option<Severity>, Span>, severity: Severity) -> Span {
    spans.get(&Some(severity)).or(spans.get(&None)).copied().unwrap_or_default()
}

/// Reads a level or a reset. Returns the comparison, and its text for the alert.
fn compare(file: &File<'_>, checker: &Checker, typed: &Typed, node: &Node) -> Option<(Compare, String)> {
    let text = file.text(node)?;
    match checker.level(typed, &text) {
        Ok(compare) => {
            let limit = Expr::Number(compare.limit);
            if let Some(message) = says_nothing(&typed.expr, compare.op, &limit) {
                file.warn(node.at, message, None);
            }
            Some((compare, text))
        }
        Err(error) => {
            let length = error.at.end.saturating_sub(error.at.start);
            file.error_within(node, error.at.start, length, error.message, error.hint);
            None
        }
    }
}

/// Returns the measure (unit or plain number) of the value that the alerts of a condition show.
fn leading_measure(checker: &Checker, cond: &Cond) -> Option<Measure> {
    use crate::core::vocab::aggregate::Aggregate;
    use crate::core::vocab::unit::Unit;
    Some(match cond.leading().0 {
        Expr::Aggregate { aggregate: Aggregate::Count, .. }
        | Expr::InFlight(_)
        | Expr::Occurrences { .. } => Measure::Unit(Unit::Count),
        Expr::Aggregate { aggregate: Aggregate::RateOfCount | Aggregate::RateOfSum, .. } => return None,
        Expr::Aggregate { view, .. } => {
            Measure::Unit(checker.unit_of(&checker.views[*view as usize].selector)?)
        }
        Expr::Elapsed(_) => Measure::Unit(Unit::S),
        Expr::Change { .. } | Expr::Sustained { .. } => Measure::Unit(Unit::Ratio),
        Expr::Past(past) => checker.past_measure(past),
        Expr::Correlation(_) => Measure::Number,
        _ => return None,
    })
}

/// Reads a text that is sent unchanged; template syntax in it is an error, because receivers would see it.
fn fixed(file: &File<'_>, node: &Node, what: &str) -> Option<String> {
    let text = file.prose(node)?;
    if text.contains("{{") || text.contains("{%") {
        let hint = "`summary` is the text in which `{{ labels.source }}` is filled in";
        file.error(node.at, format!("a {what} is a fixed text, and no template"), Some(hint.into()));
        return None;
    }
    Some(text)
}

fn note_reads(rule: &mut Rule) {
    let (mut views, mut reads) = (Vec::new(), Reads::default());
    let mut visit = |part: &Expr| {
        views.extend(part.views());
        match part {
            Expr::Elapsed(elapsed) => {
                reads.has_elapsed = true;
                reads.has_runs |= !matches!(elapsed, Elapsed::Silent { .. });
            }
            Expr::InFlight(_) => reads.has_runs = true,
            Expr::Sustained { .. } | Expr::Occurrences { .. } => reads.has_shares = true,
            Expr::Past(past) => reads.has_chances |= past.function.has_chance(),
            _ => {}
        }
    };
    match &rule.subject {
        Subject::Value(expr) => expr.for_each(&mut |part| visit(part)),
        Subject::Condition(cond) => cond.for_each(&mut |part| visit(part)),
    }
    views.sort_unstable();
    views.dedup();
    (rule.views, rule.reads) = (views, reads);
}

/// Returns a hash over the content of the rule. The indexes of its views are excluded, because they depend on
/// the other rules.
fn hash(rule: &Rule) -> String {
    let levels: Vec<_> = rule
        .levels
        .iter()
        .map(|level| (level.severity, &level.threshold, level.reset, level.pending_for, &level.actions))
        .collect();
    let said = (
        &rule.id,
        &rule.text,
        levels,
        (rule.keep_firing_for, rule.min_count, rule.on_unknown, rule.cooldown),
        (&rule.labels, &rule.summary, &rule.runbook, &rule.escalation, rule.fdr, rule.is_shadow),
    );
    let json = serde_json::to_string(&said).unwrap_or_default();
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(json.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::load_files;

    /// Goal: the bytes of escalations are bounded, including the time intervals of their steps. Method: many
    /// rules with the same large escalation, of which each rule stores a copy.
    #[test]
    fn escalations_are_bounded_with_their_times() {
        let days = vec!["monday"; 200].join(", ");
        let when = format!("{{ weekdays: &d [{days}] }}, {}", vec!["{ weekdays: *d }"; 199].join(", "));
        let found = |count: usize| {
            let expr = "expr: 'avg(x[1m]) > 1', severity: info, escalation: e";
            let rules: String = (0..count).map(|n| format!("  - {{ id: r{n}, {expr} }}\n")).collect();
            let steps = format!("[{{ after: 0m, notify: [log], when: [{when}] }}]");
            let text = format!("escalations:\n  e: {steps}\nrules:\n{rules}");
            load_files(vec![("f.yaml".into(), text)]).diagnostics
        };
        assert!(found(10).is_empty(), "{:?}", found(10));
        assert!(found(100).iter().any(|one| one.message.contains("16 MiB")), "each takes a third of one");
    }
}
