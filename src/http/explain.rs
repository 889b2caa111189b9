//! Why an alert fires or does not: of the engine here, or, for an earlier time, of what was told then.

use super::views::{alert_lines, instant};
use super::{Answer, App, Failure, json_response};
use crate::core::Timestamp;
use crate::core::alert::Transition;
use crate::core::engine::explain::{Explanation, Unexplained};
use crate::core::key::Key;
use crate::driver::ports::Views;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde_json::json;
use std::collections::BTreeMap;

/// `?rule=R`, the key's labels, and perhaps `at=T`.
pub async fn explain<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Query(mut query): Query<BTreeMap<String, String>>,
) -> Answer {
    let rule = query.remove("rule").ok_or_else(|| Failure::bad("say which rule: rule=<id>"))?;
    let at = query.remove("at").map(|text| instant(&text)).transpose()?;
    let labels = query.into_iter().map(|(label, value)| (label.into(), value.into()));
    let key = Key::new(labels.collect());
    if let Some(at) = at {
        return Ok(json_response(StatusCode::OK, told_at(&alert_lines(&shared)?, &rule, &key, at)));
    }
    let (asked, of) = (rule.clone(), key.clone());
    let found = shared.ask_any(move |engine| engine.explain(&asked, &of)).await?;
    let (explained, wrong): (Vec<_>, Vec<_>) = found.into_iter().partition(Result::is_ok);
    match explained.into_iter().flatten().max_by_key(weight) {
        Some(explanation) => Ok(json_response(StatusCode::OK, json!(explanation).to_string())),
        None => {
            // Another partition may not have the rule: whoever knows its keys says more.
            let mut wrong: Vec<Unexplained> = wrong.into_iter().filter_map(Result::err).collect();
            wrong.sort_by_key(|one| matches!(one, Unexplained::NoRule(_)));
            let message = wrong.first().map(ToString::to_string).unwrap_or_default();
            Err(Failure::new(StatusCode::NOT_FOUND, "not_found", message))
        }
    }
}

/// Of several partitions with the same key, the one that has an alert.
fn weight(explanation: &Explanation) -> bool {
    explanation.alert.is_some()
}

/// The last transition of a key until a time, as it was published, and what follows of it.
fn told_at(log: &[String], rule: &str, key: &Key, at: Timestamp) -> String {
    let told = log.iter().filter_map(|line| serde_json::from_str::<Transition>(line).ok());
    let of_key = told.filter(|one| *one.rule == *rule && *one.key == *key && one.at <= at);
    let last = of_key.max_by_key(|one| (one.at, one.started_at, one.seq));
    let because = match &last {
        Some(last) if last.is_active() => {
            let since = format!("{} since {}: {}", last.state.name(), last.at, last.reason);
            let cause = last.suppressed_by.as_ref();
            let cause = cause.map(|cause| format!("{} {} keeps it from being told", cause.kind, cause.id));
            [Some(since), cause].into_iter().flatten().collect()
        }
        Some(last) => vec![format!("not firing: the last episode ended at {}: {}", last.at, last.reason)],
        None => vec!["not firing: nothing was told of this key until then".to_string()],
    };
    let hint = "what the rule saw then: streamgauge export … > log.ndjson; streamgauge alerts explain … --log log.ndjson --at …";
    let verdict = if last.as_ref().is_some_and(Transition::is_active) { "firing" } else { "not_met" };
    json!({"rule": rule, "key": key, "at": at.to_string(), "verdict": verdict, "because": because,
        "alert": last, "hint": hint})
    .to_string()
}
