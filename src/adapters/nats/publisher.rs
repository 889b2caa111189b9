//! Messages out in great number: many under way at once, each sent again until it is acknowledged.
//!
//! Intuition: a broker that is away is waited for, but not in silence, and only as long as whoever waits
//! wants. So all waiting goes through one place, which knows when to speak and when to give up.
//! Invariant: a message keeps its id through all attempts, so that the broker recognises repeats; one
//! that was handed over is among those under way until it is acknowledged, whatever happens.

use super::{NATS, RETRY_EVERY, connect};
use crate::driver::outage::Outages;
use crate::driver::ports::PortError;
use crate::wire::event::Codec;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::{Client, connection::State};
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

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

/// How long a broker is waited for.
pub struct Patience {
    /// Without an acknowledgement; for ever without.
    pub timeout: Option<Duration>,
    /// Ends all waiting.
    pub stop: CancellationToken,
    /// The first word about waiting comes after so long, the next ones each so long after the one before.
    pub say_after: (Duration, Duration),
    /// Says that the broker is waited for: whether there is a connection, for how long, and what the broker refused.
    pub say: Box<dyn Fn(bool, Duration, Option<String>) + Send>,
}

impl std::fmt::Debug for Patience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patience").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Why publishing ended, or why it cannot take a message.
#[derive(Debug, thiserror::Error)]
pub enum PublishFailure {
    #[error("told to end")]
    Stopped,
    #[error("the broker acknowledged nothing for {:.1} s{}", .0.as_secs_f64(), refused(.1))]
    Silent(Duration, Option<String>),
    #[error("the broker takes no message of {0} bytes")]
    TooLarge(usize),
    #[error(transparent)]
    Port(#[from] PortError),
}

/// Publishes to JetStream.
pub struct Publisher {
    handle: Handle,
    client: Client,
    context: Context,
    patience: Patience,
    outages: Outages,
    under_way: VecDeque<(Outgoing, Option<PublishAckFuture>)>,
    acknowledged: u64,
    /// The newest word about waiting.
    said: Cell<Option<Instant>>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("acknowledged", &self.acknowledged).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Connects in the background; not to be called from a task of the runtime.
    pub fn open(handle: Handle, url: &str, patience: Patience) -> Result<Publisher, PortError> {
        let outages = Outages::default();
        let client = handle.block_on(connect(url, &outages))?;
        let context = handle.block_on(async { super::context(client.clone()) });
        Ok(Publisher {
            handle,
            client,
            context,
            patience,
            outages,
            under_way: VecDeque::new(),
            acknowledged: 0,
            said: Cell::new(None),
        })
    }

    /// Sends; waits only while too many are under way. A message that is too large is not taken.
    pub fn push(&mut self, message: Outgoing) -> Result<(), PublishFailure> {
        let sent = self.wait(send(&self.context, &message));
        let (sent, stopped) = match sent {
            Ok(Err(error)) if matches!(error.kind(), PublishErrorKind::MaxPayloadExceeded) => {
                return Err(PublishFailure::TooLarge(message.payload.len()));
            }
            Ok(sent) => (sent.ok(), Ok(())),
            Err(failure) => (None, Err(failure)),
        };
        self.under_way.push_back((message, sent));
        stopped?;
        if self.under_way.len() > UNDER_WAY_MAX { self.settle() } else { Ok(()) }
    }

    /// Waits for acknowledgements until no more than so many are missing.
    pub fn settle_to(&mut self, missing_max: usize) -> Result<(), PublishFailure> {
        while self.under_way.len() > missing_max {
            self.settle()?;
        }
        Ok(())
    }

    /// Lets time pass, unless it is told to end.
    pub fn pause(&self, time: Duration) -> Result<(), PublishFailure> {
        let stop = &self.patience.stop;
        let told = self.handle.block_on(async { tokio::time::timeout(time, stop.cancelled()).await });
        told.map_or(Ok(()), |()| Err(PublishFailure::Stopped))
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
    fn settle(&mut self) -> Result<(), PublishFailure> {
        let Some((message, sent)) = self.under_way.pop_front() else { return Ok(()) };
        let settled = self.wait(acknowledge(&self.context, &message, sent));
        match settled {
            Ok(Ok(())) => {
                self.acknowledged += 1;
                Ok(())
            }
            Ok(Err(error)) => {
                let place = message.subject.clone();
                self.under_way.push_front((message, None));
                Err(PortError::Write { place, source: error.into() }.into())
            }
            Err(failure) => {
                self.under_way.push_front((message, None));
                Err(failure)
            }
        }
    }

    /// Waits for something of the broker, says so now and then, and gives up when it was told to.
    fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, PublishFailure> {
        let Patience { timeout, stop, say_after: (first, every), say } = &self.patience;
        self.handle.block_on(async {
            let begun = Instant::now();
            // A broker that comes and goes is one word, not one for each message.
            let quiet_until = self.said.get().map(|said| said + *every);
            let mut say_at = quiet_until.unwrap_or(begun).max(begun + *first);
            tokio::pin!(work);
            loop {
                let late = async {
                    match timeout {
                        Some(timeout) => tokio::time::sleep_until(begun + *timeout).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    done = &mut work => return Ok(done),
                    () = stop.cancelled() => return Err(PublishFailure::Stopped),
                    () = late => {
                        return Err(PublishFailure::Silent(begun.elapsed(), self.outages.refusal(NATS)));
                    }
                    () = tokio::time::sleep_until(say_at) => {
                        let is_connected = self.client.connection_state() == State::Connected;
                        say(is_connected, begun.elapsed(), self.outages.refusal(NATS));
                        self.said.set(Some(Instant::now()));
                        say_at = Instant::now() + *every;
                    }
                }
            }
        })
    }
}

/// The broker's refusal as the end of a message to people; empty without one.
pub fn refused(words: &Option<String>) -> String {
    words.as_ref().map_or(String::new(), |words| format!("; it says: {words}"))
}

/// Waits until the broker has a message, sending it again where it did not say so.
async fn acknowledge(
    context: &Context,
    message: &Outgoing,
    mut sent: Option<PublishAckFuture>,
) -> Result<(), PublishError> {
    loop {
        let error = match sent.take() {
            Some(sent) => match sent.await {
                Ok(_) => return Ok(()),
                Err(error) => Some(error),
            },
            None => None,
        };
        if let Some(error) = error.filter(|error| is_final(error.kind())) {
            return Err(error);
        }
        sleep(RETRY_EVERY).await;
        sent = match send(context, message).await {
            Ok(sent) => Some(sent),
            Err(error) if is_final(error.kind()) => return Err(error),
            Err(_) => None,
        };
    }
}

async fn send(context: &Context, message: &Outgoing) -> Result<PublishAckFuture, PublishError> {
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
