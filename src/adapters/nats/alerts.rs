//! The alert stream, read in order by a durable consumer for each receiver.
//!
//! Intuition: the notification log of a receiver stores its position in the stream. A new consumer starts after that
//! position, so alerts that were handed out but not recorded there are delivered again, in order. Invariant: a
//! message is acknowledged after the notification log has recorded it, so the messages pending at the broker are
//! those that the receiver has not recorded. If a message is lost or arrives out of order, a new consumer is
//! created. Rejected: keeping the old consumer (it redelivers lost messages after newer ones).

use super::raw::{self, Found, Which};
use super::reader::MessagePlace;
use super::transition_log::{Places, is_genuine, is_genuine_raw};
use super::{ANSWER_WITHIN, Settings, connect, context};
use crate::core::alert::Transition;
use crate::core::vocab::partition::escape;
use crate::driver::ports::PortError;
use crate::driver::receivers::ports::{AlertFeed, Batch, Others};
use crate::wire::alert;
use crate::wire::signature::Signing;
use crate::wire::subject::Subjects;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::jetstream::{AckKind, Context, Message};
use futures_util::StreamExt;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Maximum number of transitions read at once; each has about 1.5 KiB.
const BATCH_MAX: usize = 256;

/// Maximum number of delivered messages without an acknowledgement. It exceeds one batch, because acknowledgements
/// of earlier batches may still be in flight.
const PENDING_MAX: i64 = 4 * BATCH_MAX as i64;

/// Polling interval for new messages. Polling delays a notification by at most this time.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Time between two checks whether the stream has messages that the consumer does not deliver.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Recognises replayed messages: copies of a genuine message, with its signature, published again by another client.
///
/// Senders number their messages, and each number has its own subject. A message is new if its number exceeds all
/// numbers seen so far for its rule and sender. For any other message, the broker is asked for the first message on
/// its subject; if that is an earlier one, the message is a replay.
#[derive(Debug, Default)]
struct Repeats {
    /// The highest number seen so far, by rule and sender; see [`Subjects::numbered_by`].
    highest: HashMap<String, u64>,
}

impl Repeats {
    /// Returns whether a message with a valid signature is a replay. `in_stream` is its stream sequence.
    async fn is_repeat(
        &mut self,
        context: &Context,
        stream: &str,
        (subject, in_stream): (&str, u64),
    ) -> Result<bool, Cause> {
        let Some(number) = Subjects::alert_number(subject) else { return Ok(false) };
        let of = Subjects::numbered_by(subject);
        if self.highest.get(&of).is_some_and(|highest| number > *highest) {
            self.highest.insert(of, number);
            return Ok(false);
        }
        let which = Which { seq: Some(1), next_by_subj: Some(subject), ..Which::default() };
        let first = raw::get(context, stream, which).await?;
        let is_repeat = first.is_some_and(|first| first.message.sequence < in_stream);
        if !is_repeat {
            let highest = self.highest.entry(of).or_insert(number);
            *highest = number.max(*highest);
        }
        Ok(is_repeat)
    }
}

/// One receiver's position in the stream.
#[derive(Debug)]
pub(crate) struct Alerts {
    handle: Handle,
    context: Context,
    stream: &'static str,
    subject: String,
    name: String,
    signing: Signing,
    repeats: Repeats,
    reading: Option<Reading>,
    /// Until this time, messages are read without a consumer, because a consumer could not deliver one of them.
    raw_until: Option<Instant>,
    /// Two stream sequences of reads without a consumer: that of the newest alert handed out, and that of the last
    /// message examined.
    passed: (u64, u64),
}

