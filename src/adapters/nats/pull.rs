//! Messages of one consumer, asked for in advance.
//!
//! Intuition: a pull is a request for so many messages, answered on a subject of ours; half of them
//! being there, the next request goes out, so that the broker never waits for us. Rejected: the
//! client's own stream of messages, which gives each one a copy of its whole context (a fifth of the
//! time of reading) and hides what the broker says in between.

use super::reader::{Broken, lost};
use async_nats::{Client, Message, StatusCode, Subscriber};
use futures_util::StreamExt;
use serde_json::json;
use std::time::Duration;

/// Messages and bytes of one pull: a quarter of the client's own buffer of 65,536, and what
/// nats-server 2.9 sends without taking the client for a slow one.
const PULL_MESSAGES: usize = 5_000;
const PULL_BYTES: usize = 16 << 20;

/// Messages handed over together at most.
const BATCH_MAX: usize = 1_024;

/// A pull that is not filled ends after this; the next one goes out then.
const EXPIRES: Duration = Duration::from_secs(5);

/// Without a sign of life for twice this the consumer is made anew.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A consumer that is being read.
pub(super) struct Pull {
    client: Client,
    subject: String, // where pulls are asked for
    inbox: String,
    messages: Subscriber,
    /// Messages asked for that have not come yet.
    owed: usize,
}

impl Pull {
    pub(super) async fn begin(client: &Client, stream: &str, consumer: &str) -> Result<Pull, Broken> {
        let inbox = client.new_inbox();
        let messages = client.subscribe(inbox.clone()).await.map_err(lost)?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let mut pull = Pull { client: client.clone(), subject, inbox, messages, owed: 0 };
        pull.ask().await?;
        Ok(pull)
    }

    /// The messages that are there, at least one.
    pub(super) async fn next(&mut self) -> Result<Vec<Message>, Broken> {
        let mut batch = Vec::new();
        while batch.is_empty() {
            let waited = tokio::time::timeout(HEARTBEAT * 2, self.messages.next()).await;
            let first = waited.map_err(|_| lost("no heartbeat"))?;
            self.take(first.ok_or_else(|| lost("the subscription has ended"))?, &mut batch)?;
            while batch.len() < BATCH_MAX {
                // What is there already comes without waiting.
                let Some(Some(message)) = futures_util::FutureExt::now_or_never(self.messages.next()) else {
                    break;
                };
                self.take(message, &mut batch)?;
            }
            if self.owed < PULL_MESSAGES / 2 {
                self.ask().await?;
            }
        }
        Ok(batch)
    }

    /// A message, or what the broker says about the pull.
    fn take(&mut self, message: Message, batch: &mut Vec<Message>) -> Result<(), Broken> {
        // A stored message may carry a status of its own; only the broker's own words have no reply subject.
        let is_stored = message.reply.is_some();
        match message.status.filter(|_| !is_stored) {
            None | Some(StatusCode::OK) => {
                self.owed = self.owed.saturating_sub(1);
                batch.push(message);
            }
            Some(StatusCode::IDLE_HEARTBEAT) => {}
            // It was not filled in time: nothing is owed any more.
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => self.owed = 0,
            Some(status) => {
                let text = message.description.unwrap_or_default();
                // Bytes are the other end of a pull; anything else is the end of the consumer.
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
