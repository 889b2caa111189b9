//! Messages of one consumer, requested in advance.
//!
//! Intuition: a pull is a request for a number of messages, which the broker sends to an inbox of this process. Once
//! half of them have arrived, the next pull is sent, so the broker never waits for a request. Rejected: the client's
//! own message stream, which attaches a copy of its context to each message (a fifth of the reading time)
//! and hides the broker's status messages.

use super::reader::{Broken, lost};
use async_nats::{Client, Message, StatusCode, Subscriber};
use futures_util::StreamExt;
use serde_json::json;
use std::time::Duration;

/// Maximum messages and bytes of one pull. They are below the client's buffer of 65,536 messages, and small enough
/// that nats-server 2.9 does not disconnect the client as a slow consumer.
const PULL_MESSAGES: usize = 5_000;
const PULL_BYTES: usize = 16 << 20;

/// Maximum number of messages handed over together.
const BATCH_MAX: usize = 1_024;

/// Time after which the broker ends a pull that it could not fill. The next pull is sent then.
const EXPIRES: Duration = Duration::from_secs(5);

/// Interval of the broker's idle heartbeats. If nothing arrives for twice this time, the consumer counts as lost.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A consumer that is being read.
pub(super) struct Pull {
    client: Client,
    subject: String, // subject of pull requests
    inbox: String,
    messages: Subscriber,
    /// Messages requested that have not arrived yet.
    owed: usize,
    /// Whether a pull has expired unfilled, and [`Pull::next`] has not reported that yet.
    is_expired: bool,
}

impl Pull {
    pub(super) async fn begin(client: &Client, stream: &str, consumer: &str) -> Result<Pull, Broken> {
        let inbox = client.new_inbox();
        let messages = client.subscribe(inbox.clone()).await.map_err(lost)?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let mut pull = Pull { client: client.clone(), subject, inbox, messages, owed: 0, is_expired: false };
        pull.ask().await?;
        Ok(pull)
    }

    /// Waits for messages and returns those that have arrived. Returns none if a pull expired without a message.
    pub(super) async fn next(&mut self) -> Result<Vec<Message>, Broken> {
        let mut batch = Vec::new();
        while batch.is_empty() && !std::mem::take(&mut self.is_expired) {
            let waited = tokio::time::timeout(HEARTBEAT * 2, self.messages.next()).await;
            let first = waited.map_err(|_| lost("no heartbeat"))?;
            self.take(first.ok_or_else(|| lost("the subscription has ended"))?, &mut batch)?;
            while batch.len() < BATCH_MAX {
                // Takes messages that are already here, without waiting.
                let Some(Some(message)) = futures_util::FutureExt::now_or_never(self.messages.next()) else {
                    break;
                };
                self.take(message, &mut batch)?;
            }
            if self.owed < PULL_MESSAGES / 2 {
                self.ask().await?;
            }
        }
        // If messages have arrived, the expiry is not reported, so the next call waits for messages again.
        self.is_expired &= batch.is_empty();
        Ok(batch)
    }

    /// Adds a stored message to the batch, or handles the broker's status message about the pull.
    fn take(&mut self, message: Message, batch: &mut Vec<Message>) -> Result<(), Broken> {
        // A stored message may contain a status header, too. Every stored message has a reply subject for its
        // acknowledgement; the broker's status messages have none.
        let is_stored = message.reply.is_some();
        match message.status.filter(|_| !is_stored) {
            None | Some(StatusCode::OK) => {
                self.owed = self.owed.saturating_sub(1);
                batch.push(message);
            }
            Some(StatusCode::IDLE_HEARTBEAT) => {}
            // The pull expired unfilled, so no more messages arrive for it.
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => (self.owed, self.is_expired) = (0, true),
            Some(status) => {
                let text = message.description.unwrap_or_default();
                // The broker also ends a pull at its byte limit, which is normal. Any other status means that the
                // consumer is lost.
                if !text.to_ascii_lowercase().contains("maxbytes") {
                    return Err(lost(format!("{status} {text}")));
                }
                self.owed = 0;
            }
        }
        Ok(())
    }

    async fn ask(&mut self) -> Result<(), Broken> {
        let request = json!({
            "batch": PULL_MESSAGES,
            "max_bytes": PULL_BYTES,
            "expires": EXPIRES.as_nanos() as u64,
            "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
        });
        let (subject, inbox) = (self.subject.clone(), self.inbox.clone());
        self.client.publish_with_reply(subject, inbox, request.to_string().into()).await.map_err(lost)?;
        self.owed += PULL_MESSAGES;
        Ok(())
    }
}
