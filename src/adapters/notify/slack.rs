//! `slack`: sends messages of blocks through an incoming webhook, or as an app (`chat.postMessage`). As an app, later
//! messages of a group are replies in the thread of the first message, so the end of an alert is linked to its
//! beginning.
//!
//! Limits of the target: header 150 characters, section 3,000, 50 blocks, about 13,000 characters in all.
//! An alert's text is escaped (`&`, `<` and `>`), so it never becomes markup and `<!channel>` notifies
//! nobody.

use super::hook::Hook;
use super::text::{cut, listed, standing};
use super::wording::Wording;
use crate::core::notify::Message;
use crate::driver::receivers::ports::{Channel, Failure};
use serde_json::{Value, json};
use std::time::Duration;

const HEADER_CHARS: usize = 150;
const SECTION_CHARS: usize = 1_000; // of 3,000; ten sections stay below the total

/// The default target of an app.
pub(crate) const API: &str = "https://slack.com/api/chat.postMessage";

/// Slack's errors that are temporary.
const PASSING: [&str; 6] = [
    "fatal_error",
    "internal_error",
    "ratelimited",
    "rate_limited",
    "request_timeout",
    "service_unavailable",
];

#[derive(Debug)]
pub(crate) struct Slack {
    pub hook: Hook,
    /// The channel of an app; `None` for an incoming webhook, which has a fixed channel and answers `ok`
    /// only.
    pub channel: Option<String>,
    /// Slack's timestamp of the message delivered last. Slack identifies messages by it, for replies in a thread.
    pub named: Option<String>,
}

impl Channel for Slack {
    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let mut body = body(message, &self.hook.external_url, &self.hook.wording);
        self.named = None;
        if let Some(channel) = &self.channel {
            body["channel"] = json!(channel);
        }
        if let (Some(_), Some(first)) = (&self.channel, &message.answers) {
            // Reply in the thread of the first message and also in the channel, so that people who read
            // only the channel see the end.
            body["thread_ts"] = json!(&**first);
            body["reply_broadcast"] = json!(true);
        }
        let answer = self.hook.post(&body)?;
        answer.verdict()?;
        match self.channel {
            Some(_) => self.named = of_app(&answer.body)?,
            None => of_hook(&answer.body)?,
        }
        Ok(())
    }

    fn named(&self) -> Option<&str> {
        self.named.as_deref()
    }

    fn attempt_max(&self) -> Duration {
        self.hook.http.request_max()
    }
}

fn of_hook(answer: &str) -> Result<(), Failure> {
    match answer.trim() {
        "ok" => Ok(()),
        "" => Err(Failure::again("it answered nothing")),
        other => Err(Failure::never(format!("it answered {}", cut(other, 100)))),
    }
}

/// Returns the timestamp by which Slack identifies the message. Slack reports errors in the body of an answer with
/// status 200, so the body is checked.
fn of_app(answer: &str) -> Result<Option<String>, Failure> {
    let said: Value = serde_json::from_str(answer).unwrap_or_default();
    let error = said["error"].as_str().unwrap_or("nothing that can be read");
    match said["ok"].as_bool() {
        Some(true) => Ok(said["ts"].as_str().map(Into::into)),
        Some(false) if !PASSING.contains(&error) => {
            Err(Failure::never(format!("it answered {}", cut(error, 100))))
        }
        _ => Err(Failure::again(format!("it answered {}", cut(error, 100)))),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Builds the message in blocks, with a plain text for notifications.
pub(crate) fn body(message: &Message, external_url: &str, wording: &Wording) -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_success_in_its_body_or_none() {
        assert_eq!(of_hook("ok\n"), Ok(()));
        assert!(matches!(of_hook(""), Err(Failure::Again { .. })), "it was cut off");
        assert!(matches!(of_hook("invalid_blocks"), Err(Failure::Final { .. })));
        assert_eq!(of_app(r#"{"ok": true, "ts": "1.2"}"#), Ok(Some("1.2".into())));
        let never = of_app(r#"{"ok": false, "error": "channel_not_found"}"#);
        assert_eq!(never, Err(Failure::never("it answered channel_not_found")));
        assert!(matches!(of_app(r#"{"ok": false, "error": "internal_error"}"#), Err(Failure::Again { .. })));
        assert!(matches!(of_app("<html>"), Err(Failure::Again { .. })), "a proxy, perhaps");
    }
}
