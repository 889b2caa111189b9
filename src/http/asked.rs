//! Acknowledgements, silences and maintenance windows of operators. Each change becomes a control record of
//! the log.

use super::access::Caller;
use super::alerts::active;
use super::params::{Empty, Named, Params, instant};
use super::{Answer, App, Failure, Shared, failed, json_response};
use crate::core::Timestamp;
use crate::core::alert::Transition;
use crate::core::alert::transition::State as AlertState;
use crate::core::burden::Burden;
use crate::core::record::{Ack, Control};
use crate::core::vocab::selector::Selector;
use crate::driver::ports::{Asked, Entry, Views};
use crate::pipeline::{Diagnostic, ask};
use crate::wire::asked;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Maximum number of matching alerts that an answer names.
const MATCHING_SHOWN: usize = 100;

/// Maximum number of characters of a name or a reason.
const WORDS_CHARS_MAX: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AckBody {
    alert: String,
    #[serde(default)]
    by: String,
    #[serde(default)]
    why: String,
    #[serde(default)]
    until: Option<Until>,
    #[serde(default)]
    accept: bool,
}

/// A time in the notation of query parameters, or epoch milliseconds as a JSON number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Until {
    Ms(i64),
    Text(String),
}

impl Until {
    /// Returns the time, or refuses a time that is not after `now`.
    fn after(&self, now: Timestamp) -> Result<Timestamp, Failure> {
        let until = match self {
            Until::Ms(ms) => instant(&ms.to_string(), now)?,
            Until::Text(text) => instant(text, now)?,
        };
        match until > now {
            true => Ok(until),
            false => Err(Failure::bad(format!("`until` is {until}; it must be later than log time {now}"))),
        }
    }
}

/// `{"alert": id, "by": who, "why": …, "until": …, "accept": …}`
pub(crate) async fn ack<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer {
    let body: AckBody = serde_json::from_slice(&body).map_err(|error| Failure::bad(error.to_string()))?;
    let until = body.until.map(|until| until.after(shared.log_time())).transpose()?;
    let (by, why) = (signed(&caller, &body.by)?, words("why", body.why)?);
    let (place, state) = place_of(&shared, &body.alert).await?;
    if state == AlertState::Pending && !body.accept {
        // Acknowledging a pending alert has no effect, so the request is refused instead of answered with success.
        // `accept` also restarts the baselines, so it is allowed.
        let message = "the alert is pending; acknowledge it once it fires, or silence it";
        return Err(Failure::new(StatusCode::CONFLICT, "not_firing", message));
    }
    let ack = Control::Ack(Ack { alert: body.alert, by, why, until, accept: body.accept });
    let seq = shared.append(place, Entry::control(&ack)).await?;
    Ok(json_response(StatusCode::ACCEPTED, json!({ "seq": seq }).to_string()))
}

/// The query of a request that withdraws an acknowledgement.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Taker {
    #[serde(default)]
    alert: String,
    #[serde(default)]
    by: String,
}

/// The query of a request that ends a silence or a maintenance window.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct By {
    #[serde(default)]
    by: String,
}

/// Returns the author of a change: the name of the token, or the stated name if the token has none.
fn signed(caller: &Caller, stated: &str) -> Result<String, Failure> {
    match &caller.name {
        Some(name) => Ok(name.to_string()),
        None if stated.is_empty() => Err(Failure::bad("`by` is missing; it names who asks")),
        None => words("by", stated.into()),
    }
}

/// Returns a text that is stored and shown to operators, or refuses it if it is too long.
fn words(what: &str, text: String) -> Result<String, Failure> {
    match text.chars().count() <= WORDS_CHARS_MAX {
        true => Ok(text),
        false => Err(Failure::bad(format!("`{what}` has more than {WORDS_CHARS_MAX} characters"))),
    }
}

/// `?alert=id&by=who`
pub(crate) async fn unack<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Extension(caller): Extension<Caller>,
    Params(Taker { alert, by }): Params<Taker>,
) -> Answer {
    let by = caller.name.map_or(by, |name| name.to_string());
    let (place, _) = place_of(&shared, &alert).await?;
    let seq = shared.append(place, Entry::control(&Control::Unack { alert, by })).await?;
    Ok(json_response(StatusCode::ACCEPTED, json!({ "seq": seq }).to_string()))
}

/// Returns the partition of an active alert, and its state.
async fn place_of<S: Views + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    id: &str,
) -> Result<(u32, AlertState), Failure> {
    let alerts = active(shared).await?;
    let found = alerts.iter().zip(0..).find_map(|(of_one, place)| {
        let alert = of_one.iter().find(|alert| alert.id == id)?;
        Some((place, alert.state))
    });
    let none = || Failure::new(StatusCode::NOT_FOUND, "not_found", "no active alert has this id");
    found.ok_or_else(none)
}

pub(crate) async fn silences<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    listed(&shared, Asked::Silences).await
}

pub(crate) async fn maintenance<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
) -> Answer {
    listed(&shared, Asked::Maintenance).await
}

