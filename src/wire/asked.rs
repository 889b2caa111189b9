//! Silences and maintenance windows as the API and the views in Redis show them.

use crate::core::burden::Burden;
use crate::core::mute::{Maintenance, Mode, Mutes, Silence};
use crate::core::vocab::calendar::{Interval, Plan, Written};
use crate::core::{Engine, Timestamp};
use serde_json::{Map, Value, json};

/// The kinds of operator requests that have a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Silences,
    Maintenance,
}

impl Asked {
    pub const ALL: [Asked; 2] = [Asked::Silences, Asked::Maintenance];

    pub fn name(self) -> &'static str {
        match self {
            Asked::Silences => "silences",
            Asked::Maintenance => "maintenance",
        }
    }
}

/// Maximum number of upcoming intervals shown for one maintenance window.
const NEXT_SHOWN: usize = 10;

/// Limit on the interval checks for the upcoming intervals of all maintenance windows together. A million checks take
/// about 0.1 s, during which the engine processes no records.
const LOOKS_MAX: usize = 1_000_000;

/// Returns all silences or maintenance windows by id, including the maintenance windows of the rule set.
pub(crate) fn all(engine: &Engine, kind: Asked) -> Vec<(String, Value)> {
    let (now, mutes) = (engine.now(), engine.mutes());
    match kind {
        Asked::Silences => mutes.silences().map(|one| (one.id.to_string(), silence(one, now))).collect(),
        Asked::Maintenance => {
            let all = engine.rules().maintenance.iter().chain(mutes.asked());
            let mut looks = LOOKS_MAX;
            all.map(|one| (one.id.to_string(), shown(one, now, mutes, &mut looks))).collect()
        }
    }
}

/// Returns the burden of all silences or maintenance windows of operators, except the one with this id.
pub(crate) fn beside(engine: &Engine, kind: Asked, id: &str) -> Burden {
    match kind {
        Asked::Silences => engine.mutes().silences_beside(id),
        Asked::Maintenance => engine.mutes().maintenance_beside(id),
    }
}

/// Returns the ids of the maintenance windows of the rule set, which can be changed only there.
pub(crate) fn planned_ids(engine: &Engine) -> Vec<String> {
    engine.rules().maintenance.iter().map(|one| one.id.to_string()).collect()
}

fn silence(silence: &Silence, now: Timestamp) -> Value {
    json!({"id": silence.id, "match": silence.matchers.texts(), "start": silence.start.to_string(),
        "end": silence.end.to_string(), "by": silence.by, "reason": silence.reason,
        "unmatched_for": silence.unmatched_for.map(|span| span.to_string()),
        "state": if now < silence.start { "pending" } else { "active" }})
}

fn shown(maintenance: &Maintenance, now: Timestamp, mutes: &Mutes, looks: &mut usize) -> Value {
    let mut object = plan(&maintenance.plan);
    let mode = match maintenance.mode {
        Mode::Mute => "mute",
        Mode::Suspend => "suspend",
    };
    let rest = json!({"id": maintenance.id, "match": maintenance.matchers.texts(), "mode": mode,
        "reason": maintenance.reason, "by": maintenance.by, "next": spans(maintenance.plan.next_within(now, NEXT_SHOWN, looks)),
        "state": if mutes.is_in_force(&maintenance.id) { "active" } else { "pending" }});
    if let Value::Object(rest) = rest {
        object.extend(rest);
    }
    Value::Object(object)
}

/// Returns the next spans of a plan, including the present one.
pub(crate) fn next(plan: &Plan, now: Timestamp) -> Vec<Value> {
    spans(plan.next(now, NEXT_SHOWN))
}

fn spans(spans: Vec<(Timestamp, Timestamp)>) -> Vec<Value> {
    spans
        .into_iter()
        .map(|(start, end)| {
            let end = (end < Timestamp::MAX).then(|| end.to_string());
            json!({"start": start.to_string(), "end": end})
        })
        .collect()
}

/// Returns a plan in the notation of the pipeline files.
fn plan(plan: &Plan) -> Map<String, Value> {
    let value = match Written::from(plan.clone()) {
        Written::Once { start, end } => json!({"start": start.to_string(), "end": end.to_string()}),
        Written::Recurring { schedule, duration, zone, except } => {
            json!({"schedule": schedule, "duration": duration.to_string(), "tz": zone, "except": except})
        }
        Written::Intervals(all) => {
            json!({"time_intervals": all.iter().map(interval).collect::<Vec<_>>()})
        }
    };
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn interval(interval: &Interval) -> Value {
    let clock = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
    let times = interval.times.iter();
    let times: Vec<Value> =
        times.map(|(start, end)| json!({"start_time": clock(*start), "end_time": clock(*end)})).collect();
    json!({"times": times, "weekdays": ranges(&interval.weekdays), "days_of_month": ranges(&interval.days_of_month),
        "months": ranges(&interval.months), "years": ranges(&interval.years), "location": interval.zone})
}

fn ranges<T: std::fmt::Display>(ranges: &[(T, T)]) -> Vec<String> {
    ranges.iter().map(|(from, to)| format!("{from}:{to}")).collect()
}
