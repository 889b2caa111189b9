//! Backtests of rules on past data: the alerts that a rule set would have raised, and the differences between the
//! alerts of two rule sets.
//!
//! Invariant: a backtest uses the same engine as live operation, so a backtest of the rules that were in
//! force gives the alerts that were raised. Two episodes are the same if their rule and key are equal and
//! they overlap in time.

use crate::core::alert::Transition;
use crate::core::alert::self_alerts::is_own;
use crate::core::alert::transition::{ChangeName, rfc3339};
use crate::core::vocab::severity::Severity;
use crate::core::{Span, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;

/// One alert from its first transition to its last.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Episode {
    pub rule: String,
    pub key: String,
    /// The highest severity of the episode.
    pub severity: Severity,
    #[serde(with = "rfc3339")]
    pub fired_at: Timestamp,
    #[serde(with = "rfc3339::option")]
    pub ended_at: Option<Timestamp>,
    /// Time from the onset until the alert fired. The onset is that of the evidence's baseline if it precedes the
    /// start of the episode, else that start.
    #[serde(serialize_with = "millis")]
    pub detected_after: Span,
    /// Whether a receiver would have been notified: in at least one transition the alert was active and not
    /// suppressed.
    pub is_told: bool,
    pub summary: String,
}

fn millis<S: serde::Serializer>(span: &Span, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(span.ms())
}

/// Returns the episodes of an alert log that fired at or after `since`, in firing order. Self-alerts are left out.
pub(crate) fn episodes(log: &[Transition], since: Timestamp) -> Vec<Episode> {
    let mut found: Vec<Episode> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for one in log.iter().filter(|one| !is_own(&one.rule)) {
        if one.seq == 0 {
            if one.at >= since {
                places.insert(&one.id, found.len());
                found.push(begun(one));
            }
            continue;
        }
        let Some(episode) = places.get(&*one.id).and_then(|place| found.get_mut(*place)) else { continue };
        episode.severity = episode.severity.max(one.severity);
        episode.is_told |= one.suppressed_by.is_none() && one.is_active();
        if one.ended_at.is_some() {
            episode.ended_at = one.ended_at;
        }
    }
    found
}

fn begun(one: &Transition) -> Episode {
    debug_assert!(one.change == ChangeName::Firing);
    let onset = one.evidence.baseline.onset.map_or(one.started_at, |onset| onset.min(one.started_at));
    Episode {
        rule: one.rule.to_string(),
        key: serde_json::to_string(&one.key).unwrap_or_default(),
        severity: one.severity,
        fired_at: one.at,
        ended_at: one.ended_at,
        detected_after: one.at - onset,
        is_told: one.suppressed_by.is_none(),
        summary: one.summary.clone(),
    }
}

/// Totals of the alerts of one rule set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct AlertTotals {
    pub alerts: usize,
    /// Alerts of which a receiver would have been notified.
    pub told: usize,
    pub critical: usize,
    pub told_a_day: f64,
    pub pages_a_day: f64,
    pub detected_after_ms_median: Option<i64>,
    pub detected_after_ms_max: Option<i64>,
}

/// Summarises the episodes of a period of this `length`. A page is a critical alert of which a receiver would have
/// been notified.
pub(crate) fn told(episodes: &[Episode], length: Span) -> AlertTotals {
    let days = (length.secs_f64() / 86_400.0).max(f64::MIN_POSITIVE);
    let told: Vec<&Episode> = episodes.iter().filter(|one| one.is_told).collect();
    let critical = told.iter().filter(|one| one.severity == Severity::Critical).count();
    let mut after: Vec<i64> = told.iter().map(|one| one.detected_after.ms()).collect();
    after.sort_unstable();
    AlertTotals {
        alerts: episodes.len(),
        told: told.len(),
        critical,
        told_a_day: told.len() as f64 / days,
        pages_a_day: critical as f64 / days,
        detected_after_ms_median: after.get(after.len() / 2).copied(),
        detected_after_ms_max: after.last().copied(),
    }
}

/// The differences between the episodes of an old and a new rule set.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct Comparison {
    pub gained: Vec<Episode>,
    pub lost: Vec<Episode>,
    /// Episodes of both rule sets. `later_ms` is how much later the new one fires; it is negative if it fires
    /// earlier.
    pub kept: Vec<KeptEpisode>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct KeptEpisode {
    #[serde(flatten)]
    pub episode: Episode,
    pub later_ms: i64,
    pub severity_before: Severity,
}

pub(crate) fn compare(old: &[Episode], new: &[Episode]) -> Comparison {
    let mut left: Vec<Option<&Episode>> = old.iter().map(Some).collect();
    let mut comparison = Comparison::default();
    for episode in new {
        let same = left.iter_mut().find(|known| known.is_some_and(|known| is_same(known, episode)));
        match same.and_then(Option::take) {
            Some(known) => comparison.kept.push(KeptEpisode {
                episode: episode.clone(),
                later_ms: (episode.fired_at - known.fired_at).ms(),
                severity_before: known.severity,
            }),
            None => comparison.gained.push(episode.clone()),
        }
    }
    comparison.lost = left.into_iter().flatten().cloned().collect();
    comparison
}

fn is_same(a: &Episode, b: &Episode) -> bool {
    let end = |one: &Episode| one.ended_at.unwrap_or(Timestamp::MAX);
    a.rule == b.rule && a.key == b.key && a.fired_at < end(b) && b.fired_at < end(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn episode(rule: &str, from: i64, to: i64) -> Episode {
        let at = |secs: i64| Timestamp::clamped(secs * 1_000);
        Episode {
            rule: rule.into(),
            key: "{}".into(),
            severity: Severity::Critical,
            fired_at: at(from),
            ended_at: Some(at(to)),
            detected_after: Span::from_secs(from % 7),
            is_told: true,
            summary: String::new(),
        }
    }

    #[test]
    fn what_overlaps_is_the_same_alert() {
        let old = [episode("a", 10, 20), episode("a", 30, 40), episode("b", 10, 20)];
        let new = [episode("a", 12, 25), episode("a", 50, 60), episode("c", 1, 2)];
        let found = compare(&old, &new);
        let rules = |all: &[Episode]| {
            all.iter().map(|one| (one.rule.clone(), one.fired_at.ms() / 1_000)).collect::<Vec<_>>()
        };
        assert_eq!(rules(&found.gained), [("a".into(), 50), ("c".into(), 1)]);
        assert_eq!(rules(&found.lost), [("a".into(), 30), ("b".into(), 10)]);
        assert_eq!((found.kept.len(), found.kept[0].later_ms), (1, 2_000));
        let told = told(&old, Span::from_hours(12));
        assert_eq!((told.told, told.pages_a_day, told.detected_after_ms_max), (3, 6.0, Some(3_000)));
    }
}