async fn listed<S: Views + Send + Sync + 'static>(shared: &Arc<Shared<S>>, kind: Asked) -> Answer {
    let all: Vec<Value> = all(shared, kind).await?.into_values().collect();
    Ok(json_response(StatusCode::OK, json!({ kind.name(): all }).to_string()))
}

/// Returns all silences or maintenance windows, from an engine in this process or else from the store. All partitions
/// receive every change, so the first engine that answers is sufficient.
async fn all<S: Views + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    kind: Asked,
) -> Result<BTreeMap<String, Value>, Failure> {
    let live = shared.ask_each(move |engine| asked::all(engine, kind)).await;
    Ok(match (live.into_iter().flatten().next(), shared.partitions.first()) {
        (Some(known), _) => known.into_iter().collect(),
        (None, Some(_)) => {
            let stores = shared.clone();
            let read = move |_: &super::reads::Asker| stores.partitions[0].store.asked(kind).map_err(failed);
            let stored = shared.reads.run(read).await?.into_iter();
            stored.filter_map(|(id, json)| Some((id, serde_json::from_str(&json).ok()?))).collect()
        }
        (None, None) => BTreeMap::new(),
    })
}

/// Fails with 404 if no silence or maintenance window has this id.
async fn known<S: Views + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    kind: Asked,
    id: &str,
) -> Result<(), Failure> {
    if all(shared, kind).await?.contains_key(id) {
        return Ok(());
    }
    let message = format!("there is no `{id}` among the {}", kind.name());
    Err(Failure::new(StatusCode::NOT_FOUND, "not_found", message))
}

/// Refuses to change a maintenance window that the pipeline files define.
async fn not_of_files<S: Views + Send + Sync + 'static>(shared: &Shared<S>, id: &str) -> Result<(), Failure> {
    let of_files = shared.ask_any(|engine| asked::planned_ids(engine)).await.unwrap_or_default().concat();
    if !of_files.iter().any(|planned| planned == id) {
        return Ok(());
    }
    let message = format!("maintenance `{id}` is written in the pipeline files; change it there");
    Err(Failure::new(StatusCode::CONFLICT, "conflict", message))
}

pub(crate) async fn silence<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer {
    let now = shared.log_time();
    let silence = shared.reads.run(move |_| {
        let by = caller.name.as_deref();
        ask::silence(text(&body)?, ask::New { id: &new_id(&body, now), by }, now).map_err(refused)
    });
    let silence = silence.await?;
    room(&shared, Asked::Silences, &silence.id, silence.burden()).await?;
    let (id, matchers) = (silence.id.to_string(), silence.matchers.clone());
    let end = silence.end.to_string();
    everywhere(&shared, &Control::Silence(silence)).await?;
    let matching = matching(&shared, &matchers).await?;
    let answer = json!({"id": id, "end": end, "matching": matching});
    Ok(json_response(StatusCode::ACCEPTED, answer.to_string()))
}

pub(crate) async fn expire_silence<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    Params(By { by }): Params<By>,
) -> Answer {
    let by = caller.name.map_or(by, |name| name.to_string());
    known(&shared, Asked::Silences, &id).await?;
    everywhere(&shared, &Control::Unsilence { id: id.clone(), by }).await?;
    Ok(json_response(StatusCode::ACCEPTED, json!({ "id": id }).to_string()))
}

pub(crate) async fn add_maintenance<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(Empty {}): Params<Empty>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Answer {
    let now = shared.log_time();
    let read = shared.reads.run(move |_| {
        let by = caller.name.as_deref();
        let planned = ask::maintenance(text(&body)?, ask::New { id: &new_id(&body, now), by });
        let planned = planned.map_err(refused)?;
        let next = asked::next(&planned.plan, now);
        Ok((planned, next))
    });
    let (planned, next) = read.await?;
    room(&shared, Asked::Maintenance, &planned.id, planned.burden()).await?;
    if next.is_empty() {
        return Err(Failure::bad("this maintenance is over already, or never comes"));
    }
    let (id, matchers) = (planned.id.to_string(), planned.matchers.clone());
    not_of_files(&shared, &id).await?;
    everywhere(&shared, &Control::Maintenance(planned)).await?;
    let matching = matching(&shared, &matchers).await?;
    let answer = json!({"id": id, "next": next, "matching": matching});
    Ok(json_response(StatusCode::ACCEPTED, answer.to_string()))
}

pub(crate) async fn end_maintenance<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Extension(caller): Extension<Caller>,
    Named(id): Named,
    Params(By { by }): Params<By>,
) -> Answer {
    let by = caller.name.map_or(by, |name| name.to_string());
    not_of_files(&shared, &id).await?;
    known(&shared, Asked::Maintenance, &id).await?;
    everywhere(&shared, &Control::EndMaintenance { id: id.clone(), by }).await?;
    Ok(json_response(StatusCode::ACCEPTED, json!({ "id": id }).to_string()))
}

