//! `alerts` and `rules`: operate a running service over HTTP.

use super::cli::{AlertsCommand, Listing, RulesCommand, Service, Who};
use super::client::{delete, escaped, get, post, print, send, who};
use super::listing;
use super::stderr::note;
use super::stdout::say;
use super::{FINE, text};
use anyhow::{Result, bail};
use serde_json::{Value, json};

pub(crate) fn alerts(command: &AlertsCommand) -> Result<u8> {
    match command {
        AlertsCommand::List { listing: Listing { service: Service { url }, output }, state } => {
            let path =
                state.as_ref().map_or("/api/v1/alerts".into(), |s| format!("/api/v1/alerts?state={s}"));
            let found = get(url, &path)?;
            let rows = listing::alerts(&found["alerts"], output);
            print(output, &rows, &listing::ALERTS)?;
        }
        AlertsCommand::Show { service: Service { url }, id } => {
            let active = get(url, "/api/v1/alerts")?;
            let found =
                active["alerts"].as_array().into_iter().flatten().find(|alert| alert["id"] == json!(id));
            let Some(found) = found else {
                bail!("no active alert has the id {id}; `alerts list` shows them")
            };
            say(serde_json::to_string_pretty(found)?)?;
        }
        AlertsCommand::Unack { service: Service { url }, id, who: Who { by } } => {
            delete(url, &format!("/api/v1/alerts/ack?alert={}&by={}", escaped(id), escaped(&who(by))))?;
            say(format_args!("no longer acknowledged: {id}"))?;
        }
        AlertsCommand::Ack { service: Service { url }, id, who: Who { by }, why, until, accept } => {
            let body = json!({"alert": id, "by": who(by), "why": why, "until": until, "accept": accept});
            post(url, "/api/v1/alerts/ack", &body)?;
            say(format_args!("acknowledged {id}"))?;
        }
        AlertsCommand::Explain(args) => return super::explain::run(args),
    }
    Ok(FINE)
}

pub(crate) fn rules(command: &RulesCommand) -> Result<u8> {
    match command {
        RulesCommand::List(Listing { service: Service { url }, output }) => {
            let found = get(url, "/api/v1/rules")?;
            print(output, &found["rules"], &["id", "keys", "levels", "expr"])?;
            for remark in found["remarks"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                note(remark);
            }
        }
        RulesCommand::Add { file, name, service: Service { url } } => {
            let text = text::read(file)?;
            let is_rule = crate::pipeline::document::of_rule(&text).is_some();
            let stem = file.file_name().map(|name| name.to_string_lossy().into_owned());
            let name = name.clone().or_else(|| stem.filter(|_| !is_rule));
            let query = name.map_or(String::new(), |name| format!("?name={}", escaped(&name)));
            let kind = if is_rule { "application/json" } else { "application/yaml" };
            send(url, &format!("/api/v1/rules{query}"), kind, text)?;
            say("the rules are in force with it")?;
        }
        RulesCommand::Remove { name, service: Service { url } } => {
            delete(url, &format!("/api/v1/rules/{}", escaped(name)))?;
            say("the rules are in force without it")?;
        }
    }
    Ok(FINE)
}
