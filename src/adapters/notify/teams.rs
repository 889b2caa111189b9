//! `teams`: sends an adaptive card to the webhook of a Teams workflow. The older webhooks (connectors) are retired.
//!
//! Limit of the target: about 28 KB. Text blocks are markdown, so an alert's text is escaped.

use super::hook::Hook;
use super::text::{cut, escaped, listed, standing, worst};
use super::wording::Wording;
use crate::core::notify::Message;
use crate::core::vocab::severity::Severity;
use crate::driver::receivers::ports::{Channel, Failure};
use serde_json::{Value, json};
use std::time::Duration;

const TITLE_CHARS: usize = 250;
const LINE_CHARS: usize = 500; // eleven lines, escaped and in UTF-8, are below 28 KB

#[derive(Debug)]
pub(crate) struct Teams(pub Hook);

impl Channel for Teams {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        self.0.post(&body(message, &self.0.external_url, &self.0.wording))?.verdict()
    }

    fn attempt_max(&self) -> Duration {
        self.0.http.request_max()
    }
}

fn escape(text: &str) -> String {
    escaped(text, "*_~`[]#\\<>")
}

pub(crate) fn body(message: &Message, external_url: &str, wording: &Wording) -> Value {
    let (alerts, left_out) = listed(message);
    let colour = match worst(message) {
        Some(Severity::Critical) => "attention",
        Some(Severity::Warning) => "warning",
        Some(Severity::Info) => "accent",
        None => "good",
    };
    let block = |text: String| json!({"type": "TextBlock", "text": text, "wrap": true});
    let title = escape(&cut(&wording.title(message), TITLE_CHARS));
    let mut blocks = vec![
        json!({"type": "TextBlock", "text": title, "wrap": true, "weight": "bolder", "size": "medium", "color": colour}),
    ];
    blocks.extend(alerts.iter().map(|alert| {
        block(format!("**{}** {}", escape(&standing(alert)), escape(&cut(&wording.line(alert), LINE_CHARS))))
    }));
    if left_out > 0 {
        blocks.push(block(format!("and {left_out} more")));
    }
    let open = json!({"type": "Action.OpenUrl", "title": "streamgauge", "url": external_url});
    let card = json!({"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard",
        "version": "1.4", "body": blocks, "actions": [open]});
    json!({"type": "message", "attachments": [{
        "contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": card}]})
}
