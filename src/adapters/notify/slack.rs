//! `slack`: an incoming webhook, in blocks.
//!
//! Limits of the target: header 150 characters, section 3,000, 50 blocks, about 13,000 characters in all. What
//! an alert says is text there, never markup: `&`, `<` and `>` are escaped, so nobody is called by `<!channel>`.

use super::hook::Hook;
use super::text::{cut, listed, standing};
use super::wording::Wording;
use crate::core::notify::Message;
use crate::driver::notify::ports::{Channel, Failure};
use serde_json::{Value, json};

const HEADER_CHARS: usize = 150;
const SECTION_CHARS: usize = 1_000; // of 3,000; ten of them stay below what all may have

#[derive(Debug)]
pub struct Slack(pub Hook);

impl Channel for Slack {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let answer = self.0.post(&body(message, &self.0.external_url, &self.0.wording))?;
        answer.verdict()?;
        match answer.body.trim() {
            "ok" => Ok(()),
            other => Err(Failure::never(format!("it answered {}", cut(other, 100)))),
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The message in blocks, with a plain text for notifications.
pub fn body(message: &Message, external_url: &str, wording: &Wording) -> Value {
    let title = wording.title(message);
    let (alerts, left_out) = listed(message);
    let mut blocks =
        vec![json!({"type": "header", "text": {"type": "plain_text", "text": cut(&title, HEADER_CHARS)}})];
    for alert in alerts {
        let mut text =
            format!("*{}* {}", escape(&standing(alert)), escape(&cut(&wording.line(alert), SECTION_CHARS)));
        if let Some(runbook) = alert.runbook.as_deref().filter(|url| url.starts_with("https://")) {
            text.push_str(&format!(" <{}|runbook>", escape(runbook).replace('|', "%7C")));
        }
        blocks.push(json!({"type": "section", "text": {"type": "mrkdwn", "text": text}}));
    }
    let more = if left_out > 0 { format!("and {left_out} more · ") } else { String::new() };
    let end = format!("{more}<{}|streamgauge>", escape(external_url));
    blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": end}]}));
    json!({"text": escape(&cut(&title, SECTION_CHARS)), "blocks": blocks})
}
