//! Alerts about the log itself, published under reserved rules `_sg_*` that no operator has to write.
//!
//! Invariant: these alerts are a function of the log like all others. They begin at a record and end at a
//! grid point, so a replay gives the same alerts.

use super::Engine;
use crate::core::alert::self_alerts::SelfAlert;
use crate::core::alert::transition::{State, Transition};
use crate::core::effect::Effects;
use crate::core::mute::Silence;
use crate::core::vocab::counters::records_between;
use crate::core::vocab::key::Key;
use crate::core::vocab::limits::ALERTS_PER_RULE_MAX;
use crate::core::vocab::severity::Severity;
use crate::core::vocab::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An alert about the log stays active for this long after its newest cause. By then the last 1m window that a
/// gap may make incomplete is sealed.
const SHOWN_FOR: Span = Span::from_mins(10);

/// The rule about lost records.
const GAP: &str = "_sg_gap";

/// Number of alerts that a maintenance digest names.
const DIGEST_NAMED: usize = 20;

/// Active alerts by rule and subject; there is at most one of each.
pub(super) type SelfAlerts = BTreeMap<(Arc<str>, Arc<str>), OwnAlert>;

/// An active alert about the log itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct OwnAlert {
    started_at: Timestamp,
    until: Timestamp,
    seq: u32,
    value: f64,
    reason: String,
    /// The quantity that `value` counts.
    input: String,
    summary: String,
    severity: Severity,
    about: Option<(Arc<str>, Arc<str>)>,
}

/// The content of an alert about the log itself.
struct Announcement {
    rule: &'static str,
    severity: Severity,
    /// The subject, a label of the alert's key; `None` if the rule has one alert for everything.
    about: Option<(&'static str, Arc<str>)>,
    value: f64,
    input: &'static str,
    reason: String,
    summary: String,
}

impl Engine {
    /// Notes that records `from` to `to` are lost; the next record is stamped `at`.
    pub(super) fn note_gap(&mut self, from: u64, to: u64, at: Timestamp) {
        self.counters.lose(from, to);
        let since = if self.timeline.has_begun() { self.timeline.now() } else { Timestamp::MIN };
        self.note_lost(since, at);
        self.runs.lose(at);
        if self.timeline.has_begun() {
            // The content of the gap is unknown, so timers exclude its time.
            self.interrupt(since, at);
        }
    }

    /// Reports lost records, once time has advanced past them.
    pub(super) fn tell_gap(&mut self, from: u64, to: u64, out: &mut Effects) {
        let value = records_between(from, to) as f64;
        let told = Announcement {
            rule: GAP,
            severity: Severity::Critical,
            about: None,
            value,
            input: "records lost",
            reason: format!("records {from} to {to} are gone from the log before they were read"),
            summary: format!("{value} records were lost from the log; windows over that time are incomplete"),
        };
        self.tell_own(told, out);
    }

    /// Reports a poison record: it was skipped because it crashed each worker that read it.
    pub(super) fn tell_poison(&mut self, seq: u64, out: &mut Effects) {
        let told = Announcement {
            rule: "_sg_poison",
            severity: Severity::Critical,
            about: None,
            value: 1.0,
            input: "records left out",
            reason: format!("record {seq} killed the worker again and again"),
            summary: format!("record {seq} of the log was left out; its bytes are among the dead letters"),
        };
        self.tell_own(told, out);
    }

    /// Reports that a rule has more alerts than it may have; `rest`: number of keys whose alerts
    /// were not opened.
    pub(super) fn tell_capped(&mut self, rule: &Arc<str>, rest: usize, out: &mut Effects) {
        let told = Announcement {
            rule: "_sg_capped",
            severity: Severity::Critical,
            about: Some(("rule", rule.clone())),
            value: rest as f64,
            input: "alerts not opened",
            reason: format!(
                "rule {rule} has {ALERTS_PER_RULE_MAX} alerts; those live on, no further ones are opened"
            ),
            summary: format!(
                "rule {rule} has more than {ALERTS_PER_RULE_MAX} alerts: look at the rule, or at what they have in common"
            ),
        };
        self.tell_own(told, out);
    }

