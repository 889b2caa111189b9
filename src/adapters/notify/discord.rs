//! `discord`: a webhook with one embed.
//!
//! Limits of the target: title 256 characters, description 4,096, 6,000 in all. Mentions are disabled,
//! whatever an alert's text contains. The target states the wait before a retry in its body (`retry_after`,
//! in seconds).

use super::hook::Hook;
use super::text::{colour, cut, escaped, listed, standing};
use super::wording::Wording;
use crate::core::notify::Message;
use crate::driver::receivers::ports::{Channel, Failure};
use serde_json::{Value, json};
use std::time::Duration;

const TITLE_CHARS: usize = 256;
const LINE_CHARS: usize = 380; // halved before escaping, which at most doubles it; ten lines: 3,800
const DESCRIPTION_CHARS: usize = 4_096;

#[derive(Debug)]
pub(crate) struct Discord(pub Hook);

impl Channel for Discord {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let mut answer = self.0.post(&body(message, &self.0.external_url, &self.0.wording))?;
        let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let seconds = said["retry_after"].as_f64().filter(|seconds| (0.0..1e6).contains(seconds));
        answer.retry_after = seconds.map(Duration::from_secs_f64).or(answer.retry_after);
        answer.verdict()
    }

    fn attempt_max(&self) -> Duration {
        self.0.http.request_max()
    }
}

/// Escapes the characters that are markup in Discord.
fn escape(text: &str) -> String {
    escaped(text, "*_~`|>[]#\\@<")
}

pub(crate) fn body(message: &Message, external_url: &str, wording: &Wording) -> Value {
    let (alerts, left_out) = listed(message);
    let one = |alert: &&_| {
        format!("**{}** {}", escape(&standing(alert)), escape(&cut(&wording.line(alert), LINE_CHARS / 2)))
    };
    let mut lines: Vec<String> = alerts.iter().map(one).collect();
    if left_out > 0 {
        lines.push(format!("and {left_out} more"));
    }
    let embed = json!({
        "title": cut(&wording.title(message), TITLE_CHARS),
        "description": cut(&lines.join("\n"), DESCRIPTION_CHARS),
        "url": external_url,
        "color": colour(message),
        "timestamp": message.since.to_string(),
    });
    json!({"embeds": [embed], "allowed_mentions": {"parse": []}})
}
