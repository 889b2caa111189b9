//! `streamgauge notify`: tests receivers, lists them, and redelivers dead letters.

use super::cli::{Listing, NotifyCommand};
use super::config::File;
use super::receivers::Receivers;
use super::stderr::note;
use super::stdout::say;
use super::{BadConfig, FAILED, FINE, client};
use crate::adapters::clock::SystemClock;
use crate::core::notify::Message;
use crate::driver::receivers::self_alerts;
use anyhow::Result;
use serde_json::json;
use std::path::Path;

pub(crate) fn run(command: &NotifyCommand) -> Result<u8> {
    match command {
        NotifyCommand::Test { receiver, config, who } => {
            test(receiver, config.as_deref(), &client::who(&who.by))
        }
        NotifyCommand::Redrive { receiver, service } => {
            let path = format!("/api/v1/receivers/{}/redrive", client::escaped(receiver));
            let answer = client::post(&service.url, &path, &json!({}))?;
            say(format_args!("{} messages are delivered again", answer["messages"]))?;
            Ok(FINE)
        }
        NotifyCommand::List(Listing { service, output }) => {
            let found = client::get(&service.url, "/api/v1/receivers")?;
            let columns = [
                "name",
                "delivers_here",
                "circuit",
                "delivered",
                "retried",
                "given_up",
                "letters",
                "waiting",
            ];
            client::print(output, &found["receivers"], &columns)?;
            Ok(FINE)
        }
    }
}

/// Sends an alert and its end, so that no alert stays open at the receiver.
fn test(name: &str, config: Option<&Path>, by: &str) -> Result<u8> {
    let file = config.map_or_else(|| Ok(File::default()), File::read)?;
    let url = file.external_url.as_deref().unwrap_or("http://127.0.0.1:8080");
    let receivers = Receivers::read(file.receivers, file.route, &file.time_intervals, url)?;
    let Some(receiver) = receivers.find(name) else {
        let names: Vec<&str> = receivers.all.iter().map(|one| &*one.policy.name).collect();
        return Err(
            BadConfig(format!("there is no receiver `{name}`; there are: {}", names.join(", "))).into()
        );
    };
    let (mut channel, since) = (receiver.channel(SystemClock::time)?, SystemClock::time());
    let mut answers = None;
    for (what, is_over) in [("an alert", false), ("its end", true)] {
        let trial = self_alerts::trial(&receiver.policy.name, by, (since, SystemClock::time()), is_over);
        match channel.send(&Message { answers: answers.take(), ..trial }) {
            Ok(()) => note(format_args!("{name}: {what} arrived")),
            Err(error) => {
                note(format_args!("{name}: {what} did not arrive: {error}"));
                return Ok(FAILED);
            }
        }
        answers = channel.named().map(Into::into);
    }
    Ok(FINE)
}