    /// Reports which alerts still fire at the end of a maintenance window.
    pub(super) fn tell_digest(
        &mut self,
        id: &Arc<str>,
        worst: Severity,
        alerts: &[String],
        out: &mut Effects,
    ) {
        let some = alerts.iter().take(DIGEST_NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = alerts.len().saturating_sub(DIGEST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let told = Announcement {
            rule: "_sg_maintenance_digest",
            severity: worst,
            about: Some(("maintenance", id.clone())),
            value: alerts.len() as f64,
            input: "alerts that still fire",
            reason: format!("maintenance {id} has ended"),
            summary: format!("maintenance {id} has ended, {} still firing: {some}{more}", alerts.len()),
        };
        self.tell_own(told, out);
    }

    /// Reports that an escalation step was taken much too late, because the alert was not evaluated in time.
    pub(super) fn tell_overdue(&mut self, rule: &Arc<str>, late: Span, out: &mut Effects) {
        let told = Announcement {
            rule: "_sg_escalation_overdue",
            severity: Severity::Warning,
            about: Some(("rule", rule.clone())),
            value: late.secs_f64(),
            input: "seconds too late",
            reason: format!("a step of the escalation of rule {rule} was taken {late} too late"),
            summary: format!("people heard of {rule} {late} too late: was the log, or the worker, away?"),
        };
        self.tell_own(told, out);
    }

    /// Reports that a silence ends soon although alerts that it hides still fire.
    pub(super) fn tell_silence_ending(&mut self, silence: &Silence, hidden: usize, out: &mut Effects) {
        let (id, end) = (&silence.id, silence.end);
        let told = Announcement {
            rule: "_sg_silence_ending",
            severity: Severity::Info,
            about: Some(("silence", id.clone())),
            value: hidden as f64,
            input: "alerts that it hides",
            reason: format!("silence {id} of {} ends at {end}", silence.by),
            summary: format!("silence {id} ends at {end}, {hidden} alerts that it hides still fire"),
        };
        self.tell_own(told, out);
    }

    /// Publishes an alert. If an alert of the same rule and subject is active, its end is postponed instead.
    fn tell_own(&mut self, told: Announcement, out: &mut Effects) {
        let until = (self.timeline.now() + SHOWN_FOR).ceil(self.timeline.interval());
        let alert = OwnAlert {
            started_at: self.timeline.now().ceil(self.timeline.interval()),
            until,
            seq: 0,
            value: told.value,
            reason: told.reason,
            input: told.input.into(),
            summary: told.summary,
            severity: told.severity,
            about: told.about.map(|(label, value)| (label.into(), value)),
        };
        self.timeline.wake_at(until);
        let about = alert.about.as_ref().map(|(_, value)| value.clone()).unwrap_or_default();
        let place = (Arc::from(told.rule), about);
        if let Some(active) = self.self_alerts.get_mut(&place) {
            active.until = until;
            active.value = active.value.max(alert.value);
            return;
        }
        self.publish_own(&place.0, &alert, State::Firing, out);
        self.self_alerts.insert(place, OwnAlert { seq: 1, ..alert });
    }

    /// Ends the alerts whose time has expired.
    pub(super) fn end_own_alerts(&mut self, at: Timestamp, out: &mut Effects) {
        let over = self.self_alerts.iter().filter(|(_, alert)| alert.until <= at);
        let over: Vec<_> = over.map(|(place, _)| place.clone()).collect();
        for place in over {
            let Some(mut alert) = self.self_alerts.remove(&place) else { continue };
            alert.reason = format!("nothing more of it for {SHOWN_FOR}");
            self.publish_own(&place.0, &alert, State::Resolved, out);
        }
    }

    /// Returns when the next of these alerts ends.
    pub(super) fn next_own_end(&self) -> Option<Timestamp> {
        self.self_alerts.values().map(|alert| alert.until).min()
    }

    /// Returns the active alerts, each with the sequence number of its last transition.
    pub(super) fn active_own(&self) -> impl Iterator<Item = Transition> + '_ {
        self.self_alerts.iter().map(|((rule, _), alert)| {
            let shown = OwnAlert { seq: alert.seq.saturating_sub(1), ..alert.clone() };
            self.own_transition(rule, &shown, State::Firing)
        })
    }

    fn publish_own(&mut self, rule: &Arc<str>, alert: &OwnAlert, state: State, out: &mut Effects) {
        self.counters.transitions += 1;
        out.transitions.push(self.own_transition(rule, alert, state));
    }

    fn own_transition(&self, rule: &Arc<str>, alert: &OwnAlert, state: State) -> Transition {
        let said = SelfAlert {
            rule: rule.clone(),
            severity: alert.severity,
            key: Key::new(alert.about.iter().cloned().collect()),
            input: alert.input.clone(),
            value: alert.value,
            threshold: "> 0".into(),
            reason: alert.reason.clone(),
            summary: alert.summary.clone(),
        };
        said.transition(state, alert.seq, alert.started_at, self.timeline.now())
    }

    /// Ends alerts after the loss of records that an earlier owner had read. `told` holds the last transition
    /// of each alert that the earlier owner published. Whether these alerts still fire is unknown, so the active
    /// ones end as stale. All rules start with empty state.
    pub fn lose_alerts(&mut self, told: &[Transition], out: &mut Effects) {
        self.states.clear_rules();
        self.self_alerts.clear();
        self.runs.lose(self.timeline.now());
        for alert in told.iter().filter(|alert| alert.is_active()) {
            self.counters.transitions += 1;
            out.transitions.push(alert.clone().lost(self.timeline.now()));
        }
        self.timeline.wake();
        // A new gap alert that begins at the same grid point would have the same id as the one that just ended.
        let begins_at = self.timeline.now().ceil(self.timeline.interval());
        if told.iter().any(|alert| &*alert.rule == GAP && alert.started_at >= begins_at) {
            return;
        }
        let told = Announcement {
            rule: GAP,
            severity: Severity::Critical,
            about: None,
            value: self.counters.records_lost.max(1) as f64,
            input: "records lost",
            reason: "records that the worker before had read are gone from the log".into(),
            summary:
                "records of the log were lost after they were read; alerts ended as stale, and windows over \
                that time are incomplete"
                    .into(),
        };
        self.tell_own(told, out);
    }
}