/// `?at=T`: the time for which the preview reports whether the window is in force.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Preview {
    at: Option<String>,
}

/// Previews a maintenance window: its next times and the alerts that it matches. Nothing is changed.
pub(crate) async fn preview<S: Views + Send + Sync + 'static>(
    State(shared): App<S>,
    Params(query): Params<Preview>,
    body: Bytes,
) -> Answer {
    let now = shared.log_time();
    let at = query.at.as_deref().map(|at| instant(at, now)).transpose()?.unwrap_or(now);
    let read = shared.reads.run(move |_| {
        let planned =
            ask::maintenance(text(&body)?, ask::New { id: "preview", by: None }).map_err(refused)?;
        let next = asked::next(&planned.plan, at);
        Ok((planned, next))
    });
    let (planned, next) = read.await?;
    let matching = matching(&shared, &planned.matchers).await?;
    let answer = json!({"at": at.to_string(), "in_force": planned.plan.at(at).is_in_force,
        "next": next, "matching": matching, "match": planned.matchers.texts()});
    Ok(json_response(StatusCode::OK, answer.to_string()))
}

/// Returns the ids of active alerts that the matchers select.
async fn matching<S: Views + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    matchers: &Selector,
) -> Result<Vec<String>, Failure> {
    let active = active(shared).await?.into_iter().flatten();
    let found = active.filter(|alert| matchers.selects(|name| label(alert, name)));
    Ok(found.map(|alert| alert.id).take(MATCHING_SHOWN).collect())
}

fn label<'a>(alert: &'a Transition, name: &str) -> Option<&'a str> {
    match name {
        "rule" => Some(&alert.rule),
        "severity" => Some(alert.severity.name()),
        name => alert.key.get(name).or_else(|| alert.labels.get(name)).map(|value| &**value),
    }
}

/// Appends a control record to every partition, because each partition applies it to its own alerts.
async fn everywhere<S: Views + Send + Sync + 'static>(
    shared: &Shared<S>,
    control: &Control,
) -> Result<(), Failure> {
    for place in 0..shared.partitions.len() as u32 {
        shared.append(place, Entry::control(control)).await.map_err(|mut failure| {
            // Partitions that already have the record keep it. A repeat of the request with the same id
            // changes nothing there.
            failure.message = format!("partition {place}: {}; send it again, with an `id`", failure.message);
            failure
        })?;
    }
    Ok(())
}

/// Refuses a new silence or maintenance window if all of its kind together would exceed the limits on number and
/// size.
async fn room<S: Views + Send + Sync + 'static>(
    shared: &Arc<Shared<S>>,
    kind: Asked,
    id: &str,
    new: Burden,
) -> Result<(), Failure> {
    let wanted = id.to_string();
    let live = shared.ask_each(move |engine| asked::beside(engine, kind, &wanted)).await;
    // Partitions may hold different silences, because a partition ends a silence itself if none of its own alerts
    // match. The partition with the largest burden is therefore checked.
    let most = live.into_iter().flatten().max_by_key(|burden| (burden.matchers, burden.bytes));
    let beside = match most {
        Some(known) => known,
        None => {
            let (all, wanted) = (all(shared, kind).await?, id.to_string());
            let others = move |_: &super::reads::Asker| {
                // Maintenance windows of the pipeline files have no author and do not count against the limits.
                let others = all.iter().filter(|(other, shown)| **other != wanted && shown["by"] != "");
                Ok(others.map(stored_burden).sum())
            };
            shared.reads.run(others).await?
        }
    };
    beside.room_for(new).map_err(|reason| {
        let message = format!("no room among the {}: {reason}; end some first", kind.name());
        Failure::new(StatusCode::CONFLICT, "too_many", message)
    })
}

/// Computes the burden of a silence or maintenance window from its stored JSON.
fn stored_burden((_, shown): (&String, &Value)) -> Burden {
    let texts = shown["match"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let texts: Vec<&str> = texts.collect();
    let matchers = ask::matchers(&texts.join(",")).unwrap_or(Selector { name: None, matchers: Vec::new() });
    Burden::of(&matchers, shown["reason"].as_str().unwrap_or(""))
}

fn text(body: &Bytes) -> Result<&str, Failure> {
    std::str::from_utf8(body).map_err(|_| Failure::bad("the body is no UTF-8"))
}

fn new_id(body: &Bytes, now: Timestamp) -> String {
    let seed = [&now.ms().to_le_bytes()[..], body].concat();
    format!("{:016x}", xxh3_64(&seed))
}

/// Builds the failure of a refused request: the first error as the message, all diagnostics as details.
pub(super) fn refused(wrong: Vec<Diagnostic>) -> Failure {
    let said = |one: &Diagnostic| match &one.hint {
        Some(hint) => format!("{} (hint: {hint})", one.message),
        None => one.message.clone(),
    };
    let first = wrong.iter().find(|one| one.is_error).map_or("it cannot be read".into(), said);
    let details = json!(wrong);
    Failure { details, ..Failure::bad(first) }
}
