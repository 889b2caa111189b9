//! Bulk publishing: many messages in flight, each retried until it is acknowledged.
//!
//! Intuition: the publisher waits for an unreachable broker, reports the waiting, and gives up at the caller's
//! timeout. All waiting happens in `Publisher::wait`, which decides when to report and when to give up. Invariant:
//! a message keeps its id through all attempts, so that the broker recognises repeats. A message that was pushed
//! stays in the queue of messages in flight until it is acknowledged.

use super::{ANSWER_WITHIN, NATS, RETRY_EVERY, connect};
use crate::driver::outage::Outages;
use crate::driver::ports::PortError;
use crate::wire::address::without_password;
use crate::wire::event::Codec;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::{Client, connection::State};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future, IntoFuture};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

/// Maximum number of messages without an acknowledgement; the client's own limit is 5,000.
const UNDER_WAY_MAX: usize = 2_000;

/// A message to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub subject: String,
    pub codec: Codec,
    pub payload: String,
    pub id: String,
    /// Position of the message in the caller's input, in the caller's unit.
    pub place: u64,
}

/// How long the publisher waits for the broker, and how it reports that.
pub(crate) struct Patience {
    /// Timeout without an acknowledgement; `None` waits for ever.
    pub timeout: Option<Duration>,
    /// Ends all waiting.
    pub stop: CancellationToken,
    /// Time until the first report about waiting, and time between two further reports.
    pub say_after: (Duration, Duration),
    /// Reports waiting. Its arguments are whether the client is connected, the time waited, and the broker's newest
    /// refusal, if any.
    pub say: Box<dyn Fn(bool, Duration, Option<String>) + Send>,
}

impl std::fmt::Debug for Patience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patience").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Why publishing ended, or why a message was rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishFailure {
    #[error("told to end")]
    Stopped,
    #[error("the broker at {address} acknowledged nothing for {:.1} s{}", .waited.as_secs_f64(), refused(.words))]
    Silent { address: String, waited: Duration, words: Option<String> },
    #[error(
        "no stream takes {0}; start a worker (`streamgauge run --nats … --redis …`), which creates the \
         streams, and give --partitions of the deployment"
    )]
    NoStream(String),
    #[error("the broker takes no message of {0} bytes")]
    TooLarge(usize),
    #[error(transparent)]
    Port(#[from] PortError),
}

/// Publishes to JetStream.
pub(crate) struct Publisher {
    handle: Handle,
    /// The broker's address without a password.
    address: String,
    client: Client,
    context: Context,
    patience: Patience,
    outages: Outages,
    under_way: VecDeque<UnderWay>,
    resending: Resending,
    acknowledged: u64,
    /// Time of the newest report about waiting.
    said: Cell<Option<Instant>>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("acknowledged", &self.acknowledged).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Connects in the background. Must not be called from a task of the runtime.
    pub(crate) fn open(handle: Handle, url: &str, patience: Patience) -> Result<Publisher, PortError> {
        let outages = Outages::default();
        let client = handle.block_on(connect(url, &outages))?;
        let context = handle.block_on(async { super::context(client.clone()) });
        Ok(Publisher {
            handle,
            address: without_password(url),
            client,
            context,
            patience,
            outages,
            under_way: VecDeque::new(),
            resending: Resending::default(),
            acknowledged: 0,
            said: Cell::new(None),
        })
    }

    /// Sends a message without waiting for its acknowledgement. If more than `UNDER_WAY_MAX` messages are in flight,
    /// waits for the oldest one. Rejects a message that is too large.
    pub(crate) fn push(&mut self, message: Outgoing) -> Result<(), PublishFailure> {
        let sent = self.wait(send(&self.context, &message));
        let (answer, stopped) = match sent {
            Ok(Err(error)) if matches!(error.kind(), PublishErrorKind::MaxPayloadExceeded) => {
                return Err(PublishFailure::TooLarge(message.payload.len()));
            }
            Ok(sent) => (sent.ok(), Ok(())),
            Err(failure) => (None, Err(failure)),
        };
        self.under_way.push_back(UnderWay { message, answer });
        stopped?;
        if self.under_way.len() > UNDER_WAY_MAX { self.settle() } else { Ok(()) }
    }

