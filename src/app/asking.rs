//! `silence` and `maintenance`: requests to a running service over HTTP.

use super::FINE;
use super::cli::{Format, Listing, MaintenanceCommand, PlanArgs, Service, SilenceCommand, Who};
use super::client::{delete, escaped, get, post, print, who};
use super::stdout::say;
use crate::wire::printable::printable;
use anyhow::Result;
use serde_json::{Map, Value, json};

pub(crate) fn silence(command: &SilenceCommand) -> Result<u8> {
    match command {
        SilenceCommand::Add {
            matchers,
            duration,
            until,
            unmatched_for,
            reason,
            who: Who { by },
            id,
            service: Service { url },
        } => {
            let text = |span: &Option<crate::core::Span>| span.map(|span| span.to_string());
            let body = json!({"match": matchers, "duration": text(duration), "end": until,
                "unmatched_for": text(unmatched_for), "reason": reason, "by": who(by), "id": id});
            let answer = post(url, "/api/v1/silences", &stated(body))?;
            let (id, end) = (word(&answer["id"]), word(&answer["end"]));
            say(format_args!("silence {id} until {end}{}", matched(&answer)))?;
        }
        SilenceCommand::List(Listing { service: Service { url }, output }) => {
            let found = get(url, "/api/v1/silences")?;
            print(output, &found["silences"], &["id", "state", "end", "by", "match", "reason"])?;
        }
        SilenceCommand::Expire { id, who: Who { by }, service: Service { url } } => {
            delete(url, &format!("/api/v1/silences/{}?by={}", escaped(id), escaped(&who(by))))?;
            say(format_args!("silence {id} has ended"))?;
        }
    }
    Ok(FINE)
}

pub(crate) fn maintenance(command: &MaintenanceCommand) -> Result<u8> {
    match command {
        MaintenanceCommand::Add { plan, id, who: Who { by }, reason, service: Service { url } } => {
            let mut body = body_of(plan);
            let rest = json!({"id": id, "by": who(by), "reason": reason});
            body.extend(rest.as_object().cloned().unwrap_or_default());
            let answer = post(url, "/api/v1/maintenance", &stated(Value::Object(body)))?;
            say(format_args!("maintenance {}{}", word(&answer["id"]), matched(&answer)))?;
            print(&Format::Table, &answer["next"], &["start", "end"])?;
        }
        MaintenanceCommand::List(Listing { service: Service { url }, output }) => {
            let mut found = get(url, "/api/v1/maintenance")?["maintenance"].take();
            if *output == Format::Table {
                for one in found.as_array_mut().into_iter().flatten() {
                    let next = one["next"][0].clone();
                    (one["start"], one["end"]) = (next["start"].clone(), next["end"].clone());
                }
            }
            print(output, &found, &["id", "state", "mode", "start", "end", "by", "match", "reason"])?;
        }
        MaintenanceCommand::End { id, who: Who { by }, service: Service { url } } => {
            delete(url, &format!("/api/v1/maintenance/{}?by={}", escaped(id), escaped(&who(by))))?;
            say(format_args!("maintenance {id} has ended"))?;
        }
        MaintenanceCommand::Preview { plan, at, service: Service { url }, output } => {
            let query = at.as_ref().map_or(String::new(), |at| format!("?at={}", escaped(at)));
            let body = stated(Value::Object(body_of(plan)));
            let answer = post(url, &format!("/api/v1/maintenance/preview{query}"), &body)?;
            show_preview(output, &answer)?;
        }
    }
    Ok(FINE)
}

fn show_preview(output: &Format, answer: &Value) -> Result<()> {
    if *output == Format::Json {
        return say(answer);
    }
    let is_not = if answer["in_force"] == true { "" } else { "not " };
    say(format_args!("at {}: {is_not}in force{}", word(&answer["at"]), matched(answer)))?;
    print(output, &answer["next"], &["start", "end"])
}

/// Returns a plan with the field names of the pipeline files.
fn body_of(plan: &PlanArgs) -> Map<String, Value> {
    let except = (!plan.except.is_empty()).then_some(&plan.except);
    let body = json!({"match": plan.matchers, "start": plan.start, "end": plan.end,
        "schedule": plan.schedule, "duration": plan.duration.map(|span| span.to_string()), "tz": plan.tz,
        "except": except, "mode": plan.mode});
    body.as_object().cloned().unwrap_or_default()
}

/// Removes the fields that the command line does not state.
fn stated(mut body: Value) -> Value {
    if let Value::Object(fields) = &mut body {
        fields.retain(|_, value| !value.is_null());
    }
    body
}

fn matched(answer: &Value) -> String {
    let alerts = answer["matching"].as_array().map_or(0, Vec::len);
    format!("; active alerts that it matches now: {alerts}")
}

fn word(value: &Value) -> std::borrow::Cow<'_, str> {
    printable(value.as_str().unwrap_or(""))
}
