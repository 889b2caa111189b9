//! Messages of one consumer, requested in advance.
//!
//! Intuition: a pull is a request for a number of messages, which arrive at an inbox of ours. Once half of
//! them have arrived, the next pull is sent, so the broker never waits for us. Rejected: the client's own
//! message stream, which gives each message a copy of its whole context (a fifth of the time of reading)
//! and hides the broker's status messages.

use super::reader::{Broken, lost};
use async_nats::{Client, Message, StatusCode, Subscriber};
use futures_util::StreamExt;
use serde_json::json;
use std::time::Duration;

/// Messages and bytes of one pull: below the client's own buffer of 65,536 messages, and within what
/// nats-server 2.9 sends without treating the client as a slow consumer.
const PULL_MESSAGES: usize = 5_000;
const PULL_BYTES: usize = 16 << 20;

/// Maximum number of messages handed over together.
const BATCH_MAX: usize = 1_024;

/// Expiry of a pull that is not filled; the next one is sent then.
const EXPIRES: Duration = Duration::from_secs(5);

/// Heartbeat interval; without a message for twice this time the consumer is made anew.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A consumer that is being read.
pub(super) struct Pull {
    client: Client,
    subject: String, // subject of pull requests
    inbox: String,
    messages: Subscriber,
    /// Messages requested that have not arrived yet.
    owed: usize,
    /// A pull has expired since the last call of [`Pull::next`] began.
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

    /// Returns the messages that have arrived; none if a pull expired while none did.
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
        // Messages have come, so the next call waits again.
        self.is_expired &= batch.is_empty();
        Ok(batch)
    }

    /// Takes a message, or a status message of the broker about the pull.
    fn take(&mut self, message: Message, batch: &mut Vec<Message>) -> Result<(), Broken> {
        // A stored message may carry a status header of its own; only the broker's status messages have no
        // reply subject.
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
                // A pull also ends when its bytes are used up; any other status ends the consumer.
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