    /// Waits for acknowledgements until at most `missing_max` are missing.
    pub(crate) fn settle_to(&mut self, missing_max: usize) -> Result<(), PublishFailure> {
        while self.under_way.len() > missing_max {
            self.settle()?;
        }
        Ok(())
    }

    /// Sleeps, unless the process is stopping.
    pub(crate) fn pause(&self, time: Duration) -> Result<(), PublishFailure> {
        let stop = &self.patience.stop;
        let told = self.handle.block_on(async { tokio::time::timeout(time, stop.cancelled()).await });
        told.map_or(Ok(()), |()| Err(PublishFailure::Stopped))
    }

    /// Returns the lowest position of the messages that are not acknowledged yet.
    pub(crate) fn lowest_waiting(&self) -> Option<u64> {
        self.under_way.iter().map(|waiting| waiting.message.place).min()
    }

    /// Returns the number of acknowledged messages.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Waits for the acknowledgement of the oldest message, and retries it while the broker is unreachable.
    fn settle(&mut self) -> Result<(), PublishFailure> {
        let Some(UnderWay { message, answer }) = self.under_way.pop_front() else { return Ok(()) };
        let settled = self.wait(acknowledge(&self.context, &message, answer));
        match settled {
            Ok(Ok(attempt)) => {
                self.acknowledged += 1;
                let burst = self.resending.after(attempt, self.under_way.len());
                self.resend(burst)
            }
            Ok(Err(error)) => {
                let place = message.subject.clone();
                self.under_way.push_front(UnderWay { message, answer: None });
                match error.kind() {
                    PublishErrorKind::StreamNotFound => Err(PublishFailure::NoStream(place)),
                    _ => Err(PortError::Write { place, source: error.into() }.into()),
                }
            }
            Err(failure) => {
                self.under_way.push_front(UnderWay { message, answer: None });
                Err(failure)
            }
        }
    }

    /// Resends, of the `burst` oldest messages, those that the broker refused. A message whose acknowledgement is
    /// still pending is not resent, because the broker may have stored it.
    fn resend(&mut self, burst: usize) -> Result<(), PublishFailure> {
        for at in 0..burst.min(self.under_way.len()) {
            let within_runtime = self.handle.enter();
            self.under_way[at].look();
            drop(within_runtime);
            if self.under_way[at].answer.is_none() {
                let sent = self.wait(send(&self.context, &self.under_way[at].message))?;
                self.under_way[at].answer = sent.ok();
            }
        }
        Ok(())
    }