#[derive(Debug)]
struct Reading {
    consumer: Consumer<Config>,
    /// `told` is the stream sequence of the newest genuine alert handed out, `newest` that of the newest message
    /// received, and `given` the consumer sequence of that message.
    told: u64,
    newest: u64,
    given: u64,
    unwritten: Vec<Message>,
    /// Whether the stream ends before the receiver's position, because it was recreated. Cleared once it is reported.
    is_anew: bool,
    /// Time of the newest check for messages that the consumer does not deliver.
    asked_at: Instant,
    /// Stream sequence of the undelivered message that this check found, if any.
    held: Option<u64>,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Alerts {
    /// Connects in the background. The methods of [`AlertFeed`] block, so they must not be called from a task of the
    /// runtime.
    pub(crate) async fn open(
        handle: Handle,
        settings: &Settings,
        receiver: &str,
    ) -> Result<Alerts, PortError> {
        let context = context(connect(&settings.url, &settings.outages).await?);
        let subjects = Subjects::new(&settings.root, settings.partition);
        let name = format!("notify-{}", escape(receiver));
        let (stream, subject) = (subjects.alerts_stream(), subjects.all_alerts());
        let signing = settings.signing.clone();
        Ok(Alerts {
            handle,
            context,
            stream,
            subject,
            name,
            signing,
            repeats: Repeats::default(),
            reading: None,
            raw_until: None,
            passed: (0, 0),
        })
    }

    /// Creates a consumer that starts after stream sequence `after`.
    async fn begin(&self, after: u64) -> Result<Reading, Cause> {
        let stream = self.context.get_stream(self.stream).await?;
        // A recreated stream numbers its messages from 1 again, so all of them are new to the receiver.
        let last = stream.cached_info().state.last_sequence;
        let is_anew = last < after;
        let after = if is_anew { 0 } else { after };
        let from = behind(self.passed, after, last);
        // Deleting a consumer that does not exist fails, which is harmless.
        let _ = stream.delete_consumer(&self.name).await;
        let config = Config {
            durable_name: Some(self.name.clone()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from + 1 },
            ack_policy: AckPolicy::Explicit,
            filter_subject: self.subject.clone(),
            max_ack_pending: PENDING_MAX,
            ..Config::default()
        };
        let consumer = tokio::time::timeout(ANSWER_WITHIN, stream.create_consumer(config)).await??;
        let (unwritten, asked_at) = (Vec::new(), Instant::now());
        Ok(Reading {
            consumer,
            told: after,
            newest: from,
            given: 0,
            unwritten,
            is_anew,
            asked_at,
            held: None,
        })
    }

    /// Reads the next alerts with a consumer.
    async fn read(&mut self, after: u64, wait: Duration) -> Result<Batch, Cause> {
        let mut reading = match self.reading.take() {
            Some(reading) if reading.told == after || reading.given == 0 => reading,
            _ => self.begin(after).await?,
        };
        let restart = std::mem::take(&mut reading.is_anew).then_some(0);
        let batch = Batch { restart, ..reading.next(wait, self).await? };
        self.reading = Some(reading);
        Ok(batch)
    }

    /// Reads some of the next alerts without a consumer.
    async fn read_raw(&mut self, after: u64) -> Result<Batch, Cause> {
        let last = self.context.get_stream(self.stream).await?.cached_info().state.last_sequence;
        let from = behind(self.passed, after, last) + 1;
        let some = raw::some(&self.context, self.stream, &self.subject, from..last + 1, raw::BLOCK).await?;
        let mut batch = Batch { alerts: Vec::new(), is_end: some.len() < raw::BLOCK, restart: None };
        let up_to =
            if batch.is_end { last } else { some.last().map_or(last, |found| found.message.sequence) };
        let mut is_fresh = false;
        for Found { message, is_readable } in some {
            if !is_readable {
                self.raw_until = Some(Instant::now() + raw::READ_FOR);
            }
            let is_signed =
                self.signing.settle(&mut is_fresh, |signing| is_genuine_raw(signing, &message))?;
            if !is_signed || self.is_repeat(&message.subject, message.sequence).await? {
                self.signing.note_forged(&message.subject);
                continue;
            }
            let text = String::from_utf8_lossy(&message.payload).into_owned();
            batch.alerts.push((message.sequence, text));
        }
        self.passed = (batch.alerts.last().map_or(after, |(given, _)| *given), up_to);
        Ok(batch)
    }

    async fn is_repeat(&mut self, subject: &str, in_stream: u64) -> Result<bool, Cause> {
        self.repeats.is_repeat(&self.context, self.stream, (subject, in_stream)).await
    }
}

/// Publishes alerts about one receiver's failed deliveries to the alert stream, so that the other receivers get
/// them.
#[derive(Debug)]
pub(crate) struct Beside {
    handle: Handle,
    places: Places,
    subjects: Subjects,
    receiver: String,
}

impl Beside {
    pub(crate) fn new(of: &Alerts, settings: &Settings, receiver: &str) -> Beside {
        let subjects = Subjects::new(&settings.root, settings.partition);
        let (context, signing) = (of.context.clone(), of.signing.clone());
        let places = Places { context, stream: of.stream, signing };
        Beside { handle: of.handle.clone(), places, subjects, receiver: receiver.into() }
    }
}

impl Others for Beside {
    fn tell(&mut self, alert: &Transition) -> Result<(), PortError> {
        // The number is derived from the start time, so a repeated publish has the same number. It is even for the
        // beginning of the alert, and odd for its end.
        let number = alert.started_at.ms().max(0) as u64 * 2 + u64::from(!alert.is_active());
        let subject = self.subjects.aside_of_receiver(alert.severity, &alert.rule, &self.receiver, number);
        let put = self.handle.block_on(self.places.put_once(subject, alert::line(alert).into()));
        put.map_err(|source| PortError::Away { place: "the alert stream".into(), source })
    }
}

impl Reading {
    /// Fetches the messages that the stream has now, without waiting for more. The broker then ends the request, so
    /// it sends no later message to an inbox that nobody reads.
    async fn take(&mut self, of: &mut Alerts) -> Result<Batch, Cause> {
        let mut messages = self.consumer.fetch().max_messages(BATCH_MAX).messages().await?;
        let mut batch = Batch { alerts: Vec::new(), is_end: true, restart: None };
        let mut fetched = Vec::new();
        while let Some(message) = tokio::time::timeout(ANSWER_WITHIN, messages.next()).await? {
            let message = message?;
            let reply = message.reply.as_ref().ok_or("the message has no reply subject")?;
            let place = MessagePlace::parse(reply).ok_or("the reply subject is not one of JetStream")?;
            if place.in_consumer != self.given + 1 || place.in_stream <= self.newest {
                return Err("a message came out of order".into());
            }
            (self.given, self.newest) = (place.in_consumer, place.in_stream);
            batch.is_end = place.pending == 0;
            fetched.push((place.in_stream, place.stamp(), message));
        }
        let mut is_fresh = false;
        for (in_stream, stamp, message) in fetched {
            let is_signed =
                of.signing.settle(&mut is_fresh, |signing| is_genuine(signing, &message, stamp))?;
            if !is_signed || of.is_repeat(&message.subject, in_stream).await? {
                of.signing.note_forged(&message.subject);
                // A rejected message is acknowledged, so that the broker does not redeliver it or count it towards
                // `max_ack_pending`.
                message.ack_with(AckKind::Ack).await.map_err(|error| error.to_string())?;
                continue;
            }
            self.told = in_stream;
            batch.alerts.push((in_stream, String::from_utf8_lossy(&message.payload).into_owned()));
            self.unwritten.push(message);
        }
        Ok(batch)
    }

