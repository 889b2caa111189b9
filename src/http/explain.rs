//! Explanations why an alert fires or not: from the engine for the present, from the published transitions
//! for an earlier time.

use super::alerts::backwards;
use super::params::{self, instant};
use super::{Answer, App, Failure, json_response};
use crate::core::Timestamp;
use crate::core::alert::Transition;
use crate::core::alert::self_alerts::is_own;
use crate::core::engine::explain::{Explanation, Unexplained};
use crate::core::vocab::key::Key;
use crate::driver::ports::Views;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use serde_json::json;

/// Answers a query with `rule=R`, the labels of the alert's key as further parameters, and optionally `at=T`.
pub(crate) async fn explain<S: Views + Send + Sync + 'static>(State(shared): App<S>, uri: Uri) -> Answer {
    let mut query = params::free(&uri)?;
    let rule = query.remove("rule").ok_or_else(|| Failure::bad("say which rule: rule=<id>"))?;
    let at = query.remove("at").map(|text| instant(&text, shared.log_time())).transpose()?;
    let labels = query.into_iter().map(|(label, value)| (label.into(), value.into()));
    let key = Key::new(labels.collect());
    if let Some(at) = at {
        known_rule(&shared, &rule).await?;
        let (stores, mut last) = (shared.clone(), None::<Transition>);
        let read = move |asker: &super::reads::Asker| {
            backwards(&stores, asker, &mut |one| {
                let is_it = *one.rule == *rule && *one.key == key && one.at <= at;
                let is_later = last.as_ref().is_none_or(|last| weight_at(&one) > weight_at(last));
                if is_it && is_later {
                    last = Some(one);
                }
                true
            })?;
            Ok(told_at(last, &rule, &key, at))
        };
        return Ok(json_response(StatusCode::OK, shared.reads.run(read).await?));
    }
    let (asked, of) = (rule.clone(), key.clone());
    let found = shared.ask_any(move |engine| engine.explain(&asked, &of)).await?;
    let (explained, wrong): (Vec<_>, Vec<_>) = found.into_iter().partition(Result::is_ok);
    match explained.into_iter().flatten().max_by_key(weight) {
        Some(explanation) => Ok(json_response(StatusCode::OK, json!(explanation).to_string())),
        None => {
            // A partition may not have the rule. The error of a partition that has it is more helpful and is
            // preferred.
            let mut wrong: Vec<Unexplained> = wrong.into_iter().filter_map(Result::err).collect();
            wrong.sort_by_key(|one| matches!(one, Unexplained::NoRule(_)));
            let message = wrong.first().map(ToString::to_string).unwrap_or_default();
            Err(Failure::new(StatusCode::NOT_FOUND, "not_found", message))
        }
    }
}

/// Refuses the id of a rule that no engine here has, because it is probably mistyped. Built-in rules
/// (`_sg_*`) are always accepted. Without an engine in this process the check is skipped.
async fn known_rule<S: Views + Send + Sync + 'static>(
    shared: &std::sync::Arc<super::Shared<S>>,
    rule: &str,
) -> Result<(), Failure> {
    let wanted = rule.to_string();
    let is_known = move |engine: &mut crate::core::Inspect<'_>| {
        engine.rules().rules.iter().any(|rule| *rule.id == *wanted)
    };
    let known: Vec<bool> = shared.ask_each(is_known).await.into_iter().flatten().collect();
    if known.is_empty() || known.contains(&true) || is_own(rule) {
        return Ok(());
    }
    let message = Unexplained::NoRule(rule.into()).to_string();
    Err(Failure::new(StatusCode::NOT_FOUND, "not_found", message))
}

/// Ranks the explanations that several partitions give for the same key: one with an alert is preferred.
fn weight(explanation: &Explanation) -> bool {
    explanation.alert.is_some()
}

/// Returns a sort key that orders the transitions of one alert key from oldest to newest.
fn weight_at(one: &Transition) -> (Timestamp, Timestamp, u64) {
    (one.at, one.started_at, u64::from(one.seq))
}

/// Explains the state of a key at the time `at` by its last transition at or before that time.
fn told_at(last: Option<Transition>, rule: &str, key: &Key, at: Timestamp) -> String {
    let because = match &last {
        Some(last) if last.is_active() => {
            let since = format!("{} since {}: {}", last.state.name(), last.at, last.reason);
            let cause = last.suppressed_by.as_ref();
            let cause =
                cause.map(|cause| format!("{} {} suppresses its notifications", cause.kind, cause.id));
            [Some(since), cause].into_iter().flatten().collect()
        }
        Some(last) => vec![format!("not firing: the last episode ended at {}: {}", last.at, last.reason)],
        None => vec!["not firing: this key had no transition until then".to_string()],
    };
    let hint = "what the rule saw then: streamgauge export … > log.ndjson; streamgauge alerts explain … --log log.ndjson --at …";
    let verdict = if last.as_ref().is_some_and(Transition::is_active) { "firing" } else { "not_met" };
    json!({"rule": rule, "key": key, "at": at.to_string(), "verdict": verdict, "because": because,
        "alert": last, "hint": hint})
    .to_string()
}
