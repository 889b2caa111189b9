//! Messages out in great number: many under way at once, each sent again until it is acknowledged.
//!
//! Invariant: a message keeps its id through all attempts, so that the broker recognises repeats.

use super::{RETRY_EVERY, connect};
use crate::driver::outage::Outages;
use crate::driver::ports::PortError;
use crate::wire::event::Codec;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use std::collections::VecDeque;
use tokio::runtime::Handle;

/// Messages without an acknowledgement at once; the client's own bound is 5,000.
const UNDER_WAY_MAX: usize = 2_000;

/// A message to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    pub subject: String,
    pub codec: Codec,
    pub payload: String,
    pub id: String,
    /// Where its sender has it from.
    pub place: u64,
}

/// Publishes to JetStream.
pub struct Publisher {
    handle: Handle,
    context: Context,
    under_way: VecDeque<(Outgoing, Option<PublishAckFuture>)>,
    acknowledged: u64,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("acknowledged", &self.acknowledged).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Connects; not to be called from a task of the runtime.
    pub fn open(handle: Handle, url: &str) -> Result<Publisher, PortError> {
        let client = handle.block_on(connect(url, &Outages::default()))?;
        let context = handle.block_on(async { super::context(client) });
        Ok(Publisher { handle, context, under_way: VecDeque::new(), acknowledged: 0 })
    }

    /// Sends; waits only while too many are under way.
    pub fn push(&mut self, message: Outgoing) -> Result<(), PortError> {
        let sent = self.handle.block_on(send(&self.context, &message)).ok();
        self.under_way.push_back((message, sent));
        if self.under_way.len() > UNDER_WAY_MAX { self.settle() } else { Ok(()) }
    }

    /// Waits for acknowledgements until no more than so many are missing.
    pub fn settle_to(&mut self, missing_max: usize) -> Result<(), PortError> {
        while self.under_way.len() > missing_max {
            self.settle()?;
        }
        Ok(())
    }

    /// The lowest place of what the broker may not have yet.
    pub fn lowest_waiting(&self) -> Option<u64> {
        self.under_way.iter().map(|(message, _)| message.place).min()
    }

    /// Messages that the broker has for certain.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Waits for the oldest, sending it again as long as the broker is away.
    fn settle(&mut self) -> Result<(), PortError> {
        let Some((message, sent)) = self.under_way.front_mut() else { return Ok(()) };
        let mut sent = sent.take();
        self.handle.block_on(async {
            loop {
                let error = match sent.take() {
                    Some(sent) => match sent.await {
                        Ok(_) => return Ok(()),
                        Err(error) => Some(error),
                    },
                    None => None,
                };
                if let Some(error) = error.filter(|error| is_final(error.kind())) {
                    return Err(PortError::Write { place: message.subject.clone(), source: error.into() });
                }
                tokio::time::sleep(RETRY_EVERY).await;
                sent = send(&self.context, message).await.ok();
            }
        })?;
        self.under_way.pop_front();
        self.acknowledged += 1;
        Ok(())
    }
}

async fn send(
    context: &Context,
    message: &Outgoing,
) -> Result<PublishAckFuture, async_nats::jetstream::context::PublishError> {
    let publish = PublishMessage::build()
        .header("Content-Type", message.codec.content_type())
        .message_id(&message.id)
        .payload(message.payload.clone().into());
    context.send_publish(message.subject.clone(), publish).await
}

/// Whether sending again cannot help.
fn is_final(kind: PublishErrorKind) -> bool {
    matches!(kind, PublishErrorKind::StreamNotFound | PublishErrorKind::MaxPayloadExceeded)
}