    /// Runs `work`, which waits for the broker. Reports the waiting periodically, and gives up at the timeout or when
    /// the process stops.
    fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, PublishFailure> {
        let Patience { timeout, stop, say_after: (first, every), say } = &self.patience;
        self.handle.block_on(async {
            let begun = Instant::now();
            // An unstable connection is reported at most once per interval, not once for each message.
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
                        let (address, waited) = (self.address.clone(), begun.elapsed());
                        return Err(PublishFailure::Silent { address, waited, words: self.outages.refusal(NATS) });
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

/// A pushed message and its pending acknowledgement; `answer` is `None` if the message must be sent again.
struct UnderWay {
    message: Outgoing,
    answer: Option<Answer>,
}

type Answer = BoxFuture<'static, Result<(), PublishError>>;

impl UnderWay {
    /// Polls the acknowledgement without waiting. If it is an error that a retry may resolve, drops it, so that the
    /// message is sent again.
    fn look(&mut self) {
        let came = self.answer.as_mut().and_then(FutureExt::now_or_never);
        match came {
            None => {}
            Some(Err(error)) if !is_final(error.kind()) => self.answer = None,
            Some(answer) => self.answer = Some(std::future::ready(answer).boxed()),
        }
    }
}

/// Whether a message was acknowledged at its first attempt or at a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    Again,
}

/// Decides how many refused messages are resent at once.
///
/// Intuition: after a refusal (the broker was full or unreachable), the messages sent after the refused one were
/// most likely refused, too. If they were resent one by one, each would wait for `RETRY_EVERY`. If they were resent
/// all at once, they would overload a broker that has just recovered. So each burst has twice the size of the
/// previous one, and a refusal resets the size to one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Resending {
    /// Number of unacknowledged messages of the newest burst. They are the oldest messages in flight.
    sent: usize,
    /// Number of messages after the burst that were sent before the newest refusal, so they may be refused, too.
    doubtful: usize,
    /// Size of the next burst.
    burst: usize,
}

impl Resending {
    /// Records that the oldest message was acknowledged while `under_way` messages are in flight behind it;
    /// returns how many of them to resend.
    fn after(&mut self, attempt: Attempt, under_way: usize) -> usize {
        match attempt {
            Attempt::Again => *self = Resending { sent: 0, doubtful: under_way, burst: 1 },
            Attempt::First => self.sent = self.sent.saturating_sub(1),
        }
        if self.sent > 0 || self.doubtful == 0 {
            return 0;
        }
        let burst = self.burst.min(self.doubtful);
        *self = Resending { sent: burst, doubtful: self.doubtful - burst, burst: 2 * burst };
        burst
    }
}

/// Formats the broker's refusal as the end of a message to the user; empty if there is none.
pub(crate) fn refused(words: &Option<String>) -> String {
    words.as_ref().map_or(String::new(), |words| format!("; it says: {words}"))
}

/// Waits until the broker acknowledges a message, and retries it until then.
async fn acknowledge(
    context: &Context,
    message: &Outgoing,
    mut answer: Option<Answer>,
) -> Result<Attempt, PublishError> {
    let mut attempt = Attempt::First;
    loop {
        let error = match answer.take() {
            Some(answer) => match answer.await {
                Ok(()) => return Ok(attempt),
                Err(error) => Some(error),
            },
            None => None,
        };
        if let Some(error) = error.filter(|error| is_final(error.kind())) {
            return Err(error);
        }
        sleep(RETRY_EVERY).await;
        attempt = Attempt::Again;
        answer = match send(context, message).await {
            Ok(answer) => Some(answer),
            Err(error) if is_final(error.kind()) => return Err(error),
            Err(_) => None,
        };
    }
}

async fn send(context: &Context, message: &Outgoing) -> Result<Answer, PublishError> {
    let publish = PublishMessage::build()
        .header("Content-Type", message.codec.content_type())
        .message_id(&message.id)
        .payload(message.payload.clone().into());
    let sent = context.send_publish(message.subject.clone(), publish).await?;
    // The timeout starts when the message is sent, not when its acknowledgement is awaited. So acknowledgements that
    // were lost together time out together.
    let answer = timeout_at(Instant::now() + ANSWER_WITHIN, sent.into_future());
    let missed = |_| Err(PublishErrorKind::TimedOut.into());
    Ok(answer.map(move |answer| answer.unwrap_or_else(missed).map(drop)).boxed())
}

/// Whether a retry cannot succeed.
fn is_final(kind: PublishErrorKind) -> bool {
    matches!(kind, PublishErrorKind::StreamNotFound | PublishErrorKind::MaxPayloadExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a refused backlog is resent in few round trips, and each of its messages once. Method: 2,000
    /// messages of which the oldest had to be resent; bursts are counted until all are acknowledged.
    #[test]
    fn a_refused_backlog_goes_again_in_growing_bursts() {
        let mut resending = Resending::default();
        let mut bursts = Vec::new();
        for under_way in (0..UNDER_WAY_MAX).rev() {
            let attempt = if bursts.is_empty() { Attempt::Again } else { Attempt::First };
            bursts.extend(Some(resending.after(attempt, under_way)).filter(|burst| *burst > 0));
        }
        assert_eq!(bursts.iter().sum::<usize>(), UNDER_WAY_MAX - 1);
        assert_eq!(bursts[..4], [1, 2, 4, 8]);
        assert_eq!(bursts.len(), 11);
        assert_eq!(resending.after(Attempt::First, 5), 0);
    }

    #[test]
    fn a_refusal_begins_with_one_again() {
        let mut resending = Resending { sent: 8, doubtful: 100, burst: 16 };
        assert_eq!(resending.after(Attempt::Again, 200), 1);
        assert_eq!(resending, Resending { sent: 1, doubtful: 199, burst: 2 });
    }
}