    /// Fetches like [`Reading::take`], but waits until a message arrives.
    async fn next(&mut self, wait: Duration, of: &mut Alerts) -> Result<Batch, Cause> {
        let begun = tokio::time::Instant::now();
        loop {
            let batch = self.take(of).await?;
            if !batch.alerts.is_empty() || begun.elapsed() >= wait {
                self.find_all_given(&batch, of).await?;
                return Ok(batch);
            }
            tokio::time::sleep(LOOK_EVERY.min(wait.saturating_sub(begun.elapsed()))).await;
        }
    }

    /// Fails if the consumer has not delivered a message that the stream already had at the previous check; for
    /// example, an operator has paused the consumer. The next read then creates a new consumer. Checks at most every
    /// [`ASK_EVERY`], and only while nothing arrives.
    async fn find_all_given(&mut self, batch: &Batch, of: &Alerts) -> Result<(), Cause> {
        if !batch.alerts.is_empty() || self.asked_at.elapsed() < ASK_EVERY {
            return Ok(());
        }
        self.asked_at = Instant::now();
        raw::find_held_back(&of.context, of.stream, (&of.subject, self.newest + 1), &mut self.held).await
    }
}

impl AlertFeed for Alerts {
    fn next(&mut self, after: u64, wait: Duration) -> Result<Batch, PortError> {
        if !self.signing.is_known() {
            let source = "the signing key of the alerts is not read yet".into();
            return Err(PortError::Away { place: self.stream.into(), source });
        }
        let handle = self.handle.clone();
        let read = handle.block_on(async {
            if self.raw_until.is_some_and(|until| Instant::now() < until) {
                let batch = self.read_raw(after).await?;
                if batch.alerts.is_empty() && batch.is_end {
                    tokio::time::sleep(LOOK_EVERY.min(wait)).await;
                }
                return Ok(batch);
            }
            match self.read(after, wait).await {
                Ok(batch) => Ok(batch),
                // The consumer may have failed at a message that it cannot deliver, so read once without it.
                Err(error) => self.read_raw(after).await.map_err(|_| error),
            }
        });
        read.map_err(|source: Cause| PortError::Away { place: self.stream.into(), source })
    }

    fn done(&mut self) {
        let Some(reading) = &mut self.reading else { return };
        let messages = std::mem::take(&mut reading.unwritten);
        self.handle.block_on(async {
            for message in messages {
                // A lost acknowledgement is harmless: the broker redelivers the message, the sequence check fails,
                // and a new consumer starts after the message.
                let _ = message.ack_with(AckKind::Ack).await;
            }
        });
    }
}

/// Returns the stream sequence after which reading continues. `last` is the stream's last sequence; the notification
/// log has recorded all alerts up to `after`; `given` and `up_to` are the fields of [`Alerts::passed`]. If the newest
/// alert handed out is recorded, reading continues after the last message examined. If it is not, reading continues
/// after `after`, so that the alert is handed out again.
fn behind((given, up_to): (u64, u64), after: u64, last: u64) -> u64 {
    if given <= after && up_to <= last { after.max(up_to) } else { after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_out_and_not_written_down_comes_again() {
        assert_eq!(behind((5, 9), 4, 20), 4);
        assert_eq!(behind((5, 9), 5, 20), 9, "the messages of others up to 9 are passed over");
        assert_eq!(behind((5, 9), 12, 20), 12);
        assert_eq!(behind((5, 9), 5, 7), 5, "the stream is another one");
    }
}
